/*
 * load_pass: something done once with every connection, a bounded number at a time.
 *
 * Ten thousand connects at once overflow every backlog, and the kernel tries such a connect again
 * after a second: the set-up would measure that. Ten thousand pings at once measure mostly their
 * own queue. So a pass has at most 128 connections under way, and begins the next when one is done.
 *
 * A pass ends when all are done or failed, after 60 s at the latest, or when TERM or INT comes.
 * Those that are not done after 60 s count as silent. After a signal, those under way are closed,
 * and that is no error: it was wanted.
 *
 * Invariants:
 *   I1  After a pass no connection is busy.
 *   I2  A pass begins when none is busy: the mode has given them rest.
 */
#include "load_pass.h"

#include "load_exchange.h"

#include <errno.h>
#include <sys/socket.h>

#define UNDER_WAY_MAX 128
#define PASS_NS       (60 * LOAD_SECOND_NS)
#define DROP_BYTES    (1U << 20) /* at a time; they are copied nowhere */

typedef void (*begin_fn)(struct load_loop *loop, struct load_conn *conn);

static struct {
    bool opens;
    uint32_t bytes;
    void (*answered)(void *mode, int64_t latency_ns);
} pass; /* of the pass that is going on: there is only one */

/* What a signal or 60 s cut short. One that is closed has had its error, but if this pass opens. */
static void end_unfinished(struct load_loop *loop, uint32_t begun, bool stopped)
{
    for (uint32_t i = 0; i < loop->options->connections; i++) {
        struct load_conn *conn = &loop->conns[i];
        if (stopped && load_conn_is_busy(conn)) {
            load_conn_close(loop, conn);
        } else if (!stopped &&
                   (load_conn_is_busy(conn) || (i >= begun && (conn->fd >= 0 || pass.opens)))) {
            load_conn_fail(loop, conn, LOAD_ERROR_SILENT, "not all were done within 60 s", 0);
        }
    }
}

static void pass_run(struct load_loop *loop, begin_fn begin, load_turn_fn turn)
{
    load_turn_fn turn_before = loop->turn;
    int64_t deadline_ns = load_now_ns() + PASS_NS;
    int stops_before = loop->stops;
    uint32_t count = loop->options->connections;
    uint32_t next = 0;

    loop->turn = turn;
    loop->now_ns = load_now_ns();
    while ((next < count || loop->busy > 0) && loop->now_ns < deadline_ns &&
           loop->stops == stops_before) {
        while (next < count && loop->busy < UNDER_WAY_MAX) {
            begin(loop, &loop->conns[next++]);
        }
        if (loop->busy > 0) {
            load_loop_turn(loop, deadline_ns);
        }
    }
    end_unfinished(loop, next, loop->stops != stops_before);
    loop->turn = turn_before;
}

/* ---- Open ------------------------------------------------------------------------------------ */

static void open_begin(struct load_loop *loop, struct load_conn *conn)
{
    conn->sent = 0;
    conn->received = 0;
    (void)load_conn_open(loop, conn); /* a failure is counted, and then it is not open */
}

static enum load_outcome open_turn(struct load_loop *loop, struct load_conn *conn)
{
    return pass.bytes == 0 ? LOAD_DONE : load_exchange_move(loop, conn, pass.bytes);
}

bool load_pass_open(struct load_loop *loop, uint32_t bytes)
{
    pass.bytes = bytes;
    pass.opens = true;
    pass_run(loop, open_begin, open_turn);
    pass.opens = false;
    return loop->open == loop->options->connections;
}

/* ---- Ping ------------------------------------------------------------------------------------ */

static void ping_begin(struct load_loop *loop, struct load_conn *conn)
{
    if (conn->fd >= 0) {
        conn->begun_ns = load_now_ns();
        load_exchange_begin(loop, conn);
    }
}

static enum load_outcome ping_turn(struct load_loop *loop, struct load_conn *conn)
{
    enum load_outcome outcome = load_exchange_move(loop, conn, 1);

    if (outcome == LOAD_DONE) {
        pass.answered(loop->mode, load_now_ns() - conn->begun_ns);
    }
    return outcome;
}

void load_pass_ping(struct load_loop *loop, void (*answered)(void *mode, int64_t latency_ns))
{
    pass.answered = answered;
    pass_run(loop, ping_begin, ping_turn);
}

/* ---- Close ----------------------------------------------------------------------------------- */

static void close_begin(struct load_loop *loop, struct load_conn *conn)
{
    if (conn->fd < 0) {
        return;
    }
    if (shutdown(conn->fd, SHUT_WR) != 0) {
        load_conn_fail(loop, conn, LOAD_ERROR_BROKEN, "shutdown", errno);
    } else {
        load_conn_begin(loop, conn);
    }
}

/* Bytes do not put off the 10 s: a source that does not stop at FIN would never be silent. */
static enum load_outcome close_turn(struct load_loop *loop, struct load_conn *conn)
{
    if (load_conn_receive(loop, conn, NULL, DROP_BYTES) < 0) {
        return LOAD_GONE;
    }
    if (conn->fin_read) {
        load_conn_close(loop, conn);
        return LOAD_GONE;
    }
    return conn->readable ? LOAD_AGAIN : LOAD_WAIT;
}

void load_pass_close(struct load_loop *loop)
{
    pass_run(loop, close_begin, close_turn);
}
