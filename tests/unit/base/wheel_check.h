/* The invariants T1 to T3 of timer.c, looked for with digit arithmetic of its own. */
#ifndef UNIT_BASE_WHEEL_CHECK_H
#define UNIT_BASE_WHEEL_CHECK_H

#include "base/macros.h"
#include "base/timer.h"

#define HOUR_NS (3600 * NS_PER_S)

/** NULL when all invariants hold between two calls of the wheel, or a sentence that says which does
 *  not. Not for use inside a callback. */
const char *wheel_fault(const struct timer_wheel *wheel);

/** Fails the test when the wheel has a fault. */
void assert_sound(const struct timer_wheel *wheel);

/** The tick at which a timer for `ns` has to fire. */
static inline uint64_t round_up_to_tick(uint64_t ns)
{
    return ns / NS_PER_MS + (ns % NS_PER_MS == 0 ? 0 : 1);
}

#endif
