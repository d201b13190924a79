/* Layer: relay. What all sessions and listeners of one worker share: supplies, settings, counters,
 * and the callbacks to the layers above. */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include "base/metrics.h"
#include "base/slab.h"
#include "net/sock.h"
#include "relay/flow.h"
#include "relay/loop.h"
#include "relay/record.h"

struct session;

/** A server as a session sees it: an address and the name for the record. Lives as long as the
 *  relay; owned by the layer above. */
struct target {
    struct addr addr;
    const char *name;
};

/** How far a session has come through the servers of its pool. Zeroed before the first pick. */
struct tries {
    uint32_t first; /* private to the picker */
    uint32_t made;  /* servers given so far */
};

/** Gives the next server to try, NULL when all were tried. Called again after a failed connect. */
typedef const struct target *pick_fn(void *pool, struct tries *tries);

/** Called once for each connection, when it has ended. */
typedef void ended_fn(void *owner, const struct record *record);

/** Called when accepting has to pause: `error` is the errno, 0 means max-connections. */
typedef void paused_fn(void *owner, const char *listener, int error);

/** Limits and times, from the configuration. A time of 0 means: no such limit. */
struct relay_settings {
    uint64_t connect_timeout_ns; /* for each server tried; never 0 */
    uint64_t idle_timeout_ns;
    uint64_t fin_timeout_ns;
    struct sock_tuning tuning;
    const struct addr *source; /* borrowed; NULL: the kernel chooses */
    enum splice_mode splice;
    size_t sessions_max; /* of this worker, at least 1 */
    size_t pipes_max;    /* of this worker */
    int pipe_bytes;      /* size of each, see pipes.h */
    bool want_details;   /* records are read by someone: ask the kernel for addresses and RTT */
};

/** What the audit of debug builds remembers, see audit.c. */
struct audit {
    size_t next;       /* the first session of the next sample */
    uint32_t waits;    /* since when, in waits, the kernel disagrees */
    uint64_t since_ns; /* the same as a time */
};

struct relay {
    struct loop *loop; /* borrowed */
    struct relay_settings settings;
    struct flow_supplies supplies;
    struct slab sessions;
    struct list_node live; /* all sessions */
    size_t live_count;
    uint64_t next_id;
    struct metrics *metrics; /* borrowed: this worker's shard */
    /* callbacks */
    ended_fn *on_ended;
    paused_fn *on_paused;
    void *owner;
    /* private: accepting */
    struct list_node listeners;
    struct session *spare_session; /* what the next connection needs, got before its client is */
    int spare_fd;                  /* accepted: a record, and a socket for the server leg (or -1) */
    sa_family_t spare_family;
    struct audit audit; /* private */
};

/** Prepares a relay without listeners. Ids count up from `first_id`. 0 or -ENOMEM. */
MUST_CHECK int relay_init(struct relay *relay, struct loop *loop,
                          const struct relay_settings *settings, uint64_t first_id,
                          struct metrics *metrics);

/** All sessions must have ended and been released, all listeners be closed. */
void relay_fini(struct relay *relay);

/** Ends every session with `reason`. `deliver`: what was received is passed on first, for at most a
 *  second; otherwise at once. */
void relay_end_all(struct relay *relay, enum reason reason, bool deliver);

#endif
