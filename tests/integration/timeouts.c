/* Timeouts: each ends what it is for, not sooner and not much later, and is named in the record;
 * none of them costs anything while it waits (contract 5, 6). */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <string.h>

enum { KIB = 1024, UP = 1, DOWN = 2 };

static void start(struct proxy *proxy, const char *const options[], int *ret_origin)
{
    proxy_init(proxy);
    proxy_start_simple(proxy, options);
    *ret_origin = peer_listen(proxy->ip, ORIGIN_PORT, 8);
}

/* Both ends find a reset; how long after `since_ms` the later of them did. */
static uint64_t wait_for_reset(const struct pair *pair, uint64_t since_ms)
{
    pair_expect_reset(pair);
    pair_close(pair);
    return monotonic_ms() - since_ms;
}

/* TO-01. Goal: an idle connection ends between T and T + 50 % + 200 ms. Method: T = 1 s after the
 * last of some messages. */
Test(timeouts, idle_timeout_ends_an_idle_connection)
{
    enum { T_MS = 1000, AT_MOST_MS = T_MS + T_MS / 2 + 200 };
    struct expected_end end = {"idle-timeout", "proxy", "timeout", NULL, 500, 700, 0};
    struct proxy proxy;
    struct pair pair;
    uint64_t before_ms;
    uint64_t after_ms;
    uint64_t took_ms;
    int origin;

    start(&proxy, (const char *const[]){"--idle-timeout", "1s", NULL}, &origin);
    pair = pair_open(&proxy, origin);
    pause_ms(100);
    before_ms = monotonic_ms();
    pair_exchange(&pair, UP);
    after_ms = monotonic_ms();
    took_ms = wait_for_reset(&pair, before_ms);
    cr_assert(took_ms >= T_MS, "%llu ms", (unsigned long long)took_ms);
    cr_assert(took_ms - (after_ms - before_ms) <= AT_MOST_MS, "%llu ms",
              (unsigned long long)took_ms);
    expect_end(&proxy, 0, &end);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* TO-01. Goal: one direction is enough to keep a connection. Method: one byte every 100 ms for more
 * than three times idle-timeout, only up in one connection, only down in another; then silence. */
Test(timeouts, traffic_in_one_direction_is_not_idle)
{
    enum { BYTES = 20 };
    struct expected_end up = {"idle-timeout", "proxy", "timeout", NULL, BYTES, 0, 0};
    struct expected_end down = {"idle-timeout", "proxy", "timeout", NULL, 0, BYTES, 0};
    struct proxy proxy;
    struct pair pairs[2];
    bool up_first;
    int origin;

    start(&proxy, (const char *const[]){"--idle-timeout", "600ms", NULL}, &origin);
    pairs[0] = pair_open(&proxy, origin);
    pairs[1] = pair_open(&proxy, origin);
    for (uint64_t i = 0; i < BYTES; i++) {
        peer_send(pairs[0].client, UP, i, 1);
        peer_expect(pairs[0].server, UP, i, 1);
        peer_send(pairs[1].server, DOWN, i, 1);
        peer_expect(pairs[1].client, DOWN, i, 1);
        pause_ms(100);
    }
    cr_assert(proxy_count_event(&proxy, "close") == 0, "ended in the middle of traffic");
    (void)wait_for_reset(&pairs[0], 0);
    (void)wait_for_reset(&pairs[1], 0);
    proxy_wait_event(&proxy, "close", 2);
    up_first = proxy_number(&proxy, "close", 0, "bytes_up") == BYTES;
    expect_end(&proxy, up_first ? 0 : 1, &up);
    expect_end(&proxy, up_first ? 1 : 0, &down);
    peer_close(origin);
    proxy_finish(&proxy, 2);
}

static void end_one_side(const struct pair *pair)
{
    peer_send(pair->client, UP, 0, KIB);
    peer_shut(pair->client);
    peer_expect(pair->server, UP, 0, KIB);
    peer_expect_end(pair->server, PEER_FIN);
}

static void end_other_side(const struct pair *pair)
{
    peer_send(pair->server, DOWN, 0, KIB);
    peer_shut(pair->server);
    peer_expect(pair->client, DOWN, 0, KIB);
    peer_expect_end(pair->client, PEER_FIN);
    pair_close(pair);
}

/* Goal: idle-timeout is for connections of which both directions are open; a half-closed one waits
 * for fin-timeout. Method: both kinds, idle-timeout short, fin-timeout long. */
Test(timeouts, idle_timeout_does_not_end_a_half_closed_connection)
{
    struct expected_end idle = {"idle-timeout", "proxy", "timeout", NULL, 0, 0, 0};
    struct expected_end clean = {"server-fin", "client", "fin", NULL, KIB, KIB, 0};
    struct proxy proxy;
    struct pair open;
    struct pair half;
    int origin;

    start(&proxy, (const char *const[]){"--idle-timeout", "300ms", "--fin-timeout", "1h", NULL},
          &origin);
    half = pair_open(&proxy, origin);
    end_one_side(&half);
    open = pair_open(&proxy, origin);
    (void)wait_for_reset(&open, 0);
    pause_ms(600);
    expect_end(&proxy, 0, &idle);
    cr_assert(proxy_count_event(&proxy, "close") == 1, "%s", proxy.log);
    end_other_side(&half);
    expect_end(&proxy, 1, &clean);
    peer_close(origin);
    proxy_finish(&proxy, 2);
}

/* The mirror: fin-timeout is for half-closed connections only, and is named in their record. */
Test(timeouts, fin_timeout_ends_a_half_closed_connection_only)
{
    enum { T_MS = 500, AT_MOST_MS = T_MS + T_MS / 2 + 200 };
    struct expected_end fin = {"fin-timeout", "proxy", "timeout", NULL, KIB, 0, 0};
    struct proxy proxy;
    struct pair open;
    struct pair half;
    uint64_t before_ms;
    uint64_t took_ms;
    int origin;

    start(&proxy, (const char *const[]){"--idle-timeout", "1h", "--fin-timeout", "500ms", NULL},
          &origin);
    open = pair_open(&proxy, origin);
    pair_exchange(&open, UP);
    half = pair_open(&proxy, origin);
    before_ms = monotonic_ms();
    end_one_side(&half);
    peer_expect_end(half.client, PEER_RESET);
    took_ms = monotonic_ms() - before_ms;
    expect_broken(half.server);
    pair_close(&half);
    cr_assert(took_ms >= T_MS && took_ms <= AT_MOST_MS, "%llu ms", (unsigned long long)took_ms);
    expect_end(&proxy, 0, &fin);
    pair_exchange(&open, UP);
    pair_end(&open);
    expect_reason(&proxy, 1, "server-fin", "client", "fin", NULL);
    peer_close(origin);
    proxy_finish(&proxy, 2);
}

/* CF-09. Goal: a server whose backlog is full and stays so costs connect-timeout, and is counted as
 * one that does not answer. */
Test(timeouts, connect_timeout_ends_the_wait_for_a_full_backlog)
{
    enum { T_MS = 400, AT_MOST_MS = T_MS + T_MS / 2 + 200 };
    struct expected_end end = {"connect-timeout", "proxy", "timeout", "ETIMEDOUT", 0, 0, 0};
    struct proxy proxy;
    double took_ms;
    int client;
    int origin;
    int filler;

    start(&proxy, (const char *const[]){"--connect-timeout", "400ms", NULL}, &origin);
    filler = fill_backlog(origin, proxy.ip, ORIGIN_PORT);
    client = peer_connect(proxy.ip, PROXY_PORT);
    peer_send(client, UP, 0, KIB);
    peer_expect_end(client, PEER_RESET);
    expect_end(&proxy, 0, &end);
    took_ms = record_ms(&proxy, 0, "duration_s");
    cr_assert(took_ms >= T_MS && took_ms <= AT_MOST_MS, "%f ms", took_ms);
    peer_close(client);
    peer_close(filler);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

ParameterizedTestParameters(timeouts, huge_ones_and_none_cost_nothing)
{
    static int sets[] = {0, 1};

    return cr_make_param_array(int, sets, 2);
}

/* Goal: the largest times do not overflow into short ones or into a spin, and `off` is off. Method:
 * an open and a half-closed connection, both idle, while the CPU time is watched; then both
 * go on. */
ParameterizedTest(int *set, timeouts, huge_ones_and_none_cost_nothing)
{
    enum { QUIET_MS = 500, CPU_MS = 60 };
    static const char *const options[][20] = {
        {"--idle-timeout", "365d", "--fin-timeout", "365d", "--drain-timeout", "365d",
         "--connect-timeout", "1h", "--user-timeout", "24d", "--keepalive-idle", "32767s",
         "--keepalive-interval", "32767s", NULL},
        {"--idle-timeout", "off", "--user-timeout", "off", "--keepalive-idle", "off", NULL},
    };
    struct proxy proxy;
    struct pair open;
    struct pair half;
    uint64_t used_ms;
    int origin;

    start(&proxy, options[*set], &origin);
    open = pair_open(&proxy, origin);
    half = pair_open(&proxy, origin);
    pair_exchange(&open, UP);
    end_one_side(&half);
    used_ms = proxy_cpu_ms(&proxy);
    pause_ms(QUIET_MS);
    used_ms = proxy_cpu_ms(&proxy) - used_ms;
    cr_assert(used_ms < CPU_MS, "%llu ms of CPU in %d quiet ms", (unsigned long long)used_ms,
              QUIET_MS);
    cr_assert(proxy_count_event(&proxy, "close") == 0, "%s", proxy.log);
    pair_exchange(&open, UP);
    pair_end(&open);
    end_other_side(&half);
    expect_reason(&proxy, 0, "server-fin", "client", "fin", NULL);
    expect_reason(&proxy, 1, "server-fin", "client", "fin", NULL);
    peer_close(origin);
    proxy_finish(&proxy, 2);
}

/* Goal: a worker that was stopped for longer than idle-timeout ends what was idle, once, and
 * nothing else: what has come in the meantime is looked at before time is. Method: three
 * connections; while the worker is stopped, one sends up, one sends down, one is silent. */
Test(timeouts, a_stopped_worker_looks_at_what_has_come_before_it_looks_at_the_clock)
{
    struct expected_end idle = {"idle-timeout", "proxy", "timeout", NULL, 0, 0, 0};
    struct proxy proxy;
    struct pair up;
    struct pair down;
    struct pair silent;
    int origin;

    start(&proxy, (const char *const[]){"--idle-timeout", "500ms", NULL}, &origin);
    up = pair_open(&proxy, origin);
    down = pair_open(&proxy, origin);
    silent = pair_open(&proxy, origin);
    freeze(only_worker(&proxy));
    peer_send(up.client, UP, 0, KIB);
    peer_send(down.server, DOWN, 0, KIB);
    pause_ms(1200);
    thaw(only_worker(&proxy));

    peer_expect(up.server, UP, 0, KIB);
    peer_expect(down.client, DOWN, 0, KIB);
    (void)wait_for_reset(&silent, 0);
    expect_end(&proxy, 0, &idle);
    pair_exchange(&up, UP);
    pair_exchange(&down, UP);
    pair_end(&up);
    pair_end(&down);
    peer_close(origin);
    proxy_finish(&proxy, 3);
}

/* The same for connect-timeout: a server that has accepted in time has been reached, although
 * sluice comes to know of it late. */
Test(timeouts, a_stopped_worker_keeps_the_server_that_has_accepted_meanwhile)
{
    struct proxy proxy;
    struct pair pair;
    int origin;
    int filler;

    /* Longer than the second after which the kernel sends its next SYN. */
    start(&proxy, (const char *const[]){"--connect-timeout", "2s", NULL}, &origin);
    filler = fill_backlog(origin, proxy.ip, ORIGIN_PORT);
    pair.client = peer_connect(proxy.ip, PROXY_PORT);
    wait_tcp_count(proxy.ip, ORIGIN_PORT, TCP_PLACE_SYN_SENT, 1);
    freeze(only_worker(&proxy));
    free_backlog(origin, filler);
    pair.server = peer_accept(origin);
    pause_ms(1500);
    thaw(only_worker(&proxy));

    pair_exchange(&pair, UP);
    pair_end(&pair);
    expect_reason(&proxy, 0, "server-fin", "client", "fin", NULL);
    cr_assert(proxy_number(&proxy, "close", 0, "retries") == 0);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}
