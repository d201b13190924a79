/* Layer: proc. How much a worker may hold, computed from the descriptor limit. */
#ifndef PROC_LIMITS_H
#define PROC_LIMITS_H

#include "base/macros.h"

#include <stddef.h>
#include <stdint.h>

struct limits {
    uint64_t descriptors; /* RLIMIT_NOFILE, soft, after it was raised */
    size_t workers;
    size_t connections_max; /* over all workers */
    size_t pipes_max;       /* of each worker */
};

/** Raises the soft descriptor limit to the hard one and returns it; 0 if it can't be read. */
uint64_t limits_raise_descriptors(void);

/** The processors this process may run on, at least 1. */
size_t limits_processors(void);

/** Shares `descriptors` out. `workers` and `max_connections` are the configured numbers, 0 for
 *  auto; `listeners` is the number of listening sockets of a worker. There are never more workers
 *  than connections. NULL on success, or a static sentence that says which number is impossible. */
MUST_CHECK const char *limits_compute(uint64_t descriptors, uint64_t workers,
                                      uint64_t max_connections, size_t listeners,
                                      struct limits *ret_limits);

/** The part of connections_max that belongs to worker `index`: parts differ by at most one. */
size_t limits_share(const struct limits *limits, size_t index);

#endif
