/* Test support: both ends of one proxied connection, for tests in which many of them come and
 * go. */
#ifndef SUPPORT_PAIR_H
#define SUPPORT_PAIR_H

#include "support/proxy.h"

struct pair {
    int client;
    int server;
};

/** Connects through the proxy to the listening socket `origin`; one at a time. */
struct pair pair_open(const struct proxy *proxy, int origin);
/** Some bytes each way, checked. */
void pair_exchange(const struct pair *pair, uint64_t key);
/** The client ends first, then the server, each having seen the other's FIN; both are closed. */
void pair_end(const struct pair *pair);
/** Closes both ends as they are. */
void pair_close(const struct pair *pair);
/** Both ends must find a reset, and no byte before it. */
void pair_expect_reset(const struct pair *pair);

#endif
