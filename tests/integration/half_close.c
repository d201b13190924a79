/* Half-close: one side ends its direction, the other goes on for as long as it likes (contract 2,
 * 3).
 *
 * Most proxies get this wrong by closing both sides at the first end of a stream. */
#include "support/ends.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1024 * 1024, UP = 1, DOWN = 2 };

struct half_case {
    int splice;        /* index of splice_names */
    bool server_first; /* the side that ends first */
    uint64_t bytes;    /* sent by it before its end */
};

struct legs {
    int client;
    int server;
    int first; /* the side that ends first ... */
    int other; /* ... and the one that goes on */
    uint64_t first_key;
    uint64_t other_key;
};

static void start(struct proxy *proxy, const struct half_case *with)
{
    const char *options[] = {"--splice", splice_names[with->splice], NULL};

    proxy_init(proxy);
    proxy_start_simple(proxy, options);
}

static struct legs name_legs(int client, int server, bool server_first)
{
    return (struct legs){
        .client = client,
        .server = server,
        .first = server_first ? server : client,
        .other = server_first ? client : server,
        .first_key = server_first ? DOWN : UP,
        .other_key = server_first ? UP : DOWN,
    };
}

static struct legs open_legs(const struct proxy *proxy, int origin, bool server_first)
{
    int client = peer_connect(proxy->ip, PROXY_PORT);

    return name_legs(client, peer_accept(origin), server_first);
}

static void close_legs(const struct legs *legs)
{
    peer_close(legs->client);
    peer_close(legs->server);
}

/* Sends from one side to the end of its stream while the other reads. */
static void send_to_end(int from, int to, uint64_t key, uint64_t len)
{
    struct peer_task task = {.fd = from, .key = key, .len = len, .shut_after = true};
    enum peer_end end;
    uint64_t received;

    peer_start_sending(&task);
    received = peer_drain(to, key, 0, &end);
    peer_join(&task);
    cr_assert(received == len, "%llu of %llu bytes", (unsigned long long)received,
              (unsigned long long)len);
    cr_assert(end == PEER_FIN, "a reset instead of FIN");
}

/* What the record of two clean ends says: `first` ended first, so the other one was last. */
static void expect_clean(struct proxy *proxy, size_t index, bool server_first, uint64_t bytes_up,
                         uint64_t bytes_down)
{
    struct expected_end end = {
        .reason = server_first ? "client-fin" : "server-fin",
        .closed_by = server_first ? "server" : "client",
        .how = "fin",
        .bytes_up = bytes_up,
        .bytes_down = bytes_down,
    };

    expect_end(proxy, index, &end);
}

static struct half_case both_sides[2 * SPLICE_MODES];

/* Each splice mode, with either side ending first (the client in the first half). */
static struct criterion_test_params make_both_sides(uint64_t bytes)
{
    for (int i = 0; i < 2 * SPLICE_MODES; i++) {
        both_sides[i] = (struct half_case){
            .splice = i % SPLICE_MODES, .server_first = i >= SPLICE_MODES, .bytes = bytes};
    }
    return cr_make_param_array(struct half_case, both_sides, 2 * SPLICE_MODES);
}

ParameterizedTestParameters(half_close, delivers_the_whole_reply_after_the_other_side_has_ended)
{
    return make_both_sides(MIB);
}

/* HC-01, HC-02. Goal: an end in one direction shortens nothing in the other. Method: 1 MiB and FIN
 * from one side; a pause longer than any accidental cut-off; 16 MiB and FIN from the other. */
ParameterizedTest(struct half_case *with, half_close,
                  delivers_the_whole_reply_after_the_other_side_has_ended)
{
    struct proxy proxy;
    struct legs legs;
    int origin;

    start(&proxy, with);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    legs = open_legs(&proxy, origin, with->server_first);

    send_to_end(legs.first, legs.other, legs.first_key, with->bytes);
    pause_ms(300);
    cr_assert(proxy_count_event(&proxy, "close") == 0, "ended while half-closed");
    send_to_end(legs.other, legs.first, legs.other_key, 16 * MIB);

    expect_clean(&proxy, 0, with->server_first, with->server_first ? 16 * MIB : MIB,
                 with->server_first ? MIB : 16 * MIB);
    close_legs(&legs);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

ParameterizedTestParameters(half_close, fin_stays_behind_the_bytes_of_a_blocked_direction)
{
    make_both_sides(0);
    return cr_make_param_array(struct half_case, both_sides, SPLICE_MODES);
}

/* The flush tests of Envoy. Goal: FIN does not overtake bytes that are stuck on the way. Method:
 * fill the way to a receiver that does not read until nothing more is taken, end, and only then
 * read; one connection for each direction. */
ParameterizedTest(struct half_case *with, half_close,
                  fin_stays_behind_the_bytes_of_a_blocked_direction)
{
    struct proxy proxy;
    struct legs legs[2];
    struct way ways[2];
    int origin;

    start(&proxy, with);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    for (int i = 0; i < 2; i++) {
        legs[i] = open_legs(&proxy, origin, i == 1);
        ways[i] = (struct way){
            .sender = legs[i].first, .receiver = legs[i].other, .key = legs[i].first_key};
    }
    block(ways, 2);
    for (size_t i = 0; i < 2; i++) {
        enum peer_end end;

        peer_shut(legs[i].first);
        cr_assert(peer_drain(legs[i].other, legs[i].first_key, 0, &end) == ways[i].sent);
        cr_assert(end == PEER_FIN);
        send_to_end(legs[i].other, legs[i].first, legs[i].other_key, KIB);
        expect_clean(&proxy, i, i == 1, i == 1 ? KIB : ways[i].sent, i == 1 ? ways[i].sent : KIB);
        close_legs(&legs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, 2);
}

ParameterizedTestParameters(half_close, delivers_the_banner_to_a_client_that_ends_at_once)
{
    return make_both_sides(KIB);
}

/* HC-04. Goal: a client that ends before it has sent a byte still gets what the server says.
 * Method: FIN right after connect; a banner of 1 KiB, sent before (server_first) or after the
 * server has seen that end. */
ParameterizedTest(struct half_case *with, half_close,
                  delivers_the_banner_to_a_client_that_ends_at_once)
{
    struct proxy proxy;
    int origin;
    int client;
    int server;

    start(&proxy, with);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    client = peer_connect(proxy.ip, PROXY_PORT);
    peer_shut(client);
    server = peer_accept(origin);
    if (with->server_first) {
        peer_send(server, DOWN, 0, with->bytes);
        peer_expect(client, DOWN, 0, with->bytes);
        peer_expect_end(server, PEER_FIN);
        peer_shut(server);
        peer_expect_end(client, PEER_FIN);
    } else {
        peer_expect_end(server, PEER_FIN);
        send_to_end(server, client, DOWN, with->bytes);
    }

    expect_clean(&proxy, 0, false, 0, with->bytes);
    peer_close(client);
    peer_close(server);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

ParameterizedTestParameters(half_close, keeps_bytes_and_fin_that_come_before_the_server_is_reached)
{
    static struct half_case cases[] = {
        {.splice = 0, .bytes = 0},
        {.splice = 1, .bytes = 64 * KIB},
        {.splice = 2, .bytes = 64 * KIB},
    };

    return cr_make_param_array(struct half_case, cases, sizeof(cases) / sizeof(cases[0]));
}

/* Goal: bytes and FIN from the time of connecting are passed on once the server is there. Method: a
 * server whose backlog is full, so that sluice's SYN goes unanswered; the client sends and ends;
 * then there is room, and the kernel's next SYN gets through. */
ParameterizedTest(struct half_case *with, half_close,
                  keeps_bytes_and_fin_that_come_before_the_server_is_reached)
{
    struct proxy proxy;
    enum peer_end end;
    int origin;
    int filler;
    int client;
    int server;

    /* Time enough for the test to see the attempt before it is given up, on a busy machine too. */
    proxy_init(&proxy);
    proxy_start_simple(&proxy, (const char *const[]){"--splice", splice_names[with->splice],
                                                     "--connect-timeout", "1m", NULL});
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    filler = fill_backlog(origin, proxy.ip, ORIGIN_PORT);
    client = peer_connect(proxy.ip, PROXY_PORT);
    peer_send(client, UP, 0, with->bytes);
    peer_shut(client);
    wait_acknowledged(client);
    wait_tcp_count(proxy.ip, ORIGIN_PORT, TCP_PLACE_SYN_SENT, 1);
    free_backlog(origin, filler);

    server = peer_accept(origin);
    cr_assert(peer_drain(server, UP, 0, &end) == with->bytes);
    cr_assert(end == PEER_FIN);
    send_to_end(server, client, DOWN, KIB);

    expect_clean(&proxy, 0, false, with->bytes, KIB);
    peer_close(client);
    peer_close(server);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* How both sides end while the worker is stopped. */
enum both_end { BOTH_SHUT, BOTH_CLOSE, BOTH_SEND_AND_SHUT, BOTH_ENDS };

ParameterizedTestParameters(half_close, ends_once_when_both_sides_end_in_one_batch)
{
    static int cases[SPLICE_MODES * BOTH_ENDS];

    for (int i = 0; i < SPLICE_MODES * BOTH_ENDS; i++) {
        cases[i] = i;
    }
    return cr_make_param_array(int, cases, SPLICE_MODES *BOTH_ENDS);
}

/* HC-10. Goal: two ends in one batch of events are one teardown and one record. Method: stop the
 * worker, end both sides, let it go on. */
ParameterizedTest(int *with, half_close, ends_once_when_both_sides_end_in_one_batch)
{
    struct half_case splice = {.splice = *with / BOTH_ENDS};
    enum both_end how = (enum both_end)(*with % BOTH_ENDS);
    uint64_t more = how == BOTH_SEND_AND_SHUT ? 64 * KIB : 0;
    struct proxy proxy;
    struct legs legs;
    int origin;

    start(&proxy, &splice);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    legs = open_legs(&proxy, origin, false);
    peer_send(legs.client, UP, 0, KIB);
    peer_expect(legs.server, UP, 0, KIB);
    peer_send(legs.server, DOWN, 0, KIB);
    peer_expect(legs.client, DOWN, 0, KIB);

    freeze(only_worker(&proxy));
    if (how == BOTH_CLOSE) {
        close_legs(&legs);
        wait_tcp_count(proxy.ip, PROXY_PORT, TCP_PLACE_FIN_WAIT2, 1);
        wait_tcp_count(proxy.ip, ORIGIN_PORT, TCP_PLACE_FIN_WAIT2, 1);
    } else {
        peer_send(legs.client, UP, KIB, more);
        peer_send(legs.server, DOWN, KIB, more);
        peer_shut(legs.client);
        peer_shut(legs.server);
        wait_acknowledged(legs.client);
        wait_acknowledged(legs.server);
    }
    thaw(only_worker(&proxy));
    if (how != BOTH_CLOSE) {
        peer_expect(legs.client, DOWN, KIB, more);
        peer_expect_end(legs.client, PEER_FIN);
        peer_expect(legs.server, UP, KIB, more);
        peer_expect_end(legs.server, PEER_FIN);
        close_legs(&legs);
    }
    /* Within one turn nobody was first; by rule the client is named. */
    expect_clean(&proxy, 0, false, KIB + more, KIB + more);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* HC-13, scaled from 10,000. Goal: nothing of a half-closed connection stays. Method: 2,000
 * exchanges one after the other, the first end alternating; then no socket in any state but
 * TIME_WAIT. */
Test(half_close, leaves_nothing_behind_after_two_thousand_exchanges)
{
    enum { EXCHANGES = 2000, LOOK_EVERY = 250 };
    const char *options[] = {"--splice", "auto", NULL};
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    proxy_start_simple(&proxy, options);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    for (size_t i = 0; i < EXCHANGES; i++) {
        struct legs legs = open_legs(&proxy, origin, i % 2 == 1);

        peer_send(legs.first, legs.first_key, 0, 10);
        peer_shut(legs.first);
        peer_expect(legs.other, legs.first_key, 0, 10);
        peer_expect_end(legs.other, PEER_FIN);
        peer_send(legs.other, legs.other_key, 0, 20);
        peer_shut(legs.other);
        peer_expect(legs.first, legs.other_key, 0, 20);
        peer_expect_end(legs.first, PEER_FIN);
        close_legs(&legs);
        if (i % LOOK_EVERY == 0) {
            expect_clean(&proxy, i, i % 2 == 1, i % 2 == 1 ? 20 : 10, i % 2 == 1 ? 10 : 20);
        }
    }
    proxy_wait_event(&proxy, "close", EXCHANGES);
    wait_tcp_count(proxy.ip, PROXY_PORT, TCP_PLACE_LAST_ACK, 0);
    cr_assert(count_tcp(proxy.ip) == 0, "%zu sockets stay", count_tcp(proxy.ip));
    peer_close(origin);
    proxy_finish(&proxy, EXCHANGES);
}
