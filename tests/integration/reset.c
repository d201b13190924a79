/* Abnormal ends: what was received before one is delivered, then the other side is reset too, and
 * what could not be delivered is counted (contract 1, 2, 10). Never is such an end shown as a clean
 * FIN. */
#include "support/ends.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KIB = 1024, MIB = 1024 * 1024, UP = 1, DOWN = 2 };

struct setup {
    struct proxy proxy;
    int origin;
    int client;
    int server;
};

static void start(struct setup *setup, int splice, const char *option, const char *value)
{
    const char *options[] = {"--splice", splice_names[splice], option, value, NULL};

    proxy_init(&setup->proxy);
    proxy_start_simple(&setup->proxy, options);
    setup->origin = peer_listen(setup->proxy.ip, ORIGIN_PORT, 8);
}

static void open_connection(struct setup *setup)
{
    setup->client = peer_connect(setup->proxy.ip, PROXY_PORT);
    setup->server = peer_accept(setup->origin);
}

static void start_connected(struct setup *setup, int splice)
{
    start(setup, splice, NULL, NULL);
    open_connection(setup);
}

static void finish(struct setup *setup, size_t connections)
{
    peer_close(setup->origin);
    proxy_finish(&setup->proxy, connections);
}

/* One direction of the connection that was opened last. */
static struct way make_way(const struct setup *setup, bool is_up)
{
    return (struct way){
        .sender = is_up ? setup->client : setup->server,
        .receiver = is_up ? setup->server : setup->client,
        .key = is_up ? UP : DOWN,
        .is_up = is_up,
    };
}

static const char *sender_name(const struct way *way)
{
    return way->is_up ? "client" : "server";
}

static const char *receiver_name(const struct way *way)
{
    return way->is_up ? "server" : "client";
}

/* A record of a connection that ended while `way` was blocked, and carried `back` bytes back. */
static void expect_cut(struct setup *setup, size_t index, const struct way *way, uint64_t back,
                       struct expected_end end)
{
    cr_assert(way_passed_on(way) <= way_taken(way));
    end.bytes_up = way->is_up ? way_passed_on(way) : back;
    end.bytes_down = way->is_up ? back : way_passed_on(way);
    end.undelivered_bytes = way_undelivered(way);
    expect_end(&setup->proxy, index, &end);
}

static struct expected_end reset_end(const char *who, const char *error)
{
    return (struct expected_end){
        .reason = strcmp(who, "client") == 0 ? "client-reset" : "server-reset",
        .closed_by = who,
        .how = "rst",
        .error = error,
    };
}

/* The parameter of most tests: splice mode, direction, and a variant. */
struct reset_case {
    int splice;
    bool is_up;
    int variant;
};

enum { CASES_MAX = 64 };

/* Every combination of these. */
static struct criterion_test_params make_cases(int directions, int variants)
{
    static struct reset_case cases[CASES_MAX];
    int count = SPLICE_MODES * directions * variants;

    cr_assert(count <= CASES_MAX);
    for (int i = 0; i < count; i++) {
        cases[i] = (struct reset_case){
            .splice = i % SPLICE_MODES,
            .is_up = i / SPLICE_MODES % directions == 1,
            .variant = i / SPLICE_MODES / directions,
        };
    }
    return cr_make_param_array(struct reset_case, cases, (size_t)count);
}

/* Sends `len` bytes to a slow receiver, waits until sluice's kernel has all of them, and resets. */
static void send_then_reset(struct setup *setup, bool is_up, uint64_t len)
{
    struct way way;
    struct peer_task sending;
    struct peer_task receiving;

    open_connection(setup);
    way = make_way(setup, is_up);
    peer_send(way.receiver, 3, 0, 1); /* now sluice knows that both sides are there */
    peer_expect(way.sender, 3, 0, 1);
    sending = (struct peer_task){.fd = way.sender, .key = way.key, .len = len};
    receiving = (struct peer_task){.fd = way.receiver,
                                   .key = way.key,
                                   .to_end = true,
                                   .chunk_max = 64 * KIB,
                                   .pause_us = 1000};
    peer_start_sending(&sending);
    peer_start_receiving(&receiving);
    peer_join(&sending);
    wait_acknowledged(way.sender);
    peer_reset(way.sender);
    peer_join(&receiving);
    cr_assert(receiving.len == len, "%llu of %llu bytes", (unsigned long long)receiving.len,
              (unsigned long long)len);
    cr_assert(receiving.end == PEER_RESET, "a clean end after %llu bytes", (unsigned long long)len);
    peer_close(way.receiver);
}

ParameterizedTestParameters(reset, delivers_exactly_what_came_before_a_reset_and_then_resets)
{
    return make_cases(2, 1);
}

/* Goal: a reset neither overtakes bytes nor turns into FIN. Method: N bytes that sluice's kernel
 * has acknowledged, then RST; the other side gets N bytes, then ECONNRESET; both directions, slow
 * reader. */
ParameterizedTest(struct reset_case *with, reset,
                  delivers_exactly_what_came_before_a_reset_and_then_resets)
{
    static const uint64_t sizes[] = {0, 1, 100000, 4 * MIB};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };
    struct setup setup;

    start(&setup, with->splice, NULL, NULL);
    for (size_t i = 0; i < SIZES; i++) {
        struct expected_end end = reset_end(with->is_up ? "client" : "server", "ECONNRESET");

        send_then_reset(&setup, with->is_up, sizes[i]);
        end.bytes_up = with->is_up ? sizes[i] : 1;
        end.bytes_down = with->is_up ? 1 : sizes[i];
        expect_end(&setup.proxy, i, &end);
    }
    finish(&setup, SIZES);
}

ParameterizedTestParameters(reset, delivers_the_answer_of_a_server_that_closes_with_unread_input)
{
    return make_cases(1, 1);
}

/* Goal: an early answer ("413, too large") reaches the client although the server's close(2)
 * resets. Method: the client's upload fills the way; the server reads 1,000 bytes, answers
 * and closes. */
ParameterizedTest(struct reset_case *with, reset,
                  delivers_the_answer_of_a_server_that_closes_with_unread_input)
{
    enum { READ = 1000, ANSWER = 100000 };
    struct setup setup;
    struct way up;
    enum peer_end end;

    start_connected(&setup, with->splice);
    up = make_way(&setup, true);
    block(&up, 1);
    peer_expect(setup.server, UP, 0, READ);
    up.read = READ;
    peer_send(setup.server, DOWN, 0, ANSWER);
    wait_acknowledged(setup.server);
    block(&up, 1);
    peer_close(setup.server);

    cr_assert(peer_drain(setup.client, DOWN, 0, &end) == ANSWER);
    cr_assert(end == PEER_RESET);
    expect_cut(&setup, 0, &up, ANSWER, reset_end("server", "ECONNRESET"));
    peer_close(setup.client);
    finish(&setup, 1);
}

/* Opens a connection for each direction, and names the direction in question. */
static void open_ways(struct setup *setup, struct way ways[2])
{
    for (int i = 0; i < 2; i++) {
        open_connection(setup);
        ways[i] = make_way(setup, i == 1);
    }
}

ParameterizedTestParameters(reset, the_receiver_of_a_blocked_direction_resets)
{
    return make_cases(1, 1);
}

/* Goal: bytes stuck in sluice go with the receiver they were for; the sender is told; the record
 * counts them to the byte. Method: fill both a way up and a way down, reset their far ends. */
ParameterizedTest(struct reset_case *with, reset, the_receiver_of_a_blocked_direction_resets)
{
    struct setup setup;
    struct way ways[2];

    start(&setup, with->splice, NULL, NULL);
    open_ways(&setup, ways);
    block(ways, 2);
    for (size_t i = 0; i < 2; i++) {
        peer_reset(ways[i].receiver);
        peer_expect_end(ways[i].sender, PEER_RESET);
        expect_cut(&setup, i, &ways[i], 0, reset_end(receiver_name(&ways[i]), "ECONNRESET"));
        peer_close(ways[i].sender);
    }
    finish(&setup, 2);
}

ParameterizedTestParameters(reset, the_sender_of_a_blocked_direction_resets)
{
    return make_cases(1, 1);
}

/* Goal: what sluice and its kernel hold of a sender that is gone still goes to a receiver that
 * wakes up late. Method: fill both ways, reset their near ends, see that nothing is over yet, then
 * read. */
ParameterizedTest(struct reset_case *with, reset, the_sender_of_a_blocked_direction_resets)
{
    struct setup setup;
    struct way ways[2];

    start(&setup, with->splice, NULL, NULL);
    open_ways(&setup, ways);
    block(ways, 2);
    peer_reset(ways[0].sender);
    peer_reset(ways[1].sender);
    pause_ms(100);
    cr_assert(proxy_count_event(&setup.proxy, "close") == 0, "ended with undelivered bytes");
    for (size_t i = 0; i < 2; i++) {
        struct expected_end end = reset_end(sender_name(&ways[i]), "ECONNRESET");
        uint64_t arrived = way_arrived(&ways[i]);

        peer_expect(ways[i].receiver, ways[i].key, 0, arrived);
        peer_expect_end(ways[i].receiver, PEER_RESET);
        end.bytes_up = ways[i].is_up ? arrived : 0;
        end.bytes_down = ways[i].is_up ? 0 : arrived;
        expect_end(&setup.proxy, i, &end);
        peer_close(ways[i].receiver);
    }
    finish(&setup, 2);
}

/* Goal: the reset follows the last byte also for a slow reader that goes on talking. Method: fill
 * the way down, reset its near end, read all but what fits into sluice's socket; then the client
 * sends small messages, each of which is an event, before it reads the rest. */
Test(reset, the_reset_is_not_put_off_by_a_receiver_that_goes_on_sending)
{
    enum { LAST = 1500 * KIB, MESSAGES = 30, BOUND_MS = 5000 };
    struct setup setup;
    struct way down;
    uint64_t start_ms;

    start(&setup, 0, NULL, NULL);
    setup.client = peer_connect_small(setup.proxy.ip, PROXY_PORT, 16 * KIB, 16 * KIB);
    setup.server = peer_accept(setup.origin);
    down = make_way(&setup, false);
    block(&down, 1);
    peer_reset(setup.server);
    peer_expect(setup.client, DOWN, 0, way_arrived(&down) - LAST);
    for (uint64_t i = 0; i < MESSAGES; i++) {
        pause_ms(3);
        peer_send(setup.client, UP, i, 1);
    }
    start_ms = monotonic_ms();
    peer_expect(setup.client, DOWN, way_arrived(&down) - LAST, LAST);
    peer_expect_end(setup.client, PEER_RESET);
    cr_assert(monotonic_ms() - start_ms < BOUND_MS, "the reset came after %llu ms",
              (unsigned long long)(monotonic_ms() - start_ms));
    peer_close(setup.client);
    finish(&setup, 1);
}

ParameterizedTestParameters(reset, a_reset_behind_fin_stops_the_other_direction)
{
    return make_cases(1, 1);
}

/* HC-11. Goal: a side that has half-closed and then resets takes the other direction with it.
 * Method: FIN from the receiver, fill the way to it, then RST from it; both directions. */
ParameterizedTest(struct reset_case *with, reset, a_reset_behind_fin_stops_the_other_direction)
{
    struct setup setup;
    struct way ways[2];

    start(&setup, with->splice, NULL, NULL);
    open_ways(&setup, ways);
    for (size_t i = 0; i < 2; i++) {
        peer_send(ways[i].receiver, 3, 0, KIB);
        peer_shut(ways[i].receiver);
        peer_expect(ways[i].sender, 3, 0, KIB);
        peer_expect_end(ways[i].sender, PEER_FIN);
    }
    block(ways, 2);
    for (size_t i = 0; i < 2; i++) {
        peer_reset(ways[i].receiver);
        expect_broken(ways[i].sender);
        /* EPIPE is what Linux stores for a reset of a connection that has had its FIN. */
        expect_cut(&setup, i, &ways[i], KIB, reset_end(receiver_name(&ways[i]), "EPIPE"));
        peer_close(ways[i].sender);
    }
    finish(&setup, 2);
}

/* Ends of sluice's own making; the peers are in the middle of a transfer. */
enum cut { CUT_IDLE, CUT_FIN_TIMEOUT, CUT_DRAIN, CUT_STOP, CUT_KILLED, CUTS };

ParameterizedTestParameters(reset, an_end_of_sluice_s_own_making_is_shown_as_a_reset)
{
    static struct reset_case cases[2 * CUTS];

    /* Bulk is spliced in auto as it is in always. */
    for (int i = 0; i < 2 * CUTS; i++) {
        cases[i] = (struct reset_case){.splice = i % 2 == 0 ? 0 : 2, .variant = i / 2};
    }
    return cr_make_param_array(struct reset_case, cases, 2 * CUTS);
}

static const struct {
    const char *option;
    const char *value;
    struct expected_end end;
} cuts[CUTS] = {
    [CUT_IDLE] = {"--idle-timeout", "1s", {"idle-timeout", "proxy", "timeout", NULL, 0, 0, 0}},
    [CUT_FIN_TIMEOUT] = {"--fin-timeout",
                         "300ms",
                         {"fin-timeout", "proxy", "timeout", NULL, 0, 0, 0}},
    [CUT_DRAIN] = {"--drain-timeout", "100ms", {"drain", "proxy", "admin", NULL, 0, 0, 0}},
    [CUT_STOP] = {"--drain-timeout", "1h", {"drain", "proxy", "admin", NULL, 0, 0, 0}},
    [CUT_KILLED] = {NULL, NULL, {NULL, NULL, NULL, NULL, 0, 0, 0}},
};

/* Does what brings that end about, apart from waiting. */
static void bring_about(struct setup *setup, enum cut cut)
{
    switch (cut) {
    case CUT_IDLE:
    case CUT_FIN_TIMEOUT:
    case CUTS:
        return;
    case CUT_STOP:
        cr_assert(kill(setup->proxy.pid, SIGTERM) == 0);
        proxy_wait_event(&setup->proxy, "drain", 1);
        cr_assert(proxy_stop(&setup->proxy, SIGTERM) == 0);
        return;
    case CUT_DRAIN:
        cr_assert(proxy_stop(&setup->proxy, SIGTERM) == 0);
        return;
    case CUT_KILLED:
        cr_assert(kill(only_worker(&setup->proxy), SIGKILL) == 0);
        proxy_wait_event(&setup->proxy, "worker-died", 1);
        cr_assert(proxy_number(&setup->proxy, "worker-died", 0, "connections_lost") == 1);
        return;
    }
}

/* Goal: nobody mistakes a cut for the end of the stream. Method: a download whose client does not
 * read; idle-timeout, fin-timeout, drain-timeout, a second TERM, or a worker killed with -9 end it;
 * the client then finds what its kernel has, and a reset; the server a reset. */
ParameterizedTest(struct reset_case *with, reset, an_end_of_sluice_s_own_making_is_shown_as_a_reset)
{
    enum cut cut = (enum cut)with->variant;
    struct setup setup;
    struct way down;

    start(&setup, with->splice, cuts[cut].option, cuts[cut].value);
    open_connection(&setup);
    down = make_way(&setup, false);
    block(&down, 1);
    if (cut == CUT_FIN_TIMEOUT) {
        peer_shut(setup.client);
        peer_expect_end(setup.server, PEER_FIN);
    }
    bring_about(&setup, cut);
    if (cut == CUT_FIN_TIMEOUT) {
        expect_broken(setup.server);
    } else {
        peer_expect_end(setup.server, PEER_RESET);
    }
    if (cut != CUT_KILLED) {
        expect_cut(&setup, 0, &down, 0, cuts[cut].end);
    }
    peer_expect(setup.client, DOWN, 0, down.received);
    peer_expect_end(setup.client, PEER_RESET);
    peer_close(setup.client);
    peer_close(setup.server);
    peer_close(setup.origin);
    expect_stopped(&setup.proxy, cut == CUT_KILLED ? 0 : 1, 1);
}

ParameterizedTestParameters(reset, a_drain_delivers_what_was_accepted_before_it_resets)
{
    static struct reset_case cases[] = {{.splice = 0}, {.splice = 2}};

    return cr_make_param_array(struct reset_case, cases, 2);
}

/* HC-09. Goal: unread input of the client does not destroy output that sluice has taken for it.
 * Method: an upload that the server does not read, an answer that the client has not read; at
 * drain-timeout the client starts to read, and gets all of the answer before the reset. */
ParameterizedTest(struct reset_case *with, reset,
                  a_drain_delivers_what_was_accepted_before_it_resets)
{
    struct setup setup;
    struct way ways[2];
    struct way *up = &ways[0];
    struct way *down = &ways[1];
    struct peer_task reading = {.key = DOWN, .to_end = true};

    start(&setup, with->splice, "--drain-timeout", "100ms");
    open_connection(&setup);
    *up = make_way(&setup, true);
    *down = make_way(&setup, false);
    block(ways, 2);
    reading.fd = setup.client;

    cr_assert(kill(setup.proxy.pid, SIGTERM) == 0);
    proxy_wait_event(&setup.proxy, "drain", 1);
    pause_ms(
        300); /* nothing tells that the deadline is over: half a second of delivering is left */
    peer_start_receiving(&reading);
    expect_broken(setup.server);
    peer_join(&reading);
    cr_assert(reading.len == way_taken(down), "%llu bytes of %llu", (unsigned long long)reading.len,
              (unsigned long long)way_taken(down));
    cr_assert(reading.end == PEER_RESET);
    expect_cut(&setup, 0, up, way_taken(down),
               (struct expected_end){"drain", "proxy", "admin", NULL, 0, 0, 0});
    peer_close(setup.client);
    peer_close(setup.server);
    peer_close(setup.origin);
    cr_assert(proxy_stop(&setup.proxy, 0) == 0);
    expect_stopped(&setup.proxy, 1, 1);
}

/* What the client has done before it resets. */
enum abort_after { ABORT_SILENT, ABORT_SENT, ABORT_ENDED, ABORTS };

/* HC-06. Goal: a client that gives up while its server is being connected takes the attempt with
 * it. Method: a server that does not answer (its backlog is full), clients that reset: having sent
 * nothing, bytes, or bytes and FIN. */
Test(reset, a_client_that_gives_up_early_ends_the_attempt_to_connect)
{
    struct setup setup;
    int clients[ABORTS];
    int filler;

    start(&setup, 0, NULL, NULL);
    filler = fill_backlog(setup.origin, setup.proxy.ip, ORIGIN_PORT);
    for (int i = 0; i < ABORTS; i++) {
        clients[i] = peer_connect(setup.proxy.ip, PROXY_PORT);
        if (i >= ABORT_SENT) {
            peer_send(clients[i], UP, 0, 64 * KIB);
        }
        if (i == ABORT_ENDED) {
            peer_shut(clients[i]);
        }
        wait_acknowledged(clients[i]);
    }
    wait_tcp_count(setup.proxy.ip, ORIGIN_PORT, TCP_PLACE_SYN_SENT, ABORTS);
    for (int i = 0; i < ABORTS; i++) {
        struct expected_end end = {"client-abort", "client", "rst", NULL, 0, 0, 0};

        end.error = i == ABORT_ENDED ? "EPIPE" : "ECONNRESET";
        peer_reset(clients[i]);
        expect_end(&setup.proxy, (size_t)i, &end);
        wait_tcp_count(setup.proxy.ip, ORIGIN_PORT, TCP_PLACE_SYN_SENT, (size_t)(ABORTS - 1 - i));
    }
    free_backlog(setup.origin, filler);
    cr_assert(!peer_readable(setup.origin, 0), "the server was reached nevertheless");
    finish(&setup, ABORTS);
}

ParameterizedTestParameters(reset, data_for_a_side_that_has_stopped_reading_breaks_the_connection)
{
    return make_cases(2, 1);
}

/* HC-14. Goal: shutdown(SHUT_RD) sends nothing and so ends nothing; the RST with which the kernel
 * answers data for such a side counts as its reset. Method: the receiver shuts down reading, still
 * sends, then ends; the sender goes on sending. */
ParameterizedTest(struct reset_case *with, reset,
                  data_for_a_side_that_has_stopped_reading_breaks_the_connection)
{
    struct setup setup;
    struct way way;
    struct expected_end end;

    start_connected(&setup, with->splice);
    way = make_way(&setup, with->is_up);
    cr_assert(shutdown(way.receiver, SHUT_RD) == 0);
    peer_send(way.receiver, 3, 0, KIB);
    peer_expect(way.sender, 3, 0, KIB);
    cr_assert(proxy_count_event(&setup.proxy, "close") == 0);

    peer_shut(way.receiver);
    peer_expect_end(way.sender, PEER_FIN);
    wait_acknowledged(way.receiver);
    peer_send(way.sender, way.key, 0, 1);
    expect_broken(way.sender);
    end = reset_end(receiver_name(&way), "EPIPE");
    end.bytes_up = way.is_up ? 1 : KIB;
    end.bytes_down = way.is_up ? KIB : 1;
    end.undelivered_bytes = 1;
    expect_end(&setup.proxy, 0, &end);
    peer_close(way.sender);
    peer_close(way.receiver);
    finish(&setup, 1);
}

ParameterizedTestParameters(reset, bytes_are_delivered_though_the_reset_came_before_sluice_looked)
{
    static struct reset_case cases[] = {
        {.splice = 0, .is_up = true, .variant = 0},
        {.splice = 1, .is_up = false, .variant = 0},
        {.splice = 2, .is_up = true, .variant = 1},
        {.splice = 0, .is_up = false, .variant = 1},
    };

    return cr_make_param_array(struct reset_case, cases, sizeof(cases) / sizeof(cases[0]));
}

/* Goal: a side that sends and resets between the kernel's handshake with the server and the moment
 * when sluice hears of it loses nothing. Method: the server's backlog is full; stop the worker;
 * make room; one side sends 1 KiB, with FIN in the second variant, and resets; let the worker go
 * on. */
ParameterizedTest(struct reset_case *with, reset,
                  bytes_are_delivered_though_the_reset_came_before_sluice_looked)
{
    bool fin = with->variant == 1;
    struct setup setup;
    struct expected_end end;
    struct way way;
    int filler;

    start(&setup, with->splice, NULL, NULL);
    filler = fill_backlog(setup.origin, setup.proxy.ip, ORIGIN_PORT);
    setup.client = peer_connect(setup.proxy.ip, PROXY_PORT);
    wait_tcp_count(setup.proxy.ip, ORIGIN_PORT, TCP_PLACE_SYN_SENT, 1);
    freeze(only_worker(&setup.proxy));
    free_backlog(setup.origin, filler);
    setup.server = peer_accept(setup.origin);
    way = make_way(&setup, with->is_up);
    peer_send(way.sender, way.key, 0, KIB);
    if (fin) {
        peer_shut(way.sender);
    }
    wait_acknowledged(way.sender);
    peer_reset(way.sender);
    thaw(only_worker(&setup.proxy));

    peer_expect(way.receiver, way.key, 0, KIB);
    peer_expect_end(way.receiver, fin ? PEER_FIN : PEER_RESET);
    end = reset_end(sender_name(&way), fin ? "EPIPE" : "ECONNRESET");
    end.bytes_up = way.is_up ? KIB : 0;
    end.bytes_down = way.is_up ? 0 : KIB;
    expect_end(&setup.proxy, 0, &end);
    peer_close(way.receiver);
    finish(&setup, 1);
}

/* What the side that resets has done before, while the worker is stopped. */
enum batch { BATCH_RESET, BATCH_DATA_AND_RESET, BATCH_DATA_FIN_AND_RESET, BATCHES };

ParameterizedTestParameters(reset, data_goes_before_reset_when_all_comes_in_one_batch)
{
    return make_cases(1, BATCHES);
}

/* Of two records, the one that this side ended. */
static size_t record_of(const struct setup *setup, const char *closed_by)
{
    char found[PROXY_FIELD_BYTES];

    proxy_field(&setup->proxy, "close", 0, "closed_by", found);
    return strcmp(found, closed_by) == 0 ? 0 : 1;
}

static void send_end_and_reset(const struct way *way, uint64_t len, bool fin)
{
    peer_send(way->receiver, 3, 0, 64 * KIB);
    peer_shut(way->receiver);
    wait_acknowledged(way->receiver);
    peer_send(way->sender, way->key, 0, len);
    if (fin) {
        peer_shut(way->sender);
    }
    wait_acknowledged(way->sender);
    peer_reset(way->sender);
}

/* HC-15. Goal: IN, RDHUP, HUP and ERR of both sides in one batch: what was received is delivered to
 * the side that lives, in order, then the end it deserves. Method: stop the worker; the sender
 * sends nothing, 64 KiB, or 64 KiB and FIN, then resets; the receiver sends 64 KiB and FIN; let the
 * worker go on. One connection for each direction. */
ParameterizedTest(struct reset_case *with, reset,
                  data_goes_before_reset_when_all_comes_in_one_batch)
{
    bool fin = with->variant == BATCH_DATA_FIN_AND_RESET;
    uint64_t len = with->variant == BATCH_RESET ? 0 : 64 * KIB;
    struct setup setup;
    struct way ways[2];

    start(&setup, with->splice, NULL, NULL);
    open_ways(&setup, ways);
    freeze(only_worker(&setup.proxy));
    send_end_and_reset(&ways[0], len, fin);
    send_end_and_reset(&ways[1], len, fin);
    thaw(only_worker(&setup.proxy));

    proxy_wait_event(&setup.proxy, "close", 2);
    for (size_t i = 0; i < 2; i++) {
        struct expected_end end = reset_end(sender_name(&ways[i]), fin ? "EPIPE" : "ECONNRESET");

        peer_expect(ways[i].receiver, ways[i].key, 0, len);
        /* FIN was sent, so it is shown. */
        peer_expect_end(ways[i].receiver, fin ? PEER_FIN : PEER_RESET);
        end.bytes_up = ways[i].is_up ? len : 0;
        end.bytes_down = ways[i].is_up ? 0 : len;
        expect_end(&setup.proxy, record_of(&setup, sender_name(&ways[i])), &end);
        peer_close(ways[i].receiver);
    }
    finish(&setup, 2);
}

/* What the killed server had left unread. */
enum killed { KILLED_ALL_READ, KILLED_UNREAD, KILLS };

ParameterizedTestParameters(reset, bytes_that_a_killed_server_had_sent_are_delivered)
{
    return make_cases(1, KILLS);
}

/* Gives the descriptor to a process that does nothing, and kills that. */
static void kill_owner(int fd)
{
    int status;
    pid_t pid = fork();

    cr_assert(pid >= 0);
    if (pid == 0) {
        (void)pause();
        _exit(0);
    }
    peer_close(fd);
    cr_assert(kill(pid, SIGKILL) == 0);
    cr_assert(waitpid(pid, &status, 0) == pid);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* HC-16. Goal: the client gets what a dead server's kernel still sends. Method: a download that its
 * client does not read, then kill -9. The kernel then sends its queue and FIN; but if there was
 * unread input, it drops its queue and resets: what had left it must arrive all the same. */
ParameterizedTest(struct reset_case *with, reset, bytes_that_a_killed_server_had_sent_are_delivered)
{
    bool unread = with->variant == KILLED_UNREAD;
    struct setup setup;
    struct way down;
    enum peer_end end;
    uint64_t expected;

    start_connected(&setup, with->splice);
    down = make_way(&setup, false);
    peer_send(setup.client, UP, 0, KIB);
    if (!unread) {
        peer_expect(setup.server, UP, 0, KIB);
    }
    block(&down, 1);
    expected = unread ? way_arrived(&down) : down.sent;
    kill_owner(setup.server);

    cr_assert(peer_drain(setup.client, DOWN, 0, &end) == expected);
    cr_assert(end == (unread ? PEER_RESET : PEER_FIN));
    peer_close(setup.client);
    if (unread) {
        struct expected_end reset = reset_end("server", "ECONNRESET");

        reset.bytes_up = KIB;
        reset.bytes_down = expected;
        expect_end(&setup.proxy, 0, &reset);
    } else {
        struct expected_end clean = {"client-fin", "server", "fin", NULL, KIB, expected, 0};

        expect_end(&setup.proxy, 0, &clean);
    }
    finish(&setup, 1);
}
