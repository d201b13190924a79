/* The system calls, turned into functions that return a negative errno.
 *
 * Why a layer at all: (1) a fault can be scripted for any call by wrapping one symbol at link time,
 * at no cost to a release build; (2) EINTR is dealt with in one place; (3) flags that must never be
 * forgotten (NONBLOCK, CLOEXEC, NOSIGNAL) or never be set (SPLICE_F_MORE) stand exactly once.
 *
 * One function, one system call: no policy lives here. */
#include "net/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Repeats a call that a signal interrupted before it did anything (signal(7)). */
#define RETRY_EINTR(result, call)                                                                  \
    do {                                                                                           \
        (result) = (call);                                                                         \
    } while ((result) < 0 && errno == EINTR)

static int negative_errno(int result)
{
    return result < 0 ? -errno : result;
}

static ssize_t negative_errno_size(ssize_t result)
{
    return result < 0 ? -(ssize_t)errno : result;
}

int sys_socket(int family)
{
    return negative_errno(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

int sys_accept(int fd, struct sockaddr *address, socklen_t *address_len)
{
    int result;

    RETRY_EINTR(result, accept4(fd, address, address_len, SOCK_NONBLOCK | SOCK_CLOEXEC));
    return negative_errno(result);
}

int sys_connect(int fd, const struct sockaddr *address, socklen_t address_len)
{
    int result = connect(fd, address, address_len);

    if (result < 0 && errno == EINTR) {
        return -EINPROGRESS;
    }
    return negative_errno(result);
}

int sys_bind(int fd, const struct sockaddr *address, socklen_t address_len)
{
    return negative_errno(bind(fd, address, address_len));
}

int sys_listen(int fd, int backlog)
{
    return negative_errno(listen(fd, backlog));
}

int sys_set_option(int fd, int level, int name, const void *value, socklen_t value_len)
{
    return negative_errno(setsockopt(fd, level, name, value, value_len));
}

int sys_get_option(int fd, int level, int name, void *value, socklen_t *value_len)
{
    return negative_errno(getsockopt(fd, level, name, value, value_len));
}

int sys_local_address(int fd, struct sockaddr *address, socklen_t *address_len)
{
    return negative_errno(getsockname(fd, address, address_len));
}

ssize_t sys_recv(int fd, void *bytes, size_t len)
{
    ssize_t result;

    RETRY_EINTR(result, recv(fd, bytes, len, MSG_DONTWAIT));
    return negative_errno_size(result);
}

ssize_t sys_send(int fd, const void *bytes, size_t len, bool fin_follows)
{
    int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (fin_follows ? MSG_MORE : 0);
    ssize_t result;

    RETRY_EINTR(result, send(fd, bytes, len, flags));
    return negative_errno_size(result);
}

ssize_t sys_splice(int from_fd, int to_fd, size_t len)
{
    ssize_t result;

    RETRY_EINTR(result, splice(from_fd, NULL, to_fd, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
    return negative_errno_size(result);
}

ssize_t sys_read(int fd, void *bytes, size_t len)
{
    ssize_t result;

    RETRY_EINTR(result, read(fd, bytes, len));
    return negative_errno_size(result);
}

int sys_shutdown_write(int fd)
{
    return negative_errno(shutdown(fd, SHUT_WR));
}

void sys_close(int fd)
{
    /* EINTR and EIO from close(2) still free the descriptor: trying again could close a
     * stranger's. */
    (void)close(fd);
}

int sys_pipe(int fds[2])
{
    return negative_errno(pipe2(fds, O_NONBLOCK | O_CLOEXEC));
}

int sys_pipe_resize(int fd, int size_bytes)
{
    return negative_errno(fcntl(fd, F_SETPIPE_SZ, size_bytes));
}

int sys_pipe_size(int fd)
{
    return negative_errno(fcntl(fd, F_GETPIPE_SZ));
}

static int queue_length(int fd, unsigned long request)
{
    int bytes = 0;
    int result = ioctl(fd, request, &bytes);

    return result < 0 ? -errno : bytes;
}

int sys_unacknowledged(int fd)
{
    return queue_length(fd, SIOCOUTQ);
}

int sys_readable_bytes(int fd)
{
    return queue_length(fd, FIONREAD);
}

int sys_epoll_create(void)
{
    return negative_errno(epoll_create1(EPOLL_CLOEXEC));
}

int sys_epoll_add(int epoll_fd, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};

    return negative_errno(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event));
}

int sys_epoll_remove(int epoll_fd, int fd)
{
    return negative_errno(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, NULL));
}

int sys_epoll_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms)
{
    int result = epoll_wait(epoll_fd, events, events_max, timeout_ms);

    if (result < 0 && errno == EINTR) {
        return 0;
    }
    return negative_errno(result);
}
