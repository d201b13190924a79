/* An edge-triggered epoll reactor with a run queue.
 *
 * The problem with edges: the kernel tells once. A handler that acts inside the event callback must
 * read until EAGAIN or lose the connection, so one busy peer holds up all others, and an object
 * freed by one event of a batch may be named by the next.
 *
 * The model: events only set bits. A turn is
 *
 *     epoll_wait --> record the batch --> run queued tasks --> fire timers --> release the dead
 *                    (no task runs yet)   (each at most once)
 *
 * Tasks come before timers, so that a worker that was stopped for longer than a timeout looks at
 * what has arrived meanwhile before it looks at the clock.
 *
 * A task that has used up its budget queues itself again; then the next epoll_wait does not wait.
 * The bits stay until a system call proves them wrong, so nothing depends on another edge.
 *
 * Invariants
 *  L1 Each descriptor is registered once, IN | OUT | RDHUP | PRI, edge-triggered, and never
 *     modified: no epoll_ctl(2) in steady state. close(2) unregisters it when no one else holds
 *     the open file; loop_remove() is for listening sockets, which the master keeps too.
 *  L2 When a batch is recorded, every io it names is alive: tasks die only while tasks or timers
 *     run, which is after all of the batch is recorded, and their memory is released after that.
 *  L3 A task runs at most once a turn, in the order in which it was queued among its like. Those
 *     that move bulk come last, until BULK_QUOTA_BYTES are moved, and as many again for every
 *     TASKS_PER_QUOTA others, so that nobody starves.
 *  L4 With a task queued, or one to be released, the loop does not wait.
 *
 * EPOLLRDHUP and EPOLLHUP are taken as "readable", "writable" and "read on, there is an end": the
 * bytes before it come first, and the end itself is what recv(2) says it is.
 *
 * Single-threaded. Does not log; does not close descriptors. Read next: flow.c. */
#include "relay/loop.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/macros.h"
#include "net/sys.h"

#include <errno.h>
#include <limits.h>

enum {
    /* Bytes in and out that bulk moves in a turn, and once more for so many other tasks. */
    BULK_QUOTA_BYTES = 1 << 20,
    TASKS_PER_QUOTA = 4
};

int loop_init(struct loop *loop)
{
    loop->audit = NULL;
    loop->audit_owner = NULL;
    loop->busy_poll_ns = 0;
    loop->busy_until_ns = 0;
    loop->now_ns = clock_monotonic_ns();
    timer_wheel_init(&loop->timers, loop->now_ns);
    list_init(&loop->run_queue);
    list_init(&loop->bulk_queue);
    list_init(&loop->dead);
    loop->epoll_fd = sys_epoll_create();
    return loop->epoll_fd < 0 ? loop->epoll_fd : 0;
}

static void release_dead(struct loop *loop)
{
    struct list_node *node;

    while ((node = list_pop_front(&loop->dead)) != NULL) {
        struct task *task = CONTAINER_OF(node, struct task, node);

        task->run(task);
    }
}

void loop_fini(struct loop *loop)
{
    release_dead(loop);
    if (loop->epoll_fd >= 0) {
        sys_close(loop->epoll_fd);
    }
    loop->epoll_fd = -1;
}

void task_init(struct task *task, task_fn *run)
{
    list_init(&task->node);
    task->run = run;
    task->is_bulk = false;
}

void io_init(struct io *io, struct task *task)
{
    *io = (struct io){.fd = -1, .task = task};
}

void io_set_error(struct io *io, int error)
{
    CHECK(error > 0);
    if (io->error == 0 || io->error == EPIPE) {
        io->error = (uint16_t)error;
        io->ready |= IO_READABLE | IO_ENDING;
    }
}

int loop_add(struct loop *loop, struct io *io, int fd)
{
    uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
    int result;

    CHECK(io->fd == -1);
    CHECK(fd >= 0);
    result = sys_epoll_add(loop->epoll_fd, fd, events, io);
    if (result == 0) {
        io->fd = fd;
        io->ready = 0;
        io->error = 0;
    }
    return result;
}

int loop_remove(struct loop *loop, struct io *io)
{
    int fd = io->fd;
    int ignored;

    CHECK(fd >= 0);
    /* Fails only for a descriptor that is not registered, and then there is nothing to end. */
    ignored = sys_epoll_remove(loop->epoll_fd, fd);
    (void)ignored;
    list_remove(&io->task->node);
    io_init(io, io->task);
    return fd;
}

void loop_queue(struct loop *loop, struct task *task)
{
    if (!list_is_linked(&task->node)) {
        list_push_back(task->is_bulk ? &loop->bulk_queue : &loop->run_queue, &task->node);
    }
}

void loop_release(struct loop *loop, struct task *task, task_fn *release)
{
    list_remove(&task->node);
    task->run = release;
    list_push_back(&loop->dead, &task->node);
}

static uint8_t ready_bits(uint32_t events)
{
    uint32_t ready = 0;

    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        ready |= IO_READABLE;
    }
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
        ready |= IO_WRITABLE;
    }
    if ((events & EPOLLERR) != 0) {
        ready |= IO_ERROR;
    }
    if ((events & EPOLLPRI) != 0) {
        ready |= IO_URGENT;
    }
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        ready |= IO_ENDING;
    }
    return (uint8_t)ready;
}

static void record(struct loop *loop, int count)
{
    for (int i = 0; i < count; i++) {
        struct io *io = loop->events[i].data.ptr;

        io->ready |= ready_bits(loop->events[i].events);
        loop_queue(loop, io->task);
    }
}

static size_t run_all(struct list_node *batch)
{
    struct list_node *node;
    size_t count = 0;

    while ((node = list_pop_front(batch)) != NULL) {
        struct task *task = CONTAINER_OF(node, struct task, node);

        task->run(task);
        count++;
    }
    return count;
}

/* Of the tasks that move bulk only some have their turn before epoll is asked again: whoever has
 * little to do waits for a megabyte and not for all, and those that wait find more to move at once.
 * L3: the more others run, the more of these do. */
static void run_queued(struct loop *loop)
{
    struct list_node batch;
    struct list_node bulk;
    struct list_node *node;
    uint64_t quota_bytes;

    /* A task that queues itself again goes behind these batches: L3. */
    list_init(&batch);
    list_init(&bulk);
    list_splice_back(&batch, &loop->run_queue);
    list_splice_back(&bulk, &loop->bulk_queue);
    quota_bytes = (1 + run_all(&batch) / TASKS_PER_QUOTA) * BULK_QUOTA_BYTES;
    loop->moved_bytes = 0;
    while (loop->moved_bytes < quota_bytes && (node = list_pop_front(&bulk)) != NULL) {
        struct task *task = CONTAINER_OF(node, struct task, node);

        task->run(task);
    }
    list_splice_back(&bulk, &loop->bulk_queue); /* those first that have waited */
    list_splice_back(&loop->bulk_queue, &bulk);
}

/* Milliseconds until the next timer, rounded up so that the loop does not spin through the last
 * one; -1 without a timer. Counted from the start of this turn: reading the clock once more would
 * make a timer more exact only by the time this turn's tasks took. */
static int wait_ms(const struct loop *loop)
{
    uint64_t next_ns;

    if (!list_is_empty(&loop->run_queue) || !list_is_empty(&loop->bulk_queue) ||
        !list_is_empty(&loop->dead)) {
        return 0; /* L4 */
    }
    if (loop->now_ns < loop->busy_until_ns) {
        return 0; /* the next event is likely soon, and waking up costs more than asking */
    }
    next_ns = timer_wheel_next_ns(&loop->timers);
    if (next_ns == TIMER_NEVER) {
        return -1;
    }
    if (next_ns <= loop->now_ns) {
        return 0;
    }
    return (int)min_u64((next_ns - loop->now_ns + NS_PER_MS - 1) / NS_PER_MS, INT_MAX);
}

/* Lets the auditor look over everything before the loop sleeps, and cut the sleep short. */
static int audited(const struct loop *loop, int wait_ms)
{
#ifdef SLUICE_DEBUG
    if (wait_ms != 0 && loop->audit != NULL) {
        int limit_ms = loop->audit(loop->audit_owner);

        return limit_ms >= 0 && (wait_ms < 0 || limit_ms < wait_ms) ? limit_ms : wait_ms;
    }
#else
    (void)loop;
#endif
    return wait_ms;
}

int loop_turn(struct loop *loop)
{
    int count =
        sys_epoll_wait(loop->epoll_fd, loop->events, LOOP_EVENTS_MAX, audited(loop, wait_ms(loop)));

    if (count < 0) {
        return count;
    }
    loop->now_ns = clock_monotonic_ns();
    if (count == 0 && timer_wheel_next_ns(&loop->timers) <= loop->now_ns) {
        /* A process that is stopped and continued has its wait interrupted (signal(7)) and is told
         * of no event, whatever has come. No deadline is acted on before asking again. */
        count = sys_epoll_wait(loop->epoll_fd, loop->events, LOOP_EVENTS_MAX, 0);
        if (count < 0) {
            return count;
        }
    }
    if (count > 0) {
        loop->busy_until_ns = loop->now_ns + loop->busy_poll_ns;
    }
    record(loop, count);
    run_queued(loop);
    timer_wheel_run(&loop->timers, loop->now_ns);
    release_dead(loop);
    return 0;
}
