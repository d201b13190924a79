/* Test support: one flow between two socket pairs, without epoll.
 *
 *     writer ===> source  --[ flow ]-->  target ===> reader
 *
 * The test is both peers. Ready bits are set by hand: lane_write(), lane_shut() and lane_read() set
 * the bit that epoll's edge would set. lane_step() holds the flow to its promises after every
 * single step:
 *
 *  - it rests if and only if the park rule lets it;
 *  - no byte is lost or doubled between the kernel's queues and the flow's counters;
 *  - a ready bit that it cleared is not ready for the kernel either (no lost wake-up);
 *  - FIN is passed on once, last, and only by a flow that is finished;
 *  - a pipe or a buffer is held only while it holds bytes.
 *
 * Where a fault told a lie (-EAGAIN), lane_step() sets the bit again, as the edge rule demands. */
#ifndef SUPPORT_UNIT_LANE_H
#define SUPPORT_UNIT_LANE_H

#include "base/metrics.h"
#include "relay/flow.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What the socket pairs are. A unix pair is exact: what one end wrote, the other can read at
 *  once. */
enum lane_kind { LANE_UNIX, LANE_TCP, LANE_KINDS };

enum { LANE_PIPES_MAX = 4, LANE_BUFFERS_MAX = 4 };

enum lane_end { LANE_NO_END, LANE_FIN, LANE_RESET };

struct lane {
    struct flow flow;
    struct io source;
    struct io target;
    struct flow_supplies supplies;
    struct metrics metrics;
    struct task task;
    int writer;
    int reader;
    enum lane_kind kind;
    uint64_t key;      /* of the stream, see support/stream.h */
    uint64_t written;  /* by the writer */
    uint64_t received; /* by the reader, each byte checked */
    enum lane_end end; /* what the reader has seen */
    bool writer_shut;
    unsigned shutdowns;        /* of the target that went well */
    enum flow_outcome outcome; /* of the last step */
    size_t fds_before;
};

/** Opens a lane whose flow is open and empty. Both sides are ready: the flow must find out. */
void lane_init(struct lane *lane, enum lane_kind kind, enum splice_mode splice);
/** The same with other supplies: pipes of `pipe_bytes`, at most `pipes_max`. */
void lane_init_pipes(struct lane *lane, enum lane_kind kind, enum splice_mode splice,
                     size_t pipes_max, int pipe_bytes);
/** Gives up the flow if it is not over and closes everything; nothing may stay behind. */
void lane_fini(struct lane *lane);

/** Writes at most `len` bytes of the stream; returns how many the kernel took, which are then at
 *  the source. */
size_t lane_write(struct lane *lane, size_t len);
/** Writes all of them, which must fit. */
void lane_write_all(struct lane *lane, size_t len);
/** The writer's FIN; it is at the source when this returns. */
void lane_shut(struct lane *lane);
/** Ends the writer's connection by RST (TCP) or the nearest to it (unix). */
void lane_reset_writer(struct lane *lane);
/** The same for the reader's connection. */
void lane_reset_reader(struct lane *lane);

/** Reads at most `len` bytes, checks them, and returns how many there were. */
size_t lane_read(struct lane *lane, size_t len);
/** Reads what is there. */
size_t lane_read_all(struct lane *lane);
/** Waits until the reader has received `total` bytes since the start, without any step. */
void lane_await(struct lane *lane, uint64_t total);

/** One step, checked as said above. */
enum flow_outcome lane_step(struct lane *lane);
/** Steps until the flow rests or starves; fails when that takes too many steps. */
enum flow_outcome lane_pump(struct lane *lane);
/** Steps and reads until the flow is over and the reader has all that it gets. */
void lane_finish(struct lane *lane);
/** Writes and steps until the target takes no more: the flow then holds bytes, the source is
 *  empty. */
void lane_stall(struct lane *lane);

/** The reader got every byte written and FIN behind it, FIN went out once, and nothing is
 *  borrowed. */
void lane_expect_complete(struct lane *lane);

/** Descriptors that this process has open. */
size_t count_open_fds(void);

#endif
