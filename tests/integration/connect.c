/* The way to a server: the next one when the first can't be had, the reason when none can, and
 * nothing of what the client sent in the meantime lost (contract 1, 6, 7). What needs routes, rules
 * or ports of its own is in tests/net/. */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"
#include "support/tries.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <unistd.h>

enum { KIB = 1024, UP = 1, DOWN = 2, DEAD_PORT = 9001, SILENT_PORT = 9002 };

/* CF-01. Goal: a server that refuses costs its clients nothing but a moment. Method: nobody listens
 * on the first of two targets; every second connection begins with it. */
Test(connect, goes_on_to_the_next_server_when_one_refuses)
{
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    start_with_targets(&proxy, "@@:9001,@@:9000", NULL);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    for (size_t i = 0; i < 4; i++) {
        struct pair pair = pair_open(&proxy, origin);

        pair_exchange(&pair, UP);
        pair_end(&pair);
        expect_reason(&proxy, i, "server-fin", "client", "fin", NULL);
        expect_server(&proxy, i, ORIGIN_PORT, i % 2 == 0 ? 1 : 0);
    }
    peer_close(origin);
    proxy_finish(&proxy, 4);
}

/* CF-01. Goal: when all refuse, the client is told by a reset, and the record says why. Method:
 * nobody listens on either of two targets. */
Test(connect, resets_the_client_when_every_server_refuses)
{
    struct proxy proxy;

    proxy_init(&proxy);
    start_with_targets(&proxy, "@@:9001,@@:9000", NULL);
    for (size_t i = 0; i < 3; i++) {
        expect_refusal(proxy.ip, PROXY_PORT);
        expect_failure(&proxy, i, "connect-refused", "server", "error", "ECONNREFUSED", 1);
    }
    proxy_finish(&proxy, 3);
}

/* CF-08. Goal: a server that accepts and hangs up at once has been reached: no other one is tried,
 * and the record says who ended it. Method: FIN, then RST, right after accept(2); a second target
 * that must stay untouched. */
Test(connect, takes_a_server_that_hangs_up_at_once_for_a_server)
{
    struct expected_end fin = {"client-fin", "server", "fin", NULL, 0, 0, 0};
    struct expected_end rst = {"server-reset", "server", "rst", "ECONNRESET", 0, 0, 0};
    struct proxy proxy;
    size_t done = 0;
    int origin;
    int other;

    proxy_init(&proxy);
    start_with_targets(&proxy, "@@:9000,@@:9001", NULL);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    other = peer_listen(proxy.ip, DEAD_PORT, 8);
    for (int i = 0; i < 20; i++) {
        bool reset = i % 2 == 1;
        int client = connect_doomed(proxy.ip, PROXY_PORT);
        int server = peer_accept(origin);

        if (reset) {
            peer_reset(server);
            peer_expect_end(client, PEER_RESET);
        } else {
            peer_close(server);
            peer_expect_end(client, PEER_FIN);
        }
        peer_close(client);
        expect_end(&proxy, done, reset ? &rst : &fin);
        expect_server(&proxy, done, ORIGIN_PORT, 0);
        done++;
        cr_assert(!peer_readable(other, 0), "the next server was tried");
        /* The turn of the other server. */
        client = peer_connect(proxy.ip, PROXY_PORT);
        peer_close(peer_accept(other));
        peer_close(client);
        proxy_wait_event(&proxy, "close", ++done);
    }
    peer_close(origin);
    peer_close(other);
    proxy_finish(&proxy, done);
}

/* Goal: servers take turns, and a dead one's turn goes to the one behind it. Method: three targets,
 * six connections; then the middle one stops listening. */
Test(connect, servers_take_turns)
{
    enum { SERVERS = 3, ROUNDS = 2 };
    static const int after_dead[] = {0, 2, 2};
    struct proxy proxy;
    int origins[SERVERS];
    size_t done = 0;

    proxy_init(&proxy);
    start_with_targets(&proxy, "@@:9000,@@:9001,@@:9002", NULL);
    for (uint16_t i = 0; i < SERVERS; i++) {
        origins[i] = peer_listen(proxy.ip, (uint16_t)(ORIGIN_PORT + i), 8);
    }
    for (int i = 0; i < 2 * ROUNDS * SERVERS; i++) {
        bool dead = i >= ROUNDS * SERVERS;
        int expected = dead ? after_dead[i % SERVERS] : i % SERVERS;
        struct pair pair;

        if (i == ROUNDS * SERVERS) {
            peer_close(origins[1]);
        }
        pair = pair_open(&proxy, origins[expected]);
        pair_exchange(&pair, UP);
        pair_end(&pair);
        proxy_wait_event(&proxy, "close", done + 1);
        expect_server(&proxy, done, (uint16_t)(ORIGIN_PORT + expected),
                      dead && i % SERVERS == 1 ? 1 : 0);
        done++;
    }
    peer_close(origins[0]);
    peer_close(origins[2]);
    proxy_finish(&proxy, done);
}

static void name_unix(char name[64], const char *what)
{
    (void)snprintf(name, 64, "@sluice-%s-%d", what, (int)getpid());
}

/* Goal: a unix socket that is not there is a server that refuses. Method: two names that nobody
 * has, one of them a path; and with a server behind them. */
Test(connect, takes_a_missing_unix_socket_for_a_refusal)
{
    struct proxy proxy;
    struct pair pair;
    int origin;

    proxy_init(&proxy);
    start_with_targets(&proxy, "unix:/nowhere/at/all,@@:9000", NULL);
    expect_refusal(proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "connect-refused", "server", "error", "ECONNREFUSED", 1);
    expect_refusal(proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 1, "connect-refused", "server", "error", "ENOENT", 1);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    pair = pair_open(&proxy, origin);
    pair_exchange(&pair, UP);
    pair_end(&pair);
    expect_reason(&proxy, 2, "server-fin", "client", "fin", NULL);
    expect_server(&proxy, 2, ORIGIN_PORT, 1);
    peer_close(origin);
    proxy_finish(&proxy, 3);
}

/* Goal: a unix server whose backlog is full is waited for, although no event tells when it has
 * room, and what the client sent meanwhile reaches it. Method: a backlog of one, taken; 64 KiB and
 * FIN from the client; then room. */
Test(connect, waits_for_room_in_the_backlog_of_a_unix_server)
{
    struct expected_end end = {"server-fin", "client", "fin", NULL, 64 * KIB, KIB, 0};
    char name[64];
    char targets[80];
    struct proxy proxy;
    int origin;
    int filler;
    int client;
    int server;

    proxy_init(&proxy);
    name_unix(name, "full");
    (void)snprintf(targets, sizeof(targets), "unix:%s", name);
    start_with_targets(&proxy, targets, NULL);
    origin = peer_listen_unix(name);
    cr_assert(listen(origin, 0) == 0);
    filler = peer_connect_unix(name);
    client = peer_connect(proxy.ip, PROXY_PORT);
    peer_send(client, UP, 0, 64 * KIB);
    peer_shut(client);
    pause_ms(100); /* several attempts */
    cr_assert(proxy_count_event(&proxy, "close") == 0);

    peer_close(peer_accept(origin));
    peer_close(filler);
    server = peer_accept(origin);
    peer_expect(server, UP, 0, 64 * KIB);
    peer_expect_end(server, PEER_FIN);
    peer_send(server, DOWN, 0, KIB);
    peer_shut(server);
    peer_expect(client, DOWN, 0, KIB);
    peer_expect_end(client, PEER_FIN);
    expect_end(&proxy, 0, &end);
    cr_assert(record_ms(&proxy, 0, "connect_s") >= 100);
    peer_close(client);
    peer_close(server);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* The same when no room comes: connect-timeout holds for unix servers too. */
Test(connect, gives_up_on_a_unix_server_whose_backlog_stays_full)
{
    const char *const options[] = {"--connect-timeout", "200ms", NULL};
    char name[64];
    char targets[80];
    struct proxy proxy;
    int origin;
    int filler;

    proxy_init(&proxy);
    name_unix(name, "stuck");
    (void)snprintf(targets, sizeof(targets), "unix:%s", name);
    start_with_targets(&proxy, targets, options);
    origin = peer_listen_unix(name);
    cr_assert(listen(origin, 0) == 0);
    filler = peer_connect_unix(name);
    expect_refusal(proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "connect-timeout", "proxy", "timeout", "ETIMEDOUT", 0);
    cr_assert(record_ms(&proxy, 0, "duration_s") >= 200);
    cr_assert(record_ms(&proxy, 0, "duration_s") < 3000);
    peer_close(filler);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

ParameterizedTestParameters(connect, loses_no_byte_of_a_client_while_servers_are_tried)
{
    static int modes[SPLICE_MODES] = {0, 1, 2};

    return cr_make_param_array(int, modes, SPLICE_MODES);
}

/* Goal: what the client sends while servers are tried reaches the one that is found. Method: one
 * that refuses, one that is missing, one that is silent (its backlog is full); the client sends 1
 * MiB and FIN from the start. */
ParameterizedTest(int *mode, connect, loses_no_byte_of_a_client_while_servers_are_tried)
{
    enum { LEN = 1024 * KIB };
    const char *const options[] = {"--connect-timeout", "300ms", "--splice", splice_names[*mode],
                                   NULL};
    struct expected_end end = {"server-fin", "client", "fin", NULL, LEN, KIB, 0};
    struct peer_task sending = {.key = UP, .len = LEN, .shut_after = true};
    struct proxy proxy;
    int origin;
    int silent;
    int filler;
    int server;

    proxy_init(&proxy);
    start_with_targets(&proxy, "@@:9001,unix:/no,@@:9002,@@:9000", options);
    silent = peer_listen(proxy.ip, SILENT_PORT, 1);
    filler = fill_backlog(silent, proxy.ip, SILENT_PORT);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    sending.fd = peer_connect(proxy.ip, PROXY_PORT);
    peer_start_sending(&sending);
    server = peer_accept(origin);
    peer_expect(server, UP, 0, LEN);
    peer_expect_end(server, PEER_FIN);
    peer_join(&sending);
    peer_send(server, DOWN, 0, KIB);
    peer_shut(server);
    peer_expect(sending.fd, DOWN, 0, KIB);
    peer_expect_end(sending.fd, PEER_FIN);
    expect_end(&proxy, 0, &end);
    expect_server(&proxy, 0, ORIGIN_PORT, 3);
    cr_assert(record_ms(&proxy, 0, "connect_s") >= 300);
    peer_close(sending.fd);
    peer_close(server);
    peer_close(filler);
    peer_close(silent);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}
