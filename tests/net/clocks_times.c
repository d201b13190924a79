/* Clocks and timeouts: whatever the clocks do, and whatever pair of times is configured, connections
 * live as long as they should, and nothing spins. */
#include "support/ends.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"
#include "support/shim.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* --- the time of day --- */

static char shim[SHIM_PATH_BYTES]; /* for preload(), which takes no argument */
static char offset_path[64];

static void preload(void)
{
    (void)setenv("LD_PRELOAD", shim, 1);
    (void)setenv("CLOCK_JUMPS_FILE", offset_path, 1);
}

static volatile int64_t *map_offset(void)
{
    int64_t zero = 0;
    void *memory;
    int fd;

    (void)snprintf(offset_path, sizeof(offset_path), "/tmp/sluice-clock.%d", getpid());
    fd = open(offset_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, &zero, sizeof(zero)) == sizeof(zero));
    memory = mmap(NULL, sizeof(zero), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert(memory != MAP_FAILED);
    (void)close(fd);
    return memory;
}

/* When a line says it was written, in seconds; lines begin with 2026-11-22T18:43:33. */
static time_t stamp_of(const struct proxy *proxy, const char *event, size_t index)
{
    const char *line = proxy->log;
    struct tm utc = {0};

    for (;;) {
        const char *space = strchr(line, ' ');

        cr_assert(space != NULL, "no line %zu of %s:\n%s", index, event, proxy->log);
        if (strncmp(space + 1, event, strlen(event)) == 0 && index-- == 0) {
            break;
        }
        line = strchr(line, '\n') + 1;
    }
    cr_assert(strptime(line, "%Y-%m-%dT%H:%M:%S", &utc) != NULL, "%s", line);
    return timegm(&utc);
}

/* TO-05: the time of day jumps an hour forth, two hours back, and far into the future, while
 * connections are open. Only the stamps in the log move: durations are right, no timeout strikes
 * early, and the one that is due strikes in time. */
Test(clocks, a_jump_of_the_time_of_day_moves_only_the_stamps)
{
    static const int64_t offsets_s[] = {3600, -3600, 20LL * 365 * 24 * 3600, 0};
    enum { JUMPS = 4, TOLERANCE_S = 60, IDLE_MS = 1500, IDLE_MAX_MS = 20000 };
    volatile int64_t *offset_s;
    struct proxy proxy;
    struct pair lasting;
    struct pair idle;
    uint64_t start_ms;
    int origin;

    shim_find("clock_jumps", shim);
    offset_s = map_offset();
    proxy_init(&proxy);
    proxy.in_child = preload;
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    proxy_start_simple(&proxy, (const char *const[]){"--idle-timeout", "1500ms", NULL});
    cr_assert(unlink(offset_path) == 0);
    lasting = pair_open(&proxy, origin);
    for (size_t i = 0; i < JUMPS; i++) {
        struct pair pair = pair_open(&proxy, origin);
        time_t stamp;

        *offset_s = offsets_s[i];
        pair_exchange(&lasting, i);
        pair_exchange(&pair, i);
        pair_end(&pair);
        proxy_wait_event(&proxy, "close", i + 1);
        proxy_expect_field(&proxy, "close", i, "reason", "server-fin");
        cr_assert(record_ms(&proxy, i, "duration_s") < IDLE_MS, "%s", proxy.log);
        stamp = stamp_of(&proxy, "close", i);
        cr_assert(llabs((long long)(stamp - time(NULL)) - offsets_s[i]) <= TOLERANCE_S, "%s",
                  proxy.log);
    }
    pair_exchange(&lasting, 9);
    pair_end(&lasting);
    start_ms = monotonic_ms();
    idle = pair_open(&proxy, origin);
    *offset_s = -7200;
    pair_expect_reset(&idle);
    cr_assert(monotonic_ms() - start_ms >= IDLE_MS && monotonic_ms() - start_ms < IDLE_MAX_MS);
    pair_close(&idle);
    expect_reason(&proxy, JUMPS + 1, "idle-timeout", "proxy", "timeout", NULL);
    cr_assert(record_ms(&proxy, JUMPS + 1, "duration_s") < IDLE_MAX_MS);
    peer_close(origin);
    proxy_finish(&proxy, JUMPS + 2);
}

/* --- the clock that only goes forward --- */

/* Children from here on live in a time namespace with this offset. */
static void offset_monotonic(long long offset_s)
{
    FILE *file;

    if (geteuid() != 0) {
        cr_skip_test("needs root, for a time namespace");
    }
    if (unshare(CLONE_NEWTIME) < 0) {
        cr_skip_test("no time namespace to be had: %s", strerror(errno));
    }
    file = fopen("/proc/self/timens_offsets", "we");
    cr_assert(file != NULL && fprintf(file, "monotonic %lld 0\n", offset_s) > 0 &&
                  fclose(file) == 0,
              "timens_offsets: %s", strerror(errno));
}

/* One connection to its clean end, one that idle-timeout ends in time. */
static void live_with_offset(long long offset_s)
{
    enum { IDLE_MS = 400, IDLE_MAX_MS = 20000 };
    struct proxy proxy;
    struct pair pair;
    uint64_t start_ms;
    double took_ms;
    int origin;

    offset_monotonic(offset_s);
    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    proxy_start_simple(&proxy, (const char *const[]){"--idle-timeout", "400ms", NULL});
    pair = pair_open(&proxy, origin);
    pair_exchange(&pair, 1);
    pair_end(&pair);
    start_ms = monotonic_ms();
    pair = pair_open(&proxy, origin);
    pair_expect_reset(&pair);
    took_ms = (double)(monotonic_ms() - start_ms);
    cr_assert(took_ms >= IDLE_MS && took_ms < IDLE_MAX_MS, "%f ms", took_ms);
    pair_close(&pair);
    expect_reason(&proxy, 1, "idle-timeout", "proxy", "timeout", NULL);
    peer_close(origin);
    proxy_finish(&proxy, 2);
}

/* A machine that has been up for as long as 32 bits of milliseconds count, and for a century. */
Test(clocks, works_when_the_machine_is_up_for_49_days)
{
    live_with_offset((1LL << 32) / 1000 - time(NULL) % 2);
}

Test(clocks, works_when_the_machine_is_up_for_a_century)
{
    live_with_offset(100LL * 365 * 24 * 3600);
}

/* --- pairs of times --- */

static const char *const times[] = {"off", "0s", "1ms", "300ms", "1h", "24d", "365d"};
enum { TIMES = 7, LOOK_MS = 100, LOOK_CPU_MS = 60 };

/* A client that only looks on for a while, in which nothing may spin. */
static int look_at_client(const struct proxy *proxy)
{
    int client = peer_connect(proxy->ip, PROXY_PORT);
    uint64_t cpu_ms = proxy_cpu_ms(proxy);

    pause_ms(LOOK_MS);
    cpu_ms = proxy_cpu_ms(proxy) - cpu_ms;
    cr_assert(cpu_ms <= LOOK_CPU_MS, "%llu ms of CPU in %d ms:\n%s", (unsigned long long)cpu_ms,
              LOOK_MS, proxy->log);
    return client;
}

/* The two settings as given: refused with a message, or it works: it does not spin, it ends, and it
 * has counted each connection as ended. True if sluice accepts the pair. */
static bool try_pair(const char *connect_timeout, const char *idle_timeout)
{
    const char *arguments[] = {
        "--workers",      "1",          NULL, "--connect-timeout", connect_timeout,
        "--idle-timeout", idle_timeout, NULL};
    struct proxy proxy;
    int origin;
    int client;
    int late;
    int filler;

    proxy_init(&proxy);
    arguments[2] = proxy.arg;
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    proxy_launch(&proxy, arguments);
    while (proxy_read_log(&proxy, 20) && proxy_count_event(&proxy, "start") == 0) {}
    if (proxy_count_event(&proxy, "start") == 0) {
        int status = proxy_wait_for_end(&proxy);

        cr_assert(status == 2, "%s, %s: status %d\n%s", connect_timeout, idle_timeout, status,
                  proxy.log);
        cr_assert(strstr(proxy.log, "expected") != NULL, "%s", proxy.log);
        peer_close(origin);
        free(proxy.log);
        return false;
    }
    client = look_at_client(&proxy); /* of a server that has a backlog */
    while (peer_readable(origin, 0)) {
        peer_close(peer_accept(origin));
    }
    filler = fill_backlog(origin, proxy.ip, ORIGIN_PORT);
    late = look_at_client(&proxy); /* of one that gives no answer */
    peer_close(client);
    peer_close(late);
    peer_close(filler);
    peer_close(origin);
    cr_assert(kill(proxy.pid, SIGTERM) == 0);
    proxy_wait_event(&proxy, "drain", 1);
    (void)kill(proxy.pid, SIGTERM); /* it may have ended by itself */
    cr_assert(proxy_wait_for_end(&proxy) == 0, "%s", proxy.log);
    cr_assert(proxy_number(&proxy, "end", 0, "connections_accepted") ==
              proxy_number(&proxy, "end", 0, "connections_closed"));
    free(proxy.log);
    return true;
}

/* TO-03: each pair of connect-timeout and idle-timeout, from none to a year. */
Test(clocks, every_pair_of_times_works_or_is_refused)
{
    unsigned accepted = 0;

    for (size_t i = 0; i < TIMES; i++) {
        for (size_t k = 0; k < TIMES; k++) {
            accepted += try_pair(times[i], times[k]);
        }
    }
    (void)fprintf(stderr, "  %u of %d pairs are accepted\n", accepted, TIMES * TIMES);
    cr_assert(accepted > 0 && accepted < TIMES * TIMES);
}

/* --- an end and a timer in one turn --- */

/* TO-09: while the worker is stopped, the idle timers of all connections come due, and at the same
 * time a third of the clients has sent, a third has reset, a third is silent. One turn of the loop
 * meets both for each: those who sent go on, and each of the others ends once. */
Test(clocks, timers_and_events_of_one_turn_end_each_connection_once)
{
    enum { PAIRS = 60, IDLE_MS = 500 };
    struct pair pairs[PAIRS];
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
    proxy_start_simple(&proxy, (const char *const[]){"--idle-timeout", "500ms", NULL});
    for (size_t i = 0; i < PAIRS; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    freeze(only_worker(&proxy));
    for (size_t i = 0; i < PAIRS; i++) {
        if (i % 3 == 0) {
            peer_send(pairs[i].client, i, 0, 100);
        } else if (i % 3 == 1) {
            peer_reset(pairs[i].client);
        }
    }
    pause_ms(2 * IDLE_MS);
    thaw(only_worker(&proxy));
    for (size_t i = 0; i < PAIRS; i++) {
        if (i % 3 == 0) {
            peer_expect(pairs[i].server, i, 0, 100);
            pair_end(&pairs[i]);
            continue;
        }
        peer_expect_end(pairs[i].server, PEER_RESET);
        peer_close(pairs[i].server);
        if (i % 3 == 2) {
            peer_expect_end(pairs[i].client, PEER_RESET);
            peer_close(pairs[i].client);
        }
    }
    peer_close(origin);
    proxy_finish(&proxy, PAIRS);
}
