/* What world.c, who plays, and judge.c, who judges, know of a run. */
#ifndef SIM_ACTORS_H
#define SIM_ACTORS_H

#include "relay/record.h"
#include "relay/session.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PAIRS_MAX = 4, TARGETS = 3, IDLE_TURNS_MAX = 20000, NEVER = -1 };

struct side {
    int fd; /* sluice's socket towards this peer, -1: none (any more) */
    uint64_t key;
    uint64_t to_send;
    uint64_t sent;
    uint64_t wait_for;  /* sends nothing before it has got so much */
    int64_t reset_at;   /* resets once it has sent so much; NEVER */
    uint64_t urgent_at; /* the byte after so many is urgent */
    bool fin_planned;
    bool fin_sent;
    bool reset_sent;
    bool
        closes; /* once it has sent FIN, its program is gone: what still arrives is answered by RST */
    int64_t vanish_at; /* is never heard of again once it has sent so much; NEVER */
    int vanish_error;  /* what sluice's kernel will say of it */
    bool vanished;
    bool reads;
    uint64_t pause_ns; /* a slow reader: between two times that it takes something; 0: none */
    uint64_t pauses_until_ns;
    bool
        fin_was_first; /* its reset found sluice's socket in CLOSE_WAIT: EPIPE, see trace_corners.c */
    uint64_t got;
    bool got_fin;
    bool got_reset;
};

/* How an attempt to connect fails. */
enum refusal {
    REFUSAL_RESET,
    REFUSAL_SILENCE,    /* no answer at all */
    REFUSAL_BY_NETWORK, /* an error comes as the event: a router says so, or SYN was sent in vain */
    REFUSAL_AT_ONCE,    /* connect(2) itself fails */
    REFUSALS
};

struct pair {
    struct side client;
    struct side server;
    bool arrived;
    int connecting_fd;    /* -1: none */
    unsigned refusals;    /* attempts that fail before one succeeds */
    enum refusal refusal; /* how they fail */
    unsigned failures;    /* attempts that did fail */
    int last_failure;     /* the errno of the last one */
    uint64_t moved_ns;    /* when a peer last did something */
    uint64_t sent_ns;     /* when one last sent something, or FIN */
    int client_fd;        /* sluice's sockets, also after they are closed; -1 */
    int server_fd;
    uint64_t ended_ns;
    bool was_reached; /* when it ended, sluice had been told that the server is connected */
    unsigned records;
    struct record record;
};

struct world {
    struct pair pairs[PAIRS_MAX];
    size_t pairs_len;
    int picking; /* the pair whose session picks a server now */
    struct target targets[TARGETS];
    bool is_rough; /* resets and urgent bytes everywhere, and the network never waits */
    bool is_slow;  /* readers that pause, and memory that is short meanwhile */
    bool told_to_end;
    uint64_t steps; /* things that happened */
};
extern struct world world;

/** The limits of the run; the judge measures by them. */
extern const struct relay_settings world_limits;

/** A record has come: counts it, and notes what only this moment shows. */
void judge_record(struct pair *pair, const struct record *record);
/** The run is over: was every promise kept to this pair? */
void judge_pair(const struct pair *pair);
void judge_leftovers(void);

#endif
