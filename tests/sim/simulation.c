/* Thousands of runs of the real loop, flow, session and listener code against a model of the kernel.
 *
 *   make sim                   the seeds of `make test`
 *   make sim SEEDS=1000000     a long run
 *   make sim SEED=4711         one seed again, which replays exactly
 */
#include "base/macros.h"
#include "base/reason.h"
#include "sim/kernel.h"
#include "sim/number.h"
#include "sim/world.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { PARTS = 10, SEEDS_DEFAULT = 10000 };

static void run_seed(uint64_t seed)
{
    cr_assert(world_run(seed), "seed %" PRIu64 ": %s\nreplay: make sim SEED=%" PRIu64, seed,
              kernel.failure, seed);
}

ParameterizedTestParameters(simulation, keeps_every_promise_for_every_seed)
{
    static int parts[PARTS];

    for (int i = 0; i < PARTS; i++) {
        parts[i] = i;
    }
    return cr_make_param_array(int, parts, PARTS);
}

/* Every promise of judge.c holds for every seed; and over a part's seeds, all kinds of ends, both
 * engines and retries were reached, or the simulation would prove little. */
ParameterizedTest(int *part, simulation, keeps_every_promise_for_every_seed)
{
    static const enum reason reasons[] = {
        REASON_CLIENT_FIN,      REASON_SERVER_FIN,          REASON_CLIENT_RESET,
        REASON_SERVER_RESET,    REASON_CLIENT_ABORT,        REASON_CONNECT_REFUSED,
        REASON_CONNECT_TIMEOUT, REASON_CONNECT_UNREACHABLE, REASON_NO_PORT,
        REASON_IDLE_TIMEOUT,    REASON_FIN_TIMEOUT,         REASON_PEER_TIMEOUT,
        REASON_DRAIN,
    };
    uint64_t seeds = (number_from("SEEDS", SEEDS_DEFAULT) + PARTS - 1) / PARTS;
    uint64_t first = 1 + (uint64_t)*part * seeds;
    uint64_t only = number_from("SEED", 0);

    if (only != 0) {
        run_seed(only);
        return;
    }
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        run_seed(seed);
    }
    if (seeds < 500) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++) {
        cr_expect(world_seen.ends[reasons[i]] > 0, "no connection ended as %s",
                  reason_text(reasons[i]));
    }
    cr_expect(world_seen.retries > 0);
    cr_expect(world_seen.drains > 0);
    cr_expect(world_seen.spliced_bytes > 0);
    cr_expect(world_seen.spliced_bytes < world_seen.bytes);
}
