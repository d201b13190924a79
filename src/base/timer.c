/* A hierarchical timer wheel: 8 levels of 64 slots, one millisecond a tick.
 *
 * The problem: a hundred thousand connections each have a deadline that almost never comes, and is
 * moved now and then. A heap would cost log(n) and memory locality for each move; here a move is
 * two list operations.
 *
 * The model: write a tick as base-64 digits. A timer lives at the level of the highest digit in
 * which its due tick differs from the present tick, in the slot named by that digit.
 *
 *   present  =  .. 05 17 42
 *   due      =  .. 05 19 03     differs first at digit 1  ->  level 1, slot 19
 *
 * When the present reaches `.. 05 19 00`, that slot is emptied and its timers are placed anew, now
 * by a lower digit; at level 0 the slot's tick is the timer's own tick, and it fires. One 64-bit
 * map per level says which slots hold something, so that empty time is jumped over and not walked.
 *
 * Invariants: T1 a set timer lies in the slot that slot_of() computes from its due tick and the
 * present one. T2 a bit of `occupied` is set iff that slot is not empty. T3 at level > 0 no slot at
 * or before the present's own digit is occupied, hence everything on a lower level is due earlier
 * than anything on a higher one. Moving the present keeps T1 as long as no occupied slot's start is
 * passed over, and timer_wheel_run() stops at each of those.
 *
 * 8 levels of 6 bits hold 2^48 ms: more than 64 bits of nanoseconds can say, so nothing overflows
 * and no tick is special. */
#include "base/timer.h"

#include "base/macros.h"

#include <assert.h>

enum { SLOT_BITS = 6 };
static_assert(1 << SLOT_BITS == TIMER_SLOTS, "a slot is one base-64 digit");
static_assert(TIMER_LEVELS * SLOT_BITS >= 45, "the levels cover 2^64 ns, which are under 2^45 ms");

struct slot {
    unsigned level;
    unsigned index;
};

static struct slot slot_of(const struct timer_wheel *wheel, uint64_t tick)
{
    uint64_t differing = tick ^ wheel->now_tick;
    unsigned level = 0;

    if (differing != 0) {
        level = (63U - (unsigned)__builtin_clzll(differing)) / SLOT_BITS;
    }
    return (struct slot){level, (unsigned)(tick >> (level * SLOT_BITS)) & (TIMER_SLOTS - 1)};
}

static void place(struct timer_wheel *wheel, struct timer *timer)
{
    struct slot slot = slot_of(wheel, timer->due_tick);

    CHECK(slot.level < TIMER_LEVELS);
    list_push_back(&wheel->slots[slot.level][slot.index], &timer->node);
    wheel->occupied[slot.level] |= UINT64_C(1) << slot.index;
}

void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ns)
{
    wheel->count = 0;
    wheel->now_tick = now_ns / NS_PER_MS;
    wheel->caller_tick = wheel->now_tick;
    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        wheel->occupied[level] = 0;
        for (unsigned index = 0; index < TIMER_SLOTS; index++) {
            list_init(&wheel->slots[level][index]);
        }
    }
}

void timer_init(struct timer *timer, timer_fn *fire)
{
    list_init(&timer->node);
    timer->due_tick = 0;
    timer->fire = fire;
}

bool timer_is_set(const struct timer *timer)
{
    return list_is_linked(&timer->node);
}

void timer_set(struct timer_wheel *wheel, struct timer *timer, uint64_t due_ns)
{
    /* Rounded up, so that it never fires early; at least one tick ahead of the caller's present, so
     * that a timer that sets itself again from its own callback can't keep timer_wheel_run() from
     * returning, nor fire once for every tick that a late run makes up for. */
    uint64_t due_tick = due_ns / NS_PER_MS + (due_ns % NS_PER_MS != 0);

    timer_cancel(wheel, timer);
    timer->due_tick = due_tick > wheel->caller_tick ? due_tick : wheel->caller_tick + 1;
    place(wheel, timer);
    wheel->count++;
}

void timer_cancel(struct timer_wheel *wheel, struct timer *timer)
{
    struct slot slot;

    if (!timer_is_set(timer)) {
        return;
    }
    CHECK(wheel->count > 0);
    list_remove(&timer->node);
    wheel->count--;
    slot = slot_of(wheel, timer->due_tick);
    if (list_is_empty(&wheel->slots[slot.level][slot.index])) {
        wheel->occupied[slot.level] &= ~(UINT64_C(1) << slot.index);
    }
}

uint64_t timer_due_ns(const struct timer *timer)
{
    CHECK(timer_is_set(timer));
    return timer->due_tick <= UINT64_MAX / NS_PER_MS ? timer->due_tick * NS_PER_MS : UINT64_MAX;
}

/* The first occupied slot in time. By T3 that is the first one of the lowest occupied level. */
static bool first_slot(const struct timer_wheel *wheel, struct slot *ret_slot, uint64_t *ret_tick)
{
    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        if (wheel->occupied[level] != 0) {
            unsigned index = (unsigned)__builtin_ctzll(wheel->occupied[level]);
            unsigned shift = level * SLOT_BITS;
            uint64_t above = wheel->now_tick >> shift >> SLOT_BITS << SLOT_BITS << shift;

            *ret_slot = (struct slot){level, index};
            *ret_tick = above | (uint64_t)index << shift;
            return true;
        }
    }
    return false;
}

uint64_t timer_wheel_next_ns(const struct timer_wheel *wheel)
{
    struct slot slot;
    uint64_t tick;

    /* The last tick starts behind the last nanosecond: no present reaches it. */
    if (!first_slot(wheel, &slot, &tick) || tick > UINT64_MAX / NS_PER_MS) {
        return TIMER_NEVER;
    }
    return tick * NS_PER_MS;
}

static void fire_all(struct timer_wheel *wheel, struct list_node *due, uint64_t now_ns)
{
    struct list_node *node;

    while ((node = list_pop_front(due)) != NULL) {
        struct timer *timer = CONTAINER_OF(node, struct timer, node);

        wheel->count--;
        timer->fire(timer, now_ns);
    }
}

static void place_all(struct timer_wheel *wheel, struct list_node *moved)
{
    struct list_node *node;

    while ((node = list_pop_front(moved)) != NULL) {
        place(wheel, CONTAINER_OF(node, struct timer, node));
    }
}

void timer_wheel_run(struct timer_wheel *wheel, uint64_t now_ns)
{
    uint64_t target_tick = now_ns / NS_PER_MS;
    struct slot slot;
    uint64_t tick;

    CHECK(target_tick >= wheel->now_tick);
    wheel->caller_tick = target_tick;
    while (first_slot(wheel, &slot, &tick) && tick <= target_tick) {
        struct list_node taken;

        list_init(&taken);
        list_splice_back(&taken, &wheel->slots[slot.level][slot.index]);
        wheel->occupied[slot.level] &= ~(UINT64_C(1) << slot.index);
        wheel->now_tick = tick;
        if (slot.level == 0) {
            fire_all(wheel, &taken, now_ns);
        } else {
            place_all(wheel, &taken);
        }
    }
    wheel->now_tick = target_tick;
}
