/*
 * load_pass: something done once with every connection, a bounded number at a time.
 *
 * Layer: above load_loop and load_exchange. Part of the program load.
 */
#ifndef BENCH_LOAD_PASS_H
#define BENCH_LOAD_PASS_H

#include "load_loop.h"

/** Opens every connection and, if bytes is not 0, has a message of so many echoed on it: then the
 *  forwarder's leg to the server stands as well. False if not every one stands. */
bool load_pass_open(struct load_loop *loop, uint32_t bytes);

/** Has one byte echoed on every open connection; `answered` is called with each answer's
 *  latency. */
void load_pass_ping(struct load_loop *loop, void (*answered)(void *mode, int64_t latency_ns));

/** Sends FIN on every open connection, drops what still comes, and closes it after the peer's
 *  FIN. */
void load_pass_close(struct load_loop *loop);

#endif
