/* Tests of the process that writes the log out: run in a child whose stderr is a pipe. */
#include "proc/monitor.h"

#include "proc/exits.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct run {
    pid_t pid;
    int log_fd;    /* writing end of the log */
    int stderr_fd; /* reading end of the monitor's stderr */
};

/* `stderr_flags` are those of the writing end that the monitor has. */
static void start(struct run *run, const struct identity *identity, int stderr_flags)
{
    int log[2];
    int err[2];

    cr_assert(pipe(log) == 0);
    cr_assert(pipe(err) == 0);
    cr_assert(fcntl(err[1], F_SETFL, stderr_flags) == 0);
    run->pid = fork();
    cr_assert(run->pid >= 0);
    if (run->pid == 0) {
        (void)signal(SIGPIPE, SIG_IGN); /* as the master does for its children */
        (void)dup2(err[1], STDERR_FILENO);
        (void)close(err[0]);
        (void)close(err[1]);
        (void)close(log[1]);
        _exit(monitor_run(log[0], identity));
    }
    (void)close(log[0]);
    (void)close(err[1]);
    run->log_fd = log[1];
    run->stderr_fd = err[0];
}

static void assert_exit(struct run *run, int expected)
{
    int status;

    cr_assert(waitpid(run->pid, &status, 0) == run->pid);
    cr_assert(WIFEXITED(status), "wait status %#x", (unsigned)status);
    cr_assert(WEXITSTATUS(status) == expected, "exit status %d", WEXITSTATUS(status));
}

/* Lines come out as they went in, at once, and the end of the last writer is the end of the monitor. */
Test(monitor, passes_lines_on_until_nobody_writes)
{
    static const char line[] = "TS event key=value\n";
    char bytes[64] = "";
    struct run run;

    start(&run, NULL, 0);
    for (size_t i = 0; i < 3; i++) {
        cr_assert(write(run.log_fd, line, strlen(line)) == (ssize_t)strlen(line));
        cr_assert(read(run.stderr_fd, bytes, sizeof(bytes) - 1) == (ssize_t)strlen(line));
        cr_assert_str_eq(bytes, line);
    }
    (void)close(run.log_fd);
    assert_exit(&run, EXIT_STATUS_OK);
    cr_assert(read(run.stderr_fd, bytes, sizeof(bytes)) == 0);
    (void)close(run.stderr_fd);
}

/* Writes 2 MiB, more than both pipes hold, into the log in a process of its own, and ends. */
static pid_t start_writer(int log_fd, size_t bytes)
{
    pid_t writer = fork();

    cr_assert(writer >= 0);
    if (writer == 0) {
        unsigned char block[4096];

        for (size_t sent = 0; sent < bytes; sent += sizeof(block)) {
            for (size_t k = 0; k < sizeof(block); k++) {
                block[k] = (unsigned char)((sent + k) % 251);
            }
            if (write(log_fd, block, sizeof(block)) != sizeof(block)) {
                _exit(1);
            }
        }
        _exit(0);
    }
    return writer;
}

/* Everything that is written arrives, the last bytes of a writer that is gone already included. */
static void assert_loses_nothing(struct run *run)
{
    const size_t sent = (size_t)2 * 1024 * 1024;
    pid_t writer = start_writer(run->log_fd, sent);
    size_t received = 0;
    unsigned char bytes[1000];
    ssize_t len;
    int status;

    (void)close(run->log_fd);
    while ((len = read(run->stderr_fd, bytes, sizeof(bytes))) > 0) {
        for (ssize_t k = 0; k < len; k++) {
            cr_assert(bytes[k] == received % 251, "byte %zu", received);
            received++;
        }
    }
    cr_assert(received == sent, "%zu bytes", received);
    cr_assert(waitpid(writer, &status, 0) == writer);
    cr_assert(status == 0);
    assert_exit(run, EXIT_STATUS_OK);
    (void)close(run->stderr_fd);
}

/* A stderr that takes little at a time loses nothing. */
Test(monitor, loses_nothing_to_a_slow_stderr)
{
    struct run run;

    start(&run, NULL, 0);
    assert_loses_nothing(&run);
}

/* Nor does one that does not block: that flag belongs to the open file, so whoever started sluice, or
 * shares its terminal, may have set it. */
Test(monitor, loses_nothing_to_a_non_blocking_stderr)
{
    struct run run;

    start(&run, NULL, O_NONBLOCK);
    assert_loses_nothing(&run);
}

/* A stderr that is broken does not stop the reading: whoever logs must not wait. */
Test(monitor, reads_on_when_stderr_is_broken)
{
    static char block[4096];
    struct run run;

    start(&run, NULL, 0);
    (void)close(run.stderr_fd);
    for (size_t i = 0; i < 256; i++) { /* 1 MiB: far more than the pipe holds */
        cr_assert(write(run.log_fd, block, sizeof(block)) == sizeof(block), "%s", strerror(errno));
    }
    (void)close(run.log_fd);
    assert_exit(&run, EXIT_STATUS_OK);
}

/* A log that can't be read is a failure. */
Test(monitor, fails_without_a_log)
{
    struct run run = {.pid = fork()};

    cr_assert(run.pid >= 0);
    if (run.pid == 0) {
        _exit(monitor_run(-1, NULL));
    }
    assert_exit(&run, EXIT_STATUS_FAILURE);
}

/* Without the user it is to be, it does not run: as root it is that user, otherwise it ends. */
Test(monitor, runs_as_the_user_it_is_given_or_not_at_all)
{
    static const struct identity ordinary = {.uid = 4711, .gid = 4712};
    static const struct identity other = {.uid = 4713, .gid = 4712};
    struct run run = {.pid = fork()};

    cr_assert(run.pid >= 0);
    if (run.pid == 0) {
        if (geteuid() == 0 && identity_become(&ordinary) < 0) {
            _exit(99);
        }
        _exit(monitor_run(-1, &other));
    }
    assert_exit(&run, EXIT_STATUS_FAILURE);
}
