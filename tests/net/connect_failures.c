/* Servers that can't be reached, in the ways in which a network can refuse: silence, no route, an
 * ICMP message, a reset. The next server gets its turn, the record says why, and a thousand clients
 * at once cost no descriptor. What needs no network of its own is in
 * tests/integration/connect.c.
 *
 * Each test has a network namespace to itself, so its routes, rules and ports disturb nobody. */
#include "support/cable.h"
#include "support/ends.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"
#include "support/tries.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum { KIB = 1024, UP = 1, DOWN = 2, SILENT_PORT = 9002, ARGUMENT_BYTES = 256 };

/* --- silence, and no route --- */

/* CF-02. Goal: a server that says nothing costs one connect-timeout, however many wait for it, and
 * no descriptor. Method: SYNs to the first target are dropped; 1,000 clients at once, half of which
 * begin with it. */
Test(connect_failures, goes_on_to_the_next_server_when_one_is_silent)
{
    enum { CLIENTS = 1000, TIMEOUT_MS = 300, BOUND_MS = 10000 };
    const char *const options[] = {"--connect-timeout", "300ms", NULL};
    struct proxy proxy;
    int clients[CLIENTS];
    int servers[CLIENTS];
    size_t late = 0;
    int origin;

    need_descriptors(4 * CLIENTS);
    proxy_init(&proxy);
    netns_enter();
    netns_drop_syn(SILENT_PORT);
    start_with_targets(&proxy, "@@:9002,@@:9000", options);
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
Test(connect_failures, gives_up_when_every_server_is_silent)
{
    const char *const options[] = {"--connect-timeout", "300ms", NULL};
    struct proxy proxy;

    proxy_init(&proxy);
    netns_enter();
    netns_drop_syn(SILENT_PORT);
    netns_drop_syn(SILENT_PORT + 1);
    start_with_targets(&proxy, "@@:9002,@@:9003", options);
    expect_refusal(proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "connect-timeout", "proxy", "timeout", "ETIMEDOUT", 1);
    cr_assert(record_ms(&proxy, 0, "duration_s") >= 600);
    cr_assert(record_ms(&proxy, 0, "duration_s") < 3000);
    proxy_finish(&proxy, 1);
}

/* CF-03. Goal: what the routing table says against a server is told apart, and another one is
 * tried. Method: routes of type unreachable, prohibit and blackhole, and none at all; each alone,
 * and all of them before a server that is there. */
Test(connect_failures, tells_apart_why_there_is_no_route_and_goes_on)
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
Test(connect_failures, refuses_to_start_when_a_target_is_its_own_listener)
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

/* --- what a firewall says --- */

/* What `nft reject` can answer, and what Linux makes of it for a socket that is connecting
 * (icmp_err_convert[] in net/ipv4/icmp.c, tab_unreach[] in net/ipv6/icmp.c). */
static const struct rejection {
    const char *with;
    const char *error;
    const char *reason;
    const char *closed_by;
    bool v6;
} rejections[] = {
    {"tcp reset", "ECONNREFUSED", "connect-refused", "server", false},
    {"icmp type port-unreachable", "ECONNREFUSED", "connect-refused", "server", false},
    {"icmp type net-unreachable", "ENETUNREACH", "connect-unreachable", "proxy", false},
    {"icmp type host-unreachable", "EHOSTUNREACH", "connect-unreachable", "proxy", false},
    {"icmp type prot-unreachable", "ENOPROTOOPT", "connect-unreachable", "proxy", false},
    {"icmp type net-prohibited", "ENETUNREACH", "connect-unreachable", "proxy", false},
    {"icmp type host-prohibited", "EHOSTUNREACH", "connect-unreachable", "proxy", false},
    {"icmp type admin-prohibited", "EHOSTUNREACH", "connect-unreachable", "proxy", false},
    {"icmpv6 type no-route", "ENETUNREACH", "connect-unreachable", "proxy", true},
    {"icmpv6 type admin-prohibited", "EACCES", "connect-unreachable", "proxy", true},
    {"icmpv6 type addr-unreachable", "EHOSTUNREACH", "connect-unreachable", "proxy", true},
    {"icmpv6 type port-unreachable", "ECONNREFUSED", "connect-refused", "server", true},
};

enum { REJECTIONS = COUNT_OF(rejections), FIRST_PORT = 9100, ALONE_PORT = 8100, THEN_PORT = 8200 };

/* Two listeners for each rejection: one with that server alone, one with a good server behind
 * it. */
static void start_before_firewall(struct proxy *proxy)
{
    static char texts[2 * REJECTIONS][ARGUMENT_BYTES];
    const char *arguments[2 * REJECTIONS + 1] = {NULL};

    for (int i = 0; i < REJECTIONS; i++) {
        const char *far = rejections[i].v6 ? "[" NETNS_FAR_IP6 "]" : NETNS_FAR_IP;

        (void)snprintf(texts[2 * i], ARGUMENT_BYTES, "%s:%d=%s:%d", proxy->ip, ALONE_PORT + i, far,
                       FIRST_PORT + i);
        (void)snprintf(texts[2 * i + 1], ARGUMENT_BYTES, "%s:%d=%s:%d,%s:%d", proxy->ip,
                       THEN_PORT + i, far, FIRST_PORT + i, proxy->ip, ORIGIN_PORT);
        arguments[2 * i] = texts[2 * i];
        arguments[2 * i + 1] = texts[2 * i + 1];
    }
    netns_go_far();
    /* All of them at once are more than the kernel would say in a second. */
    netns_set("icmp_ratelimit", "0");
    netns_run("echo 0 >/proc/sys/net/ipv6/icmp/ratelimit");
    for (int i = 0; i < REJECTIONS; i++) {
        netns_rule("tcp dport %d reject with %s", FIRST_PORT + i, rejections[i].with);
    }
    netns_go_near();
    proxy_start(proxy, arguments);
}

/* The record of the connection that came to this port. */
static size_t record_at(struct proxy *proxy, int port, size_t count)
{
    char wanted[64];

    (void)snprintf(wanted, sizeof(wanted), "%s:%d", proxy->ip, port);
    proxy_wait_event(proxy, "close", count);
    for (size_t i = 0; i < count; i++) {
        char listener[PROXY_FIELD_BYTES];

        proxy_field(proxy, "close", i, "listener", listener);
        if (strcmp(listener, wanted) == 0) {
            return i;
        }
    }
    cr_assert(false, "no record of %s in the log:\n%s", wanted, proxy->log);
    return 0;
}

/* CF-04, the handshake. Goal: each word of a firewall against a server is a failure of that server,
 * named in the record, and the next one gets its turn. Method: everything that `nft reject` can
 * answer, from a machine behind a cable; each alone, and each before a server that is there. All
 * clients at once, since Linux takes some of these words only from the second SYN, a second
 * later. */
Test(connect_failures, go_on_to_the_next_server_whatever_a_firewall_says)
{
    int alone[REJECTIONS];
    int then[REJECTIONS];
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    netns_enter();
    netns_add_far();
    start_before_firewall(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, REJECTIONS);
    for (int i = 0; i < REJECTIONS; i++) {
        alone[i] = peer_connect_later(proxy.ip, (uint16_t)(ALONE_PORT + i));
        then[i] = peer_connect(proxy.ip, (uint16_t)(THEN_PORT + i));
        peer_send(then[i], UP, 0, KIB);
        peer_shut(then[i]);
    }
    for (int i = 0; i < REJECTIONS; i++) {
        int server = peer_accept(origin);

        peer_expect(server, UP, 0, KIB);
        peer_expect_end(server, PEER_FIN);
        peer_send(server, DOWN, 0, KIB);
        peer_close(server);
    }
    for (int i = 0; i < REJECTIONS; i++) {
        peer_expect(then[i], DOWN, 0, KIB);
        peer_expect_end(then[i], PEER_FIN);
        peer_close(then[i]);
        peer_close(alone[i]);
    }
    for (int i = 0; i < REJECTIONS; i++) {
        const struct rejection *rejection = &rejections[i];
        size_t failed = record_at(&proxy, ALONE_PORT + i, 2 * REJECTIONS);
        size_t served = record_at(&proxy, THEN_PORT + i, 2 * REJECTIONS);

        expect_failure(&proxy, failed, rejection->reason, rejection->closed_by, "error",
                       rejection->error, 0);
        expect_reason(&proxy, served, "server-fin", "client", "fin", NULL);
        expect_server(&proxy, served, ORIGIN_PORT, 1);
    }
    netns_go_far();
    cr_assert(netns_hits() >= 2 * REJECTIONS);
    netns_go_near();
    peer_close(origin);
    proxy_finish(&proxy, 2 * REJECTIONS);
}

/* --- a storm --- */

/* CF-10, B08. Goal: when every server refuses, clients that come in masses cost one try of each
 * server and nothing that stays, and service is back with the first connection after a server is.
 * Method: three servers that refuse; 5,000 clients, 250 at a time; then one server listens. */
Test(connect_failures, of_a_storm_are_bounded_and_leave_nothing_behind)
{
    enum { AT_ONCE = 250, ROUNDS = 20, CLIENTS = AT_ONCE * ROUNDS, SERVERS = 3 };
    struct proxy proxy;
    size_t served = 0;
    int origin;

    need_descriptors(4 * AT_ONCE);
    proxy_init(&proxy);
    netns_enter();
    start_with_targets(&proxy, "@@:9001,@@:9002,@@:9000", NULL);
    for (size_t round = 0; round < ROUNDS; round++) {
        int clients[AT_ONCE];

        for (size_t i = 0; i < AT_ONCE; i++) {
            clients[i] = connect_doomed(proxy.ip, PROXY_PORT);
        }
        for (size_t i = 0; i < AT_ONCE; i++) {
            peer_expect_end(clients[i], PEER_RESET);
            peer_close(clients[i]);
        }
    }
    proxy_wait_event(&proxy, "close", CLIENTS);
    for (size_t i = 0; i < CLIENTS; i += 100) {
        expect_failure(&proxy, i, "connect-refused", "server", "error", "ECONNREFUSED",
                       SERVERS - 1);
    }
    /* SERVERS connects for each client and no more: what the kernel counts as failed attempts of
     * this namespace (the clients' own all succeeded). */
    cr_assert(netns_counter("AttemptFails") == CLIENTS * SERVERS, "%llu attempts",
              (unsigned long long)netns_counter("AttemptFails"));

    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    for (; served < SERVERS; served++) {
        struct pair pair = pair_open(&proxy, origin);

        pair_exchange(&pair, UP);
        pair_end(&pair);
        expect_reason(&proxy, CLIENTS + served, "server-fin", "client", "fin", NULL);
    }
    peer_close(origin);
    proxy_finish(&proxy, CLIENTS + served);
}
