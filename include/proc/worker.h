/* Layer: proc. A worker process: one reactor, its listeners and sessions; told what to do by its
 * control pipe. */
#ifndef PROC_WORKER_H
#define PROC_WORKER_H

#include "base/line.h"
#include "base/metrics.h"
#include "proc/plan.h"
#include "proc/privileges.h"
#include "relay/relay.h"

/** One byte each through the control pipe, master to worker. A closed pipe (the master is gone)
 *  means CONTROL_STOP. */
enum control {
    CONTROL_DRAIN = 'd',          /* accept no more, end when the last connection has ended */
    CONTROL_DRAIN_DEADLINE = 'D', /* the same, but cut what remains after drain-timeout */
    CONTROL_STOP = 's'            /* reset all connections and end now */
};

/** All that a worker is told at its start; made by the master, inherited through fork(2). */
struct worker_start {
    const struct plan *plan;
    size_t index; /* 0 .. workers - 1 */
    uint32_t
        start_number; /* counts all workers ever started: the upper 24 bits of connection ids */
    int control_fd;   /* reading end, non-blocking */
    int log_fd;       /* writing end, non-blocking */
    enum line_format log_format;
    bool log_records;
    struct relay_settings settings;
    uint64_t drain_timeout_ns;
    uint64_t busy_poll_ns;           /* 0: none */
    const struct identity *identity; /* NULL: stay who we are */
    struct metrics *metrics;         /* this worker's shard */
};

/** Runs the worker until it has drained or was told to stop. Returns the exit status. */
MUST_CHECK int worker_run(const struct worker_start *start);

#endif
