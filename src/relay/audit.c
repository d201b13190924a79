/* The lost-wake-up detector.
 *
 * The problem. With edge-triggered epoll the worst bug is silent: a ready bit cleared too early, a
 * task not queued again, a timer not set, and a connection rests until a time-out ends it. Nothing
 * crashes, no byte is wrong, and a test that looks for something else passes.
 *
 * So in debug builds, before every wait that may block, two questions are asked:
 *
 *  - Of every session and listener: does it wait for something that will come? The park rule for
 *    its flows, or a timer that is near; a descriptor while connecting; no error left unnoticed.
 *  - Of a few sessions in turn: does the kernel agree? A bit that is clear although poll(2) says
 *    "ready" is a lost edge, unless the edge is still on its way: the event may have come since
 *    the last epoll_wait(2), and the kernel changes a socket's state some microseconds before it
 *    wakes the waiters. Therefore a disagreement is only a suspicion. While there is one, the loop
 *    sleeps a millisecond at a time, and when it outlives SUSPICION_WAITS_MAX waits and
 *    SUSPICION_NS_MAX, the edge is not coming.
 *
 * A pipe's bytes are compared with FIONREAD as well: what the flow counts must be what is there.
 *
 * Release builds have none of this: nothing refers to this file. */
#include "relay/audit.h"

#include "base/check.h"
#include "net/look.h"
#include "relay/listener.h"
#include "relay/session.h"

#include <poll.h>
#include <sys/socket.h>

enum {
    SAMPLE_SESSIONS = 4, /* looked at with the kernel before each wait */
    SUSPICION_WAITS_MAX = 1000,
    STARVED_WAIT_MS_MAX = 20 /* STARVED_RETRY_NS, plus the wheel's tick */
};

#define SUSPICION_NS_MAX (2 * NS_PER_S)

/* --- what sluice itself knows --- */

static bool timer_is_near(const struct session *session)
{
    uint64_t latest_ns = session->listener->relay->loop->now_ns + STARVED_WAIT_MS_MAX * NS_PER_MS;

    return timer_is_set(&session->timer) && timer_due_ns(&session->timer) <= latest_ns;
}

static void audit_flows(const struct session *session)
{
    const struct io *client = &session->client;
    const struct io *server = &session->server;
    bool up_rests = flow_may_rest(&session->up, client, server);
    bool down_rests = flow_may_rest(&session->down, server, client);

    CHECK((up_rests && down_rests) || timer_is_near(session));
    CHECK(client->error == 0 || flow_is_over(&session->down));
    CHECK(server->error == 0 || flow_is_over(&session->up));
    CHECK(((client->ready | server->ready) & IO_ERROR) == 0);
}

static bool has_idle_limit(const struct session *session)
{
    const struct relay_settings *settings = &session->listener->relay->settings;

    return (session->half_closed ? settings->fin_timeout_ns : settings->idle_timeout_ns) != 0;
}

static void audit_session(const struct session *session)
{
    switch ((enum session_phase)session->phase) {
    case SESSION_CONNECTING:
        CHECK(timer_is_set(&session->timer));
        CHECK(session->server.fd < 0 || (session->server.ready & (IO_WRITABLE | IO_ERROR)) == 0);
        return;
    case SESSION_RELAYING:
        CHECK(timer_is_set(&session->timer) || !has_idle_limit(session));
        CHECK(!flow_is_over(&session->up) || !flow_is_over(&session->down));
        audit_flows(session);
        return;
    case SESSION_ENDING:
        CHECK(timer_is_set(&session->timer));
        audit_flows(session);
        return;
    case SESSION_CLOSED:
    case SESSION_PHASES:
        CHECK(!"a closed session is among the living");
    }
}

static void audit_listener(const struct listener *listener)
{
    const struct relay *relay = listener->relay;

    if (!listener->paused) {
        CHECK((listener->io.ready & IO_READABLE) == 0);
        return;
    }
    /* Either a timer goes on, or the end of a session does. */
    CHECK(timer_is_set(&listener->retry) || relay->live_count >= relay->settings.sessions_max);
}

/* --- what the kernel says of it --- */

/* The source could give bytes or its end, and the flow would take them. */
static bool misses_input(const struct flow *flow, const struct io *source)
{
    struct look look;

    if (flow->state != FLOW_OPEN || (source->ready & IO_READABLE) != 0) {
        return false;
    }
    look_at(source->fd, &look);
    return (look.events & (POLLIN | POLLHUP | POLLERR)) != 0 || look.readable_bytes > 0;
}

/* The target could take bytes that the flow holds. */
static bool misses_room(const struct flow *flow, const struct io *target)
{
    struct look look;

    if (flow_held_bytes(flow) == 0 || (target->ready & IO_WRITABLE) != 0) {
        return false;
    }
    look_at(target->fd, &look);
    return (look.events & (POLLOUT | POLLHUP | POLLERR)) != 0 || look.unacked_bytes == 0;
}

static void audit_pipe(const struct flow *flow)
{
    struct look look;

    if (flow->pipe != NULL && !flow_is_over(flow)) {
        look_at(flow->pipe->read_fd, &look);
        CHECK(look.readable_bytes >= 0);
        CHECK((uint64_t)look.readable_bytes == flow->pipe_bytes);
    }
}

static bool kernel_disagrees(const struct session *session)
{
    if (session->phase != SESSION_RELAYING && session->phase != SESSION_ENDING) {
        return false; /* nothing is read while connecting; its one event has a timer behind it */
    }
    audit_pipe(&session->up);
    audit_pipe(&session->down);
    return misses_input(&session->up, &session->client) ||
           misses_input(&session->down, &session->server) ||
           misses_room(&session->up, &session->server) ||
           misses_room(&session->down, &session->client);
}

static bool misses_connections(const struct listener *listener)
{
    struct look look;

    if (listener->paused) {
        return false;
    }
    look_at(listener->io.fd, &look);
    return (look.events & POLLIN) != 0;
}

/* --- both --- */

static bool audit_sessions(struct relay *relay)
{
    struct audit *audit = &relay->audit;
    bool suspicious = false;
    size_t index = 0;

    if (audit->next >= relay->live_count) {
        audit->next = 0;
    }
    for (struct list_node *node = relay->live.next; node != &relay->live; node = node->next) {
        const struct session *session = CONTAINER_OF(node, struct session, live);

        audit_session(session);
        if (index >= audit->next && index < audit->next + SAMPLE_SESSIONS) {
            suspicious = kernel_disagrees(session) || suspicious;
        }
        index++;
    }
    CHECK(index == relay->live_count);
    return suspicious;
}

static bool audit_listeners(const struct relay *relay)
{
    bool suspicious = false;

    for (struct list_node *node = relay->listeners.next; node != &relay->listeners;
         node = node->next) {
        const struct listener *listener = CONTAINER_OF(node, struct listener, node);

        audit_listener(listener);
        suspicious = misses_connections(listener) || suspicious;
    }
    return suspicious;
}

int audit_before_wait(void *owner)
{
    struct relay *relay = owner;
    struct audit *audit = &relay->audit;
    bool sessions_suspicious = audit_sessions(relay);
    bool listeners_suspicious = audit_listeners(relay);

    if (!sessions_suspicious && !listeners_suspicious) {
        audit->waits = 0;
        audit->next += SAMPLE_SESSIONS;
        return -1;
    }
    if (audit->waits == 0) {
        audit->since_ns = relay->loop->now_ns;
    }
    audit->waits++;
    if (audit->waits > SUSPICION_WAITS_MAX &&
        relay->loop->now_ns - audit->since_ns > SUSPICION_NS_MAX) {
        bool session_lost_a_wake_up = sessions_suspicious;
        bool listener_lost_a_wake_up = listeners_suspicious;

        CHECK(!session_lost_a_wake_up);
        CHECK(!listener_lost_a_wake_up);
    }
    return 1;
}
