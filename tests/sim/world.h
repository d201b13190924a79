/* The world around sluice in the simulation: clients and servers with a plan, a network that acts when
 * the seed says, and a judge of what came of it. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "base/reason.h"

#include <stdbool.h>
#include <stdint.h>

/** Runs one seed to its end. True if every promise was kept; else `kernel.failure` says which was
 *  not. Everything depends on the seed alone: the same seed, the same run. */
bool world_run(uint64_t seed);

/** What happened over all runs of this process, so that a test can say that all of it was reached. */
struct world_seen {
    uint64_t runs;
    uint64_t ends[REASON_COUNT];
    uint64_t retries;
    uint64_t spliced_bytes;
    uint64_t bytes;
    uint64_t drains;
    uint64_t system_calls;
};
extern struct world_seen world_seen;

#endif
