/* Tests of the shared counters: writers are forked children, the reader is the test. */
#include "base/metrics.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void assert_exits_cleanly(pid_t child)
{
    int status;

    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status), "wait status %#x", (unsigned)status);
    cr_assert(WEXITSTATUS(status) == 0, "exit status %d", WEXITSTATUS(status));
}

static bool all_zero(const struct metrics *shard)
{
    const unsigned char *bytes = (const unsigned char *)shard;

    for (size_t i = 0; i < sizeof(*shard); i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

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

/* Counters start at nothing: every byte of every shard of a fresh mapping is 0. */
Test(metrics, start_at_zero)
{
    struct metrics *shards = metrics_map(33);

    cr_assert(shards != NULL);
    for (size_t i = 0; i < 33; i++) {
        cr_assert(all_zero(&shards[i]), "shard %zu", i);
        cr_assert(metrics_closed(&shards[i]) == 0);
    }
}

/* Two workers never write to one cache line: size and place of the shards are multiples of 64. */
Test(metrics, shards_share_no_cache_line)
{
    struct metrics *shards = metrics_map(3);

    cr_assert(shards != NULL);
    cr_assert(sizeof(struct metrics) % 64 == 0);
    for (size_t i = 0; i < 3; i++) {
        cr_assert((uintptr_t)&shards[i] % 64 == 0, "shard %zu", i);
    }
}

/* Additions add, to their own counter only, and wrap like any uint64_t: two adds to one counter,
 * its neighbours looked at. */
Test(metrics, add_to_one_counter_only)
{
    struct metrics *shards = metrics_map(3);

    cr_assert(shards != NULL);
    metric_add(&shards[1].bytes_up, UINT64_MAX - 5);
    metric_add(&shards[1].bytes_up, 3);
    cr_assert(metric_get(&shards[1].bytes_up) == UINT64_MAX - 2);
    cr_assert(metric_get(&shards[1].bytes_down) == 0);
    cr_assert(metric_get(&shards[1].closed[REASON_INTERNAL]) == 0);
    cr_assert(all_zero(&shards[0]));
    cr_assert(all_zero(&shards[2]));
    metric_add(&shards[1].bytes_up, 3);
    cr_assert(metric_get(&shards[1].bytes_up) == 0);
}

/* The sum of ended connections has every reason in it, and nothing but reasons: each reason adds
 * its own power of two, and the counters around the array are set as well. */
Test(metrics, closed_sums_all_reasons_and_nothing_else)
{
    struct metrics *shard = metrics_map(1);

    cr_assert(shard != NULL);
    metric_add(&shard->accepted, UINT64_C(1) << 40);
    metric_add(&shard->bytes_up, UINT64_C(1) << 41);
    for (size_t reason = 0; reason < REASON_COUNT; reason++) {
        metric_add(&shard->closed[reason], UINT64_C(1) << reason);
    }
    cr_assert(metrics_closed(shard) == (UINT64_C(1) << REASON_COUNT) - 1);
}

/* What a worker counts outlives it and is seen by the process that mapped the shards: children
 * count, each in its own shard, and end; the parent sums. */
Test(metrics, of_a_worker_outlive_it)
{
    enum { WORKERS = 4 };
    struct metrics *shards = metrics_map(WORKERS);
    uint64_t bytes_up = 0;
    uint64_t closed = 0;

    cr_assert(shards != NULL);
    for (uint64_t worker = 0; worker < WORKERS; worker++) {
        pid_t child = fork();

        cr_assert(child >= 0);
        if (child == 0) {
            for (uint64_t i = 0; i <= worker; i++) {
                metric_add(&shards[worker].bytes_up, 1000);
                metric_add(&shards[worker].closed[REASON_CLIENT_FIN], 1);
                metric_add(&shards[worker].closed[REASON_DRAIN], 1);
            }
            _exit(0);
        }
        assert_exits_cleanly(child);
    }
    for (uint64_t worker = 0; worker < WORKERS; worker++) {
        cr_assert(metric_get(&shards[worker].bytes_up) == 1000 * (worker + 1));
        bytes_up += metric_get(&shards[worker].bytes_up);
        closed += metrics_closed(&shards[worker]);
    }
    cr_assert(bytes_up == 1000 * (1 + 2 + 3 + 4));
    cr_assert(closed == 2 * (1 + 2 + 3 + 4));
}

/* The other direction: a worker started later sees what was counted before, as a successor of a
 * crashed one does; the child's exit status tells. */
Test(metrics, of_a_dead_worker_are_seen_by_its_successor)
{
    struct metrics *shard = metrics_map(1);
    pid_t child;

    cr_assert(shard != NULL);
    for (int generation = 0; generation < 3; generation++) {
        child = fork();
        cr_assert(child >= 0);
        if (child == 0) {
            bool carried_on = metric_get(&shard->accepted) == (uint64_t)generation;

            metric_add(&shard->accepted, 1);
            _exit(carried_on ? 0 : 1);
        }
        assert_exits_cleanly(child);
    }
    cr_assert(metric_get(&shard->accepted) == 3);
}

/* A reader never sees a torn or a shrinking value: a child adds 2^32 + 1 again and again while the
 * parent compares the halves of what it reads. */
Test(metrics, are_never_read_torn)
{
    const uint64_t step = (UINT64_C(1) << 32) + 1;
    const uint64_t steps = 300000;
    struct metrics *shard = metrics_map(1);
    uint64_t last = 0;
    pid_t child;

    cr_assert(shard != NULL);
    child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        for (uint64_t i = 0; i < steps; i++) {
            metric_add(&shard->bytes_down, step);
        }
        _exit(0);
    }
    while (last < steps * step && kill(child, 0) == 0) {
        uint64_t seen = metric_get(&shard->bytes_down);

        cr_assert(seen >> 32 == (seen & UINT32_MAX), "torn: %#llx", (unsigned long long)seen);
        cr_assert(seen >= last);
        last = seen;
        if (waitpid(child, NULL, WNOHANG) == child) {
            break;
        }
    }
    cr_assert(metric_get(&shard->bytes_down) == steps * step);
}

/* Two mappings are two sets of counters: adding to one leaves the other alone. */
Test(metrics, of_two_mappings_are_separate)
{
    struct metrics *first = metrics_map(2);
    struct metrics *second = metrics_map(2);

    cr_assert(first != NULL);
    cr_assert(second != NULL);
    metric_add(&first[1].accepted, 7);
    cr_assert(metric_get(&first[1].accepted) == 7);
    cr_assert(all_zero(&second[0]));
    cr_assert(all_zero(&second[1]));
}

/* Counters cost memory and no descriptor: the number of open ones is the same before and after. */
Test(metrics, keep_no_descriptor_open)
{
    size_t before = count_open_fds();

    cr_assert(metrics_map(2) != NULL);
    cr_assert(count_open_fds() == before);
}

/* Without a descriptor to make the memory with there are no counters and no crash: RLIMIT_NOFILE
 * is lowered to nothing for the call. */
Test(metrics, report_that_no_descriptor_is_left)
{
    struct rlimit limit;
    struct rlimit none;
    struct metrics *shards;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = limit;
    none.rlim_cur = 0;
    cr_assert(setrlimit(RLIMIT_NOFILE, &none) == 0);
    shards = metrics_map(1);
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    cr_assert(shards == NULL);
}

/* When the memory can't be sized, NULL and no descriptor left behind: RLIMIT_FSIZE below one shard
 * makes ftruncate(2) fail once SIGXFSZ is ignored. */
Test(metrics, report_that_the_memory_can_not_be_sized)
{
    size_t fds_before = count_open_fds();
    struct rlimit limit;
    struct rlimit small;
    struct metrics *shards;

    (void)signal(SIGXFSZ, SIG_IGN);
    cr_assert(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    small = limit;
    small.rlim_cur = 64;
    cr_assert(setrlimit(RLIMIT_FSIZE, &small) == 0);
    shards = metrics_map(1);
    cr_assert(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    cr_assert(shards == NULL);
    cr_assert(count_open_fds() == fds_before);
}

/* More memory than an address space has is refused: the file can be made that long, the mapping
 * can't, and its descriptor is closed. */
Test(metrics, report_that_the_memory_can_not_be_mapped)
{
    size_t fds_before = count_open_fds();

    cr_assert(metrics_map((SIZE_MAX >> 2) / sizeof(struct metrics)) == NULL);
    cr_assert(count_open_fds() == fds_before);
}
