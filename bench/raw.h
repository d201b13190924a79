/*
 * raw: one connection of the origin that has no protocol: echo, sink or source.
 *
 * Layer: sockets only, as http.h. It waits for nothing and knows no other connection: the owner
 * tells it what the kernel reported, gives it turns, closes the socket.
 */
#ifndef BENCH_RAW_H
#define BENCH_RAW_H

#include <stdbool.h>
#include <stdint.h>

enum raw_service {
    RAW_ECHO,  /* sends back every byte; after the peer's end, and the last byte, ends too */
    RAW_SINK,  /* drops every byte, sends none; ends after the peer */
    RAW_SOURCE /* sends the pattern for ever, drops every byte; ends after the peer */
};

/* Of a turn, or of one step in it. */
enum raw_outcome {
    RAW_MOVED,   /* something was done and more may be: take another step, give another turn */
    RAW_BLOCKED, /* nothing to do before raw_conn_note_events() */
    RAW_DONE     /* the connection is over: close it, which sends FIN, or RST where one is due */
};

struct raw_held;

/* Tens of thousands of these are open at a time: no buffer, and no more than 24 bytes. */
struct raw_conn {
    int fd; /* borrowed */
    enum raw_service service;
    bool readable;         /* the kernel said so, and no receive has found it empty since */
    bool writable;         /* likewise for sending */
    bool reads_to_end;     /* a short receive does not show that the socket is empty */
    uint32_t pattern_at;   /* source: what comes next; below PATTERN_BYTES */
    struct raw_held *held; /* owned; echo: received and not sent yet, or NULL */
};

/* `fd` is a connected non-blocking stream socket, and stays the caller's; `is_tcp` if it is one of
 * TCP. */
void raw_conn_init(struct raw_conn *c, enum raw_service service, int fd, bool is_tcp);

/* Takes what an edge-triggered epoll_wait reported for IN, OUT, RDHUP and PRI. */
void raw_conn_note_events(struct raw_conn *c, uint32_t events);

/* Works until nothing is left to do (RAW_BLOCKED), the connection is over (RAW_DONE), or the turn
 * was long enough (RAW_MOVED): then the caller owes another turn, as no event will ask for it. */
enum raw_outcome raw_conn_turn(struct raw_conn *c);

/* Before the caller closes the socket: gives back what the connection holds. */
void raw_conn_end(struct raw_conn *c);

#endif
