/* Which calls fail when a worker has died and is replaced, and when sluice is told to end; and faults
 * that last. The rules are those of process_faults.c. */
#include "process_faults.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/syscall.h>

/* A worker is killed. The fault delays its successor; it never touches the other worker. */
Test(process_faults, of_a_successor_delay_it)
{
    static const struct fault_row rows[] = {
        {CALL(rt_sigtimedwait, INJECT_MASTER, EINTR)},
        {CALL(pipe2, INJECT_MASTER, EMFILE, ENFILE)},
        {CALL(clone, INJECT_MASTER, EAGAIN, ENOMEM)},
        {CALL(prctl, INJECT_CHILDREN, EINVAL)},
        {CALL(setgroups, INJECT_CHILDREN, EPERM, ENOMEM)},
        {CALL(setresgid, INJECT_CHILDREN, EPERM)},
        {CALL(setresuid, INJECT_CHILDREN, EAGAIN, EPERM)},
        {CALL(epoll_create1, INJECT_CHILDREN, EMFILE, ENFILE, ENOMEM)},
        {CALL(epoll_ctl, INJECT_CHILDREN, ENOSPC, ENOMEM)},
    };

    run_fault_rows(PHASE_RESPAWN, rows, sizeof(rows) / sizeof(rows[0]));
}

/* The log pipe takes no line of the master for a moment. */
Test(process_faults, of_the_log_lose_lines_and_nothing_else)
{
    static const struct fault_row rows[] = {
        {CALL(write, INJECT_MASTER, EAGAIN, ENOMEM), .is_lossy = true},
    };

    run_fault_rows(PHASE_START, rows, 1);
    run_fault_rows(PHASE_RESPAWN, rows, 1);
}

/* TERM: whatever fails, both workers hear of it, all are gone soon, and the status is 0. */
Test(process_faults, of_the_end_do_not_hold_it_up)
{
    static const struct fault_row rows[] = {
        {CALL(rt_sigtimedwait, INJECT_MASTER, EINTR)},
        {CALL(write, INJECT_MASTER, EAGAIN, ENOMEM), .is_lossy = true},
        {CALL(unlink, INJECT_MASTER, EACCES, EROFS), .leaves_file = true},
        {CALL(newfstatat, INJECT_MASTER, ENOMEM, EACCES), .leaves_file = true},
        {CALL(socket, INJECT_CHILDREN, EMFILE, ENFILE, ENOMEM, ENOBUFS)},
        {CALL(setsockopt, INJECT_CHILDREN, ENOMEM)},
        {CALL(accept4, INJECT_CHILDREN, EMFILE, ENFILE, ENOMEM, ECONNABORTED)},
        {CALL(epoll_ctl, INJECT_CHILDREN, ENOMEM)},
        {CALL(munmap, INJECT_CHILDREN, ENOMEM), .is_sanitizers = true},
    };

    run_fault_rows(PHASE_STOP, rows, sizeof(rows) / sizeof(rows[0]));
}

/* No process can be started at all: that is refused, since nobody would be left to say so. */
Test(process_faults, without_a_log_process_it_does_not_start)
{
    struct lasting_fault fault = {{SYS_clone, EAGAIN, INJECT_MASTER, 1, 1, INJECT_ANY, 0},
                                  "sluice: can't start the log process: "};

    expect_refusal_of_lasting(&fault);
}

/* A shortage that keeps every worker from starting, successors too. sluice says so, goes on trying,
 * serves as soon as it is over, and can be stopped at any time. */
Test(process_faults, that_last_are_told_and_survived)
{
    static const struct lasting_fault faults[] = {
        {{SYS_clone, EAGAIN, INJECT_MASTER, 2, 1, INJECT_ANY, 0}, "worker-not-started"},
        {{SYS_pipe2, EMFILE, INJECT_MASTER, 2, 1, INJECT_ANY, 0}, "worker-not-started"},
        {{SYS_epoll_create1, EMFILE, INJECT_EACH_CHILD, 1, 1, INJECT_ANY, 0},
         "worker-start-failed"},
        {{SYS_epoll_ctl, ENOSPC, INJECT_EACH_CHILD, 1, 1, INJECT_ANY, 0}, "worker-start-failed"},
        {{SYS_epoll_ctl, ENOSPC, INJECT_EACH_CHILD, 2, 0, INJECT_ANY, 0}, "worker-start-failed"},
        {{SYS_epoll_ctl, ENOMEM, INJECT_EACH_CHILD, 3, 0, INJECT_ANY, 0}, "worker-start-failed"},
        /* The log process has to become another user, too. */
        {{SYS_setgroups, EPERM, INJECT_EACH_CHILD, 1, 1, INJECT_ANY, 0},
         "sluice: the log process can't become another user: "},
        {{SYS_setresuid, EAGAIN, INJECT_EACH_CHILD, 1, 1, INJECT_ANY, 0},
         "sluice: the log process can't become another user: "},
    };

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        expect_survival_of_lasting(&faults[i]);
    }
}
