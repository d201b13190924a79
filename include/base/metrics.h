/* Layer: base. Counters that outlive the worker that counts: one shard per worker, in memory that
 * the master maps before it forks.
 *
 * A shard has one writer, its worker, so an addition is a plain load and store: no lock, no
 * read-modify-write. Readers sum the shards and may see one a moment late, never torn. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include "base/macros.h"
#include "base/reason.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef _Atomic uint64_t metric;

struct metrics {
    metric accepted;             /* connections accepted */
    metric closed[REASON_COUNT]; /* connections ended, by reason */
    metric bytes_up;             /* delivered to servers */
    metric bytes_down;           /* delivered to clients */
    metric spliced_bytes;        /* of both: moved through a pipe */
    metric log_dropped;          /* records that the log writer had no room for */
    metric
        accept_errors; /* clients that could not be accepted, or not yet: accept4(2), or a shortage */
    metric pipes_degraded;      /* pipes that the kernel made smaller than asked, or refused */
} __attribute__((aligned(64))); /* two workers never write to the same cache line */

/** Adds to a counter of the caller's own shard. */
static inline void metric_add(metric *counter, uint64_t value)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + value,
                          memory_order_relaxed);
}

/** Reads a counter of any shard. */
static inline uint64_t metric_get(const metric *counter)
{
    return atomic_load_explicit((metric *)(uintptr_t)counter, memory_order_relaxed);
}

/** Connections that a shard has seen end, over all reasons. */
uint64_t metrics_closed(const struct metrics *shard);

/** Maps `shards` zeroed shards, shared with every process forked afterwards. NULL and errno when
 *  there is no memory or no descriptor. Lives until the process ends. */
MUST_CHECK struct metrics *metrics_map(size_t shards);

#endif
