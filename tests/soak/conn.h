/* Soak: connections that follow a script, from both ends, and what became of them.
 *
 * Client and server of a connection live in one process, so each knows exactly what the other has
 * sent, and the script is one function over both (conn_advance). What the ends know of each other
 * they know through the program under test alone, but for the judging. */
#ifndef SOAK_CONN_H
#define SOAK_CONN_H

#include "soak/latency.h"
#include "soak/wire.h"

#include <stdio.h>

/* The order is that of kind_names in conn.c. */
enum kind {
    KIND_PROBE,     /* small requests at a fixed rate, for as long as the connection lives */
    KIND_KEEPALIVE, /* some small requests */
    KIND_ONE_SHOT,  /* one small request */
    KIND_IDLE,      /* one small request; a second one when told, at the end */
    KIND_BURST,     /* two small requests, some seconds apart, of many clients at once */
    KIND_REFUSABLE, /* one small request to a server that refuses at times */
    KIND_BULK,      /* 1 MiB both ways */
    KIND_LARGE,     /* hundreds of MiB one way */
    KIND_SLOW,      /* a reader much slower than its sender */
    KIND_BYTES,     /* both senders write byte by byte */
    KIND_CLIENT_RESET,
    KIND_SERVER_RESET,
    KIND_CLIENT_RESET_BLOCKED, /* a sender that could not send any more resets */
    KIND_SERVER_RESET_BLOCKED, /* a reader that never read resets */
    KIND_UNANSWERED,           /* one small request to a server that never answers */
    KIND_GIVES_UP,             /* the same by a client that resets before sluice has given up */
    KIND_VANISH,               /* connects and resets at once, without a byte */
    KINDS
};

enum order { CLIENT_FIRST, SERVER_FIRST, AT_ONCE, ORDERS };

enum outcome {
    OUTCOME_OK,
    OUTCOME_REFUSED, /* a reset before any byte, where the server may refuse or never answers */
    OUTCOME_BROKEN,  /* ended by a reset that the script does not have */
    OUTCOME_WRONG,   /* what no forwarder may do: a foreign byte, FIN before the end ... */
    OUTCOME_STALLED, /* nothing moved for CONN_PATIENCE_S */
    OUTCOMES
};

enum { CONN_PATIENCE_S = 60 };

enum route_role { ROUTE_USUAL, ROUTE_FLAKY, ROUTE_SILENT };

struct route {
    const char *name;
    struct wire_addr listener;
    struct wire_addr origin;
    int origin_fd; /* -1: refuses now */
    bool all_tcp;
    enum route_role role;
};

struct conn {
    uint64_t id;
    enum kind kind;
    enum order order;
    struct route *route;
    struct end client;
    struct end *server; /* NULL: has not come yet */
    struct conn *next;
    struct conn *previous;
    uint64_t started_us;
    uint64_t intended_us; /* when the request under way should have been sent */
    uint64_t asked_us;    /* when it was sent, or the connection was begun for it */
    uint64_t period_us;   /* between requests */
    uint64_t rounds_left;
    uint64_t request_bytes;
    uint64_t answer_bytes;
    bool asking;
    bool answering;
    bool told;        /* an idle one: now is the end */
    bool slow_server; /* of a slow connection: the reader is the server, not the client */
    uint64_t abort_after_bytes;
    uint64_t random;
    uint64_t counted_bytes;
    uint64_t check_us; /* time alone gives it something to do then */
};

/** What is counted between two reports. */
struct tally {
    uint64_t opened;
    uint64_t outcomes[OUTCOMES];
    uint64_t requests;
    uint64_t bytes; /* received and checked, both directions */
    struct latency *latency;
    FILE *results;
    uint64_t slow_us; /* a request that took longer has a line in the results */
};

const char *kind_name(enum kind kind);

/** Makes a connection of that kind and starts to connect. NULL if the kernel has no room now. */
struct conn *conn_open(struct route *route, enum kind kind, uint64_t id, uint64_t intended_us,
                       int epoll_fd, uint64_t seed);
/** The server's side of it has come. */
void conn_bind(struct conn *conn, struct end *server);
/** Does what the script says now. True: it is over, has been written down, and may be freed. */
bool conn_advance(struct conn *conn, uint64_t now_us, struct tally *tally);
void conn_free(struct conn *conn);

#endif
