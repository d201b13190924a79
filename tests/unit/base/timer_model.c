/* The timer wheel against a plain array of due ticks, over random operations. */
#include "support/stream.h"
#include "unit/base/wheel_check.h"

#include <criterion/criterion.h>
#include <inttypes.h>

enum { MODEL_TIMERS = 96, MODEL_OPERATIONS = 100000 };

struct model;

struct model_timer {
    struct timer timer;
    struct model *model; /* borrowed */
    bool set;
    uint64_t due_ns;   /* as asked for */
    uint64_t due_tick; /* as promised */
};

/* The wheel and, beside it, what it should hold. */
struct model {
    uint64_t seed;
    size_t operation;
    uint64_t random;
    uint64_t now_ns;
    uint64_t fired_tick; /* of the last timer fired in this run */
    size_t set_count;
    size_t fired_count;
    bool running;
    struct timer_wheel wheel;
    struct model_timer timers[MODEL_TIMERS];
};

#define MODEL_ASSERT(model, condition)                                                             \
    cr_assert((condition), "seed %" PRIu64 ", operation %zu: %s", (model)->seed,                   \
              (model)->operation, #condition)

static struct model_timer *model_pick(struct model *model)
{
    return &model->timers[random_next(&model->random) % MODEL_TIMERS];
}

/* A tick at which a slot of `level` starts, one of the next three. */
static uint64_t model_boundary_tick(struct model *model, uint64_t level)
{
    unsigned shift = 6 * (unsigned)level;
    uint64_t ahead = 1 + random_next(&model->random) % 3;

    return ((model->now_ns / NS_PER_MS >> shift) + ahead) << shift;
}

/* Due times of all kinds; many fall together, so that slots and ticks are shared. */
static uint64_t model_due_ns(struct model *model)
{
    uint64_t random = random_next(&model->random);
    uint64_t boundary_ns = model_boundary_tick(model, random / 8 % 6) * NS_PER_MS;

    switch (random % 8) {
    case 0:
        return model->now_ns - min_u64(model->now_ns, random_next(&model->random) >> 30);
    case 1:
        return model->now_ns + random_next(&model->random) % (3 * NS_PER_MS);
    case 2:
        return boundary_ns;
    case 3:
        return boundary_ns - NS_PER_MS + random_next(&model->random) % (2 * NS_PER_MS);
    default: /* from nanoseconds to half a year, all magnitudes alike */
        return model->now_ns + (random_next(&model->random) >> (10 + random / 64 % 54));
    }
}

static void model_set(struct model *model, struct model_timer *timer, uint64_t due_ns)
{
    uint64_t now_tick = model->now_ns / NS_PER_MS;

    timer_set(&model->wheel, &timer->timer, due_ns);
    model->set_count += timer->set ? 0 : 1;
    timer->set = true;
    timer->due_ns = due_ns;
    timer->due_tick = round_up_to_tick(due_ns);
    if (timer->due_tick <= now_tick) {
        timer->due_tick = now_tick + 1;
    }
    MODEL_ASSERT(model, timer_is_set(&timer->timer));
}

static void model_cancel(struct model *model, struct model_timer *timer)
{
    timer_cancel(&model->wheel, &timer->timer);
    model->set_count -= timer->set ? 1 : 0;
    timer->set = false;
    MODEL_ASSERT(model, !timer_is_set(&timer->timer));
}

/* In half of the firings, the callback works on the wheel: on its own timer or any other. */
static void model_fire(struct timer *fired, uint64_t now_ns)
{
    struct model_timer *timer = CONTAINER_OF(fired, struct model_timer, timer);
    struct model *model = timer->model;

    MODEL_ASSERT(model, model->running);
    MODEL_ASSERT(model, now_ns == model->now_ns);
    MODEL_ASSERT(model, timer->set);
    MODEL_ASSERT(model, !timer_is_set(fired));
    MODEL_ASSERT(model, timer->due_ns <= now_ns); /* never early */
    MODEL_ASSERT(model, timer->due_tick <= now_ns / NS_PER_MS);
    MODEL_ASSERT(model, timer->due_tick >= model->fired_tick); /* in order */
    model->fired_tick = timer->due_tick;
    model->fired_count++;
    timer->set = false;
    model->set_count--;
    MODEL_ASSERT(model, model->wheel.count == model->set_count);
    switch (random_next(&model->random) % 6) {
    case 0:
        model_set(model, timer, now_ns + 1 + (random_next(&model->random) >> 30));
        break;
    case 1:
        model_set(model, model_pick(model), now_ns + 1 + (random_next(&model->random) >> 30));
        break;
    case 2:
        model_cancel(model, model_pick(model));
        break;
    default:
        break;
    }
}

/* Mostly small steps; to the next wake-up; to slot boundaries of levels 0 to 4; jumps of hours. */
static void model_advance(struct model *model)
{
    uint64_t random = random_next(&model->random);
    uint64_t next_ns = timer_wheel_next_ns(&model->wheel);

    switch (random % 8) {
    case 0:
        model->now_ns += random_next(&model->random) % (10 * HOUR_NS);
        break;
    case 1:
        model->now_ns = model_boundary_tick(model, random / 8 % 5) * NS_PER_MS;
        break;
    case 2:
        model->now_ns = model_boundary_tick(model, random / 8 % 5) * NS_PER_MS - 1;
        break;
    case 3:
        model->now_ns = next_ns != TIMER_NEVER ? next_ns : model->now_ns;
        break;
    default:
        model->now_ns += random_next(&model->random) % (2 * NS_PER_MS);
        break;
    }
}

static void model_run(struct model *model)
{
    model_advance(model);
    model->fired_tick = 0;
    model->running = true;
    timer_wheel_run(&model->wheel, model->now_ns);
    model->running = false;
}

static void model_check(const struct model *model)
{
    uint64_t now_tick = model->now_ns / NS_PER_MS;
    uint64_t next_ns = timer_wheel_next_ns(&model->wheel);
    const char *fault = wheel_fault(&model->wheel);

    cr_assert(fault == NULL, "seed %" PRIu64 ", operation %zu: %s", model->seed, model->operation,
              fault);
    MODEL_ASSERT(model, model->wheel.count == model->set_count);
    MODEL_ASSERT(model, (next_ns == TIMER_NEVER) == (model->set_count == 0));
    MODEL_ASSERT(model, next_ns > model->now_ns);
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        const struct model_timer *timer = &model->timers[i];

        MODEL_ASSERT(model, timer_is_set(&timer->timer) == timer->set);
        if (timer->set) {
            MODEL_ASSERT(model, timer->due_tick > now_tick); /* none forgotten */
            MODEL_ASSERT(model, next_ns <= timer->due_tick * NS_PER_MS);
        }
    }
}

static void model_step(struct model *model)
{
    uint64_t choice = random_next(&model->random) % 100;

    if (choice < 50) {
        model_set(model, model_pick(model), model_due_ns(model));
    } else if (choice < 65) {
        model_cancel(model, model_pick(model));
    } else {
        model_run(model);
    }
}

static void model_init(struct model *model, uint64_t seed, uint64_t now_ns)
{
    memset(model, 0, sizeof(*model));
    model->seed = seed;
    model->random = seed;
    model->now_ns = now_ns;
    timer_wheel_init(&model->wheel, now_ns);
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        model->timers[i].model = model;
        timer_init(&model->timers[i].timer, model_fire);
    }
}

static void model_play(uint64_t seed, uint64_t now_ns)
{
    static struct model model;

    model_init(&model, seed, now_ns);
    for (; model.operation < MODEL_OPERATIONS; model.operation++) {
        model_step(&model);
        model_check(&model);
    }
    MODEL_ASSERT(&model, model.fired_count > MODEL_OPERATIONS / 10); /* it did test something */
}

/* Over any sequence of operations the wheel does what an array of due ticks says: 10^5 random sets,
 * cancels and runs over all slot boundaries of levels 0 to 4, checked and walked after each, from
 * the first tick on. */
Test(timer, agrees_with_an_array_over_random_operations)
{
    model_play(1, 0);
}

/* The same from a present just below the boundary of a slot of level 5, half a month of uptime. */
Test(timer, agrees_with_an_array_around_a_high_boundary)
{
    model_play(20261122, (UINT64_C(1) << 30) * NS_PER_MS - 3 * HOUR_NS - 1);
}
