/* Tests of the two clocks: each reading is bracketed by two readings of clock_gettime(2). */
#include "base/clock.h"
#include "base/macros.h"

#include <criterion/criterion.h>
#include <time.h>

static uint64_t kernel_ns(clockid_t id)
{
    struct timespec now;

    cr_assert(clock_gettime(id, &now) == 0);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Each function reads the clock that it names, in nanoseconds: a reading lies between one of the
 * kernel's clock before it and one after it. */
Test(clock, reads_the_clock_it_names_in_nanoseconds)
{
    static const struct {
        const char *name;
        uint64_t (*read_ns)(void);
        clockid_t id;
    } clocks[] = {
        {"monotonic", clock_monotonic_ns, CLOCK_MONOTONIC},
        {"realtime", clock_realtime_ns, CLOCK_REALTIME},
    };

    for (size_t i = 0; i < ARRAY_LEN(clocks); i++) {
        uint64_t before = kernel_ns(clocks[i].id);
        uint64_t reading = clocks[i].read_ns();
        uint64_t after = kernel_ns(clocks[i].id);

        cr_assert(before <= reading, "%s", clocks[i].name);
        cr_assert(reading <= after, "%s", clocks[i].name);
    }
}

/* Timers rely on a clock that never goes back: many readings in a row, none below its predecessor,
 * and the last above the first. */
Test(clock, monotonic_time_never_goes_back)
{
    uint64_t first = clock_monotonic_ns();
    uint64_t last = first;

    for (int i = 0; i < 100000; i++) {
        uint64_t now = clock_monotonic_ns();

        cr_assert(now >= last, "went back by %llu ns", (unsigned long long)(last - now));
        last = now;
    }
    cr_assert(last > first);
}

/* Records are stamped with the time of day since 1970: after this test was written and before the
 * unsigned nanoseconds end in 2554. */
Test(clock, real_time_counts_from_1970)
{
    const uint64_t year_2024_s = UINT64_C(1704067200);

    cr_assert(clock_realtime_ns() > year_2024_s * NS_PER_S);
}
