/* Peers that fall silent, and networks that swallow what matters most: a FIN, a reset, an ICMP
 * message. A connection must neither stay for ever nor be cut by something that passes (contract
 * 6).
 *
 * The peer lives at the far end of a cable. Pulling the cable out, or a rule that drops one kind of
 * packet, is what a firewall that lost its state, a dead machine or a bad link does. Each test
 * makes sure that its rule did meet packets. */
#include "support/cable.h"
#include "support/ends.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { KIB = 1024, UP = 1, DOWN = 2 };

/* TCP finds out within some seconds that nobody answers. */
static const char *const impatient[] = {
    "--keepalive-idle", "1s", "--keepalive-interval", "1s", "--user-timeout", "2s", NULL};

/* --- the cable is pulled out --- */

struct vanish_case {
    bool server_first;   /* ended first; the other side then vanishes */
    bool by_fin_timeout; /* what is to notice it: fin-timeout, or TCP itself */
};

ParameterizedTestParameters(silence, of_the_remaining_side_ends_a_half_closed_connection)
{
    static struct vanish_case cases[] = {
        {false, true}, {true, true}, {false, false}, {true, false}};

    return cr_make_param_array(struct vanish_case, cases, sizeof(cases) / sizeof(cases[0]));
}

/* Starts sluice with the vanishing side's leg on the cable between the namespaces. */
static void start_on_cable(struct proxy *proxy, const struct vanish_case *with)
{
    static const char *const by_fin[] = {"--fin-timeout", "500ms", NULL};
    static const char *const by_tcp[] = {
        "--keepalive-idle", "1s", "--keepalive-interval", "1s", "--user-timeout", "1s", NULL};
    const char *const *options = with->by_fin_timeout ? by_fin : by_tcp;
    const char *arguments[8] = {proxy->arg};

    (void)snprintf(proxy->arg, sizeof(proxy->arg), "%s:%d=%s:%d",
                   with->server_first ? NETNS_NEAR_IP : proxy->ip, PROXY_PORT,
                   with->server_first ? proxy->ip : NETNS_FAR_IP, ORIGIN_PORT);
    for (size_t i = 0; options[i] != NULL; i++) {
        arguments[i + 1] = options[i];
    }
    proxy_start(proxy, arguments);
}

/* HC-12. Goal: a half-closed connection whose last peer is gone does not stay for ever (contract
 * 6), and the one that is left learns of it by a reset. Method: the last peer lives behind a cable
 * that is pulled out; fin-timeout, or keepalive with user-timeout, has to notice. */
ParameterizedTest(struct vanish_case *with, silence,
                  of_the_remaining_side_ends_a_half_closed_connection)
{
    struct proxy proxy;
    struct pair pair;
    uint64_t key = with->server_first ? DOWN : UP;
    int first;
    int other;
    int origin;

    proxy_init(&proxy);
    netns_enter();
    netns_add_far();
    start_on_cable(&proxy, with);
    if (with->server_first) {
        origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
        netns_go_far();
        pair.client = peer_connect(NETNS_NEAR_IP, PROXY_PORT);
        netns_go_near();
    } else {
        netns_go_far();
        origin = peer_listen(NETNS_FAR_IP, ORIGIN_PORT, 8);
        netns_go_near();
        pair.client = peer_connect(proxy.ip, PROXY_PORT);
    }
    pair.server = peer_accept(origin);
    first = with->server_first ? pair.server : pair.client;
    other = with->server_first ? pair.client : pair.server;
    peer_send(first, key, 0, KIB);
    peer_shut(first);
    peer_expect(other, key, 0, KIB);
    peer_expect_end(other, PEER_FIN);
    wait_acknowledged(first);
    netns_unplug();

    peer_expect_end(first, PEER_RESET);
    expect_reason(&proxy, 0, with->by_fin_timeout ? "fin-timeout" : "peer-timeout",
                  with->by_fin_timeout ? "proxy"
                  : with->server_first ? "server"
                                       : "client",
                  "timeout", with->by_fin_timeout ? NULL : "ETIMEDOUT");
    cr_assert(proxy_number(&proxy, "close", 0, with->server_first ? "bytes_down" : "bytes_up") ==
              KIB);
    cr_assert(proxy_number(&proxy, "close", 0, "undelivered_bytes") == 0);
    pair_close(&pair);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* The errno of a peer that stopped answering: the time-out itself, or what the neighbour table
 * found. */
static void expect_vanished(struct proxy *proxy, size_t index)
{
    char error[PROXY_FIELD_BYTES];

    proxy_wait_event(proxy, "close", index + 1);
    proxy_field(proxy, "close", index, "errno", error);
    cr_assert(strcmp(error, "ETIMEDOUT") == 0 || strcmp(error, "EHOSTUNREACH") == 0, "%s", error);
    expect_reason(proxy, index, "peer-timeout", "server", "timeout", error);
}

/* TO-07. Goal: a server that vanishes without a word is noticed by TCP itself, whatever its
 * connection was doing. Method: three connections to a server behind a cable: one idle (keepalive),
 * one with bytes on the way (user-timeout), one whose window is closed (user-timeout, by probes);
 * pull the cable out. */
Test(silence, is_found_out_by_tcp_whatever_a_connection_was_doing)
{
    enum { IDLE, BUSY, CLOSED_WINDOW, KINDS, BYTES = 10 * KIB };
    static const char *const options[] = {"--keepalive-idle",
                                          "1s",
                                          "--user-timeout",
                                          "3s",
                                          "--splice",
                                          "auto",
                                          "--keepalive-interval",
                                          "1s",
                                          NULL};
    const char *arguments[16] = {NULL};
    struct proxy proxy;
    struct pair pairs[KINDS];
    struct way way;
    bool found[KINDS] = {false};
    int origin;

    proxy_init(&proxy);
    netns_enter();
    netns_add_far();
    (void)snprintf(proxy.arg, sizeof(proxy.arg), "%s:%d=%s:%d", proxy.ip, PROXY_PORT, NETNS_FAR_IP,
                   ORIGIN_PORT);
    arguments[0] = proxy.arg;
    memcpy(arguments + 1, options, sizeof(options));
    proxy_start(&proxy, arguments);
    netns_go_far();
    origin = peer_listen(NETNS_FAR_IP, ORIGIN_PORT, 8);
    netns_go_near();
    for (int i = 0; i < KINDS; i++) {
        pairs[i] = pair_open(&proxy, origin);
        pair_exchange(&pairs[i], UP);
    }
    way = (struct way){
        .sender = pairs[CLOSED_WINDOW].client, .receiver = pairs[CLOSED_WINDOW].server, .key = UP};
    block(&way, 1);
    netns_unplug();
    peer_send(pairs[BUSY].client, UP, 0, BYTES);

    for (int i = 0; i < KINDS; i++) {
        peer_expect_end(pairs[i].client, PEER_RESET);
        pair_close(&pairs[i]);
    }
    for (size_t i = 0; i < KINDS; i++) {
        uint64_t bytes_up;
        uint64_t undelivered;

        expect_vanished(&proxy, i);
        bytes_up = proxy_number(&proxy, "close", i, "bytes_up");
        undelivered = proxy_number(&proxy, "close", i, "undelivered_bytes");
        found[IDLE] |= bytes_up == 500 && undelivered == 0;
        found[BUSY] |= bytes_up == 500 + BYTES && undelivered == BYTES;
        found[CLOSED_WINDOW] |=
            bytes_up == 500 + way_passed_on(&way) && undelivered == way_undelivered(&way);
    }
    cr_assert(found[IDLE] && found[BUSY] && found[CLOSED_WINDOW], "%llu passed on:\n%s",
              (unsigned long long)way_passed_on(&way), proxy.log);
    peer_close(origin);
    proxy_finish(&proxy, KINDS);
}

/* --- a reset that never arrives --- */

/* How sluice comes to know that its peer is only half there. */
enum half_open { WHILE_IDLE, WHILE_SENDING, HALF_OPENS };

ParameterizedTestParameters(silence, of_a_peer_whose_reset_was_swallowed_is_found_out)
{
    static int cases[] = {WHILE_IDLE, WHILE_SENDING};

    return cr_make_param_array(int, cases, HALF_OPENS);
}

/* Goal: a peer that has reset, and whose resets never arrive, is a peer that does not answer:
 * keepalive finds it, or user-timeout where there is something to send; nothing is taken for a
 * clean end, and the other side is reset. Method: every RST from the far end is dropped; the server
 * resets; then the connection is idle, or the client sends 10 KiB. */
ParameterizedTest(int *with, silence, of_a_peer_whose_reset_was_swallowed_is_found_out)
{
    enum { BYTES = 10 * KIB };
    uint64_t sent = *with == WHILE_SENDING ? BYTES : 0;
    struct expected_end end = {"peer-timeout", "server", "timeout", "ETIMEDOUT",
                               500 + sent,     700,      sent};
    struct proxy proxy;
    struct pair pair;
    int origin;

    cable_lay(&proxy);
    netns_rule("tcp flags & rst == rst drop");
    origin = cable_start(&proxy, impatient);
    pair = cable_open(&proxy, origin);
    pair_exchange(&pair, UP);
    peer_reset(pair.server);
    peer_send(pair.client, 5, 0, sent);
    peer_expect_end(pair.client, PEER_RESET);
    peer_close(pair.client);
    expect_end(&proxy, 0, &end);
    /* The reset itself, and one for each probe or segment that came after it. */
    cr_assert(netns_hits() >= 2, "%" PRIu64 " resets were swallowed", netns_hits());
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* Goal: sluice's own reset may be lost too; the peer then learns with its next packet, and sluice
 * keeps nothing for that. Method: every RST towards the far end is dropped there while the server
 * resets; the record is there at once; with the rule gone, the client sends one byte and is
 * told. */
Test(silence, of_our_own_reset_is_mended_by_the_next_packet_of_the_peer)
{
    struct expected_end end = {"server-reset", "server", "rst", "ECONNRESET", 500, 700, 0};
    struct proxy proxy;
    struct pair pair;
    int origin;

    cable_lay(&proxy);
    origin = cable_start(&proxy, NULL);
    pair = cable_open(&proxy, origin);
    pair_exchange(&pair, UP);
    netns_go_far();
    netns_rule("tcp sport %d tcp flags & rst == rst drop", PROXY_PORT);
    netns_go_near();
    peer_reset(pair.server);
    expect_end(&proxy, 0, &end);
    netns_go_far();
    cr_assert(netns_hits() == 1, "%" PRIu64 " resets were swallowed", netns_hits());
    netns_clear();
    netns_go_near();
    peer_send(pair.client, 5, 0, 1);
    peer_expect_end(pair.client, PEER_RESET);
    peer_close(pair.client);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* --- a FIN that never arrives --- */

/* Waits until a rule has met so many packets, in the namespace we are in. */
static void wait_for_hits(uint64_t count)
{
    uint64_t deadline = monotonic_ms() + PEER_WAIT_S * 1000;

    while (netns_hits() < count) {
        cr_assert(monotonic_ms() < deadline, "no %" PRIu64 " packets met the rule", count);
        pause_ms(5);
    }
}

ParameterizedTestParameters(silence, of_a_fin_is_made_good_when_it_comes_again)
{
    static bool cases[] = {false, true};

    return cr_make_param_array(bool, cases, 2);
}

/* Goal: a FIN that is lost some times ends the stream when it comes again, and everything around it
 * is delivered: nothing is cut, nothing ends before it. Method: every packet with FIN from the far
 * end is dropped; one side sends 64 KiB and FIN, the other one sends 64 KiB meanwhile; after two
 * lost FINs the way is free again. */
ParameterizedTest(bool *server_first, silence, of_a_fin_is_made_good_when_it_comes_again)
{
    enum { BYTES = 64 * KIB };
    struct proxy proxy;
    struct pair pair;
    int origin;
    int first;
    int other;

    cable_lay(&proxy);
    netns_rule("tcp flags & fin == fin drop");
    origin = cable_start(&proxy, NULL);
    pair = cable_open(&proxy, origin);
    first = *server_first ? pair.server : pair.client;
    other = *server_first ? pair.client : pair.server;
    peer_send(first, UP, 0, BYTES);
    peer_expect(other, UP, 0, BYTES);
    peer_shut(first);
    peer_send(other, DOWN, 0, BYTES);
    peer_expect(first, DOWN, 0, BYTES);
    wait_for_hits(2);
    cr_assert(!peer_readable(other, 0), "an end was shown that sluice can't know of");
    cr_assert(proxy_count_event(&proxy, "close") == 0, "%s", proxy.log);
    netns_clear();
    peer_expect_end(other, PEER_FIN);
    peer_shut(other);
    peer_expect_end(first, PEER_FIN);
    pair_close(&pair);
    expect_reason(&proxy, 0, *server_first ? "client-fin" : "server-fin",
                  *server_first ? "server" : "client", "fin", NULL);
    cr_assert(proxy_number(&proxy, "close", 0, "bytes_up") == BYTES);
    cr_assert(proxy_number(&proxy, "close", 0, "bytes_down") == BYTES);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* Goal: when sluice's own FIN is lost, the other direction goes on and the connection still ends
 * cleanly. Method: packets with FIN towards the server are dropped; the client sends 64 KiB and
 * FIN; the server, which sees no end, answers all the same and ends; once the way is free it finds
 * the end, right behind the bytes. */
Test(silence, of_our_own_fin_holds_up_nothing)
{
    enum { BYTES = 64 * KIB };
    struct expected_end end = {"server-fin", "client", "fin", NULL, BYTES, BYTES, 0};
    struct proxy proxy;
    struct pair pair;
    int origin;

    cable_lay(&proxy);
    origin = cable_start(&proxy, NULL);
    pair = cable_open(&proxy, origin);
    netns_go_far();
    netns_rule("tcp dport %d tcp flags & fin == fin drop", ORIGIN_PORT);
    peer_send(pair.client, UP, 0, BYTES);
    peer_shut(pair.client);
    peer_expect(pair.server, UP, 0, BYTES);
    wait_for_hits(2);
    cr_assert(!peer_readable(pair.server, 0), "the rule does not work");
    peer_send(pair.server, DOWN, 0, BYTES);
    peer_shut(pair.server);
    peer_expect(pair.client, DOWN, 0, BYTES);
    peer_expect_end(pair.client, PEER_FIN);
    expect_end(&proxy, 0, &end);
    netns_clear();
    netns_go_near();
    peer_expect_end(pair.server, PEER_FIN);
    pair_close(&pair);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* --- ICMP in the middle of a connection --- */

static const char *const complaints[] = {"host-unreachable", "net-unreachable", "prot-unreachable",
                                         "port-unreachable", "admin-prohibited"};
enum { COMPLAINTS = sizeof(complaints) / sizeof(complaints[0]) };

ParameterizedTestParameters(silence, behind_an_icmp_message_ends_with_the_route_or_by_timeout)
{
    static int cases[COMPLAINTS];

    for (int i = 0; i < COMPLAINTS; i++) {
        cases[i] = i;
    }
    return cr_make_param_array(int, cases, COMPLAINTS);
}

/* CF-04, mid-stream. Goal: what ICMP says of an established connection is a hint and no end (RFC
 * 1122, 4.2.3.9): anybody can send it. The connection goes on when the way is free again; where it
 * stays blocked, user-timeout ends it, as a peer that does not answer, whatever ICMP had said.
 * Method: two connections to servers that a firewall comes to reject after a first exchange; the
 * clients send on; the second rejection is taken back, the first one is not. */
ParameterizedTest(int *with, silence, behind_an_icmp_message_ends_with_the_route_or_by_timeout)
{
    enum { BYTES = 10 * KIB, OTHER_PORT = ORIGIN_PORT + 1, OTHER_LISTENER = PROXY_PORT + 1 };
    const char *options[] = {"--user-timeout", "3s", "--keepalive-idle", "off", NULL, NULL};
    char argument[64];
    struct proxy proxy;
    struct pair lost;
    struct pair saved;
    uint64_t hits;
    int origins[2];

    cable_lay(&proxy);
    (void)snprintf(argument, sizeof(argument), NETNS_NEAR_IP ":%d=" NETNS_FAR_IP ":%d",
                   OTHER_LISTENER, OTHER_PORT);
    options[4] = argument;
    origins[0] = cable_start(&proxy, options);
    netns_go_far();
    origins[1] = peer_listen(NETNS_FAR_IP, OTHER_PORT, 8);
    lost = pair_open(&proxy, origins[0]);
    saved.client = peer_connect(NETNS_NEAR_IP, OTHER_LISTENER);
    saved.server = peer_accept(origins[1]);
    pair_exchange(&lost, UP);
    pair_exchange(&saved, UP);

    netns_rule("tcp dport %d reject with icmp type %s", OTHER_PORT, complaints[*with]);
    peer_send(saved.client, 5, 0, BYTES);
    wait_for_hits(3);
    cr_assert(!peer_readable(saved.server, 0), "the rule does not work");
    netns_clear();
    peer_expect(saved.server, 5, 0, BYTES);
    pair_exchange(&saved, UP);
    cr_assert(proxy_count_event(&proxy, "close") == 0, "%s", proxy.log);
    hits = netns_hits();

    netns_rule("tcp dport %d reject with icmp type %s", ORIGIN_PORT, complaints[*with]);
    peer_send(lost.client, 5, 0, BYTES);
    peer_expect_end(lost.client, PEER_RESET);
    cr_assert(netns_hits() >= hits + 3);
    netns_go_near();
    proxy_wait_event(&proxy, "close", 1);
    proxy_expect_field(&proxy, "close", 0, "reason", "peer-timeout");
    proxy_expect_field(&proxy, "close", 0, "closed_by", "server");
    cr_assert(proxy_number(&proxy, "close", 0, "bytes_up") == 500 + BYTES);
    cr_assert(proxy_number(&proxy, "close", 0, "undelivered_bytes") == BYTES);
    cr_assert(record_ms(&proxy, 0, "duration_s") >= 3000, "an ICMP message ended it");
    pair_exchange(&saved, UP);
    pair_end(&saved);
    pair_close(&lost);
    expect_reason(&proxy, 1, "server-fin", "client", "fin", NULL);
    peer_close(origins[0]);
    peer_close(origins[1]);
    proxy_finish(&proxy, 2);
}
