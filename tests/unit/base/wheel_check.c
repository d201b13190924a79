/* Walks a whole wheel: every list, every timer in it, every bit of the maps. */
#include "unit/base/wheel_check.h"

#include <criterion/criterion.h>

/* Number of the base-64 digit of `tick` at `level`. */
static unsigned digit(uint64_t tick, unsigned level)
{
    for (; level > 0; level--) {
        tick /= TIMER_SLOTS;
    }
    return (unsigned)(tick % TIMER_SLOTS);
}

/* The level that T1 wants: that of the highest digit in which the two ticks differ. */
static unsigned level_of(uint64_t tick, uint64_t present)
{
    unsigned level = TIMER_LEVELS - 1;

    while (level > 0 && digit(tick, level) == digit(present, level)) {
        level--;
    }
    return level;
}

static const char *timer_fault(const struct timer_wheel *wheel, const struct timer *timer,
                               unsigned level, unsigned index)
{
    if (timer->due_tick <= wheel->now_tick) {
        return "a set timer is overdue";
    }
    if (level_of(timer->due_tick, wheel->now_tick) != level) {
        return "T1: a timer lies on another level than its due tick says";
    }
    if (digit(timer->due_tick, level) != index) {
        return "T1: a timer lies in another slot than its due tick says";
    }
    return NULL;
}

static const char *slot_fault(const struct timer_wheel *wheel, unsigned level, unsigned index,
                              size_t *count)
{
    const struct list_node *head = &wheel->slots[level][index];
    bool occupied = (wheel->occupied[level] >> index & 1) != 0;
    const char *fault = NULL;

    if (occupied == list_is_empty(head)) {
        return "T2: a bit of `occupied` contradicts its slot";
    }
    if (occupied && index <= digit(wheel->now_tick, level)) {
        return "T3: a slot at or before the present's digit is occupied";
    }
    for (const struct list_node *node = head->next; node != head; node = node->next) {
        if (node->next->prev != node) {
            return "a slot's list is broken";
        }
        fault = timer_fault(wheel, CONTAINER_OF(node, struct timer, node), level, index);
        if (fault != NULL) {
            return fault;
        }
        (*count)++;
    }
    return NULL;
}

const char *wheel_fault(const struct timer_wheel *wheel)
{
    size_t count = 0;

    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        for (unsigned index = 0; index < TIMER_SLOTS; index++) {
            const char *fault = slot_fault(wheel, level, index, &count);

            if (fault != NULL) {
                return fault;
            }
        }
    }
    return count == wheel->count ? NULL : "`count` differs from the timers found";
}

void assert_sound(const struct timer_wheel *wheel)
{
    const char *fault = wheel_fault(wheel);

    cr_assert(fault == NULL, "%s", fault);
}
