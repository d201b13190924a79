/*
 * load_loop: the connections of the load, their epoll, and what every mode does with them.
 *
 * Layer: above load_errors, load_target, load_options; knows no mode. Part of the program load.
 */
#ifndef BENCH_LOAD_LOOP_H
#define BENCH_LOAD_LOOP_H

#include "load_errors.h"
#include "load_options.h"

#include <sys/types.h>

#define LOAD_SECOND_NS  INT64_C(1000000000)
#define LOAD_SILENCE_NS (10 * LOAD_SECOND_NS) /* a peer that owes something and is silent so long */

/* A circular list with a head; a link on no list points at itself. */
struct load_link {
    struct load_link *prev;
    struct load_link *next;
};

/* What a turn of a connection came to. */
enum load_outcome {
    LOAD_WAIT,  /* nothing to do before the next event */
    LOAD_AGAIN, /* there is more to do at once */
    LOAD_DONE,  /* its job is done, it rests */
    LOAD_GONE,  /* it is closed */
};

struct load_conn {
    struct load_link run;      /* on loop.run while an event or more work waits for its turn */
    struct load_link awaiting; /* on loop.awaiting while it has a job, see load_conn_begin() */
    int64_t awaiting_since_ns;
    uint32_t number; /* from 0 */
    int fd;          /* owned, -1 if it is closed */
    bool connected;
    bool readable; /* recv has not said that it is empty */
    bool writable; /* send has not said that it is full */
    bool ended;    /* FIN or reset was reported: readable until recv says 0 or fails */
    bool fin_read; /* recv said 0 */

    bool moved_up; /* bulk: since the last load_conn_touch() */
    bool moved_down;
    uint8_t key;       /* exchange: which bytes the message has */
    uint32_t sent;     /* exchange: of the message, bytes */
    uint32_t received; /* exchange: of the answer, bytes */
    uint64_t message;  /* pingpong: number of the message that it sends, or will send next */
    int64_t begun_ns;  /* idle, churn: when the job began */
};

struct load_loop;

typedef enum load_outcome (*load_turn_fn)(struct load_loop *loop, struct load_conn *conn);

struct load_loop {
    const struct load_options *options; /* borrowed */
    struct load_conn *conns;            /* owned; options->connections of them */
    load_turn_fn turn;                  /* of a connected one that has a job */
    void *mode;                         /* borrowed; the mode's own */
    int epoll_fd;                       /* owned */
    int signal_fd;                      /* owned; TERM and INT */
    int stops;                          /* how many of these came */
    bool saw_all;                       /* the last epoll_wait reported all there was */
    int64_t now_ns;                     /* CLOCK_MONOTONIC, as the last events came */
    uint32_t open;                      /* connections that have a socket */
    uint32_t busy;                      /* connections that have a job */
    struct load_link run;
    struct load_link awaiting; /* the one that waits longest comes first */
    struct load_errors errors;
};

/** Blocks TERM and INT, raises the limit of descriptors. Returns false after a line on stderr. */
bool load_loop_init(struct load_loop *loop, const struct load_options *options, load_turn_fn turn,
                    void *mode);
/** Closes and frees everything. */
void load_loop_free(struct load_loop *loop);

/** One round: a turn for each connection that has something to do, an end for those that were
 *  silent too long, then a wait for events, until until_ns and for 10 s at the latest. If a job
 *  ended it does not wait, but only looks: the mode may have been waiting for just that. */
void load_loop_turn(struct load_loop *loop, int64_t until_ns);

/** Begins to connect a closed one, as its job. False if that failed, which is counted. */
bool load_conn_open(struct load_loop *loop, struct load_conn *conn);
/** Gives an open one a job: it has turns until one says LOAD_DONE or LOAD_GONE. */
void load_conn_begin(struct load_loop *loop, struct load_conn *conn);
/** Takes the job away. */
void load_conn_rest(struct load_loop *loop, struct load_conn *conn);
bool load_conn_is_busy(const struct load_conn *conn);
/** The peer did what it owed: the 10 s begin anew. */
void load_conn_touch(struct load_loop *loop, struct load_conn *conn);
void load_conn_close(struct load_loop *loop, struct load_conn *conn);
/** Counts an error and closes. */
void load_conn_fail(struct load_loop *loop, struct load_conn *conn, enum load_error_kind kind,
                    const char *what, int error_number);

/** Bytes taken by the socket, 0 if it is full, -1 after load_conn_fail(). */
ssize_t load_conn_send(struct load_loop *loop, struct load_conn *conn, const void *data,
                       size_t size);
/** Bytes read, 0 if it is empty or has ended (see fin_read), -1 after load_conn_fail(). Without a
 *  buffer the bytes are dropped. */
ssize_t load_conn_receive(struct load_loop *loop, struct load_conn *conn, void *buffer,
                          size_t size);

int64_t load_now_ns(void);

#endif
