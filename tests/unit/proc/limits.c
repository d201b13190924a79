/* Tests of the sharing out of descriptors: a table worked out by hand, and the promise that no worker
 * is ever given more than it has. */
#include "proc/limits.h"

#include "net/pipes.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

enum { RESERVE = 24 }; /* of limits.c: descriptors that every worker needs for itself */

/* The largest limit that Linux allows: fs.nr_open ends at 2^30 - 64, and some container runtimes set
 * exactly that. */
#define DESCRIPTORS_MAX UINT64_C(1073741816)

#define NO_ROOM "the descriptor limit (ulimit -n) leaves no room for a single connection"
#define TOO_MANY                                                                                   \
    "max-connections needs two descriptors for each connection of a worker, more than the "        \
    "descriptor limit (ulimit -n) has: raise that, use more workers, or lower it"

#define NO_MASTER                                                                                  \
    "the master needs a descriptor for each listener of each worker, and one for each worker, "    \
    "more than the descriptor limit (ulimit -n) has: raise that, or use fewer workers"

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void assert_limits(const struct limits *limits, uint64_t descriptors, size_t workers,
                          size_t connections, size_t pipes)
{
    cr_assert(limits->descriptors == descriptors);
    cr_assert(limits->workers == workers, "%zu workers, not %zu", limits->workers, workers);
    cr_assert(limits->connections_max == connections, "%zu connections, not %zu",
              limits->connections_max, connections);
    cr_assert(limits->pipes_max == pipes, "%zu pipes, not %zu", limits->pipes_max, pipes);
}

/* Worked out by hand: (descriptors - 24 - listeners) hold two for each connection and two for each
 * pipe; a pipe for four connections, and eight more. */
Test(limits, are_shared_out)
{
    static const struct {
        uint64_t descriptors;
        uint64_t workers;
        uint64_t max_connections;
        size_t listeners;
        size_t ret_workers;
        size_t ret_connections;
        size_t ret_pipes;
    } cases[] = {
        /* auto: as many as there is room for */
        {1024, 1, 0, 1, 1, 399, 100},
        {1024, 4, 0, 2, 4, 4 * 399, 100},
        {20000, 2, 0, 1, 2, 2 * 7990, 1997},
        {64, 1, 0, 1, 1, 15, 4},
        {28, 1, 0, 1, 1, 1, 0},
        /* configured: as many pipes as are useful, or as many as are left */
        {1024, 4, 1000, 2, 4, 1000, 70},
        {1024, 4, 1995, 2, 4, 1995, 0},
        {1024, 4, 1996, 2, 4, 1996, 0},
        {1024, 4, 1900, 2, 4, 1900, 24},
        {1024, 1, 1, 1, 1, 1, 8},
        {27, 1, 1, 1, 1, 1, 0},
        {1048576, 64, 10000000, 100, 64, 10000000, 4096}, /* and never more than so many */
        /* never more workers than connections */
        {1024, 4, 3, 2, 3, 3, 8},
        {1024, 1024, 1, 2, 1, 1, 8},
        {1024, 4, 4, 2, 4, 4, 8},
        {1024, 500, 500, 1, 500, 500, 8}, /* the master has just enough */
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct limits limits;
        const char *problem = limits_compute(cases[i].descriptors, cases[i].workers,
                                             cases[i].max_connections, cases[i].listeners, &limits);

        cr_assert_null(problem, "row %zu: %s", i, problem);
        assert_limits(&limits, cases[i].descriptors, cases[i].ret_workers, cases[i].ret_connections,
                      cases[i].ret_pipes);
    }
}

/* What can't be is refused with the number that is to blame, and nothing is stored. */
Test(limits, impossible_numbers_are_refused)
{
    static const struct {
        uint64_t descriptors;
        uint64_t workers;
        uint64_t max_connections;
        size_t listeners;
        const char *problem;
    } cases[] = {
        {0, 1, 0, 0, NO_ROOM},
        {24, 1, 0, 0, NO_ROOM},
        {25, 1, 0, 1, NO_ROOM},
        {1024, 1, 0, 1000, NO_ROOM},
        {1024, 1, 0, 5000, NO_ROOM},
        {0, 1, 1, 0, TOO_MANY},
        {26, 1, 1, 1, TOO_MANY},
        {1024, 4, 1997, 2, TOO_MANY}, /* one worker would have 500, and has room for 499 */
        {1024, 1, 1996, 2, TOO_MANY},
        {1024, 1024, 100000000, 2, TOO_MANY},
        {1023, 500, 0, 1, NO_MASTER}, /* 24 of its own, 500 pipes, 500 listening sockets */
        {1023, 500, 500, 1, NO_MASTER},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct limits limits;
        struct limits before;
        const char *problem;

        memset(&limits, 0x5a, sizeof(limits));
        memset(&before, 0x5a, sizeof(before));
        problem = limits_compute(cases[i].descriptors, cases[i].workers, cases[i].max_connections,
                                 cases[i].listeners, &limits);
        cr_assert_not_null(problem, "row %zu", i);
        cr_assert_str_eq(problem, cases[i].problem, "row %zu: %s", i, problem);
        cr_assert(memcmp(&limits, &before, sizeof(limits)) == 0, "row %zu", i);
    }
}

/* `workers auto` is one for each processor. */
Test(limits, workers_are_the_processors_if_not_configured)
{
    struct limits limits;

    cr_assert_null(limits_compute(1024, 0, 0, 1, &limits));
    cr_assert(limits.workers == limits_processors());
    cr_assert(limits.connections_max == 399 * limits_processors());
}

/* Any number from 1 to 2^bits. */
static uint64_t random_up_to(uint64_t *random, unsigned bits)
{
    return 1 + (next_random(random) & ((UINT64_C(1) << next_random(random) % (bits + 1)) - 1));
}

/* Whatever the numbers, either no worker needs more descriptors than it has, and the shares are all
 * of the connections, or the refusal is right. */
Test(limits, no_worker_needs_more_descriptors_than_it_has)
{
    size_t refused = 0;
    size_t accepted = 0;

    for (uint64_t seed = 1; seed <= 20000; seed++) {
        uint64_t random = seed;
        uint64_t descriptors = random_up_to(&random, 30);
        uint64_t workers = random_up_to(&random, 10);
        uint64_t max_connections = next_random(&random) % 3 == 0 ? 0 : random_up_to(&random, 26);
        size_t listeners = (size_t)random_up_to(&random, 8);
        struct limits limits;
        size_t sum = 0;

        if (limits_compute(descriptors, workers, max_connections, listeners, &limits) != NULL) {
            uint64_t used = max_connections == 0 ? 1 : workers;
            uint64_t share = (max_connections + used - 1) / used;

            /* Auto gives up with less than three descriptors: two and a half for a connection. */
            bool worker_is_full =
                RESERVE + listeners + (max_connections == 0 ? 3 : 2 * share) > descriptors;
            /* Of fewer connections than workers, each has a worker. */
            uint64_t started =
                max_connections != 0 && max_connections < workers ? max_connections : workers;
            bool master_is_full = RESERVE + started * (listeners + 1) > descriptors;

            cr_assert(worker_is_full || master_is_full, "seed %" PRIu64, seed);
            refused++;
            continue;
        }
        accepted++;
        cr_assert(limits.workers >= 1, "seed %" PRIu64, seed);
        cr_assert(limits.workers <= workers, "seed %" PRIu64, seed);
        cr_assert(max_connections == 0 || limits.connections_max == max_connections,
                  "seed %" PRIu64, seed);
        for (size_t i = 0; i < limits.workers; i++) {
            size_t share = limits_share(&limits, i);

            cr_assert(share >= 1, "seed %" PRIu64, seed);
            cr_assert(2 * share + 2 * limits.pipes_max + listeners + RESERVE <= descriptors,
                      "seed %" PRIu64, seed);
            cr_assert(limits_share(&limits, 0) - share <= 1, "seed %" PRIu64, seed);
            sum += share;
        }
        cr_assert(sum == limits.connections_max, "seed %" PRIu64, seed);
    }
    cr_assert(refused > 1000 && accepted > 1000, "%zu, %zu", refused, accepted);
}

/* A worker writes to the record of each of its pipes when it starts (net/pipes.c), so their number must
 * not follow a descriptor limit that is only there because nobody set one: 1073741816 under some
 * container runtimes. 16 MiB is still more than a million records. */
Test(limits, pipes_take_little_memory_whatever_the_descriptor_limit)
{
    static const uint64_t descriptors[] = {20000, 524288, 1048576, DESCRIPTORS_MAX};

    for (size_t i = 0; i < ARRAY_LEN(descriptors); i++) {
        struct limits limits;

        cr_assert_null(limits_compute(descriptors[i], 1, 0, 1, &limits));
        cr_assert(limits.pipes_max * sizeof(struct pipe) <= 16 * 1024 * 1024,
                  "%" PRIu64 " descriptors: %zu pipes take %zu MiB", descriptors[i],
                  limits.pipes_max, limits.pipes_max * sizeof(struct pipe) / (1024 * 1024));
    }
}

/* Parts differ by at most one, the larger ones first. */
Test(limits, shares_are_even)
{
    static const struct {
        size_t workers;
        size_t connections;
        size_t shares[4];
    } cases[] = {
        {1, 7, {7}}, {2, 7, {4, 3}}, {3, 7, {3, 2, 2}}, {4, 7, {2, 2, 2, 1}}, {4, 8, {2, 2, 2, 2}},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct limits limits = {.workers = cases[i].workers,
                                .connections_max = cases[i].connections};

        for (size_t k = 0; k < cases[i].workers; k++) {
            cr_assert(limits_share(&limits, k) == cases[i].shares[k], "row %zu", i);
        }
    }
}

/* The soft limit becomes the hard one, which is what every user may ask for. */
Test(limits, descriptors_are_raised_to_the_hard_limit)
{
    struct rlimit limit;
    rlim_t hard;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    hard = limit.rlim_max;
    for (rlim_t soft = 64; soft <= hard; soft += hard - 64 > 0 ? hard - 64 : 1) {
        limit.rlim_cur = soft;
        cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
        cr_assert(limits_raise_descriptors() == hard, "from %" PRIu64, (uint64_t)soft);
        cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
        cr_assert(limit.rlim_cur == hard);
        cr_assert(limit.rlim_max == hard);
    }
}

/* Counted are the processors that this process may use, not those of the machine. */
Test(limits, processors_are_the_usable_ones)
{
    cpu_set_t all;
    cpu_set_t one;
    size_t first = 0;

    cr_assert(sched_getaffinity(0, sizeof(all), &all) == 0);
    cr_assert(limits_processors() == (size_t)CPU_COUNT(&all));
    while (!CPU_ISSET(first, &all)) {
        first++;
    }
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    cr_assert(sched_setaffinity(0, sizeof(one), &one) == 0);
    cr_assert(limits_processors() == 1);
}
