/*
 * http: one HTTP/1.1 connection of the origin, from the bytes of requests to the bytes of replies.
 *
 * The kernel announces an edge once, so what it said is kept in two ready bits until a call finds
 * the socket empty or full, and a turn ends only for one of three reasons: the bit its state needs
 * is clear, the connection is over, or its budget is used and the caller owes it another turn.
 *
 *   REQUEST  reads a head        -> REPLY when it is whole or refused, -> BODY if one follows
 *   BODY     counts a body       -> REPLY at its end
 *   REPLY    sends out, pattern  -> REQUEST (kept alive), BODY (after 100 Continue), LINGER
 *   LINGER   has shut its write side, and drains what the client still sends, up to a limit, until
 *            the client ends its stream too
 *
 * Invariants:
 *   H1  One reply at a time, and nothing is received during it: replies keep the order of requests,
 *       and a client that does not read its replies is not read from.
 *   H2  out and the pattern are empty except in REPLY.
 *   H3  No whole head is left in the buffer when a turn ends with HTTP_BLOCKED in REQUEST.
 *
 * What can make two programs disagree about where a request ends is refused: a repeated or bad
 * Content-Length, any Transfer-Encoding (501: only bodies of a known length are read), folded
 * lines, blanks in a field name, control characters. What cannot is let pass: a bare LF as a line
 * end (a hand-typed request has it), a missing Host, an unknown field or expectation, a query after
 * the path (which is dropped).
 *
 * The reply has no Date: equal requests get equal bytes, and tests may compare whole replies. Not
 * here: chunked bodies, absolute-form targets, time limits. Read next: origin.c, the owner.
 */
#include "http.h"

#include "check.h"
#include "pattern.h"
#include "tally.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define SCRATCH_BYTES    (64 * 1024)  /* one receive of bytes that nobody keeps */
#define TURN_BYTES       (512 * 1024) /* what a connection may move before others have their turn */
#define STEP_COST_BYTES  4096 /* what a step counts for by itself: it bounds tiny requests */
#define LINGER_BYTES_MAX (1024 * 1024)
#define HELLO_TEXT       "Hello from the origin behind sluice.\n"

static_assert(offsetof(struct http_conn, out) <= 256, "without its buffers a connection is small");

/* A piece of a request head (borrowed, not terminated). */
struct text {
    const char *at;
    size_t len;
};

static char scratch[SCRATCH_BYTES]; /* never read */

/* Status lines, compared by address. */
static const char status_ok[] = "200 OK";
static const char status_bad_request[] = "400 Bad Request";
static const char status_not_found[] = "404 Not Found";
static const char status_not_allowed[] = "405 Method Not Allowed";
static const char status_head_too_large[] = "431 Request Header Fields Too Large";
static const char status_not_implemented[] = "501 Not Implemented";

static bool text_is(struct text text, const char *word)
{
    return text.len == strlen(word) && memcmp(text.at, word, text.len) == 0;
}

static bool text_is_nocase(struct text text, const char *word)
{
    return text.len == strlen(word) && strncasecmp(text.at, word, text.len) == 0;
}

/* Cuts the part before the first `separator` off `rest`; all of it if there is none. */
static struct text text_cut(struct text *rest, char separator)
{
    const char *found = memchr(rest->at, separator, rest->len);
    struct text part = {rest->at, found != NULL ? (size_t)(found - rest->at) : rest->len};
    size_t used = found != NULL ? part.len + 1 : part.len;

    rest->at += used;
    rest->len -= used;
    return part;
}

static struct text text_trim(struct text text)
{
    while (text.len > 0 && (text.at[0] == ' ' || text.at[0] == '\t')) {
        text.at++;
        text.len--;
    }
    while (text.len > 0 && (text.at[text.len - 1] == ' ' || text.at[text.len - 1] == '\t')) {
        text.len--;
    }
    return text;
}

/* Decimal digits only, up to 2^63-1. */
static bool text_to_number(struct text text, uint64_t *ret_number)
{
    uint64_t number = 0;

    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned char)text.at[i] - (unsigned)'0';
        if (digit > 9 || number > ((uint64_t)INT64_MAX - digit) / 10) {
            return false;
        }
        number = number * 10 + digit;
    }
    *ret_number = number;
    return text.len > 0;
}

/* The next line without its end, which may be a bare LF. */
static struct text text_cut_line(struct text *rest)
{
    struct text line = text_cut(rest, '\n');

    if (line.len > 0 && line.at[line.len - 1] == '\r') {
        line.len--;
    }
    return line;
}

/* The length of the first line with its end, or 0 (and no `ret_is_empty`) if it has none yet. */
static size_t line_length(const char *text, size_t len, bool *ret_is_empty)
{
    const char *end = len > 0 ? memchr(text, '\n', len) : NULL;

    if (end == NULL) {
        return 0;
    }
    *ret_is_empty = end == text || (end == text + 1 && text[0] == '\r');
    return (size_t)(end - text) + 1;
}

static enum http_method method_of(struct text name)
{
    static const char *const names[] = {[HTTP_METHOD_GET] = "GET",
                                        [HTTP_METHOD_HEAD] = "HEAD",
                                        [HTTP_METHOD_POST] = "POST",
                                        [HTTP_METHOD_PUT] = "PUT"};

    for (enum http_method method = HTTP_METHOD_GET; method <= HTTP_METHOD_PUT; method++) {
        if (text_is(name, names[method])) {
            return method;
        }
    }
    return HTTP_METHOD_OTHER;
}

static enum http_page page_of(struct text target, uint64_t *ret_bytes)
{
    static const char bytes_prefix[] = "/bytes/";
    const size_t prefix_len = sizeof(bytes_prefix) - 1;
    struct text path = text_cut(&target, '?');

    if (text_is(path, "/")) {
        return HTTP_PAGE_HELLO;
    }
    if (text_is(path, "/discard")) {
        return HTTP_PAGE_DISCARD;
    }
    if (path.len > prefix_len && memcmp(path.at, bytes_prefix, prefix_len) == 0) {
        struct text number = {path.at + prefix_len, path.len - prefix_len};
        return text_to_number(number, ret_bytes) ? HTTP_PAGE_BYTES : HTTP_PAGE_NONE;
    }
    return HTTP_PAGE_NONE;
}

static bool request_parse_first_line(struct http_request *request, struct text line)
{
    struct text name = text_cut(&line, ' ');
    struct text target = text_cut(&line, ' ');

    if (name.len == 0 || target.len == 0) {
        return false;
    }
    request->method = method_of(name);
    request->page = page_of(target, &request->page_bytes);
    request->is_http10 = text_is(line, "HTTP/1.0");
    return request->is_http10 || text_is(line, "HTTP/1.1");
}

static void request_parse_connection(struct http_request *request, struct text value)
{
    while (value.len > 0) {
        struct text option = text_trim(text_cut(&value, ','));
        if (text_is_nocase(option, "close")) {
            request->asks_close = true;
        } else if (text_is_nocase(option, "keep-alive")) {
            request->asks_keep_alive = true;
        }
    }
}

/* Returns NULL, or the status to refuse the request with. */
static const char *request_parse_field(struct http_request *request, struct text line)
{
    size_t line_len = line.len;
    struct text name = text_cut(&line, ':');
    struct text value = text_trim(line);

    /* A name with a blank in it, or a folded line, is how one request is made to look like two. */
    if (name.len == 0 || name.len == line_len || memchr(name.at, ' ', name.len) != NULL ||
        memchr(name.at, '\t', name.len) != NULL) {
        return status_bad_request;
    }
    if (text_is_nocase(name, "connection")) {
        request_parse_connection(request, value);
    } else if (text_is_nocase(name, "content-length")) {
        if (request->has_length || !text_to_number(value, &request->body_bytes)) {
            return status_bad_request;
        }
        request->has_length = true;
    } else if (text_is_nocase(name, "transfer-encoding")) {
        return status_not_implemented;
    } else if (text_is_nocase(name, "expect")) {
        request->asks_continue = text_is_nocase(value, "100-continue");
    }
    return NULL;
}

static bool line_has_control(struct text line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char byte = (unsigned char)line.at[i];
        if ((byte < ' ' && byte != '\t') || byte == 127) {
            return true;
        }
    }
    return false;
}

/* Parses a whole head, the empty line included. Returns NULL, or the status to refuse it with. */
static const char *request_parse(struct http_request *request, const char *head, size_t len)
{
    struct text rest = {head, len};
    struct text line = text_cut_line(&rest);

    *request = (struct http_request){0};
    if (line_has_control(line) || !request_parse_first_line(request, line)) {
        return status_bad_request;
    }
    for (line = text_cut_line(&rest); line.len > 0; line = text_cut_line(&rest)) {
        const char *refusal =
            line_has_control(line) ? status_bad_request : request_parse_field(request, line);
        if (refusal != NULL) {
            return refusal;
        }
    }
    return NULL;
}

static bool request_method_fits(const struct http_request *request)
{
    switch (request->method) {
    case HTTP_METHOD_GET:
    case HTTP_METHOD_HEAD:
        return request->page != HTTP_PAGE_DISCARD;
    case HTTP_METHOD_POST:
    case HTTP_METHOD_PUT:
        return request->page == HTTP_PAGE_DISCARD;
    case HTTP_METHOD_OTHER:
        break;
    }
    return false;
}

static const char *request_refusal(const struct http_request *request)
{
    if (request->page == HTTP_PAGE_NONE) {
        return status_not_found;
    }
    return request_method_fits(request) ? NULL : status_not_allowed;
}

static bool request_keeps_alive(const struct http_request *request)
{
    return !request->asks_close && (!request->is_http10 || request->asks_keep_alive);
}

/* Appends to the `used` bytes in `head`, which has HTTP_REPLY_HEAD_MAX; returns the new `used`. */
static size_t head_append(char *head, size_t used, const char *text)
{
    size_t len = strlen(text);

    CHECK(len <= HTTP_REPLY_HEAD_MAX - used);
    memcpy(head + used, text, len);
    return used + len;
}

static size_t head_append_number(char *head, size_t used, uint64_t number)
{
    char digits[21];
    char *first = digits + sizeof(digits) - 1;

    *first = '\0';
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return head_append(head, used, first);
}

/* By hand, without a format to interpret, as it runs for every request. */
static size_t reply_compose(char ret_head[HTTP_REPLY_HEAD_MAX], const struct http_request *request,
                            const char *status, uint64_t length)
{
    bool is_discard = request->page == HTTP_PAGE_DISCARD;
    size_t used = head_append(ret_head, 0, "HTTP/1.1 ");

    used = head_append(ret_head, used, status);
    used = head_append(ret_head, used, "\r\nContent-Type: text/plain\r\nContent-Length: ");
    used = head_append_number(ret_head, used, length);
    if (status == status_not_allowed) {
        used = head_append(ret_head, used, "\r\nAllow: ");
        used = head_append(ret_head, used, is_discard ? "POST, PUT" : "GET, HEAD");
    }
    if (!request_keeps_alive(request)) {
        used = head_append(ret_head, used, "\r\nConnection: close");
    } else if (request->is_http10) {
        used = head_append(ret_head, used, "\r\nConnection: keep-alive");
    }
    return head_append(ret_head, used, "\r\n\r\n");
}

static void conn_set_state(struct http_conn *c, enum http_state state)
{
    static const bool allowed[HTTP_STATE_COUNT][HTTP_STATE_COUNT] = {
        [HTTP_STATE_REQUEST] = {[HTTP_STATE_BODY] = true, [HTTP_STATE_REPLY] = true},
        [HTTP_STATE_BODY] = {[HTTP_STATE_REPLY] = true},
        [HTTP_STATE_REPLY] =
            {[HTTP_STATE_REQUEST] = true, [HTTP_STATE_BODY] = true, [HTTP_STATE_LINGER] = true},
    };

    CHECK(allowed[c->state][state]);
    c->state = state;
}

/* Composes the head of a reply, and enters HTTP_STATE_REPLY. */
static void reply_start(struct http_conn *c, const char *status, uint64_t length)
{
    bool keeps_alive = request_keeps_alive(&c->request);

    CHECK(c->out_len == 0);
    c->out_len = reply_compose(c->out, &c->request, status, length);
    c->out_head = c->out_len;
    c->after_reply = keeps_alive ? HTTP_STATE_REQUEST : HTTP_STATE_LINGER;
    conn_set_state(c, HTTP_STATE_REPLY);
}

static void reply_start_text(struct http_conn *c, const char *status, const char *body)
{
    size_t len = strlen(body);

    reply_start(c, status, len);
    if (c->request.method != HTTP_METHOD_HEAD) {
        CHECK(len <= sizeof(c->out) - c->out_len);
        memcpy(c->out + c->out_len, body, len);
        c->out_len += len;
    }
}

static void reply_start_refusal(struct http_conn *c, const char *status)
{
    char body[HTTP_BODY_TEXT_MAX];

    (void)snprintf(body, sizeof(body), "%s\n", status);
    reply_start_text(c, status, body);
}

/* After the request's body, if it had one. */
static void reply_start_page(struct http_conn *c)
{
    const struct http_request *request = &c->request;
    char body[HTTP_BODY_TEXT_MAX];

    switch (request->page) {
    case HTTP_PAGE_HELLO:
        reply_start_text(c, status_ok, HELLO_TEXT);
        return;
    case HTTP_PAGE_BYTES:
        reply_start(c, status_ok, request->page_bytes);
        c->body_left = request->method == HTTP_METHOD_HEAD ? 0 : request->page_bytes;
        c->body_at = 0;
        return;
    case HTTP_PAGE_DISCARD:
        (void)snprintf(body, sizeof(body), "%" PRIu64 "\n", request->body_bytes);
        reply_start_text(c, status_ok, body);
        return;
    case HTTP_PAGE_NONE:
        break;
    }
    CHECK(false);
}

/* Receives at most `len` bytes. HTTP_MOVED may mean none, after a signal. */
static enum http_outcome conn_receive(struct http_conn *c, char *to, size_t len, int flags,
                                      size_t *ret_count)
{
    ssize_t n;

    CHECK(len > 0);
    if (!c->readable) {
        return HTTP_BLOCKED;
    }
    n = recv(c->fd, to, len, flags);
    if (n == 0) {
        return HTTP_DONE;
    }
    if (n < 0 && errno == EINTR) {
        *ret_count = 0;
        return HTTP_MOVED;
    }
    if (n < 0) {
        c->readable = false;
        return errno == EAGAIN ? HTTP_BLOCKED : HTTP_DONE;
    }
    /* A short count has emptied the socket (epoll(7), question 9), which saves a call in every
     * small request; but an end already queued behind these bytes brings no further edge, and
     * where a byte was marked urgent a receive stops early. */
    if ((size_t)n < len && !c->reads_to_end) {
        c->readable = false;
    }
    c->budget -= n;
    *ret_count = (size_t)n;
    return HTTP_MOVED;
}

/* The length of the head at in_start with its empty line, or 0 if it is not whole yet. */
static size_t request_find_end(struct http_conn *c)
{
    bool is_empty = false;

    for (;;) {
        bool is_first = c->in_line == c->in_start;
        size_t len = line_length(c->in + c->in_line, c->in_end - c->in_line, &is_empty);

        if (len == 0) {
            return 0;
        }
        c->in_line += len;
        if (is_empty && is_first) {
            c->in_start = c->in_line; /* RFC 9112 section 2.2: empty lines before a request */
        } else if (is_empty) {
            return c->in_line - c->in_start;
        }
    }
}

static enum http_outcome request_receive(struct http_conn *c)
{
    size_t count = 0;
    enum http_outcome outcome;

    if (c->in_start > 0) {
        memmove(c->in, c->in + c->in_start, c->in_end - c->in_start);
        c->in_line -= c->in_start;
        c->in_end -= c->in_start;
        c->in_start = 0;
    }
    if (c->in_end == sizeof(c->in)) {
        c->request = (struct http_request){.asks_close = true};
        reply_start_refusal(c, status_head_too_large);
        return HTTP_MOVED;
    }
    outcome = conn_receive(c, c->in + c->in_end, sizeof(c->in) - c->in_end, 0, &count);
    c->in_end += count;
    return outcome;
}

/* Decides about a request with a sound head: refuse it, read its body, or answer it. */
static void request_dispatch(struct http_conn *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct http_request *request = &c->request;
    const char *refusal = request_refusal(request);

    c->in_left = request->body_bytes;
    if (refusal != NULL) {
        /* Rather close than read a body for nothing. */
        request->asks_close = request->asks_close || request->body_bytes > 0;
        reply_start_refusal(c, refusal);
    } else if (c->in_left == 0) {
        reply_start_page(c);
    } else if (request->asks_continue && !request->is_http10 && c->in_start == c->in_end) {
        c->out_len = sizeof(go_on) - 1;
        c->out_head = c->out_len;
        memcpy(c->out, go_on, c->out_len);
        c->after_reply = HTTP_STATE_BODY;
        conn_set_state(c, HTTP_STATE_REPLY);
    } else {
        conn_set_state(c, HTTP_STATE_BODY);
    }
}

static enum http_outcome request_step(struct http_conn *c)
{
    size_t len = request_find_end(c);
    const char *refusal;

    if (len == 0) {
        return request_receive(c);
    }
    refusal = request_parse(&c->request, c->in + c->in_start, len);
    c->in_start += len;
    if (refusal != NULL) {
        c->request.asks_close = true;
        reply_start_refusal(c, refusal);
    } else {
        request_dispatch(c);
    }
    return HTTP_MOVED;
}

/* Takes the body first from what came with the head, then from the socket. */
static enum http_outcome body_step(struct http_conn *c)
{
    size_t count = c->in_end - c->in_start;
    enum http_outcome outcome = HTTP_MOVED;

    if (count > 0) {
        count = count < c->in_left ? count : (size_t)c->in_left;
        c->in_start += count;
        c->in_line = c->in_start;
    } else {
        size_t len = c->in_left < SCRATCH_BYTES ? (size_t)c->in_left : SCRATCH_BYTES;
        /* TCP drops the bytes without a copy under MSG_TRUNC; other sockets copy them. */
        outcome = conn_receive(c, scratch, len, MSG_TRUNC, &count);
    }
    c->in_left -= count;
    if (c->in_left == 0) {
        reply_start_page(c);
    }
    return outcome;
}

/* close() on unread bytes sends a RST, which can destroy the reply on its way to the client. */
static void linger_start(struct http_conn *c)
{
    (void)shutdown(c->fd, SHUT_WR); /* if it fails the connection is gone, and receiving tells */
    c->in_left = LINGER_BYTES_MAX;
}

static enum http_outcome linger_step(struct http_conn *c)
{
    size_t count = 0;
    enum http_outcome outcome = conn_receive(c, scratch, SCRATCH_BYTES, MSG_TRUNC, &count);

    if (count >= c->in_left) {
        return HTTP_DONE;
    }
    c->in_left -= count;
    return outcome;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void reply_count_sent(struct http_conn *c, size_t sent)
{
    size_t from_out = min_size(sent, c->out_len - c->out_sent);
    size_t from_head = c->out_sent < c->out_head ? min_size(sent, c->out_head - c->out_sent) : 0;
    size_t from_pattern = sent - from_out;

    CHECK(from_pattern <= c->body_left);
    c->out_sent += from_out;
    c->body_left -= from_pattern;
    c->body_at = (c->body_at + from_pattern) % PATTERN_BYTES;
    tally_add(TALLY_HTTP_BODY_SENT, sent - from_head);
}

/* One call carries the head and a whole period of the pattern, from any offset in it. */
static ssize_t reply_send(struct http_conn *c, size_t from_pattern)
{
    struct iovec parts[3] = {{c->out + c->out_sent, c->out_len - c->out_sent}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};

    if (from_pattern == 0) {
        return send(c->fd, c->out + c->out_sent, c->out_len - c->out_sent, MSG_NOSIGNAL);
    }
    pattern_parts(c->body_at, from_pattern, parts + 1);
    return sendmsg(c->fd, &message, MSG_NOSIGNAL);
}

static enum http_outcome reply_move(struct http_conn *c)
{
    size_t from_pattern = c->body_left < PATTERN_BYTES ? (size_t)c->body_left : PATTERN_BYTES;
    size_t len = c->out_len - c->out_sent + from_pattern;
    ssize_t n;

    if (!c->writable) {
        return HTTP_BLOCKED;
    }
    n = reply_send(c, from_pattern);
    if (n < 0 && errno == EINTR) {
        return HTTP_MOVED;
    }
    if (n < 0) {
        c->writable = false;
        return errno == EAGAIN ? HTTP_BLOCKED : HTTP_DONE;
    }
    if ((size_t)n < len) {
        c->writable = false; /* a short count has filled the socket: an edge will follow */
    }
    c->budget -= n;
    reply_count_sent(c, (size_t)n);
    return HTTP_MOVED;
}

static enum http_outcome reply_step(struct http_conn *c)
{
    enum http_outcome outcome = reply_move(c);

    if (outcome == HTTP_MOVED && c->out_sent == c->out_len && c->body_left == 0) {
        c->out_sent = 0;
        c->out_len = 0;
        if (c->after_reply != HTTP_STATE_BODY) { /* which is no answer, but the wish to have more */
            tally_add(TALLY_REQUESTS, 1);
        }
        conn_set_state(c, c->after_reply);
        if (c->state == HTTP_STATE_LINGER) {
            linger_start(c);
        }
    }
    return outcome;
}

static enum http_outcome conn_step(struct http_conn *c)
{
    switch (c->state) {
    case HTTP_STATE_REQUEST:
        return request_step(c);
    case HTTP_STATE_BODY:
        return body_step(c);
    case HTTP_STATE_REPLY:
        return reply_step(c);
    case HTTP_STATE_LINGER:
        return linger_step(c);
    }
    CHECK(false);
}

enum http_outcome http_conn_turn(struct http_conn *c)
{
    for (c->budget = TURN_BYTES; c->budget > 0; c->budget -= STEP_COST_BYTES) {
        enum http_outcome outcome = conn_step(c);
        if (outcome != HTTP_MOVED) {
            return outcome;
        }
    }
    return HTTP_MOVED;
}

void http_conn_note_events(struct http_conn *c, uint32_t events)
{
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) {
        c->reads_to_end = true;
        c->readable = true;
    }
    if (events & EPOLLIN) {
        c->readable = true;
    }
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) {
        c->writable = true;
    }
}

bool http_conn_lingers(const struct http_conn *c)
{
    return c->state == HTTP_STATE_LINGER;
}

void http_conn_init(struct http_conn *c, int fd)
{
    CHECK(fd >= 0);
    memset(c, 0,
           offsetof(struct http_conn, out)); /* the buffers need none, and would touch pages */
    c->fd = fd;
    c->state = HTTP_STATE_REQUEST;
    c->writable = true;
}
