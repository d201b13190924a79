/*
 * listen: addresses read and written, listening sockets opened.
 *
 * Several workers share a TCP port by SO_REUSEPORT: each has a socket and a queue of its own, and
 * the kernel spreads connections over them by a hash. A unix socket has one queue, which all
 * workers share. A file left behind by an origin that was killed is replaced; one at which
 * somebody listens, or that is no socket, is not.
 */
#include "listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool listen_parse(const char *text, union listen_address *ret_address)
{
    union listen_address address = {0};
    char host[INET6_ADDRSTRLEN] = "";
    unsigned port = 0;
    int end = 0;
    bool is_host_good = false;

    if (strncmp(text, "unix:", 5) == 0) {
        address.local.sun_family = AF_UNIX;
        is_host_good = text[5] != '\0' && strlen(text + 5) < sizeof(address.local.sun_path);
        memcpy(address.local.sun_path, text + 5, is_host_good ? strlen(text + 5) : 0);
        *ret_address = address;
        return is_host_good;
    }
    if (sscanf(text, "[%45[0-9a-fA-F:.]]:%5u%n", host, &port, &end) == 2) {
        address.v6.sin6_family = AF_INET6;
        address.v6.sin6_port = htons((uint16_t)port);
        is_host_good = inet_pton(AF_INET6, host, &address.v6.sin6_addr) == 1;
    } else if (sscanf(text, "%15[0-9.]:%5u%n", host, &port, &end) == 2) {
        address.v4.sin_family = AF_INET;
        address.v4.sin_port = htons((uint16_t)port);
        is_host_good = inet_pton(AF_INET, host, &address.v4.sin_addr) == 1;
    }
    *ret_address = address;
    return is_host_good && port <= UINT16_MAX && text[end] == '\0';
}

static socklen_t address_length(const union listen_address *address)
{
    switch (address->any.sa_family) {
    case AF_UNIX:
        return sizeof(address->local);
    case AF_INET6:
        return sizeof(address->v6);
    default:
        return sizeof(address->v4);
    }
}

void listen_format(const union listen_address *address, char *ret_text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "";

    if (address->any.sa_family == AF_UNIX) {
        (void)snprintf(ret_text, size, "unix:%s", address->local.sun_path);
    } else if (address->any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof(host));
        (void)snprintf(ret_text, size, "[%s]:%u", host, ntohs(address->v6.sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof(host));
        (void)snprintf(ret_text, size, "%s:%u", host, ntohs(address->v4.sin_port));
    }
}

/* Removes a socket file that no process listens on any more; true if it did. */
static bool path_remove_stale(const union listen_address *address)
{
    struct stat status;
    int fd;
    bool is_stale;

    if (lstat(address->local.sun_path, &status) < 0 || !S_ISSOCK(status.st_mode)) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    is_stale = connect(fd, &address->any, address_length(address)) < 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return is_stale && unlink(address->local.sun_path) == 0;
}

/* Opens a listening socket and writes the port that the kernel chose to `address`. Returns it, or a
 * negative errno. */
static int listener_open(union listen_address *address, bool shares_port)
{
    socklen_t len = address_length(address);
    int on = 1;
    int shares = shares_port;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error;

    if (fd < 0) {
        return -errno;
    }
    if (address->any.sa_family != AF_UNIX) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shares, sizeof(shares));
        /* Accepted sockets inherit it, which saves a call for each. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    if (bind(fd, &address->any, len) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, &address->any, &len) < 0) {
        error = errno;
        (void)close(fd);
        return -error;
    }
    return fd;
}

/* The first is opened alone: with SO_REUSEPORT, a port in use by an earlier origin would count as
 * free. */
int listen_open(union listen_address *address, int count, int *ret_fds)
{
    int fd = listener_open(address, false);

    if (fd == -EADDRINUSE && address->any.sa_family == AF_UNIX && path_remove_stale(address)) {
        fd = listener_open(address, false);
    }
    if (fd >= 0 && count > 1 && address->any.sa_family != AF_UNIX) {
        (void)close(fd);
        fd = listener_open(address, true);
    }
    ret_fds[0] = fd;
    for (int i = 1; i < count && fd >= 0; i++) {
        if (address->any.sa_family != AF_UNIX) {
            fd = listener_open(address, true);
        }
        ret_fds[i] = fd;
    }
    return fd < 0 ? fd : 0;
}

void listen_remove(const union listen_address *address)
{
    if (address->any.sa_family == AF_UNIX) {
        (void)unlink(address->local.sun_path); /* it may be gone already */
    }
}
