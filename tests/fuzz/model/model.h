/* The kernel that the flow fuzzer gives its flows, see flow.c: what a source, a target and a pipe
 * are, and every function of net/sys.h. */
#ifndef FUZZ_MODEL_H
#define FUZZ_MODEL_H

#include "fuzz/common/input.h"
#include "relay/flow.h"

enum {
    LANES = 2,
    SOURCE_FD = 10, /* and the next: of the second lane */
    TARGET_FD = 20,
    PIPE_FD = 30, /* reading end even, writing end odd */
    PIPES = 4,
    SLOTS_MAX = 16,
    SENT_MAX = 4 << 20,
    PATTERN_BYTES = 131071, /* prime, more than any piece that could be lost */
    HOARD_MAX = 4
};
#define NO_OFFSET UINT64_MAX

struct piece {
    uint64_t offset;
    uint64_t len;
};

struct tube {
    bool open[2]; /* reading end, writing end */
    int lane;     /* whose bytes are in it */
    struct piece slots[SLOTS_MAX];
    size_t first;
    size_t count;
    size_t slots_max;
};

struct lane {
    struct flow flow;
    struct io source;
    struct io target;
    /* the source */
    uint64_t sent;  /* arrived so far */
    uint64_t taken; /* by the flow */
    uint64_t urgent_at;
    bool fin;
    bool source_broken;
    int source_error; /* SO_ERROR, not yet taken */
    bool source_edge; /* not yet delivered */
    /* the target */
    uint64_t given;
    uint64_t room;
    bool nospace;
    bool target_broken;
    int target_error;
    bool target_edge;
    bool shut;
    bool fin_is_due; /* what was given last waits for the FIN that was announced */
    /* what was done to the flow */
    bool stopped;
    bool failed;
    bool met_shortage; /* in this step */
    unsigned idle_turns;
};

struct world {
    struct input input;
    struct lane lanes[LANES];
    struct tube tubes[PIPES];
    struct flow_supplies supplies;
    void *hoard[HOARD_MAX];
    size_t hoarded;
};

extern struct world world;

/** Starts anew with this input: two lanes, nothing arrived, no room. */
void model_reset(const uint8_t *bytes, size_t len);

/** Bytes of `lane` that lie in pipes. */
uint64_t model_piped_bytes(int lane);

#endif
