/* The kernel reports what it likes of a reset, so an end is judged here, once, in note_end():
 *
 *   recv says 0, the other side's FIN is behind the last byte received   FIN
 *   recv says 0, anything else, TCP                                      wrong: a truncated stream
 *   recv says 0, anything else, unix                                     reset: unix has no other
 *   recv or send says ECONNRESET or EPIPE, or connect fails              reset
 *
 * A send that fails takes the error off the socket, and the next recv says 0; hence send_failed.
 *
 * epoll is level-triggered here and an end that does not read is taken out of it: the load must not
 * share the bugs it looks for. */
#include "soak/wire.h"

#include "support/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 64 * 1024, ROUNDS_MAX = 4 };

static const uint64_t header_secret = UINT64_C(0x736f616b20746573);

uint64_t wire_now_us(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void wire_header_make(unsigned char header[WIRE_HEADER_BYTES], uint64_t id)
{
    uint64_t state = id ^ header_secret;
    uint64_t proof = random_next(&state);

    memcpy(header, &id, sizeof(id));
    memcpy(header + sizeof(id), &proof, sizeof(proof));
}

uint64_t wire_header_read(const unsigned char header[WIRE_HEADER_BYTES])
{
    unsigned char expected[WIRE_HEADER_BYTES];
    uint64_t id;

    memcpy(&id, header, sizeof(id));
    wire_header_make(expected, id);
    return memcmp(header, expected, sizeof(expected)) == 0 ? id : 0;
}

struct wire_addr wire_addr_parse(const char *text)
{
    struct wire_addr addr = {.len = 0};
    const char *colon = strrchr(text, ':');
    char host[64] = "";

    if (strncmp(text, "unix:", 5) == 0 && strlen(text + 5) < sizeof(addr.u.local.sun_path)) {
        addr.u.local.sun_family = AF_UNIX;
        strcpy(addr.u.local.sun_path, text + 5);
        addr.len = sizeof(addr.u.local);
        return addr;
    }
    if (colon != NULL && (size_t)(colon - text) < sizeof(host)) {
        size_t skip = text[0] == '[';

        memcpy(host, text + skip, (size_t)(colon - text) - 2 * skip);
        if (skip != 0 && inet_pton(AF_INET6, host, &addr.u.v6.sin6_addr) == 1) {
            addr.u.v6.sin6_family = AF_INET6;
            addr.u.v6.sin6_port = htons((uint16_t)atoi(colon + 1));
            addr.len = sizeof(addr.u.v6);
        } else if (skip == 0 && inet_pton(AF_INET, host, &addr.u.v4.sin_addr) == 1) {
            addr.u.v4.sin_family = AF_INET;
            addr.u.v4.sin_port = htons((uint16_t)atoi(colon + 1));
            addr.len = sizeof(addr.u.v4);
        }
    }
    if (addr.len == 0) {
        (void)fprintf(stderr, "load: bad address '%s'\n", text);
        exit(2);
    }
    return addr;
}

static void describe(const struct wire_addr *addr, char text[WIRE_TEXT_BYTES])
{
    char host[64];

    (void)strcpy(text, "-");
    if (addr->u.any.sa_family == AF_INET) {
        (void)inet_ntop(AF_INET, &addr->u.v4.sin_addr, host, sizeof(host));
        (void)snprintf(text, WIRE_TEXT_BYTES, "%s:%u", host, ntohs(addr->u.v4.sin_port));
    } else if (addr->u.any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &addr->u.v6.sin6_addr, host, sizeof(host));
        (void)snprintf(text, WIRE_TEXT_BYTES, "[%s]:%u", host, ntohs(addr->u.v6.sin6_port));
    }
}

static void set_option(int fd, int level, int option, int value)
{
    (void)setsockopt(fd, level, option, &value, sizeof(value));
}

int wire_listen(const struct wire_addr *addr)
{
    int fd = socket(addr->u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        return -1;
    }
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (addr->u.any.sa_family == AF_UNIX) {
        (void)unlink(addr->u.local.sun_path);
    }
    if (bind(fd, &addr->u.any, addr->len) < 0 || listen(fd, 4096) < 0) {
        int error = errno;

        (void)close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static void begin(struct end *end, int fd, bool is_unix)
{
    end->fd = fd;
    end->is_unix = is_unix;
    end->reads = true;
    end->moved_us = wire_now_us();
    if (!is_unix) {
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    }
}

void wire_shrink(struct end *end, int receive_buffer_bytes)
{
    set_option(end->fd, SOL_SOCKET, SO_RCVBUF, receive_buffer_bytes);
}

int wire_connect(struct end *end, const struct wire_addr *addr, int receive_buffer_bytes)
{
    struct wire_addr own = {.len = sizeof(own.u)};
    int fd = socket(addr->u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        return errno;
    }
    begin(end, fd, addr->u.any.sa_family == AF_UNIX);
    if (receive_buffer_bytes > 0) {
        wire_shrink(end,
                    receive_buffer_bytes); /* before connect: the window's scale is agreed then */
    }
    if (connect(fd, &addr->u.any, addr->len) < 0 && errno != EINPROGRESS) {
        int error = errno;

        (void)close(fd);
        end->fd = -1;
        return error;
    }
    (void)getsockname(fd, &own.u.any, &own.len);
    describe(&own, end->text);
    end->connecting = true;
    return 0;
}

void wire_adopt(struct end *end, int fd, bool is_unix)
{
    struct wire_addr other = {.len = sizeof(other.u)};

    begin(end, fd, is_unix);
    (void)getpeername(fd, &other.u.any, &other.len);
    describe(&other, end->text);
}

bool wire_is_over(const struct end *end)
{
    return end->seen != SEEN_NOTHING && (end->fin_sent || end->seen != SEEN_FIN);
}

void wire_close(struct end *end)
{
    if (end->fd >= 0) {
        (void)close(end->fd); /* also takes it out of epoll */
        end->fd = -1;
        end->interest = 0;
    }
}

void wire_reset(struct end *end)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    if (end->fd >= 0) {
        (void)setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    }
    end->seen = SEEN_LOCAL;
    end->moved_us = wire_now_us();
    wire_close(end);
}

static void note_wrong(struct end *end, const char *what)
{
    if (end->wrong == NULL) {
        end->wrong = what;
    }
}

static void note_end(struct end *end, bool said_fin)
{
    const struct end *peer = end->peer;
    bool complete = peer != NULL && peer->fin_sent && end->received == peer->sent;

    if (end->seen != SEEN_NOTHING) {
        return;
    }
    if (said_fin && !end->send_failed && (complete || !end->is_unix)) {
        end->seen = SEEN_FIN;
        if (!complete) {
            note_wrong(end, "fin-before-the-end");
        }
        return;
    }
    end->seen = SEEN_RESET;
}

/* What has come before the reset is still to be read and checked. */
static void note_send_failed(struct end *end)
{
    end->send_failed = true;
    end->reads = true;
    if (end->seen == SEEN_FIN) {
        end->seen = SEEN_RESET;
    }
}

/* The bytes [sent, sent + len) that this end sends. */
static void fill(const struct end *end, unsigned char *bytes, size_t len)
{
    stream_fill(end->send_key, end->sent, bytes, len);
    for (size_t i = 0; end->sends_header && i < len && end->sent + i < WIRE_HEADER_BYTES; i++) {
        bytes[i] = end->header[end->sent + i];
    }
}

static bool may_send(const struct end *end, uint64_t now_us)
{
    return end->sent < end->send_limit && !end->send_failed && end->seen <= SEEN_FIN &&
           now_us >= end->next_send_us;
}

static bool send_some(struct end *end, uint64_t now_us)
{
    static unsigned char bytes[BUFFER_BYTES];
    bool moved = false;

    for (int round = 0; round < ROUNDS_MAX && may_send(end, now_us); round++) {
        uint64_t left = end->send_limit - end->sent;
        size_t len = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
        ssize_t result;

        if (end->send_chunk > 0 && len > end->send_chunk) {
            len = end->send_chunk;
        }
        fill(end, bytes, len);
        result = send(end->fd, bytes, len, MSG_NOSIGNAL);
        if (result < 0) {
            if (errno != EAGAIN) {
                note_send_failed(end);
            }
            break;
        }
        end->sent += (uint64_t)result;
        end->next_send_us = end->send_gap_us > 0 ? now_us + end->send_gap_us : 0;
        moved = true;
    }
    if (end->fin_wanted && !end->fin_sent && end->sent == end->send_limit && !end->send_failed) {
        end->fin_sent = shutdown(end->fd, SHUT_WR) == 0;
        if (!end->fin_sent) {
            note_send_failed(end);
        }
        moved = true;
    }
    return moved;
}

/* A server end learns from the header whose it is; until then it takes nothing more. */
static size_t receive_bytes_max(const struct end *end)
{
    if (end->owner == NULL) {
        return WIRE_HEADER_BYTES - end->received;
    }
    return end->receive_chunk > 0 ? end->receive_chunk : BUFFER_BYTES;
}

static void check(struct end *end, const unsigned char *bytes, size_t len)
{
    if (end->owner == NULL) {
        memcpy(end->header + end->received, bytes, len);
    } else if (stream_mismatch(end->receive_key, end->received, bytes, len) < len) {
        note_wrong(end, "foreign-byte");
    }
    end->received += len;
    if (end->peer != NULL && end->received > end->peer->sent) {
        note_wrong(end, "more-than-was-sent");
    }
}

static bool receive_some(struct end *end, uint64_t now_us)
{
    static unsigned char bytes[BUFFER_BYTES];
    bool moved = false;

    for (int round = 0;
         round < ROUNDS_MAX && end->reads && end->seen == SEEN_NOTHING &&
         (end->send_failed || now_us >= end->next_receive_us) && receive_bytes_max(end) > 0;
         round++) {
        ssize_t result = recv(end->fd, bytes, receive_bytes_max(end), 0);

        if (result < 0 && errno == EAGAIN && !end->send_failed) {
            break;
        }
        moved = true;
        if (result <= 0) {
            note_end(end, result == 0);
            break;
        }
        check(end, bytes, (size_t)result);
        end->next_receive_us = end->receive_gap_us > 0 ? now_us + end->receive_gap_us : 0;
    }
    return moved;
}

/* False while the handshake is on its way. */
static bool is_connected(struct end *end)
{
    struct wire_addr other = {.len = sizeof(other.u)};
    socklen_t len = sizeof(int);
    int error = 0;

    if (!end->connecting) {
        return true;
    }
    (void)getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    if (error == 0 && getpeername(end->fd, &other.u.any, &other.len) < 0) {
        return false;
    }
    end->connecting = false;
    if (error != 0) {
        note_send_failed(end);
        note_end(end, false);
    }
    return true;
}

bool wire_run(struct end *end, uint64_t now_us)
{
    bool moved = false;

    if (end->fd >= 0 && is_connected(end)) {
        moved = send_some(end, now_us);
        moved = receive_some(end, now_us) || moved;
    }
    if (moved) {
        end->moved_us = now_us;
    }
    if (end->fd >= 0 && wire_is_over(end)) {
        wire_close(end);
    }
    wire_wait(end, now_us);
    return moved;
}

void wire_wait(struct end *end, uint64_t now_us)
{
    struct epoll_event event = {.data.ptr = end};
    bool reads = end->reads && end->seen == SEEN_NOTHING && receive_bytes_max(end) > 0 &&
                 now_us >= end->next_receive_us;

    if (end->fd < 0) {
        return;
    }
    event.events = reads && !end->connecting ? EPOLLIN : 0;
    if (end->connecting || may_send(end, now_us)) {
        event.events |= EPOLLOUT;
    }
    if (event.events == end->interest) {
        return;
    }
    if (event.events == 0) {
        (void)epoll_ctl(end->epoll_fd, EPOLL_CTL_DEL, end->fd, NULL);
    } else {
        int what = end->interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

        (void)epoll_ctl(end->epoll_fd, what, end->fd, &event);
    }
    end->interest = event.events;
}
