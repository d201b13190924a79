/* Pairs are opened one after the other, so the connection that the origin accepts is the one that
 * the client has just made. */
#include "support/pair.h"

#include "support/peer.h"

struct pair pair_open(const struct proxy *proxy, int origin)
{
    struct pair pair = {.client = peer_connect(proxy->ip, PROXY_PORT)};

    pair.server = peer_accept(origin);
    return pair;
}

void pair_exchange(const struct pair *pair, uint64_t key)
{
    peer_send(pair->client, key, 0, 500);
    peer_expect(pair->server, key, 0, 500);
    peer_send(pair->server, key + 1, 0, 700);
    peer_expect(pair->client, key + 1, 0, 700);
}

void pair_end(const struct pair *pair)
{
    peer_shut(pair->client);
    peer_expect_end(pair->server, PEER_FIN);
    peer_shut(pair->server);
    peer_expect_end(pair->client, PEER_FIN);
    pair_close(pair);
}

void pair_close(const struct pair *pair)
{
    peer_close(pair->client);
    peer_close(pair->server);
}

void pair_expect_reset(const struct pair *pair)
{
    peer_expect_end(pair->client, PEER_RESET);
    peer_expect_end(pair->server, PEER_RESET);
}
