/* Tests of the choice of a server: round robin over connections, each server at most once for one. */
#include "pool/pool.h"

#include "base/macros.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { TARGETS_MAX = 40 };

static struct target targets[TARGETS_MAX];

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Picks the next server for a connection: its index, -1 when there is none left. */
static int pick(struct pool *pool, struct tries *tries)
{
    const struct target *target = pool_pick_round_robin(pool, tries);

    if (target == NULL) {
        return -1;
    }
    cr_assert(target >= targets && target < targets + pool->targets_len);
    return (int)(target - targets);
}

/* The first server of a new connection. */
static int pick_first(struct pool *pool)
{
    struct tries tries = {0};

    return pick(pool, &tries);
}

/* Connections take the servers in their order, round and round, for many rounds. */
Test(pool, connections_take_turns)
{
    for (uint32_t len = 1; len <= 10; len++) {
        struct pool pool;

        pool_init(&pool, targets, len, 0);
        for (uint32_t i = 0; i < 100000; i++) {
            cr_assert(pick_first(&pool) == (int)(i % len), "%u of %u", i, len);
        }
    }
}

/* Workers begin at different servers: the start is taken modulo the number of servers. */
Test(pool, first_server_follows_the_start)
{
    static const uint32_t starts[] = {0, 1, 2, 3, 4, 5, 7, 1024, UINT32_MAX};

    for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
        for (uint32_t len = 1; len <= 5; len++) {
            struct pool pool;

            pool_init(&pool, targets, len, starts[i]);
            for (uint32_t k = 0; k < 3 * len; k++) {
                cr_assert(pick_first(&pool) == (int)((starts[i] % len + k) % len), "start %u of %u",
                          starts[i], len);
            }
        }
    }
}

/* After failures a connection goes through all servers in order, each once, and then there is none,
 * however often it asks. */
Test(pool, each_server_is_tried_once)
{
    for (uint32_t len = 1; len <= TARGETS_MAX; len++) {
        struct pool pool;

        pool_init(&pool, targets, len, 3);
        for (uint32_t connection = 0; connection < 2 * len; connection++) {
            struct tries tries = {0};
            uint32_t first = (3 % len + connection) % len;

            for (uint32_t k = 0; k < len; k++) {
                cr_assert(tries.made == k);
                cr_assert(pick(&pool, &tries) == (int)((first + k) % len));
            }
            for (uint32_t k = 0; k < 3; k++) {
                cr_assert(pick(&pool, &tries) == -1);
                cr_assert(tries.made == len);
            }
        }
    }
}

/* The failures of one connection move nobody else's turn. */
Test(pool, failures_do_not_move_the_turn)
{
    struct pool pool;
    struct tries failing = {0};

    pool_init(&pool, targets, 4, 0);
    cr_assert(pick(&pool, &failing) == 0);
    cr_assert(pick(&pool, &failing) == 1);
    cr_assert(pick(&pool, &failing) == 2);
    cr_assert(pick_first(&pool) == 1);
    cr_assert(pick(&pool, &failing) == 3);
    cr_assert(pick(&pool, &failing) == -1);
    cr_assert(pick_first(&pool) == 2);
}

/* Any number of connections may be in the middle of their lists: in random order, each still sees every
 * server once, in order from where it began, and the beginnings take turns. */
Test(pool, interleaved_connections_do_not_disturb_each_other)
{
    enum { CONNECTIONS = 50, ROUNDS = 200 };

    for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
        uint64_t random = seed;
        uint32_t len = 1 + (uint32_t)(next_random(&random) % TARGETS_MAX);
        struct tries tries[CONNECTIONS] = {{0}};
        int first[CONNECTIONS];
        int expected_first = 0;
        size_t left = CONNECTIONS;
        struct pool pool;

        pool_init(&pool, targets, len, 0);
        while (left > 0) {
            size_t i = next_random(&random) % CONNECTIONS;
            uint32_t made = tries[i].made;
            int index;

            if (made == len) {
                continue;
            }
            index = pick(&pool, &tries[i]);
            if (made == 0) {
                cr_assert(index == expected_first, "seed %llu", (unsigned long long)seed);
                expected_first = (expected_first + 1) % (int)len;
                first[i] = index;
            }
            cr_assert(index == (first[i] + (int)made) % (int)len, "seed %llu",
                      (unsigned long long)seed);
            if (made + 1 == len) {
                cr_assert(pick(&pool, &tries[i]) == -1);
                left--;
            }
        }
    }
}

/* A pool without servers, which a name that resolved to nothing would be, gives none. */
Test(pool, without_servers_gives_none)
{
    struct pool pool;

    pool_init(&pool, NULL, 0, 7);
    cr_assert(pick_first(&pool) == -1);
    cr_assert(pick_first(&pool) == -1);
}

/* Two pools over the same servers have a turn each, as workers do. */
Test(pool, pools_have_turns_of_their_own)
{
    struct pool a;
    struct pool b;

    pool_init(&a, targets, 3, 0);
    pool_init(&b, targets, 3, 1);
    cr_assert(pick_first(&a) == 0);
    cr_assert(pick_first(&a) == 1);
    cr_assert(pick_first(&b) == 1);
    cr_assert(pick_first(&a) == 2);
    cr_assert(pick_first(&b) == 2);
}

/* A connection that has tried more servers than there are was mixed up with another pool's. */
Test(pool, pick_aborts_on_the_tries_of_another_pool, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct tries tries = {.made = 4};
    struct pool pool;

    pool_init(&pool, targets, 3, 0);
    (void)pool_pick_round_robin(&pool, &tries);
}
