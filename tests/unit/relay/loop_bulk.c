/* Tests of the reactor's two queues: tasks that move bulk give way to those that do not, some of them
 * have their turn before epoll is asked again, and neither kind starves (loop.c, L3 and L4). How much
 * they may move in a turn is a matter of tuning; the tests hold for any number that makes sense. */
#include "base/macros.h"
#include "relay/loop.h"
#include "support/unit/fault.h"
#include "support/unit/lane.h"

#include <criterion/criterion.h>
#include <string.h>

enum { BULK = 20, SMALL = 40, FEW = BULK / 4, RUNS_MAX = 4096, MUCH_BYTES = 1 << 20 };

/* A task that notes when it ran. */
struct job {
    struct task task;
    struct io io;
    unsigned runs;
    uint64_t bytes; /* that it moves whenever it runs */
    bool again;     /* queues itself whenever it runs */
};

static struct loop bulk_loop;
static struct job bulk[BULK];
static struct job small[SMALL];

/* The order in which they ran. */
static const struct job *order[RUNS_MAX];
static size_t order_len;

static void run_job(struct task *task)
{
    struct job *job = CONTAINER_OF(task, struct job, task);

    job->runs++;
    bulk_loop.moved_bytes += job->bytes;
    cr_assert(order_len < RUNS_MAX);
    order[order_len++] = job;
    if (job->again) {
        loop_queue(&bulk_loop, &job->task);
    }
}

static void init_job(struct job *job, bool is_bulk)
{
    memset(job, 0, sizeof(*job));
    task_init(&job->task, run_job);
    cr_assert(!job->task.is_bulk, "it has to be said");
    job->task.is_bulk = is_bulk;
    job->bytes = is_bulk ? MUCH_BYTES : 0;
    io_init(&job->io, &job->task);
}

static void set_up(void)
{
    bound_test_time();
    fault_clear();
    order_len = 0;
    cr_assert(loop_init(&bulk_loop) == 0);
    for (size_t i = 0; i < BULK; i++) {
        init_job(&bulk[i], true);
    }
    for (size_t i = 0; i < SMALL; i++) {
        init_job(&small[i], false);
    }
}

static void tear_down(void)
{
    loop_fini(&bulk_loop);
}

static void queue_all(struct job *jobs, size_t count, bool again)
{
    for (size_t i = 0; i < count; i++) {
        jobs[i].again = again;
        loop_queue(&bulk_loop, &jobs[i].task);
    }
}

/* An event for this one is what epoll says next. */
static void make_ready(struct job *job)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &job->io};

    fault_events(&event, 1);
}

static unsigned runs_of(const struct job *jobs, size_t count)
{
    unsigned runs = 0;

    for (size_t i = 0; i < count; i++) {
        runs += jobs[i].runs;
    }
    return runs;
}

/* One turn that does not wait; returns how many bulk tasks had theirs. */
static unsigned turn(void)
{
    unsigned before = runs_of(bulk, BULK);

    cr_assert(loop_turn(&bulk_loop) == 0);
    cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->len == 0, "it must not wait");
    return runs_of(bulk, BULK) - before;
}

/* Bulk comes last, whoever was queued first, and whether by an event or by its own wish. */
Test(loop, runs_bulk_behind_everything_else, .init = set_up, .fini = tear_down)
{
    loop_queue(&bulk_loop, &bulk[0].task);
    loop_queue(&bulk_loop, &small[0].task);
    make_ready(&small[1]);
    (void)turn();
    cr_assert(order_len == 3);
    cr_assert(order[0] == &small[0] && order[1] == &small[1] && order[2] == &bulk[0]);
}

/* Only a few bulk tasks have their turn before epoll is asked again: what it tells goes before all
 * those that still wait. */
Test(loop, asks_for_events_before_all_bulk_has_had_its_turn, .init = set_up, .fini = tear_down)
{
    queue_all(bulk, BULK, false);
    for (unsigned turns = 1; runs_of(bulk, BULK) < BULK; turns++) {
        unsigned runs;

        make_ready(&small[0]);
        runs = turn();
        cr_assert(runs >= 1 && runs <= FEW, "%u at once", runs);
        cr_assert(small[0].runs == turns);
        cr_assert(order[order_len - 1 - runs] == &small[0], "an event waited for bulk");
    }
}

/* What counts is what they move: of those that find little more have their turn. */
Test(loop, runs_more_bulk_the_less_it_moves, .init = set_up, .fini = tear_down)
{
    unsigned much;

    queue_all(bulk, BULK, true);
    much = turn();
    for (size_t i = 0; i < BULK; i++) {
        bulk[i].bytes = MUCH_BYTES / BULK;
    }
    cr_assert(turn() > much);
}

/* However much else there is to do, in every turn: bulk goes on, each in its order, and no one twice
 * before all the others once. */
Test(loop, lets_no_bulk_starve, .init = set_up, .fini = tear_down)
{
    static const size_t others[] = {0, 1, 2, 3, 4, 5, SMALL};

    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        tear_down();
        set_up();
        queue_all(bulk, BULK, true);
        queue_all(small, others[i], true);
        for (unsigned turns = 1; turns <= 2 * BULK; turns++) {
            cr_assert(turn() >= 1, "with %zu others", others[i]);
            cr_assert(runs_of(small, others[i]) == turns * others[i]);
            for (size_t k = 1; k < BULK; k++) {
                cr_assert(bulk[k].runs <= bulk[k - 1].runs);
                cr_assert(bulk[k].runs + 1 >= bulk[0].runs);
            }
        }
    }
}

/* The share of bulk grows with what the others do: a turn with much to do for them takes longer, and
 * bulk would else come to a halt under load. */
Test(loop, runs_more_bulk_the_more_others_run, .init = set_up, .fini = tear_down)
{
    unsigned alone;
    unsigned together;

    queue_all(bulk, BULK, true);
    alone = turn();
    queue_all(small, SMALL, true);
    together = turn();
    cr_assert(together > alone, "%u with others, %u without", together, alone);
}

/* With bulk queued the loop does not wait, in each turn until the last has run; then it does. */
Test(loop, does_not_wait_while_bulk_is_queued, .init = set_up, .fini = tear_down)
{
    fault_return(CALL_EPOLL_WAIT, ANY_FD, 1, ALWAYS, 0);
    queue_all(bulk, BULK, false);
    while (runs_of(bulk, BULK) < BULK) {
        cr_assert(turn() >= 1);
    }
    cr_assert(loop_turn(&bulk_loop) == 0);
    cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->len == -1);
    cr_assert(runs_of(bulk, BULK) == BULK);
}

static void become_bulk(struct task *task)
{
    task->is_bulk = true;
    run_job(task);
}

/* A task that turns out to move bulk has had its turn; it goes on in the next one. */
Test(loop, runs_a_task_once_a_turn_though_it_becomes_bulk, .init = set_up, .fini = tear_down)
{
    small[0].task.run = become_bulk;
    queue_all(small, 1, true);
    for (unsigned turns = 1; turns <= 3; turns++) {
        (void)turn();
        cr_assert(small[0].runs == turns, "%u runs in %u turns", small[0].runs, turns);
    }
}
