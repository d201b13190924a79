/* Tests of the timer wheel. Time is a number here, so years pass in no time.
 *
 * These tests pin down single promises; timer_model.c compares the wheel with a plain array. */
#include "support/stream.h"
#include "unit/base/wheel_check.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define YEAR_NS (365 * 24 * HOUR_NS)

/* A timer that counts its firings, and what to do in its callback. */
struct probe {
    struct timer timer;
    struct timer_wheel *wheel;
    size_t fired;
    uint64_t fired_ns;    /* the `now_ns` of the last firing */
    uint64_t again_ns;    /* set to this time again from the callback, TIMER_NEVER: not */
    struct probe *victim; /* NULL or a timer that the callback cancels */
    uint64_t victim_ns;   /* move the victim to this time instead, TIMER_NEVER: cancel */
    bool set_in_callback; /* what timer_is_set() said there */
};

static void probe_fire(struct timer *timer, uint64_t now_ns)
{
    struct probe *probe = CONTAINER_OF(timer, struct probe, timer);

    probe->fired++;
    probe->fired_ns = now_ns;
    probe->set_in_callback = timer_is_set(timer);
    if (probe->again_ns != TIMER_NEVER) {
        timer_set(probe->wheel, timer, probe->again_ns);
    }
    if (probe->victim != NULL && probe->victim_ns == TIMER_NEVER) {
        timer_cancel(probe->wheel, &probe->victim->timer);
    } else if (probe->victim != NULL) {
        timer_set(probe->wheel, &probe->victim->timer, probe->victim_ns);
    }
}

static struct probe make_probe(struct timer_wheel *wheel)
{
    return (struct probe){.wheel = wheel, .again_ns = TIMER_NEVER, .victim_ns = TIMER_NEVER};
}

/* A probe must not move once its timer is initialised, hence by address. */
static void probe_set(struct probe *probe, struct timer_wheel *wheel, uint64_t due_ns)
{
    *probe = make_probe(wheel);
    timer_init(&probe->timer, probe_fire);
    timer_set(wheel, &probe->timer, due_ns);
}

/* A wheel without timers never has anything to do: asked, run over all time, and asked again. */
Test(timer, empty_wheel_has_nothing_to_do)
{
    struct timer_wheel wheel;

    timer_wheel_init(&wheel, 123456789);
    cr_assert(timer_wheel_next_ns(&wheel) == TIMER_NEVER);
    timer_wheel_run(&wheel, UINT64_MAX);
    cr_assert(timer_wheel_next_ns(&wheel) == TIMER_NEVER);
    cr_assert(wheel.count == 0);
    assert_sound(&wheel);
}

/* A timer fires at its time or up to one tick later, never before: for due times around a tick's
 * edges, the wheel is run one nanosecond before the rounded-up time and at it. */
Test(timer, fires_never_before_its_time)
{
    static const uint64_t dues_ns[] = {
        1,
        NS_PER_MS - 1,
        NS_PER_MS,
        NS_PER_MS + 1,
        2 * NS_PER_MS - 1,
        63 * NS_PER_MS,
        64 * NS_PER_MS - 1,
        64 * NS_PER_MS,
        64 * NS_PER_MS + 1,
        64 * 64 * NS_PER_MS - 1,
        64 * 64 * NS_PER_MS,
        64 * 64 * NS_PER_MS + 1,
        HOUR_NS + 1,
    };

    for (size_t i = 0; i < ARRAY_LEN(dues_ns); i++) {
        uint64_t fires_ns = round_up_to_tick(dues_ns[i]) * NS_PER_MS;
        struct timer_wheel wheel;
        struct probe probe;

        timer_wheel_init(&wheel, 0);
        probe_set(&probe, &wheel, dues_ns[i]);
        timer_wheel_run(&wheel, fires_ns - 1);
        cr_assert(probe.fired == 0, "due at %" PRIu64, dues_ns[i]);
        cr_assert(timer_is_set(&probe.timer), "due at %" PRIu64, dues_ns[i]);
        timer_wheel_run(&wheel, fires_ns);
        cr_assert(probe.fired == 1, "due at %" PRIu64, dues_ns[i]);
        cr_assert(probe.fired_ns == fires_ns);
        cr_assert(fires_ns >= dues_ns[i] && fires_ns - dues_ns[i] < NS_PER_MS);
    }
}

/* A fired timer is unset, in its callback already, and fires once only. */
Test(timer, fires_once_and_is_unset_then)
{
    struct timer_wheel wheel;
    struct probe probe;

    timer_wheel_init(&wheel, 0);
    probe_set(&probe, &wheel, 5 * NS_PER_MS);
    cr_assert(timer_is_set(&probe.timer));
    cr_assert(wheel.count == 1);
    timer_wheel_run(&wheel, HOUR_NS);
    timer_wheel_run(&wheel, 2 * HOUR_NS);
    cr_assert(probe.fired == 1);
    cr_assert(!probe.set_in_callback);
    cr_assert(!timer_is_set(&probe.timer));
    cr_assert(wheel.count == 0);
    assert_sound(&wheel);
}

/* A time that has passed, the present included, means the next tick: run at the present nothing
 * happens, one tick later it fires. */
Test(timer, fires_a_passed_time_at_the_next_tick)
{
    const uint64_t now_ns = 1000 * NS_PER_MS;
    const uint64_t passed_ns[] = {0, 1, now_ns - NS_PER_MS, now_ns - 1, now_ns};

    for (size_t i = 0; i < ARRAY_LEN(passed_ns); i++) {
        struct timer_wheel wheel;
        struct probe probe;

        timer_wheel_init(&wheel, now_ns);
        probe_set(&probe, &wheel, passed_ns[i]);
        cr_assert(timer_wheel_next_ns(&wheel) == now_ns + NS_PER_MS);
        timer_wheel_run(&wheel, now_ns);
        timer_wheel_run(&wheel, now_ns + NS_PER_MS - 1);
        cr_assert(probe.fired == 0, "set to %" PRIu64, passed_ns[i]);
        timer_wheel_run(&wheel, now_ns + NS_PER_MS);
        cr_assert(probe.fired == 1, "set to %" PRIu64, passed_ns[i]);
    }
}

/* Setting a timer that is set moves it, to earlier or to later: only the last time counts. */
Test(timer, set_moves_a_timer_that_is_set)
{
    struct timer_wheel wheel;
    struct probe probe;

    timer_wheel_init(&wheel, 0);
    probe_set(&probe, &wheel, 5 * NS_PER_MS);
    timer_set(&wheel, &probe.timer, HOUR_NS);
    timer_set(&wheel, &probe.timer, 7 * NS_PER_MS);
    cr_assert(wheel.count == 1);
    assert_sound(&wheel);
    timer_wheel_run(&wheel, 6 * NS_PER_MS);
    cr_assert(probe.fired == 0);
    timer_wheel_run(&wheel, 7 * NS_PER_MS);
    cr_assert(probe.fired == 1);
    timer_wheel_run(&wheel, 2 * HOUR_NS);
    cr_assert(probe.fired == 1);
}

/* A cancelled timer never fires, cancelling twice or before the first set is harmless, and the
 * wheel sleeps again. */
Test(timer, cancel_unsets_and_may_be_repeated)
{
    struct timer_wheel wheel;
    struct probe probe;

    timer_wheel_init(&wheel, 0);
    probe_set(&probe, &wheel, 5 * NS_PER_MS);
    timer_cancel(&wheel, &probe.timer);
    timer_cancel(&wheel, &probe.timer);
    cr_assert(!timer_is_set(&probe.timer));
    cr_assert(wheel.count == 0);
    cr_assert(timer_wheel_next_ns(&wheel) == TIMER_NEVER);
    timer_init(&probe.timer, probe_fire);
    timer_cancel(&wheel, &probe.timer);
    assert_sound(&wheel);
    timer_wheel_run(&wheel, HOUR_NS);
    cr_assert(probe.fired == 0);
}

/* Cancelling one of two timers of a slot leaves the other in it: on level 0, 1 and above. */
Test(timer, cancel_leaves_the_neighbour_in_the_slot_alone)
{
    static const uint64_t dues_ns[] = {9 * NS_PER_MS, 900 * NS_PER_MS, 9 * HOUR_NS};

    for (size_t i = 0; i < ARRAY_LEN(dues_ns); i++) {
        struct timer_wheel wheel;
        struct probe goes;
        struct probe stays;

        timer_wheel_init(&wheel, 0);
        probe_set(&goes, &wheel, dues_ns[i]);
        probe_set(&stays, &wheel, dues_ns[i]);
        timer_cancel(&wheel, &goes.timer);
        assert_sound(&wheel);
        timer_wheel_run(&wheel, dues_ns[i]);
        cr_assert(goes.fired == 0);
        cr_assert(stays.fired == 1);
    }
}

/* The wheel runs any number of times within one tick: time that stands still is allowed. */
Test(timer, run_may_be_repeated_within_a_tick)
{
    struct timer_wheel wheel;
    struct probe probe;

    timer_wheel_init(&wheel, 5 * NS_PER_MS + 1);
    probe_set(&probe, &wheel, 6 * NS_PER_MS);
    timer_wheel_run(&wheel, 5 * NS_PER_MS + 1);
    timer_wheel_run(&wheel, 5 * NS_PER_MS);
    timer_wheel_run(&wheel, 6 * NS_PER_MS);
    timer_wheel_run(&wheel, 6 * NS_PER_MS);
    cr_assert(probe.fired == 1);
}

/* Time that goes back is a bug of the caller and aborts. */
Test(timer, run_aborts_when_time_goes_back, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct timer_wheel wheel;

    timer_wheel_init(&wheel, 0);
    timer_wheel_run(&wheel, 5 * NS_PER_MS);
    timer_wheel_run(&wheel, 4 * NS_PER_MS);
}

/* A callback may set its own timer again; it then fires at the new time, once for each setting. */
Test(timer, callback_may_set_its_own_timer_again)
{
    struct timer_wheel wheel;
    struct probe probe;

    timer_wheel_init(&wheel, 0);
    probe_set(&probe, &wheel, 63 * NS_PER_MS);
    for (uint64_t tick = 63; tick < 63 + 200; tick++) {
        probe.again_ns = (tick + 1) * NS_PER_MS;
        timer_wheel_run(&wheel, tick * NS_PER_MS);
        cr_assert(probe.fired == tick - 62, "fired %zu times by tick %" PRIu64, probe.fired, tick);
        cr_assert(timer_is_set(&probe.timer));
        assert_sound(&wheel);
    }
}

/* A callback that sets its timer to a passed time fires again at the next tick and not at once:
 * timer_wheel_run() returns after one firing. */
Test(timer, callback_setting_a_passed_time_waits_for_the_next_tick)
{
    struct timer_wheel wheel;
    struct probe probe;

    timer_wheel_init(&wheel, 0);
    probe_set(&probe, &wheel, 1 * NS_PER_MS);
    probe.again_ns = 0;
    timer_wheel_run(&wheel, 1 * NS_PER_MS);
    cr_assert(probe.fired == 1);
    timer_wheel_run(&wheel, 2 * NS_PER_MS);
    cr_assert(probe.fired == 2);
}

/* The same when the wheel runs late, as after a stopped process or a paused machine: the next tick
 * is the one after the time given to timer_wheel_run(), and the missed hour is not made up for one
 * firing per millisecond. */
Test(timer, callback_setting_a_passed_time_fires_once_in_a_late_run)
{
    struct timer_wheel wheel;
    struct probe probe;

    timer_wheel_init(&wheel, 0);
    probe_set(&probe, &wheel, 1 * NS_PER_MS);
    probe.again_ns = 0;
    timer_wheel_run(&wheel, HOUR_NS);
    cr_assert(probe.fired == 1, "fired %zu times in one run", probe.fired);
    timer_wheel_run(&wheel, HOUR_NS + NS_PER_MS);
    cr_assert(probe.fired == 2);
}

/* Of two timers due in one tick each cancels the other: whichever is first, exactly one fires. */
Test(timer, callback_may_cancel_a_sibling_due_in_the_same_tick)
{
    struct timer_wheel wheel;
    struct probe one;
    struct probe other;

    timer_wheel_init(&wheel, 0);
    probe_set(&one, &wheel, 5 * NS_PER_MS);
    probe_set(&other, &wheel, 5 * NS_PER_MS);
    one.victim = &other;
    other.victim = &one;
    timer_wheel_run(&wheel, 5 * NS_PER_MS);
    cr_assert(one.fired + other.fired == 1);
    cr_assert(!timer_is_set(&one.timer));
    cr_assert(!timer_is_set(&other.timer));
    cr_assert(wheel.count == 0);
    assert_sound(&wheel);
}

/* Of two timers due in one tick each moves the other to later: the moved one fires at its new time
 * and not before, in a late run too. */
Test(timer, callback_may_move_a_sibling_due_in_the_same_tick)
{
    static const uint64_t runs_ns[] = {5 * NS_PER_MS, HOUR_NS};

    for (size_t i = 0; i < ARRAY_LEN(runs_ns); i++) {
        uint64_t later_ns = runs_ns[i] + 3 * NS_PER_MS;
        struct timer_wheel wheel;
        struct probe one;
        struct probe other;

        timer_wheel_init(&wheel, 0);
        probe_set(&one, &wheel, 5 * NS_PER_MS);
        probe_set(&other, &wheel, 5 * NS_PER_MS);
        one.victim = &other;
        one.victim_ns = later_ns;
        other.victim = &one;
        other.victim_ns = later_ns;
        timer_wheel_run(&wheel, runs_ns[i]);
        cr_assert(one.fired + other.fired == 1);
        cr_assert(wheel.count == 1);
        assert_sound(&wheel);
        one.victim = NULL;
        other.victim = NULL;
        timer_wheel_run(&wheel, later_ns);
        cr_assert(one.fired == 1);
        cr_assert(other.fired == 1);
    }
}

struct freed {
    struct timer timer;
    struct timer_wheel *wheel;
    struct freed *sibling; /* borrowed; NULL once it is gone */
    size_t *freed_count;
};

static void free_both(struct timer *timer, uint64_t now_ns)
{
    struct freed *self = CONTAINER_OF(timer, struct freed, timer);
    size_t *freed_count = self->freed_count;

    (void)now_ns;
    if (self->sibling != NULL) {
        timer_cancel(self->wheel, &self->sibling->timer);
        memset(self->sibling, 0xa5, sizeof(*self->sibling));
        free(self->sibling);
        (*freed_count)++;
    }
    memset(self, 0xa5, sizeof(*self));
    free(self);
    (*freed_count)++;
}

/* A callback may free its own timer and, after cancelling it, one that is due in the same tick: of
 * 100 pairs of heap timers each frees itself and its partner; the wheel touches none again. */
Test(timer, callback_may_free_itself_and_a_cancelled_sibling)
{
    struct timer_wheel wheel;
    size_t freed_count = 0;

    timer_wheel_init(&wheel, 0);
    for (size_t i = 0; i < 100; i++) {
        struct freed *pair[2] = {malloc(sizeof(struct freed)), malloc(sizeof(struct freed))};

        cr_assert(pair[0] != NULL && pair[1] != NULL);
        for (size_t j = 0; j < 2; j++) {
            *pair[j] = (struct freed){
                .wheel = &wheel, .sibling = pair[1 - j], .freed_count = &freed_count};
            timer_init(&pair[j]->timer, free_both);
            timer_set(&wheel, &pair[j]->timer, (100 + i / 2) * NS_PER_MS);
        }
    }
    timer_wheel_run(&wheel, 110 * NS_PER_MS);
    assert_sound(&wheel);
    timer_wheel_run(&wheel, HOUR_NS);
    cr_assert(freed_count == 200);
    cr_assert(wheel.count == 0);
    assert_sound(&wheel);
}

static uint64_t order_last_tick;
static size_t order_fired;

static void order_fire(struct timer *timer, uint64_t now_ns)
{
    (void)now_ns;
    cr_assert(timer->due_tick >= order_last_tick);
    order_last_tick = timer->due_tick;
    order_fired++;
}

/* A late run fires in the order of time: timers from milliseconds to months apart, set in a mixed
 * order, one jump, and each callback compares its due tick with its predecessor's. */
Test(timer, late_run_fires_in_the_order_of_ticks)
{
    enum { TIMERS = 500 };
    static struct timer timers[TIMERS];
    uint64_t random = 42;
    struct timer_wheel wheel;

    order_last_tick = 0;
    order_fired = 0;
    timer_wheel_init(&wheel, 987654321);
    for (size_t i = 0; i < TIMERS; i++) {
        uint64_t bits = 20 + random_next(&random) % 34;

        timer_init(&timers[i], order_fire);
        timer_set(&wheel, &timers[i], random_next(&random) >> (64 - bits));
    }
    timer_wheel_run(&wheel, UINT64_C(1) << 55);
    cr_assert(order_fired == TIMERS);
    cr_assert(wheel.count == 0);
}

/* Far times are as exact as near ones: years ahead, from several presents, not fired one tick
 * before and fired at the tick. */
Test(timer, fires_far_timers_exactly)
{
    static const uint64_t starts_ns[] = {0, 12345 * NS_PER_S + 678, 3 * YEAR_NS};
    static const uint64_t dues_ns[] = {
        10 * YEAR_NS,         100 * YEAR_NS,        500 * YEAR_NS,         UINT64_MAX / 2,
        UINT64_MAX - YEAR_NS, UINT64_MAX - HOUR_NS, UINT64_MAX - NS_PER_S,
    };

    for (size_t i = 0; i < ARRAY_LEN(starts_ns) * ARRAY_LEN(dues_ns); i++) {
        uint64_t due_ns = dues_ns[i % ARRAY_LEN(dues_ns)];
        uint64_t fires_ns = round_up_to_tick(due_ns) * NS_PER_MS;
        struct timer_wheel wheel;
        struct probe probe;

        timer_wheel_init(&wheel, starts_ns[i / ARRAY_LEN(dues_ns)]);
        probe_set(&probe, &wheel, due_ns);
        assert_sound(&wheel);
        cr_assert(timer_wheel_next_ns(&wheel) <= fires_ns);
        timer_wheel_run(&wheel, fires_ns - NS_PER_MS);
        cr_assert(probe.fired == 0, "row %zu", i);
        assert_sound(&wheel);
        cr_assert(timer_wheel_next_ns(&wheel) == fires_ns, "row %zu", i);
        timer_wheel_run(&wheel, fires_ns);
        cr_assert(probe.fired == 1, "row %zu", i);
    }
}

/* TIMER_NEVER as a due time is a time like any other, too far to come: run hour by hour, then year
 * by year for a century, it neither fires nor wakes the caller for a time that has passed. */
Test(timer, set_to_never_does_not_fire)
{
    struct timer_wheel wheel;
    struct probe probe;
    uint64_t now_ns = 0;

    timer_wheel_init(&wheel, now_ns);
    probe_set(&probe, &wheel, TIMER_NEVER);
    while (now_ns < 100 * YEAR_NS) {
        now_ns += now_ns < YEAR_NS ? HOUR_NS : YEAR_NS;
        timer_wheel_run(&wheel, now_ns);
        cr_assert(probe.fired == 0);
        cr_assert(timer_wheel_next_ns(&wheel) > now_ns);
    }
    assert_sound(&wheel);
    timer_cancel(&wheel, &probe.timer);
    cr_assert(wheel.count == 0);
}

/* At the very end of time too, a wheel with a timer set says a time that lies ahead: the last tick
 * of 64 bits of nanoseconds must not wrap to one long passed, which would be a busy loop. */
Test(timer, next_does_not_wrap_at_the_end_of_time)
{
    const uint64_t now_ns = UINT64_MAX - 10 * NS_PER_MS;
    struct timer_wheel wheel;
    struct probe probe;

    timer_wheel_init(&wheel, now_ns);
    probe_set(&probe, &wheel, UINT64_MAX);
    cr_assert(timer_wheel_next_ns(&wheel) > now_ns, "next is %" PRIu64,
              timer_wheel_next_ns(&wheel));
}

/* Sleeping until timer_wheel_next_ns() costs a single timer at most one wake-up a level, and ends
 * exactly at its tick: for random distances of up to centuries, the loop is counted. */
Test(timer, one_timer_wakes_at_most_once_a_level)
{
    uint64_t random = 7;

    for (size_t i = 0; i < 3000; i++) {
        uint64_t now_ns = random_next(&random) >> (2 + random_next(&random) % 40);
        uint64_t due_ns = now_ns + (random_next(&random) >> (2 + random_next(&random) % 40));
        uint64_t fires_tick = round_up_to_tick(due_ns);
        size_t wakes = 0;
        struct timer_wheel wheel;
        struct probe probe;

        timer_wheel_init(&wheel, now_ns);
        fires_tick += fires_tick == now_ns / NS_PER_MS ? 1 : 0;
        probe_set(&probe, &wheel, due_ns);
        while (probe.fired == 0) {
            uint64_t next_ns = timer_wheel_next_ns(&wheel);

            cr_assert(next_ns > now_ns, "seed 7, timer %zu", i);
            cr_assert(next_ns <= fires_tick * NS_PER_MS, "seed 7, timer %zu", i);
            now_ns = next_ns;
            timer_wheel_run(&wheel, now_ns);
            wakes++;
        }
        cr_assert(now_ns == fires_tick * NS_PER_MS, "seed 7, timer %zu", i);
        cr_assert(wakes <= TIMER_LEVELS, "seed 7, timer %zu: %zu wake-ups", i, wakes);
    }
}

/* Run at every tick, each timer fires less than a tick after its time: random timers while the
 * present walks over the boundary of a slot of every level from 1 to 5. */
Test(timer, is_less_than_a_tick_late_when_run_every_tick)
{
    enum { TIMERS = 300, TICKS = 3000 };
    static struct probe probes[TIMERS];
    static uint64_t dues_ns[TIMERS];
    uint64_t random = 99;
    uint64_t boundary_tick = 1;

    for (unsigned level = 1; level <= 5; level++) {
        struct timer_wheel wheel;
        uint64_t tick;
        size_t fired = 0;

        boundary_tick *= TIMER_SLOTS;
        tick = boundary_tick > TICKS / 2 ? boundary_tick - TICKS / 2 : 0;
        timer_wheel_init(&wheel, tick * NS_PER_MS);
        for (size_t i = 0; i < TIMERS; i++) {
            dues_ns[i] = tick * NS_PER_MS + 1 + random_next(&random) % (TICKS * NS_PER_MS);
            probe_set(&probes[i], &wheel, dues_ns[i]);
        }
        for (uint64_t end_tick = tick + TICKS; tick <= end_tick; tick++) {
            timer_wheel_run(&wheel, tick * NS_PER_MS);
        }
        for (size_t i = 0; i < TIMERS; i++) {
            cr_assert(probes[i].fired == 1, "seed 99, level %u, timer %zu", level, i);
            cr_assert(probes[i].fired_ns >= dues_ns[i], "seed 99, level %u, timer %zu", level, i);
            cr_assert(probes[i].fired_ns - dues_ns[i] < NS_PER_MS, "seed 99, level %u, timer %zu",
                      level, i);
            fired += probes[i].fired;
        }
        cr_assert(fired == TIMERS);
    }
}

static size_t crowd_fired;

static void crowd_fire(struct timer *timer, uint64_t now_ns)
{
    (void)timer;
    (void)now_ns;
    crowd_fired++;
}

/* Moving costs no memory: 100 000 timers, as many as connections, are moved 20 times while time
 * goes on; the walk finds each of them once, and in the end each fires once. */
Test(timer, many_timers_moved_many_times_stay_bounded)
{
    enum { TIMERS = 100000, MOVES = 20 };
    struct timer *timers = calloc(TIMERS, sizeof(*timers));
    uint64_t random = 5;
    uint64_t now_ns = 77 * NS_PER_S;
    struct timer_wheel wheel;

    cr_assert(timers != NULL);
    crowd_fired = 0;
    timer_wheel_init(&wheel, now_ns);
    for (size_t i = 0; i < TIMERS; i++) {
        timer_init(&timers[i], crowd_fire);
    }
    for (size_t move = 0; move < MOVES; move++) {
        for (size_t i = 0; i < TIMERS; i++) {
            uint64_t timeout_ns = 10 * NS_PER_S + random_next(&random) % (600 * NS_PER_S);

            timer_set(&wheel, &timers[i], now_ns + timeout_ns);
        }
        cr_assert(wheel.count == TIMERS);
        assert_sound(&wheel);
        now_ns += 9 * NS_PER_S; /* less than any timeout */
        timer_wheel_run(&wheel, now_ns);
        cr_assert(crowd_fired == 0);
    }
    assert_sound(&wheel);
    timer_wheel_run(&wheel, now_ns + HOUR_NS);
    cr_assert(crowd_fired == TIMERS);
    cr_assert(wheel.count == 0);
    assert_sound(&wheel);
    free(timers);
}
