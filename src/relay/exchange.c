/* One step of both flows of a session.
 *
 * The problem. A flow sees one direction, but an error is of a socket, and a socket belongs to both:
 * it is the source of one flow and the target of the other. Whichever call meets the error first
 * takes it away (SO_ERROR is cleared by whoever is told), and to the next call the socket looks as
 * if it had ended cleanly. So errors are collected before the flows run, and settled after: the
 * flow into a broken socket fails, the one out of it goes on until all that was received is taken.
 *
 * Invariant: S3 of session.c. Does not close, decide reasons or set timers. Read before: flow.c. */
#include "relay/exchange.h"

#include "net/sock.h"
#include "relay/listener.h"

#include <errno.h>

/* Whoever moved so much in one step, in and out, gives way in the next: a full buffer. */
enum { BULK_STEP_BYTES = 2 * FLOW_BUFFER_BYTES };

void exchange_notice_error(struct io *io)
{
    int error;

    if ((io->ready & IO_ERROR) == 0) {
        return;
    }
    io->ready &= (uint8_t)~IO_ERROR;
    error = sock_take_error(io->fd);
    if (error != 0) {
        io_set_error(io, error);
    }
}

/* After an error: the flow into `io` fails, even if it ran before the other one met the error (S3);
 * the flow out of it ends when the socket has nothing more. */
static void settle_broken(const struct io *io, sa_family_t family, struct flow *out_of,
                          struct flow *into, struct flow_supplies *supplies)
{
    /* A unix peer may give up reading alone, by shutdown(SHUT_RD), and go on writing. */
    bool may_write = io->error == EPIPE && family == AF_UNIX;

    if (io->error == 0) {
        return;
    }
    flow_fail(into, supplies);
    if (out_of->state == FLOW_OPEN && (io->ready & IO_READABLE) == 0 && !may_write) {
        /* A socket that the kernel has given up says "end", never EAGAIN; so this one still lives,
         * and only sluice can't use it any more. */
        flow_stop(out_of);
    }
}

/* True when stepping the flow again at once would do something. A starved one has to wait. */
static bool wants_step(const struct flow *flow, enum flow_outcome outcome, const struct io *source,
                       const struct io *target)
{
    return outcome != FLOW_STARVES && !flow_may_rest(flow, source, target);
}

/* Grows whenever a byte or an end moves: comparing it before and after a step shows activity. */
static uint64_t movement(const struct session *session)
{
    return session->up.bytes_in + flow_bytes_out(&session->up) + session->up.state +
           session->down.bytes_in + flow_bytes_out(&session->down) + session->down.state;
}

struct exchange exchange_step(struct session *session)
{
    struct relay *relay = session->listener->relay;
    struct flow_supplies *supplies = &relay->supplies;
    struct io *client = &session->client;
    struct io *server = &session->server;
    uint64_t before = movement(session);
    struct exchange step;
    enum flow_outcome up;
    enum flow_outcome down;

    exchange_notice_error(client);
    exchange_notice_error(server);
    session->up.is_last = session->down.state == FLOW_FINISHED;
    up = flow_step(&session->up, client, server, supplies);
    session->down.is_last = session->up.state == FLOW_FINISHED;
    down = flow_step(&session->down, server, client, supplies);
    settle_broken(client, session->client_addr.family, &session->up, &session->down, supplies);
    settle_broken(server, session->server_local.family, &session->down, &session->up, supplies);
    /* Asked after both have run: one may have changed what the other can do. */
    step.has_more = wants_step(&session->up, up, client, server) ||
                    wants_step(&session->down, down, server, client);
    step.starves = up == FLOW_STARVES || down == FLOW_STARVES;
    step.moved = movement(session) - before;
    session->task.is_bulk = step.moved >= BULK_STEP_BYTES;
    relay->loop->moved_bytes += step.moved;
    return step;
}
