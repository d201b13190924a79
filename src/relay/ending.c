/* An abnormal end, passed on without losing what came before it.
 *
 * The problem. When one side breaks, the other is to see a reset too, and not a clean end. But RST
 * discards what a socket has not sent yet, at both its ends: passed on at once, it would destroy
 * bytes that sluice received long before, and that a program without sluice in the middle would
 * have read.
 *
 * The model. The flow into the broken side fails at once (there is nobody to take bytes); the flow
 * out of it goes on until every byte received before is with the other side. Then this waits until
 * the kernel says that the peer has acknowledged all of it, a FIN too (SIOCOUTQ), and only then the
 * session closes, which resets. No event tells that, so it is looked at after 1 ms, 2 ms, 4 ms ...
 * at most ENDING_WAIT_MAX_MS. On loopback the first look nearly always suffices.
 *
 * Patience: a peer that makes progress is waited for, fin-timeout after its last; but when sluice
 * itself wants to end only ENDING_BRIEF_MS, whatever it does.
 *
 * Read before: session.c. Does not close; ending_run() says when. */
#include "relay/ending.h"

#include "net/sys.h"
#include "relay/connect.h"
#include "relay/exchange.h"
#include "relay/listener.h"
#include "relay/verdict.h"

enum {
    ENDING_WAIT_MAX_MS = 16000, /* between two looks at a peer that is slow to acknowledge */
    ENDING_BRIEF_MS = 1000      /* patience with peers when sluice itself wants to end */
};

/* How long to wait for a peer when fin-timeout is off. */
#define ENDING_ENDLESS_NS (365 * 24 * 3600 * NS_PER_S)

/* How long a peer may make no progress with what is being delivered to it. */
static uint64_t ending_patience_ns(const struct session *session)
{
    uint64_t fin_timeout_ns = session->listener->relay->settings.fin_timeout_ns;

    return fin_timeout_ns != 0 ? fin_timeout_ns : ENDING_ENDLESS_NS;
}

/* A FIN that is lost on the way is sent again only while its socket lives: after a reset the peer
 * would take a complete stream for one that was cut. */
static bool fin_has_arrived(const struct io *io, sa_family_t family, const struct flow *into)
{
    return into->state != FLOW_FINISHED || family == AF_UNIX || sys_unacknowledged(io->fd) <= 0;
}

static bool is_delivered(const struct io *io, sa_family_t family, const struct flow *into,
                         uint32_t unacked)
{
    return io->fd < 0 || io->error != 0 ||
           (flow_is_over(into) && unacked == 0 && fin_has_arrived(io, family, into));
}

/* Looks whether both sides have what was received for them; true when there is nothing to wait
 * for. */
static bool everything_delivered(struct session *session)
{
    uint32_t client = verdict_client_unacked(session);
    uint32_t server = verdict_server_unacked(session);
    bool progress =
        client < session->unacked_bytes[LEG_CLIENT] || server < session->unacked_bytes[LEG_SERVER];

    session->unacked_bytes[LEG_CLIENT] = client;
    session->unacked_bytes[LEG_SERVER] = server;
    if (progress && !session->deliver_briefly) {
        session->deadline_ns = session_now_ns(session) + ending_patience_ns(session);
    }
    return is_delivered(&session->client, session->client_addr.family, &session->down, client) &&
           is_delivered(&session->server, session->server_local.family, &session->up, server);
}

bool ending_run(struct session *session)
{
    struct exchange step = exchange_step(session);

    if (step.has_more) {
        loop_queue(session->listener->relay->loop, &session->task);
        return false;
    }
    if (everything_delivered(session) || session_now_ns(session) >= session->deadline_ns) {
        return true;
    }
    connect_watch(session); /* who has to be waited for may be gone */
    if (step.starves) {
        session_set_timer(session, session_now_ns(session) + STARVED_RETRY_NS);
        return false;
    }
    if (timer_is_set(&session->timer)) {
        return false; /* an event brought us here: the next look stays where it is */
    }
    session_set_timer(session, min_u64(session->deadline_ns,
                                       session_now_ns(session) + session->wait_ms * NS_PER_MS));
    session->wait_ms = (uint32_t)min_u64(2 * (uint64_t)session->wait_ms, ENDING_WAIT_MAX_MS);
    return false;
}

void ending_begin(struct session *session, enum reason reason, bool briefly)
{
    uint64_t patience_ns = ending_patience_ns(session);

    if (briefly) {
        patience_ns = ENDING_BRIEF_MS * NS_PER_MS;
    }
    timer_cancel(&session->listener->relay->loop->timers, &session->timer);
    session->reason = (uint8_t)reason;
    session->end_error = (uint16_t)verdict_error(session); /* the other side may break, too */
    session->deliver_briefly = briefly;
    session->deadline_ns = session_now_ns(session) + patience_ns;
    session->wait_ms = 1;
    session->unacked_bytes[LEG_CLIENT] = NEVER_LOOKED;
    session->unacked_bytes[LEG_SERVER] = NEVER_LOOKED;
    flow_stop(&session->up);
    flow_stop(&session->down);
}

void ending_hurry(struct session *session)
{
    session->deliver_briefly = true;
    session->deadline_ns =
        min_u64(session->deadline_ns, session_now_ns(session) + ENDING_BRIEF_MS * NS_PER_MS);
    session_set_timer(session, session_now_ns(session));
}
