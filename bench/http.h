/*
 * http: one HTTP/1.1 connection of the origin: requests in, replies out, over one socket.
 *
 * Layer: sockets only. It waits for nothing, knows no other connection, no clock and no memory but
 * its own struct: the owner tells it what the kernel reported, gives it turns, closes the socket.
 */
#ifndef BENCH_HTTP_H
#define BENCH_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_REQUEST_HEAD_MAX 8192 /* a longer one is refused with 431 */
#define HTTP_REPLY_HEAD_MAX   192  /* the longest that http.c composes is 153 */
#define HTTP_BODY_TEXT_MAX    64   /* a body that is composed, not the pattern */

enum http_method {
    HTTP_METHOD_OTHER,
    HTTP_METHOD_GET,
    HTTP_METHOD_HEAD,
    HTTP_METHOD_POST,
    HTTP_METHOD_PUT
};

enum http_page { HTTP_PAGE_NONE, HTTP_PAGE_HELLO, HTTP_PAGE_BYTES, HTTP_PAGE_DISCARD };

enum http_state { HTTP_STATE_REQUEST, HTTP_STATE_BODY, HTTP_STATE_REPLY, HTTP_STATE_LINGER };

#define HTTP_STATE_COUNT 4

/* Of a turn, or of one step in it. */
enum http_outcome {
    HTTP_MOVED,   /* something was done and more may be: take another step, give another turn */
    HTTP_BLOCKED, /* nothing to do before http_conn_note_events() */
    HTTP_DONE,    /* the connection is over: close it */
};

/* What is kept of a request head; nothing in it points into the buffer. */
struct http_request {
    enum http_method method;
    enum http_page page;
    uint64_t page_bytes; /* the N of /bytes/N */
    uint64_t body_bytes; /* Content-Length, 0 if absent */
    bool has_length;
    bool is_http10;
    bool asks_close;
    bool asks_keep_alive;
    bool asks_continue; /* Expect: 100-continue */
};

struct http_conn {
    int fd; /* borrowed */
    enum http_state state;
    enum http_state after_reply; /* where HTTP_STATE_REPLY leads */
    bool readable;               /* the kernel said so, and no receive has found it empty since */
    bool writable;               /* likewise for sending */
    bool reads_to_end;           /* a short receive does not show any more that it is empty */

    struct http_request request;
    size_t in_start; /* in[in_start .. in_end) is received and not used yet */
    size_t in_line;  /* in_start <= in_line <= in_end: the lines before it are whole */
    size_t in_end;
    uint64_t in_left; /* of the request's body, or in HTTP_STATE_LINGER of what may be drained */

    size_t out_sent; /* out[out_sent .. out_len) is to be sent first, */
    size_t out_len;
    size_t out_head;    /* where the body in it begins, if it has one */
    uint64_t body_left; /* then so many bytes of the pattern, */
    size_t body_at;     /* from this offset in it */
    int64_t budget;     /* bytes it may still move in this turn */

    char out[HTTP_REPLY_HEAD_MAX + HTTP_BODY_TEXT_MAX];
    char in[HTTP_REQUEST_HEAD_MAX];
};

/* `fd` is a connected non-blocking stream socket. It stays the caller's, who closes it after the
 * end of the connection. */
void http_conn_init(struct http_conn *c, int fd);

/* Takes what an edge-triggered epoll_wait reported for IN, OUT, RDHUP and PRI. */
void http_conn_note_events(struct http_conn *c, uint32_t events);

/*
 * Works until nothing is left to do (HTTP_BLOCKED), the connection is over (HTTP_DONE), or the
 * budget of the turn is used (HTTP_MOVED): then the caller owes another turn, as no event will ask
 * for it.
 */
enum http_outcome http_conn_turn(struct http_conn *c);

/* Whether only the client's end of stream is waited for; the caller should put a limit to that. */
bool http_conn_lingers(const struct http_conn *c);

#endif
