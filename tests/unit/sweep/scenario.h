/* One scenario of the sweep: a relay in this process, one or more clients, and servers, each of
 * which acts by a plan. What they may have seen, judge.h knows. */
#ifndef UNIT_SWEEP_SCENARIO_H
#define UNIT_SWEEP_SCENARIO_H

#include "support/unit/fault.h"
#include "support/unit/world.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The moment at which a peer does something. */
enum when {
    NEVER,
    AT_ONCE,
    WHEN_SENT,     /* it has sent all of its bytes */
    WHEN_ARRIVED,  /* ... and sluice's kernel has acknowledged them */
    WHEN_END_SEEN, /* it has read the other side's end */
    WHEN_GOT_SOME, /* it has read a byte */
    WHEN_STUCK,    /* it has sent some, and nothing moves any more */
    WHEN_OTHER_STUCK,
    WHEN_DRAINED, /* sluice has been told to stop */
    WHEN_OVER     /* the other side has reset, or there is a record */
};

struct plan {
    size_t sends;
    enum when begins; /* to send */
    enum when reads;
    enum when shuts;
    enum when resets;
    enum when gives_up; /* reading, and goes on writing: shutdown(SHUT_RD) */
    size_t sips;        /* reads so much in a turn, 0: all there is */
};

enum server_kind {
    NO_SERVER,
    TCP_SERVER,
    UNIX_SERVER,
    REFUSING_SERVER,
    SILENT_SERVER, /* never answers */
    FULL_SERVER,   /* unix, with a full backlog for some turns */
    GONE_UNIX_SERVER
};

#define REASON_BIT(reason) (1u << (reason))
enum {
    SCENARIO_SERVERS_MAX = 2,
    SCENARIO_CLIENTS_MAX = 4,
    SCENARIO_LEGS_MAX = 16,
    SCENARIO_BASES_MAX = 2
};

/** A fault that belongs to the scenario: from some moment on the call fails, but for the first
 *  nth - 1 times. error 0: none. */
struct base {
    enum call call;
    int error;
    uint32_t nth;
    enum when when; /* of the first client */
};

struct scenario {
    const char *name;
    enum splice_mode splice;
    enum server_kind servers[SCENARIO_SERVERS_MAX];
    struct plan client;
    struct plan server;
    unsigned reasons;    /* without a fault: one of these */
    size_t clients;      /* 0: one */
    size_t sessions_max; /* 0: plenty */
    size_t up_arrives;   /* of an abnormal end: so many bytes reach the server nevertheless */
    size_t down_arrives; /* ... and the client */
    int client_window;   /* bytes of its receive buffer, 0: the kernel's choice */
    bool unix_front;     /* clients come by a unix socket */
    bool tuned;          /* keepalive, user time-out, a source address */
    bool idles;          /* the idle time-out is short */
    enum when drains;    /* sluice is told to stop; by the client's side */
    struct base bases[SCENARIO_BASES_MAX];
};

extern const struct scenario scenarios[];
extern const size_t scenarios_len;

/** A connection as one of the peers has it. */
struct side {
    struct leg leg;
    const struct plan *plan;
    int of_client;        /* of a server's side: whose it is; -1: not known (yet), or nobody's */
    uint16_t port;        /* of a server's side: sluice's port, 0 for unix */
    struct side *partner; /* NULL: not known */
    uint64_t moved;       /* bytes at the last look */
    int still_turns;      /* since then */
    bool shut;
    bool reset;
};

/** The run that is being played: the relay, the clients, and what servers have accepted. */
extern struct world sweep_world;
extern struct side clients[SCENARIO_CLIENTS_MAX];
extern struct side legs[SCENARIO_LEGS_MAX];
extern size_t clients_len;
extern size_t legs_len;

/** Builds the world of `scenario`; faults can be armed then. */
void scenario_open(const struct scenario *scenario);
/** Plays until everybody has seen an end. `after_turn` is called behind each turn of the loop. */
void scenario_play(const struct scenario *scenario, void (*after_turn)(void));
/** Closes everything; nothing may be left. */
void scenario_close(void);

#endif
