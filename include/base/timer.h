/* Layer: base. Timer wheel: any number of timers, each set, moved and cancelled in constant time.
 *
 * The wheel never reads a clock: every call gets the time it needs. Resolution is one millisecond;
 * a timer fires at its time or up to one tick later, never earlier. */
#ifndef BASE_TIMER_H
#define BASE_TIMER_H

#include "base/list.h"

#include <stddef.h>
#include <stdint.h>

struct timer;

/** Called once when the timer comes due; the timer is then unset and may be set again or freed.
 *  `now_ns` is the time given to timer_wheel_run(). */
typedef void timer_fn(struct timer *timer, uint64_t now_ns);

struct timer {
    /* private: use the functions below */
    struct list_node node;
    uint64_t due_tick;
    timer_fn *fire;
};

enum { TIMER_LEVELS = 8, TIMER_SLOTS = 64 };

struct timer_wheel {
    size_t count; /* timers set */
    /* private */
    uint64_t now_tick;
    uint64_t caller_tick;            /* the caller's present: ahead of now_tick inside a late run */
    uint64_t occupied[TIMER_LEVELS]; /* bit s of level l: slots[l][s] is not empty */
    struct list_node slots[TIMER_LEVELS][TIMER_SLOTS];
};

#define TIMER_NEVER UINT64_MAX

/** Prepares an empty wheel whose present is `now_ns` (any origin; the same for all later calls). */
void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ns);

/** Prepares a timer that calls `fire`; it is not set yet. */
void timer_init(struct timer *timer, timer_fn *fire);

/** Sets or moves `timer` to `due_ns`. A time that has passed means: at the next tick. */
void timer_set(struct timer_wheel *wheel, struct timer *timer, uint64_t due_ns);

/** Unsets `timer`; one that is not set is left as it is. */
void timer_cancel(struct timer_wheel *wheel, struct timer *timer);

/** True between timer_set() and the moment it fires or is cancelled. */
bool timer_is_set(const struct timer *timer);

/** When a timer that is set comes due, rounded up to the wheel's tick. */
uint64_t timer_due_ns(const struct timer *timer);

/** The earliest time at which timer_wheel_run() has something to do, TIMER_NEVER without a timer.
 *  It may be earlier than the first timer: far timers are sorted more finely on the way. */
uint64_t timer_wheel_next_ns(const struct timer_wheel *wheel);

/** Fires all timers due at `now_ns`, in the order of their ticks. `now_ns` must not go back. */
void timer_wheel_run(struct timer_wheel *wheel, uint64_t now_ns);

#endif
