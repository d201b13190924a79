/* The pool of lent pipes.
 *
 * What the kernel does to pipes (pipe(7), fs/pipe.c), and what follows:
 *  - A user without CAP_SYS_RESOURCE owns at most pipe-user-pages-soft pages of pipe (16384: 64
 *    MiB). Beyond it new pipes are born with 2 pages and F_SETPIPE_SZ is refused with EPERM. Such
 *    a pipe is worse than copying, so its real size is read back and a small one is closed again
 *  (P3). - Capacity is counted in slots, one per page or socket fragment, and a slot may hold more
 *    or less than a page. So the size here only says "large enough to be worth it", never "full".
 *  - After a refusal the next PIPE_REFUSALS requests are refused without asking: two system calls
 *    for each bulk read of each flow would cost more than splice could save.
 *
 * Invariants: P1 lent + kept <= pipes_max. P2 a kept pipe is empty: only pipe_pool_return(empty)
 * puts one there, and debug builds ask the kernel at both doors. P3 a pipe in the pool is at least
 * PIPE_BYTES_MIN. */
#include "net/pipes.h"

#include "base/check.h"
#include "net/sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIPE_REFUSALS = 64, /* requests refused after the kernel refused one */
    /* Of the quota, which all processes of a user share, a worker keeps so much for next time; and
     * what it lends beyond that is in smaller pieces, so that many slow readers find some, too. */
    KEPT_BYTES_MAX = 16 * 1024 * 1024,
    PIPES_KEPT_MAX = 64,
    PIPE_BYTES_OF_MANY = 256 * 1024
};

int pipe_pool_init(struct pipe_pool *pool, size_t pipes_max, int pipe_bytes,
                   struct metrics *metrics)
{
    CHECK(pipe_bytes >= PIPE_BYTES_MIN && pipe_bytes <= PIPE_BYTES_MAX);
    memset(pool, 0, sizeof(*pool));
    pool->pipes_max = pipes_max;
    pool->pipe_bytes = pipe_bytes;
    pool->metrics = metrics;
    if (pipes_max == 0) {
        return 0;
    }
    pool->records = calloc(pipes_max, sizeof(*pool->records));
    if (pool->records == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < pipes_max; i++) {
        pool->records[i].next = pool->vacant;
        pool->vacant = &pool->records[i];
    }
    return 0;
}

static void destroy(struct pipe_pool *pool, struct pipe *pipe)
{
    sys_close(pipe->read_fd);
    sys_close(pipe->write_fd);
    pipe->read_fd = -1;
    pipe->write_fd = -1;
    pipe->next = pool->vacant;
    pool->vacant = pipe;
}

void pipe_pool_fini(struct pipe_pool *pool)
{
    CHECK(pool->pipes_lent == 0);
    while (pool->kept != NULL) {
        struct pipe *pipe = pool->kept;

        pool->kept = pipe->next;
        destroy(pool, pipe);
    }
    pool->pipes_kept = 0;
    free(pool->records);
    pool->records = NULL;
    pool->vacant = NULL;
}

/* Opens a pipe and reads back what was granted. False: the kernel has none that is worth it. */
static bool open_pipe(struct pipe *pipe, int pipe_bytes, bool *ret_degraded)
{
    int fds[2];
    int size_bytes;

    *ret_degraded = true;
    if (sys_pipe(fds) < 0) {
        return false;
    }
    size_bytes = sys_pipe_resize(fds[1], pipe_bytes);
    if (size_bytes < 0) {
        size_bytes = sys_pipe_size(fds[1]);
    }
    *ret_degraded = size_bytes < pipe_bytes;
    if (size_bytes < PIPE_BYTES_MIN) { /* P3; a failed read-back is negative */
        sys_close(fds[0]);
        sys_close(fds[1]);
        return false;
    }
    pipe->read_fd = fds[0];
    pipe->write_fd = fds[1];
    return true;
}

static int bytes_of_next(const struct pipe_pool *pool)
{
    bool many = (pool->pipes_lent + 1) * (size_t)pool->pipe_bytes > KEPT_BYTES_MAX;

    return many && pool->pipe_bytes > PIPE_BYTES_OF_MANY ? PIPE_BYTES_OF_MANY : pool->pipe_bytes;
}

static struct pipe *create(struct pipe_pool *pool)
{
    struct pipe *pipe = pool->vacant;
    bool degraded;
    bool opened;

    if (pipe == NULL) {
        return NULL; /* P1 */
    }
    if (pool->refusals_left > 0) {
        pool->refusals_left--;
        return NULL;
    }
    opened = open_pipe(pipe, bytes_of_next(pool), &degraded);
    if (degraded) {
        metric_add(&pool->metrics->pipes_degraded, 1);
    }
    if (!opened) {
        pool->refusals_left = PIPE_REFUSALS;
        return NULL;
    }
    pool->vacant = pipe->next;
    return pipe;
}

struct pipe *pipe_pool_lend(struct pipe_pool *pool)
{
    struct pipe *pipe = pool->kept;

    if (pipe != NULL) {
        pool->kept = pipe->next;
        pool->pipes_kept--;
    } else {
        pipe = create(pool);
    }
    if (pipe != NULL) {
        pipe->next = NULL;
        pool->pipes_lent++;
        DCHECK(sys_readable_bytes(pipe->read_fd) == 0); /* P2 */
    }
    return pipe;
}

void pipe_pool_return(struct pipe_pool *pool, struct pipe *pipe, bool empty)
{
    CHECK(pool->pipes_lent > 0);
    pool->pipes_lent--;
    if (!empty || pool->pipes_kept >= PIPES_KEPT_MAX ||
        (pool->pipes_kept + 1) * (size_t)pool->pipe_bytes > KEPT_BYTES_MAX) {
        destroy(pool, pipe);
        return;
    }
    DCHECK(sys_readable_bytes(pipe->read_fd) == 0); /* P2 */
    pipe->next = pool->kept;
    pool->kept = pipe;
    pool->pipes_kept++;
}
