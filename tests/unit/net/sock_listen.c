/* Tests of listening, the second half of the suite of net/sock: who may share a port with whom, what
 * becomes of a unix socket's path. Real sockets, on a loopback address of this process alone. */
#include "base/macros.h"
#include "net/sock.h"
#include "net/sys.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_MS = 10000 }; /* no wait is longer: a hang is a failure */

static const struct sock_tuning tuning = {
    .keepalive_idle_s = 61, .keepalive_interval_s = 16, .user_timeout_ms = 123456};

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

/* The IPv6 wildcard as `[::]:PORT` gives it: without IPv4. */
static struct addr v6_only_any(void)
{
    struct addr addr = addr_any(AF_INET6, 0);

    addr.dual_stack = false;
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

    if (addr->dual_stack) {
        set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    }
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

/* --- listening on TCP --- */

/* Who listens on our port already, and whether our first socket is refused: always, also when the
 * other one would share (SO_REUSEPORT), and when one of both is a wildcard. */
Test(sock, first_listener_refuses_a_port_that_is_in_use)
{
    enum where { OWN, ANY_V4, ANY_BOTH };
    static const struct {
        enum where other;
        enum where ours;
    } cases[] = {{OWN, OWN},       {OWN, ANY_V4},   {OWN, ANY_BOTH},     {ANY_V4, OWN},
                 {ANY_V4, ANY_V4}, {ANY_BOTH, OWN}, {ANY_BOTH, ANY_BOTH}};

    for (size_t i = 0; i < ARRAY_LEN(cases) * 2; i++) {
        struct addr wheres[] = {own_v4(0), addr_any(AF_INET, 0), addr_any(AF_INET6, 0)};
        struct addr other = wheres[cases[i / 2].other];
        struct addr ours = wheres[cases[i / 2].ours];
        int stranger;
        size_t before;

        if (families_len() < 2 && (other.dual_stack || ours.dual_stack)) {
            continue;
        }
        stranger = strangers_listener(&other, i % 2 == 0);
        before = count_open_fds();
        other = address_of(stranger);
        addr_set_port(&ours, addr_port(&other));
        cr_assert(sock_listen_tcp(&ours, &tuning, true) == -EADDRINUSE, "row %zu", i);
        cr_assert(count_open_fds() == before, "row %zu", i);
        (void)close(stranger);
    }
}

/* A second sluice is a stranger, too: its first socket does not join those of the first one. */
Test(sock, first_listener_refuses_the_port_of_another_sluice)
{
    struct addr addr = own_v4(0);
    int first = listen_on(&addr);
    int second;

    addr = address_of(first);
    second = sock_listen_tcp(&addr, &tuning, false);
    cr_assert(second >= 0);
    cr_assert(sock_listen_tcp(&addr, &tuning, true) == -EADDRINUSE);
    (void)close(first);
    cr_assert(sock_listen_tcp(&addr, &tuning, true) == -EADDRINUSE);
    (void)close(second);
    first = sock_listen_tcp(&addr, &tuning, true);
    cr_assert(first >= 0);
    (void)close(first);
}

/* The sockets of the other workers join the first, and the kernel gives connections to all of them:
 * of 200, each of three gets some (the chance that one gets none is below 10^-34). */
Test(sock, further_listeners_join_and_share_connections)
{
    enum { LISTENERS = 3, CLIENTS = 200 };
    for (size_t i = 0; i < families_len(); i++) {
        struct addr addr = own_address(families[i]);
        int listeners[LISTENERS];
        int clients[CLIENTS];
        size_t accepted = 0;

        listeners[0] = listen_on(&addr);
        addr = address_of(listeners[0]);
        for (size_t k = 1; k < LISTENERS; k++) {
            listeners[k] = sock_listen_tcp(&addr, &tuning, false);
            cr_assert(listeners[k] >= 0, "%s", strerror(-listeners[k]));
        }
        for (size_t k = 0; k < CLIENTS; k++) {
            clients[k] = connect_to(&addr);
        }
        for (size_t k = 0; k < LISTENERS; k++) {
            size_t own = 0;
            int fd;

            /* All are established, so all are in some queue. */
            while ((fd = accept(listeners[k], NULL, NULL)) >= 0) {
                own++;
                (void)close(fd);
            }
            cr_assert(errno == EAGAIN);
            cr_assert(own > 0, "listener %zu got none", k);
            accepted += own;
        }
        cr_assert(accepted == CLIENTS);
        for (size_t k = 0; k < CLIENTS; k++) {
            (void)close(clients[k]);
        }
        for (size_t k = 0; k < LISTENERS; k++) {
            (void)close(listeners[k]);
        }
    }
}

/* A restart gets its port back at once, whatever is left of the run before: connections in TIME_WAIT
 * (our end was closed first), and ones that are still open. A socket without our options does not. */
Test(sock, connections_of_an_earlier_run_do_not_keep_the_port)
{
    struct addr addr = own_v4(0);
    int listener = listen_on(&addr);
    int clients[2];
    int accepted[2];
    int fd;
    char byte;

    addr = address_of(listener);
    for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
        clients[i] = connect_to(&addr);
        accepted[i] = accept_from(listener);
        sock_reset_on_close(accepted[i], false);
    }
    (void)close(listener);
    sys_close(accepted[0]);
    cr_assert(recv(clients[0], &byte, 1, 0) == 0);
    (void)close(clients[0]);
    fd = strangers_socket(&addr, SOCK_STREAM);
    cr_assert(bind(fd, &addr.u.any, addr.len) < 0);
    cr_assert(errno == EADDRINUSE);
    (void)close(fd);
    fd = listen_on(&addr);
    cr_assert(send(clients[1], "x", 1, 0) == 1);
    wait_for(accepted[1], POLLIN);
    cr_assert(recv(accepted[1], &byte, 1, 0) == 1);
    (void)close(fd);
    (void)close(accepted[1]);
    (void)close(clients[1]);
}

/* `:PORT` is one socket for both families; an IPv4 client is shown as IPv4. */
Test(sock, dual_stack_listener_takes_both_families)
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
    cr_assert(option(listener, IPPROTO_IPV6, IPV6_V6ONLY) == 0);
    for (size_t i = 0; i < ARRAY_LEN(to); i++) {
        int client = connect_to(&to[i]);
        struct addr client_end = address_of(client);
        struct addr peer = {.len = sizeof(peer.u)};
        struct addr server_end;
        int accepted;

        wait_for(listener, POLLIN);
        accepted = sys_accept(listener, &peer.u.any, &peer.len);
        cr_assert(accepted >= 0);
        server_end = address_of(accepted);
        cr_assert(peer.u.any.sa_family == AF_INET6);
        cr_assert(addr_equal(&peer, &client_end));
        cr_assert(addr_equal(&server_end, &to[i]));
        cr_assert(addr_compact(&peer).family == (i == 0 ? AF_INET : AF_INET6));
        (void)close(accepted);
        (void)close(client);
    }
    (void)close(listener);
}

/* `[::]:PORT`, written out, means IPv6 and nothing else: IPv4 stays free for another listener. */
Test(sock, explicit_v6_wildcard_leaves_v4_alone)
{
    struct addr any = v6_only_any();
    struct addr v6;
    struct addr v4;
    int listener;
    int client;
    int fd;

    if (families_len() < 2) {
        cr_skip_test("there is no IPv6 here");
    }
    listener = listen_on(&any);
    any = address_of(listener);
    v6 = loopback_v6(addr_port(&any));
    v4 = own_v4(addr_port(&any));
    client = connect_to(&v6);
    fd = strangers_socket(&v4, SOCK_STREAM);
    cr_assert(option(listener, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
    cr_assert(connect(fd, &v4.u.any, v4.len) < 0);
    cr_assert(errno == ECONNREFUSED, "%s", strerror(errno));
    (void)close(fd);
    fd = listen_on(&v4);
    (void)close(fd);
    (void)close(client);
    (void)close(listener);
}

/* Addresses that can't be listened on give the kernel's reason and leave no descriptor. */
Test(sock, listening_reports_the_kernels_reason)
{
    struct addr foreign = numeric("203.0.113.7:9"); /* TEST-NET-3: nobody has it */
    size_t before = count_open_fds();

    cr_assert(sock_listen_tcp(&foreign, &tuning, true) == -EADDRNOTAVAIL);
    cr_assert(sock_listen_tcp(&foreign, &tuning, false) == -EADDRNOTAVAIL);
    cr_assert(count_open_fds() == before);
}

/* A listener of TCP needs an address of TCP: anything else is a bug of the caller. */
Test(sock, listen_tcp_aborts_on_a_unix_address, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct addr addr = numeric("unix:@x");
    int fd = sock_listen_tcp(&addr, &tuning, true);

    cr_assert(fd < 0);
}

/* And the other way round. */
Test(sock, listen_unix_aborts_on_a_tcp_address, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct addr addr = numeric("127.0.0.1:80");
    int fd = sock_listen_unix(&addr);

    cr_assert(fd < 0);
}

/* --- listening on unix sockets --- */

/* A directory of this test's own, removed with what is in it. */
static char directory[64];

static void make_directory(void)
{
    (void)snprintf(directory, sizeof(directory), "/tmp/sluice-sock-XXXXXX");
    cr_assert(mkdtemp(directory) != NULL, "%s", strerror(errno));
}

static void remove_directory(void)
{
    DIR *dir = opendir(directory);
    struct dirent *entry;

    cr_assert(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        (void)unlinkat(dirfd(dir), entry->d_name, 0); /* refuses . and .. */
        (void)unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
    }
    (void)closedir(dir);
    cr_assert(rmdir(directory) == 0);
}

static struct addr path_in_directory(const char *name)
{
    char text[128];

    (void)snprintf(text, sizeof(text), "unix:%s/%s", directory, name);
    return numeric(text);
}

static ino_t inode_of(const struct addr *addr)
{
    struct stat status;

    cr_assert(lstat(addr->u.local.sun_path, &status) == 0, "%s", strerror(errno));
    return status.st_ino;
}

static void assert_serves(int listener, const struct addr *addr)
{
    int client = connect_to(addr);
    int accepted = accept_from(listener);

    (void)close(accepted);
    (void)close(client);
}

/* A path that does not exist is made; clients of it arrive. */
Test(sock, listens_on_a_new_path, .init = make_directory, .fini = remove_directory)
{
    struct addr addr = path_in_directory("new");
    int fd = sock_listen_unix(&addr);

    cr_assert(fd >= 0, "%s", strerror(-fd));
    assert_serves(fd, &addr);
    (void)close(fd);
}

/* The file that a killed process left is taken over: there is nobody behind it. */
Test(sock, takes_over_a_path_with_nobody_behind_it, .init = make_directory,
     .fini = remove_directory)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};

    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct addr addr = path_in_directory("stale");
        int dead = strangers_socket(&addr, types[i]);
        int fd;

        cr_assert(bind(dead, &addr.u.any, addr.len) == 0);
        (void)close(dead);
        fd = sock_listen_unix(&addr);
        cr_assert(fd >= 0, "type %d: %s", types[i], strerror(-fd));
        assert_serves(fd, &addr);
        (void)close(fd);
        cr_assert(unlink(addr.u.local.sun_path) == 0);
    }
}

/* A living server keeps its path, and its clients do not notice that somebody asked: one with a
 * client, one whose queue is full, one of datagrams. */
Test(sock, leaves_a_living_server_its_path, .init = make_directory, .fini = remove_directory)
{
    struct addr addr = path_in_directory("live");
    int live = sock_listen_unix(&addr);
    struct addr full_addr = path_in_directory("full");
    int full = strangers_socket(&full_addr, SOCK_STREAM);
    struct addr datagram_addr = path_in_directory("datagram");
    int datagram = strangers_socket(&datagram_addr, SOCK_DGRAM);
    const struct addr *const addrs[] = {&addr, &full_addr, &datagram_addr};
    int waiting[8];

    cr_assert(live >= 0);
    cr_assert(bind(full, &full_addr.u.any, full_addr.len) == 0);
    cr_assert(listen(full, 0) == 0);
    cr_assert(bind(datagram, &datagram_addr.u.any, datagram_addr.len) == 0);
    for (size_t i = 0; i < ARRAY_LEN(waiting); i++) {
        int result;

        waiting[i] = sys_socket(AF_UNIX);
        result = sys_connect(waiting[i], &full_addr.u.any, full_addr.len);
        cr_assert(result == 0 || result == -EAGAIN);
        cr_assert(result == -EAGAIN || i + 1 < ARRAY_LEN(waiting), "the queue is never full");
    }
    for (size_t i = 0; i < ARRAY_LEN(addrs); i++) {
        ino_t inode = inode_of(addrs[i]);
        size_t before = count_open_fds();

        cr_assert(sock_listen_unix(addrs[i]) == -EADDRINUSE, "row %zu", i);
        cr_assert(inode_of(addrs[i]) == inode, "row %zu", i);
        cr_assert(count_open_fds() == before, "row %zu", i);
    }
    for (size_t i = 0; i < ARRAY_LEN(waiting); i++) {
        (void)close(waiting[i]);
    }
    /* The look at it counts as a client that hung up at once; the next one is served. */
    (void)close(accept_from(live));
    assert_serves(live, &addr);
    (void)close(live);
    (void)close(full);
    (void)close(datagram);
}

/* Whatever else stands at the path is refused and stays what it is, links included. */
Test(sock, never_touches_what_is_no_socket, .init = make_directory, .fini = remove_directory)
{
    static const char *const names[] = {"file", "directory", "fifo", "dangling", "link-to-socket"};
    struct addr live_addr = path_in_directory("live");
    int live = sock_listen_unix(&live_addr);
    char content[16] = "";
    int fd;

    cr_assert(live >= 0);
    cr_assert(chdir(directory) == 0);
    fd = open("file", O_CREAT | O_EXCL | O_WRONLY, 0600);
    cr_assert(fd >= 0);
    cr_assert(write(fd, "precious", 8) == 8);
    (void)close(fd);
    cr_assert(mkdir("directory", 0700) == 0);
    cr_assert(mkfifo("fifo", 0600) == 0);
    cr_assert(symlink("nowhere", "dangling") == 0);
    cr_assert(symlink("live", "link-to-socket") == 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct addr addr = path_in_directory(names[i]);
        ino_t inode = inode_of(&addr);

        cr_assert(sock_listen_unix(&addr) == -ENOTSOCK, "%s", names[i]);
        cr_assert(inode_of(&addr) == inode, "%s", names[i]);
    }
    fd = open("file", O_RDONLY);
    cr_assert(read(fd, content, sizeof(content) - 1) == 8);
    cr_assert_str_eq(content, "precious");
    (void)close(fd);
    assert_serves(live, &live_addr);
    (void)close(live);
    cr_assert(chdir("/") == 0);
}

/* A path that can't be made gives the kernel's reason and leaves no descriptor. */
Test(sock, listening_on_a_path_reports_the_kernels_reason, .init = make_directory,
     .fini = remove_directory)
{
    struct addr no_directory = path_in_directory("missing/x");
    struct addr file = path_in_directory("file");
    struct addr below_file = path_in_directory("file/x");
    size_t before;
    int fd = open(file.u.local.sun_path, O_CREAT | O_EXCL | O_WRONLY, 0600);

    cr_assert(fd >= 0);
    (void)close(fd);
    before = count_open_fds();
    cr_assert(sock_listen_unix(&no_directory) == -ENOENT);
    cr_assert(sock_listen_unix(&below_file) == -ENOTDIR);
    cr_assert(count_open_fds() == before);
}

/* An abstract name belongs to one listener at a time, has no file, and is free when that is closed. */
Test(sock, abstract_names_belong_to_one_listener)
{
    char text[64];
    struct addr addr;
    int fd;

    (void)snprintf(text, sizeof(text), "unix:@sluice-sock-%d", (int)getpid());
    addr = numeric(text);
    fd = sock_listen_unix(&addr);
    cr_assert(fd >= 0);
    assert_serves(fd, &addr);
    cr_assert(sock_listen_unix(&addr) == -EADDRINUSE);
    (void)close(fd);
    fd = sock_listen_unix(&addr);
    cr_assert(fd >= 0);
    (void)close(fd);
}
