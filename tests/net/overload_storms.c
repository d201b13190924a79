/* More clients than can be served at once, of each kind: active ones, ones that come in a storm, ones
 * that leave at once, ones that never complete. Established connections go on, and when the storm is
 * over everybody who stayed is served. */
#include "support/ends.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER = 8, TALK_BYTES = 100, BACKLOG = 4096, WAIT_MS = 30000 };

/* OV-01, scaled: 3,000 connections over two workers, all active: three rounds in which each sends
 * and receives, all in flight at once. */
Test(overload, thousands_of_active_connections_are_all_served)
{
    enum { MANY = 3000, ROUNDS = 3 };
    static struct pair pairs[MANY];
    struct proxy proxy;
    int origin;

    need_descriptors(2 * MANY + 100);
    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
    for (size_t i = 0; i < MANY; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    for (uint64_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < MANY; i++) {
            peer_send(pairs[i].client, i, round * TALK_BYTES, TALK_BYTES);
            peer_send(pairs[i].server, i + 1, round * TALK_BYTES, TALK_BYTES);
        }
        for (size_t i = 0; i < MANY; i++) {
            peer_expect(pairs[i].server, i, round * TALK_BYTES, TALK_BYTES);
            peer_expect(pairs[i].client, i + 1, round * TALK_BYTES, TALK_BYTES);
        }
    }
    for (size_t i = 0; i < MANY; i++) {
        pair_end(&pairs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, MANY);
}

/* Connects `count` clients at once to a queue of 64 places, serves those who get in, and counts the
 * others, who may only have been reset. From `half_open_from` on the handshakes stay half open until
 * all have begun: only then can the last packet of one meet a queue that is full. */
static size_t storm_small_queue(struct proxy *proxy, int origin, int clients[], size_t count,
                                size_t half_open_from)
{
    struct pair established = pair_open(proxy, origin);
    uint64_t overflow_deadline = monotonic_ms() + WAIT_MS;
    size_t refused = 0;

    freeze(only_worker(proxy));
    for (size_t i = 0; i < count; i++) {
        if (i == half_open_from) {
            netns_rule("tcp sport %d tcp flags & (syn|ack) == (syn|ack) drop", PROXY_PORT);
        }
        clients[i] = peer_connect_later(proxy->ip, PROXY_PORT);
    }
    if (half_open_from < count) {
        netns_clear();
    }
    while (netns_counter("ListenOverflows") == 0) {
        cr_assert(monotonic_ms() < overflow_deadline, "the queue did not overflow");
        pause_ms(1);
    }
    thaw(only_worker(proxy));
    for (size_t i = 0; i < count; i++) {
        uint64_t deadline = monotonic_ms() + WAIT_MS;

        /* The server speaks first; whoever reads has got in. */
        while (!peer_readable(clients[i], 1)) {
            cr_assert(monotonic_ms() < deadline, "client %zu is neither served nor refused", i);
            while (peer_readable(origin, 0)) {
                int server = peer_accept(origin);

                (void)peer_send_until_error(server, ANSWER, TALK_BYTES);
                peer_shut(server);
                peer_close(server);
            }
        }
        cr_assert(fcntl(clients[i], F_SETFL, 0) == 0);
        if (recv(clients[i], &(char){0}, 1, MSG_PEEK) == 1) {
            peer_expect(clients[i], ANSWER, 0, TALK_BYTES);
        } else {
            cr_assert(errno == ECONNRESET || errno == ECONNREFUSED, "%s", strerror(errno));
            refused++;
        }
        peer_close(clients[i]);
    }
    pair_exchange(&established, 5);
    pair_end(&established);
    return refused;
}

/* A queue of 64 places. No SYN cookies: with one, the kernel forgets a client whose last packet of the
 * handshake met a full queue, and one that waits for the server's first word waits for ever. */
static void start_with_small_queue(struct proxy *proxy, int *ret_origin)
{
    netns_set("tcp_syncookies", "0");
    netns_run("echo 64 >/proc/sys/net/core/somaxconn");
    proxy_init(proxy);
    proxy_start_simple(proxy, NULL);
    netns_run("echo 4096 >/proc/sys/net/core/somaxconn");
    *ret_origin = peer_listen(proxy->ip, ORIGIN_PORT, BACKLOG);
}

/* OV-02: 120 clients at once, and room for 64 in the queue. The kernel drops what does not fit, the
 * clients' kernels ask again, and in the end each one is served. */
Test(overload, serves_everybody_though_the_queue_overflows)
{
    enum { CLIENTS = 120 };
    static int clients[CLIENTS];
    struct proxy proxy;
    int origin;

    netns_enter();
    start_with_small_queue(&proxy, &origin);
    cr_assert(storm_small_queue(&proxy, origin, clients, CLIENTS, CLIENTS) == 0,
              "somebody was refused");
    peer_close(origin);
    proxy_finish(&proxy, CLIENTS + 1);
}

/* OV-07: the same with tcp_abort_on_overflow: now the kernel refuses those who do not fit. They see
 * a reset and nothing else; everybody else is served. */
Test(overload, survives_a_kernel_that_resets_what_does_not_fit)
{
    enum { CLIENTS = 100 };
    static int clients[CLIENTS];
    struct proxy proxy;
    size_t refused;
    int origin;

    netns_enter();
    netns_set("tcp_abort_on_overflow", "1");
    start_with_small_queue(&proxy, &origin);
    refused = storm_small_queue(&proxy, origin, clients, CLIENTS, 40);
    cr_assert(refused > 0, "the kernel refused nobody");
    (void)fprintf(stderr, "  %zu of %d refused by the kernel\n", refused, CLIENTS);
    peer_close(origin);
    proxy_finish(&proxy, CLIENTS + 1 - refused);
}

/* --- a SYN flood --- */

static uint16_t checksum(const void *bytes, size_t len, uint32_t sum)
{
    const unsigned char *next = bytes;

    for (size_t i = 0; i + 1 < len; i += 2) {
        sum += (uint32_t)next[i] << 8 | next[i + 1];
    }
    while (sum >> 16 != 0) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return htons((uint16_t)~sum);
}

/* A SYN from an address that nobody has: the answer goes nowhere. */
static void send_syn(int raw, in_addr_t to, unsigned number)
{
    struct {
        struct iphdr ip;
        struct tcphdr tcp;
    } packet = {0};
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_addr.s_addr = to};
    in_addr_t from = htonl(0xc6120000u + number); /* 198.18.0.0/15, for benchmarks */
    uint32_t pseudo = IPPROTO_TCP + sizeof(packet.tcp);

    packet.ip = (struct iphdr){.version = 4,
                               .ihl = 5,
                               .tot_len = htons(sizeof(packet)),
                               .ttl = 64,
                               .protocol = IPPROTO_TCP,
                               .saddr = from,
                               .daddr = to};
    packet.tcp.source = htons((uint16_t)(1024 + number % 60000));
    packet.tcp.dest = htons(PROXY_PORT);
    packet.tcp.seq = htonl(number * 7919u);
    packet.tcp.doff = 5;
    packet.tcp.syn = 1;
    packet.tcp.window = htons(64000);
    pseudo += (ntohl(from) >> 16) + (ntohl(from) & 0xffff);
    pseudo += (ntohl(to) >> 16) + (ntohl(to) & 0xffff);
    packet.tcp.check = checksum(&packet.tcp, sizeof(packet.tcp), pseudo);
    cr_assert(sendto(raw, &packet, sizeof(packet), 0, (struct sockaddr *)&target, sizeof(target)) ==
                  sizeof(packet),
              "raw: %s", strerror(errno));
}

/* OV-03: 20,000 SYNs from addresses that nobody has. An established connection moves bytes all the
 * time, and new clients get in (by SYN cookies); sluice hears nothing of the flood. */
Test(overload, a_syn_flood_keeps_nobody_out)
{
    enum { SYNS = 20000, BETWEEN = 1000, CLIENTS = SYNS / BETWEEN };
    uint64_t received;
    struct proxy proxy;
    struct pair established;
    in_addr_t to;
    int origin;
    int raw;

    netns_enter();
    netns_set("tcp_syncookies", "1");
    netns_set("tcp_max_syn_backlog", "64");
    netns_set("conf/all/rp_filter", "0");
    netns_set("conf/lo/rp_filter", "0");
    netns_run("ip route add 198.18.0.0/15 dev lo");
    netns_run("echo 64 >/proc/sys/net/core/somaxconn");
    proxy_init(&proxy);
    proxy_start_simple(&proxy, NULL);
    netns_run("echo 4096 >/proc/sys/net/core/somaxconn");
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    cr_assert(raw >= 0 && inet_pton(AF_INET, proxy.ip, &to) == 1);
    established = pair_open(&proxy, origin);
    for (unsigned i = 0; i < SYNS; i++) {
        send_syn(raw, to, i);
        if (i % BETWEEN == BETWEEN - 1) {
            struct pair pair = pair_open(&proxy, origin);

            pair_exchange(&pair, i);
            pair_end(&pair);
            pair_exchange(&established, i);
        }
    }
    received = netns_counter("TCPReqQFullDoCookies");
    (void)fprintf(stderr, "  %d SYNs, %llu cookies\n", SYNS, (unsigned long long)received);
    cr_assert(received > 0, "the flood did not arrive");
    pair_end(&established);
    peer_close(raw);
    peer_close(origin);
    proxy_finish(&proxy, CLIENTS + 1);
}

/* --- comers and goers --- */

struct stormer {
    pthread_t thread;
    const char *ip;
    uint64_t until_ms;
    size_t connections;
};

/* Connects and resets as fast as it can: half of them before the connection is even complete. */
static void *storm(void *argument)
{
    struct stormer *stormer = argument;

    while (monotonic_ms() < stormer->until_ms) {
        peer_reset(stormer->connections++ % 2 == 0 ? peer_connect_later(stormer->ip, PROXY_PORT)
                                                   : peer_connect(stormer->ip, PROXY_PORT));
    }
    return NULL;
}

static size_t count_sockets(const struct proxy *proxy)
{
    pid_t workers[PROXY_WORKERS_MAX];
    size_t count = proxy_worker_pids(proxy, workers);
    size_t sockets = 0;

    for (size_t i = 0; i < count; i++) {
        sockets += count_targets(workers[i], "socket:");
    }
    return sockets;
}

/* Until the workers hold no more than at the start, and a spare socket each. */
static void wait_for_sockets(const struct proxy *proxy)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    size_t sockets;

    while ((sockets = count_sockets(proxy)) > proxy->sockets_before + proxy->workers) {
        cr_assert(monotonic_ms() < deadline, "%zu sockets, %zu at the start", sockets,
                  proxy->sockets_before);
        pause_ms(10);
    }
}

/* OV-04: for three seconds two clients connect and reset as fast as they can. An established
 * connection does not notice; afterwards there is a record for each connection that was accepted,
 * and neither socket nor CPU is in use. */
Test(overload, a_long_storm_of_resets_leaves_nothing_behind)
{
    enum { STORM_MS = 3000, STORMERS = 2 };
    struct stormer stormers[STORMERS];
    struct proxy proxy;
    struct pair pair;
    size_t attempts = 0;
    uint64_t accepted;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", "--log", "none", NULL});
    pair = pair_open(&proxy, origin);
    for (size_t i = 0; i < STORMERS; i++) {
        stormers[i] = (struct stormer){.ip = proxy.ip, .until_ms = monotonic_ms() + STORM_MS};
        cr_assert(pthread_create(&stormers[i].thread, NULL, storm, &stormers[i]) == 0);
    }
    for (uint64_t i = 0; monotonic_ms() < stormers[0].until_ms; i++) {
        pair_exchange(&pair, i);
        while (peer_readable(origin, 0)) {
            int fd = accept4(origin, NULL, NULL, SOCK_CLOEXEC);

            if (fd >= 0) {
                peer_close(fd);
            }
        }
    }
    for (size_t i = 0; i < STORMERS; i++) {
        cr_assert(pthread_join(stormers[i].thread, NULL) == 0);
        attempts += stormers[i].connections;
    }
    pair_exchange(&pair, 1);
    pair_end(&pair);
    peer_close(origin);
    wait_for_sockets(&proxy);
    cr_assert(proxy_stop(&proxy, SIGTERM) == 0, "%s", proxy.log);
    accepted = proxy_number(&proxy, "end", 0, "connections_accepted");
    (void)fprintf(stderr, "  %zu attempts, %llu accepted\n", attempts,
                  (unsigned long long)accepted);
    cr_assert(accepted > 1 && accepted <= attempts + 1);
    cr_assert(proxy_number(&proxy, "end", 0, "connections_closed") == accepted, "%s", proxy.log);
    free(proxy.log);
}

/* --- one worker of two --- */

/* Serves the next client: an answer and FIN. */
static int greet(int origin)
{
    int server = peer_accept(origin);

    peer_send(server, ANSWER, 0, TALK_BYTES);
    peer_shut(server);
    return server;
}

/* OV-08: one of two workers stands still. Its connections wait and lose nothing; those of the other
 * go on at once, and so do new ones that the kernel gives to the other. */
Test(overload, a_worker_that_stands_still_holds_up_only_its_own)
{
    enum { PAIRS = 40, CLIENTS = 40, CALM_MS = 500 };
    pid_t workers[PROXY_WORKERS_MAX];
    struct pair pairs[PAIRS];
    int clients[CLIENTS];
    int servers[CLIENTS];
    struct proxy proxy;
    size_t moving = 0;
    size_t served = 0;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
    cr_assert(proxy_worker_pids(&proxy, workers) == 2);
    for (size_t i = 0; i < PAIRS; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    freeze(workers[0]);
    for (size_t i = 0; i < PAIRS; i++) {
        peer_send(pairs[i].client, i, 0, TALK_BYTES);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = peer_connect(proxy.ip, PROXY_PORT);
    }
    while (served < CLIENTS && peer_readable(origin, CALM_MS)) {
        servers[served++] = greet(origin); /* those that the kernel gave to the other worker */
    }
    for (size_t i = 0; i < PAIRS; i++) {
        moving += peer_readable(pairs[i].server, 0);
    }
    cr_assert(moving > 0 && moving < PAIRS, "%zu of %d go on", moving, PAIRS);
    cr_assert(served > 0 && served < CLIENTS, "%zu of %d are served", served, CLIENTS);
    thaw(workers[0]);
    while (served < CLIENTS) {
        servers[served++] = greet(origin);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        peer_expect(clients[i], ANSWER, 0, TALK_BYTES);
        peer_expect_end(clients[i], PEER_FIN);
        peer_close(clients[i]);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        peer_expect_end(servers[i], PEER_FIN);
        peer_close(servers[i]);
    }
    for (size_t i = 0; i < PAIRS; i++) {
        peer_expect(pairs[i].server, i, 0, TALK_BYTES);
        pair_exchange(&pairs[i], i);
        pair_end(&pairs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, PAIRS + CLIENTS);
}
