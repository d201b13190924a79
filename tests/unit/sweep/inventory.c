/* The inventory: read it as a table, call by call. A name in capitals is an errno.
 *
 * What counts as legal: what the man page lists for a sound caller, what the kernel does beyond
 * it (net/ipv4, net/unix, fs/splice.c, fs/pipe.c of Linux 6.x), and the refusals of a security
 * module, a seccomp filter or a cgroup program, which may meet any call (lsm: EPERM or EACCES;
 * ENOSYS). EBADF, EFAULT, ENOTSOCK and the like would need a bug in sluice, and are not here.
 *
 * EINTR is repeated inside net/sys.c, below the seam (tests/unit/net/sys.c shows it), but for
 * connect and epoll_wait, which say something else instead: these two stand here. */
#include "unit/sweep/inventory.h"

#include "base/macros.h"

#include <errno.h>

const char *const state_names[STATES] = {
    [STATE_LOOP] = "loop",
    [STATE_ACCEPTING] = "accepting",
    [STATE_CONNECTING] = "connecting",
    [STATE_RELAYING] = "relaying",
    [STATE_HALF_CLOSED] = "half-closed",
    [STATE_DRAINING] = "draining",
    [STATE_ENDING] = "ending",
    [STATE_CLOSING] = "closing",
};

/* Short for the rows below. */
#define FLOWS (IN_RELAYING | IN_HALF_CLOSED | IN_DRAINING | IN_ENDING)
#define ALIVE (IN_RELAYING | IN_HALF_CLOSED | IN_DRAINING)
#define NONE  0u

#define ERROR(call, error, unseen, breaks, source)                                                 \
    {                                                                                              \
        call, #error, FAILS, error, 1, unseen, breaks, source                                      \
    }
#define ERROR_ON(call, error, unseen, source)                                                      \
    {                                                                                              \
        call, #error " from then on", FAILS, error, ALWAYS, unseen, NONE, source                   \
    }
#define SHORT(call, source)                                                                        \
    {call, "1 byte", SHORTENS, 1, 1, FLOWS, NONE, source},                                         \
        {call, "a segment", SHORTENS, 1448, 1, FLOWS, NONE, source},                               \
    {                                                                                              \
        call, "1 byte from then on", SHORTENS, 1, 15, FLOWS, NONE, source                          \
    }
#define EMPTY(call, unseen, source)                                                                \
    {                                                                                              \
        call, "EAGAIN, then an edge", LIES, EAGAIN, 1, unseen, NONE, source                        \
    }

const struct outcome outcomes[] = {
    /* --- accepting --- */
    ERROR(CALL_SOCKET, EMFILE, IN_ACCEPTING, NONE, "socket(2)"),
    ERROR(CALL_SOCKET, ENFILE, IN_ACCEPTING, NONE, "socket(2)"),
    ERROR(CALL_SOCKET, ENOBUFS, IN_ACCEPTING, NONE, "socket(2)"),
    ERROR(CALL_SOCKET, ENOMEM, IN_ACCEPTING, NONE, "socket(2)"),
    ERROR(CALL_SOCKET, EACCES, IN_ACCEPTING, NONE, "socket(2); lsm"),
    ERROR_ON(CALL_SOCKET, EAFNOSUPPORT, NONE, "socket(2): a kernel without this family"),
    ERROR_ON(CALL_SOCKET, EPERM, NONE, "lsm, seccomp"),

    EMPTY(CALL_ACCEPT, IN_ACCEPTING, "accept(2)"),
    ERROR(CALL_ACCEPT, ECONNABORTED, IN_ACCEPTING, NONE, "accept(2)"),
    ERROR(CALL_ACCEPT, EPERM, IN_ACCEPTING, NONE, "accept(2): firewall rules forbid it"),
    ERROR(CALL_ACCEPT, EPROTO, IN_ACCEPTING, NONE, "accept(2)"),
    ERROR(CALL_ACCEPT, ENETDOWN, IN_ACCEPTING, NONE, "accept(2), error handling"),
    ERROR(CALL_ACCEPT, ENOPROTOOPT, IN_ACCEPTING, NONE, "accept(2), error handling"),
    ERROR(CALL_ACCEPT, EHOSTDOWN, IN_ACCEPTING, NONE, "accept(2), error handling"),
    ERROR(CALL_ACCEPT, ENONET, IN_ACCEPTING, NONE, "accept(2), error handling"),
    ERROR(CALL_ACCEPT, EHOSTUNREACH, IN_ACCEPTING, NONE, "accept(2), error handling"),
    ERROR(CALL_ACCEPT, EOPNOTSUPP, IN_ACCEPTING, NONE, "accept(2), error handling"),
    ERROR(CALL_ACCEPT, ENETUNREACH, IN_ACCEPTING, NONE, "accept(2), error handling"),
    ERROR(CALL_ACCEPT, ETIMEDOUT, IN_ACCEPTING, NONE, "accept(2)"),
    ERROR(CALL_ACCEPT, EMFILE, IN_ACCEPTING, NONE, "accept(2)"),
    ERROR(CALL_ACCEPT, ENFILE, IN_ACCEPTING, NONE, "accept(2)"),
    ERROR(CALL_ACCEPT, ENOBUFS, IN_ACCEPTING, NONE, "accept(2)"),
    ERROR(CALL_ACCEPT, ENOMEM, IN_ACCEPTING, NONE, "accept(2)"),
    {CALL_ACCEPT, "EPERM for long", FAILS, EPERM, 200, IN_ACCEPTING, NONE, "lsm, until it is told"},

    /* --- connecting --- */
    {CALL_CONNECT, "EINTR", REPLACES, -EINPROGRESS, 1, IN_CONNECTING, NONE,
     "connect(2): goes on by itself; sys.c says EINPROGRESS"},
    {CALL_CONNECT, "done at once", REPLACES, 0, 1, IN_CONNECTING, NONE, "connect(2)"},
    ERROR(CALL_CONNECT, EAGAIN, NONE, NONE, "connect(2): unix backlog full; no route cache"),
    ERROR(CALL_CONNECT, ECONNREFUSED, NONE, NONE, "connect(2)"),
    ERROR(CALL_CONNECT, ETIMEDOUT, NONE, NONE, "connect(2)"),
    ERROR(CALL_CONNECT, ENETUNREACH, NONE, NONE, "connect(2)"),
    ERROR(CALL_CONNECT, EHOSTUNREACH, NONE, NONE, "ip(7)"),
    ERROR(CALL_CONNECT, EADDRNOTAVAIL, NONE, NONE, "connect(2): no port left"),
    ERROR(CALL_CONNECT, EACCES, NONE, NONE, "connect(2)"),
    ERROR(CALL_CONNECT, EPERM, NONE, NONE, "connect(2): firewall"),
    ERROR(CALL_CONNECT, EINVAL, NONE, NONE, "`ip route add blackhole`"),
    ERROR(CALL_CONNECT, ENOBUFS, NONE, NONE, "ip(7)"),
    ERROR(CALL_CONNECT, ENOMEM, NONE, NONE, "unix_stream_connect(), ip(7)"),
    ERROR_ON(CALL_CONNECT, EPERM, NONE, "lsm, cgroup connect4"),

    ERROR(CALL_BIND, EADDRNOTAVAIL, IN_ACCEPTING, NONE, "bind(2)"),
    ERROR(CALL_BIND, EADDRINUSE, IN_ACCEPTING, NONE, "bind(2)"),
    ERROR(CALL_BIND, EACCES, IN_ACCEPTING, NONE, "bind(2)"),
    ERROR(CALL_BIND, ENOMEM, IN_ACCEPTING, NONE, "bind(2)"),
    ERROR_ON(CALL_BIND, EADDRNOTAVAIL, NONE, "bind(2): the address was taken off"),

    ERROR(CALL_SET_OPTION, EPERM, IN_ACCEPTING, NONE, "lsm, cgroup setsockopt"),
    ERROR(CALL_SET_OPTION, ENOPROTOOPT, IN_ACCEPTING, NONE, "setsockopt(2)"),
    ERROR(CALL_SET_OPTION, ENOMEM, IN_ACCEPTING, NONE, "setsockopt(2)"),
    ERROR_ON(CALL_SET_OPTION, EPERM, NONE, "lsm, cgroup setsockopt"),

    ERROR(CALL_EPOLL_ADD, ENOMEM, NONE, NONE, "epoll_ctl(2)"),
    ERROR(CALL_EPOLL_ADD, ENOSPC, NONE, NONE, "epoll_ctl(2): max_user_watches"),

    ERROR(CALL_GET_OPTION, EPERM, NONE, NONE, "lsm, cgroup getsockopt"),
    ERROR(CALL_GET_OPTION, ENOBUFS, NONE, NONE, "lsm, cgroup getsockopt"),
#define PENDING_ROW(error, source)                                                                 \
    {                                                                                              \
        CALL_GET_OPTION, "holds " #error, PENDING, error, 1, NONE, NONE, source                    \
    }
    PENDING_ROW(ECONNREFUSED, "tcp(7)"),
    PENDING_ROW(ECONNRESET, "tcp(7)"),
    PENDING_ROW(ETIMEDOUT, "tcp(7)"),
    PENDING_ROW(EHOSTUNREACH, "ip(7): ICMP"),
    PENDING_ROW(ENETUNREACH, "ip(7): ICMP"),
    PENDING_ROW(ECONNABORTED, "SOCK_DESTROY, `ss -K`"),
    PENDING_ROW(EACCES, "ip(7): ICMP, prohibited"),
    PENDING_ROW(EPROTO, "ip(7): ICMP, parameter problem"),

    ERROR(CALL_LOCAL_ADDRESS, ENOBUFS, IN_CLOSING, NONE, "getsockname(2)"),
    ERROR(CALL_LOCAL_ADDRESS, EPERM, IN_CLOSING, NONE, "lsm, cgroup getsockname"),

    /* --- bytes by copy --- */
    SHORT(CALL_RECV, "recv(2)"),
    EMPTY(CALL_RECV, FLOWS, "recv(2)"),
    ERROR(CALL_RECV, ENOMEM, FLOWS, NONE, "recv(2)"),
    ERROR(CALL_RECV, ENOBUFS, FLOWS, NONE, "socket layer"),
    ERROR(CALL_RECV, ECONNRESET, NONE, ALIVE, "tcp(7), unix(7)"),
    ERROR(CALL_RECV, ETIMEDOUT, NONE, ALIVE, "tcp(7)"),
    ERROR(CALL_RECV, EHOSTUNREACH, NONE, ALIVE, "ip(7): ICMP"),
    ERROR(CALL_RECV, ENOTCONN, NONE, ALIVE, "recv(2)"),
    ERROR(CALL_RECV, EPERM, NONE, ALIVE, "lsm"),

    SHORT(CALL_SEND, "send(2)"),
    EMPTY(CALL_SEND, FLOWS, "send(2)"),
    ERROR(CALL_SEND, ENOMEM, FLOWS, NONE, "send(2)"),
    ERROR(CALL_SEND, ENOBUFS, FLOWS, NONE, "send(2)"),
    ERROR(CALL_SEND, EPIPE, NONE, ALIVE, "send(2)"),
    ERROR(CALL_SEND, ECONNRESET, NONE, ALIVE, "send(2)"),
    ERROR(CALL_SEND, ETIMEDOUT, NONE, ALIVE, "tcp(7)"),
    ERROR(CALL_SEND, EHOSTUNREACH, NONE, ALIVE, "ip(7)"),
    ERROR(CALL_SEND, ENETUNREACH, NONE, ALIVE, "ip(7)"),
    ERROR(CALL_SEND, EACCES, NONE, ALIVE, "lsm"),

    SHORT(CALL_READ, "read(2), pipe(7)"),
    ERROR(CALL_READ, ENOMEM, FLOWS, NONE, "kernel memory, as for every file"),
    ERROR(CALL_READ, EPERM, NONE, ALIVE, "lsm: file_permission"),
    ERROR(CALL_READ, EIO, NONE, ALIVE, "read(2)"),

    ERROR(CALL_SHUTDOWN_WRITE, ENOTCONN, NONE, ALIVE, "shutdown(2): reset meanwhile"),
    ERROR(CALL_SHUTDOWN_WRITE, EACCES, NONE, ALIVE, "lsm"),

    /* --- bytes by splice --- */
    SHORT(CALL_SPLICE_IN, "splice(2)"),
    EMPTY(CALL_SPLICE_IN, FLOWS, "splice(2): no bytes, or no slot"),
    {CALL_SPLICE_IN, "0", ANSWERS, 0, 1, FLOWS, NONE, "tcp_splice_read(): at an urgent byte"},
    ERROR(CALL_SPLICE_IN, ENOMEM, FLOWS, NONE, "splice(2)"),
    ERROR(CALL_SPLICE_IN, EINVAL, FLOWS, NONE, "splice(2)"),
    ERROR(CALL_SPLICE_IN, EPERM, FLOWS, NONE, "lsm: file_permission"),
    ERROR_ON(CALL_SPLICE_IN, EINVAL, FLOWS, "splice(2): unix sockets of old kernels, kTLS"),
    ERROR_ON(CALL_SPLICE_IN, ENOSYS, FLOWS, "seccomp"),
    ERROR_ON(CALL_SPLICE_IN, EOPNOTSUPP, FLOWS, "sockets without splice_read"),
    ERROR(CALL_SPLICE_IN, ECONNRESET, NONE, ALIVE, "tcp_splice_read()"),
    ERROR(CALL_SPLICE_IN, ETIMEDOUT, NONE, ALIVE, "tcp_splice_read()"),
    ERROR(CALL_SPLICE_IN, EHOSTUNREACH, NONE, ALIVE, "tcp_splice_read()"),
    ERROR(CALL_SPLICE_IN, ENOTCONN, NONE, ALIVE, "tcp_splice_read()"),

    SHORT(CALL_SPLICE_OUT, "splice(2)"),
    EMPTY(CALL_SPLICE_OUT, FLOWS, "splice(2)"),
    ERROR(CALL_SPLICE_OUT, ENOMEM, FLOWS, NONE, "splice(2)"),
    ERROR(CALL_SPLICE_OUT, ENOBUFS, FLOWS, NONE, "send(2), beneath splice"),
    ERROR(CALL_SPLICE_OUT, EINVAL, FLOWS, NONE, "splice(2)"),
    ERROR(CALL_SPLICE_OUT, EPERM, FLOWS, NONE, "lsm: file_permission"),
    ERROR_ON(CALL_SPLICE_OUT, EINVAL, FLOWS, "splice(2): unix sockets of old kernels, kTLS"),
    ERROR_ON(CALL_SPLICE_OUT, ENOSYS, FLOWS, "seccomp"),
    ERROR_ON(CALL_SPLICE_OUT, EOPNOTSUPP, FLOWS, "sockets without splice_write"),
    ERROR(CALL_SPLICE_OUT, EPIPE, NONE, ALIVE, "send(2), beneath splice"),
    ERROR(CALL_SPLICE_OUT, ECONNRESET, NONE, ALIVE, "send(2), beneath splice"),
    ERROR(CALL_SPLICE_OUT, ETIMEDOUT, NONE, ALIVE, "tcp(7)"),
    ERROR(CALL_SPLICE_OUT, EHOSTUNREACH, NONE, ALIVE, "ip(7)"),

    ERROR(CALL_PIPE, EMFILE, FLOWS, NONE, "pipe(2)"),
    ERROR(CALL_PIPE, ENFILE, FLOWS, NONE, "pipe(2): descriptors, or pipe-user-pages-hard"),
    ERROR(CALL_PIPE, ENOMEM, FLOWS, NONE, "alloc_pipe_info()"),
    ERROR_ON(CALL_PIPE, EMFILE, FLOWS, "pipe(2)"),
    ERROR_ON(CALL_PIPE, ENOSYS, FLOWS, "seccomp"),
    ERROR(CALL_PIPE_RESIZE, EPERM, FLOWS, NONE, "pipe(7): pipe-user-pages-soft, pipe-max-size"),
    ERROR(CALL_PIPE_RESIZE, EBUSY, FLOWS, NONE, "fcntl(2)"),
    ERROR(CALL_PIPE_RESIZE, ENOMEM, FLOWS, NONE, "pipe_resize_ring()"),
    ERROR_ON(CALL_PIPE_RESIZE, EPERM, FLOWS, "pipe(7): pipe-user-pages-soft"),
    ERROR(CALL_PIPE_SIZE, EPERM, FLOWS, NONE, "lsm: file_fcntl"),
    {CALL_PIPE_SIZE, "8192", ANSWERS, 8192, 1, FLOWS, NONE, "pipe(7): beyond the soft limit"},
    {CALL_PIPE_SIZE, "4096 from then on", ANSWERS, 4096, ALWAYS, FLOWS, NONE, "pipe(7)"},

    /* --- the loop, and the end --- */
    {CALL_EPOLL_WAIT, "EINTR", ANSWERS, 0, 1, IN_LOOP, NONE, "epoll_wait(2); sys.c says 0"},
    {CALL_EPOLL_WAIT, "EINTR for long", ANSWERS, 0, 10, IN_LOOP, NONE, "epoll_wait(2)"},
    {CALL_EPOLL_WAIT, "1 event", SHORTENS, 1, 1, IN_LOOP, NONE, "epoll_wait(2): a batch is split"},
    {CALL_EPOLL_WAIT, "1 event from then on", SHORTENS, 1, ALWAYS, IN_LOOP, NONE, "epoll_wait(2)"},
    {CALL_EPOLL_WAIT, "spurious", SPURIOUS, 0, 1, IN_LOOP, NONE, "epoll(7): treat as a hint"},
    {CALL_EPOLL_WAIT, "client's reset", BREAKS_CLIENT, ECONNRESET, 1, NONE, ALIVE, "tcp(7)"},
    {CALL_EPOLL_WAIT, "client's silence", BREAKS_CLIENT, ETIMEDOUT, 1, NONE, ALIVE, "tcp(7)"},
    {CALL_EPOLL_WAIT, "server's reset", BREAKS_SERVER, ECONNRESET, 1, NONE, ALIVE, "tcp(7)"},
    {CALL_EPOLL_WAIT, "server's ICMP", BREAKS_SERVER, EHOSTUNREACH, 1, NONE, ALIVE, "ip(7)"},
    ERROR(CALL_EPOLL_REMOVE, ENOENT, IN_ACCEPTING, NONE, "epoll_ctl(2)"),
    ERROR(CALL_TCP_INFO, EPERM, IN_CLOSING, NONE, "lsm, cgroup getsockopt"),
    ERROR(CALL_TCP_INFO, ENOPROTOOPT, IN_CLOSING, NONE, "getsockopt(2)"),
    ERROR(CALL_UNACKNOWLEDGED, EINVAL, IN_CLOSING, NONE, "tcp(7): a listening socket"),
    ERROR(CALL_UNACKNOWLEDGED, EPERM, IN_CLOSING, NONE, "lsm: file_ioctl"),
    {CALL_UNACKNOWLEDGED, "1", ANSWERS, 1, 1, FLOWS | IN_CLOSING, NONE, "tcp(7): on its way"},
    {CALL_UNACKNOWLEDGED, "a million, for long", ANSWERS, 1000000, 6, FLOWS | IN_CLOSING, NONE,
     "tcp(7): a slow peer"},
};

const size_t outcomes_len = ARRAY_LEN(outcomes);

const struct left_out left_outs[] = {
    {CALL_LISTEN, "at the start only; a failure ends the start: unit/net/sock_listen.c"},
    {CALL_EPOLL_CREATE, "at the start only; a failure ends the start: unit/relay/loop.c"},
    {CALL_CLOSE, "frees the descriptor whatever it says, and sys_close() says nothing"},
    {CALL_READABLE_BYTES, "asked by assertions of debug builds only"},
};

const size_t left_outs_len = ARRAY_LEN(left_outs);

#define ELSEWHERE(states) (IN_ALL & ~(unsigned)(states))
#define NO_FLOW           (IN_LOOP | IN_ACCEPTING | IN_CONNECTING | IN_CLOSING)

const struct hole holes[] = {
    {CALL_SOCKET, NULL, ELSEWHERE(IN_ACCEPTING | IN_CONNECTING),
     "made ahead for the next client, or for the next server that is tried"},
    {CALL_BIND, NULL, ELSEWHERE(IN_ACCEPTING | IN_CONNECTING), "a part of making such a socket"},
    {CALL_SET_OPTION, NULL, ELSEWHERE(IN_ACCEPTING | IN_CONNECTING | IN_CLOSING),
     "options are set at birth; SO_LINGER is taken back when a clean end is closed"},
    {CALL_ACCEPT, NULL, ELSEWHERE(IN_ACCEPTING), "only the listener accepts"},
    {CALL_EPOLL_REMOVE, NULL, ELSEWHERE(IN_ACCEPTING), "only the listener's socket is shared"},
    {CALL_CONNECT, NULL, ELSEWHERE(IN_CONNECTING), "only a session without a server connects"},
    {CALL_EPOLL_ADD, NULL, ELSEWHERE(IN_CONNECTING),
     "both legs are registered before relaying; the listener was when the world was built"},
    {CALL_LOCAL_ADDRESS, NULL, ELSEWHERE(IN_CONNECTING | IN_CLOSING),
     "asked when the server is reached, and for the record"},
    {CALL_TCP_INFO, NULL, ELSEWHERE(IN_CLOSING), "asked for the record only"},
    {CALL_GET_OPTION, NULL, IN_LOOP | IN_ACCEPTING | IN_CLOSING,
     "SO_ERROR is asked of a leg that has a live session"},
    {CALL_GET_OPTION, NULL, IN_DRAINING, "the session asks, not the flow: relaying or half-closed"},

    {CALL_RECV, NULL, NO_FLOW,
     "nothing is read before the server is reached, nor behind the record"},
    {CALL_RECV, NULL, IN_DRAINING | IN_ENDING, "the source has ended, or is not wanted any more"},
    {CALL_SPLICE_IN, NULL, NO_FLOW, "as for recv"},
    {CALL_SPLICE_IN, NULL, IN_DRAINING | IN_ENDING, "as for recv"},
    {CALL_SEND, NULL, NO_FLOW, "nothing is held that could be sent"},
    {CALL_SEND, "EPIPE", IN_ENDING,
     "only unix targets fill up soon enough to get there, and see is_legal() in sweep.c"},
    {CALL_SPLICE_OUT, NULL, NO_FLOW, "as for send"},
    {CALL_SPLICE_OUT, "EPIPE", IN_ENDING, "as for send"},
    {CALL_SPLICE_OUT, NULL, IN_DRAINING,
     "a splice from a source that has ended comes with an empty pipe; what a stop leaves is ending"},
    {CALL_READ, NULL, NO_FLOW, "no pipe is lent"},
    {CALL_READ, NULL, IN_DRAINING, "as for splice out"},
    {CALL_SHUTDOWN_WRITE, NULL, ELSEWHERE(IN_DRAINING),
     "FIN is passed on by a flow that has met one, and never while ending"},
    {CALL_PIPE, NULL, ELSEWHERE(IN_RELAYING | IN_HALF_CLOSED), "lent to a flow that reads"},
    {CALL_PIPE_RESIZE, NULL, ELSEWHERE(IN_RELAYING | IN_HALF_CLOSED), "as for pipe"},
    {CALL_PIPE_SIZE, NULL, ELSEWHERE(IN_RELAYING | IN_HALF_CLOSED), "as for pipe"},

    {CALL_UNACKNOWLEDGED, NULL, IN_LOOP | IN_ACCEPTING | IN_CONNECTING,
     "there is nothing yet that could be acknowledged"},
    {CALL_UNACKNOWLEDGED, NULL, IN_DRAINING, "the session asks: relaying or half-closed"},
    {CALL_EPOLL_WAIT, NULL, IN_ACCEPTING | IN_CONNECTING | IN_DRAINING | IN_CLOSING,
     "the wait is the loop's; an error is counted by the session that meets it"},
    {CALL_EPOLL_WAIT, "EINTR", IN_RELAYING | IN_HALF_CLOSED | IN_ENDING, "the loop's"},
    {CALL_EPOLL_WAIT, "EINTR for long", IN_RELAYING | IN_HALF_CLOSED | IN_ENDING, "the loop's"},
    {CALL_EPOLL_WAIT, "1 event", IN_RELAYING | IN_HALF_CLOSED | IN_ENDING, "the loop's"},
    {CALL_EPOLL_WAIT, "1 event from then on", IN_RELAYING | IN_HALF_CLOSED | IN_ENDING,
     "the loop's"},
    {CALL_EPOLL_WAIT, "spurious", IN_RELAYING | IN_HALF_CLOSED | IN_ENDING, "the loop's"},
    {CALL_EPOLL_WAIT, "client's reset", IN_LOOP, "a session's"},
    {CALL_EPOLL_WAIT, "client's silence", IN_LOOP, "a session's"},
    {CALL_EPOLL_WAIT, "server's reset", IN_LOOP, "a session's"},
    {CALL_EPOLL_WAIT, "server's ICMP", IN_LOOP, "a session's"},
};

const size_t holes_len = ARRAY_LEN(holes);
