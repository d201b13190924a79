/* Tests of sockets: their options, their ends, what they tell. Most hold the kernel to what the product
 * relies on: that accepted connections inherit the options of their listener, that a killed process
 * shows a reset. Real sockets, on a loopback address of this process alone. Listening has a file of
 * its own, sock_listen.c. */
#include "net/sock.h"

#include "base/macros.h"
#include "net/sys.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MS = 10000 }; /* no wait is longer: a hang is a failure */

static const struct sock_tuning tuning = {
    .keepalive_idle_s = 61, .keepalive_interval_s = 16, .user_timeout_ms = 123456};
static const struct sock_tuning no_tuning = {0};

/* --- addresses --- */

/* 127.x.y.z from the process id: tests that run at the same time have different ones. */
static struct addr own_v4(uint16_t port)
{
    uint32_t pid = (uint32_t)getpid();
    struct addr addr = addr_any(AF_INET, port);

    addr.u.v4.sin_addr.s_addr = htonl(0x7f010000 + (pid & 0x3fffff));
    return addr;
}

static struct addr numeric(const char *text)
{
    struct endpoint endpoint;

    cr_assert_null(endpoint_parse(text, &endpoint), "%s", text);
    cr_assert(endpoint.kind == ENDPOINT_ADDR, "%s", text);
    return endpoint.addr;
}

static struct addr loopback_v6(uint16_t port)
{
    struct addr addr = numeric("[::1]:1");

    addr_set_port(&addr, port);
    return addr;
}

/* An address nobody else uses, with the port left to the kernel; IPv6 has only one of them. */
static struct addr own_address(sa_family_t family)
{
    return family == AF_INET ? own_v4(0) : loopback_v6(0);
}

static const sa_family_t families[] = {AF_INET, AF_INET6};

/* How many of them this machine has: containers are often without IPv6. */
static size_t families_len(void)
{
    struct addr addr = loopback_v6(0);
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool both = fd >= 0 && bind(fd, &addr.u.any, addr.len) == 0;

    (void)close(fd);
    return both ? 2 : 1;
}

static struct addr address_of(int fd)
{
    struct addr addr;

    cr_assert(sock_local_address(fd, &addr) == 0);
    return addr;
}

static void assert_is(const struct addr *addr, const char *expected)
{
    char text[ADDR_TEXT_BYTES];

    addr_format(addr, text);
    cr_assert_str_eq(text, expected);
}

/* --- sockets --- */

static size_t count_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    cr_assert(dir != NULL);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(getsockopt(fd, level, name, &value, &len) == 0, "option %d: %s", name,
              strerror(errno));
    return value;
}

static void set_option(int fd, int level, int name, int value)
{
    cr_assert(setsockopt(fd, level, name, &value, sizeof(value)) == 0);
}

static void wait_for(int fd, short events)
{
    struct pollfd poller = {.fd = fd, .events = events};

    cr_assert(poll(&poller, 1, WAIT_MS) == 1, "nothing happened");
}

static int listen_on(const struct addr *addr)
{
    int fd = sock_listen_tcp(addr, &tuning, true);

    cr_assert(fd >= 0, "%s", strerror(-fd));
    return fd;
}

/* A socket as any other program would make it: none of ours is in it. */
static int strangers_socket(const struct addr *addr, int type)
{
    int fd = socket(addr->u.any.sa_family, type | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0);
    return fd;
}

static int strangers_listener(const struct addr *addr, int reuse_port)
{
    int fd = strangers_socket(addr, SOCK_STREAM);

    if (reuse_port != 0) {
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    cr_assert(bind(fd, &addr->u.any, addr->len) == 0, "%s", strerror(errno));
    cr_assert(listen(fd, 16) == 0);
    return fd;
}

/* A blocking client with a bound on its waits. */
static int connect_to(const struct addr *addr)
{
    int fd = strangers_socket(addr, SOCK_STREAM);
    struct timeval limit = {.tv_sec = WAIT_MS / 1000};

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    cr_assert(connect(fd, &addr->u.any, addr->len) == 0, "%s", strerror(errno));
    return fd;
}

static int accept_from(int listener)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    int fd;

    wait_for(listener, POLLIN);
    fd = sys_accept(listener, (struct sockaddr *)&peer, &len);
    cr_assert(fd >= 0, "%s", strerror(-fd));
    return fd;
}

struct pair {
    int listener;
    int accepted; /* ours: accepted from sock_listen_tcp() */
    int client;   /* blocking */
};

static struct pair connected_pair(sa_family_t family)
{
    struct addr addr = own_address(family);
    struct pair pair = {.listener = listen_on(&addr)};

    addr = address_of(pair.listener);
    pair.client = connect_to(&addr);
    pair.accepted = accept_from(pair.listener);
    return pair;
}

static void close_pair(struct pair *pair)
{
    (void)close(pair->listener);
    (void)close(pair->client);
}

/* --- options --- */

/* `tuned`: with the numbers of `tuning`, otherwise with none. */
static void assert_options(int fd, bool tuned, const char *what)
{
    struct linger linger = {0};
    socklen_t len = sizeof(linger);

    cr_assert(option(fd, IPPROTO_TCP, TCP_NODELAY) != 0, "%s", what);
    cr_assert(option(fd, SOL_SOCKET, SO_OOBINLINE) != 0, "%s", what);
    cr_assert((option(fd, SOL_SOCKET, SO_KEEPALIVE) != 0) == tuned, "%s", what);
    if (tuned) {
        cr_assert(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 61, "%s", what);
        cr_assert(option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 16, "%s", what);
    }
    cr_assert(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == (tuned ? 123456 : 0), "%s", what);
    cr_assert(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0, "%s", what);
    cr_assert(linger.l_onoff != 0, "%s", what);
    cr_assert(linger.l_linger == 0, "%s", what);
}

/* Accepting costs no setsockopt(2): what the listener has, its connections have. */
Test(sock, accepted_connections_inherit_every_option)
{
    for (size_t i = 0; i < families_len() * 2; i++) {
        bool tuned = i % 2 == 0;
        sa_family_t family = families[i / 2];
        struct addr addr = own_address(family);
        int listener = sock_listen_tcp(&addr, tuned ? &tuning : &no_tuning, true);
        int client;
        int accepted;

        cr_assert(listener >= 0);
        assert_options(listener, tuned, "listener");
        addr = address_of(listener);
        client = connect_to(&addr);
        accepted = accept_from(listener);
        assert_options(accepted, tuned, family == AF_INET ? "IPv4" : "IPv6");
        (void)close(accepted);
        (void)close(client);
        (void)close(listener);
    }
}

/* IPv4 connections of a dual-stack listener are no exception. */
Test(sock, accepted_connections_of_both_families_inherit_every_option)
{
    struct addr any = addr_any(AF_INET6, 0);
    struct addr to[2];
    int listener;

    if (families_len() < 2) {
        cr_skip_test("there is no IPv6 here");
    }
    listener = listen_on(&any);
    any = address_of(listener);
    to[0] = own_v4(addr_port(&any));
    to[1] = loopback_v6(addr_port(&any));
    for (size_t i = 0; i < ARRAY_LEN(to); i++) {
        int client = connect_to(&to[i]);
        int accepted = accept_from(listener);

        assert_options(accepted, true, i == 0 ? "IPv4" : "IPv6");
        (void)close(accepted);
        (void)close(client);
    }
    (void)close(listener);
}

/* The server's leg has the same options as the client's, once it is watched. */
Test(sock, new_sockets_have_every_option)
{
    for (size_t i = 0; i < families_len(); i++) {
        int fd = sock_new(families[i], NULL);

        cr_assert(fd >= 0);
        assert_options(fd, false, "new");
        cr_assert(sock_watch_peer(fd, &tuning) == 0);
        assert_options(fd, true, "watched");
        (void)close(fd);
    }
}

/* A unix socket has no options to tune, and is as non-blocking as the others. */
Test(sock, new_sockets_may_be_unix_sockets)
{
    int fd = sock_new(AF_UNIX, NULL);

    cr_assert(fd >= 0);
    cr_assert(option(fd, SOL_SOCKET, SO_DOMAIN) == AF_UNIX);
    cr_assert((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    (void)close(fd);
}

/* A number that the kernel does not take is reported, and the socket is not left behind. */
Test(sock, refused_options_are_reported_and_leak_nothing)
{
    static const struct sock_tuning bad[] = {
        {.keepalive_idle_s = 32768, .keepalive_interval_s = 1},
        {.keepalive_idle_s = 1, .keepalive_interval_s = 32768},
        {.user_timeout_ms = UINT32_MAX},
    };
    struct addr addr = own_v4(0);
    size_t before = count_open_fds();

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int fd = sock_new(AF_INET, NULL);

        cr_assert(sock_watch_peer(fd, &bad[i]) == -EINVAL, "row %zu", i);
        (void)close(fd);
        cr_assert(sock_listen_tcp(&addr, &bad[i], true) == -EINVAL, "row %zu", i);
    }
    cr_assert(count_open_fds() == before);
}

/* "0 switches a row off" (sock.h): an interval of 0 leaves the kernel's own. */
Test(sock, keepalive_interval_of_zero_is_left_to_the_kernel)
{
    static const struct sock_tuning only_idle = {.keepalive_idle_s = 61};
    int fd = sock_new(AF_INET, NULL);

    cr_assert(fd >= 0, "%s", strerror(-fd));
    cr_assert(sock_watch_peer(fd, &only_idle) == 0);
    cr_assert(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    cr_assert(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 61);
    cr_assert(option(fd, IPPROTO_TCP, TCP_KEEPINTVL) > 0);
    (void)close(fd);
}

/* An urgent byte stays in its place among the others. */
Test(sock, urgent_bytes_stay_in_the_stream)
{
    struct pair pair = connected_pair(AF_INET);
    char bytes[8] = "";

    cr_assert(send(pair.client, "ab", 2, 0) == 2);
    cr_assert(send(pair.client, "c", 1, MSG_OOB) == 1);
    cr_assert(send(pair.client, "de", 2, 0) == 2);
    for (size_t len = 0; len < 5;) {
        ssize_t result;

        wait_for(pair.accepted, POLLIN);
        result = recv(pair.accepted, bytes + len, sizeof(bytes) - 1 - len, 0);
        cr_assert(result > 0);
        len += (size_t)result;
    }
    cr_assert_str_eq(bytes, "abcde");
    (void)close(pair.accepted);
    close_pair(&pair);
}

/* Unix sockets have urgent bytes, too (Linux 5.15): ours keep them among the others, the server's leg
 * from the start and an accepted one when it is told. */
Test(sock, urgent_bytes_of_unix_sockets_stay_in_the_stream)
{
    int fds[2];
    int fd = sock_new(AF_UNIX, NULL);
    char bytes[8] = "";

    cr_assert(fd >= 0);
    cr_assert(option(fd, SOL_SOCKET, SO_OOBINLINE) != 0);
    (void)close(fd);
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    sock_keep_urgent_inline(fds[0]);
    cr_assert(send(fds[1], "a", 1, 0) == 1);
    if (send(fds[1], "b", 1, MSG_OOB) < 0) {
        cr_skip_test("this kernel has no urgent bytes on unix sockets");
    }
    cr_assert(send(fds[1], "c", 1, 0) == 1);
    for (size_t len = 0; len < 3;) {
        ssize_t result;

        wait_for(fds[0], POLLIN);
        result = recv(fds[0], bytes + len, sizeof(bytes) - 1 - len, 0);
        cr_assert(result > 0);
        len += (size_t)result;
    }
    cr_assert_str_eq(bytes, "abc");
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* --- how a connection ends --- */

enum end { END_RESET, END_FIN };

/* The next thing that the client sees must be this end. */
static void assert_ends(int client, enum end end, const char *what)
{
    char byte;
    ssize_t result = recv(client, &byte, 1, 0);

    if (end == END_RESET) {
        cr_assert(result < 0, "%s: a clean end was seen", what);
        cr_assert(errno == ECONNRESET, "%s: %s", what, strerror(errno));
    } else {
        cr_assert(result == 0, "%s: %s", what, result < 0 ? strerror(errno) : "a byte came");
    }
}

static const struct {
    const char *what;
    int calls;     /* of sock_reset_on_close(), alternately false and true */
    bool with_fin; /* our FIN was sent before */
    enum end end;
} ends[] = {
    {"as it is from the start", 0, false, END_RESET},
    {"made clean", 1, false, END_FIN},
    {"made clean and taken back", 2, false, END_RESET},
    {"made clean after our FIN", 1, true, END_FIN},
};

static void prepare_end(int fd, size_t row)
{
    for (int call = 0; call < ends[row].calls; call++) {
        sock_reset_on_close(fd, call % 2 != 0);
    }
    if (ends[row].with_fin) {
        cr_assert(shutdown(fd, SHUT_WR) == 0);
    }
}

/* Closing says what the session says: RST unless the end was declared clean. */
Test(sock, close_shows_a_reset_until_the_end_is_clean)
{
    for (size_t i = 0; i < ARRAY_LEN(ends) * families_len(); i++) {
        size_t row = i / families_len();
        struct pair pair = connected_pair(families[i % families_len()]);

        prepare_end(pair.accepted, row);
        sys_close(pair.accepted);
        assert_ends(pair.client, ends[row].end, ends[row].what);
        close_pair(&pair);
    }
}

/* The same for the leg to the server, which sock_new() makes. */
Test(sock, close_of_a_new_socket_shows_a_reset_until_the_end_is_clean)
{
    for (size_t row = 0; row < ARRAY_LEN(ends); row++) {
        struct addr addr = own_v4(0);
        int listener = strangers_listener(&addr, 0);
        int fd = sock_new(AF_INET, NULL);
        int result;
        int server;

        cr_assert(fd >= 0);
        addr = address_of(listener);
        result = sys_connect(fd, &addr.u.any, addr.len);
        cr_assert(result == 0 || result == -EINPROGRESS);
        wait_for(listener, POLLIN);
        server = accept(listener, NULL, NULL);
        cr_assert(server >= 0);
        prepare_end(fd, row);
        sys_close(fd);
        wait_for(server, POLLIN);
        assert_ends(server, ends[row].end, ends[row].what);
        (void)close(server);
        (void)close(listener);
    }
}

/* What was sent before a clean end arrives before it, however much lies in the send buffer. */
Test(sock, clean_close_delivers_what_was_sent)
{
    static char block[65536];
    struct pair pair = connected_pair(AF_INET);
    size_t sent = 0;
    size_t received = 0;
    ssize_t result;

    while ((result = sys_send(pair.accepted, block, sizeof(block), false)) > 0) {
        sent += (size_t)result;
    }
    cr_assert(result == -EAGAIN);
    sock_reset_on_close(pair.accepted, false);
    sys_close(pair.accepted);
    while ((result = recv(pair.client, block, sizeof(block), 0)) > 0) {
        received += (size_t)result;
    }
    cr_assert(result == 0, "%s", strerror(errno));
    cr_assert(received == sent, "%zu of %zu bytes", received, sent);
    close_pair(&pair);
}

/* The reason for {1, 0} from the start: a worker that is killed in the middle of a transfer never
 * looks like a clean end to its peers. The child holds the only copy of the connection. */
Test(sock, killed_process_shows_a_reset)
{
    for (size_t row = 0; row < ARRAY_LEN(ends); row++) {
        struct pair pair = connected_pair(AF_INET);
        char byte;
        int status;
        pid_t child;

        prepare_end(pair.accepted, row);
        child = fork();
        cr_assert(child >= 0);
        if (child == 0) {
            (void)send(pair.accepted, "x", 1, MSG_NOSIGNAL);
            for (;;) {
                (void)pause();
            }
        }
        (void)close(pair.accepted);
        if (!ends[row].with_fin) {
            /* It lives and has the connection: its byte arrives. */
            cr_assert(recv(pair.client, &byte, 1, 0) == 1);
        }
        cr_assert(kill(child, SIGKILL) == 0);
        cr_assert(waitpid(child, &status, 0) == child);
        cr_assert(WIFSIGNALED(status));
        assert_ends(pair.client, ends[row].end, ends[row].what);
        close_pair(&pair);
    }
}

/* Asking for it on something that is no TCP socket does no harm. */
Test(sock, reset_on_close_accepts_any_descriptor)
{
    int fd = sock_new(AF_UNIX, NULL);

    cr_assert(fd >= 0);
    sock_reset_on_close(fd, true);
    sock_reset_on_close(-1, true);
    (void)close(fd);
}

/* --- the local end --- */

/* A configured source is bound without a port, so that one port can serve several destinations: the
 * kernel picks it at connect. */
Test(sock, source_is_bound_without_a_port)
{
    for (size_t i = 0; i < families_len(); i++) {
        struct addr source = own_address(families[i]);
        struct addr to = own_address(families[i]);
        int listener = strangers_listener(&to, 0);
        int fd = sock_new(families[i], &source);
        struct addr local;
        int result;

        cr_assert(fd >= 0, "%s", strerror(-fd));
        cr_assert(option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) == 1);
        local = address_of(fd);
        cr_assert(addr_equal(&local, &source), "no port is taken yet");
        to = address_of(listener);
        result = sys_connect(fd, &to.u.any, to.len);
        cr_assert(result == 0 || result == -EINPROGRESS);
        local = address_of(fd);
        cr_assert(addr_port(&local) > 0);
        addr_set_port(&local, 0);
        cr_assert(addr_equal(&local, &source), "connected from elsewhere");
        (void)close(fd);
        (void)close(listener);
    }
}

/* The first port that the kernel may choose for a connection. */
static uint32_t lowest_local_port(void)
{
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    unsigned port;

    cr_assert(file != NULL);
    cr_assert(fscanf(file, "%u", &port) == 1);
    (void)fclose(file);
    return port;
}

/* What IP_BIND_ADDRESS_NO_PORT is for: two connections from one address and port, to two
 * destinations. The port range of these sockets is narrowed to one port. */
Test(sock, sources_share_a_port_between_destinations)
{
    enum { LOCAL_PORT_RANGE = 51 }; /* IP_LOCAL_PORT_RANGE, linux/in.h since 6.3 */
    struct addr source = own_v4(0);
    uint32_t port = lowest_local_port();
    uint32_t range = port << 16 | port;
    int fds[4];

    for (size_t i = 0; i < 2; i++) {
        struct addr to = own_v4(0);
        struct addr local;
        int result;

        fds[2 + i] = strangers_listener(&to, 0);
        to = address_of(fds[2 + i]);
        fds[i] = sock_new(AF_INET, &source);
        cr_assert(fds[i] >= 0);
        if (setsockopt(fds[i], IPPROTO_IP, LOCAL_PORT_RANGE, &range, sizeof(range)) < 0) {
            cr_skip_test("this kernel can't narrow the port range of one socket");
        }
        result = sys_connect(fds[i], &to.u.any, to.len);
        cr_assert(result == 0 || result == -EINPROGRESS, "%s", strerror(-result));
        local = address_of(fds[i]);
        cr_assert(addr_port(&local) == port);
    }
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        (void)close(fds[i]);
    }
}

/* A source of the other family has no say. */
Test(sock, source_of_another_family_is_ignored)
{
    static const char *const local[] = {"0.0.0.0:0", "[::]:0"};
    for (size_t i = 0; i < families_len(); i++) {
        struct addr source = own_address(families[1 - i]);
        int fd = sock_new(families[i], &source);
        struct addr addr;

        cr_assert(fd >= 0, "%s", strerror(-fd));
        cr_assert(option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) == 0);
        addr = address_of(fd);
        assert_is(&addr, local[i]);
        (void)close(fd);
    }
}

/* A source that this machine does not have is reported, and the socket is closed. */
Test(sock, foreign_source_is_reported)
{
    struct addr source = numeric("203.0.113.7:9");
    size_t before = count_open_fds();

    cr_assert(sock_new(AF_INET, &source) == -EADDRNOTAVAIL);
    cr_assert(count_open_fds() == before);
}

/* The local address of anything that is no socket is an error, and the result is not touched. */
Test(sock, local_address_reports_errors)
{
    struct addr addr = numeric("127.0.0.1:80");

    cr_assert(sock_local_address(-1, &addr) == -EBADF);
    assert_is(&addr, "127.0.0.1:80");
}

/* --- what a socket tells --- */

/* A failed connect is told once, as a positive errno, and gone then. */
Test(sock, take_error_tells_a_failed_connect_once)
{
    struct addr addr = own_v4(0);
    int closed = strangers_socket(&addr, SOCK_STREAM); /* bound, and nobody listens */
    int fd = sock_new(AF_INET, NULL);

    cr_assert(fd >= 0);
    cr_assert(sock_take_error(fd) == 0);
    cr_assert(bind(closed, &addr.u.any, addr.len) == 0);
    addr = address_of(closed);
    cr_assert(sys_connect(fd, &addr.u.any, addr.len) == -EINPROGRESS);
    wait_for(fd, POLLOUT);
    cr_assert(sock_take_error(fd) == ECONNREFUSED);
    cr_assert(sock_take_error(fd) == 0);
    cr_assert(sock_take_error(-1) == EBADF);
    (void)close(fd);
    (void)close(closed);
}

/* A connection has a round-trip time from its handshake on; nothing else has one. */
Test(sock, rtt_is_known_for_connections_only)
{
    struct pair pair = connected_pair(AF_INET);
    int fresh = sock_new(AF_INET, NULL);
    int local = sock_new(AF_UNIX, NULL);

    cr_assert(sock_rtt_us(pair.accepted) > 0);
    cr_assert(sock_rtt_us(pair.client) > 0);
    cr_assert(sock_rtt_us(pair.client) < 10 * 1000 * 1000);
    cr_assert(sock_rtt_us(fresh) == 0);
    cr_assert(sock_rtt_us(local) == 0);
    cr_assert(sock_rtt_us(-1) == 0);
    (void)close(fresh);
    (void)close(local);
    (void)close(pair.accepted);
    close_pair(&pair);
}
