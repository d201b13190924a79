/*
 * load_bulk: streams of bytes, as fast as the peer takes and gives them.
 *
 * What is measured is the forwarder, on the same machine and with the same processors as the load.
 * So the load does as little for a byte as it can: it sends from one block of 256 KiB that stays in
 * the cache, and what it receives it drops in the kernel with MSG_TRUNC, which for TCP copies
 * nothing (tcp(7)). No byte is looked at; that streams arrive unharmed is for the tests to show.
 *
 *   direction   against   the load        counted
 *   up          a sink    sends           what the kernel has taken
 *   down        a source  receives        what was dropped
 *   both        a source  does both, full duplex on every connection
 *
 * A turn of a connection is one send and one receive, and then the others have theirs: none can
 * starve another. The clock starts when all connections stand; counting ends with it, and what
 * comes while the streams are brought to an end (FIN, then whatever is under way, then the other
 * FIN) is dropped.
 *
 * Invariants:
 *   I1  bytes_up and bytes_down were moved between begin and end of `seconds`.
 *   I2  A connection fails after 20 s at the latest if one of its directions stands still: each
 *       touch takes a byte moved in every direction.
 */
#include "load_bulk.h"

#include "load_pass.h"

#include <inttypes.h>

#define BLOCK_BYTES (256U << 10)

struct bulk {
    struct load_loop loop;
    bool sends;
    bool receives;
    uint64_t bytes_up;
    uint64_t bytes_down;
};

static uint8_t block[BLOCK_BYTES];

/* False after load_conn_fail(). */
static bool bulk_send(struct bulk *bulk, struct load_conn *conn)
{
    ssize_t count = load_conn_send(&bulk->loop, conn, block, BLOCK_BYTES);

    if (count > 0) {
        bulk->bytes_up += (uint64_t)count;
        conn->moved_up = true;
    }
    return count >= 0;
}

static bool bulk_receive(struct bulk *bulk, struct load_conn *conn)
{
    ssize_t count = load_conn_receive(&bulk->loop, conn, NULL, BLOCK_BYTES);

    if (count > 0) {
        bulk->bytes_down += (uint64_t)count;
        conn->moved_down = true;
    }
    if (conn->fin_read) {
        load_conn_fail(&bulk->loop, conn, LOAD_ERROR_EARLY_END, "it ended in mid-stream", 0);
        return false;
    }
    return count >= 0;
}

static enum load_outcome bulk_turn(struct load_loop *loop, struct load_conn *conn)
{
    struct bulk *bulk = loop->mode;

    if (bulk->sends && conn->writable && !bulk_send(bulk, conn)) {
        return LOAD_GONE;
    }
    /* A sink sends nothing, but may end. */
    if ((bulk->receives || conn->ended) && conn->readable && !bulk_receive(bulk, conn)) {
        return LOAD_GONE;
    }
    if (conn->moved_up == bulk->sends && conn->moved_down == bulk->receives) {
        conn->moved_up = false;
        conn->moved_down = false;
        load_conn_touch(loop, conn);
    }
    return (bulk->sends && conn->writable) || (bulk->receives && conn->readable) ? LOAD_AGAIN
                                                                                 : LOAD_WAIT;
}

/* Returns how long it took. */
static int64_t bulk_stream(struct bulk *bulk)
{
    struct load_loop *loop = &bulk->loop;
    int64_t begin_ns = load_now_ns();
    int64_t end_ns = begin_ns + loop->options->duration_ns;

    loop->now_ns = begin_ns;
    for (uint32_t i = 0; i < loop->options->connections; i++) {
        load_conn_begin(loop, &loop->conns[i]);
    }
    while (loop->now_ns < end_ns && loop->stops == 0 && loop->busy > 0) {
        load_loop_turn(loop, end_ns);
    }
    for (uint32_t i = 0; i < loop->options->connections; i++) {
        load_conn_rest(loop, &loop->conns[i]);
    }
    return loop->now_ns - begin_ns;
}

int load_bulk_run(const struct load_options *options)
{
    struct bulk bulk = {.sends = options->direction != LOAD_DOWN,
                        .receives = options->direction != LOAD_UP};
    int64_t elapsed_ns = 0;
    int status;

    if (!load_loop_init(&bulk.loop, options, bulk_turn, &bulk)) {
        return 1;
    }
    if (load_pass_open(&bulk.loop, 0)) {
        elapsed_ns = bulk_stream(&bulk);
    }
    load_pass_close(&bulk.loop);
    printf("{\"mode\":\"bulk\",\"direction\":\"%s\",\"connections\":%" PRIu32
           ",\"seconds\":%.6f,\"bytes_up\":%" PRIu64 ",\"bytes_down\":%" PRIu64,
           load_direction_name(options->direction), options->connections, (double)elapsed_ns / 1e9,
           bulk.bytes_up, bulk.bytes_down);
    load_errors_print(stdout, &bulk.loop.errors);
    puts("}");
    status = load_errors_conclude(&bulk.loop.errors);
    load_loop_free(&bulk.loop);
    return status;
}
