/* Layer: base. Why a connection ended: the one list that log, metrics and manual share. */
#ifndef BASE_REASON_H
#define BASE_REASON_H

/** Order is part of the metrics layout: append, never reorder. Texts are in reason.c. */
enum reason {
    REASON_CLIENT_FIN,          /* both sides done, the client's FIN came last */
    REASON_SERVER_FIN,          /* both sides done, the server's FIN came last */
    REASON_CLIENT_RESET,        /* the client reset the connection */
    REASON_SERVER_RESET,        /* the server reset the connection */
    REASON_CLIENT_ABORT,        /* the client reset it before a server was reached */
    REASON_CONNECT_REFUSED,     /* every server tried refused */
    REASON_CONNECT_TIMEOUT,     /* the last server tried did not answer within connect-timeout */
    REASON_CONNECT_UNREACHABLE, /* no route, or the network said so */
    REASON_NO_SERVER,           /* the pool had no server to try */
    REASON_NO_PORT,             /* no local port left to connect from */
    REASON_IDLE_TIMEOUT,        /* nothing moved for idle-timeout */
    REASON_FIN_TIMEOUT,         /* half-closed, and nothing moved for fin-timeout */
    REASON_PEER_TIMEOUT,        /* keepalive or TCP_USER_TIMEOUT found a peer gone */
    REASON_DENIED,              /* an access rule refused the client */
    REASON_LIMIT,               /* a resource limit was met */
    REASON_DRAIN,               /* sluice was told to stop */
    REASON_ADMIN,               /* closed by an operator's command */
    REASON_PROXY_HEADER,        /* bad or late PROXY header */
    REASON_INTERNAL,            /* a fault of sluice or an error it does not know */
    REASON_COUNT
};

/** Which party's doing ended the connection. */
enum closed_by { CLOSED_BY_CLIENT, CLOSED_BY_SERVER, CLOSED_BY_PROXY, CLOSED_BY_COUNT };

/** In which manner it ended. */
enum how { HOW_FIN, HOW_RST, HOW_TIMEOUT, HOW_ERROR, HOW_ADMIN, HOW_COUNT };

/** The text used in records, metric labels and the manual, such as "client-fin". Static. */
const char *reason_text(enum reason reason);

/** "client", "server" or "proxy". Static. */
const char *closed_by_text(enum closed_by closed_by);

/** "fin", "rst", "timeout", "error" or "admin". Static. */
const char *how_text(enum how how);

/** The manner that belongs to a reason: a reset is "rst", an idle timeout is "timeout". */
enum how reason_how(enum reason reason);

#endif
