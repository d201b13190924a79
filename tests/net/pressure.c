/* Masses of connections under pressure: a thousand readers that never read, a reader that takes a
 * few bytes at a time through a window that is closed most of the time, a thousand small questions
 * beside one large transfer. Memory stays bounded, nobody spins, nobody is cut who makes progress,
 * nobody starves. Smaller forms of these are in
 * tests/integration/backpressure.c.
 *
 * A namespace of the test's own bounds the kernel's buffers, which else would take gigabytes, and
 * has the kernel's counters to itself. No assertion is about speed: that something went on is shown
 * by counts. */
#include "support/ends.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"
#include "support/stream.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1024 * KIB, MANY = 1000 };

static int start_many(struct proxy *proxy, const char *const options[])
{
    need_descriptors(4 * MANY);
    proxy_init(proxy);
    netns_enter();
    proxy_start_simple(proxy, options);
    return peer_listen(proxy->ip, ORIGIN_PORT, 1024);
}

ParameterizedTestParameters(pressure, of_a_thousand_readers_that_never_read_takes_bounded_memory)
{
    static int modes[SPLICE_MODES] = {0, 1, 2};

    return cr_make_param_array(int, modes, SPLICE_MODES);
}

/* Sends what is taken at once, at most 4 MiB a connection; true if anything was. */
static bool push(const struct pair *pair, uint64_t key, uint64_t *sent)
{
    unsigned char bytes[16 * KIB];
    uint64_t before = *sent;
    ssize_t len;

    do {
        stream_fill(key, *sent, bytes, sizeof(bytes));
        len = send(pair->server, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        *sent += len > 0 ? (uint64_t)len : 0;
        cr_assert(*sent < 4 * MIB, "bytes without end are taken that nobody reads");
    } while (len > 0);
    cr_assert(errno == EAGAIN, "send: %s", strerror(errno));
    return *sent > before;
}

/* Until nothing has been taken from anybody for half a second. */
static void push_until_blocked(const struct pair pairs[MANY], uint64_t sent[MANY])
{
    uint64_t moved_ms = monotonic_ms();

    while (monotonic_ms() < moved_ms + 500) {
        for (size_t i = 0; i < MANY; i++) {
            if (push(&pairs[i], i, &sent[i])) {
                moved_ms = monotonic_ms();
            }
        }
        pause_ms(5);
    }
}

/* The kernel's memory of all sockets of this namespace: the queues, with their overhead (ss(8),
 * -m). */
static uint64_t socket_memory_kib(void)
{
    char line[512];
    uint64_t sum = 0;
    size_t sockets = 0;
    FILE *table = popen("ss -tmnH state established", "re");

    cr_assert(table != NULL);
    while (fgets(line, sizeof(line), table) != NULL) {
        const char *memory = strstr(line, "skmem:(");
        unsigned long long received;
        unsigned long long queued;

        if (memory != NULL &&
            sscanf(memory, "skmem:(r%llu,rb%*u,t%*u,tb%*u,f%*u,w%llu", &received, &queued) == 2) {
            sum += received + queued;
            sockets++;
        }
    }
    cr_assert(pclose(table) == 0);
    cr_assert(sockets >= 4 * MANY, "%zu sockets found", sockets);
    return sum / KIB;
}

/* BP-01, B50. Goal: a thousand clients that never read, before servers that send for ever, cost the
 * worker one buffer each at most, and the kernel what its own limits say; the servers feel it,
 * nothing spins, others are served, and when the clients go nothing is left. Method: buffers of 32
 * KiB; push until no byte is taken; look at memory; let it rest, and look again. */
ParameterizedTest(int *mode, pressure, of_a_thousand_readers_that_never_read_takes_bounded_memory)
{
    /* A buffer of 64 KiB for a blocked direction, a record, and some room for everything else. */
    const uint64_t worker_kib = MANY * (64 + 1) + 8 * KIB;
    /* Four sockets each: what is queued may be twice its bytes with overhead, and one packet of
     * the loopback (64 KiB) more than the limit. */
    const uint64_t kernel_kib = MANY * 4 * (2 * 32 + 64);
    struct pair *pairs = calloc(MANY, sizeof(*pairs));
    uint64_t *sent = calloc(MANY, sizeof(*sent));
    struct proxy proxy;
    uint64_t before_kib;
    uint64_t memory_kib;
    uint64_t cpu_ms;
    int origin;

    origin = start_many(&proxy, (const char *const[]){"--splice", splice_names[*mode], NULL});
    netns_set("tcp_rmem", "4096 32768 32768");
    netns_set("tcp_wmem", "4096 32768 32768");
    before_kib = proxy_pss_kib(&proxy);
    for (size_t i = 0; i < MANY; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    push_until_blocked(pairs, sent);
    for (size_t i = 0; i < MANY; i++) {
        cr_assert(sent[i] > 32 * KIB, "connection %zu took only %" PRIu64 " bytes", i, sent[i]);
    }
    cr_assert(proxy_pss_kib(&proxy) <= before_kib + worker_kib, "%" PRIu64 " KiB, before %" PRIu64,
              proxy_pss_kib(&proxy), before_kib);
    memory_kib = socket_memory_kib();
    cr_assert(memory_kib <= kernel_kib, "%" PRIu64 " KiB in sockets", memory_kib);
    cr_log_info("%s: worker %" PRIu64 " KiB, sockets %" PRIu64 " KiB", splice_names[*mode],
                proxy_pss_kib(&proxy) - before_kib, memory_kib);
    cpu_ms = proxy_cpu_ms(&proxy);
    pause_ms(500);
    cpu_ms = proxy_cpu_ms(&proxy) - cpu_ms;
    cr_assert(cpu_ms < 100, "%" PRIu64 " ms of CPU with everything blocked", cpu_ms);
    cr_assert(socket_memory_kib() <= memory_kib + memory_kib / 10, "it grows");
    {
        struct pair other = pair_open(&proxy, origin);

        pair_exchange(&other, 5);
        pair_end(&other);
    }
    for (size_t i = 0; i < MANY; i++) {
        peer_close(pairs[i].client); /* with unread bytes: a reset */
    }
    proxy_wait_event(&proxy, "close", MANY + 1);
    for (size_t i = 0; i < MANY; i++) {
        expect_broken(pairs[i].server);
        peer_close(pairs[i].server);
    }
    expect_reason(&proxy, 0, "server-fin", "client", "fin", NULL);
    expect_reason(&proxy, MANY, "client-reset", "client", "rst", "ECONNRESET");
    free(pairs);
    free(sent);
    peer_close(origin);
    proxy_finish(&proxy, MANY + 1);
}

/* BP-02, B48, shortened from ten minutes. Goal: a reader so slow that its window is closed nearly
 * all the time is no idle one, as long as it takes anything; and waiting for it costs no CPU.
 * Method: the smallest receive buffer; 64 bytes every 20 ms for 6 s, with an idle-timeout of 1 s;
 * then it stops, and is idle. The kernel's counters show that the window was closed again and
 * again. */
Test(pressure, of_a_window_that_opens_and_closes_is_progress)
{
    enum { PIECE = 64, EVERY_MS = 20, PIECES = 300, TINY = 2304 };
    struct peer_task sending = {.key = 9,
                                .len = 64 * MIB}; /* more than all buffers on the way take */
    struct proxy proxy;
    uint64_t closed_before;
    uint64_t cpu_ms;
    int origin;
    int client;

    origin = start_many(&proxy, (const char *const[]){"--idle-timeout", "1s", NULL});
    client = peer_connect_small(proxy.ip, PROXY_PORT, TINY, TINY);
    sending.fd = peer_accept(origin);
    closed_before = netns_counter("TCPToZeroWindowAdv");
    peer_start_sending(&sending);
    cpu_ms = proxy_cpu_ms(&proxy);
    for (uint64_t i = 0; i < PIECES; i++) {
        peer_expect(client, 9, i * PIECE, PIECE);
        pause_ms(EVERY_MS);
    }
    cpu_ms = proxy_cpu_ms(&proxy) - cpu_ms;
    cr_assert(proxy_count_event(&proxy, "close") == 0, "cut while it was read:\n%s", proxy.log);
    cr_assert(netns_counter("TCPToZeroWindowAdv") >= closed_before + 5,
              "the window was hardly ever closed: this shows nothing");
    cr_assert(cpu_ms < 1000, "%" PRIu64 " ms of CPU in 6 s", cpu_ms);
    proxy_wait_event(&proxy, "close", 1);
    expect_reason(&proxy, 0, "idle-timeout", "proxy", "timeout", NULL);
    cr_assert(proxy_number(&proxy, "close", 0, "undelivered_bytes") > 0);
    cr_assert(record_ms(&proxy, 0, "duration_s") >= PIECES * EVERY_MS);
    cr_assert(pthread_join(sending.thread, NULL) == 0 && sending.error != 0);
    peer_close(client);
    peer_close(sending.fd);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* --- fairness --- */

struct elephant {
    struct pair pair;
    atomic_bool stop;
    atomic_ullong received;
};

static void *elephant_send_thread(void *argument)
{
    static const unsigned char bytes[256 * KIB];
    struct elephant *elephant = argument;

    while (!atomic_load(&elephant->stop) &&
           send(elephant->pair.server, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0) {}
    (void)shutdown(elephant->pair.server, SHUT_WR);
    return NULL;
}

static void *elephant_receive_thread(void *argument)
{
    struct elephant *elephant = argument;
    ssize_t len;

    /* tcp(7): MSG_TRUNC throws the bytes away without copying them. */
    while ((len = recv(elephant->pair.client, NULL, MIB, MSG_TRUNC)) > 0) {
        (void)atomic_fetch_add(&elephant->received, (unsigned long long)len);
    }
    return NULL;
}

static void wait_for_growth(struct elephant *elephant)
{
    unsigned long long before = atomic_load(&elephant->received);
    uint64_t deadline = monotonic_ms() + PEER_WAIT_S * 1000;

    while (atomic_load(&elephant->received) == before) {
        cr_assert(monotonic_ms() < deadline, "the large transfer stands still");
        pause_ms(1);
    }
}

/* Every mouse asks, is answered, and has its answer; `round` of them. */
static void run_mice(const struct pair mice[MANY], uint64_t round)
{
    enum { MOUSE_BYTES = 100 };

    for (size_t i = 0; i < MANY; i++) {
        peer_send(mice[i].client, i, round * MOUSE_BYTES, MOUSE_BYTES);
    }
    for (size_t i = 0; i < MANY; i++) {
        peer_expect(mice[i].server, i, round * MOUSE_BYTES, MOUSE_BYTES);
        peer_send(mice[i].server, i + MANY, round * MOUSE_BYTES, MOUSE_BYTES);
    }
    for (size_t i = 0; i < MANY; i++) {
        peer_expect(mice[i].client, i + MANY, round * MOUSE_BYTES, MOUSE_BYTES);
    }
}

ParameterizedTestParameters(pressure, of_a_large_transfer_starves_none_of_a_thousand_small_ones)
{
    static int modes[SPLICE_MODES] = {0, 1, 2};

    return cr_make_param_array(int, modes, SPLICE_MODES);
}

/* BP-04, B13. Goal: on one worker, a transfer at full speed and a thousand connections that ask and
 * answer 100 bytes all go on. Method: five rounds of all the small ones, each complete while the
 * large one runs, which has moved on in every round; new connections are accepted in between. */
ParameterizedTest(int *mode, pressure, of_a_large_transfer_starves_none_of_a_thousand_small_ones)
{
    enum { ROUNDS = 5 };
    struct pair *mice = calloc(MANY, sizeof(*mice));
    struct elephant elephant = {.stop = false};
    pthread_t threads[2];
    struct proxy proxy;
    int origin;

    origin = start_many(&proxy, (const char *const[]){"--splice", splice_names[*mode], NULL});
    elephant.pair = pair_open(&proxy, origin);
    cr_assert(pthread_create(&threads[0], NULL, elephant_send_thread, &elephant) == 0);
    cr_assert(pthread_create(&threads[1], NULL, elephant_receive_thread, &elephant) == 0);
    wait_for_growth(&elephant);
    for (size_t i = 0; i < MANY; i++) {
        mice[i] = pair_open(&proxy, origin);
    }
    for (uint64_t round = 0; round < ROUNDS; round++) {
        run_mice(mice, round);
        wait_for_growth(&elephant);
    }
    cr_assert(proxy_count_event(&proxy, "close") == 0, "%s", proxy.log);
    atomic_store(&elephant.stop, true);
    cr_assert(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
    pair_close(&elephant.pair);
    for (size_t i = 0; i < MANY; i++) {
        pair_close(&mice[i]);
    }
    free(mice);
    peer_close(origin);
    proxy_finish(&proxy, MANY + 1);
}
