/* Layer: net. Pipes, lent to a flow while it holds bytes for splice(2), and shared by all of them.
 *
 * A pipe is two descriptors and a share of the user's page quota (pipe(7), pipe-user-pages-soft),
 * far too much to give each connection one. So the pool has a limit, keeps a few empty pipes warm,
 * and says no when there is none: the flow then copies. */
#ifndef NET_PIPES_H
#define NET_PIPES_H

#include "base/macros.h"
#include "base/metrics.h"

#include <stdbool.h>
#include <stddef.h>

struct pipe {
    int read_fd;
    int write_fd;
    /* private */
    struct pipe *next;
};

struct pipe_pool {
    size_t pipes_max;  /* existing at once, lent or kept */
    size_t pipes_lent; /* with a flow now */
    size_t pipes_kept; /* empty, waiting in the pool */
    int pipe_bytes;    /* the size to ask the kernel for */
    /* private */
    struct pipe *kept;       /* the one returned last first */
    struct pipe *vacant;     /* records without descriptors */
    struct pipe *records;    /* owned: pipes_max of them */
    unsigned refusals_left;  /* requests to refuse before the kernel is asked again */
    struct metrics *metrics; /* borrowed */
};

enum {
    PIPE_BYTES_MIN = 64 * 1024,      /* what pipe2(2) gives when nothing is short */
    PIPE_BYTES_MAX = 1024 * 1024,    /* the usual pipe-max-size of an unprivileged user */
    PIPE_BYTES_DEFAULT = 1024 * 1024 /* with several flows cheaper than 256 KiB: ARCHITECTURE, D9 */
};

/** Prepares a pool of at most `pipes_max` pipes (0: it always refuses), each of about `pipe_bytes`,
 *  PIPE_BYTES_MIN to PIPE_BYTES_MAX. -ENOMEM or 0. */
MUST_CHECK int pipe_pool_init(struct pipe_pool *pool, size_t pipes_max, int pipe_bytes,
                              struct metrics *metrics);

/** Closes the kept pipes. All lent ones must be back. A zeroed pool is accepted. */
void pipe_pool_fini(struct pipe_pool *pool);

/** Lends an empty pipe of a useful size, NULL when there is none to be had now. */
MUST_CHECK struct pipe *pipe_pool_lend(struct pipe_pool *pool);

/** Takes a pipe back. `empty`: every byte that went in came out. Any other pipe is closed: its
 *  bytes belong to one connection and must never meet another. */
void pipe_pool_return(struct pipe_pool *pool, struct pipe *pipe, bool empty);

#endif
