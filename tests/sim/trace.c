/* Plays a trace: see trace.h. The same code for both kernels. */
#include "sim/trace.h"

#include "base/check.h"
#include "base/macros.h"
#include "support/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

enum { BYTES_MAX = 64 * 1024 };

static unsigned char bytes[BYTES_MAX];

static void note(struct traced *t, const char *format, ...) PRINTF_LIKE(2, 3);

static void note(struct traced *t, const char *format, ...)
{
    va_list values;
    int len;

    va_start(values, format);
    len = vsnprintf(t->text + t->text_len, sizeof(t->text) - t->text_len, format, values);
    va_end(values);
    CHECK(len >= 0);
    CHECK((size_t)len < sizeof(t->text) - t->text_len);
    t->text_len += (size_t)len;
}

static void note_result(struct traced *t, long result)
{
    if (result < 0) {
        note(t, "%s", strerrorname_np((int)-result));
    } else {
        note(t, "%ld", result);
    }
}

static void note_bits(struct traced *t, uint32_t events)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {{EPOLLIN, "IN"},   {EPOLLOUT, "OUT"}, {EPOLLRDHUP, "RDHUP"},
                 {EPOLLHUP, "HUP"}, {EPOLLERR, "ERR"}, {EPOLLPRI, "PRI"}};
    const char *between = "";

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if ((events & names[i].bit) != 0) {
            note(t, "%s%s", between, names[i].name);
            between = "|";
        }
    }
    if (*between == '\0') {
        note(t, "-");
    }
}

/* --- how a connection comes about --- */

static void arrive(struct traced *t, int argument)
{
    (void)argument;
    note_result(t, t->kernel->arrive(t));
    t->has_peer = true;
}

static void accept_one(struct traced *t, int argument)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    int fd = t->kernel->calls.accept(t->listener_fd, (struct sockaddr *)&address, &len);

    (void)argument;
    note_result(t, fd < 0 ? fd : 0);
    if (fd >= 0 && t->fd < 0) {
        t->fd = fd;
        t->connected = true;
    } else if (fd >= 0) {
        t->extra_fds[t->extra_len++] = fd;
    }
}

static void set_linger(struct traced *t, int on)
{
    struct linger linger = {.l_onoff = on, .l_linger = 0};

    note_result(t,
                t->kernel->calls.set_option(t->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
}

static void make_socket(struct traced *t, int argument)
{
    (void)argument;
    t->fd = t->kernel->calls.socket(AF_INET);
    set_linger(t, t->linger);
}

static void connect_to(struct traced *t, bool listening)
{
    struct sockaddr_in address;

    if (t->fd < 0) {
        make_socket(t, 0);
        note(t, "+");
    }
    address = t->kernel->target(t, listening);
    note_result(
        t, t->kernel->calls.connect(t->fd, (struct sockaddr *)(void *)&address, sizeof(address)));
    t->kernel->connecting(t, listening);
    t->connected = true;
    t->has_peer = listening;
}

static void connect_well(struct traced *t, int argument)
{
    (void)argument;
    connect_to(t, true);
}

static void connect_refused(struct traced *t, int argument)
{
    (void)argument;
    connect_to(t, false);
}

/* --- events --- */

static void add(struct traced *t, int fd, int *data)
{
    uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET; /* as loop.c does */

    note_result(t, t->kernel->calls.epoll_add(t->epoll_fd, fd, events, data));
}

static void add_socket(struct traced *t, int argument)
{
    (void)argument;
    add(t, t->fd, &t->fd);
}

static void add_listener(struct traced *t, int argument)
{
    (void)argument;
    add(t, t->listener_fd, &t->listener_fd);
}

/* In which order two descriptors are told is nobody's promise (the model chooses by seed): the
 * listener is written first. */
static void wait_for_events(struct traced *t, int argument)
{
    struct epoll_event events[8];
    int *order[] = {&t->listener_fd, &t->fd};
    int count = 0;
    int more;

    (void)argument;
    /* The model may spread a batch over several waits, as a small events_max would. */
    while ((more = t->kernel->calls.epoll_wait(t->epoll_fd, events + count, 8 - count, 0)) > 0) {
        count += more;
        CHECK(count < 8);
    }
    if (count == 0) {
        note(t, "nothing");
    }
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        for (int j = 0; j < count; j++) {
            if (events[j].data.ptr == order[i]) {
                note(t, "%s", i == 0 ? "listener:" : "");
                note_bits(t, events[j].events);
                note(t, "%s", j + 1 < count ? "," : "");
            }
        }
    }
}

/* poll(2) is asked for IN and OUT alone. */
static void look(struct traced *t, int argument)
{
    struct look look;

    (void)argument;
    t->kernel->calls.look(t->fd, &look);
    note_bits(t, look.events & (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP));
    note(t, "+%d+%s", look.readable_bytes, look.unacked_bytes > 0 ? "some" : "0");
}

/* --- bytes --- */

static void receive(struct traced *t, int len)
{
    ssize_t result = t->kernel->calls.recv(t->fd, bytes, (size_t)len);

    note_result(t, (long)result);
    if (result > 0) {
        size_t count = (size_t)result;

        note(t, stream_mismatch(KEY_PEERS, t->received, bytes, count) != count ? "+foreign" : "");
        t->received += count;
    }
}

static long send_once(struct traced *t, size_t len)
{
    ssize_t result;

    stream_fill(KEY_OURS, t->sent, bytes, len);
    result = t->kernel->calls.send(t->fd, bytes, len, false);
    t->sent += result > 0 ? (uint64_t)result : 0;
    return (long)result;
}

static void send_bytes(struct traced *t, int len)
{
    note_result(t, send_once(t, (size_t)len));
}

/* How much fits depends on buffers, and is not noted; only how it ends. Neither is what epoll tells
 * meanwhile: whether there was room again in between is a matter of buffers, too. */
static void fill(struct traced *t, int argument)
{
    struct epoll_event ignored;
    long result;
    bool more;

    (void)argument;
    t->filled = true;
    do {
        more = false;
        while ((result = send_once(t, 16 * 1024)) > 0) {
            more = true;
        }
        t->kernel->settle(t);
    } while (more);
    while (t->kernel->calls.epoll_wait(t->epoll_fd, &ignored, 1, 0) > 0) {}
    note_result(t, result);
}

static void shut(struct traced *t, int argument)
{
    (void)argument;
    note_result(t, t->kernel->calls.shutdown_write(t->fd));
}

static void close_socket(struct traced *t, int argument)
{
    (void)argument;
    t->kernel->calls.close(t->fd);
    t->fd = -1;
    note(t, "0");
}

static void splice_in(struct traced *t, int len)
{
    ssize_t result = t->kernel->calls.splice(t->fd, t->pipe[1], (size_t)len);

    t->received += result > 0 ? (uint64_t)result : 0;
    note_result(t, (long)result);
}

static void splice_out(struct traced *t, int len)
{
    if (t->kernel->calls.readable_bytes(t->pipe[0]) <= 0) {
        note(t, "empty"); /* sluice never asks, and the model takes it for a mistake */
        return;
    }
    note_result(t, (long)t->kernel->calls.splice(t->pipe[0], t->fd, (size_t)len));
}

static void read_pipe(struct traced *t, int len)
{
    note_result(t, (long)t->kernel->calls.read(t->pipe[0], bytes, (size_t)len));
}

static void set_slots(struct traced *t, int slots)
{
    note_result(t, t->kernel->slots(t, slots));
}

static void held(struct traced *t, int argument)
{
    (void)argument;
    note_result(t, t->kernel->calls.readable_bytes(t->pipe[0]));
}

/* --- questions --- */

static void error(struct traced *t, int argument)
{
    int value = 0;
    socklen_t len = sizeof(value);
    int result = t->kernel->calls.get_option(t->fd, SOL_SOCKET, SO_ERROR, &value, &len);

    (void)argument;
    note_result(t, result < 0 ? result : -value);
}

/* How many depends on buffers; whether there are any does not. */
static void unacked(struct traced *t, int argument)
{
    int count = t->kernel->calls.unacknowledged(t->fd);

    (void)argument;
    note(t, count > 0 ? "some" : "0");
}

static void readable(struct traced *t, int argument)
{
    (void)argument;
    note_result(t, t->kernel->calls.readable_bytes(t->fd));
}

/* --- the peer --- */

static void peer_send(struct traced *t, int len)
{
    note_result(t, t->kernel->send(t, (size_t)len));
}

static void peer_send_urgent(struct traced *t, int argument)
{
    (void)argument;
    note_result(t, t->kernel->send_urgent(t));
}

/* Our kernel gives the peer up. */
static void peer_lost(struct traced *t, int argument)
{
    (void)argument;
    t->kernel->lose(t);
    note(t, "0");
}

/* After `fill` reading lets more bytes come, so it goes on until all are there. */
static void peer_take(struct traced *t, int argument)
{
    long total = 0;
    long count;
    int end;

    (void)argument;
    do {
        count = t->kernel->take(t, &end);
        t->kernel->settle(t);
        total += count;
    } while (t->filled && count > 0 && end == -EAGAIN);
    if (t->filled) {
        note(t, total > 0 ? "many+" : "0+");
        t->filled = t->fd >= 0 && t->kernel->calls.unacknowledged(t->fd) > 0;
    } else {
        note(t, "%ld+", total);
    }
    if (end == 0) {
        note(t, "FIN");
    } else {
        note_result(t, end);
    }
}

static void peer_fin(struct traced *t, int argument)
{
    (void)argument;
    note_result(t, t->kernel->fin(t));
}

static void peer_reset(struct traced *t, int argument)
{
    (void)argument;
    note_result(t, t->kernel->reset(t));
    t->has_peer = false;
}

static void peer_close(struct traced *t, int argument)
{
    (void)argument;
    note_result(t, t->kernel->close(t));
    t->has_peer = false;
}

/* --- the words --- */

/* What must be there for a word to mean anything. */
enum needs { NOTHING, SOCKET, CONNECTION, PEER };

static const struct {
    const char *name;
    void (*play)(struct traced *t, int argument);
    enum needs needs;
    bool sends_packets;
} words[] = {
    {"arrive", arrive, NOTHING, true},
    {"accept", accept_one, NOTHING, false},
    {"socket", make_socket, NOTHING, false},
    {"connect", connect_well, NOTHING, true},
    {"refused", connect_refused, NOTHING, true},
    {"add", add_socket, SOCKET, false},
    {"addl", add_listener, NOTHING, false},
    {"wait", wait_for_events, NOTHING, false},
    {"look", look, SOCKET, false},
    {"recv", receive, CONNECTION, false},
    {"send", send_bytes, CONNECTION, true},
    {"fill", fill, CONNECTION, true},
    {"shut", shut, CONNECTION, true},
    {"linger", set_linger, SOCKET, false},
    {"close", close_socket, CONNECTION, true},
    {"in", splice_in, CONNECTION, false},
    {"out", splice_out, CONNECTION, true},
    {"read", read_pipe, NOTHING, false},
    {"slots", set_slots, NOTHING, false},
    {"held", held, NOTHING, false},
    {"error", error, CONNECTION, false},
    {"unacked", unacked, CONNECTION, false},
    {"readable", readable, CONNECTION, false},
    {"psend", peer_send, PEER, true},
    {"purge", peer_send_urgent, PEER, true},
    {"plost", peer_lost, CONNECTION, true},
    {"ptake", peer_take, PEER, true},
    {"pfin", peer_fin, PEER, true},
    {"preset", peer_reset, PEER, true},
    {"pclose", peer_close, PEER, true},
};

static bool is_there(const struct traced *t, enum needs needs)
{
    switch (needs) {
    case NOTHING:
        return true;
    case SOCKET:
        return t->fd >= 0;
    case CONNECTION:
        return t->fd >= 0 && t->connected;
    case PEER:
        return t->has_peer;
    }
    return false;
}

/* name, name:number, and either with =answer. */
static void play_word(struct traced *t, const char *word, size_t len)
{
    size_t name_len = strcspn(word, ":= ");
    size_t asked_len = strcspn(word, "= ");
    int argument = name_len < asked_len ? atoi(word + name_len + 1) : 0;
    size_t answer;

    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strlen(words[i].name) == name_len && strncmp(words[i].name, word, name_len) == 0) {
            note(t, "%.*s=", (int)asked_len, word);
            answer = t->text_len;
            if (is_there(t, words[i].needs)) {
                words[i].play(t, argument);
                if (words[i].sends_packets) {
                    t->kernel->settle(t);
                }
            }
            if (asked_len < len &&
                (t->text_len - answer != len - asked_len - 1 ||
                 strncmp(t->text + answer, word + asked_len + 1, len - asked_len - 1) != 0)) {
                t->surprises++;
            }
            note(t, "\n");
            return;
        }
    }
    CHECK(!"a trace has a word that is none");
}

void trace_play(struct traced *t, const struct trace_kernel *kernel, const char *trace)
{
    memset(t, 0, sizeof(*t));
    t->kernel = kernel;
    t->fd = -1;
    t->linger = true; /* as sock.c makes them */
    kernel->begin(t);
    t->epoll_fd = kernel->calls.epoll_create();
    CHECK(kernel->calls.pipe(t->pipe) == 0);
    CHECK(kernel->slots(t, 64) == 64); /* more than a trace can fill, until it says otherwise */
    for (const char *word = trace; *word != '\0'; word += strspn(word, " ")) {
        size_t len = strcspn(word, " ");

        play_word(t, word, len);
        word += len;
    }
    for (size_t i = 0; i < t->extra_len; i++) {
        kernel->calls.close(t->extra_fds[i]);
    }
    if (t->fd >= 0) {
        kernel->calls.close(t->fd);
    }
    kernel->calls.close(t->listener_fd);
    kernel->calls.close(t->pipe[0]);
    kernel->calls.close(t->pipe[1]);
    kernel->calls.close(t->epoll_fd);
    kernel->end(t);
}
