/* IPv4 has an address for each test process, so ports are simply counted. IPv6 has one loopback
 * address for all: there the kernel chooses ports, and a bound socket that never listens keeps the
 * one meant for sluice. */
#include "matrix/route.h"

#include "support/peer.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 512,
    LISTEN_PORT = 10000, /* below the ports that the kernel gives to clients */
    ORIGIN_PORT_BASE = 20000,
    /* A small receive buffer fills soon. Small segments keep the send buffer of sluice's socket
     * small, because the kernel counts it in segments. */
    TIGHT_RECEIVE_BYTES = 16 * 1024,
    TIGHT_SEND_BYTES = 64 * 1024,
    FLOOD_SEND_BYTES = 1024 * 1024,
    TIGHT_SEGMENT_BYTES = 1400
};

static bool client_is_unix(const struct route *route)
{
    return route->family == FAMILY_UNIX || route->family == FAMILY_UNIX_V4;
}

static bool server_is_unix(const struct route *route)
{
    return route->family == FAMILY_UNIX || route->family == FAMILY_V4_UNIX;
}

static void tighten(int fd, enum route_size size, bool is_unix)
{
    int receive_bytes = TIGHT_RECEIVE_BYTES;
    int send_bytes = size == ROUTE_FLOOD ? FLOOD_SEND_BYTES : TIGHT_SEND_BYTES;
    int segment_bytes = TIGHT_SEGMENT_BYTES;

    if (size == ROUTE_PLAIN) {
        return;
    }
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes)) == 0);
    if (!is_unix) {
        cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(int)) == 0);
        cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment_bytes, sizeof(int)) == 0);
    }
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in6 own;
    socklen_t len = sizeof(own);

    cr_assert(getsockname(fd, (struct sockaddr *)&own, &len) == 0);
    return ntohs(own.sin6_port);
}

static int hold_port(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;

    cr_assert(fd >= 0, "IPv6: %s", strerror(errno));
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
    cr_assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "[::1]: %s",
              strerror(errno));
    return fd;
}

static void init_client_side(struct route *route, const char *ip, unsigned index)
{
    route->holder = -1;
    if (client_is_unix(route)) {
        (void)snprintf(route->listen, sizeof(route->listen), "unix:@matrix-%d-%u-proxy", getpid(),
                       index);
    } else if (route->family == FAMILY_V6) {
        route->holder = hold_port();
        route->port = port_of(route->holder);
        (void)snprintf(route->ip, sizeof(route->ip), "::1");
        (void)snprintf(route->listen, sizeof(route->listen), "[::1]:%u", route->port);
    } else {
        route->port = (uint16_t)(LISTEN_PORT + index);
        (void)snprintf(route->ip, sizeof(route->ip), "%s", ip);
        (void)snprintf(route->listen, sizeof(route->listen), "%s:%u", ip, route->port);
    }
}

static void init_server_side(struct route *route, const char *ip, unsigned index,
                             char target[ROUTE_TEXT_BYTES])
{
    if (server_is_unix(route)) {
        (void)snprintf(target, ROUTE_TEXT_BYTES, "unix:@matrix-%d-%u-origin", getpid(), index);
        route->origin = peer_listen_unix(target + strlen("unix:"));
    } else if (route->family == FAMILY_V6) {
        route->origin = peer_listen("::1", 0, BACKLOG);
        (void)snprintf(target, ROUTE_TEXT_BYTES, "[::1]:%u", port_of(route->origin));
    } else {
        uint16_t port = (uint16_t)(ORIGIN_PORT_BASE + index);

        route->origin = peer_listen(ip, port, BACKLOG);
        (void)snprintf(target, ROUTE_TEXT_BYTES, "%s:%u", ip, port);
    }
}

void route_init(struct route *route, int family, enum route_size size, const char *ip,
                unsigned index)
{
    char target[ROUTE_TEXT_BYTES];

    *route = (struct route){.family = family, .size = size, .filler = -1};
    init_client_side(route, ip, index);
    init_server_side(route, ip, index, target);
    tighten(route->origin, size, server_is_unix(route));
    (void)snprintf(route->argument, sizeof(route->argument), "%s=%s", route->listen, target);
}

void route_close(struct route *route)
{
    peer_close(route->origin);
    if (route->filler >= 0) {
        peer_close(route->filler);
    }
    if (route->holder >= 0) {
        peer_close(route->holder);
    }
}

static int connect_tcp(const struct route *route)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address;
    bool is_v6 = route->family == FAMILY_V6;
    int fd = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;

    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
    cr_assert(fd >= 0, "socket: %s", strerror(errno));
    if (is_v6) {
        *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(route->port)};
        v6->sin6_addr = in6addr_loopback;
    } else {
        *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(route->port)};
        cr_assert(inet_pton(AF_INET, route->ip, &v4->sin_addr) == 1);
    }
    tighten(fd, route->size, false); /* before connect(2): the handshake tells the other side */
    cr_assert(connect(fd, (struct sockaddr *)&address, is_v6 ? sizeof(*v6) : sizeof(*v4)) == 0,
              "connect: %s", strerror(errno));
    return fd;
}

int route_connect(struct route *route)
{
    int fd;

    route->opened++;
    if (!client_is_unix(route)) {
        return connect_tcp(route);
    }
    fd = peer_connect_unix(route->listen + strlen("unix:"));
    tighten(fd, route->size, true);
    return fd;
}

int route_accept(const struct route *route)
{
    int fd = peer_accept(route->origin);

    /* A unix socket inherits nothing from the one that listens. */
    if (server_is_unix(route)) {
        tighten(fd, route->size, true);
    }
    return fd;
}

/* With a backlog of 0 there is room for one connection (sk_acceptq_is_full() and unix_recvq_full()
 * compare with >). A further SYN is dropped, and sent again after a second; a connect on a unix
 * socket says EAGAIN. */
void route_block(struct route *route)
{
    struct sockaddr_storage own;
    socklen_t len = sizeof(own);

    cr_assert(getsockname(route->origin, (struct sockaddr *)&own, &len) == 0);
    cr_assert(listen(route->origin, 0) == 0);
    route->filler = socket(own.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(route->filler >= 0);
    cr_assert(connect(route->filler, (struct sockaddr *)&own, len) == 0, "connect: %s",
              strerror(errno));
}

void route_unblock(struct route *route)
{
    peer_close(peer_accept(route->origin));
    peer_close(route->filler);
    route->filler = -1;
    cr_assert(listen(route->origin, BACKLOG) == 0);
}
