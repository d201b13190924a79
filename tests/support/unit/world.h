/* Test support: a whole relay inside the test process, between clients and servers that the test
 * plays itself.
 *
 *     leg (client) --- listener [ relay, loop ] --- leg (server)
 *
 * Everything is one thread: nothing moves in the relay but during world_turn(). Every wait is
 * bounded. The loop's clock can be moved ahead (fault_clock_advance), so no test waits for a
 * time-out.
 *
 * After each turn the books are checked (sessions alive, records, counters); world_close() demands
 * that nothing is left: session, buffer, pipe, descriptor. */
#ifndef SUPPORT_UNIT_WORLD_H
#define SUPPORT_UNIT_WORLD_H

#include "base/metrics.h"
#include "relay/listener.h"
#include "relay/relay.h"
#include "relay/session.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORLD_SERVERS_MAX = 4, WORLD_RECORDS_MAX = 512, WORLD_NAME_BYTES = 32 };

struct world {
    struct loop loop;
    struct relay relay;
    struct relay_settings settings; /* change before world_open() */
    bool unix_front;                /* listen on a unix socket; set before world_open() */
    struct listener listener;
    struct metrics metrics;
    struct addr address; /* of the listener */
    struct target targets[WORLD_SERVERS_MAX];
    char names[WORLD_SERVERS_MAX][WORLD_NAME_BYTES]; /* "server-0" ... */
    int upstream[WORLD_SERVERS_MAX];                 /* listening, or only bound */
    int filler[WORLD_SERVERS_MAX];                   /* what keeps a silent server's queue full */
    size_t servers_len;
    struct record records[WORLD_RECORDS_MAX];
    size_t records_len;
    size_t pauses;      /* how often accepting has paused */
    int pause_error;    /* of the last pause */
    struct timer pulse; /* so that no turn waits for long */
    size_t fds_before;
    uint64_t next_key;
};

/** No server yet, time-outs of an hour, details wanted, 16 sessions, 8 pipes. */
void world_init(struct world *world, enum splice_mode splice);

/** Servers, tried in the order in which they were added; each returns its index. */
size_t world_add_tcp(struct world *world);
size_t world_add_unix(struct world *world, int backlog);
/** A server that refuses: its port is bound, and nobody listens. */
size_t world_add_refusing(struct world *world);
/** A server that never answers: its queue is full, so the kernel drops each SYN. */
size_t world_add_silent(struct world *world);

/** Starts the relay and its listener. */
void world_open(struct world *world);
/** Ends the listener and the relay. All sessions must have ended. */
void world_close(struct world *world);

/** One turn of the loop, a few milliseconds at most, then a look at the books. */
void world_turn(struct world *world);

/** Turns until `condition` holds; fails the test when that takes more than some seconds. */
#define WORLD_UNTIL(world, condition)                                                              \
    do {                                                                                           \
        uint64_t world_give_up_ms = world_deadline_ms();                                           \
                                                                                                   \
        while (!(condition)) {                                                                     \
            cr_assert(world_deadline_ms() < world_give_up_ms + 10000, "never came true: %s",       \
                      #condition);                                                                 \
            world_turn(world);                                                                     \
        }                                                                                          \
    } while (0)
uint64_t world_deadline_ms(void);

/** Turns until there are `len` records. */
void world_wait_records(struct world *world, size_t len);
/** Waits for the only record of this world, and compares. */
const struct record *world_expect_end(struct world *world, enum reason reason,
                                      enum closed_by closed_by, int error);
/** The session that was started first of those alive; fails the test without one. */
struct session *world_session(struct world *world);
/** A number of turns in which nothing is expected to happen. */
void world_idle(struct world *world, int turns);

enum leg_end { LEG_OPEN, LEG_FIN, LEG_RESET };

/** One connection of the test's own: a client's, or an accepted one of a server. */
struct leg {
    int fd;
    uint64_t send_key; /* of the streams, see support/stream.h */
    uint64_t receive_key;
    uint64_t sent;
    uint64_t received; /* each byte checked */
    enum leg_end end;  /* what was seen behind the bytes */
    bool broken;       /* a send failed */
    bool reset_seen;   /* ... by a reset, which reading will not tell any more */
};

/** A client that connects now; it need not be accepted yet. */
struct leg world_connect(struct world *world);
/** The same with a receive buffer of about `bytes`. */
struct leg world_connect_small(struct world *world, int bytes);
/** Turns until the server has a connection, which belongs to the client `of`. */
struct leg world_accept(struct world *world, size_t server, const struct leg *of);
/** A client and the server's end of its connection, through server 0. */
void world_pair(struct world *world, struct leg *ret_client, struct leg *ret_server);

/** Sends as much of `len` as the kernel takes at once; returns how much. A connection that takes
 *  nothing any more is marked as broken. */
size_t leg_try_send(struct leg *leg, size_t len);
/** Sends all of it, with turns as needed. */
void leg_send(struct world *world, struct leg *leg, size_t len);
/** Reads what is there, checks it, notes an end; returns how many bytes. */
size_t leg_try_read(struct leg *leg, size_t len);
/** Turns until `len` bytes more have come. */
void leg_expect(struct world *world, struct leg *leg, size_t len);
/** Turns until the end; more bytes may come before it. */
void leg_expect_end(struct world *world, struct leg *leg, enum leg_end end);
/** FIN. */
void leg_shut(const struct leg *leg);
/** RST. */
void leg_reset(struct leg *leg);
void leg_close(struct leg *leg);
/** Bytes move both ways, then both sides shut, the first of them first; both legs are closed. */
void world_converse(struct world *world, struct leg *first, struct leg *second, size_t len);

#endif
