/*
 * load_loop: the connections of the load, their epoll, and what every mode does with them.
 *
 * A load has to cost less than what it measures and must never be what stalls. So there is one
 * thread, one edge-triggered epoll, no allocation after the start, and no timer for each
 * connection: those that wait for their peer are on one list in the order in which they began to
 * wait, and only its head can be too late.
 *
 *   closed --open--> connecting, busy --begin or done--> busy <--begin / done--> resting
 *                          |                               |                        |
 *                          +------- fail or close ---------+------------------------+---> closed
 *
 * An event only sets bits and puts its connection on the run queue; turns are given before the next
 * wait. A connection that is busy owes us a step of its peer, and fails after 10 s without one. A
 * connection that rests has no turns; it fails if its peer ends it.
 *
 * A receive or send that moved less than it was asked for says as much as EAGAIN would, which saves
 * half of the system calls; epoll(7) permits it for streams. The exception is the end: bytes and
 * FIN may have come with one event, and there will not be another. EPOLLRDHUP tells, and then only
 * recv itself can say that the end is reached.
 *
 * Invariants:
 *   I1  A connection off the run queue is not readable and writable, as far as its job needs it,
 *       or has no job: nothing here counts on a second edge.
 *   I2  A connection is busy exactly if it is on `awaiting`, whose order is that of
 *       awaiting_since_ns.
 *   I3  Turns are given only after all events of a wait are noted, so a closed connection, whose
 *       slot may be open again, is never reached by an event of its former socket.
 *
 * What it does not do: decide when to begin what (the modes), messages (load_exchange.c).
 */
#include "load_loop.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_TURN 256

#define CONN_OF(link, member)                                                                      \
    ((struct load_conn *)(void *)((char *)(link)-offsetof(struct load_conn, member)))

int64_t load_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC,
                        &now); /* cannot fail: the clock and the pointer are good */
    return (int64_t)now.tv_sec * LOAD_SECOND_NS + now.tv_nsec;
}

static void link_init(struct load_link *link)
{
    link->prev = link;
    link->next = link;
}

static bool link_is_alone(const struct load_link *link)
{
    return link->next == link;
}

static void link_remove(struct load_link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link_init(link);
}

/* Moves it to the end of the list, wherever it was. */
static void link_append(struct load_link *head, struct load_link *link)
{
    link_remove(link);
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

/* ---- A connection ---------------------------------------------------------------------------- */

bool load_conn_is_busy(const struct load_conn *conn)
{
    return !link_is_alone(&conn->awaiting);
}

void load_conn_touch(struct load_loop *loop, struct load_conn *conn)
{
    conn->awaiting_since_ns = loop->now_ns;
    link_append(&loop->awaiting, &conn->awaiting);
}

void load_conn_begin(struct load_loop *loop, struct load_conn *conn)
{
    if (!load_conn_is_busy(conn)) {
        loop->busy++;
    }
    load_conn_touch(loop, conn);
    link_append(&loop->run, &conn->run);
}

void load_conn_rest(struct load_loop *loop, struct load_conn *conn)
{
    if (load_conn_is_busy(conn)) {
        loop->busy--;
        link_remove(&conn->awaiting);
    }
}

void load_conn_close(struct load_loop *loop, struct load_conn *conn)
{
    load_conn_rest(loop, conn);
    link_remove(&conn->run);
    if (conn->fd >= 0) {
        (void)close(conn->fd); /* also leaves the epoll set: there is no other copy of it */
        conn->fd = -1;
        loop->open--;
    }
}

void load_conn_fail(struct load_loop *loop, struct load_conn *conn, enum load_error_kind kind,
                    const char *what, int error_number)
{
    const struct load_target *target = load_targets_of(&loop->options->targets, conn->number);

    load_errors_note(&loop->errors, kind, what, target->text, error_number);
    load_conn_close(loop, conn);
}

bool load_conn_open(struct load_loop *loop, struct load_conn *conn)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data = {.ptr = conn}};
    bool no_delay = loop->options->mode != LOAD_BULK;
    const char *failed_step = NULL;
    int fd = load_targets_connect(&loop->options->targets, conn->number, no_delay, &failed_step);

    if (fd < 0) {
        load_conn_fail(loop, conn, LOAD_ERROR_CONNECT, failed_step, -fd);
        return false;
    }
    conn->fd = fd;
    conn->connected = false;
    conn->readable = false;
    conn->writable = false;
    conn->ended = false;
    conn->fin_read = false;
    loop->open++;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        load_conn_fail(loop, conn, LOAD_ERROR_CONNECT, "epoll_ctl", errno);
        return false;
    }
    load_conn_begin(loop, conn);
    return true;
}

/* What the kernel holds against this socket: 0 or an errno. */
static int conn_error(const struct load_conn *conn)
{
    int error_number = 0;
    socklen_t size = sizeof(error_number);

    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error_number, &size) != 0) {
        return errno;
    }
    return error_number;
}

/* Whether the connect has succeeded; if it has failed, the connection is closed. */
static bool conn_check_connected(struct load_loop *loop, struct load_conn *conn)
{
    int error_number;

    if (!conn->writable && !conn->ended) {
        return false;
    }
    error_number = conn_error(conn);
    if (error_number != 0) {
        load_conn_fail(loop, conn, LOAD_ERROR_CONNECT, "connect", error_number);
        return false;
    }
    conn->connected = true;
    return true;
}

/* It rests and had an event: if that was its end, it came too early. */
static void conn_check_resting(struct load_loop *loop, struct load_conn *conn)
{
    int error_number = conn->ended ? conn_error(conn) : 0;

    if (error_number != 0) {
        load_conn_fail(loop, conn, LOAD_ERROR_BROKEN, "idle", error_number);
    } else if (conn->ended) {
        load_conn_fail(loop, conn, LOAD_ERROR_EARLY_END, "it ended while it was idle", 0);
    }
}

ssize_t load_conn_send(struct load_loop *loop, struct load_conn *conn, const void *data,
                       size_t size)
{
    ssize_t sent = send(conn->fd, data, size, MSG_NOSIGNAL);

    if (sent >= 0) {
        conn->writable = (size_t)sent == size;
        return sent;
    }
    if (errno == EAGAIN || errno == EINTR) {
        conn->writable = errno == EINTR;
        return 0;
    }
    load_conn_fail(loop, conn, LOAD_ERROR_BROKEN, "send", errno);
    return -1;
}

/* For TCP, MSG_TRUNC drops the bytes in the kernel without copying them, see tcp(7). */
ssize_t load_conn_receive(struct load_loop *loop, struct load_conn *conn, void *buffer, size_t size)
{
    ssize_t received = recv(conn->fd, buffer, size, buffer == NULL ? MSG_TRUNC : 0);

    if (received > 0) {
        conn->readable = (size_t)received == size || conn->ended;
        return received;
    }
    if (received == 0) {
        conn->readable = false;
        conn->fin_read = true;
        return 0;
    }
    if (errno == EAGAIN || errno == EINTR) {
        conn->readable = errno == EINTR;
        return 0;
    }
    load_conn_fail(loop, conn, LOAD_ERROR_BROKEN, "recv", errno);
    return -1;
}

/* ---- A round --------------------------------------------------------------------------------- */

static void conn_take_turn(struct load_loop *loop, struct load_conn *conn)
{
    enum load_outcome outcome;

    if (!conn->connected && !conn_check_connected(loop, conn)) {
        return;
    }
    if (!load_conn_is_busy(conn)) {
        conn_check_resting(loop, conn);
        return;
    }
    outcome = loop->turn(loop, conn);
    if (outcome == LOAD_AGAIN) {
        link_append(&loop->run, &conn->run);
    } else if (outcome == LOAD_DONE) {
        load_conn_rest(loop, conn);
    }
}

/* Those that are on the queue now have a turn; one that asks for another has it in the next
 * round. */
static void run_all(struct load_loop *loop)
{
    struct load_link last;

    link_init(&last);
    link_append(&loop->run, &last);
    while (loop->run.next != &last) {
        struct load_conn *conn = CONN_OF(loop->run.next, run);
        link_remove(&conn->run);
        conn_take_turn(loop, conn);
    }
    link_remove(&last);
}

/* When events wait that nobody has looked at, silence may be ours. */
static void end_silent(struct load_loop *loop)
{
    while (loop->saw_all && !link_is_alone(&loop->awaiting)) {
        struct load_conn *conn = CONN_OF(loop->awaiting.next, awaiting);
        if (conn->awaiting_since_ns + LOAD_SILENCE_NS > loop->now_ns) {
            return;
        }
        load_conn_fail(loop, conn, LOAD_ERROR_SILENT,
                       conn->connected ? "nothing moved for 10 s" : "no connection within 10 s", 0);
    }
}

static void note_event(struct load_loop *loop, const struct epoll_event *event)
{
    struct load_conn *conn = event->data.ptr;
    uint32_t events = event->events;
    struct signalfd_siginfo signal;

    if (conn == NULL) {
        if (read(loop->signal_fd, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
            loop->stops++;
        }
        return;
    }
    conn->writable |= (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0;
    conn->readable |= (events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0;
    conn->ended |= (events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0;
    link_append(&loop->run, &conn->run);
}

void load_loop_turn(struct load_loop *loop, int64_t until_ns)
{
    struct epoll_event events[EVENTS_PER_TURN];
    struct timespec timeout = {0};
    uint32_t busy_before = loop->busy;
    int count;

    run_all(loop);
    end_silent(loop);
    if (link_is_alone(&loop->run) && loop->busy >= busy_before) {
        int64_t now_ns = load_now_ns();
        int64_t limit_ns = now_ns + LOAD_SILENCE_NS;
        if (!link_is_alone(&loop->awaiting)) {
            limit_ns = CONN_OF(loop->awaiting.next, awaiting)->awaiting_since_ns + LOAD_SILENCE_NS;
        }
        if (until_ns < limit_ns) {
            limit_ns = until_ns;
        }
        if (limit_ns > now_ns) {
            timeout.tv_sec = (limit_ns - now_ns) / LOAD_SECOND_NS;
            timeout.tv_nsec = (limit_ns - now_ns) % LOAD_SECOND_NS;
        }
    }
    count = epoll_pwait2(loop->epoll_fd, events, EVENTS_PER_TURN, &timeout, NULL);
    if (count < 0 && errno != EINTR) {
        fprintf(stderr, "load: epoll_pwait2: %s; Linux 5.11 is the first that has it\n",
                strerror(errno));
        exit(1); /* nothing can be waited for, so nothing can be measured */
    }
    loop->now_ns = load_now_ns();
    loop->saw_all = count < EVENTS_PER_TURN;
    for (int i = 0; i < count; i++) {
        note_event(loop, &events[i]);
    }
}

/* ---- Beginning and end ----------------------------------------------------------------------- */

/* Every connection is a descriptor: take what the administrator lets us have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* without it some connect will say EMFILE */
    }
}

static bool loop_open(struct load_loop *loop)
{
    struct epoll_event event = {.events = EPOLLIN};
    sigset_t stop_signals;

    (void)sigemptyset(&stop_signals);
    (void)sigaddset(&stop_signals, SIGTERM);
    (void)sigaddset(&stop_signals, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &stop_signals, NULL);
    loop->signal_fd = signalfd(-1, &stop_signals, SFD_NONBLOCK | SFD_CLOEXEC);
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return loop->signal_fd >= 0 && loop->epoll_fd >= 0 &&
           epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->signal_fd, &event) == 0;
}

bool load_loop_init(struct load_loop *loop, const struct load_options *options, load_turn_fn turn,
                    void *mode)
{
    memset(loop, 0, sizeof(*loop));
    loop->options = options;
    loop->turn = turn;
    loop->mode = mode;
    link_init(&loop->run);
    link_init(&loop->awaiting);
    raise_descriptor_limit();
    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* by default a wait may last 50 us longer */
    loop->conns = calloc(options->connections, sizeof(*loop->conns));
    if (loop->conns == NULL || !loop_open(loop)) {
        fprintf(stderr, "load: cannot start: %s\n", strerror(errno));
        return false;
    }
    for (uint32_t i = 0; i < options->connections; i++) {
        loop->conns[i].number = i;
        loop->conns[i].fd = -1;
        link_init(&loop->conns[i].run);
        link_init(&loop->conns[i].awaiting);
    }
    loop->now_ns = load_now_ns();
    return true;
}

void load_loop_free(struct load_loop *loop)
{
    for (uint32_t i = 0; i < loop->options->connections; i++) {
        load_conn_close(loop, &loop->conns[i]);
    }
    (void)close(loop->epoll_fd);
    (void)close(loop->signal_fd);
    free(loop->conns);
}
