/* Layer: pool. A group of servers that can stand in for each other, and the choice among them. */
#ifndef POOL_POOL_H
#define POOL_POOL_H

#include "relay/relay.h"

struct pool {
    const struct target *targets; /* borrowed; outlives the pool */
    uint32_t targets_len;
    uint32_t next; /* where round robin goes on */
};

/** Prepares a pool. `start` says which server gets the first connection: workers pass different
 *  numbers, so that N workers do not all begin with the same one. */
void pool_init(struct pool *pool, const struct target *targets, uint32_t targets_len,
               uint32_t start);

/** Round robin, for relay/listener (a pick_fn; `pool` is a struct pool): each connection begins one
 *  server further than the one before; after a failure its next server follows, each at most
 *  once. */
const struct target *pool_pick_round_robin(void *pool, struct tries *tries);

#endif
