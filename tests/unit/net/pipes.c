/* Tests of the pool of pipes, with real pipes and real limits: the descriptor limit of the test's
 * process, and the page quota of a user that exists only for the test. */
#include "net/pipes.h"

#include "base/macros.h"
#include "net/sys.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    KEPT_MAX = 64, /* the two numbers of pipes.c */
    REFUSALS = 64
};

static struct metrics metrics;

static size_t count_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    cr_assert(dir != NULL);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

static void init(struct pipe_pool *pool, size_t pipes_max, int pipe_bytes)
{
    cr_assert(pipe_pool_init(pool, pipes_max, pipe_bytes, &metrics) == 0);
}

static struct pipe *lend(struct pipe_pool *pool)
{
    struct pipe *pipe = pipe_pool_lend(pool);

    cr_assert(pipe != NULL);
    return pipe;
}

static void assert_counts(const struct pipe_pool *pool, size_t lent, size_t kept)
{
    cr_assert(pool->pipes_lent == lent, "%zu lent, not %zu", pool->pipes_lent, lent);
    cr_assert(pool->pipes_kept == kept, "%zu kept, not %zu", pool->pipes_kept, kept);
}

/* The pool has its limit and not one pipe more, lent or kept; what comes back can go out again. */
Test(pipes, exist_up_to_the_limit)
{
    enum { LIMIT = 5 };
    struct pipe *pipes[LIMIT];
    struct pipe_pool pool;

    init(&pool, LIMIT, PIPE_BYTES_MIN);
    assert_counts(&pool, 0, 0);
    for (size_t i = 0; i < LIMIT; i++) {
        pipes[i] = lend(&pool);
        assert_counts(&pool, i + 1, 0);
    }
    for (size_t i = 0; i < 3; i++) {
        cr_assert(pipe_pool_lend(&pool) == NULL);
    }
    pipe_pool_return(&pool, pipes[2], true);
    assert_counts(&pool, LIMIT - 1, 1);
    pipes[2] = lend(&pool);
    cr_assert(pipe_pool_lend(&pool) == NULL);
    pipe_pool_return(&pool, pipes[2], false);
    assert_counts(&pool, LIMIT - 1, 0);
    pipes[2] = lend(&pool);
    cr_assert(pipe_pool_lend(&pool) == NULL);
    for (size_t i = 0; i < LIMIT; i++) {
        pipe_pool_return(&pool, pipes[i], true);
    }
    assert_counts(&pool, 0, LIMIT);
    /* Having none left is the limit's doing and not the kernel's. */
    cr_assert(metric_get(&metrics.pipes_degraded) == 0);
    pipe_pool_fini(&pool);
}

/* With no pipes allowed the answer is always no, and nothing is asked of the kernel. */
Test(pipes, of_an_empty_pool_are_always_refused)
{
    size_t before = count_open_fds();
    struct pipe_pool pool;

    init(&pool, 0, PIPE_BYTES_DEFAULT);
    for (size_t i = 0; i < 100; i++) {
        cr_assert(pipe_pool_lend(&pool) == NULL);
    }
    cr_assert(metric_get(&metrics.pipes_degraded) == 0);
    cr_assert(count_open_fds() == before);
    pipe_pool_fini(&pool);
}

/* Every pipe is what a flow needs: two ends of one pipe, empty, not blocking, closed by an exec, of
 * the size asked for. */
Test(pipes, are_empty_and_of_the_size_asked_for)
{
    static const int sizes[] = {PIPE_BYTES_MIN, PIPE_BYTES_DEFAULT, PIPE_BYTES_MAX};

    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct pipe_pool pool;
        struct pipe *pipe;
        char byte = 0;

        init(&pool, 1, sizes[i]);
        pipe = lend(&pool);
        if (metric_get(&metrics.pipes_degraded) == 0 && geteuid() == 0) {
            cr_assert(fcntl(pipe->write_fd, F_GETPIPE_SZ) == sizes[i]);
        }
        cr_assert(fcntl(pipe->write_fd, F_GETPIPE_SZ) >= PIPE_BYTES_MIN);
        cr_assert((fcntl(pipe->read_fd, F_GETFL) & O_ACCMODE) == O_RDONLY);
        cr_assert((fcntl(pipe->write_fd, F_GETFL) & O_ACCMODE) == O_WRONLY);
        cr_assert(sys_read(pipe->read_fd, &byte, 1) == -EAGAIN);
        cr_assert(write(pipe->write_fd, "x", 1) == 1);
        cr_assert(sys_read(pipe->read_fd, &byte, 1) == 1);
        cr_assert(byte == 'x');
        cr_assert(fcntl(pipe->read_fd, F_GETFD) == FD_CLOEXEC);
        cr_assert(fcntl(pipe->write_fd, F_GETFD) == FD_CLOEXEC);
        pipe_pool_return(&pool, pipe, true);
        pipe_pool_fini(&pool);
    }
}

/* A size that no pipe should have is a bug of the caller. */
Test(pipes, init_aborts_on_a_size_below_the_minimum, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct pipe_pool pool;

    init(&pool, 1, PIPE_BYTES_MIN - 1);
}

/* The same above. */
Test(pipes, init_aborts_on_a_size_above_the_maximum, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct pipe_pool pool;

    init(&pool, 1, PIPE_BYTES_MAX + 1);
}

/* More records than memory has: an error and no crash. Disabled under ASan, whose allocator ends the
 * process instead. */
#ifdef __SANITIZE_ADDRESS__
enum { ALLOCATOR_ABORTS = 1 };
#else
enum { ALLOCATOR_ABORTS = 0 };
#endif
Test(pipes, init_reports_that_memory_is_short, .disabled = ALLOCATOR_ABORTS)
{
    struct pipe_pool pool;

    cr_assert(pipe_pool_init(&pool, SIZE_MAX / 2, PIPE_BYTES_MIN, &metrics) == -ENOMEM);
    pipe_pool_fini(&pool);
}

/* --- reuse --- */

/* The pipe that came back last goes out first (its memory is warm), and no descriptor is opened. */
Test(pipes, returned_last_are_lent_first)
{
    struct pipe_pool pool;
    struct pipe *first;
    struct pipe *second;
    size_t before;

    init(&pool, 4, PIPE_BYTES_MIN);
    first = lend(&pool);
    second = lend(&pool);
    pipe_pool_return(&pool, first, true);
    pipe_pool_return(&pool, second, true);
    before = count_open_fds();
    for (size_t i = 0; i < 100; i++) {
        struct pipe *again = lend(&pool);

        cr_assert(again == second);
        pipe_pool_return(&pool, again, true);
    }
    cr_assert(lend(&pool) == second);
    cr_assert(lend(&pool) == first);
    cr_assert(count_open_fds() == before);
    pipe_pool_return(&pool, first, true);
    pipe_pool_return(&pool, second, true);
    pipe_pool_fini(&pool);
}

/* Bytes of one connection never meet another: a pipe that is returned with bytes in it is closed at
 * both ends, and whatever the next borrower gets is empty. */
Test(pipes, with_bytes_in_them_are_never_lent_again)
{
    static const char secret[] = "of another connection";
    struct pipe_pool pool;
    size_t before = count_open_fds();

    init(&pool, 2, PIPE_BYTES_MIN);
    for (size_t i = 0; i < 200; i++) {
        struct pipe *dirty = lend(&pool);
        struct pipe *next;
        char bytes[64];
        int end = dup(dirty->read_fd); /* looks into the old pipe from outside */

        cr_assert(end >= 0);
        cr_assert(write(dirty->write_fd, secret, sizeof(secret)) == sizeof(secret));
        pipe_pool_return(&pool, dirty, false);
        assert_counts(&pool, 0, 0);
        cr_assert(read(end, bytes, sizeof(bytes)) == sizeof(secret));
        cr_assert(read(end, bytes, sizeof(bytes)) == 0, "a writing end is still open");
        (void)close(end);
        cr_assert(count_open_fds() == before);
        next = lend(&pool);
        cr_assert(sys_readable_bytes(next->read_fd) == 0);
        cr_assert(sys_read(next->read_fd, bytes, sizeof(bytes)) == -EAGAIN);
        pipe_pool_return(&pool, next, i % 2 == 0);
        if (i % 2 == 0) {
            pipe_pool_return(&pool, lend(&pool), false);
        }
    }
    pipe_pool_fini(&pool);
    cr_assert(count_open_fds() == before);
}

#ifdef SLUICE_DEBUG
enum { CHECKS_ARE_OFF = 0 };
#else
enum { CHECKS_ARE_OFF = 1 };
#endif

/* A flow that calls a pipe empty that is not has lost count of a connection's bytes: debug builds stop
 * there. */
Test(pipes, return_aborts_when_a_full_pipe_is_called_empty, .init = cr_redirect_stderr,
     .signal = SIGABRT, .disabled = CHECKS_ARE_OFF)
{
    struct pipe_pool pool;
    struct pipe *pipe;

    init(&pool, 1, PIPE_BYTES_MIN);
    pipe = lend(&pool);
    cr_assert(write(pipe->write_fd, "x", 1) == 1);
    pipe_pool_return(&pool, pipe, true);
}

/* A pipe returned twice would be lent to two connections. */
Test(pipes, return_aborts_when_nothing_is_lent, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct pipe_pool pool;
    struct pipe *pipe;

    init(&pool, 1, PIPE_BYTES_MIN);
    pipe = lend(&pool);
    pipe_pool_return(&pool, pipe, true);
    pipe_pool_return(&pool, pipe, true);
}

/* Large ones: 16 MiB are lent in the size that is asked for, the rest in pieces of 256 KiB; and 16 MiB
 * are kept. */
Test(pipes, of_many_are_small)
{
    enum { LARGE = 16, BURST = LARGE + 8 };
    struct pipe *pipes[BURST];
    struct pipe_pool pool;

    init(&pool, BURST, PIPE_BYTES_MAX);
    for (size_t i = 0; i < BURST; i++) {
        pipes[i] = lend(&pool);
        if (metric_get(&metrics.pipes_degraded) == 0) {
            cr_assert(fcntl(pipes[i]->write_fd, F_GETPIPE_SZ) ==
                          (i < LARGE ? PIPE_BYTES_MAX : 256 * 1024),
                      "pipe %zu", i);
        }
    }
    for (size_t i = 0; i < BURST; i++) {
        pipe_pool_return(&pool, pipes[i], true);
    }
    assert_counts(&pool, 0, LARGE);
    pipe_pool_fini(&pool);
}

/* After a burst the quota is given back: of 80 pipes 64 are kept, the rest is closed. */
Test(pipes, kept_are_64_at_most)
{
    enum { BURST = KEPT_MAX + 16 };
    struct pipe *pipes[BURST];
    size_t before = count_open_fds();
    struct pipe_pool pool;

    init(&pool, BURST, PIPE_BYTES_MIN);
    for (size_t i = 0; i < BURST; i++) {
        pipes[i] = lend(&pool);
    }
    cr_assert(count_open_fds() == before + 2 * BURST);
    for (size_t i = 0; i < BURST; i++) {
        pipe_pool_return(&pool, pipes[i], true);
        assert_counts(&pool, BURST - 1 - i, i + 1 < KEPT_MAX ? i + 1 : KEPT_MAX);
    }
    cr_assert(count_open_fds() == before + (size_t)2 * KEPT_MAX);
    /* All of them can be had again. */
    for (size_t i = 0; i < BURST; i++) {
        pipes[i] = lend(&pool);
    }
    cr_assert(pipe_pool_lend(&pool) == NULL);
    for (size_t i = 0; i < BURST; i++) {
        pipe_pool_return(&pool, pipes[i], i % 2 == 0);
    }
    pipe_pool_fini(&pool);
    cr_assert(count_open_fds() == before);
}

/* Nothing is left open at the end, and a pool that was never prepared may be finished, too. */
Test(pipes, fini_closes_what_is_kept)
{
    size_t before = count_open_fds();
    struct pipe_pool pool;
    struct pipe_pool zeroed = {0};

    init(&pool, 3, PIPE_BYTES_MIN);
    pipe_pool_return(&pool, lend(&pool), true);
    cr_assert(count_open_fds() == before + 2);
    pipe_pool_fini(&pool);
    cr_assert(count_open_fds() == before);
    assert_counts(&pool, 0, 0);
    pipe_pool_fini(&pool);
    pipe_pool_fini(&zeroed);
}

/* Finishing under a borrower would free the record that it holds. */
Test(pipes, fini_aborts_while_one_is_lent, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct pipe_pool pool;

    init(&pool, 1, PIPE_BYTES_MIN);
    cr_assert(lend(&pool) != NULL);
    pipe_pool_fini(&pool);
}

/* --- when the kernel says no --- */

static void limit_descriptors(rlim_t count)
{
    struct rlimit limit;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = count;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static rlim_t descriptor_limit(void)
{
    struct rlimit limit;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    return limit.rlim_cur;
}

/* One refusal by the kernel is counted once, then 64 requests are answered without asking it, though
 * by then it would say yes; the next one asks and gets a pipe. Three rounds. */
Test(pipes, are_asked_for_again_after_64_refusals)
{
    rlim_t limit = descriptor_limit();
    size_t before = count_open_fds();
    struct pipe_pool pool;

    init(&pool, 2, PIPE_BYTES_MIN);
    for (uint64_t round = 1; round <= 3; round++) {
        struct pipe *pipe;

        limit_descriptors(0);
        pipe = pipe_pool_lend(&pool);
        limit_descriptors(limit);
        cr_assert(pipe == NULL);
        cr_assert(metric_get(&metrics.pipes_degraded) == round);
        cr_assert(pool.refusals_left == REFUSALS);
        for (size_t i = 0; i < REFUSALS; i++) {
            cr_assert(pipe_pool_lend(&pool) == NULL, "request %zu", i);
        }
        cr_assert(pool.refusals_left == 0);
        cr_assert(metric_get(&metrics.pipes_degraded) == round, "not asked is not refused");
        cr_assert(count_open_fds() == before);
        assert_counts(&pool, 0, 0);
        pipe = lend(&pool);
        pipe_pool_return(&pool, pipe, false);
    }
    pipe_pool_fini(&pool);
}

/* With room for one end of a pipe only there is no pipe, and the one end is not left open. */
Test(pipes, without_room_for_both_ends_leave_none_open)
{
    rlim_t limit = descriptor_limit();
    size_t before = count_open_fds();
    int next = dup(0); /* the lowest free descriptor, and all below are taken */
    struct pipe_pool pool;
    struct pipe *pipe;

    cr_assert(next >= 0);
    (void)close(next);
    init(&pool, 2, PIPE_BYTES_MIN);
    limit_descriptors((rlim_t)next + 1);
    pipe = pipe_pool_lend(&pool);
    limit_descriptors(limit);
    cr_assert(pipe == NULL);
    cr_assert(metric_get(&metrics.pipes_degraded) == 1);
    cr_assert(count_open_fds() == before);
    pipe_pool_fini(&pool);
}

/* Kept pipes are lent without asking the kernel, so a refusal does not concern them. */
Test(pipes, kept_are_lent_during_a_shortage)
{
    rlim_t limit = descriptor_limit();
    struct pipe_pool pool;
    struct pipe *kept;
    struct pipe *refused;

    init(&pool, 2, PIPE_BYTES_MIN);
    kept = lend(&pool);
    limit_descriptors(0);
    refused = pipe_pool_lend(&pool);
    limit_descriptors(limit);
    cr_assert(refused == NULL);
    for (size_t i = 0; i < 2 * REFUSALS; i++) {
        unsigned refusals_left = pool.refusals_left;

        pipe_pool_return(&pool, kept, true);
        kept = lend(&pool);
        cr_assert(pool.refusals_left == refusals_left);
    }
    pipe_pool_return(&pool, kept, true);
    pipe_pool_fini(&pool);
}

/* --- the page quota of a user (pipe(7), pipe-user-pages-soft) --- */

enum { QUOTA_PAGES_MAX = 1 << 16, PIPES_HELD_MAX = 400 };

/* A scenario runs in a child that becomes a user who has nothing else running, so that the quota is
 * this process's alone (root has none). It returns NULL or what is wrong; SKIP when it can't run. */
typedef const char *scenario_fn(void);
static const char SKIP[] = "skip";

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            return #condition;                                                                     \
        }                                                                                          \
    } while (0)

static long quota_pages;
static long held_pages;
static int held_fds[PIPES_HELD_MAX][2];
static size_t held_len;

static long read_number(const char *path)
{
    FILE *file = fopen(path, "re");
    long number = -1;

    if (file == NULL || fscanf(file, "%ld", &number) != 1) {
        number = -1;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return number;
}

static bool become_somebody_new(void)
{
    uid_t uid = (uid_t)(1000000 + getpid());

    return setresuid(uid, uid, uid) == 0 && getuid() == uid && setuid(0) < 0;
}

/* Takes pages of pipe until exactly `left` of the quota remain. */
static bool hold_all_but(long left)
{
    long page_bytes = sysconf(_SC_PAGESIZE);
    long pages_max = read_number("/proc/sys/fs/pipe-max-size") / page_bytes;

    quota_pages = read_number("/proc/sys/fs/pipe-user-pages-soft");
    if (quota_pages <= left || quota_pages > QUOTA_PAGES_MAX || pages_max < 1) {
        return false;
    }
    while (quota_pages - held_pages > left) {
        int *fds = held_fds[held_len++];
        long pages = 1;

        if (held_len > PIPES_HELD_MAX || sys_pipe(fds) < 0) {
            return false;
        }
        while (2 * pages <= pages_max && held_pages + 2 * pages <= quota_pages - left) {
            pages *= 2;
        }
        if (fcntl(fds[1], F_SETPIPE_SZ, (int)(pages * page_bytes)) < 0) {
            return false;
        }
        held_pages += pages;
    }
    return true;
}

static void release_held(void)
{
    while (held_len > 0) {
        held_len--;
        (void)close(held_fds[held_len][0]);
        (void)close(held_fds[held_len][1]);
    }
    held_pages = 0;
}

static void run_in_child(scenario_fn *scenario)
{
    static char text[256];
    int fds[2];
    int status;
    ssize_t len;
    pid_t child;

    if (geteuid() != 0) {
        cr_skip_test("only root can become another user");
    }
    cr_assert(pipe(fds) == 0);
    child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        const char *problem = become_somebody_new() ? scenario() : SKIP;

        if (problem != NULL) {
            (void)!write(fds[1], problem, strlen(problem));
        }
        _exit(0);
    }
    (void)close(fds[1]);
    len = read(fds[0], text, sizeof(text) - 1);
    (void)close(fds[0]);
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status), "wait status %#x", (unsigned)status);
    if (strcmp(text, SKIP) == 0) {
        cr_skip_test("no new user, or a quota that can't be used up");
    }
    cr_assert(len == 0, "not so: %s", text);
}

/* With 15 pages left a new pipe is born with two. */
static const char *small_pipes_are_refused(void)
{
    struct pipe_pool pool;
    struct pipe *pipe;
    size_t before;

    if (!hold_all_but(15)) {
        return SKIP;
    }
    before = count_open_fds();
    REQUIRE(pipe_pool_init(&pool, 4, PIPE_BYTES_DEFAULT, &metrics) == 0);
    REQUIRE(pipe_pool_lend(&pool) == NULL);
    REQUIRE(metric_get(&metrics.pipes_degraded) == 1);
    REQUIRE(pool.refusals_left == REFUSALS);
    REQUIRE(pool.pipes_lent == 0);
    REQUIRE(count_open_fds() == before);
    release_held();
    for (size_t i = 0; i < REFUSALS; i++) {
        REQUIRE(pipe_pool_lend(&pool) == NULL);
    }
    pipe = pipe_pool_lend(&pool);
    REQUIRE(pipe != NULL);
    REQUIRE(fcntl(pipe->write_fd, F_GETPIPE_SZ) == PIPE_BYTES_DEFAULT);
    REQUIRE(metric_get(&metrics.pipes_degraded) == 1);
    return NULL;
}

/* With 32 pages left a pipe is born with 16, the smallest useful size, but can't grow to 64. */
static const char *unenlarged_pipe_is_lent(void)
{
    struct pipe_pool pool;
    struct pipe *pipe;

    if (sysconf(_SC_PAGESIZE) != 4096 || !hold_all_but(32)) {
        return SKIP;
    }
    REQUIRE(pipe_pool_init(&pool, 4, PIPE_BYTES_DEFAULT, &metrics) == 0);
    pipe = pipe_pool_lend(&pool);
    REQUIRE(pipe != NULL);
    REQUIRE(fcntl(pipe->write_fd, F_GETPIPE_SZ) == PIPE_BYTES_MIN);
    REQUIRE(pool.refusals_left == 0);
    return NULL;
}

static const char *unenlarged_pipe_is_counted(void)
{
    const char *problem = unenlarged_pipe_is_lent();

    if (problem != NULL) {
        return problem;
    }
    REQUIRE(metric_get(&metrics.pipes_degraded) == 1);
    return NULL;
}

/* Pipes that the kernel made too small to be worth it are closed again and counted, and asked for again
 * after 64 requests. */
Test(pipes, shrunk_by_the_kernel_are_refused)
{
    run_in_child(small_pipes_are_refused);
}

/* A pipe that could not be enlarged, but is large enough, is lent. */
Test(pipes, that_can_not_grow_are_lent_if_useful)
{
    run_in_child(unenlarged_pipe_is_lent);
}

/* And counted: pipes_degraded are those "that the kernel made smaller than asked" (metrics.h). */
Test(pipes, smaller_than_asked_are_counted)
{
    run_in_child(unenlarged_pipe_is_counted);
}
