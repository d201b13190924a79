/*
 * load_pingpong: messages by a timetable, and how late their echoes are.
 *
 * A load that sends the next message when the last is answered is polite to a server that stalls:
 * it waits with it, and a stall of half a second counts as one slow message instead of the
 * thousands that users would have seen (coordinated omission). So here the timetable is fixed
 * before the run, message m is due at m/R seconds, and its latency is from that moment to its
 * answer, whatever was the reason:
 *
 *   m                0     1     2     3     4     5  ...      3 connections
 *   due, 1/R s       0     1     2     3     4     5
 *   connection       0     1     2     0     1     2
 *
 * A connection has one message under way. If that is not answered when the next is due, the next is
 * late: it is sent as soon as the answer is there. Nothing is queued for that, because the due time
 * follows from the number: a message of a connection is due if its number is below `next_due`.
 *
 * The load itself is late too, a little: it has to be woken and to have a processor. How late it
 * began messages that were free to go is `lag_p99_us`; latencies contain it, so it must be small
 * beside them.
 *
 * When the timetable is at its end, what is late is still sent and awaited for 10 s. A message that
 * is never answered counts as taking until the end of the run: too little, but not nothing.
 *
 * Invariants:
 *   I1  The histogram has one value for every message that was due, answered or not.
 *   I2  A connection is busy exactly if its message is due and it is open.
 *   I3  sent <= due, received <= sent; without errors or overload all are equal.
 */
#include "load_pingpong.h"

#include "histogram.h"
#include "load_exchange.h"
#include "load_pass.h"

#include <inttypes.h>

#define BEGINS_PER_TURN 64
#define LATE_NS         (10 * LOAD_SECOND_NS) /* to answer, after the end of the timetable */

struct pingpong {
    struct load_loop loop;
    int64_t begin_ns;  /* message 0 is due */
    uint64_t total;    /* messages in the timetable */
    uint64_t next_due; /* number of the first message that is not yet known to be due */
    uint64_t sent;
    uint64_t received;
    uint64_t late; /* due before the answer to the message before it */
    struct histogram latency;
    struct histogram lag; /* of sending a message that was not late */
};

/* Below 2^63 by the limits on rate and seconds: at most 3.6e9 messages. */
static int64_t due_ns(const struct pingpong *pingpong, uint64_t message)
{
    return pingpong->begin_ns +
           (int64_t)(message * (uint64_t)LOAD_SECOND_NS / pingpong->loop.options->rate);
}

static enum load_outcome pingpong_turn(struct load_loop *loop, struct load_conn *conn)
{
    struct pingpong *pingpong = loop->mode;
    enum load_outcome outcome = load_exchange_move(loop, conn, loop->options->bytes);

    if (outcome != LOAD_DONE) {
        return outcome;
    }
    histogram_add(&pingpong->latency, load_now_ns() - due_ns(pingpong, conn->message));
    pingpong->received++;
    conn->message += loop->options->connections;
    if (conn->message < pingpong->next_due) {
        pingpong->sent++;
        load_exchange_begin(loop, conn);
        return LOAD_AGAIN;
    }
    return LOAD_DONE;
}

/* Begins what is due, but no more than 64: answers want to be read too. */
static void pingpong_begin_due(struct pingpong *pingpong)
{
    struct load_loop *loop = &pingpong->loop;
    int64_t now_ns = load_now_ns();

    for (int i = 0; i < BEGINS_PER_TURN && pingpong->next_due < pingpong->total &&
                    due_ns(pingpong, pingpong->next_due) <= now_ns;
         i++) {
        uint64_t message = pingpong->next_due++;
        struct load_conn *conn = &loop->conns[message % loop->options->connections];
        if (load_conn_is_busy(conn)) {
            pingpong->late++;
        } else if (conn->fd >= 0) {
            histogram_add(&pingpong->lag, now_ns - due_ns(pingpong, message));
            pingpong->sent++;
            load_exchange_begin(loop, conn);
        }
    }
}

/* Keeps the timetable. Returns how long it took. */
static int64_t pingpong_play(struct pingpong *pingpong)
{
    struct load_loop *loop = &pingpong->loop;
    int64_t end_ns;

    pingpong->begin_ns = load_now_ns();
    loop->now_ns = pingpong->begin_ns;
    end_ns = pingpong->begin_ns + loop->options->duration_ns + LATE_NS;
    while ((pingpong->next_due < pingpong->total || loop->busy > 0) && loop->open > 0 &&
           loop->now_ns < end_ns && loop->stops < 2) {
        int64_t until_ns = end_ns;
        if (loop->stops > 0 && pingpong->total > pingpong->next_due) {
            pingpong->total = pingpong->next_due;
            end_ns = loop->now_ns + LATE_NS;
        }
        pingpong_begin_due(pingpong);
        if (pingpong->next_due < pingpong->total) {
            until_ns = due_ns(pingpong, pingpong->next_due);
        }
        load_loop_turn(loop, until_ns);
    }
    return loop->now_ns - pingpong->begin_ns;
}

/* Counts what was due and has no answer, of each connection from its present message on. */
static void pingpong_count_unanswered(struct pingpong *pingpong)
{
    struct load_loop *loop = &pingpong->loop;
    uint32_t connections = loop->options->connections;

    for (uint32_t i = 0; i < connections; i++) {
        struct load_conn *conn = &loop->conns[i];
        for (uint64_t m = conn->message; m < pingpong->next_due; m += connections) {
            histogram_add(&pingpong->latency, loop->now_ns - due_ns(pingpong, m));
        }
        load_conn_rest(loop, conn);
    }
}

static void pingpong_print(const struct pingpong *pingpong, int64_t elapsed_ns)
{
    const struct load_options *options = pingpong->loop.options;

    printf("{\"mode\":\"pingpong\",\"connections\":%" PRIu32 ",\"rate\":%" PRIu32
           ",\"bytes\":%" PRIu32 ",\"due\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"received\":%" PRIu64
           ",\"late\":%" PRIu64 ",\"seconds\":%.6f",
           options->connections, options->rate, options->bytes, pingpong->next_due, pingpong->sent,
           pingpong->received, pingpong->late, (double)elapsed_ns / 1e9);
    histogram_print_mean_us(stdout, &pingpong->latency, "mean_us");
    histogram_print_quantile_us(stdout, &pingpong->latency, "p50_us", 50000);
    histogram_print_quantile_us(stdout, &pingpong->latency, "p90_us", 90000);
    histogram_print_quantile_us(stdout, &pingpong->latency, "p99_us", 99000);
    histogram_print_quantile_us(stdout, &pingpong->latency, "p99_9_us", 99900);
    histogram_print_max_us(stdout, &pingpong->latency, "max_us");
    histogram_print_quantile_us(stdout, &pingpong->lag, "lag_p99_us", 99000);
    load_errors_print(stdout, &pingpong->loop.errors);
    puts("}");
}

int load_pingpong_run(const struct load_options *options)
{
    static struct pingpong pingpong; /* two histograms are too much for a stack */
    int64_t elapsed_ns = 0;
    int status;

    load_exchange_init();
    if (!load_loop_init(&pingpong.loop, options, pingpong_turn, &pingpong)) {
        return 1;
    }
    /* Rounded up: message m is in it if it is due before the end. 3.6e12 ns times 1e6 fit. */
    pingpong.total =
        ((uint64_t)options->duration_ns * options->rate + (uint64_t)LOAD_SECOND_NS - 1) /
        (uint64_t)LOAD_SECOND_NS;
    for (uint32_t i = 0; i < options->connections; i++) {
        pingpong.loop.conns[i].message = i;
    }
    if (load_pass_open(&pingpong.loop, options->bytes)) {
        elapsed_ns = pingpong_play(&pingpong);
        pingpong_count_unanswered(&pingpong);
    }
    load_pass_close(&pingpong.loop);
    pingpong_print(&pingpong, elapsed_ns);
    status = load_errors_conclude(&pingpong.loop.errors);
    load_loop_free(&pingpong.loop);
    return status;
}
