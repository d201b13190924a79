/* Layer: relay. A connection: a client, a server, two flows, one timer; from accept to close
 * record. */
#ifndef RELAY_SESSION_H
#define RELAY_SESSION_H

#include "relay/listener.h"

/** Where a session is; session.c holds the table of transitions. */
enum session_phase {
    SESSION_CONNECTING, /* the server leg is being connected; nothing is read from the client */
    SESSION_RELAYING,   /* both flows run */
    SESSION_ENDING,     /* an abnormal end: what was received is being delivered, then RST */
    SESSION_CLOSED,     /* recorded, descriptors closed; memory goes after the turn */
    SESSION_PHASES
};

/** The index of a leg in session.unacked_bytes, and what stands there before the first look. */
enum session_leg { LEG_CLIENT, LEG_SERVER, SESSION_LEGS };
enum { NEVER_LOOKED = UINT32_MAX };

/** After ENOMEM or ENOBUFS no event will come: a flow that starves is stepped again so much later. */
#define STARVED_RETRY_NS (10 * NS_PER_MS)

/** Plain data: every pointer can be rebuilt from names and descriptors, so that a session can be
 *  handed to another process. What traffic touches comes first, in four cache lines. */
struct session {
    struct task task;
    struct io client;
    struct io server;
    struct flow up;                  /* client to server */
    struct flow down;                /* server to client */
    const struct listener *listener; /* borrowed; its relay is ours */
    uint64_t active_ns;              /* the last turn in which a byte or an end moved */
    uint64_t first_byte_ns;          /* 0: not yet */
    uint8_t phase;                   /* enum session_phase */
    uint8_t reason;                  /* enum reason, once known */
    uint8_t closed_by;               /* enum closed_by, the first sign of an end */
    bool half_closed;                /* one flow is over: fin-timeout counts */
    bool deliver_briefly; /* while ending: the deadline is fixed, progress does not extend it */
    bool has_end;         /* closed_by is known */
    bool is_watched;      /* keepalive and user timeout are set on the server's leg */
    struct timer timer;   /* the one deadline: connect, idle, or the next look while ending */
    /* from here on: for its beginning and its end */
    struct list_node live;       /* in relay.live */
    const struct target *target; /* borrowed: the server in use or last tried */
    uint64_t id;
    uint64_t accepted_ns;
    uint64_t connected_ns; /* 0: not yet */
    uint64_t deadline_ns;  /* connecting, ending: when patience is over; relaying, and a peer was
                            * seen to acknowledge: when to look again */
    struct addr_compact client_addr;
    struct addr_compact server_local;
    struct tries tries;
    uint32_t unacked_bytes[SESSION_LEGS]; /* at the last look, to see progress */
    uint32_t wait_ms;       /* while ending, or at a full backlog: until the next look */
    uint16_t connect_error; /* errno of the last failed attempt */
    uint16_t end_error;     /* while ending: the errno behind the reason, 0: none */
};

/** The time of this turn. */
static inline uint64_t session_now_ns(const struct session *session)
{
    return session->listener->relay->loop->now_ns;
}

/** Moves the session's one timer. */
static inline void session_set_timer(struct session *session, uint64_t due_ns)
{
    timer_set(&session->listener->relay->loop->timers, &session->timer, due_ns);
}

/** Starts a session for the accepted `client_fd`. Owns the descriptor from here on, whatever
 *  happens. relay.spare_session must be there and is used up, as is relay.spare_fd if its family
 *  fits. */
void session_start(struct relay *relay, const struct listener *listener, int client_fd,
                   const struct addr_compact *client_addr);

/** Ends the session with `reason`; see relay_end_all(). Nothing happens to a closed one. */
void session_end(struct session *session, enum reason reason, bool deliver);

#endif
