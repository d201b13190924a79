/* clock_gettime(2) for the two clocks in use; it fails only for a clock id the kernel lacks. */
#include "base/clock.h"

#include "base/check.h"
#include "base/macros.h"

#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec now;
    int result = clock_gettime(id, &now);

    CHECK(result == 0);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}
