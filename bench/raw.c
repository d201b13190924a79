/*
 * raw: echo, sink and source, at as few system calls and as little memory as they can have.
 *
 * The origin of a benchmark shares a processor with the load and, on a small machine, with the
 * forwarder that is measured: what it costs is taken from the others. So
 *
 *   drop     sink and source receive with MSG_TRUNC: TCP drops the bytes without copying them
 *            (tcp(7)); a unix socket ignores the flag and copies, to a place where nobody looks.
 *   send     the source sends the pattern from where it is, a period in each call.
 *   ask once a receive that got less than it asked for has emptied a TCP socket (epoll(7), question
 *            9), so the one that would say EAGAIN is left out, and a small message costs an echo
 *            one recv and one send. That is wrong when an end or an error waits behind the bytes
 *            (it brings no edge of its own any more), and where a byte was marked urgent (a receive
 *            stops there): after such an event, and on unix sockets, where a passed descriptor
 *            stops it too, every turn reads until EAGAIN or the end.
 *   no room  received bytes pass through one scratch buffer of the process. Only an echo whose peer
 *            does not take them back at once gets memory, of just the size of the rest.
 *
 * Invariants:
 *   R1  An echo that holds bytes does not receive: it holds one receive (64 KiB) at most, and a
 *       peer that does not read is not read from.
 *   R2  An end is seen by receiving, so an echo that sees it holds nothing: RAW_DONE is a clean
 *       end. An echo that loses bytes, for want of memory, resets the connection.
 *   R3  A turn ends only for want of readiness, at the end, or after TURN_STEPS.
 *
 * What it does not do: time limits. A peer that ends but never reads keeps its echo.
 */
#include "raw.h"

#include "check.h"
#include "pattern.h"
#include "tally.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define DROP_BYTES (1024 * 1024) /* one receive of bytes that nobody wants */
#define ECHO_BYTES (64 * 1024)
#define TURN_STEPS 4 /* each moves at most one of the above, and a period of the pattern */

static_assert(sizeof(struct raw_conn) <= 24, "tens of thousands of these are open at a time");

/* What an echo could not send yet. */
struct raw_held {
    size_t sent; /* bytes[sent .. len) is left */
    size_t len;
    char bytes[];
};

/* Its pages become memory when something is copied there: of TCP, only what an echo receives. */
static char scratch[DROP_BYTES];

/* Receives at most `len` bytes. RAW_MOVED may mean none, after a signal. */
static enum raw_outcome raw_receive(struct raw_conn *c, size_t len, int flags, size_t *ret_count)
{
    ssize_t n;

    CHECK(len <= sizeof(scratch));
    if (!c->readable) {
        return RAW_BLOCKED;
    }
    n = recv(c->fd, scratch, len, flags);
    if (n == 0) {
        return RAW_DONE;
    }
    if (n < 0) {
        if (errno == EINTR) {
            return RAW_MOVED;
        }
        c->readable = false;
        return errno == EAGAIN ? RAW_BLOCKED : RAW_DONE;
    }
    if ((size_t)n < len && !c->reads_to_end) {
        c->readable = false;
    }
    tally_add(TALLY_RAW_RECEIVED, (uint64_t)n);
    *ret_count = (size_t)n;
    return RAW_MOVED;
}

/* Sends one or two pieces. RAW_MOVED may mean none, after a signal. */
static enum raw_outcome raw_send(struct raw_conn *c, struct iovec parts[2], size_t *ret_sent)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t n;

    if (!c->writable) {
        return RAW_BLOCKED;
    }
    if (parts[1].iov_len == 0) {
        n = send(c->fd, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL);
    } else {
        n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
    }
    if (n < 0) {
        if (errno == EINTR) {
            return RAW_MOVED;
        }
        c->writable = false;
        return errno == EAGAIN ? RAW_BLOCKED : RAW_DONE;
    }
    if ((size_t)n < parts[0].iov_len + parts[1].iov_len) {
        c->writable = false; /* a short count has filled the socket: an edge will follow */
    }
    tally_add(TALLY_RAW_SENT, (uint64_t)n);
    *ret_sent = (size_t)n;
    return RAW_MOVED;
}

/* Keeps a copy of `len` bytes. RAW_DONE, as a reset, if there is no memory for them. */
static enum raw_outcome echo_hold(struct raw_conn *c, const char *bytes, size_t len)
{
    static const struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    CHECK(c->held == NULL);
    c->held = malloc(sizeof(*c->held) + len);
    if (c->held == NULL) {
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        return RAW_DONE;
    }
    c->held->sent = 0;
    c->held->len = len;
    memcpy(c->held->bytes, bytes, len);
    return RAW_MOVED;
}

static enum raw_outcome echo_send_held(struct raw_conn *c)
{
    struct raw_held *held = c->held;
    struct iovec rest[2] = {{held->bytes + held->sent, held->len - held->sent}};
    size_t sent = 0;
    enum raw_outcome outcome = raw_send(c, rest, &sent);

    held->sent += sent;
    if (held->sent == held->len) {
        free(held);
        c->held = NULL;
    }
    return outcome;
}

static enum raw_outcome echo_step(struct raw_conn *c)
{
    size_t count = 0;
    size_t sent = 0;
    enum raw_outcome outcome;

    if (c->held != NULL) {
        return echo_send_held(c);
    }
    outcome = raw_receive(c, ECHO_BYTES, 0, &count);
    if (count > 0) {
        struct iovec all[2] = {{scratch, count}};
        outcome = raw_send(c, all, &sent);
    }
    if (sent < count && outcome != RAW_DONE) {
        outcome = echo_hold(c, scratch + sent, count - sent);
    }
    return outcome;
}

static enum raw_outcome sink_step(struct raw_conn *c)
{
    size_t count = 0;

    return raw_receive(c, DROP_BYTES, MSG_TRUNC, &count);
}

static enum raw_outcome source_step(struct raw_conn *c)
{
    enum raw_outcome dropped = sink_step(c);
    enum raw_outcome outcome = dropped;
    struct iovec parts[2];
    size_t sent = 0;

    if (dropped != RAW_DONE) {
        pattern_parts(c->pattern_at, PATTERN_BYTES, parts);
        outcome = raw_send(c, parts, &sent);
        c->pattern_at = (uint32_t)((c->pattern_at + sent) % PATTERN_BYTES);
    }
    return outcome == RAW_BLOCKED ? dropped : outcome;
}

static enum raw_outcome raw_step(struct raw_conn *c)
{
    switch (c->service) {
    case RAW_ECHO:
        return echo_step(c);
    case RAW_SINK:
        return sink_step(c);
    case RAW_SOURCE:
        return source_step(c);
    }
    CHECK(false);
}

enum raw_outcome raw_conn_turn(struct raw_conn *c)
{
    enum raw_outcome outcome = RAW_MOVED;

    for (int i = 0; i < TURN_STEPS && outcome == RAW_MOVED; i++) {
        outcome = raw_step(c);
    }
    return outcome;
}

void raw_conn_note_events(struct raw_conn *c, uint32_t events)
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

void raw_conn_init(struct raw_conn *c, enum raw_service service, int fd, bool is_tcp)
{
    CHECK(fd >= 0);
    *c = (struct raw_conn){.fd = fd, .service = service, .writable = true};
    c->reads_to_end = !is_tcp;
}

void raw_conn_end(struct raw_conn *c)
{
    free(c->held);
    c->held = NULL;
}
