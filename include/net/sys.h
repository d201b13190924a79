/* Layer: net. Every system call of the data plane, one function each: the only callers of socket,
 * splice and epoll in the project, and therefore the seam at which tests script faults (--wrap).
 *
 * Rules for all of them: the result is >= 0 on success and a negative errno on failure; EINTR is
 * handled here and never seen above (except where said); no call blocks, because every descriptor
 * is made non-blocking; descriptors are close-on-exec. Nothing here logs or asserts what the kernel
 * decides. */
#ifndef NET_SYS_H
#define NET_SYS_H

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct epoll_event;

/** A non-blocking stream socket of `family`: its descriptor, owned by the caller. */
MUST_CHECK int sys_socket(int family);
/** accept4(2): a non-blocking connection of listening socket `fd`; its peer's address is stored. */
MUST_CHECK int sys_accept(int fd, struct sockaddr *address, socklen_t *address_len);
/** connect(2). -EINPROGRESS: the outcome comes as an event. An interrupted connect goes on by
 *  itself (POSIX), so EINTR is reported as -EINPROGRESS. */
MUST_CHECK int sys_connect(int fd, const struct sockaddr *address, socklen_t address_len);
MUST_CHECK int sys_bind(int fd, const struct sockaddr *address, socklen_t address_len);
MUST_CHECK int sys_listen(int fd, int backlog);
MUST_CHECK int sys_set_option(int fd, int level, int name, const void *value, socklen_t value_len);
MUST_CHECK int sys_get_option(int fd, int level, int name, void *value, socklen_t *value_len);
MUST_CHECK int sys_local_address(int fd, struct sockaddr *address, socklen_t *address_len);

/** recv(2): bytes read, 0 at the end of the stream. */
MUST_CHECK ssize_t sys_recv(int fd, void *bytes, size_t len);
/** send(2) with MSG_NOSIGNAL: bytes the kernel took, possibly fewer than `len`. `fin_follows`:
 *  when all are taken the caller goes on with shutdown(2) or close(2), and the last of them go out
 *  with the FIN, in one segment (MSG_MORE). Without one they would wait for up to 200 ms. */
MUST_CHECK ssize_t sys_send(int fd, const void *bytes, size_t len, bool fin_follows);
/** splice(2) without blocking, socket to pipe or pipe to socket. Never SPLICE_F_MORE: the last part
 *  of a message would wait 200 ms for bytes that do not come. */
MUST_CHECK ssize_t sys_splice(int from_fd, int to_fd, size_t len);
/** read(2), for the bytes of a pipe whose target does not take splice. */
MUST_CHECK ssize_t sys_read(int fd, void *bytes, size_t len);
/** Sends FIN: shutdown(2) of the writing half. */
MUST_CHECK int sys_shutdown_write(int fd);

/** close(2). The descriptor is gone whatever it returns (Linux), so it is never tried again. */
void sys_close(int fd);

/** A non-blocking pipe: reading end in fds[0], writing end in fds[1]. */
MUST_CHECK int sys_pipe(int fds[2]);
/** F_SETPIPE_SZ: the size granted. */
MUST_CHECK int sys_pipe_resize(int fd, int size_bytes);
/** F_GETPIPE_SZ: the size the pipe has. */
MUST_CHECK int sys_pipe_size(int fd);
/** SIOCOUTQ: bytes sent and not yet acknowledged by the peer (a FIN counts one), see tcp(7). */
MUST_CHECK int sys_unacknowledged(int fd);
/** FIONREAD: bytes that can be read from a socket or pipe now. */
MUST_CHECK int sys_readable_bytes(int fd);

MUST_CHECK int sys_epoll_create(void);
/** EPOLL_CTL_ADD; `data` comes back with each event. */
MUST_CHECK int sys_epoll_add(int epoll_fd, int fd, uint32_t events, void *data);
/** EPOLL_CTL_DEL, for descriptors whose open file is shared with another process: closing ours
 *  would leave the registration behind. */
MUST_CHECK int sys_epoll_remove(int epoll_fd, int fd);
/** Waits at most `timeout_ms` (-1: no limit). An interrupted wait reports 0 events. */
MUST_CHECK int sys_epoll_wait(int epoll_fd, struct epoll_event *events, int events_max,
                              int timeout_ms);

#endif
