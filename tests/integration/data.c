/* Every byte arrives, once, in order, and then the end: through real sockets and the real binary, in
 * each splice mode, over each kind of address, in each pattern of traffic that is known to have broken
 * a proxy. The catalogue's section 3.1.
 *
 * The matrix is generated: one sluice per (splice mode, workers), one listener per kind of address, and
 * all sizes and orders through each. Splice and copy are held to the same expected records, so they
 * are equal to each other. */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"
#include "support/stream.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum { KIB = 1024, MIB = 1024 * KIB };

/* Who ends first; with BOTH_AT_ONCE both send at the same time and who is first is chance. */
enum order { CLIENT_FIRST, SERVER_FIRST, BOTH_AT_ONCE, ORDERS };

/* The usual sluice in one splice mode; returns the origin's listening socket. */
static int start_with_mode(struct proxy *proxy, const char *mode)
{
    const char *options[] = {"--splice", mode, NULL};

    proxy_init(proxy);
    proxy_start_simple(proxy, options);
    return peer_listen(proxy->ip, ORIGIN_PORT, 128);
}

/* Sends `len` bytes and FIN, and expects exactly these at the other end. */
static void send_all_one_way(int from, int to, uint64_t key, uint64_t len)
{
    struct peer_task sending = {.fd = from, .key = key, .len = len, .shut_after = true};
    enum peer_end end;
    uint64_t got;

    peer_start_sending(&sending);
    got = peer_drain(to, key, 0, &end);
    peer_join(&sending);
    cr_assert(got == len, "%" PRIu64 " of %" PRIu64 " bytes came", got, len);
    cr_assert(end == PEER_FIN, "a reset instead of FIN");
}

static void join_receiving(struct peer_task *task, uint64_t len)
{
    peer_join(task);
    cr_assert(task->len == len, "%" PRIu64 " of %" PRIu64 " bytes came", task->len, len);
    cr_assert(task->end == PEER_FIN, "a reset instead of FIN");
}

/* The same in both directions at once; `model` says how to send and to receive. */
static void send_all_both_ways(struct pair pair, uint64_t key, uint64_t len,
                               const struct peer_task *model)
{
    struct peer_task tasks[4];

    for (size_t i = 0; i < COUNT_OF(tasks); i++) {
        bool receives = i % 2 == 1;
        bool down = i >= 2;

        tasks[i] = *model;
        tasks[i].fd = receives == down ? pair.client : pair.server;
        tasks[i].key = key + down;
        tasks[i].len = len;
        tasks[i].seed = key + i;
        tasks[i].shut_after = true;
        tasks[i].to_end = true;
        if (receives) {
            peer_start_receiving(&tasks[i]);
        } else {
            peer_start_sending(&tasks[i]);
        }
    }
    peer_join(&tasks[0]);
    join_receiving(&tasks[1], len);
    peer_join(&tasks[2]);
    join_receiving(&tasks[3], len);
}

static void exchange(struct pair pair, enum order order, uint64_t key, uint64_t len)
{
    const struct peer_task plain = {0};

    if (order == BOTH_AT_ONCE) {
        send_all_both_ways(pair, key, len, &plain);
    } else if (order == CLIENT_FIRST) {
        send_all_one_way(pair.client, pair.server, key, len);
        send_all_one_way(pair.server, pair.client, key + 1, len);
    } else {
        send_all_one_way(pair.server, pair.client, key + 1, len);
        send_all_one_way(pair.client, pair.server, key, len);
    }
    pair_close(&pair);
}

/* What the close record must say after an exchange: the same for every splice mode. */
static void expect_record(struct proxy *proxy, size_t index, enum order order, uint64_t len)
{
    proxy_wait_event(proxy, "close", index + 1);
    cr_assert(proxy_number(proxy, "close", index, "bytes_up") == len);
    cr_assert(proxy_number(proxy, "close", index, "bytes_down") == len);
    cr_assert(proxy_number(proxy, "close", index, "undelivered_bytes") == 0);
    proxy_expect_field(proxy, "close", index, "how", "fin");
    if (order == CLIENT_FIRST) {
        proxy_expect_field(proxy, "close", index, "closed_by", "client");
        proxy_expect_field(proxy, "close", index, "reason", "server-fin");
    } else if (order == SERVER_FIRST) {
        proxy_expect_field(proxy, "close", index, "closed_by", "server");
        proxy_expect_field(proxy, "close", index, "reason", "client-fin");
    }
}

/* --- the matrix --- */

struct cell {
    char mode[8];
    char workers[4];
};

/* A listener of the matrix, how it is reached, and the origin behind it. */
struct route {
    char argument[160];
    char ip[48];
    uint16_t port;
    int listen_fd;
    char client[16]; /* how the canonical address of its clients begins */
};

/* A port that is free on every address, outside the range that the kernel gives to connections. */
static uint16_t free_port(void)
{
    static unsigned tried;

    for (;;) {
        uint16_t port = (uint16_t)(10000 + ((unsigned)getpid() * 8 + tried++) % 20000);
        struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool free_now;

        cr_assert(fd >= 0 && tried < 20000);
        free_now = bind(fd, (const struct sockaddr *)&any, sizeof(any)) == 0;
        (void)close(fd);
        if (free_now) {
            return port;
        }
    }
}

enum { ROUTES = 4 };

/* IPv4; IPv6; the same two through `:PORT`, where IPv4 clients appear v4-mapped, and to a v4-mapped
 * target. */
static void make_routes(const struct proxy *proxy, struct route routes[ROUTES])
{
    static const bool dials_v6[ROUTES] = {false, true, false, true};

    for (size_t i = 0; i < ROUTES; i++) {
        struct route *route = &routes[i];
        const char *ip = dials_v6[i] ? "::1" : proxy->ip;
        uint16_t origin_port = free_port();
        char listen_host[64] = "";
        char target_host[64];

        route->port = free_port();
        (void)snprintf(route->ip, sizeof(route->ip), "%s", ip);
        (void)snprintf(route->client, sizeof(route->client), dials_v6[i] ? "[::1]:" : "127.");
        (void)snprintf(target_host, sizeof(target_host), dials_v6[i] ? "[%s]" : "%s", ip);
        if (i < 2) {
            (void)snprintf(listen_host, sizeof(listen_host), "%s", target_host);
        } else if (i == 2) {
            (void)snprintf(target_host, sizeof(target_host), "[::ffff:%s]", ip);
        }
        (void)snprintf(route->argument, sizeof(route->argument), "%s:%u=%s:%u", listen_host,
                       route->port, target_host, origin_port);
        route->listen_fd = peer_listen(ip, origin_port, 128);
    }
}

static void run_route(struct proxy *proxy, const struct route *route, const char *mode,
                      size_t *count)
{
    static const uint64_t sizes[] = {0,    1,     1447,  1448,  4095,   4096,
                                     4097, 65535, 65536, 65537, MIB + 1};

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (enum order order = 0; order < ORDERS; order++) {
            struct pair pair = {.client = peer_connect(route->ip, route->port)};
            char client[PROXY_FIELD_BYTES];

            pair.server = peer_accept(route->listen_fd);
            exchange(pair, order, 2 * *count, sizes[i]);
            expect_record(proxy, *count, order, sizes[i]);
            proxy_field(proxy, "close", *count, "client", client);
            cr_assert(strncmp(client, route->client, strlen(route->client)) == 0,
                      "client %s is not canonical", client);
            if (strcmp(mode, "never") == 0) {
                cr_assert(proxy_number(proxy, "close", *count, "spliced_bytes") == 0);
            }
            (*count)++;
        }
    }
}

ParameterizedTestParameters(data, arrives_in_every_cell_of_the_matrix)
{
    static struct cell cells[] = {{"auto", "1"}, {"always", "1"}, {"never", "1"},
                                  {"auto", "2"}, {"always", "2"}, {"never", "2"}};

    return cr_make_param_array(struct cell, cells, COUNT_OF(cells));
}

/* DI-01: whatever the splice mode, the addresses, the workers, the order and the size, each side gets
 * exactly what the other sent, FIN behind the last byte, and the record says so. */
ParameterizedTest(struct cell *cell, data, arrives_in_every_cell_of_the_matrix)
{
    struct route routes[ROUTES];
    struct proxy proxy;
    size_t count = 0;

    proxy_init(&proxy);
    make_routes(&proxy, routes);
    proxy_start(&proxy, (const char *const[]){"--splice", cell->mode, "--workers", cell->workers,
                                              routes[0].argument, routes[1].argument,
                                              routes[2].argument, routes[3].argument, NULL});
    for (size_t i = 0; i < ROUTES; i++) {
        run_route(&proxy, &routes[i], cell->mode, &count);
        peer_close(routes[i].listen_fd);
    }
    proxy_finish(&proxy, count);
}

/* DI-01, the large cells: 64 MiB in both directions at once, in each splice mode. */
Test(data, arrives_when_64_mib_go_both_ways_at_once)
{
    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);

        exchange(pair_open(&proxy, listen_fd), BOTH_AT_ONCE, i, 64 * MIB);
        expect_record(&proxy, 0, BOTH_AT_ONCE, 64 * MIB);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}

/* What `--splice always` and `auto` are for: bulk does go through pipes (else every other test here
 * would only test copying), and small messages in `auto` do not. */
Test(data, is_spliced_when_it_is_bulk)
{
    static const struct {
        const char *mode;
        uint64_t len;
        uint64_t spliced_min;
        uint64_t spliced_max;
    } rows[] = {{"auto", 16 * MIB, 16 * MIB, 32 * MIB},
                {"auto", 1000, 0, 0},
                {"always", 16 * MIB, 32 * MIB, 32 * MIB},
                {"always", 1000, 2000, 2000},
                {"never", 16 * MIB, 0, 0}};

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, rows[i].mode);
        uint64_t spliced;

        exchange(pair_open(&proxy, listen_fd), CLIENT_FIRST, i, rows[i].len);
        expect_record(&proxy, 0, CLIENT_FIRST, rows[i].len);
        spliced = proxy_number(&proxy, "close", 0, "spliced_bytes");
        cr_assert(spliced >= rows[i].spliced_min && spliced <= rows[i].spliced_max,
                  "row %zu: %" PRIu64 " bytes spliced", i, spliced);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}

/* --- small pieces --- */

static uint64_t now_us(void)
{
    struct timespec now;

    cr_assert(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Sends a message to and fro; returns the longest time that one round took. */
static uint64_t slowest_round_us(struct pair pair, uint64_t len, unsigned rounds)
{
    uint64_t slowest = 0;

    for (unsigned i = 0; i < rounds; i++) {
        uint64_t start = now_us();
        uint64_t took;

        peer_send(pair.client, 1, i * len, len);
        peer_expect(pair.server, 1, i * len, len);
        peer_send(pair.server, 2, i * len, len);
        peer_expect(pair.client, 2, i * len, len);
        took = now_us() - start;
        slowest = took > slowest ? took : slowest;
    }
    return slowest;
}

/* DI-02: no message waits for another one, or for a delayed acknowledgement. A cork (SPLICE_F_MORE,
 * MSG_MORE, or Nagle) shows as a round of 200 ms; the last piece of a bulk message is where it hides. */
Test(data, goes_to_and_fro_without_a_cork)
{
    static const struct {
        uint64_t len;
        unsigned rounds;
    } rows[] = {{1, 2000}, {65537, 40}, {256 * KIB + 1, 40}};

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);

        for (size_t j = 0; j < COUNT_OF(rows); j++) {
            struct pair pair = pair_open(&proxy, listen_fd);
            uint64_t slowest = slowest_round_us(pair, rows[j].len, rows[j].rounds);

            cr_assert(slowest < 150000,
                      "--splice %s, %" PRIu64 " bytes: a round took %" PRIu64 " us",
                      splice_names[i], rows[j].len, slowest);
            pair_close(&pair);
        }
        peer_close(listen_fd);
        proxy_finish(&proxy, COUNT_OF(rows));
    }
}

/* DI-04: peers that write, and read, 1 to 7 bytes at a time, in both directions at once. */
Test(data, arrives_when_it_is_sent_in_slices)
{
    const struct peer_task slices = {.chunk_max = 7};

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);
        struct pair pair = pair_open(&proxy, listen_fd);

        send_all_both_ways(pair, i, 128 * KIB, &slices);
        pair_close(&pair);
        expect_record(&proxy, 0, BOTH_AT_ONCE, 128 * KIB);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}

/* DI-10: the smallest buffers the kernel gives, at both peers, both directions at once. */
Test(data, arrives_through_tiny_socket_buffers)
{
    static const struct peer_task plain;
    int receive_bytes = 2304;
    int send_bytes = 4608;

    for (size_t i = 0; i < SPLICE_MODES; i++) {
        struct proxy proxy;
        int listen_fd = start_with_mode(&proxy, splice_names[i]);
        struct pair pair;

        /* Accepted sockets have the listening socket's buffers. */
        cr_assert(setsockopt(listen_fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(int)) == 0);
        cr_assert(setsockopt(listen_fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(int)) == 0);
        pair.client = peer_connect_small(proxy.ip, PROXY_PORT, receive_bytes, send_bytes);
        pair.server = peer_accept(listen_fd);
        send_all_both_ways(pair, i, MIB, &plain);
        pair_close(&pair);
        expect_record(&proxy, 0, BOTH_AT_ONCE, MIB);
        peer_close(listen_fd);
        proxy_finish(&proxy, 1);
    }
}

/* --- more than 32 bits of it --- */

enum { BLOCK_BYTES = MIB, BLOCK_HEAD_BYTES = 4 * KIB };

/* A transfer too long to check each byte: blocks of 1 MiB, each with 4 KiB of the self-proving stream
 * at its head and zeros behind. A byte lost or doubled moves every later head. */
struct bulk {
    int fd;
    uint64_t key;
    uint64_t len;
    const char *failure; /* result */
    uint64_t failed_at;
};

static uint64_t min_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void *bulk_send_thread(void *argument)
{
    struct bulk *bulk = argument;
    unsigned char *block = calloc(1, BLOCK_BYTES);

    for (uint64_t offset = 0; offset < bulk->len && bulk->failure == NULL; offset += BLOCK_BYTES) {
        size_t len = (size_t)min_of(BLOCK_BYTES, bulk->len - offset);

        stream_fill(bulk->key, offset, block, BLOCK_HEAD_BYTES);
        /* A blocking send takes everything, unless it fails or the time-out ends it. */
        if (send(bulk->fd, block, len, MSG_NOSIGNAL) != (ssize_t)len) {
            bulk->failure = "sending stood still or failed";
            bulk->failed_at = offset;
        }
    }
    if (bulk->failure == NULL && shutdown(bulk->fd, SHUT_WR) < 0) {
        bulk->failure = "shutdown";
    }
    free(block);
    return NULL;
}

/* NULL, or what is wrong with the block at `offset`. */
static const char *bulk_receive_block(const struct bulk *bulk, uint64_t offset)
{
    unsigned char head[BLOCK_HEAD_BYTES];
    size_t len = (size_t)min_of(BLOCK_BYTES, bulk->len - offset);
    size_t head_len = (size_t)min_of(BLOCK_HEAD_BYTES, len);

    if (recv(bulk->fd, head, head_len, MSG_WAITALL) != (ssize_t)head_len) {
        return "the stream ended, or stood still, at the head of a block";
    }
    if (stream_mismatch(bulk->key, offset, head, head_len) != head_len) {
        return "wrong bytes";
    }
    for (size_t done = head_len; done < len;) {
        /* tcp(7): MSG_TRUNC throws the bytes away without copying them. */
        ssize_t result = recv(bulk->fd, NULL, len - done, MSG_TRUNC);

        if (result <= 0) {
            return "the stream ended, or stood still, inside a block";
        }
        done += (size_t)result;
    }
    return NULL;
}

static void *bulk_receive_thread(void *argument)
{
    struct bulk *bulk = argument;
    uint64_t seed = bulk->key;

    for (uint64_t offset = 0; offset < bulk->len && bulk->failure == NULL; offset += BLOCK_BYTES) {
        bulk->failure = bulk_receive_block(bulk, offset);
        bulk->failed_at = offset;
        if (random_below(&seed, 100) == 0) {
            (void)usleep((unsigned)random_below(&seed, 5000)); /* so that everything fills up */
        }
    }
    return NULL;
}

/* DI-06, DI-07, B03, B47: 4 GiB and 3 bytes each way through one connection, spliced, to readers that
 * pause now and then. Positions hold to the end, and the record counts beyond 32 bits exactly. */
Test(data, arrives_and_is_counted_beyond_32_bits)
{
    const uint64_t len = (UINT64_C(4) << 30) + 3;
    struct bulk bulks[4];
    pthread_t threads[4];
    struct proxy proxy;
    int listen_fd = start_with_mode(&proxy, "always");
    struct pair pair = pair_open(&proxy, listen_fd);

    for (size_t i = 0; i < COUNT_OF(bulks); i++) {
        bool receives = i % 2 == 1;
        bool down = i >= 2;

        bulks[i] = (struct bulk){
            .fd = receives == down ? pair.client : pair.server, .key = 31 + down, .len = len};
        cr_assert(pthread_create(&threads[i], NULL,
                                 receives ? bulk_receive_thread : bulk_send_thread,
                                 &bulks[i]) == 0);
    }
    for (size_t i = 0; i < COUNT_OF(bulks); i++) {
        cr_assert(pthread_join(threads[i], NULL) == 0);
        cr_assert(bulks[i].failure == NULL, "%s, at %" PRIu64, bulks[i].failure,
                  bulks[i].failed_at);
    }
    peer_expect_end(pair.client, PEER_FIN);
    peer_expect_end(pair.server, PEER_FIN);
    pair_close(&pair);
    expect_record(&proxy, 0, BOTH_AT_ONCE, len);
    cr_assert(proxy_number(&proxy, "close", 0, "spliced_bytes") > UINT32_MAX);
    peer_close(listen_fd);
    proxy_finish(&proxy, 1);
}

/* --- unix sockets --- */

/* Names of this process only: "@..." or a path. */
static void unix_name(char name[64], const char *role, bool is_abstract)
{
    (void)snprintf(name, 64, "%s-%s-%d", is_abstract ? "@sluice-test" : "/tmp/sluice-test", role,
                   getpid());
}

/* DI-14: a unix listener in front of TCP, TCP in front of a unix server, and unix on both sides, with
 * paths and with abstract names: bulk and half-close, in each order and each splice mode. Splice has
 * other rules for unix sockets. */
static void run_unix(const char *mode, bool listens_unix, bool targets_unix, bool is_abstract)
{
    char names[2][64];
    char argument[192];
    char listen_text[80];
    char target_text[80];
    struct proxy proxy;
    int listen_fd;

    proxy_init(&proxy);
    unix_name(names[0], "listener", is_abstract);
    unix_name(names[1], "origin", is_abstract);
    (void)snprintf(listen_text, sizeof(listen_text), listens_unix ? "unix:%s" : "%s:8080",
                   listens_unix ? names[0] : proxy.ip);
    (void)snprintf(target_text, sizeof(target_text), targets_unix ? "unix:%s" : "%s:9000",
                   targets_unix ? names[1] : proxy.ip);
    (void)snprintf(argument, sizeof(argument), "%s=%s", listen_text, target_text);
    (void)unlink(names[1]);
    listen_fd = targets_unix ? peer_listen_unix(names[1]) : peer_listen(proxy.ip, ORIGIN_PORT, 16);
    proxy_start(&proxy, (const char *const[]){"--splice", mode, argument, NULL});
    for (enum order order = 0; order < ORDERS; order++) {
        struct pair pair;

        pair.client =
            listens_unix ? peer_connect_unix(names[0]) : peer_connect(proxy.ip, PROXY_PORT);
        pair.server = peer_accept(listen_fd);
        exchange(pair, order, 40 + 2 * (uint64_t)order, 4 * MIB + 1);
        expect_record(&proxy, order, order, 4 * MIB + 1);
    }
    peer_close(listen_fd);
    proxy_finish(&proxy, ORDERS);
    (void)unlink(names[0]);
    (void)unlink(names[1]);
}

Test(data, arrives_through_unix_sockets_with_paths)
{
    for (size_t i = 0; i < SPLICE_MODES; i++) {
        run_unix(splice_names[i], true, false, false);
        run_unix(splice_names[i], false, true, false);
        run_unix(splice_names[i], true, true, false);
    }
}

Test(data, arrives_through_unix_sockets_with_abstract_names)
{
    for (size_t i = 0; i < SPLICE_MODES; i++) {
        run_unix(splice_names[i], true, false, true);
        run_unix(splice_names[i], false, true, true);
        run_unix(splice_names[i], true, true, true);
    }
}

/* --- system calls that fail in mid-life --- */

/* strace(1), attached to the worker, so that it can be taken off again before the oracles look. */
struct tracer {
    pid_t pid;
    int said_fd;   /* its stderr */
    char path[64]; /* its trace */
};

static void start_tracer(struct tracer *tracer, pid_t worker, const char *inject)
{
    char pid_text[16];
    char inject_text[128];
    char said[256] = "";
    int fds[2];

    (void)snprintf(tracer->path, sizeof(tracer->path), "/tmp/sluice-test-strace-%d", getpid());
    (void)snprintf(pid_text, sizeof(pid_text), "%d", worker);
    (void)snprintf(inject_text, sizeof(inject_text), "inject=%s", inject);
    cr_assert(pipe2(fds, O_CLOEXEC) == 0);
    tracer->pid = fork();
    cr_assert(tracer->pid >= 0);
    if (tracer->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)dup2(fds[1], STDERR_FILENO);
        (void)execlp("strace", "strace", "-o", tracer->path, "-e", inject_text, "-p", pid_text,
                     (char *)NULL);
        (void)dprintf(STDERR_FILENO, "can't execute strace");
        _exit(127);
    }
    (void)close(fds[1]);
    tracer->said_fd = fds[0];
    /* Its first words are "strace: Process N attached", or why that is not possible. */
    cr_assert(read(fds[0], said, sizeof(said) - 1) > 0);
    if (strstr(said, "attached") == NULL) {
        cr_skip_test("needs strace and the right to use it: %s", said);
    }
}

/* Takes it off, and makes sure that it did inject something. */
static void stop_tracer(struct tracer *tracer)
{
    bool injected = false;
    char line[512];
    FILE *trace;

    cr_assert(kill(tracer->pid, SIGTERM) == 0); /* it detaches first */
    cr_assert(waitpid(tracer->pid, NULL, 0) == tracer->pid);
    (void)close(tracer->said_fd);
    trace = fopen(tracer->path, "re");
    cr_assert(trace != NULL);
    while (!injected && fgets(line, sizeof(line), trace) != NULL) {
        injected = strstr(line, "(INJECTED)") != NULL;
    }
    (void)fclose(trace);
    (void)unlink(tracer->path);
    cr_assert(injected, "no call was made to fail");
}

struct fault {
    char inject[64];
    char mode[8];
    bool ends_splice; /* from then on everything is copied */
};

ParameterizedTestParameters(data, survives_system_calls_that_fail)
{
    static struct fault faults[] = {
        {"splice:error=EINVAL:when=1+", "always", true},
        {"splice:error=EINVAL:when=5+", "always", true},
        {"splice:error=EINVAL:when=6+", "auto", true},
        {"splice:error=ENOSYS:when=8+", "always", true},
        {"splice:error=EPERM:when=13+", "always", true},
        {"splice:error=EOPNOTSUPP:when=50", "always", false},
        {"splice:error=ENOMEM:when=3..6", "always", false},
        {"splice:error=EINTR:when=2+2", "always", false},
        {"pipe2:error=EMFILE", "always", true},
        {"fcntl:error=EPERM", "always", true},
        {"recvfrom:error=EINTR:when=2+2", "never", true},
        {"recvfrom:error=ENOMEM:when=3..6", "never", true},
        {"sendto:error=EINTR:when=2+2", "never", true},
        {"sendto:error=ENOBUFS:when=3..6", "never", true},
        {"epoll_wait,epoll_pwait:error=EINTR:when=2+2", "auto", false},
    };

    return cr_make_param_array(struct fault, faults, COUNT_OF(faults));
}

/* DI-13, B42, B04: a call of the byte path that is refused, interrupted or short of memory in the
 * middle of a transfer (strace injects the error) costs no byte; where splice or pipes are refused for
 * good, that connection is copied, and so is the next one. */
ParameterizedTest(struct fault *fault, data, survives_system_calls_that_fail)
{
    enum { LEN = 4 * MIB + 1 };
    struct tracer tracer;
    struct proxy proxy;
    int listen_fd = start_with_mode(&proxy, fault->mode);

    start_tracer(&tracer, only_worker(&proxy), fault->inject);
    exchange(pair_open(&proxy, listen_fd), BOTH_AT_ONCE, 50, LEN);
    exchange(pair_open(&proxy, listen_fd), CLIENT_FIRST, 52, LEN);
    proxy_wait_event(&proxy, "close", 2);
    stop_tracer(&tracer);
    expect_record(&proxy, 0, BOTH_AT_ONCE, LEN);
    expect_record(&proxy, 1, CLIENT_FIRST, LEN);
    if (fault->ends_splice) {
        cr_assert(proxy_number(&proxy, "close", 0, "spliced_bytes") < LEN);
        cr_assert(proxy_number(&proxy, "close", 1, "spliced_bytes") == 0);
    }
    peer_close(listen_fd);
    proxy_finish(&proxy, 2);
}
