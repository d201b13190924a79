/* Every byte arrives, once, in order, and then the end: through real sockets and the real binary, in
 * each splice mode, over each kind of address, in each pattern of traffic that is known to have broken
 * a proxy. The size matrix has a file of its own, size_matrix.c.
 *
 * Splice and copy are held to the same expected records, so they are equal to each other. */
#include "support/ends.h"
#include "support/exchange.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"
#include "support/stream.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
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

/* The usual sluice in one splice mode; returns the origin's listening socket. */
static int start_with_mode(struct proxy *proxy, const char *mode)
{
    const char *options[] = {"--splice", mode, NULL};

    proxy_init(proxy);
    proxy_start_simple(proxy, options);
    return peer_listen(proxy->ip, ORIGIN_PORT, 128);
}

/* An exchange, and both ends closed behind it. */
static void exchange_and_close(struct pair pair, enum order order, uint64_t key, uint64_t len)
{
    exchange(&pair, order, key, len);
    pair_close(&pair);
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

        exchange_and_close(pair_open(&proxy, listen_fd), CLIENT_FIRST, i, rows[i].len);
        expect_exchanged(&proxy, 0, CLIENT_FIRST, rows[i].len);
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

/* Sends a message to and fro; returns how many rounds were as slow as a cork makes them. */
static unsigned count_slow_rounds(struct pair pair, uint64_t len, unsigned rounds)
{
    enum { CORK_US = 150000 };
    unsigned slow = 0;

    for (unsigned i = 0; i < rounds; i++) {
        uint64_t start = now_us();

        peer_send(pair.client, 1, i * len, len);
        peer_expect(pair.server, 1, i * len, len);
        peer_send(pair.server, 2, i * len, len);
        peer_expect(pair.client, 2, i * len, len);
        slow += now_us() - start >= CORK_US;
    }
    return slow;
}

/* DI-02: no message waits for another one, or for a delayed acknowledgement. A cork (SPLICE_F_MORE,
 * MSG_MORE, or Nagle) shows as rounds of 200 ms; the last piece of a bulk message is where it hides.
 * A cork holds up every round of a size, a busy machine one now and then: hence the tenth. */
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
            unsigned slow = count_slow_rounds(pair, rows[j].len, rows[j].rounds);

            cr_assert(slow <= rows[j].rounds / 10,
                      "--splice %s, %" PRIu64 " bytes: %u of %u rounds were slow", splice_names[i],
                      rows[j].len, slow, rows[j].rounds);
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

        exchange_at_once(&pair, i, 128 * KIB, &slices);
        pair_close(&pair);
        expect_exchanged(&proxy, 0, BOTH_AT_ONCE, 128 * KIB);
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
        exchange_at_once(&pair, i, MIB, &plain);
        pair_close(&pair);
        expect_exchanged(&proxy, 0, BOTH_AT_ONCE, MIB);
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

/* DI-06, DI-07, B03, B47: 4 GiB and 3 bytes each way (5 GiB in a long run) through one connection,
 * spliced, to readers that pause now and then. Positions hold to the end, and the record counts beyond
 * 32 bits exactly. */
Test(data, arrives_and_is_counted_beyond_32_bits)
{
    const uint64_t len = (UINT64_C(1) << 30) * (is_long_run() ? 5 : 4) + 3;
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
    expect_exchanged(&proxy, 0, BOTH_AT_ONCE, len);
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
        exchange_and_close(pair, order, 40 + 2 * (uint64_t)order, 4 * MIB + 1);
        expect_exchanged(&proxy, order, order, 4 * MIB + 1);
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
        {"splice:error=EINVAL:when=100", "always", false},
        {"splice:error=ENOSYS:when=100+", "always", false},
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
    /* Small pipes, so that there are as many calls as the rows count. */
    const char *options[] = {"--splice", fault->mode, "--pipe-size", "64k", NULL};
    struct tracer tracer;
    struct proxy proxy;
    int listen_fd;

    proxy_init(&proxy);
    proxy_start_simple(&proxy, options);
    listen_fd = peer_listen(proxy.ip, ORIGIN_PORT, 128);
    start_tracer(&tracer, only_worker(&proxy), fault->inject);
    exchange_and_close(pair_open(&proxy, listen_fd), BOTH_AT_ONCE, 50, LEN);
    exchange_and_close(pair_open(&proxy, listen_fd), CLIENT_FIRST, 52, LEN);
    proxy_wait_event(&proxy, "close", 2);
    stop_tracer(&tracer);
    expect_exchanged(&proxy, 0, BOTH_AT_ONCE, LEN);
    expect_exchanged(&proxy, 1, CLIENT_FIRST, LEN);
    if (fault->ends_splice) {
        cr_assert(proxy_number(&proxy, "close", 0, "spliced_bytes") < LEN);
        cr_assert(proxy_number(&proxy, "close", 1, "spliced_bytes") == 0);
    }
    peer_close(listen_fd);
    proxy_finish(&proxy, 2);
}
