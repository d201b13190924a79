/* Test support: servers that are tried in turn, and what clients and records say when one
 * refuses. */
#ifndef SUPPORT_TRIES_H
#define SUPPORT_TRIES_H

#include "support/proxy.h"

#include <stddef.h>
#include <stdint.h>

/** Starts sluice at this test's address, port PROXY_PORT; each "@@" in `targets` stands for that
 *  address. `options` ends with NULL and may be NULL. */
void start_with_targets(struct proxy *proxy, const char *targets, const char *const options[]);

/** A client that is going to be reset, perhaps before a blocking connect(2) would have returned. */
int connect_doomed(const char *ip, uint16_t port);

/** Connects; the only thing that may come is a reset. */
void expect_refusal(const char *ip, uint16_t port);

/** What the record of a connection says that never reached a server. */
void expect_failure(struct proxy *proxy, size_t index, const char *reason, const char *closed_by,
                    const char *how, const char *error, uint64_t retries);

/** The server in the index-th record, at this test's address, and how many were tried before it. */
void expect_server(const struct proxy *proxy, size_t index, uint16_t port, uint64_t retries);

#endif
