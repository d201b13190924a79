/* Tests of the reactor: registration, the order within a turn, fairness, timers, deferred release.
 * Real socket pairs and a real epoll instance; events that are hard to get are made up at the
 * seam. */
#include "relay/loop.h"

#include "base/macros.h"
#include "support/unit/fault.h"
#include "support/unit/lane.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROBES_MAX = 600 };

/* A task with one descriptor that notes when it ran and what it knew then. */
struct probe {
    struct task task;
    struct io io;
    struct loop *loop;
    int peer; /* the other end of its socket pair */
    unsigned runs;
    uint8_t ready_seen;        /* at its last run */
    const struct probe *other; /* whose ready bits it looks at when it runs */
    uint8_t other_ready_seen;
    bool again; /* queues itself whenever it runs */
};

/* The order in which probes ran. */
static const struct probe *order[PROBES_MAX];
static size_t order_len;

static void run_probe(struct task *task)
{
    struct probe *probe = CONTAINER_OF(task, struct probe, task);

    probe->runs++;
    probe->ready_seen = probe->io.ready;
    if (probe->other != NULL) {
        probe->other_ready_seen = probe->other->io.ready;
    }
    if (order_len < PROBES_MAX) {
        order[order_len++] = probe;
    }
    if (probe->again) {
        loop_queue(probe->loop, &probe->task);
    }
}

static void init_probe(struct probe *probe, struct loop *loop)
{
    memset(probe, 0, sizeof(*probe));
    probe->loop = loop;
    probe->peer = -1;
    task_init(&probe->task, run_probe);
    io_init(&probe->io, &probe->task);
}

/* A probe on a fresh socket pair; one turn later its first readiness is known. */
static void open_probe(struct probe *probe, struct loop *loop)
{
    int fds[2];

    init_probe(probe, loop);
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    probe->peer = fds[1];
    cr_assert(loop_add(loop, &probe->io, fds[0]) == 0);
}

static void close_probe(struct probe *probe)
{
    (void)close(probe->io.fd);
    (void)close(probe->peer);
}

static void make_readable(const struct probe *probe)
{
    cr_assert(write(probe->peer, "x", 1) == 1);
}

/* A turn that does not wait. */
static void turn_now(struct loop *loop)
{
    fault_disarm();
    cr_assert(loop_turn(loop) == 0);
}

static struct loop loop;

static void set_up(void)
{
    bound_test_time();
    fault_clear();
    order_len = 0;
    cr_assert(loop_init(&loop) == 0);
}

static void tear_down(void)
{
    loop_fini(&loop);
}

TestSuite(loop, .init = set_up, .fini = tear_down);

/* --- registration --- */

/* One epoll_ctl for the life of a descriptor, for both directions and edge-triggered, however much
 * traffic there is. */
Test(loop, registers_each_descriptor_once)
{
    uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    struct probe probe;

    open_probe(&probe, &loop);
    cr_assert(fault_last(CALL_EPOLL_ADD, probe.io.fd)->len == events);
    for (int i = 0; i < 20; i++) {
        char byte;

        make_readable(&probe);
        turn_now(&loop);
        cr_assert((probe.io.ready & IO_READABLE) != 0);
        cr_assert(read(probe.io.fd, &byte, 1) == 1);
        probe.io.ready = 0;
    }
    cr_assert(fault_count(CALL_EPOLL_ADD, ANY_FD) == 1);
    cr_assert(fault_count(CALL_EPOLL_REMOVE, ANY_FD) == 0);
    close_probe(&probe);
}

/* A descriptor that was ready before it was added is reported all the same. */
Test(loop, reports_what_was_ready_before)
{
    struct probe probe;

    open_probe(&probe, &loop);
    make_readable(&probe);
    turn_now(&loop);
    cr_assert(probe.runs == 1);
    cr_assert(probe.ready_seen == (IO_READABLE | IO_WRITABLE));
    close_probe(&probe);
}

/* Edge-triggered: what was told once is not told again, though the byte is still there; the bit is
 * the memory of it. */
Test(loop, tells_once_and_remembers)
{
    struct probe probe;
    struct probe other;

    open_probe(&probe, &loop);
    make_readable(&probe);
    turn_now(&loop);
    cr_assert(probe.runs == 1);
    init_probe(&other, &loop);
    loop_queue(&loop, &other.task); /* so that the turn does not wait */
    turn_now(&loop);
    cr_assert(other.runs == 1);
    cr_assert(probe.runs == 1);
    cr_assert((probe.io.ready & IO_READABLE) != 0);
    close_probe(&probe);
}

/* An io that could not be added stands for nothing, and the descriptor stays the caller's. */
Test(loop, keeps_no_descriptor_that_it_could_not_add)
{
    static const int errors[] = {ENOSPC, ENOMEM};

    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        struct probe probe;

        init_probe(&probe, &loop);
        fault_fail(CALL_EPOLL_ADD, fd, 1, 1, errors[i]);
        cr_assert(loop_add(&loop, &probe.io, fd) == -errors[i]);
        cr_assert(probe.io.fd == -1);
        cr_assert(loop_add(&loop, &probe.io, fd) == 0, "the second try succeeds");
        cr_assert(probe.io.fd == fd);
        cr_assert(close(fd) == 0);
    }
}

/* Each event becomes the bits that the header promises: an end or an error is something to read. */
Test(loop, turns_events_into_ready_bits)
{
    static const struct {
        uint32_t events;
        uint8_t ready;
    } cases[] = {
        {EPOLLIN, IO_READABLE},
        {EPOLLOUT, IO_WRITABLE},
        {EPOLLRDHUP, IO_READABLE | IO_ENDING},
        {EPOLLHUP, IO_READABLE | IO_WRITABLE | IO_ENDING},
        {EPOLLERR, IO_READABLE | IO_WRITABLE | IO_ERROR | IO_ENDING},
        {EPOLLPRI, IO_URGENT},
        {EPOLLIN | EPOLLOUT, IO_READABLE | IO_WRITABLE},
        {EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR,
         IO_READABLE | IO_WRITABLE | IO_ERROR | IO_ENDING},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct probe probe;
        struct epoll_event event = {.events = cases[i].events};

        init_probe(&probe, &loop);
        event.data.ptr = &probe.io;
        fault_events(&event, 1);
        cr_assert(loop_turn(&loop) == 0);
        cr_assert(probe.runs == 1, "case %zu", i);
        cr_assert(probe.ready_seen == cases[i].ready, "case %zu: bits %u", i, probe.ready_seen);
    }
}

/* New bits join the old ones: what was known stays known. */
Test(loop, adds_to_what_is_known)
{
    struct probe probe;
    struct epoll_event event = {.events = EPOLLOUT};

    init_probe(&probe, &loop);
    probe.io.ready = IO_READABLE | IO_URGENT;
    event.data.ptr = &probe.io;
    fault_events(&event, 1);
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(probe.ready_seen == (IO_READABLE | IO_URGENT | IO_WRITABLE));
}

/* --- order --- */

/* All of a batch is recorded before any task runs: each of two tasks, whichever is first, already
 * sees what the other's descriptor got in the same batch. */
Test(loop, records_the_whole_batch_before_any_task_runs)
{
    struct probe a;
    struct probe b;

    open_probe(&a, &loop);
    open_probe(&b, &loop);
    a.other = &b;
    b.other = &a;
    make_readable(&a);
    make_readable(&b);
    turn_now(&loop);
    cr_assert(a.runs == 1 && b.runs == 1);
    cr_assert(a.other_ready_seen == (IO_READABLE | IO_WRITABLE));
    cr_assert(b.other_ready_seen == (IO_READABLE | IO_WRITABLE));
    close_probe(&a);
    close_probe(&b);
}

/* Two descriptors of one task, several events of one, and a wish of its own make one run. */
Test(loop, runs_a_task_once_a_turn)
{
    struct probe probe;
    struct io second;
    struct epoll_event events[4];

    init_probe(&probe, &loop);
    io_init(&second, &probe.task);
    for (size_t i = 0; i < ARRAY_LEN(events); i++) {
        events[i].events = i % 2 == 0 ? EPOLLIN : EPOLLOUT;
        events[i].data.ptr = i < 2 ? &probe.io : &second;
    }
    loop_queue(&loop, &probe.task);
    loop_queue(&loop, &probe.task);
    fault_events(events, ARRAY_LEN(events));
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(probe.runs == 1);
    cr_assert(probe.ready_seen == (IO_READABLE | IO_WRITABLE));
    cr_assert(second.ready == (IO_READABLE | IO_WRITABLE));
}

/* Tasks run in the order in which they were queued: those that queued themselves before this turn's
 * events come first. */
Test(loop, runs_tasks_in_the_order_in_which_they_were_queued)
{
    enum { COUNT = 5 };
    struct probe probes[COUNT];
    struct epoll_event events[COUNT - 2];

    for (size_t i = 0; i < COUNT; i++) {
        init_probe(&probes[i], &loop);
    }
    loop_queue(&loop, &probes[3].task);
    loop_queue(&loop, &probes[1].task);
    events[0] = (struct epoll_event){.events = EPOLLIN, .data.ptr = &probes[4].io};
    events[1] = (struct epoll_event){.events = EPOLLIN, .data.ptr = &probes[3].io};
    events[2] = (struct epoll_event){.events = EPOLLIN, .data.ptr = &probes[0].io};
    fault_events(events, ARRAY_LEN(events));
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(order_len == 4);
    cr_assert(order[0] == &probes[3] && order[1] == &probes[1]);
    cr_assert(order[2] == &probes[4] && order[3] == &probes[0]);
}

/* A task that always has more runs once a turn, behind those that came meanwhile; epoll is asked
 * every turn, and never waits. */
Test(loop, lets_a_busy_task_block_nobody)
{
    struct probe busy;
    struct probe other;

    init_probe(&busy, &loop);
    open_probe(&other, &loop);
    busy.again = true;
    loop_queue(&loop, &busy.task);
    for (unsigned turns = 1; turns <= 10; turns++) {
        make_readable(&other);
        cr_assert(loop_turn(&loop) == 0);
        cr_assert(busy.runs == turns);
        cr_assert(other.runs == turns);
        cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->len == 0, "it must not wait");
    }
    close_probe(&other);
}

/* More ready descriptors than one batch holds: all get their turn, the first ones not twice before
 * the last ones once. */
Test(loop, serves_more_descriptors_than_a_batch_holds)
{
    enum { COUNT = LOOP_EVENTS_MAX + 50 };
    static struct probe probes[COUNT];
    unsigned turns = 0;

    for (size_t i = 0; i < COUNT; i++) {
        init_probe(&probes[i], &loop);
        cr_assert(loop_add(&loop, &probes[i].io, eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)) == 0);
    }
    while (order_len < COUNT) {
        turn_now(&loop);
        turns++;
        cr_assert(turns <= 2);
    }
    for (size_t i = 0; i < COUNT; i++) {
        cr_assert(probes[i].runs == 1);
        (void)close(probes[i].io.fd);
    }
}

/* --- timers and waiting --- */

struct alarm {
    struct timer timer;
    const struct probe *probe;
    uint8_t ready_seen;
    unsigned runs_seen;
    unsigned fired;
};

static void on_alarm(struct timer *timer, uint64_t now_ns)
{
    struct alarm *alarm = CONTAINER_OF(timer, struct alarm, timer);

    cr_assert(now_ns == loop.now_ns);
    alarm->fired++;
    alarm->ready_seen = alarm->probe->io.ready;
    alarm->runs_seen = alarm->probe->runs;
}

/* In a turn timers come after the tasks of recorded events, at the turn's time: who has news is
 * heard before a deadline is. */
Test(loop, fires_timers_after_the_tasks_of_events)
{
    struct probe probe;
    struct alarm alarm = {.probe = &probe};

    open_probe(&probe, &loop);
    timer_init(&alarm.timer, on_alarm);
    timer_set(&loop.timers, &alarm.timer, loop.now_ns + 3600 * NS_PER_S);
    fault_clock_advance(3601 * NS_PER_S);
    make_readable(&probe);
    turn_now(&loop);
    cr_assert(alarm.fired == 1);
    cr_assert((alarm.ready_seen & IO_READABLE) != 0);
    cr_assert(alarm.runs_seen == 1);
    cr_assert(probe.runs == 1);
    close_probe(&probe);
}

/* A process that was stopped and continued is told of no event, whatever has come, and finds its
 * timers due. Before one of them fires, epoll is asked once more, so that a task sees what has
 * come. */
Test(loop, looks_again_for_events_before_a_timer_fires_after_an_empty_wait)
{
    struct probe probe;
    struct alarm alarm = {.probe = &probe};

    open_probe(&probe, &loop);
    make_readable(&probe);
    timer_init(&alarm.timer, on_alarm);
    timer_set(&loop.timers, &alarm.timer, loop.now_ns + NS_PER_S);
    fault_clock_advance(2 * NS_PER_S);
    fault_clear();
    fault_return(CALL_EPOLL_WAIT, ANY_FD, 1, 1, 0);
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(alarm.fired == 1);
    cr_assert((alarm.ready_seen & IO_READABLE) != 0);
    cr_assert(alarm.runs_seen == 1);
    cr_assert(fault_count(CALL_EPOLL_WAIT, ANY_FD) == 2);
    cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->len == 0);
    close_probe(&probe);
}

/* That second look can fail like the first; then nothing is acted on. */
Test(loop, returns_the_error_of_a_failed_second_look)
{
    struct probe probe;
    struct alarm alarm = {.probe = &probe};

    init_probe(&probe, &loop);
    timer_init(&alarm.timer, on_alarm);
    timer_set(&loop.timers, &alarm.timer, loop.now_ns + NS_PER_S);
    fault_clock_advance(2 * NS_PER_S);
    fault_return(CALL_EPOLL_WAIT, ANY_FD, 1, 1, 0);
    fault_fail(CALL_EPOLL_WAIT, ANY_FD, 2, 1, EBADF);
    cr_assert(loop_turn(&loop) == -EBADF);
    cr_assert(alarm.fired == 0);
    timer_cancel(&loop.timers, &alarm.timer);
}

/* How long epoll may wait: not at all with a task queued or a timer due, until the next timer
 * rounded up to a millisecond, without limit when there is none. */
Test(loop, waits_no_longer_than_the_next_timer)
{
    static const struct {
        int64_t due_ns; /* from now; -1: no timer */
        int64_t wait_ms_min;
        int64_t wait_ms_max;
    } cases[] = {
        {-1, -1, -1},
        {0, 0, 1},
        {1, 1, 2},
        /* Timers are sorted more finely on the way: waking up early is allowed, late is not. */
        {(int64_t)(10 * NS_PER_MS), 1, 11},
        {(int64_t)(59 * NS_PER_MS), 1, 60},
        {(int64_t)(3600 * NS_PER_S), 1, 3600 * 1000 + 1},
        {(int64_t)(100 * 24 * 3600 * NS_PER_S), 1, INT32_MAX},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct probe probe;
        struct alarm alarm = {.probe = &probe};
        int64_t wait_ms;

        init_probe(&probe, &loop);
        timer_init(&alarm.timer, on_alarm);
        if (cases[i].due_ns >= 0) {
            timer_set(&loop.timers, &alarm.timer, loop.now_ns + (uint64_t)cases[i].due_ns);
        }
        fault_clear();
        fault_return(CALL_EPOLL_WAIT, ANY_FD, 1, ALWAYS, 0);
        cr_assert(loop_turn(&loop) == 0);
        wait_ms = fault_last(CALL_EPOLL_WAIT, ANY_FD)->len;
        cr_assert(wait_ms >= cases[i].wait_ms_min, "case %zu: %d ms", i, (int)wait_ms);
        cr_assert(wait_ms <= cases[i].wait_ms_max, "case %zu: %d ms", i, (int)wait_ms);
        if (cases[i].due_ns >= 0) {
            loop_queue(&loop, &probe.task);
            cr_assert(loop_turn(&loop) == 0);
            cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->len == 0);
        }
        timer_cancel(&loop.timers, &alarm.timer);
    }
}

/* A real wait ends when the timer is due, not before, and the timer fires in that same turn or, for
 * a far one, in a few. */
Test(loop, wakes_up_for_a_timer)
{
    struct probe probe;
    struct alarm alarm = {.probe = &probe};
    uint64_t due_ns = loop.now_ns + 70 * NS_PER_MS;
    unsigned turns = 0;

    init_probe(&probe, &loop);
    timer_init(&alarm.timer, on_alarm);
    timer_set(&loop.timers, &alarm.timer, due_ns);
    while (alarm.fired == 0) {
        cr_assert(loop_turn(&loop) == 0);
        cr_assert(++turns <= 5, "it spins while it waits");
    }
    cr_assert(loop.now_ns >= due_ns);
}

/* A wait that fails is reported, and nothing runs on what epoll did not say. */
Test(loop, returns_the_error_of_a_failed_wait)
{
    static const int errors[] = {EBADF, EINVAL, EFAULT};

    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        struct probe probe;

        init_probe(&probe, &loop);
        loop_queue(&loop, &probe.task);
        fault_clear();
        fault_fail(CALL_EPOLL_WAIT, ANY_FD, 1, 1, errors[i]);
        cr_assert(loop_turn(&loop) == -errors[i]);
        cr_assert(probe.runs == 0);
        cr_assert(loop_turn(&loop) == 0, "the task is still queued");
        cr_assert(probe.runs == 1);
    }
}

static void on_signal(int signal_number)
{
    (void)signal_number;
}

/* A signal ends the wait early, which is a turn without events and no error: here nothing else
 * could end it. The signal repeats, lest it come before the wait. */
Test(loop, takes_an_interrupted_wait_for_a_quiet_turn)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct itimerval soon = {{0, 5000}, {0, 5000}};
    struct itimerval never = {{0, 0}, {0, 0}};

    cr_assert(sigaction(SIGALRM, &action, NULL) == 0);
    cr_assert(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(setitimer(ITIMER_REAL, &never, NULL) == 0);
    cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->len == -1);
}

/* An epoll instance that can't be had: an error, and loop_fini() takes the half-built loop. */
Test(loop, survives_without_an_epoll_instance)
{
    struct loop broken;

    fault_fail(CALL_EPOLL_CREATE, ANY_FD, 1, 1, EMFILE);
    cr_assert(loop_init(&broken) == -EMFILE);
    loop_fini(&broken);
    cr_assert(fault_count(CALL_CLOSE, ANY_FD) == 0);
}

/* --- the end of tasks --- */

/* An owner on the heap, so that a sanitizer sees any use of it after its release. */
struct mortal {
    struct probe probe;
    struct mortal *friend; /* dies with it */
    bool dead;
};

static unsigned released;
static unsigned mortal_runs;

static void release_mortal(struct task *task)
{
    struct mortal *mortal = CONTAINER_OF(task, struct mortal, probe.task);

    cr_assert(mortal->dead);
    memset(mortal, 0xdb, sizeof(*mortal));
    free(mortal);
    released++;
}

static void kill_mortal(struct mortal *mortal)
{
    mortal->dead = true;
    close_probe(&mortal->probe);
    loop_release(&loop, &mortal->probe.task, release_mortal);
}

static void run_mortal(struct task *task)
{
    struct mortal *mortal = CONTAINER_OF(task, struct mortal, probe.task);

    cr_assert(!mortal->dead, "the dead run");
    mortal_runs++;
    if (mortal->friend != NULL) {
        struct mortal *friend = mortal->friend;

        kill_mortal(friend);
        kill_mortal(mortal);
        cr_assert(released == 0, "released while the turn still holds it");
        cr_assert(friend->probe.task.run == release_mortal && friend->dead);
    }
}

static struct mortal *new_mortal(void)
{
    struct mortal *mortal = calloc(1, sizeof(*mortal));

    cr_assert(mortal != NULL);
    open_probe(&mortal->probe, &loop);
    mortal->probe.task.run = run_mortal;
    return mortal;
}

/* Two descriptors in one batch; whichever task runs first ends both. The other one never runs, and
 * both are released after the turn, once. */
Test(loop, survives_the_end_of_a_task_that_the_same_batch_names)
{
    struct mortal *a = new_mortal();
    struct mortal *b = new_mortal();

    a->friend = b;
    b->friend = a;
    make_readable(&a->probe);
    make_readable(&b->probe);
    turn_now(&loop);
    cr_assert(mortal_runs == 1);
    cr_assert(released == 2);
    fault_return(CALL_EPOLL_WAIT, ANY_FD, 1, 1, 0);
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(mortal_runs == 1 && released == 2);
}

static void on_deadly_alarm(struct timer *timer, uint64_t now_ns)
{
    struct alarm *alarm = CONTAINER_OF(timer, struct alarm, timer);
    struct probe *probe = (struct probe *)(uintptr_t)alarm->probe;

    (void)now_ns;
    alarm->fired++;
    kill_mortal(CONTAINER_OF(probe, struct mortal, probe));
    cr_assert(released == 0);
}

/* A timer ends a task whose event is in this very batch: it has run, and is released once. */
Test(loop, survives_the_end_of_a_task_by_a_timer)
{
    struct mortal *mortal = new_mortal();
    struct alarm alarm = {.probe = &mortal->probe};

    timer_init(&alarm.timer, on_deadly_alarm);
    timer_set(&loop.timers, &alarm.timer, loop.now_ns + NS_PER_S);
    fault_clock_advance(2 * NS_PER_S);
    make_readable(&mortal->probe);
    turn_now(&loop);
    cr_assert(alarm.fired == 1);
    cr_assert(mortal_runs == 1);
    cr_assert(released == 1);
}

/* Released between turns, by whoever owns the loop: the next turn does it, without waiting
 * first. */
Test(loop, does_not_wait_with_somebody_to_release)
{
    struct mortal *mortal = new_mortal();

    loop_queue(&loop, &mortal->probe.task);
    kill_mortal(mortal);
    cr_assert(released == 0);
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->len == 0);
    cr_assert(released == 1 && mortal_runs == 0);
}

/* Without another turn, the end of the loop releases the dead. */
Test(loop, releases_the_dead_at_its_end)
{
    struct mortal *mortal = calloc(1, sizeof(*mortal));
    struct loop second;

    cr_assert(mortal != NULL);
    cr_assert(loop_init(&second) == 0);
    open_probe(&mortal->probe, &second);
    mortal->dead = true;
    close_probe(&mortal->probe);
    loop_release(&second, &mortal->probe.task, release_mortal);
    loop_fini(&second);
    cr_assert(released == 1);
}

/* --- shared open files --- */

/* Another process that holds the same open file, as the master does with listening sockets. */
static pid_t hold_in_child(void)
{
    pid_t pid = fork();

    cr_assert(pid >= 0);
    if (pid == 0) {
        for (;;) {
            (void)pause();
        }
    }
    return pid;
}

static void end_child(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    cr_assert(waitpid(pid, NULL, 0) == pid);
}

/* A registered probe, the same open file in a child, a byte to read, and a task queued for it. */
static pid_t share_and_make_ready(struct probe *probe)
{
    pid_t child;

    open_probe(probe, &loop);
    turn_now(&loop);
    probe->runs = 0;
    child = hold_in_child();
    make_readable(probe);
    loop_queue(&loop, &probe->task);
    return child;
}

/* After loop_remove() a descriptor that a second process holds too gives no more events, and its
 * task is no longer queued. */
Test(loop, removes_a_descriptor_whose_open_file_lives_on)
{
    struct probe probe;
    struct probe other;
    pid_t child = share_and_make_ready(&probe);
    int fd = probe.io.fd;

    cr_assert(loop_remove(&loop, &probe.io) == fd);
    cr_assert(probe.io.fd == -1 && probe.io.ready == 0);
    (void)close(fd);
    init_probe(&other, &loop);
    loop_queue(&loop, &other.task); /* so that the turn does not wait */
    turn_now(&loop);
    cr_assert(other.runs == 1);
    cr_assert(probe.runs == 0);
    cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->result == 0, "an event of a removed io");
    end_child(child);
    (void)close(probe.peer);
}

/* The control group: close(2) alone leaves the registration behind, with events for an io whose
 * owner may be gone. That is what loop_remove() is for. */
Test(loop, would_go_on_getting_events_if_it_only_closed_a_shared_descriptor)
{
    struct probe probe;
    pid_t child = share_and_make_ready(&probe);

    (void)close(probe.io.fd);
    turn_now(&loop);
    cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->result == 1);
    end_child(child);
    (void)close(probe.peer);
}

/* A descriptor that is not registered can be removed all the same. */
Test(loop, removes_a_descriptor_that_epoll_does_not_know)
{
    struct probe probe;
    int fd;

    open_probe(&probe, &loop);
    fd = probe.io.fd;
    fault_fail(CALL_EPOLL_REMOVE, fd, 1, 1, ENOENT);
    cr_assert(loop_remove(&loop, &probe.io) == fd);
    cr_assert(probe.io.fd == -1);
    (void)close(fd);
    (void)close(probe.peer);
}
