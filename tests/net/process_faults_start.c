/* Which calls fail at start, with what. The rules are those of process_faults.c. */
#include "process_faults.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/syscall.h>

#define RUN(phase, rows) run_fault_rows((phase), (rows), sizeof(rows) / sizeof((rows)[0]))

/* Of these, only the master makes any. */
Test(process_faults, of_listening_sockets_are_refused_with_a_reason)
{
    static const struct fault_row rows[] = {
        {CALL(socket, INJECT_ALL, EMFILE, ENFILE, ENOMEM, ENOBUFS)},
        {CALL(bind, INJECT_ALL, EADDRINUSE, EADDRNOTAVAIL, EACCES), .refuses = true},
        {CALL(listen, INJECT_ALL, EADDRINUSE, EACCES), .refuses = true},
    };

    RUN(PHASE_START, rows);
}

Test(process_faults, of_socket_options_are_refused_with_a_reason)
{
    static const struct fault_row rows[] = {
        {CALL(setsockopt, INJECT_ALL, ENOMEM), .refuses = true},
    };

    RUN(PHASE_START, rows);
}

Test(process_faults, of_descriptors_and_memory_at_start)
{
    static const struct fault_row rows[] = {
        {CALL(pipe2, INJECT_ALL, EMFILE, ENFILE)},
        {CALL(fcntl, INJECT_ALL, EPERM)},
        {CALL(memfd_create, INJECT_ALL, EMFILE, ENOMEM)},
        {CALL(ftruncate, INJECT_ALL, ENOSPC)},
        {CALL(mmap, INJECT_ALL, ENOMEM), .is_sanitizers = true},
        {CALL(newfstatat, INJECT_MASTER, ENOMEM, EACCES)},
        {CALL(openat, INJECT_MASTER, EMFILE)},
        {CALL(prlimit64, INJECT_ALL, EPERM), .says = {"descriptor limit"}},
    };

    RUN(PHASE_START, rows);
}

Test(process_faults, of_processes_at_start)
{
    static const struct fault_row rows[] = {
        {CALL(clone, INJECT_ALL, EAGAIN, ENOMEM)},
        {CALL(prctl, INJECT_CHILDREN, EINVAL)},
        {CALL(setgroups, INJECT_CHILDREN, EPERM, ENOMEM)},
        {CALL(setresgid, INJECT_CHILDREN, EPERM)},
        {CALL(setresuid, INJECT_CHILDREN, EAGAIN, EPERM)},
    };

    RUN(PHASE_START, rows);
}

Test(process_faults, of_event_queues_at_start)
{
    static const struct fault_row rows[] = {
        {CALL(epoll_create1, INJECT_CHILDREN, EMFILE, ENOMEM)},
        {CALL(epoll_ctl, INJECT_CHILDREN, ENOSPC, ENOMEM)},
    };

    RUN(PHASE_START, rows);
}
