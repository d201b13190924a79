/* Test support: whole streams through a proxied connection, in one order or another, each byte
 * checked and FIN expected right behind the last one. */
#ifndef SUPPORT_EXCHANGE_H
#define SUPPORT_EXCHANGE_H

#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <stddef.h>
#include <stdint.h>

/** Who ends first; with BOTH_AT_ONCE both send at the same time and who is first is chance. */
enum order { CLIENT_FIRST, SERVER_FIRST, BOTH_AT_ONCE, ORDERS };

/** `len` bytes and FIN each way: streams `key` (up) and `key + 1` (down). Leaves the pair open. */
void exchange(const struct pair *pair, enum order order, uint64_t key, uint64_t len);

/** BOTH_AT_ONCE by peers that send and receive as `model` says (chunk_max, pause_us). */
void exchange_at_once(const struct pair *pair, uint64_t key, uint64_t len,
                      const struct peer_task *model);

/** What the index-th close record must say after an exchange, the same for every splice mode. */
void expect_exchanged(struct proxy *proxy, size_t index, enum order order, uint64_t len);

/** Joins a task that received to the end: `len` bytes and FIN. */
void join_receiving(struct peer_task *task, uint64_t len);

#endif
