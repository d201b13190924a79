/* Layer: base. The two clocks, read in one place.
 *
 * Only proc and the loop read them (once a turn); everything below gets `now` as an argument, so
 * that tests pass numbers and a connection's timers never depend on the wall clock. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

/** Monotonic time in nanoseconds: for every timeout and duration. Does not jump
 *  (clock_gettime(2)). */
uint64_t clock_monotonic_ns(void);

/** Nanoseconds since 1970 (UTC): only for the time stamps in records. May jump either way. */
uint64_t clock_realtime_ns(void);

#endif
