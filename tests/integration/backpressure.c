/* A reader that is slow, stops, or never begins: the sender feels it, memory stays bounded, nobody
 * spins, nothing else suffers, and when reading goes on no byte is missing.
 *
 * A wake-up that gets lost shows here as a transfer that stands still, which the peers' time-outs
 * turn into a failure. */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"
#include "support/stream.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum {
    KIB = 1024,
    MIB = 1024 * KIB,
    SMALL_BYTES = 32 * KIB, /* a receive buffer that is full soon */
    SILENCE_MS = 200        /* a stream that does not move for so long has stopped */
};

static int start_with_mode(struct proxy *proxy, const char *mode)
{
    const char *options[] = {"--splice", mode, NULL};

    proxy_init(proxy);
    proxy_start_simple(proxy, options);
    return peer_listen(proxy->ip, ORIGIN_PORT, 1024);
}

/* A pair of which both peers have small receive buffers. Send buffers stay as they are: one that
 * holds a single segment of the loopback's 64 KiB waits 40 ms for each delayed acknowledgement. */
static struct pair open_small_pair(const struct proxy *proxy, int listen_fd)
{
    int small = SMALL_BYTES;
    struct pair pair;

    cr_assert(setsockopt(listen_fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
    pair.client = peer_connect_small(proxy->ip, PROXY_PORT, SMALL_BYTES, 4 * MIB);
    pair.server = peer_accept(listen_fd);
    return pair;
}

static uint64_t now_us(void)
{
    struct timespec now;

    cr_assert(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static bool is_writable(int fd, int wait_ms)
{
    struct pollfd poller = {.fd = fd, .events = POLLOUT};

    return poll(&poller, 1, wait_ms) == 1;
}

/* Sends what the socket takes without waiting, at most `len` bytes; returns how many. */
static uint64_t send_what_fits(int fd, uint64_t key, uint64_t offset, uint64_t len)
{
    unsigned char bytes[16 * KIB];
    uint64_t done = 0;

    while (done < len) {
        size_t size = len - done < sizeof(bytes) ? (size_t)(len - done) : sizeof(bytes);
        ssize_t result;

        stream_fill(key, offset + done, bytes, size);
        result = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (result < 0) {
            cr_assert(errno == EAGAIN, "send: %s", strerror(errno));
            break;
        }
        done += (uint64_t)result;
    }
    return done;
}

/* Sends until nothing is taken any more; returns how many bytes were. */
static uint64_t send_until_blocked(int fd, uint64_t key)
{
    uint64_t done = 0;

    while (is_writable(fd, SILENCE_MS)) {
        cr_assert(done < 256 * MIB, "sluice takes bytes without end that nobody reads");
        done += send_what_fits(fd, key, done, MIB);
    }
    return done;
}

static void expect_no_cpu(const struct proxy *proxy, unsigned wait_ms, uint64_t max_ms)
{
    uint64_t before = proxy_cpu_ms(proxy);
    uint64_t used;

    (void)usleep(wait_ms * 1000);
    used = proxy_cpu_ms(proxy) - before;
    cr_assert(used < max_ms, "%" PRIu64 " ms of CPU in %u ms with everything blocked", used,
              wait_ms);
}

/* --- readers that never read --- */

enum { STUCK = 200 };

/* A client with a small window and small segments: the latter keep the send buffer of the proxy's
 * socket small, so that 200 of them do not need a GB of the kernel's memory. */
static int connect_stuck(const struct proxy *proxy)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PROXY_PORT)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int small = 4608;
    int segment = 536;

    cr_assert(fd >= 0 && inet_pton(AF_INET, proxy->ip, &address.sin_addr) == 1);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof(segment)) == 0);
    cr_assert(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

/* Lets all servers send until none can for SILENCE_MS; returns the bytes taken. */
static uint64_t block_servers(const struct pair pairs[STUCK])
{
    uint64_t sent[STUCK] = {0};
    uint64_t total = 0;
    uint64_t last_us = now_us();

    while (now_us() - last_us < SILENCE_MS * 1000) {
        for (size_t i = 0; i < STUCK; i++) {
            uint64_t len = send_what_fits(pairs[i].server, i, sent[i], 256 * KIB);

            sent[i] += len;
            total += len;
            last_us = len > 0 ? now_us() : last_us;
            cr_assert(sent[i] < 64 * MIB, "sluice takes bytes without end that nobody reads");
        }
        (void)usleep(1000);
    }
    return total;
}

static void expect_service(const struct proxy *proxy, int listen_fd)
{
    struct pair pair = pair_open(proxy, listen_fd);

    pair_exchange(&pair, 7);
    pair_close(&pair);
}

static void run_stuck_readers(const char *mode)
{
    /* One buffer of 64 KiB per blocked direction, a record, and some room for everything else. */
    const uint64_t bound_kib = STUCK * (64 + 1) + 8 * KIB;
    struct proxy proxy;
    int listen_fd = start_with_mode(&proxy, mode);
    struct pair pairs[STUCK];
    uint64_t before_kib = proxy_pss_kib(&proxy);
    int small = SMALL_BYTES;
    uint64_t used_kib;

    /* Servers block soon as well. */
    cr_assert(setsockopt(listen_fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
    for (size_t i = 0; i < STUCK; i++) {
        pairs[i].client = connect_stuck(&proxy);
        pairs[i].server = peer_accept(listen_fd);
    }
    cr_assert(block_servers(pairs) > STUCK * (uint64_t)SMALL_BYTES);
    used_kib = proxy_pss_kib(&proxy) - before_kib;
    cr_assert(used_kib <= bound_kib, "%" PRIu64 " KiB for %d connections", used_kib, STUCK);
    expect_no_cpu(&proxy, 500, 60);
    for (size_t i = 0; i < STUCK; i++) {
        cr_assert(!is_writable(pairs[i].server, 0), "server %zu is not blocked", i);
    }
    expect_service(&proxy, listen_fd);
    for (size_t i = 0; i < STUCK; i++) {
        peer_close(pairs[i].client); /* with unread bytes: a reset */
    }
    proxy_wait_event(&proxy, "close", STUCK + 1);
    for (size_t i = 0; i < STUCK; i++) {
        proxy_expect_field(&proxy, "close", i + 1, "reason", "client-reset");
        cr_assert(proxy_number(&proxy, "close", i + 1, "undelivered_bytes") > 0);
        peer_close(pairs[i].server);
    }
    peer_close(listen_fd);
    proxy_finish(&proxy, STUCK + 1);
}

/* BP-01: 200 clients that never read, before servers that send for ever: the servers are blocked,
 * the worker's memory stays below 64 KiB and a record per connection, it uses no CPU, it serves
 * others, and when the clients go away nothing is left. */
Test(backpressure, holds_a_bounded_number_of_bytes_for_readers_that_never_read)
{
    for (size_t i = 0; i < SPLICE_MODES; i++) {
        run_stuck_readers(splice_names[i]);
    }
}

/* --- slow readers and the idle timer --- */

enum { SLOW_LEN = 512 * KIB };

static struct pair open_slow_pair(struct proxy *proxy, int listen_fd)
{
    struct pair pair;

    pair.client = peer_connect_small(proxy->ip, PROXY_PORT, SMALL_BYTES, SMALL_BYTES);
    pair.server = peer_accept(listen_fd);
    /* All of it fits into the proxy's send buffer: from here on the proxy sees no event at all. */
    peer_send(pair.server, 9, 0, SLOW_LEN);
    return pair;
}

static int start_with_idle_timeout(struct proxy *proxy)
{
    const char *options[] = {"--idle-timeout", "1s", NULL};

    proxy_init(proxy);
    proxy_start_simple(proxy, options);
    return peer_listen(proxy->ip, ORIGIN_PORT, 16);
}

/* BP-02, B48: a reader that takes 16 KiB each 200 ms from what the kernel holds for it makes
 * progress that is no event for the proxy. With an idle-timeout of 1 s it is served for 6 s, to the
 * last byte; only then, with nothing left to acknowledge, the connection is idle. */
Test(backpressure, does_not_take_a_slow_reader_for_an_idle_one)
{
    enum { PIECE = 16 * KIB };
    struct proxy proxy;
    int listen_fd = start_with_idle_timeout(&proxy);
    struct pair pair = open_slow_pair(&proxy, listen_fd);
    char duration[PROXY_FIELD_BYTES];

    for (uint64_t offset = 0; offset < SLOW_LEN; offset += PIECE) {
        peer_expect(pair.client, 9, offset, PIECE);
        (void)usleep(200 * 1000);
    }
    proxy_wait_event(&proxy, "close", 1);
    proxy_expect_field(&proxy, "close", 0, "reason", "idle-timeout");
    cr_assert(proxy_number(&proxy, "close", 0, "bytes_down") == SLOW_LEN);
    cr_assert(proxy_number(&proxy, "close", 0, "undelivered_bytes") == 0);
    proxy_field(&proxy, "close", 0, "duration_s", duration);
    cr_assert(strtod(duration, NULL) > 6.0, "ended after %s s", duration);
    pair_close(&pair);
    peer_close(listen_fd);
    proxy_finish(&proxy, 1);
}

/* The other side of it: a reader that has stopped is idle, after at most twice the idle-timeout,
 * and the server is told by a reset. */
Test(backpressure, takes_a_reader_that_has_stopped_for_an_idle_one)
{
    struct proxy proxy;
    int listen_fd = start_with_idle_timeout(&proxy);
    struct pair pair = open_slow_pair(&proxy, listen_fd);
    char duration[PROXY_FIELD_BYTES];

    peer_expect_end(pair.server, PEER_RESET);
    proxy_wait_event(&proxy, "close", 1);
    proxy_expect_field(&proxy, "close", 0, "reason", "idle-timeout");
    cr_assert(proxy_number(&proxy, "close", 0, "undelivered_bytes") > 0);
    proxy_field(&proxy, "close", 0, "duration_s", duration);
    cr_assert(strtod(duration, NULL) >= 1.0 && strtod(duration, NULL) < 4.0, "ended after %s s",
              duration);
    pair_close(&pair);
    peer_close(listen_fd);
    proxy_finish(&proxy, 1);
}

/* --- fairness --- */

struct elephant {
    int source;
    int target;
    atomic_bool stop;
    atomic_ullong received;
};

static void *elephant_send_thread(void *argument)
{
    static const unsigned char bytes[256 * KIB];
    struct elephant *elephant = argument;

    while (!atomic_load(&elephant->stop) &&
           send(elephant->source, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0) {}
    (void)shutdown(elephant->source, SHUT_WR);
    return NULL;
}

static void *elephant_receive_thread(void *argument)
{
    struct elephant *elephant = argument;
    ssize_t len;

    /* tcp(7): MSG_TRUNC throws the bytes away without copying them. */
    while ((len = recv(elephant->target, NULL, MIB, MSG_TRUNC)) > 0) {
        (void)atomic_fetch_add(&elephant->received, (unsigned long long)len);
    }
    return NULL;
}

enum { MICE = 200, MOUSE_BYTES = 100 };

/* All mice ask at once, are answered, and read the answer. */
static void run_round(const struct pair mice[MICE], uint64_t offset)
{
    for (size_t i = 0; i < MICE; i++) {
        peer_send(mice[i].client, i, offset, MOUSE_BYTES);
    }
    for (size_t i = 0; i < MICE; i++) {
        peer_expect(mice[i].server, i, offset, MOUSE_BYTES);
        peer_send(mice[i].server, i + MICE, offset, MOUSE_BYTES);
    }
    for (size_t i = 0; i < MICE; i++) {
        peer_expect(mice[i].client, i + MICE, offset, MOUSE_BYTES);
    }
}

/* Waits until the elephant has got further than `before`, for ten seconds. */
static void wait_for_elephant(struct elephant *elephant, unsigned long long before)
{
    for (int waited_ms = 0; atomic_load(&elephant->received) <= before; waited_ms++) {
        cr_assert(waited_ms < 10000, "the elephant stands still");
        (void)usleep(1000);
    }
}

static void run_mice(const char *mode)
{
    struct pair mice[MICE];
    struct proxy proxy;
    int listen_fd = start_with_mode(&proxy, mode);
    struct pair large = pair_open(&proxy, listen_fd);
    struct elephant elephant = {.source = large.server, .target = large.client};
    pthread_t threads[2];

    for (size_t i = 0; i < MICE; i++) {
        mice[i] = pair_open(&proxy, listen_fd);
    }
    cr_assert(pthread_create(&threads[0], NULL, elephant_send_thread, &elephant) == 0);
    cr_assert(pthread_create(&threads[1], NULL, elephant_receive_thread, &elephant) == 0);
    for (uint64_t round = 0; round < 10; round++) {
        wait_for_elephant(&elephant, atomic_load(&elephant.received));
        run_round(mice, round * MOUSE_BYTES);
    }
    wait_for_elephant(&elephant, atomic_load(&elephant.received));
    atomic_store(&elephant.stop, true);
    cr_assert(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
    for (size_t i = 0; i < MICE; i++) {
        pair_close(&mice[i]);
    }
    pair_close(&large);
    peer_close(listen_fd);
    proxy_finish(&proxy, MICE + 1);
}

/* BP-04, B13: one connection at full speed and 200 that ask and answer 100 bytes, on one worker:
 * every question is answered while the large transfer goes on, in ten rounds. Without a budget the
 * large one would be served until it ends, which it does only after the rounds. */
Test(backpressure, lets_small_messages_past_a_large_transfer)
{
    for (size_t i = 0; i < SPLICE_MODES; i++) {
        run_mice(splice_names[i]);
    }
}

/* --- wake-ups that must not be lost --- */

static void send_and_expect(int from, int to, uint64_t key, uint64_t offset, uint64_t len)
{
    struct peer_task sending = {.fd = from, .key = key, .offset = offset, .len = len};

    peer_start_sending(&sending);
    peer_expect(to, key, offset, len);
    peer_join(&sending);
}

/* BP-05, B13, B01: transfers that end exactly at a limit of the implementation (k buffers of 64
 * KiB, pipes of 1 MiB, budgets of 512 KiB), or one byte beside it, and then silence: no FIN and
 * no other event comes to help, and every byte arrives. On a fresh connection each, and all on
 * one. */
Test(backpressure, leaves_no_byte_behind_when_a_transfer_ends_at_a_limit)
{
    static const uint64_t steps[] = {1, 2, 3, 4, 8, 12, 16, 24, 32};
    const size_t count = 3 * COUNT_OF(steps);

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);
        struct pair lasting = pair_open(&proxy, listen_fd);
        uint64_t offset = 0;

        for (size_t j = 0; j < count; j++) {
            uint64_t len = steps[j / 3] * 64 * KIB + j % 3 - 1;
            struct pair fresh = pair_open(&proxy, listen_fd);

            send_and_expect(fresh.client, fresh.server, j, 0, len);
            send_and_expect(fresh.server, fresh.client, j + count, 0, len);
            pair_close(&fresh);
            send_and_expect(lasting.client, lasting.server, 1000, offset, len);
            send_and_expect(lasting.server, lasting.client, 1001, offset, len);
            offset += len;
        }
        pair_close(&lasting);
        peer_close(listen_fd);
        proxy_finish(&proxy, count + 1);
    }
}

/* Waits until the kernel at the other end has taken all that was sent, or takes no more for 50
 * ms. */
static void wait_until_taken(int fd)
{
    int last = -1;

    for (int same_ms = 0; last != 0 && same_ms < 50; same_ms += 5) {
        int queued = 0;

        cr_assert(ioctl(fd, SIOCOUTQ, &queued) == 0);
        same_ms = queued == last ? same_ms : 0;
        last = queued;
        (void)usleep(5000);
    }
}

/* BP-05 again, with all bytes there before the first is looked at: the worker is stopped while they
 * arrive, so it gets one event for several budgets' worth, and no other. A large transfer before
 * has made the kernel widen the proxy's receive buffer. */
Test(backpressure, leaves_no_byte_behind_when_all_of_a_transfer_is_there_at_once)
{
    static const uint64_t steps[] = {7, 8, 9, 16, 24, 32};

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);
        struct pair pair = pair_open(&proxy, listen_fd);
        pid_t worker = only_worker(&proxy);
        uint64_t offset = 64 * MIB;

        send_and_expect(pair.client, pair.server, 6, 0, offset);
        for (size_t j = 0; j < 3 * COUNT_OF(steps); j++) {
            uint64_t len = steps[j / 3] * 64 * KIB + j % 3 - 1;

            freeze(worker);
            peer_send(pair.client, 6, offset, len);
            wait_until_taken(pair.client);
            thaw(worker);
            peer_expect(pair.server, 6, offset, len);
            offset += len;
        }
        pair_close(&pair);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}

/* Bytes that the proxy has not read from this client: what the kernel tells of the socket at the
 * other end of `fd` (sock_diag(7)). */
static unsigned unread_bytes(int fd)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 body;
    } request = {
        .header = {sizeof(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0},
        .body = {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0U}};
    struct {
        struct nlmsghdr header;
        struct inet_diag_msg body;
        char attributes[1024];
    } answer;
    struct sockaddr_in near_end;
    struct sockaddr_in far_end;
    socklen_t len = sizeof(near_end);
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    cr_assert(getsockname(fd, (struct sockaddr *)&near_end, &len) == 0);
    cr_assert(getpeername(fd, (struct sockaddr *)&far_end, &len) == 0);
    request.body.id =
        (struct inet_diag_sockid){.idiag_sport = far_end.sin_port,
                                  .idiag_dport = near_end.sin_port,
                                  .idiag_src = {far_end.sin_addr.s_addr},
                                  .idiag_dst = {near_end.sin_addr.s_addr},
                                  .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}};
    cr_assert(netlink >= 0 && send(netlink, &request, sizeof(request), 0) > 0);
    cr_assert(recv(netlink, &answer, sizeof(answer), 0) > 0);
    cr_assert(answer.header.nlmsg_type == SOCK_DIAG_BY_FAMILY, "no such socket");
    (void)close(netlink);
    return answer.body.idiag_rqueue;
}

/* True if the proxy has left bytes unread for 100 ms: then it is blocked, and not only late. */
static bool leaves_unread(int fd)
{
    for (int i = 0; i < 50; i++) {
        if (unread_bytes(fd) == 0) {
            return false;
        }
        (void)usleep(2000);
    }
    return true;
}

/* Sends 1 to 7 bytes at a time until the proxy leaves some of them unread; returns how many
 * went. */
static uint64_t send_slices_until_unread(int fd, uint64_t key)
{
    uint64_t seed = key;
    uint64_t done = 0;

    do {
        for (int i = 0; i < 200; i++) {
            unsigned char bytes[8];
            size_t len = 1 + (size_t)random_below(&seed, 7);

            cr_assert(done < 64 * MIB, "sluice takes bytes without end that nobody reads");
            stream_fill(key, done, bytes, len);
            cr_assert(send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len);
            done += len;
        }
    } while (!leaves_unread(fd));
    return done;
}

static void run_full_pipe(const char *mode, bool in_slices)
{
    char argument[128];
    char name[64];
    struct proxy proxy;
    struct pair pair;
    uint64_t offset = 0;
    uint64_t len = 2 * MIB;
    int listen_fd;

    proxy_init(&proxy);
    (void)snprintf(name, sizeof(name), "@sluice-test-full-%d", getpid());
    (void)snprintf(argument, sizeof(argument), "%s:%d=unix:%s", proxy.ip, PROXY_PORT, name);
    listen_fd = peer_listen_unix(name);
    proxy_start(&proxy,
                (const char *const[]){"--splice", mode, "--pipe-size", "256k", argument, NULL});
    pair = pair_open(&proxy, listen_fd);
    if (in_slices) {
        len = send_slices_until_unread(pair.client, 5);
    } else {
        pid_t worker = only_worker(&proxy);

        offset = 64 * MIB;
        send_and_expect(pair.client, pair.server, 5, 0, offset); /* widens the receive buffer */
        freeze(worker);
        peer_send(pair.client, 5, offset, len);
        wait_until_taken(pair.client);
        thaw(worker);
        cr_assert(leaves_unread(pair.client));
    }
    peer_expect(pair.server, 5, offset, len);
    pair_close(&pair);
    peer_close(listen_fd);
    proxy_finish(&proxy, 1);
}

/* B01, B02: everything that was sent has reached the proxy; the pipe is full, by its bytes or (of
 * slices) by its slots long before, and the rest waits in the socket before it. Only the reader can
 * bring things into motion, and it must get everything. A splice that took "no slot" for "socket
 * empty" would never go on. The server is a unix one because their buffers do not grow. */
Test(backpressure, leaves_no_byte_behind_when_the_pipe_was_full)
{
    for (size_t i = 0; i < SPLICE_MODES; i++) {
        run_full_pipe(splice_names[i], false);
        run_full_pipe(splice_names[i], true);
    }
}

static void join_receiving(struct peer_task *task, uint64_t len)
{
    peer_join(task);
    cr_assert(task->len == len, "%" PRIu64 " of %" PRIu64 " bytes came", task->len, len);
    cr_assert(task->end == PEER_FIN, "a reset instead of FIN");
}

/* BP-06, B01: readers that pause for 1 ms after each piece, both directions at once, small buffers:
 * the proxy is blocked and unblocked all the time, and no wake-up is lost. 16 MiB; 1 GiB in a long
 * run. */
Test(backpressure, survives_readers_that_pause_and_resume)
{
    const uint64_t len = (is_long_run() ? 1024 : 16) * (uint64_t)MIB;

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);
        struct pair pair = open_small_pair(&proxy, listen_fd);
        struct peer_task up = {.fd = pair.client, .key = 1, .len = len, .shut_after = true};
        struct peer_task down = {.fd = pair.server, .key = 2, .len = len, .shut_after = true};
        struct peer_task at_server = {.fd = pair.server,
                                      .key = 1,
                                      .to_end = true,
                                      .chunk_max = 128 * KIB,
                                      .pause_us = 1000,
                                      .seed = i};
        struct peer_task at_client = {.fd = pair.client,
                                      .key = 2,
                                      .to_end = true,
                                      .chunk_max = 128 * KIB,
                                      .pause_us = 1000,
                                      .seed = i + 10};

        peer_start_sending(&up);
        peer_start_sending(&down);
        peer_start_receiving(&at_server);
        peer_start_receiving(&at_client);
        peer_join(&up);
        peer_join(&down);
        join_receiving(&at_server, len);
        join_receiving(&at_client, len);
        pair_close(&pair);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}

/* BP-07, B05: the server's direction is blocked because the client does not read; the client's own
 * direction carries 256 MiB (1 GiB in a long run) all the same. Then the client reads, and nothing
 * is missing. */
Test(backpressure, of_one_direction_does_not_touch_the_other)
{
    const uint64_t len = (is_long_run() ? 1024 : 256) * (uint64_t)MIB;

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);
        struct pair pair = open_small_pair(&proxy, listen_fd);
        uint64_t blocked = send_until_blocked(pair.server, 3);
        enum peer_end end;

        send_and_expect(pair.client, pair.server, 4, 0, len);
        cr_assert(!is_writable(pair.server, 0), "the server is not blocked any more");
        peer_shut(pair.client);
        peer_expect_end(pair.server, PEER_FIN);
        peer_shut(pair.server);
        cr_assert(peer_drain(pair.client, 3, 0, &end) == blocked && end == PEER_FIN);
        pair_close(&pair);
        proxy_wait_event(&proxy, "close", 1);
        cr_assert(proxy_number(&proxy, "close", 0, "bytes_up") == len);
        cr_assert(proxy_number(&proxy, "close", 0, "bytes_down") == blocked);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}

/* Waits until both senders stand still, or have sent all. */
static void wait_until_still(const struct peer_task tasks[2])
{
    int last[2] = {-1, -1};

    for (int same_ms = 0; same_ms < SILENCE_MS; same_ms += 10) {
        for (size_t i = 0; i < 2; i++) {
            int queued = 0;

            cr_assert(ioctl(tasks[i].fd, SIOCOUTQ, &queued) == 0);
            same_ms = queued == last[i] ? same_ms : 0;
            last[i] = queued;
        }
        (void)usleep(10000);
    }
}

/* Two peers that both write 8 MiB before they read. What the buffers on the way do not hold has to
 * wait, and the peers with it; the proxy passes on what fits, uses no CPU, and when reading begins,
 * in either direction first, everything arrives. */
Test(backpressure, of_both_directions_at_once_is_no_deadlock)
{
    enum { LEN = 8 * MIB };

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);
        struct pair pair = open_small_pair(&proxy, listen_fd);
        struct peer_task sending[] = {
            {.fd = pair.client, .key = 1, .len = LEN, .shut_after = true},
            {.fd = pair.server, .key = 2, .len = LEN, .shut_after = true}};
        bool client_first = i % 2 == 0;
        enum peer_end end;

        peer_start_sending(&sending[0]);
        peer_start_sending(&sending[1]);
        wait_until_still(sending);
        expect_no_cpu(&proxy, SILENCE_MS, 60);
        cr_assert(peer_readable(pair.client, 0) && peer_readable(pair.server, 0));
        for (int turn = 0; turn < 2; turn++) {
            bool client = (turn == 0) == client_first;

            cr_assert(peer_drain(client ? pair.client : pair.server, client ? 2 : 1, 0, &end) ==
                      LEN);
            cr_assert(end == PEER_FIN);
        }
        peer_join(&sending[0]);
        peer_join(&sending[1]);
        pair_close(&pair);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}
