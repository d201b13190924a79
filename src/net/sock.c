/* Options, and why each is set.
 *
 *   TCP_NODELAY       a relay forwards at once; Nagle's wait would only add to the sender's own
 *   SO_KEEPALIVE      a peer that vanished from an idle connection must be noticed (contract 6)
 *   TCP_USER_TIMEOUT  the same for a connection with unacknowledged bytes or a closed window; with
 *                     it set, it also decides when unanswered keepalive probes are enough (tcp(7))
 *   SO_OOBINLINE      an urgent byte stays in its place in the stream instead of being taken out
 *   SO_LINGER {1,0}   close(2) sends RST. Set from the start and taken back only for a clean end:
 *                     when a worker is killed, the kernel closes its sockets, and without this the
 *                     peers of a half-done transfer would see a clean FIN
 *   SO_REUSEPORT      one listening socket per worker: the kernel spreads connections, no lock
 *
 * Linux copies all of these from a listening socket to the connections it accepts, so accepting
 * costs no setsockopt(2) at all; tests/unit/net/sock.c holds the kernel to that. */
#include "net/sock.h"

#include "base/check.h"
#include "net/sys.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <unistd.h>

/* The kernel cuts it to net.core.somaxconn (listen(2)): the administrator's number decides. */
enum { BACKLOG_MAX = 65535 };

static int set_int(int fd, int level, int name, int value)
{
    return sys_set_option(fd, level, name, &value, sizeof(value));
}

int sock_reset_on_close(int fd, bool reset)
{
    struct linger linger = {.l_onoff = reset, .l_linger = 0};

    return sys_set_option(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

void sock_keep_urgent_inline(int fd)
{
    /* Kernels before 5.15 have no urgent bytes on unix sockets, and none to keep. */
    int ignored = set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    (void)ignored;
}

static int tune_keepalive(int fd, const struct sock_tuning *tuning)
{
    int result;

    if (tuning->keepalive_idle_s == 0) {
        return 0;
    }
    result = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (result == 0) {
        result = set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)tuning->keepalive_idle_s);
    }
    if (result == 0 && tuning->keepalive_interval_s != 0) {
        result = set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int)tuning->keepalive_interval_s);
    }
    return result;
}

int sock_watch_peer(int fd, const struct sock_tuning *tuning)
{
    int result = tune_keepalive(fd, tuning);

    if (result == 0 && tuning->user_timeout_ms != 0) {
        result = set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)tuning->user_timeout_ms);
    }
    return result;
}

static int tune_tcp(int fd)
{
    int result = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);

    if (result == 0) {
        result = set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    }
    if (result == 0) {
        result = sock_reset_on_close(fd, true);
    }
    return result;
}

static int bind_and_listen(int fd, const struct addr *addr, bool first)
{
    int result = 0;

    if (!first) {
        result = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    if (result == 0) {
        result = sys_bind(fd, &addr->u.any, addr->len);
    }
    /* The first socket binds without SO_REUSEPORT, so that a port on which another program listens
     * with SO_REUSEPORT is refused instead of quietly shared; then it opens the port to the
     * rest. */
    if (result == 0 && first) {
        result = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    if (result == 0) {
        result = sys_listen(fd, BACKLOG_MAX);
    }
    return result;
}

int sock_listen_tcp(const struct addr *addr, const struct sock_tuning *tuning, bool first)
{
    sa_family_t family = addr->u.any.sa_family;
    int fd = sys_socket(family);
    int result = 0;

    CHECK(family == AF_INET || family == AF_INET6);
    if (fd < 0) {
        return fd;
    }
    /* Connections of an earlier run in TIME_WAIT must not keep the port. */
    result = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (result == 0 && family == AF_INET6) {
        result = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, !addr->dual_stack);
    }
    if (result == 0) {
        result = tune_tcp(fd);
    }
    if (result == 0) {
        result = sock_watch_peer(fd, tuning);
    }
    if (result == 0) {
        result = bind_and_listen(fd, addr, first);
    }
    if (result < 0) {
        sys_close(fd);
        return result;
    }
    return fd;
}

/* True when the socket file at `addr` has nobody behind it: connecting is the only sure test. */
static bool is_stale(const struct addr *addr)
{
    int fd = sys_socket(AF_UNIX);
    int result;

    if (fd < 0) {
        return false;
    }
    result = sys_connect(fd, &addr->u.any, addr->len);
    sys_close(fd);
    return result == -ECONNREFUSED;
}

static int clear_stale_path(const struct addr *addr)
{
    const char *path = addr->u.local.sun_path;
    struct stat status;

    if (lstat(path, &status) < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(status.st_mode)) {
        return -ENOTSOCK;
    }
    if (!is_stale(addr)) {
        return -EADDRINUSE;
    }
    return unlink(path) < 0 ? -errno : 0;
}

int sock_listen_unix(const struct addr *addr)
{
    int result = 0;
    int fd;

    CHECK(addr->u.any.sa_family == AF_UNIX);
    if (addr->u.local.sun_path[0] != '\0') {
        result = clear_stale_path(addr);
        if (result < 0) {
            return result;
        }
    }
    fd = sys_socket(AF_UNIX);
    if (fd < 0) {
        return fd;
    }
    result = sys_bind(fd, &addr->u.any, addr->len);
    if (result == 0) {
        result = sys_listen(fd, BACKLOG_MAX);
        if (result < 0 && addr->u.local.sun_path[0] != '\0') {
            (void)unlink(addr->u.local.sun_path); /* bind(2) has made it: nobody else would */
        }
    }
    if (result < 0) {
        sys_close(fd);
        return result;
    }
    return fd;
}

static int bind_source(int fd, const struct addr *source)
{
    int result = set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);

    return result < 0 ? result : sys_bind(fd, &source->u.any, source->len);
}

int sock_new(sa_family_t family, const struct addr *source)
{
    int fd = sys_socket(family);
    int result = 0;

    if (fd < 0) {
        return fd;
    }
    if (family == AF_UNIX) {
        sock_keep_urgent_inline(fd);
        return fd;
    }
    result = tune_tcp(fd);
    if (result == 0 && source != NULL && source->u.any.sa_family == family) {
        result = bind_source(fd, source);
    }
    if (result < 0) {
        sys_close(fd);
        return result;
    }
    return fd;
}

int sock_local_address(int fd, struct addr *ret_addr)
{
    struct addr addr = {.len = sizeof(addr.u)};
    int result = sys_local_address(fd, &addr.u.any, &addr.len);

    if (result == 0) {
        *ret_addr = addr;
    }
    return result;
}

int sock_take_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);
    int result = sys_get_option(fd, SOL_SOCKET, SO_ERROR, &error, &len);

    return result < 0 ? -result : error;
}

uint32_t sock_rtt_us(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    int result = sys_get_option(fd, IPPROTO_TCP, TCP_INFO, &info, &len);

    return result < 0 ? 0 : info.tcpi_rtt;
}
