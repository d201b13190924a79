/* A FIN that is lost on the way, and a reset behind it.
 *
 * TCP sends a lost FIN again, but a reset is never sent again, nor does it wait: a socket that is
 * closed with a reset forgets everything that it has not delivered, its FIN too. A receiver that is
 * reset in the place of FIN takes a complete answer for one that was cut. */
#include "support/ends.h"
#include "support/netns.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>

enum { UP = 1, DOWN = 2, BYTES = 1000 };

ParameterizedTestParameters(lost_fin, comes_again_before_the_reset_behind_it)
{
    static bool cases[] = {false, true};

    return cr_make_param_array(bool, cases, 2);
}

/* B32. Goal: what one side has ended by FIN ends by FIN for the other, also if that FIN is lost once
 * and the first side has reset meanwhile. Method: a packet filter drops the first FIN from sluice;
 * the sender of the FIN resets as soon as sluice has it; the receiver reads on only later. */
ParameterizedTest(bool *server_first, lost_fin, comes_again_before_the_reset_behind_it)
{
    struct proxy proxy;
    int origin;
    int client;
    int server;
    int first;
    int other;

    proxy_init(&proxy);
    netns_enter();
    proxy_start_simple(&proxy, NULL);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    client = peer_connect(proxy.ip, PROXY_PORT);
    server = peer_accept(origin);
    first = *server_first ? server : client;
    other = *server_first ? client : server;
    netns_rule("tcp %s %d tcp flags & fin == fin limit rate 1/day burst 1 packets drop",
               *server_first ? "sport" : "dport", *server_first ? PROXY_PORT : ORIGIN_PORT);
    peer_send(first, UP, 0, BYTES);
    peer_shut(first);
    peer_expect(other, UP, 0, BYTES);
    wait_acknowledged(first);
    peer_reset(first);

    peer_expect_end(other, PEER_FIN);
    expect_broken(other);
    cr_assert(netns_hits() == 1, "%llu packets were dropped", (unsigned long long)netns_hits());
    expect_reason(&proxy, 0, *server_first ? "server-reset" : "client-reset",
                  *server_first ? "server" : "client", "rst", "EPIPE");
    peer_close(other);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}
