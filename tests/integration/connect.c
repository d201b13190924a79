/* The way to a server: the next one when the first can't be had, the reason when none can, and
 * nothing of what the client sent in the meantime lost (contract 1, 6, 7). */
#include "support/ends.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KIB = 1024, UP = 1, DOWN = 2, DEAD_PORT = 9001, SILENT_PORT = 9002, ARGUMENT_BYTES = 256 };

/* Starts sluice on this test's address; each "@@" in `targets` stands for that address. */
static void start(struct proxy *proxy, const char *targets, const char *const options[])
{
    char pair[ARGUMENT_BYTES];
    const char *arguments[16] = {pair};
    size_t len = (size_t)snprintf(pair, sizeof(pair), "%s:%d=", proxy->ip, PROXY_PORT);

    while (*targets != '\0') {
        bool is_place = strncmp(targets, "@@", 2) == 0;

        len += (size_t)snprintf(pair + len, sizeof(pair) - len, "%.*s", is_place ? 20 : 1,
                                is_place ? proxy->ip : targets);
        cr_assert(len < sizeof(pair));
        targets += is_place ? 2 : 1;
    }
    for (size_t i = 0; options != NULL && options[i] != NULL; i++) {
        arguments[i + 1] = options[i];
    }
    proxy_start(proxy, arguments);
}

/* A client that is going to be reset, perhaps before a blocking connect(2) would have returned. */
static int connect_doomed(const char *ip, uint16_t port)
{
    struct timeval wait = {.tv_sec = PEER_WAIT_S};
    int fd = peer_connect_later(ip, port);
    struct pollfd poller = {.fd = fd, .events = POLLOUT};

    cr_assert(poll(&poller, 1, PEER_WAIT_S * 1000) == 1);
    cr_assert(fcntl(fd, F_SETFL, 0) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    return fd;
}

static void expect_refusal(const char *ip, uint16_t port)
{
    int fd = connect_doomed(ip, port);

    peer_expect_end(fd, PEER_RESET);
    peer_close(fd);
}

/* What the record of a connection says that never reached a server. */
static void expect_failure(struct proxy *proxy, size_t index, const char *reason,
                           const char *closed_by, const char *how, const char *error,
                           uint64_t retries)
{
    struct expected_end end = {reason, closed_by, how, error, 0, 0, 0};

    expect_end(proxy, index, &end);
    proxy_expect_field(proxy, "close", index, "connect_s", "");
    cr_assert(proxy_number(proxy, "close", index, "retries") == retries);
}

static void expect_server(const struct proxy *proxy, size_t index, uint16_t port, uint64_t retries)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "%s:%u", proxy->ip, port);
    proxy_expect_field(proxy, "close", index, "server", name);
    cr_assert(proxy_number(proxy, "close", index, "retries") == retries, "retries: %llu",
              (unsigned long long)proxy_number(proxy, "close", index, "retries"));
}

/* CF-01. Goal: a server that refuses costs its clients nothing but a moment. Method: nobody listens
 * on the first of two targets; every second connection begins with it. */
Test(connect, goes_on_to_the_next_server_when_one_refuses)
{
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    start(&proxy, "@@:9001,@@:9000", NULL);
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
    start(&proxy, "@@:9001,@@:9000", NULL);
    for (size_t i = 0; i < 3; i++) {
        expect_refusal(proxy.ip, PROXY_PORT);
        expect_failure(&proxy, i, "connect-refused", "server", "error", "ECONNREFUSED", 1);
    }
    proxy_finish(&proxy, 3);
}

/* CF-02. Goal: a server that says nothing costs one connect-timeout, however many wait for it, and
 * no descriptor. Method: SYNs to the first target are dropped; 100 clients at once, half of which
 * begin with it. */
Test(connect, goes_on_to_the_next_server_when_one_is_silent)
{
    enum { CLIENTS = 100, TIMEOUT_MS = 300, BOUND_MS = 3000 };
    const char *const options[] = {"--connect-timeout", "300ms", NULL};
    struct proxy proxy;
    int clients[CLIENTS];
    int servers[CLIENTS];
    size_t late = 0;
    int origin;

    proxy_init(&proxy);
    netns_enter();
    netns_drop_syn(SILENT_PORT);
    start(&proxy, "@@:9002,@@:9000", options);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, CLIENTS);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = peer_connect(proxy.ip, PROXY_PORT);
        peer_send(clients[i], UP, 0, KIB); /* all the same: which server gets it is not known */
        peer_shut(clients[i]);
    }
    for (int i = 0; i < CLIENTS; i++) {
        servers[i] = peer_accept(origin);
        peer_expect(servers[i], UP, 0, KIB);
        peer_expect_end(servers[i], PEER_FIN);
        peer_send(servers[i], DOWN, 0, KIB);
        peer_shut(servers[i]);
    }
    for (int i = 0; i < CLIENTS; i++) {
        peer_expect(clients[i], DOWN, 0, KIB);
        peer_expect_end(clients[i], PEER_FIN);
        peer_close(clients[i]);
        peer_close(servers[i]);
    }
    proxy_wait_event(&proxy, "close", CLIENTS);
    for (size_t i = 0; i < CLIENTS; i++) {
        bool waited = proxy_number(&proxy, "close", i, "retries") == 1;
        double connect_ms = record_ms(&proxy, i, "connect_s");

        late += waited;
        expect_server(&proxy, i, ORIGIN_PORT, waited ? 1 : 0);
        cr_assert(!waited || (connect_ms >= TIMEOUT_MS && connect_ms < BOUND_MS), "%f ms",
                  connect_ms);
    }
    cr_assert(late == CLIENTS / 2, "%zu began with the silent server", late);
    peer_close(origin);
    proxy_finish(&proxy, CLIENTS);
}

/* CF-02. Goal: when all are silent, the client waits one connect-timeout for each and is reset. */
Test(connect, gives_up_when_every_server_is_silent)
{
    const char *const options[] = {"--connect-timeout", "300ms", NULL};
    struct proxy proxy;

    proxy_init(&proxy);
    netns_enter();
    netns_drop_syn(SILENT_PORT);
    netns_drop_syn(SILENT_PORT + 1);
    start(&proxy, "@@:9002,@@:9003", options);
    expect_refusal(proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "connect-timeout", "proxy", "timeout", "ETIMEDOUT", 1);
    cr_assert(record_ms(&proxy, 0, "duration_s") >= 600);
    cr_assert(record_ms(&proxy, 0, "duration_s") < 3000);
    proxy_finish(&proxy, 1);
}

/* CF-03. Goal: what the routing table says against a server is told apart, and another one is
 * tried. Method: routes of type unreachable, prohibit and blackhole, and none at all; each alone,
 * and all of them before a server that is there. */
Test(connect, tells_apart_why_there_is_no_route_and_goes_on)
{
    static const struct {
        const char *ip;
        const char *error;
    } routes[] = {
        {"10.66.0.1", "EHOSTUNREACH"},
        {"10.66.0.2", "EACCES"},
        {"10.66.0.3", "EINVAL"},
        {"10.66.0.4", "ENETUNREACH"},
    };
    enum { ROUTES = sizeof(routes) / sizeof(routes[0]) };
    char texts[ROUTES + 1][ARGUMENT_BYTES];
    const char *arguments[ROUTES + 2] = {NULL};
    struct proxy proxy;
    struct pair pair;
    int origin;

    proxy_init(&proxy);
    netns_enter();
    netns_run(
        "ip route add unreachable %s && ip route add prohibit %s && ip route add blackhole %s",
        routes[0].ip, routes[1].ip, routes[2].ip);
    for (int i = 0; i < ROUTES; i++) {
        (void)snprintf(texts[i], ARGUMENT_BYTES, "%s:%d=%s:80", proxy.ip, 8081 + i, routes[i].ip);
        arguments[i] = texts[i];
    }
    (void)snprintf(texts[ROUTES], ARGUMENT_BYTES, "%s:%d=%s:80,%s:80,%s:80,%s:80,%s:%d", proxy.ip,
                   PROXY_PORT, routes[0].ip, routes[1].ip, routes[2].ip, routes[3].ip, proxy.ip,
                   ORIGIN_PORT);
    arguments[ROUTES] = texts[ROUTES];
    proxy_start(&proxy, arguments);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    for (int i = 0; i < ROUTES; i++) {
        expect_refusal(proxy.ip, (uint16_t)(8081 + i));
        expect_failure(&proxy, (size_t)i, "connect-unreachable", "proxy", "error", routes[i].error,
                       0);
    }
    pair = pair_open(&proxy, origin);
    pair_exchange(&pair, UP);
    pair_end(&pair);
    expect_reason(&proxy, ROUTES, "server-fin", "client", "fin", NULL);
    expect_server(&proxy, ROUTES, ORIGIN_PORT, ROUTES);
    peer_close(origin);
    proxy_finish(&proxy, ROUTES + 1);
}

/* CF-06. Goal: no spelling of an own address gets past the check, and no other address is refused.
 * Method: an own address on a veth; `-t` and the exit status (the spellings of loopback are among
 * command_line's tests). */
Test(connect, refuses_to_start_when_a_target_is_its_own_listener)
{
    static const struct {
        const char *pairs[2];
        int status;
    } cases[] = {
        {{":8080=10.77.0.1:8080"}, 78},
        {{"0.0.0.0:8080=10.77.0.1:8080"}, 78},
        {{":8080=[::ffff:10.77.0.1]:8080"}, 78},
        {{"0.0.0.0:8080=[::ffff:10.77.0.1]:8080"}, 78},
        {{"10.77.0.1:8080=[::ffff:10.77.0.1]:8080"}, 78},
        {{":8080=localhost:8080"}, 78},
        {{":8080=[::]:8080"}, 78},
        {{"[::]:8080=[::1]:8080"}, 78},
        {{"[fd77::1]:8080=[fd77:0::0:1]:8080"}, 78},
        {{":8080=[fd77::1]:8080"}, 78},
        {{"127.0.0.1:8080=127.0.0.1:8081", "127.0.0.1:8081=127.0.0.1:8080"}, 78},
        {{"unix:/tmp/a=127.0.0.1:8081", "127.0.0.1:8081=unix:/tmp/a"}, 78},
        {{":8080=127.0.0.1:8081"}, 0},
        {{":8080=10.77.0.2:8080"}, 0},
        {{"127.0.0.1:8080=10.77.0.1:8080"}, 0},
        {{"[::]:8080=127.0.0.1:8080"}, 0}, /* takes IPv6 only */
        {{"0.0.0.0:8080=[::1]:8080"}, 0},
        {{"unix:/tmp/a=unix:/tmp/b"}, 0},
    };

    netns_enter();
    netns_add_far();
    netns_run("ip address add fd77::1/64 dev near nodad");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *arguments[] = {"-t", cases[i].pairs[0], cases[i].pairs[1], NULL};
        struct proxy proxy;
        int status;

        proxy_init(&proxy);
        status = proxy_run_to_end(&proxy, arguments);
        cr_expect(status == cases[i].status, "%s %s: status %d\n%s", cases[i].pairs[0],
                  cases[i].pairs[1] != NULL ? cases[i].pairs[1] : "", status, proxy.log);
        if (cases[i].status != 0) {
            cr_expect(strstr(proxy.log, "own listener") != NULL, "%s", proxy.log);
        }
        free(proxy.log);
    }
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
    start(&proxy, "@@:9000,@@:9001", NULL);
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
    start(&proxy, "@@:9000,@@:9001,@@:9002", NULL);
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
    start(&proxy, "unix:/nowhere/at/all,@@:9000", NULL);
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
    start(&proxy, targets, NULL);
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
    start(&proxy, targets, options);
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
    start(&proxy, "@@:9001,unix:/no,@@:9002,@@:9000", options);
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

/* --- local ports --- */

/* A socket with a local port of its own: it needs none of the few that sluice is left with. */
static int new_client(uint16_t port)
{
    struct timeval wait = {.tv_sec = PEER_WAIT_S};
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0);
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    cr_assert(bind(fd, (struct sockaddr *)&local, sizeof(local)) == 0, "%s", strerror(errno));
    return fd;
}

static int connect_from(uint16_t local_port, const char *ip, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = new_client(local_port);

    address.sin_addr.s_addr = inet_addr(ip);
    /* A reset may come before this returns; the next call on the socket will then tell. */
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        cr_assert(errno == ECONNRESET, "connect: %s", strerror(errno));
    }
    return fd;
}

/* True when a connection to this port, on which nobody listens, meets itself. */
static bool meets_itself(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool met;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    met = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    peer_reset(fd);
    return met;
}

/* Goal: a connect to a loopback port of the ephemeral range, on which nobody listens, may pick that
 * very port and succeed with itself; the client must not be relayed to its own echo. Method: the
 * range is narrowed to that port, so that every attempt meets itself; every spelling of the
 * loopback address. */
Test(connect, never_takes_itself_for_the_server)
{
    static const char *const hosts[] = {"127.0.0.1", "0.0.0.0", "[::1]", "[::]",
                                        "[::ffff:127.0.0.1]"};
    enum { HOSTS = sizeof(hosts) / sizeof(hosts[0]), PORT = 40000, TRIES = 10 };
    char texts[HOSTS][ARGUMENT_BYTES];
    const char *arguments[HOSTS + 1] = {NULL};
    char echo[4];
    struct proxy proxy;
    size_t done = 0;

    proxy_init(&proxy);
    netns_enter();
    netns_set("ip_local_port_range", "40000 40000");
    cr_assert(meets_itself(PORT), "this kernel does not do it: the test shows nothing");
    for (int i = 0; i < HOSTS; i++) {
        (void)snprintf(texts[i], ARGUMENT_BYTES, "%s:%d=%s:%d", proxy.ip, PROXY_PORT + i, hosts[i],
                       PORT);
        arguments[i] = texts[i];
    }
    proxy_start(&proxy, arguments);
    for (int i = 0; i < HOSTS * TRIES; i++) {
        int client =
            connect_from((uint16_t)(20000 + i), proxy.ip, (uint16_t)(PROXY_PORT + i % HOSTS));

        (void)send(client, "echo", 4, MSG_NOSIGNAL);
        cr_assert(recv(client, echo, sizeof(echo), 0) <= 0, "an echo by way of %s",
                  hosts[i % HOSTS]);
        expect_failure(&proxy, done, "connect-refused", "server", "error", "ECONNREFUSED", 0);
        done++;
        peer_reset(client);
    }
    proxy_finish(&proxy, done);
}

/* Goal: when local ports run out, the client that gets none is told at once and by name, the others
 * do not notice, and the first port that is free again serves. Method: four ports. */
Test(connect, says_so_when_no_local_port_is_left)
{
    enum { PORTS = 4 };
    struct proxy proxy;
    struct pair pairs[PORTS];
    int origin;
    int client;

    proxy_init(&proxy);
    netns_enter();
    netns_set("ip_local_port_range", "40000 40003");
    proxy_start_simple(&proxy, NULL);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    for (uint16_t i = 0; i < PORTS; i++) {
        pairs[i].client = connect_from((uint16_t)(20000 + i), proxy.ip, PROXY_PORT);
        pairs[i].server = peer_accept(origin);
    }
    client = connect_from(20010, proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "no-port", "proxy", "error", "EADDRNOTAVAIL", 0);
    peer_close(client);
    for (int i = 0; i < PORTS; i++) {
        pair_exchange(&pairs[i], UP);
    }
    /* Ended by reset: a port in TIME_WAIT would be taken for a minute. */
    peer_reset(pairs[0].client);
    peer_expect_end(pairs[0].server, PEER_RESET);
    peer_close(pairs[0].server);
    proxy_wait_event(&proxy, "close", 2);
    pairs[0].client = connect_from(20011, proxy.ip, PROXY_PORT);
    pairs[0].server = peer_accept(origin);
    pair_exchange(&pairs[0], UP);
    for (int i = 0; i < PORTS; i++) {
        pair_end(&pairs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, PORTS + 2);
}

ParameterizedTestParameters(connect, uses_each_local_port_once_for_each_server)
{
    static bool cases[] = {false, true};

    return cr_make_param_array(bool, cases, 2);
}

/* CF-07. Goal: a port is taken for one server only, also when `--source` binds the local address
 * (IP_BIND_ADDRESS_NO_PORT). Method: four ports and two servers make eight connections; the ninth
 * tries both and gets no port. */
ParameterizedTest(bool *bound, connect, uses_each_local_port_once_for_each_server)
{
    enum { PAIRS = 8 };
    const char *const options[] = {*bound ? "--source" : NULL, "127.0.0.9", NULL};
    struct proxy proxy;
    struct pair pairs[PAIRS];
    int origins[2];
    int client;

    proxy_init(&proxy);
    netns_enter();
    netns_set("ip_local_port_range", "40000 40003");
    start(&proxy, "@@:9000,@@:9001", options);
    origins[0] = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    origins[1] = peer_listen(proxy.ip, DEAD_PORT, 8);
    for (uint16_t i = 0; i < PAIRS; i++) {
        pairs[i].client = connect_from((uint16_t)(20000 + i), proxy.ip, PROXY_PORT);
        pairs[i].server = peer_accept(origins[i % 2]);
        pair_exchange(&pairs[i], UP);
    }
    client = connect_from(20010, proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "no-port", "proxy", "error", "EADDRNOTAVAIL", 1);
    peer_close(client);
    for (size_t i = 0; i < PAIRS; i++) {
        char local[PROXY_FIELD_BYTES];

        pair_exchange(&pairs[i], UP);
        pair_end(&pairs[i]);
        proxy_wait_event(&proxy, "close", i + 2);
        proxy_field(&proxy, "close", i + 1, "server_local", local);
        cr_assert(strncmp(local, "127.0.0.9:", 10) == 0 || !*bound, "%s", local);
    }
    peer_close(origins[0]);
    peer_close(origins[1]);
    proxy_finish(&proxy, PAIRS + 1);
}
