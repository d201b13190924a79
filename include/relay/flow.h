/* Layer: relay. One direction of a connection: moves bytes from a source to a target, then passes
 * on the end of the stream. The heart of sluice; flow.c explains how. */
#ifndef RELAY_FLOW_H
#define RELAY_FLOW_H

#include "base/slab.h"
#include "net/pipes.h"
#include "relay/loop.h"

#include <stdbool.h>
#include <stdint.h>

/** Bytes one read of the copy engine can take: the size of the objects in flow_supplies.buffers. */
enum { FLOW_BUFFER_BYTES = 64 * 1024 };

/** When to move bytes through a pipe instead of a buffer. */
enum splice_mode { SPLICE_AUTO, SPLICE_ALWAYS, SPLICE_NEVER };

/** What flows borrow from: one of each per worker. */
struct flow_supplies {
    struct slab buffers; /* of FLOW_BUFFER_BYTES */
    struct pipe_pool pipes;
    enum splice_mode splice;
};

enum flow_state {
    FLOW_OPEN,     /* the source may still give bytes */
    FLOW_DRAINING, /* the source has ended; the channel still holds bytes */
    FLOW_FINISHED, /* every byte was passed on, then FIN */
    FLOW_FAILED,   /* ended otherwise: the target must not see a clean end */
    FLOW_STATES
};

/** Why flow_step() returned. */
enum flow_outcome {
    FLOW_RESTS, /* the park rule holds: an edge will come when there is more to do, or it is over */
    FLOW_HAS_MORE, /* the budget is spent: step again in the next turn */
    FLOW_STARVES   /* memory was short: no edge will come; step again after a pause */
};

struct flow {
    uint64_t bytes_in;      /* taken from the source since the start */
    uint64_t bytes_spliced; /* of those passed on: through a pipe */
    /* private: the channel, see flow.c */
    struct pipe *pipe;       /* lent while it holds bytes, else NULL */
    unsigned char *buffer;   /* from the slab while it holds bytes, else NULL */
    uint64_t pipe_bytes;     /* in the pipe; F_GETPIPE_SZ bounds it in neither direction */
    uint32_t buffer_start;   /* the first unsent byte of the buffer */
    uint32_t buffer_end;     /* behind the last one */
    uint32_t fill_run_bytes; /* taken since the source was last seen empty */
    uint8_t state;           /* enum flow_state */
    bool splicing;           /* the engine in use */
    bool splice_refused;     /* the kernel does not splice these sockets */
    bool pipe_blocked;       /* the pipe took nothing more; until a byte has left it */
    bool source_failed;      /* the source ended by an error, not by FIN */
    bool is_last;            /* set by the owner before a step: the other direction is finished, so
                              * the target is closed as soon as this one is, and that sends FIN */
};

/** Prepares an open, empty flow. */
void flow_init(struct flow *flow);

/** Moves bytes from `source` to `target` until the park rule holds or the budget is spent, clearing
 *  their ready bits where a call proved them wrong and storing the first error of each in its io. A
 *  flow whose target has an error fails. Nothing happens to one that is over. */
MUST_CHECK enum flow_outcome flow_step(struct flow *flow, struct io *source, struct io *target,
                                       struct flow_supplies *supplies);

/** Reads no more from the source, as if it had failed: what the channel holds is still passed
 *  on. */
void flow_stop(struct flow *flow);

/** Gives up at once: drops what the channel holds and returns what it borrowed. From then on
 *  flow_held_bytes() says how much was dropped. Nothing happens to a flow that is over. */
void flow_fail(struct flow *flow, struct flow_supplies *supplies);

/** Bytes taken from the source and not yet passed on. */
static inline uint64_t flow_held_bytes(const struct flow *flow)
{
    return flow->pipe_bytes + (flow->buffer_end - flow->buffer_start);
}

/** Bytes the target's socket has taken since the start. */
static inline uint64_t flow_bytes_out(const struct flow *flow)
{
    return flow->bytes_in - flow_held_bytes(flow);
}

/** True when nothing can move any more: finished or failed. */
static inline bool flow_is_over(const struct flow *flow)
{
    return flow->state == FLOW_FINISHED || flow->state == FLOW_FAILED;
}

/** True when the flow may rest: nothing it could do now is left undone (the park rule). */
bool flow_may_rest(const struct flow *flow, const struct io *source, const struct io *target);

#endif
