/* Busy polling: for a while after events the loop asks for more instead of sleeping. The fault seam
 * notes with which timeout epoll was asked, and moves the clock. */
#include "base/clock.h"
#include "relay/loop.h"
#include "support/unit/fault.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BUSY_NS (20 * NS_PER_MS)

static struct loop loop;
static struct task task;
static struct io io;
static unsigned runs;

static void run(struct task *ran)
{
    (void)ran;
    runs++;
    io.ready = 0;
}

static void ignore(struct timer *timer, uint64_t now_ns)
{
    (void)timer;
    (void)now_ns;
}

/* Nothing comes, and no time passes: the call is not made. */
static int64_t turn_and_tell_wait_ms(void)
{
    fault_return(CALL_EPOLL_WAIT, ANY_FD, 1, 1, 0);
    cr_assert(loop_turn(&loop) == 0);
    fault_disarm();
    return fault_last(CALL_EPOLL_WAIT, ANY_FD)->len;
}

static void wake(void)
{
    uint64_t one = 1;

    cr_assert(write(io.fd, &one, sizeof(one)) == sizeof(one));
}

static void open_loop(uint64_t busy_poll_ns)
{
    fault_clear();
    runs = 0;
    cr_assert(loop_init(&loop) == 0);
    loop.busy_poll_ns = busy_poll_ns;
    task_init(&task, run);
    io_init(&io, &task);
    cr_assert(loop_add(&loop, &io, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) == 0);
    cr_assert(loop_turn(&loop) == 0);
}

static void close_loop(void)
{
    (void)close(io.fd);
    loop_fini(&loop);
}

Test(loop_busy, asks_again_at_once_for_as_long_as_told_and_then_sleeps)
{
    struct timer timer;

    open_loop(BUSY_NS);
    timer_init(&timer, ignore);
    timer_set(&loop.timers, &timer, loop.now_ns + 3600 * NS_PER_S);
    wake();
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(runs >= 1);
    for (int i = 0; i < 3; i++) {
        cr_assert(turn_and_tell_wait_ms() == 0, "it slept although an event had just come");
    }
    fault_clock_advance(BUSY_NS);
    (void)turn_and_tell_wait_ms(); /* in which it learns how late it is */
    cr_assert(turn_and_tell_wait_ms() > 0, "it does not stop asking");
    timer_cancel(&loop.timers, &timer);
    close_loop();
}

/* Each event prolongs it. */
Test(loop_busy, begins_anew_with_each_event)
{
    open_loop(BUSY_NS);
    for (int i = 0; i < 4; i++) {
        wake();
        cr_assert(loop_turn(&loop) == 0);
        fault_clock_advance(BUSY_NS * 3 / 4);
        cr_assert(turn_and_tell_wait_ms() == 0);
    }
    close_loop();
}

Test(loop_busy, is_off_when_it_is_not_asked_for)
{
    struct timer timer;

    open_loop(0);
    timer_init(&timer, ignore);
    timer_set(&loop.timers, &timer, loop.now_ns + 3600 * NS_PER_S);
    wake();
    cr_assert(loop_turn(&loop) == 0);
    cr_assert(turn_and_tell_wait_ms() > 0);
    timer_cancel(&loop.timers, &timer);
    close_loop();
}
