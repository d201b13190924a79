/* Cells while they run: both peers of a connection for each, all driven by one thread that never
 * blocks in a call, so that waiting for one cell is waiting for all. */
#ifndef MATRIX_RUN_H
#define MATRIX_RUN_H

#include "matrix/cell.h"
#include "matrix/expect.h"
#include "matrix/place.h"
#include "matrix/route.h"

#include "support/proxy.h"

enum { RUNS_MAX = 520, ROUTES_MAX = 52, RECORD_TEXT_BYTES = 32 };

#define NO_OFFSET UINT64_MAX
#define NO_LIMIT  UINT64_MAX

/** One direction, from the side that is its index in `struct run`. */
struct lane {
    uint64_t key;    /* of its stream */
    uint64_t goal;   /* the sender sends until so many bytes are sent ... */
    bool shut_after; /* ... and then half-closes */
    bool is_shut;
    uint64_t may_read; /* the receiver reads until so many bytes are read */
    uint64_t sent;
    uint64_t read;
    uint64_t wrong_at; /* the first byte that is not the stream's */
    enum view view;    /* how the stream ended for the receiver */
    bool is_full;      /* while filling: sluice holds some and takes no more */
    int trim_steps;
    struct place place; /* at the last look */
    struct place fact;  /* when the closer ended */
    uint64_t fact_read;
    uint64_t fact_sent;
};

struct record_seen {
    bool is_there;
    size_t index; /* in the log */
    char reason[RECORD_TEXT_BYTES];
    char closed_by[RECORD_TEXT_BYTES];
    char how[RECORD_TEXT_BYTES];
    char error[RECORD_TEXT_BYTES];
    uint64_t bytes[SIDES]; /* from that side */
    uint64_t undelivered_bytes;
    uint64_t spliced_bytes;
};

struct run {
    struct cell cell;
    struct expected expected;
    struct route *route;
    size_t ordinal;       /* among the connections of its route */
    uint16_t client_port; /* 0: a unix socket */
    int fd[SIDES];        /* -1: not there, or not any more */
    struct lane lane[SIDES];
    bool has_ended; /* the closer, for good */
    struct record_seen record;
};

/** The sluice of one engine, with what it forwards. */
struct stand {
    struct proxy proxy;
    pid_t worker;
    struct route routes[ROUTES_MAX];
    size_t route_count;
    size_t connections;
    size_t early_records; /* that were there before paused readers went on */
};

struct batch {
    enum plan plan;
    struct stand stands[ENGINES];
    struct run runs[RUNS_MAX];
    size_t count;
    uint64_t idle_limit_ms;
};

enum side run_closer(const struct run *run);
struct lane *run_own(struct run *run);  /* from the closer */
struct lane *run_back(struct run *run); /* to the closer */

/** Moves what can be moved now; true if anything did. */
bool pump(struct batch *batch);
/** The same until every run is ready; fails the test, naming the cell, after `wait_ms`. */
typedef bool run_ready_fn(struct run *run);
void pump_until(struct batch *batch, run_ready_fn *ready, const char *what);
/** The same without failing: false if some run is not ready after `wait_ms`. */
bool pump_for(struct batch *batch, run_ready_fn *ready, uint64_t wait_ms);
/** Looks once whether a TCP stream that had its FIN was reset behind it. */
void look_for_reset(struct run *run, enum side from);

/** Whether the other end's kernel has all that was sent from this side, and a FIN. */
bool is_acknowledged(const struct run *run, enum side side);

/** Asks where the bytes of this direction are. */
void look(struct run *run, enum side from);
/** What sluice itself holds of it, by the last look. */
int64_t held_bytes(const struct lane *lane);

/** Makes sluice hold bytes of each direction for which the cell says so. */
void fill(struct batch *batch);

/** Ends every closer. The workers are frozen. */
void end_all(struct batch *batch);
/** Lets the peers react, and reads the records. */
void follow_to_the_end(struct batch *batch);
/** Closes what is left and stops sluice, which must have leaked nothing. */
void close_all(struct batch *batch);
/** The same without looking whether anything is leaked or lost. */
void abandon_all(struct batch *batch);

/** Runs all its cells and judges them; what is wrong is appended to `problems`. */
void batch_run(struct batch *batch);

/** Compares one cell with what is expected of it. */
void judge(const struct run *run, const struct stand *stand);
/** Adds a line to what the test will fail with. */
void complain(const struct cell *cell, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/** Fails the test if there was any complaint. */
void expect_no_complaint(void);

#endif
