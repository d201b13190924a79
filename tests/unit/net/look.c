/* Tests of the questions that the audit asks the kernel. */
#include "net/look.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

static void open_pair(int fds[2])
{
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
}

Test(look, tells_what_is_ready_and_how_many_bytes)
{
    struct look look;
    int fds[2];

    open_pair(fds);
    look_at(fds[0], &look);
    cr_assert(look.events == POLLOUT && look.readable_bytes == 0 && look.unacked_bytes == 0);
    cr_assert(send(fds[1], "seven..", 7, 0) == 7);
    look_at(fds[0], &look);
    cr_assert(look.events == (POLLIN | POLLOUT) && look.readable_bytes == 7);
    look_at(fds[1], &look);
    cr_assert(look.unacked_bytes > 0, "nobody has read them");
    (void)close(fds[1]);
    look_at(fds[0], &look);
    cr_assert((look.events & (POLLIN | POLLHUP)) == (POLLIN | POLLHUP));
    (void)close(fds[0]);
}

Test(look, counts_the_bytes_of_a_pipe)
{
    struct look look;
    int fds[2];

    cr_assert(pipe(fds) == 0 && write(fds[1], "abc", 3) == 3);
    look_at(fds[0], &look);
    cr_assert((look.events & POLLIN) != 0 && look.readable_bytes == 3);
    cr_assert(look.unacked_bytes == -1, "a pipe has no peer that acknowledges");
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* The answer must not take away what the session is to find. */
Test(look, leaves_a_pending_error_where_it_is)
{
    socklen_t len = sizeof(int);
    struct look look;
    int error = 0;
    int fds[2];

    open_pair(fds);
    cr_assert(send(fds[0], "x", 1, 0) == 1);
    (void)close(fds[1]); /* with an unread byte: the nearest to a reset */
    for (int i = 0; i < 2; i++) {
        look_at(fds[0], &look);
        cr_assert((look.events & POLLERR) != 0);
    }
    cr_assert(getsockopt(fds[0], SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == ECONNRESET);
    (void)close(fds[0]);
}
