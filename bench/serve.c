/*
 * serve: the event loop of one worker: one edge-triggered epoll, all its connections, no threads.
 *
 * An event only sets the ready bits of its connection and puts it on the run queue; after the batch
 * each connection on the queue has one turn (http.c, raw.c), and goes back to the end of the queue
 * if its turn was too short. Accepting is bounded in each round likewise, and what is left is
 * remembered: nothing here counts on a second edge.
 *
 * What epoll names begins with a word that says what it is:
 *
 *   signal     the worker itself
 *   listener   one for each service that was asked for
 *   http       8.6 KiB, most of it the buffer for a request's head
 *   raw        48 bytes: an idle echo costs its socket and little more
 *
 * Invariants:
 *   I1  A connection off the run queue waits for an event: a turn that did not block is requeued.
 *   I2  A connection is closed only after its own turn or on expiry, never while events are read:
 *       no event can meet memory that has been given to another connection.
 *   I3  No allocation for a request: connections come from slabs and return to a free list. (Only
 *       an echo whose peer does not read allocates: raw.c.)
 *   I4  A worker sleeps without limit unless the run queue, the linger list or accepting needs it:
 *       an idle connection costs no wake-up.
 *
 * What it does not do: give memory of closed connections back to the system, limit idle clients.
 */
#include "serve.h"

#include "check.h"
#include "http.h"
#include "raw.h"
#include "tally.h"

#include <assert.h>
#include <errno.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLAB_BYTES       (128 * 1024) /* connections are allocated so many bytes at a time */
#define ACCEPTS_PER_TURN 64
#define EVENTS_PER_TURN  256
#define ACCEPT_PAUSE_MS  100 /* after EMFILE and the like */
#define LINGER_MS        2000

#define CONTAINER_OF(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* A circular list with a head; a link on no list points at itself. */
struct link {
    struct link *prev;
    struct link *next;
};

enum watched { WATCHED_SIGNAL, WATCHED_LISTENER, WATCHED_HTTP, WATCHED_RAW };

/* What both kinds of connections begin with. */
struct conn {
    enum watched watched;
    struct link run; /* on worker.run while it has something to do; on pool.unused if free */
};

struct http_record {
    struct conn conn;
    struct link linger;      /* on worker.linger while http_conn_lingers() */
    int64_t linger_until_ms; /* CLOCK_MONOTONIC */
    struct http_conn http;   /* embedded; http.fd is owned, -1 if free */
};

struct raw_record {
    struct conn conn;
    struct raw_conn raw; /* embedded; raw.fd is owned, -1 if free */
};

static_assert(sizeof(struct raw_record) <= 48, "tens of thousands of these are open at a time");
static_assert(offsetof(struct http_record, conn) == 0 && offsetof(struct raw_record, conn) == 0,
              "a record begins with what both kinds share");

struct slab {
    struct slab *next; /* owned */
    alignas(max_align_t) char records[];
};

struct pool {
    size_t record_bytes;
    struct link unused;
    struct slab *slabs; /* owned */
};

struct listener {
    enum watched watched;
    enum service service;
    int fd;        /* borrowed; -1 if the service is not wanted */
    bool is_tcp;   /* or of a unix socket */
    bool is_ready; /* accept4 has not said EAGAIN since the last edge */
};

struct worker {
    enum watched watched; /* WATCHED_SIGNAL */
    int epoll_fd;         /* owned */
    int signal_fd;        /* owned; TERM and INT */
    bool accept_complained;
    bool stopping;
    int64_t now_ms;       /* CLOCK_MONOTONIC, read once in a turn */
    int64_t accept_at_ms; /* no accept before */
    struct link run;      /* connections with something to do */
    struct link linger;   /* in order of linger_until_ms, as all linger for the same time */
    struct listener listeners[SERVICE_COUNT];
    struct pool https;
    struct pool raws;
};

static void link_init(struct link *link)
{
    link->prev = link;
    link->next = link;
}

static bool link_is_alone(const struct link *link)
{
    return link->next == link;
}

static void link_append(struct link *head, struct link *link)
{
    CHECK(link_is_alone(link));
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}

static void link_remove(struct link *link)
{
    link->prev->next = link->next;
    link->next->prev = link->prev;
    link_init(link);
}

static void pool_init(struct pool *pool, size_t record_bytes)
{
    pool->record_bytes = record_bytes;
    pool->slabs = NULL;
    link_init(&pool->unused);
}

static bool pool_grow(struct pool *pool)
{
    struct slab *slab = calloc(1, sizeof(*slab) + SLAB_BYTES);

    if (slab == NULL) {
        return false;
    }
    slab->next = pool->slabs;
    pool->slabs = slab;
    for (size_t at = 0; at + pool->record_bytes <= SLAB_BYTES; at += pool->record_bytes) {
        struct conn *c = (struct conn *)(void *)(slab->records + at);
        link_init(&c->run);
        link_append(&pool->unused, &c->run);
    }
    return true;
}

/* The caller has seen that there is one. */
static struct conn *pool_take(struct pool *pool)
{
    struct conn *c = CONTAINER_OF(pool->unused.next, struct conn, run);

    CHECK(!link_is_alone(&pool->unused));
    link_remove(&c->run);
    return c;
}

static void pool_free(struct pool *pool)
{
    while (pool->slabs != NULL) {
        struct slab *slab = pool->slabs;
        pool->slabs = slab->next;
        free(slab);
    }
}

/* Closes the socket, which also leaves the epoll set: there is no other copy of it. */
static void conn_release(struct pool *pool, struct conn *c, int *fd)
{
    (void)close(*fd);
    *fd = -1;
    tally_add(TALLY_CLOSED, 1);
    link_remove(&c->run);
    link_append(&pool->unused, &c->run);
}

static void http_close(struct worker *w, struct http_record *record)
{
    link_remove(&record->linger);
    conn_release(&w->https, &record->conn, &record->http.fd);
}

static void raw_close(struct worker *w, struct raw_record *record)
{
    raw_conn_end(&record->raw);
    conn_release(&w->raws, &record->conn, &record->raw.fd);
}

static void http_turn(struct worker *w, struct http_record *record)
{
    enum http_outcome outcome = http_conn_turn(&record->http);

    if (outcome == HTTP_DONE) {
        http_close(w, record);
        return;
    }
    if (outcome == HTTP_MOVED) {
        link_append(&w->run, &record->conn.run);
    }
    if (http_conn_lingers(&record->http) && link_is_alone(&record->linger)) {
        record->linger_until_ms = w->now_ms + LINGER_MS;
        link_append(&w->linger, &record->linger);
    }
}

static void raw_turn(struct worker *w, struct raw_record *record)
{
    enum raw_outcome outcome = raw_conn_turn(&record->raw);

    if (outcome == RAW_DONE) {
        raw_close(w, record);
    } else if (outcome == RAW_MOVED) {
        link_append(&w->run, &record->conn.run);
    }
}

static void conn_turn(struct worker *w, struct conn *c)
{
    if (c->watched == WATCHED_HTTP) {
        http_turn(w, CONTAINER_OF(c, struct http_record, conn));
    } else {
        raw_turn(w, CONTAINER_OF(c, struct raw_record, conn));
    }
}

static void conn_close(struct worker *w, struct conn *c)
{
    if (c->watched == WATCHED_HTTP) {
        http_close(w, CONTAINER_OF(c, struct http_record, conn));
    } else {
        raw_close(w, CONTAINER_OF(c, struct raw_record, conn));
    }
}

static void conn_note_events(struct worker *w, struct conn *c, uint32_t events)
{
    if (c->watched == WATCHED_HTTP) {
        http_conn_note_events(&CONTAINER_OF(c, struct http_record, conn)->http, events);
    } else {
        raw_conn_note_events(&CONTAINER_OF(c, struct raw_record, conn)->raw, events);
    }
    if (link_is_alone(&c->run)) {
        link_append(&w->run, &c->run);
    }
}

static void http_begin(struct conn *c, int fd)
{
    struct http_record *record = CONTAINER_OF(c, struct http_record, conn);

    c->watched = WATCHED_HTTP;
    link_init(&record->linger);
    http_conn_init(&record->http, fd);
}

static void raw_begin(struct conn *c, const struct listener *listener, int fd)
{
    static const enum raw_service raw_services[SERVICE_COUNT] = {
        [SERVICE_ECHO] = RAW_ECHO, [SERVICE_SINK] = RAW_SINK, [SERVICE_SOURCE] = RAW_SOURCE};
    struct raw_record *record = CONTAINER_OF(c, struct raw_record, conn);

    c->watched = WATCHED_RAW;
    raw_conn_init(&record->raw, raw_services[listener->service], fd, listener->is_tcp);
}

static struct pool *listener_pool(struct worker *w, const struct listener *listener)
{
    return listener->service == SERVICE_HTTP ? &w->https : &w->raws;
}

/* Takes over `fd`. */
static void conn_open(struct worker *w, const struct listener *listener, int fd)
{
    struct conn *c = pool_take(listener_pool(w, listener));
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET, {.ptr = c}};

    tally_add(TALLY_ACCEPTED, 1);
    if (listener->service == SERVICE_HTTP) {
        http_begin(c, fd);
    } else {
        raw_begin(c, listener, fd);
    }
    if (epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        conn_close(w, c);
    }
}

/* accept4 fails for want of descriptors or memory: the clients wait in the backlog meanwhile. */
static void worker_pause_accept(struct worker *w, int error)
{
    w->accept_at_ms = w->now_ms + ACCEPT_PAUSE_MS;
    if (!w->accept_complained) {
        fprintf(stderr, "origin: accept: %s, will retry\n", strerror(error));
        w->accept_complained = true;
    }
}

static void worker_accept(struct worker *w, struct listener *listener)
{
    struct pool *pool = listener_pool(w, listener);

    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd;

        if (link_is_alone(&pool->unused) && !pool_grow(pool)) {
            worker_pause_accept(w, ENOMEM);
            return;
        }
        fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            conn_open(w, listener, fd);
        } else if (errno == EAGAIN) {
            listener->is_ready = false;
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            worker_pause_accept(w, errno);
            return;
        }
    }
}

static void worker_accept_all(struct worker *w)
{
    for (int i = 0; i < SERVICE_COUNT; i++) {
        if (w->listeners[i].is_ready && w->now_ms >= w->accept_at_ms) {
            worker_accept(w, &w->listeners[i]);
        }
    }
}

/* Each connection that is due now gets one turn; those that come back wait for the next round. */
static void worker_run_queue(struct worker *w)
{
    struct link *last = w->run.prev;
    struct link *link = &w->run;

    while (link != last) {
        link = w->run.next;
        link_remove(link);
        conn_turn(w, CONTAINER_OF(link, struct conn, run));
    }
}

static void worker_expire_linger(struct worker *w)
{
    while (!link_is_alone(&w->linger)) {
        struct http_record *record = CONTAINER_OF(w->linger.next, struct http_record, linger);
        if (record->linger_until_ms > w->now_ms) {
            return;
        }
        http_close(w, record);
    }
}

/* How long epoll_wait may sleep: for ever (-1) unless something is due by itself. */
static int worker_timeout_ms(const struct worker *w)
{
    int64_t due_ms = INT64_MAX;

    if (!link_is_alone(&w->run)) {
        return 0;
    }
    for (int i = 0; i < SERVICE_COUNT; i++) {
        if (w->listeners[i].is_ready) {
            due_ms = w->accept_at_ms;
        }
    }
    if (!link_is_alone(&w->linger)) {
        int64_t until_ms =
            CONTAINER_OF(w->linger.next, struct http_record, linger)->linger_until_ms;
        due_ms = until_ms < due_ms ? until_ms : due_ms;
    }
    if (due_ms == INT64_MAX) {
        return -1;
    }
    return due_ms > w->now_ms ? (int)(due_ms - w->now_ms) : 0;
}

static int64_t clock_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void worker_note_event(struct worker *w, const struct epoll_event *event)
{
    enum watched *watched = event->data.ptr;

    switch (*watched) {
    case WATCHED_SIGNAL:
        w->stopping = true;
        return;
    case WATCHED_LISTENER:
        CONTAINER_OF(watched, struct listener, watched)->is_ready = true;
        return;
    case WATCHED_HTTP:
    case WATCHED_RAW:
        conn_note_events(w, event->data.ptr, event->events);
        return;
    }
    CHECK(false);
}

static void worker_loop(struct worker *w)
{
    struct epoll_event events[EVENTS_PER_TURN];

    while (!w->stopping) {
        int count = epoll_wait(w->epoll_fd, events, EVENTS_PER_TURN, worker_timeout_ms(w));
        CHECK(count >= 0 || errno == EINTR);
        w->now_ms = clock_now_ms();
        for (int i = 0; i < count; i++) {
            worker_note_event(w, &events[i]);
        }
        worker_accept_all(w);
        worker_run_queue(w);
        worker_expire_linger(w);
    }
}

static bool socket_is_tcp(int fd)
{
    int domain = AF_UNIX;
    socklen_t len = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain != AF_UNIX;
}

/* False, with an errno, if epoll does not take it. */
static bool listener_watch(struct worker *w, enum service service, int listen_fd)
{
    struct listener *listener = &w->listeners[service];
    struct epoll_event event = {EPOLLIN | EPOLLET | EPOLLEXCLUSIVE, {.ptr = listener}};

    *listener = (struct listener){.watched = WATCHED_LISTENER, .service = service, .fd = listen_fd};
    if (listen_fd < 0) {
        return true;
    }
    listener->is_tcp = socket_is_tcp(listen_fd);
    return epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) == 0;
}

static bool worker_watch(struct worker *w, const int listen_fds[SERVICE_COUNT],
                         const sigset_t *stop_signals)
{
    struct epoll_event signal_event = {EPOLLIN, {.ptr = w}};

    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w->signal_fd = signalfd(-1, stop_signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (w->epoll_fd < 0 || w->signal_fd < 0 ||
        epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->signal_fd, &signal_event) < 0) {
        return false;
    }
    for (enum service service = SERVICE_HTTP; service < SERVICE_COUNT; service++) {
        if (!listener_watch(w, service, listen_fds[service])) {
            return false;
        }
    }
    return true;
}

/* What echoes hold; a record that was never used is all zeros, and holds nothing. */
static void worker_drop_held(struct worker *w)
{
    for (struct slab *slab = w->raws.slabs; slab != NULL; slab = slab->next) {
        for (size_t at = 0; at + sizeof(struct raw_record) <= SLAB_BYTES;
             at += sizeof(struct raw_record)) {
            raw_conn_end(&((struct raw_record *)(void *)(slab->records + at))->raw);
        }
    }
}

int serve(const int listen_fds[SERVICE_COUNT], const sigset_t *stop_signals)
{
    struct worker w = {.watched = WATCHED_SIGNAL};

    link_init(&w.run);
    link_init(&w.linger);
    pool_init(&w.https, sizeof(struct http_record));
    pool_init(&w.raws, sizeof(struct raw_record));
    if (!worker_watch(&w, listen_fds, stop_signals)) {
        fprintf(stderr, "origin: cannot set up epoll: %s\n", strerror(errno));
        return 1;
    }
    worker_loop(&w);
    worker_drop_held(&w);
    pool_free(&w.https);
    pool_free(&w.raws);
    return 0; /* and the end of the process closes the descriptors */
}
