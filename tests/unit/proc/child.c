/* Tests of when a child is started again. Times are numbers: nothing waits. */
#include "proc/child.h"

#include "base/macros.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define START_NS (1000 * NS_PER_S)

/* A fresh child is not running, has nothing to close, and is due at once. */
Test(child, is_due_at_once_after_init)
{
    struct child child;

    child_init(&child);
    cr_assert(child.pid == 0);
    cr_assert(child.control_fd == -1);
    cr_assert(child.due_ns == 0);
    cr_assert(child.quick_deaths == 0);
}

/* One that lived for a second is replaced at once, however often it dies. */
Test(child, is_replaced_at_once_after_a_second)
{
    uint64_t now_ns = START_NS;
    struct child child;

    child_init(&child);
    for (pid_t pid = 1; pid < 100; pid++) {
        child_started(&child, pid, -1, now_ns);
        cr_assert(child.pid == pid);
        now_ns += NS_PER_S;
        child_died(&child, now_ns);
        cr_assert(child.pid == 0);
        cr_assert(child.due_ns == now_ns);
        cr_assert(child.quick_deaths == 0);
    }
}

/* One that dies sooner is given a delay that doubles from 100 ms to 10 s, and stays there for ever. */
Test(child, is_replaced_more_slowly_if_it_keeps_dying)
{
    uint64_t now_ns = START_NS;
    uint64_t delay_ms = 100;
    struct child child;

    child_init(&child);
    for (unsigned deaths = 1; deaths <= 100; deaths++) {
        child_started(&child, 7, -1, now_ns);
        now_ns += NS_PER_S - 1;
        child_died(&child, now_ns);
        cr_assert(child.due_ns == now_ns + delay_ms * NS_PER_MS, "death %u", deaths);
        cr_assert(child.quick_deaths == deaths);
        delay_ms = delay_ms * 2 < 10000 ? delay_ms * 2 : 10000;
        now_ns = child.due_ns;
    }
}

/* A second of life is enough to begin anew. */
Test(child, is_forgiven_when_it_has_lived)
{
    struct child child;

    child_init(&child);
    for (unsigned i = 0; i < 5; i++) {
        child_started(&child, 7, -1, START_NS);
        child_died(&child, START_NS + 1);
    }
    child_started(&child, 7, -1, START_NS);
    child_died(&child, START_NS + NS_PER_S);
    cr_assert(child.due_ns == START_NS + NS_PER_S);
    child_started(&child, 7, -1, START_NS);
    child_died(&child, START_NS + 1);
    cr_assert(child.due_ns == START_NS + 1 + 100 * NS_PER_MS);
}

/* One that could not even be started is tried again soon, then ever more slowly: a shortage of a
 * moment must not cost an outage of seconds. */
Test(child, is_tried_again_if_it_could_not_be_started)
{
    uint64_t now_ns = START_NS;
    uint64_t delay_ms = 100;
    struct child child;

    child_init(&child);
    for (unsigned failures = 1; failures <= 100; failures++) {
        child_not_started(&child, now_ns);
        cr_assert(child.pid == 0);
        cr_assert(child.due_ns == now_ns + delay_ms * NS_PER_MS, "failure %u", failures);
        cr_assert(child.quick_deaths == failures);
        delay_ms = delay_ms * 2 < 10000 ? delay_ms * 2 : 10000;
        now_ns = child.due_ns;
    }
}

/* Its control pipe dies with it, and only once. */
Test(child, control_pipe_is_closed_at_its_death)
{
    struct child child;
    int fds[2];

    cr_assert(pipe(fds) == 0);
    child_init(&child);
    child_started(&child, 7, fds[1], START_NS);
    cr_assert(child.control_fd == fds[1]);
    cr_assert(fcntl(fds[1], F_GETFD) >= 0);
    child_died(&child, START_NS + 1);
    cr_assert(child.control_fd == -1);
    cr_assert(fcntl(fds[1], F_GETFD) < 0);
    cr_assert(errno == EBADF);
    (void)close(fds[0]);
}
