/* The only process of sluice that may block on the log.
 *
 * It ends when all writing ends of the pipe are closed, that is when master and workers are gone:
 * the last lines of a process that was killed still arrive. When stderr itself is broken (a closed
 * pipe, a full disk), lines are lost here and reading goes on: traffic matters more. */
#include "proc/monitor.h"

#include "base/line.h"
#include "net/sys.h"
#include "proc/exits.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    /* After what it has read, the monitor lets more gather: a reader that sleeps in read(2) is woken
     * by each write of a worker, and takes the processor from it. Not when the pipe fills faster,
     * nor when the kernel granted a small one, which a burst of records would fill meanwhile. */
    NAP_US = 2000,
    NAP_PIPE_BYTES_MIN = 512 * 1024
};

static void write_out(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t written = write(STDERR_FILENO, bytes, len);

        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0 && errno == EAGAIN) {
            /* Somebody made the terminal or pipe we share non-blocking: wait for room all the same.
             * A failed poll(2) only means another turn. */
            (void)poll(&(struct pollfd){.fd = STDERR_FILENO, .events = POLLOUT}, 1, -1);
            continue;
        }
        if (written <= 0) {
            return;
        }
        bytes += written;
        len -= (size_t)written;
    }
}

int monitor_run(int log_fd, const struct identity *identity)
{
    static char bytes[16 * LINE_BYTES_MAX];
    bool may_nap = sys_pipe_size(log_fd) >= NAP_PIPE_BYTES_MIN;

    /* Only a name for ps(1). */
    (void)prctl(PR_SET_NAME, "sluice-log", 0, 0, 0);
    if (identity != NULL) {
        int result = identity_become(identity);

        if (result < 0) {
            /* Whoever else meets this writes to the log, which nobody reads then. */
            (void)dprintf(STDERR_FILENO, "sluice: the log process can't become another user: %s\n",
                          strerror(-result));
            return EXIT_STATUS_FAILURE;
        }
    }
    for (;;) {
        ssize_t len = read(log_fd, bytes, sizeof(bytes));

        if (len < 0 && errno == EINTR) {
            continue;
        }
        if (len <= 0) {
            return len == 0 ? EXIT_STATUS_OK : EXIT_STATUS_FAILURE;
        }
        write_out(bytes, (size_t)len);
        if (may_nap && len < (ssize_t)sizeof(bytes) / 2) {
            (void)usleep(NAP_US); /* interrupted or not */
        }
    }
}
