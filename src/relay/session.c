/* One proxied connection, from accept to close record.
 *
 *              accept
 *                |
 *                v          all servers failed, client reset
 *           CONNECTING ---------------------------------------+
 *                | server connected                           |
 *                v          both FINs passed on               v
 *            RELAYING --------------------------------->   CLOSED --- memory freed after the turn
 *                | reset, drain (timeouts close at once)      ^
 *                v          delivered, or out of patience     |
 *             ENDING -----------------------------------------+
 *
 * Half-close needs nothing special: each flow passes on its own FIN, and the session is over when
 * both are. What needs care is the abnormal end.
 *
 * An abnormal end is never shown as a clean FIN: sockets are born with SO_LINGER {1,0} (sock.c), so
 * close(2) resets, and only close_session() after two FINISHED flows takes that back. On unix
 * sockets there is no reset; closing with unread bytes is the nearest thing the kernel has.
 *
 * Timers are lazy: traffic stores active_ns, and the one timer looks at it when it comes due. Due
 * on idle, the kernel is asked first: a slow reader of bytes sent long ago makes progress that is
 * no event for us, and is not idle. So a connection without unacknowledged bytes ends at
 * idle-timeout, one with them when they made no progress for idle-timeout after a first look: at
 * most twice that.
 *
 * What tells that a peer is gone, keepalive and user timeout, comes with the client's leg from its
 * listener. For the server's leg it takes up to four setsockopt(2), so that waits until the
 * connection has lasted for WATCH_AFTER_NS, which most never do.
 *
 * Invariants: S1 a session ends through close_session() only, once, with one record. S2 nothing is
 * read from the client before the server is connected. S3 while RELAYING, a flow whose target has
 * an error is over. S4 the timer is set in every phase but CLOSED, unless all timeouts are off.
 *
 * Read before: flow.c. Read next: connect.c (the server leg), listener.c (where sessions come
 * from). */
#include "relay/session.h"

#include "base/check.h"
#include "net/sys.h"
#include "relay/connect.h"
#include "relay/ending.h"
#include "relay/exchange.h"
#include "relay/listener.h"
#include "relay/verdict.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* Idle connections hold this record and two sockets, nothing else (contract 4). */
static_assert(sizeof(struct session) <= 512, "the memory promised per idle connection");

/* When the server's leg is told to notice that its peer is gone: before that the connect timeout has
 * just shown it to be there. */
#define WATCH_AFTER_NS NS_PER_S

static void set_phase(struct session *session, enum session_phase phase)
{
    static const bool allowed[SESSION_PHASES][SESSION_PHASES] = {
        [SESSION_CONNECTING] = {[SESSION_RELAYING] = true, [SESSION_CLOSED] = true},
        [SESSION_RELAYING] = {[SESSION_ENDING] = true, [SESSION_CLOSED] = true},
        [SESSION_ENDING] = {[SESSION_CLOSED] = true},
    };

    CHECK(allowed[session->phase][phase]);
    session->phase = (uint8_t)phase;
}

/* --- the end --- */

static void count_end(const struct session *session, const struct record *record)
{
    struct metrics *metrics = session->listener->relay->metrics;

    metric_add(&metrics->closed[record->reason], 1);
    metric_add(&metrics->bytes_up, record->bytes_up);
    metric_add(&metrics->bytes_down, record->bytes_down);
    metric_add(&metrics->spliced_bytes, record->spliced_bytes);
}

static void free_session(struct task *task)
{
    struct session *session = CONTAINER_OF(task, struct session, task);
    struct relay *relay = session->listener->relay;

    slab_put(&relay->sessions, session);
    listeners_resume(relay);
}

static void close_io(struct io *io, bool clean)
{
    if (io->fd < 0) {
        return;
    }
    if (clean && sock_reset_on_close(io->fd, false) < 0) {
        /* Linux has no reason to refuse it; a filter of system calls may. Closing resets then, and
         * the last FIN is left to close(2): so it goes out before. */
        int ignored = sys_shutdown_write(io->fd);
        (void)ignored;
    }
    sys_close(io->fd);
    io->fd = -1;
}

/* The only way out: S1. `error` is the errno behind the reason, 0 if there is none. */
static void close_session(struct session *session, enum reason reason, int error)
{
    struct relay *relay = session->listener->relay;
    struct record record;
    bool clean = session->up.state == FLOW_FINISHED && session->down.state == FLOW_FINISHED;

    set_phase(session, SESSION_CLOSED);
    CHECK(clean == (reason_how(reason) == HOW_FIN));
    timer_cancel(&relay->loop->timers, &session->timer);
    flow_fail(&session->up, &relay->supplies);
    flow_fail(&session->down, &relay->supplies);
    verdict_record(session, reason, error, &record);
    count_end(session, &record);
    close_io(&session->client, clean);
    close_io(&session->server, clean);
    list_remove(&session->live);
    relay->live_count--;
    loop_release(relay->loop, &session->task, free_session);
    relay->on_ended(relay->owner, &record);
}

static void run_ending(struct session *session)
{
    if (ending_run(session)) {
        close_session(session, (enum reason)session->reason, session->end_error);
    }
}

static void begin_ending(struct session *session, enum reason reason, bool briefly)
{
    set_phase(session, SESSION_ENDING);
    ending_begin(session, reason, briefly);
    run_ending(session);
}

void session_end(struct session *session, enum reason reason, bool deliver)
{
    if (session->phase == SESSION_CLOSED) {
        return;
    }
    if (session->phase == SESSION_ENDING && deliver) {
        /* Already on its way, with its own reason; only patience gets shorter. */
        ending_hurry(session);
        return;
    }
    if (session->phase == SESSION_RELAYING && deliver) {
        begin_ending(session, reason, true);
        return;
    }
    if (session->phase == SESSION_ENDING) {
        close_session(session, (enum reason)session->reason, session->end_error);
        return;
    }
    close_session(session, reason, verdict_error(session));
}

/* --- relaying --- */

static bool source_has_ended(const struct flow *flow)
{
    return flow->state != FLOW_OPEN && !flow->source_failed && flow->state != FLOW_FAILED;
}

/* Remembers who was first to end: by an error, or by FIN. */
static void note_first_end(struct session *session)
{
    bool client = session->client.error != 0 || source_has_ended(&session->up);
    bool server = session->server.error != 0 || source_has_ended(&session->down);

    if (session->has_end || (!client && !server)) {
        return;
    }
    /* Both within one turn: an error outweighs a FIN, which may have been caused by it. */
    if (client && server) {
        client = session->client.error != 0 || session->server.error == 0;
    }
    session->has_end = true;
    session->closed_by = client ? CLOSED_BY_CLIENT : CLOSED_BY_SERVER;
}

static void both_over(struct session *session)
{
    if (session->up.state == FLOW_FINISHED && session->down.state == FLOW_FINISHED) {
        bool server_was_last = session->closed_by == CLOSED_BY_CLIENT;

        close_session(session, server_was_last ? REASON_SERVER_FIN : REASON_CLIENT_FIN, 0);
        return;
    }
    begin_ending(session, verdict_broken_reason(session), false);
}

/* When nothing has moved for this long, the session is over. 0: never. */
static uint64_t idle_limit_ns(const struct session *session)
{
    const struct relay_settings *settings = &session->listener->relay->settings;

    return session->half_closed ? settings->fin_timeout_ns : settings->idle_timeout_ns;
}

static void set_idle_timer(struct session *session)
{
    uint64_t limit_ns = idle_limit_ns(session);
    uint64_t due_ns = limit_ns != 0 ? session->active_ns + limit_ns : TIMER_NEVER;

    session->unacked_bytes[LEG_CLIENT] = NEVER_LOOKED;
    session->unacked_bytes[LEG_SERVER] = NEVER_LOOKED;
    if (!session->is_watched) {
        due_ns = min_u64(due_ns, session_now_ns(session) + WATCH_AFTER_NS);
    }
    if (due_ns != TIMER_NEVER) {
        session_set_timer(session, due_ns);
    } else {
        timer_cancel(&session->listener->relay->loop->timers, &session->timer);
    }
}

static void run_relaying(struct session *session)
{
    struct exchange step = exchange_step(session);

    if (step.moved > 0) {
        session->active_ns = session_now_ns(session);
        if (session->first_byte_ns == 0 && session->down.bytes_in > 0) {
            session->first_byte_ns = session_now_ns(session);
        }
        note_first_end(session);
    }
    if (flow_is_over(&session->up) && flow_is_over(&session->down)) {
        both_over(session);
        return;
    }
    if (!session->half_closed && (flow_is_over(&session->up) || flow_is_over(&session->down))) {
        session->half_closed = true;
        set_idle_timer(session);
    }
    if (step.has_more) {
        loop_queue(session->listener->relay->loop, &session->task);
    } else if (step.starves) {
        session_set_timer(session, session_now_ns(session) + STARVED_RETRY_NS);
    }
}

static bool is_progress(uint32_t unacked, uint32_t before)
{
    return before == NEVER_LOOKED ? unacked > 0 : unacked < before;
}

/* True when a peer has acknowledged bytes since the last look, or this is the first look at
 * some. */
static bool peer_makes_progress(struct session *session)
{
    uint32_t client = verdict_client_unacked(session);
    uint32_t server = verdict_server_unacked(session);
    bool progress = is_progress(client, session->unacked_bytes[LEG_CLIENT]) ||
                    is_progress(server, session->unacked_bytes[LEG_SERVER]);

    session->unacked_bytes[LEG_CLIENT] = client;
    session->unacked_bytes[LEG_SERVER] = server;
    return progress;
}

static void on_idle_timer(struct session *session)
{
    uint64_t limit_ns = idle_limit_ns(session);

    connect_watch(session);
    if (limit_ns == 0 || session_now_ns(session) < session->active_ns + limit_ns) {
        set_idle_timer(session);
        loop_queue(session->listener->relay->loop,
                   &session->task); /* it may have been a starved retry */
        return;
    }
    if (session_now_ns(session) < session->deadline_ns) {
        session_set_timer(session, session->deadline_ns);
        loop_queue(session->listener->relay->loop,
                   &session->task); /* a starved retry between two looks */
        return;
    }
    if (peer_makes_progress(session)) {
        session->deadline_ns = session_now_ns(session) + limit_ns;
        session_set_timer(session, session->deadline_ns);
        loop_queue(session->listener->relay->loop, &session->task); /* or one that met a look */
        return;
    }
    session_end(session, session->half_closed ? REASON_FIN_TIMEOUT : REASON_IDLE_TIMEOUT, false);
}

/* --- connecting, and the events of all phases --- */

static void connected(struct session *session, enum connect_outcome outcome)
{
    switch (outcome) {
    case CONNECT_WAITS:
        return;
    case CONNECT_DONE:
        session->connected_ns = session_now_ns(session);
        session->active_ns = session_now_ns(session);
        session->deadline_ns = 0;
        set_phase(session, SESSION_RELAYING);
        set_idle_timer(session);
        run_relaying(session);
        return;
    case CONNECT_FAILED:
        close_session(session, connect_reason(session->connect_error), session->connect_error);
        return;
    }
}

static void run_connecting(struct session *session)
{
    enum connect_outcome outcome = connect_on_event(session);

    exchange_notice_error(&session->client);
    /* A client that reset after the server was reached has sent bytes that are to be delivered. */
    if (outcome != CONNECT_DONE && session->client.error != 0) {
        session->has_end = true;
        session->closed_by = CLOSED_BY_CLIENT;
        close_session(session, REASON_CLIENT_ABORT, session->client.error);
        return;
    }
    connected(session, outcome);
}

static void session_run(struct task *task)
{
    struct session *session = CONTAINER_OF(task, struct session, task);

    switch ((enum session_phase)session->phase) {
    case SESSION_CONNECTING:
        run_connecting(session);
        return;
    case SESSION_RELAYING:
        run_relaying(session);
        return;
    case SESSION_ENDING:
        run_ending(session);
        return;
    case SESSION_CLOSED:
    case SESSION_PHASES:
        CHECK(!"a closed session runs");
    }
}

static void on_timer(struct timer *timer, uint64_t fired_ns)
{
    struct session *session = CONTAINER_OF(timer, struct session, timer);

    (void)fired_ns; /* the loop's time is the same, and what the rest of the session uses */
    switch ((enum session_phase)session->phase) {
    case SESSION_CONNECTING:
        connected(session, connect_on_timer(session));
        return;
    case SESSION_RELAYING:
        on_idle_timer(session);
        return;
    case SESSION_ENDING:
        run_ending(session);
        return;
    case SESSION_CLOSED:
    case SESSION_PHASES:
        CHECK(!"a closed session has a timer");
    }
}

void session_start(struct relay *relay, const struct listener *listener, int client_fd,
                   const struct addr_compact *client_addr)
{
    struct session *session = relay->spare_session;
    int result;

    CHECK(session != NULL);
    relay->spare_session = NULL;
    memset(session, 0, sizeof(*session));
    task_init(&session->task, session_run);
    timer_init(&session->timer, on_timer);
    list_init(&session->live);
    io_init(&session->client, &session->task);
    io_init(&session->server, &session->task);
    flow_init(&session->up);
    flow_init(&session->down);
    session->client.is_tcp = client_addr->family != AF_UNIX;
    session->listener = listener;
    session->id = relay->next_id++;
    session->accepted_ns = relay->loop->now_ns;
    session->client_addr = *client_addr;
    list_push_back(&relay->live, &session->live);
    relay->live_count++;
    metric_add(&relay->metrics->accepted, 1);

    result = loop_add(relay->loop, &session->client, client_fd);
    if (result < 0) {
        session->client.fd = client_fd; /* owned, though not in the loop */
        close_session(session, REASON_LIMIT, -result);
        return;
    }
    connected(session, connect_next(session));
}
