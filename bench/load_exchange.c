/*
 * load_exchange: one message to an echo and back.
 *
 * A forwarder that is fast because it mixes up or loses bytes must not win. So each answer is
 * compared with what was sent. Messages are cut from one pattern, bytes 0 to 255 again and again,
 * at an offset that moves on by one for each message of a connection: an answer that is late,
 * doubled or of another connection does not match (of a neighbour whose count is the same it does;
 * the pattern is shared so that the load has no memory to fill and none for each connection).
 *
 * A connection has one message under way at most. So bytes beyond it are as wrong as false ones,
 * and the receive asks for more than it expects to see them; that it gets less also says that the
 * socket is empty, without a second call.
 *
 * Invariants:
 *   I1  received <= bytes, and of an echo received <= sent: an answer that overtakes is wrong.
 *   I2  After LOAD_DONE everything that was sent has come back.
 */
#include "load_exchange.h"

#include <string.h>

#define KEYS 256

static uint8_t pattern[LOAD_BYTES_MAX + KEYS];
static uint8_t answer[LOAD_BYTES_MAX + 1]; /* of the turn that is going on */

void load_exchange_init(void)
{
    for (size_t i = 0; i < sizeof(pattern); i++) {
        pattern[i] = (uint8_t)i;
    }
}

void load_exchange_begin(struct load_loop *loop, struct load_conn *conn)
{
    conn->sent = 0;
    conn->received = 0;
    conn->key++;
    load_conn_begin(loop, conn);
}

/* What was received is compared; false after load_conn_fail(). */
static bool exchange_receive(struct load_loop *loop, struct load_conn *conn)
{
    ssize_t count = load_conn_receive(loop, conn, answer, sizeof(answer));

    if (count < 0) {
        return false;
    }
    if (conn->fin_read) {
        load_conn_fail(loop, conn, LOAD_ERROR_EARLY_END, "it ended before its answer", 0);
        return false;
    }
    if ((size_t)count > conn->sent - conn->received ||
        memcmp(answer, pattern + conn->key + conn->received, (size_t)count) != 0) {
        load_conn_fail(loop, conn, LOAD_ERROR_WRONG_BYTES, "the echo is not what was sent", 0);
        return false;
    }
    conn->received += (uint32_t)count;
    return true;
}

enum load_outcome load_exchange_move(struct load_loop *loop, struct load_conn *conn, uint32_t bytes)
{
    uint32_t before = conn->sent + conn->received;

    if (conn->writable && conn->sent < bytes) {
        const uint8_t *rest = pattern + conn->key + conn->sent;
        ssize_t count = load_conn_send(loop, conn, rest, bytes - conn->sent);
        if (count < 0) {
            return LOAD_GONE;
        }
        conn->sent += (uint32_t)count;
    }
    if (conn->readable && !exchange_receive(loop, conn)) {
        return LOAD_GONE;
    }
    if (conn->received == bytes) {
        return LOAD_DONE;
    }
    if (conn->sent + conn->received > before) {
        load_conn_touch(loop, conn);
    }
    return conn->readable || (conn->writable && conn->sent < bytes) ? LOAD_AGAIN : LOAD_WAIT;
}
