/* Connecting to a server, and to the next one when that fails.
 *
 * Nothing is read from the client before this is over, so trying another server can't lose a byte;
 * the client's own kernel holds what it sent, and its FIN.
 *
 * How an attempt ends (connect(2), and what Linux does beyond it):
 *   0 at once              unix sockets
 *   -EINPROGRESS           TCP; then one event. OUT alone means connected; with an error or an end
 *                          SO_ERROR decides, since HUP and OUT also come for failed attempts
 *   ECONNRESET, EPIPE      the server did accept, and has reset already, perhaps after an answer. A
 *                          failed attempt says ECONNREFUSED; this is a connection, and what came
 *                          with it is delivered
 *   -EAGAIN on unix        the backlog is full; no event will tell, so a timer repeats the attempt
 *   success with oneself   a loopback connect to a port of the ephemeral range may pick that very
 *                          port and meet itself; counts as refused, for nobody listens there
 *   any other errno        refused, unreachable, no local port ...: the next server's turn
 *
 * The descriptor is registered after connect(2), because an unconnected socket reports HUP. */
#include "relay/connect.h"

#include "base/check.h"
#include "net/sys.h"
#include "relay/listener.h"

#include <errno.h>

enum {
    BACKLOG_RETRY_MS = 10,      /* after a full backlog; doubles, because thousands may wait */
    BACKLOG_RETRY_MAX_MS = 1000 /* with each try */
};

enum reason connect_reason(int error)
{
    switch (error) {
    case 0:
        return REASON_NO_SERVER;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOENT: /* no unix socket of that name, or no way to it */
    case ENOTDIR:
    case ELOOP:
    case EPROTOTYPE: /* it is there, and no stream socket */
        return REASON_CONNECT_REFUSED;
    case ETIMEDOUT:
        return REASON_CONNECT_TIMEOUT;
    case ENETUNREACH:
    case EAFNOSUPPORT: /* a kernel without IPv6 */
    case EHOSTUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case EACCES: /* `ip route add prohibit`, a firewall, or a unix socket's mode */
    case EPERM:
    case EINVAL: /* `ip route add blackhole` */
    case ENONET: /* what else ICMP says becomes these (icmp_err_convert[] in Linux) */
    case EPROTO:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
        return REASON_CONNECT_UNREACHABLE;
    case EADDRNOTAVAIL:
    case EADDRINUSE:
    case EAGAIN:
        return REASON_NO_PORT;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
    case ENOSPC:
        return REASON_LIMIT;
    default:
        return REASON_INTERNAL;
    }
}

static bool is_unix(const struct session *session)
{
    return session->target->addr.u.any.sa_family == AF_UNIX;
}

static int new_socket(struct relay *relay, sa_family_t family)
{
    int fd = relay->spare_fd;

    relay->spare_fd = -1;
    if (fd >= 0 && relay->spare_family == family) {
        return fd;
    }
    if (fd >= 0) {
        sys_close(fd); /* makes room for the socket that fits */
    }
    return sock_new(family, relay->settings.source);
}

static void drop_server(struct session *session)
{
    if (session->server.fd >= 0) {
        sys_close(session->server.fd);
    }
    io_init(&session->server, &session->task);
}

/* The wildcard as a target means the loopback address. */
static bool met_itself(const struct addr *local, const struct addr *target)
{
    return addr_equal(local, target) || (addr_is_wildcard(target) && addr_is_loopback(local) &&
                                         addr_port(local) == addr_port(target));
}

/* Where the connection starts from is for the record, and to find out that it met itself. */
static int check_local_address(struct session *session)
{
    struct addr local;
    int result;

    if (is_unix(session)) {
        session->server_local.family = AF_UNIX;
        return 0;
    }
    result = sock_local_address(session->server.fd, &local);
    if (result < 0) {
        return result;
    }
    if (met_itself(&local, &session->target->addr)) {
        return -ECONNREFUSED;
    }
    session->server_local = addr_compact(&local);
    return 0;
}

/* One attempt at session->target: an outcome, or a negative errno when it failed at once. */
static int attempt(struct session *session)
{
    const struct addr *addr = &session->target->addr;
    struct loop *loop = session->listener->relay->loop;
    int fd = new_socket(session->listener->relay, addr->u.any.sa_family);
    int connected;
    int result;

    if (fd < 0) {
        return fd;
    }
    connected = sys_connect(fd, &addr->u.any, addr->len);
    if (connected == -EAGAIN && is_unix(session)) {
        sys_close(fd);
        session_set_timer(
            session, min_u64(session->deadline_ns, loop->now_ns + session->wait_ms * NS_PER_MS));
        session->wait_ms = (uint32_t)min_u64(2 * (uint64_t)session->wait_ms, BACKLOG_RETRY_MAX_MS);
        return CONNECT_WAITS;
    }
    if (connected < 0 && connected != -EINPROGRESS) {
        sys_close(fd);
        return connected;
    }
    result = loop_add(loop, &session->server, fd);
    if (result < 0) {
        sys_close(fd);
        return result;
    }
    session->server.is_tcp = !is_unix(session);
    session_set_timer(session, session->deadline_ns);
    if (connected < 0) {
        return CONNECT_WAITS;
    }
    result = check_local_address(session);
    return result < 0 ? result : CONNECT_DONE;
}

enum connect_outcome connect_next(struct session *session)
{
    const struct listener *listener = session->listener;
    int result;

    for (;;) {
        const struct target *target = listener->pick(listener->pool, &session->tries);

        if (target == NULL) {
            return CONNECT_FAILED;
        }
        session->target = target;
        session->wait_ms = BACKLOG_RETRY_MS;
        session->deadline_ns = session->listener->relay->loop->now_ns +
                               session->listener->relay->settings.connect_timeout_ns;
        result = attempt(session);
        if (result >= 0) {
            return (enum connect_outcome)result;
        }
        session->connect_error = (uint16_t)-result;
        drop_server(session);
    }
}

static enum connect_outcome attempt_failed(struct session *session, int error)
{
    CHECK(error > 0);
    session->connect_error = (uint16_t)error;
    drop_server(session);
    return connect_next(session);
}

/* How the attempt went that an event tells about: 0 when it is connected. */
static int attempt_error(struct io *server)
{
    int error;

    if ((server->ready & IO_ENDING) == 0) {
        return 0;
    }
    error = sock_take_error(server->fd);
    server->ready &= (uint8_t)~IO_ERROR;
    if (error == ECONNRESET || error == EPIPE) {
        io_set_error(server, error);
        error = 0;
    }
    return error;
}

enum connect_outcome connect_on_event(struct session *session)
{
    struct io *server = &session->server;
    int error;

    if (server->fd < 0 || (server->ready & (IO_WRITABLE | IO_ERROR)) == 0) {
        return CONNECT_WAITS;
    }
    error = attempt_error(server);
    if (error == 0) {
        error = -check_local_address(session);
    }
    return error == 0 ? CONNECT_DONE : attempt_failed(session, error);
}

enum connect_outcome connect_on_timer(struct session *session)
{
    int result;

    if (session->server.fd >= 0 || session->listener->relay->loop->now_ns >= session->deadline_ns) {
        return attempt_failed(session, ETIMEDOUT);
    }
    result = attempt(session);
    return result >= 0 ? (enum connect_outcome)result : attempt_failed(session, -result);
}

void connect_watch(struct session *session)
{
    if (!session->is_watched) {
        session->is_watched =
            session->server_local.family == AF_UNIX ||
            sock_watch_peer(session->server.fd, &session->listener->relay->settings.tuning) == 0;
    }
}
