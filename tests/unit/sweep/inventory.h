/* What every system call of the relay may legally answer, in which states of a connection, and
 * which of those combinations can't come about. Data only; sweep.c brings it about. */
#ifndef UNIT_SWEEP_INVENTORY_H
#define UNIT_SWEEP_INVENTORY_H

#include "support/unit/fault.h"

#include <stddef.h>
#include <stdint.h>

/** Whose call it is, and where that session or flow is. */
enum state {
    STATE_LOOP,        /* nobody's: the loop waits */
    STATE_ACCEPTING,   /* the listener's, or for the next client */
    STATE_CONNECTING,  /* of a session without a server */
    STATE_RELAYING,    /* both flows are open */
    STATE_HALF_CLOSED, /* one flow is over, this call is for the other one, which is open */
    STATE_DRAINING,    /* this call's flow has met the end of its source */
    STATE_ENDING,      /* what came before an abnormal end is being delivered */
    STATE_CLOSING,     /* the record is made, the descriptors are closed */
    STATES
};

#define IN_LOOP        (1u << STATE_LOOP)
#define IN_ACCEPTING   (1u << STATE_ACCEPTING)
#define IN_CONNECTING  (1u << STATE_CONNECTING)
#define IN_RELAYING    (1u << STATE_RELAYING)
#define IN_HALF_CLOSED (1u << STATE_HALF_CLOSED)
#define IN_DRAINING    (1u << STATE_DRAINING)
#define IN_ENDING      (1u << STATE_ENDING)
#define IN_CLOSING     (1u << STATE_CLOSING)
#define IN_ALL         ((1u << STATES) - 1)

extern const char *const state_names[STATES];

/** How an outcome is brought about at the seam. */
enum manner {
    FAILS,         /* the call is not made; -value */
    ANSWERS,       /* the call is not made; value */
    LIES,          /* EAGAIN that is not true: the edge is delivered again some turns later */
    SHORTENS,      /* the call is made, with no more than value */
    REPLACES,      /* the call is made, and value is said instead of its success */
    PENDING,       /* SO_ERROR holds value */
    SPURIOUS,      /* epoll reports everything as ready */
    BREAKS_CLIENT, /* epoll reports an error at the client's socket, and SO_ERROR holds value */
    BREAKS_SERVER
};

/** One legal outcome of one call. */
struct outcome {
    enum call call;
    const char *name;
    enum manner manner;
    int64_t value;
    uint32_t times;  /* from the N-th call on: 1, a number, or ALWAYS */
    unsigned unseen; /* states in which nobody may notice: all bytes, both ends, the same record */
    unsigned breaks; /* states in which that session must end abnormally, with this errno */
    /* in any other state it may end abnormally, or go on */
    const char *source; /* who says that it is legal */
};

extern const struct outcome outcomes[];
extern const size_t outcomes_len;

/** Combinations that no scenario reaches, and why. The sweep fails when one of them is reached. */
struct hole {
    enum call call;
    const char *outcome; /* NULL: every one of the call */
    unsigned states;
    const char *reason;
};

extern const struct hole holes[];
extern const size_t holes_len;

/** Calls of net/sys.h that are not swept at all. */
struct left_out {
    enum call call;
    const char *reason;
};

extern const struct left_out left_outs[];
extern const size_t left_outs_len;

#endif
