/*
 * load_exchange: one message to an echo and back. Layer: above load_loop. Part of the program load.
 */
#ifndef BENCH_LOAD_EXCHANGE_H
#define BENCH_LOAD_EXCHANGE_H

#include "load_loop.h"

/** Fills the bytes that all messages are cut from. To be called once, first. */
void load_exchange_init(void);

/** Gives an open connection the job to send a message and to await its echo. */
void load_exchange_begin(struct load_loop *loop, struct load_conn *conn);

/** Does what can be done of it now; LOAD_DONE when the whole echo is there, and right. */
enum load_outcome load_exchange_move(struct load_loop *loop, struct load_conn *conn,
                                     uint32_t bytes);

#endif
