/* The oracle of the sweep: holds what the peers, the record, the counters and the pools say
 * after a run to what sluice promises. */
#ifndef UNIT_SWEEP_JUDGE_H
#define UNIT_SWEEP_JUDGE_H

#include "unit/sweep/scenario.h"

/** What the run is to be held to, beyond what holds always. */
enum expectation {
    EXPECT_NOTHING_SEEN, /* as without a fault */
    EXPECT_ANY_END,      /* nobody is cheated; sessions may end abnormally */
    EXPECT_BROKEN        /* the session has ended abnormally, with the errno */
};

/** Judges the run that was played; for EXPECT_BROKEN the session `id` must have ended with
 *  `error`. */
void judge(const struct scenario *scenario, enum expectation expectation, uint64_t id, int error);

#endif
