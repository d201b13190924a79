/*
 * load_churn: connections that come and go: each is opened, has one message echoed, and is closed.
 *
 *   connect ----> message ----> its echo ----> FIN ----> the peer's FIN, close ----> connect ...
 *      begun_ns                                             latency ends
 *
 * There are always as many under way as were asked for: a slot opens its next connection in the
 * same turn in which it closed the last. A slot whose connection fails stays empty, so that a
 * server which refuses is not hammered; the run is worth nothing then, and its exit status says so.
 * Connections that are under way at the end are brought to theirs but not counted.
 *
 * The load ends first, so the ports in TIME_WAIT are its own. On loopback Linux lets them be used
 * again after a second (net.ipv4.tcp_tw_reuse is 2 by default), which is enough for 28,000
 * connections a second; beyond that connect says that there is no port.
 *
 * Invariants:
 *   I1  Only connections that began and ended within `seconds` are counted, with their latency.
 */
#include "load_churn.h"

#include "histogram.h"
#include "load_exchange.h"

#include <errno.h>
#include <inttypes.h>

#define LATE_NS (10 * LOAD_SECOND_NS) /* to end, after the run */

struct churn {
    struct load_loop loop;
    int64_t end_ns; /* no connection is opened or counted after it */
    struct histogram latency;
};

static void churn_open(struct load_loop *loop, struct load_conn *conn)
{
    conn->begun_ns = load_now_ns();
    conn->sent = 0;
    conn->received = 0;
    conn->key++;
    (void)load_conn_open(loop, conn); /* a failure is counted, and the slot stays empty */
}

/* The peer's FIN is there. */
static void churn_finish(struct load_loop *loop, struct load_conn *conn)
{
    struct churn *churn = loop->mode;
    int64_t now_ns;

    load_conn_close(loop, conn);
    now_ns = load_now_ns();
    if (now_ns < churn->end_ns && loop->stops == 0) {
        histogram_add(&churn->latency, now_ns - conn->begun_ns);
        churn_open(loop, conn);
    }
}

static enum load_outcome churn_end_turn(struct load_loop *loop, struct load_conn *conn)
{
    uint8_t surplus;
    ssize_t count = conn->readable ? load_conn_receive(loop, conn, &surplus, 1) : 0;

    if (count > 0) {
        load_conn_fail(loop, conn, LOAD_ERROR_WRONG_BYTES, "more came than was sent", 0);
        return LOAD_GONE;
    }
    if (count < 0) {
        return LOAD_GONE;
    }
    if (conn->fin_read) {
        churn_finish(loop, conn);
        return LOAD_GONE;
    }
    return LOAD_WAIT;
}

static enum load_outcome churn_turn(struct load_loop *loop, struct load_conn *conn)
{
    uint32_t bytes = loop->options->bytes;
    enum load_outcome outcome;

    if (conn->received == bytes) {
        return churn_end_turn(loop, conn);
    }
    outcome = load_exchange_move(loop, conn, bytes);
    if (outcome != LOAD_DONE) {
        return outcome;
    }
    if (shutdown(conn->fd, SHUT_WR) != 0) {
        load_conn_fail(loop, conn, LOAD_ERROR_BROKEN, "shutdown", errno);
        return LOAD_GONE;
    }
    load_conn_touch(loop, conn);
    return conn->readable ? LOAD_AGAIN : LOAD_WAIT;
}

/* Returns how long it took, without bringing the last ones to their end. */
static int64_t churn_play(struct churn *churn)
{
    struct load_loop *loop = &churn->loop;
    int64_t begin_ns = load_now_ns();
    int64_t stopped_ns;

    churn->end_ns = begin_ns + loop->options->duration_ns;
    loop->now_ns = begin_ns;
    for (uint32_t i = 0; i < loop->options->connections; i++) {
        churn_open(loop, &loop->conns[i]);
    }
    while (loop->busy > 0 && loop->now_ns < churn->end_ns && loop->stops == 0) {
        load_loop_turn(loop, churn->end_ns);
    }
    stopped_ns = loop->now_ns;
    while (loop->busy > 0 && loop->now_ns < stopped_ns + LATE_NS && loop->stops < 2) {
        load_loop_turn(loop, stopped_ns + LATE_NS);
    }
    return stopped_ns - begin_ns;
}

/* Those that have not ended even 10 s after the run. */
static void churn_fail_rest(struct churn *churn)
{
    struct load_loop *loop = &churn->loop;

    for (uint32_t i = 0; loop->stops < 2 && i < loop->options->connections; i++) {
        if (load_conn_is_busy(&loop->conns[i])) {
            load_conn_fail(loop, &loop->conns[i], LOAD_ERROR_SILENT, "no end within 10 s", 0);
        }
    }
}

int load_churn_run(const struct load_options *options)
{
    static struct churn churn; /* a histogram is too much for a stack */
    int64_t elapsed_ns;
    int status;

    load_exchange_init();
    if (!load_loop_init(&churn.loop, options, churn_turn, &churn)) {
        return 1;
    }
    elapsed_ns = churn_play(&churn);
    churn_fail_rest(&churn);
    printf("{\"mode\":\"churn\",\"connections\":%" PRIu32 ",\"bytes\":%" PRIu32
           ",\"connections_done\":%" PRIu64 ",\"seconds\":%.6f",
           options->connections, options->bytes, churn.latency.count, (double)elapsed_ns / 1e9);
    histogram_print_quantile_us(stdout, &churn.latency, "p50_us", 50000);
    histogram_print_quantile_us(stdout, &churn.latency, "p99_us", 99000);
    histogram_print_max_us(stdout, &churn.latency, "max_us");
    load_errors_print(stdout, &churn.loop.errors);
    puts("}");
    status = load_errors_conclude(&churn.loop.errors);
    load_loop_free(&churn.loop);
    return status;
}
