/* What an accepted connection is like: the socket options that both of its legs must have, read from
 * the worker's own descriptors (pidfd_getfd(2)), and what one of them is for: urgent bytes. */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"
#include "support/stream.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum { KIB = 1024, MIB = 1024 * KIB, CONNECTIONS = 3, WATCHED_WITHIN_MS = 5000, POLL_MS = 20 };

/* --- the options of both legs --- */

struct expectation {
    char option[32]; /* one option of sluice and its value; "": none */
    char value[16];
    int keepalive;
    int keepalive_idle_s; /* looked at only with keepalive */
    int keepalive_interval_s;
    int user_timeout_ms;
};

static int get_int(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(getsockopt(fd, level, name, &value, &len) == 0, "getsockopt: %s", strerror(errno));
    return value;
}

static uint16_t port_of(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6) {
        return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    }
    return address->ss_family == AF_INET ? ntohs(((const struct sockaddr_in *)address)->sin_port)
                                         : 0;
}

/* Whether `fd` is one of the two legs: a connected socket whose near end has the listener's port or
 * whose far end has the origin's. */
static bool is_leg(int fd, uint16_t listen_port, uint16_t origin_port)
{
    struct sockaddr_storage near_end;
    struct sockaddr_storage far_end;
    socklen_t near_len = sizeof(near_end);
    socklen_t far_len = sizeof(far_end);

    if (getsockname(fd, (struct sockaddr *)&near_end, &near_len) < 0 ||
        getpeername(fd, (struct sockaddr *)&far_end, &far_len) < 0) {
        return false;
    }
    return port_of(&near_end) == listen_port || port_of(&far_end) == origin_port;
}

static bool is_watched(int fd, const struct expectation *expected)
{
    return get_int(fd, SOL_SOCKET, SO_KEEPALIVE) == expected->keepalive &&
           (expected->keepalive == 0 ||
            (get_int(fd, IPPROTO_TCP, TCP_KEEPIDLE) == expected->keepalive_idle_s &&
             get_int(fd, IPPROTO_TCP, TCP_KEEPINTVL) == expected->keepalive_interval_s)) &&
           get_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == expected->user_timeout_ms;
}

/* On the server's leg keepalive and user timeout are set when the connection has lasted for a second,
 * and no event tells. */
static void expect_leg(int fd, const struct expectation *expected)
{
    struct linger linger;
    socklen_t len = sizeof(linger);

    cr_assert(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0);
    cr_assert(linger.l_onoff != 0 && linger.l_linger == 0, "close(2) would send FIN");
    cr_assert(get_int(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
    cr_assert(get_int(fd, SOL_SOCKET, SO_OOBINLINE) == 1);
    for (int waited_ms = 0; !is_watched(fd, expected) && waited_ms < WATCHED_WITHIN_MS;
         waited_ms += POLL_MS) {
        (void)usleep(POLL_MS * 1000);
    }
    cr_assert(is_watched(fd, expected));
    cr_assert((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
}

/* FD_CLOEXEC belongs to the descriptor and not to the open file, so only /proc knows it. */
static void expect_close_on_exec(pid_t worker, const char *fd_text)
{
    char path[320];
    char line[128];
    unsigned long flags = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", worker, fd_text);
    file = fopen(path, "re");
    cr_assert(file != NULL);
    while (fgets(line, sizeof(line), file) != NULL) {
        (void)sscanf(line, "flags: %lo", &flags);
    }
    (void)fclose(file);
    cr_assert((flags & O_CLOEXEC) != 0, "descriptor %s would survive execve(2)", fd_text);
}

/* Checks every leg that the worker has, and returns their number. */
static size_t expect_legs(pid_t worker, uint16_t listen_port, uint16_t origin_port,
                          const struct expectation *expected)
{
    int pidfd = (int)syscall(SYS_pidfd_open, worker, 0);
    struct dirent *entry;
    size_t count = 0;
    char path[64];
    DIR *directory;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", worker);
    directory = opendir(path);
    cr_assert(pidfd >= 0 && directory != NULL);
    while ((entry = readdir(directory)) != NULL) {
        int fd;

        if (entry->d_name[0] == '.') {
            continue;
        }
        fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);
        if (fd < 0 && errno == EPERM) {
            cr_skip_test("needs the right to look into the worker (pidfd_getfd)");
        }
        if (fd >= 0 && is_leg(fd, listen_port, origin_port)) {
            expect_leg(fd, expected);
            expect_close_on_exec(worker, entry->d_name);
            count++;
        }
        (void)close(fd);
    }
    (void)closedir(directory);
    (void)close(pidfd);
    return count;
}

ParameterizedTestParameters(accept_options, are_set_on_both_legs)
{
    static struct expectation rows[] = {
        {"", "", 1, 60, 15, 900000},
        {"--keepalive-idle", "7s", 1, 7, 15, 900000},
        {"--keepalive-interval", "3s", 1, 60, 3, 900000},
        {"--keepalive-idle", "off", 0, 0, 0, 900000},
        {"--user-timeout", "1500ms", 1, 60, 15, 1500},
        {"--user-timeout", "off", 1, 60, 15, 0},
    };

    return cr_make_param_array(struct expectation, rows, COUNT_OF(rows));
}

/* Accepted sockets are never configured, they inherit from the listening one; server sockets are made
 * ahead of time. So the options of both legs are looked up in the worker, for the first connection and
 * for later ones, over IPv4 and IPv6. */
ParameterizedTest(struct expectation *row, accept_options, are_set_on_both_legs)
{
    uint16_t v6_port = (uint16_t)(30000 + getpid() % 2700);
    const char *arguments[6] = {NULL};
    int pairs[2 * CONNECTIONS][2];
    pid_t worker;
    char v6_argument[64];
    struct proxy proxy;
    size_t count = 0;
    int listen_fd;

    proxy_init(&proxy);
    (void)snprintf(v6_argument, sizeof(v6_argument), "[::1]:%u=%s:%d", v6_port, proxy.ip,
                   ORIGIN_PORT);
    arguments[count++] = proxy.arg;
    arguments[count++] = v6_argument;
    if (row->option[0] != '\0') {
        arguments[count++] = row->option;
        arguments[count++] = row->value;
    }
    listen_fd = peer_listen(proxy.ip, ORIGIN_PORT, 16);
    proxy_start(&proxy, arguments);
    worker = only_worker(&proxy);
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        pairs[i][0] =
            i < CONNECTIONS ? peer_connect(proxy.ip, PROXY_PORT) : peer_connect("::1", v6_port);
        pairs[i][1] = peer_accept(listen_fd);
        peer_send(pairs[i][0], 1, 0, 1); /* a byte through it: both legs are settled */
        peer_expect(pairs[i][1], 1, 0, 1);
    }
    /* Each time the client legs of one listener, and the server legs of both. */
    cr_assert(expect_legs(worker, PROXY_PORT, ORIGIN_PORT, row) == 3 * CONNECTIONS);
    cr_assert(expect_legs(worker, v6_port, ORIGIN_PORT, row) == 3 * CONNECTIONS);
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        peer_close(pairs[i][0]);
        peer_close(pairs[i][1]);
    }
    peer_close(listen_fd);
    proxy_finish(&proxy, COUNT_OF(pairs));
}

/* B59: a v4-mapped address is the IPv4 address, for listening as everywhere else. */
Test(accept_options, take_a_v4_mapped_address_for_ipv4)
{
    struct proxy proxy;
    char argument[96];
    int client;
    int server;
    int listen_fd;

    proxy_init(&proxy);
    (void)snprintf(argument, sizeof(argument), "[::ffff:%s]:%d=%s:%d", proxy.ip, PROXY_PORT,
                   proxy.ip, ORIGIN_PORT);
    listen_fd = peer_listen(proxy.ip, ORIGIN_PORT, 16);
    proxy_start(&proxy, (const char *const[]){argument, NULL});
    client = peer_connect(proxy.ip, PROXY_PORT);
    server = peer_accept(listen_fd);
    peer_send(client, 1, 0, 1000);
    peer_expect(server, 1, 0, 1000);
    peer_close(client);
    peer_close(server);
    peer_close(listen_fd);
    proxy_finish(&proxy, 1);
}

/* --- an urgent byte --- */

static int start_with_mode(struct proxy *proxy, const char *mode)
{
    const char *options[] = {"--splice", mode, NULL};

    proxy_init(proxy);
    proxy_start_simple(proxy, options);
    return peer_listen(proxy->ip, ORIGIN_PORT, 128);
}

static void join_receiving(struct peer_task *task, uint64_t len)
{
    peer_join(task);
    cr_assert(task->len == len, "%" PRIu64 " of %" PRIu64 " bytes came", task->len, len);
    cr_assert(task->end == PEER_FIN, "a reset instead of FIN");
}

static void send_urgent_byte(int fd, uint64_t key, uint64_t offset)
{
    unsigned char byte;

    stream_fill(key, offset, &byte, 1);
    cr_assert(send(fd, &byte, 1, MSG_OOB | MSG_NOSIGNAL) == 1, "urgent: %s", strerror(errno));
}

/* Sends pieces of these sizes with an urgent byte behind each, then FIN. Returns the length of all. */
static uint64_t send_with_urgent_bytes(int fd, uint64_t key)
{
    static const uint64_t pieces[] = {0, 1, 5000, 65536, 300 * KIB, 0, 3, 65535, 4 * KIB};
    uint64_t offset = 0;

    for (size_t i = 0; i < COUNT_OF(pieces); i++) {
        peer_send(fd, key, offset, pieces[i]);
        offset += pieces[i];
        send_urgent_byte(fd, key, offset);
        offset++;
    }
    peer_shut(fd);
    return offset;
}

static void expect_urgent_bytes_in_place(int from, int to, uint64_t key, bool reader_is_late)
{
    struct peer_task receiving = {.fd = to, .key = key, .to_end = true};
    uint64_t len;

    if (!reader_is_late) {
        peer_start_receiving(&receiving);
    }
    len = send_with_urgent_bytes(from, key);
    if (reader_is_late) {
        peer_start_receiving(&receiving);
    }
    join_receiving(&receiving, len);
}

/* Urgent bytes (MSG_OOB) are part of the stream and arrive in their place, in every splice mode, both
 * directions: at the start, inside bulk, twice in a row, and as the last byte before FIN; with a
 * reader that reads, and with one that comes when all was sent. Splice alone would stop before one. */
Test(accept_options, keep_urgent_bytes_in_their_place)
{
    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);

        for (int late = 0; late < 2; late++) {
            struct pair pair = pair_open(&proxy, listen_fd);

            expect_urgent_bytes_in_place(pair.client, pair.server, 11, late == 1);
            expect_urgent_bytes_in_place(pair.server, pair.client, 12, late == 1);
            pair_close(&pair);
        }
        peer_close(listen_fd);
        proxy_finish(&proxy, 2);
    }
}

/* The same when the urgent byte comes in the middle of a transfer that is spliced already: the first
 * half is held back by a slow reader, so that bytes are in the pipe when the urgent one arrives. */
Test(accept_options, keep_an_urgent_byte_in_place_behind_a_full_pipe)
{
    enum { HALF = 8 * MIB };

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);
        struct pair pair = pair_open(&proxy, listen_fd);
        struct peer_task receiving = {
            .fd = pair.server, .key = 21, .to_end = true, .chunk_max = 256 * KIB, .pause_us = 1000};

        peer_start_receiving(&receiving);
        peer_send(pair.client, 21, 0, HALF);
        send_urgent_byte(pair.client, 21, HALF);
        peer_send(pair.client, 21, HALF + 1, HALF);
        peer_shut(pair.client);
        join_receiving(&receiving, 2 * HALF + 1);
        pair_close(&pair);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}
