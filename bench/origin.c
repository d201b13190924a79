/*
 * origin: a small HTTP/1.1 server to stand behind the forwarder, in demonstrations and benchmarks.
 *
 * A benchmark of a forwarder measures the slowest of three programs, so the origin has to cost
 * less than what is measured, and has to be right about the corners (half-close, reset, slow
 * reader) that a forwarder must carry. It uses libc only, nothing of the library it helps to
 * measure.
 *
 *   GET, HEAD  /          one line of text
 *   GET, HEAD  /bytes/N   N bytes (0 .. 2^63-1) of the pattern
 *   POST, PUT  /discard   reads the body, answers with the number of bytes in it
 *
 * The pattern repeats every 262096 bytes: 16381 lines of 16 bytes, each the decimal offset of the
 * line, 15 digits and a newline. 16381 is prime, so a block lost, repeated or moved shows unless
 * its length is a multiple of the period. To check a download of one period:
 *   seq -f %015.0f 0 16 262080 | cmp - <(curl -s localhost:9000/bytes/262096)
 *
 * Each worker is one process, forked after all the listening sockets are open, with one
 * edge-triggered epoll. An event only sets the ready bits of its connection and puts it on the run
 * queue; after the batch each connection on the queue has one turn (http.c), and goes back to the
 * end of the queue if its budget was too small. Accepting is bounded in each turn likewise, and
 * what is left is remembered: nothing here counts on a second edge.
 *
 * Invariants:
 *   I1  A connection off the run queue waits for an event: a turn that did not block is requeued.
 *   I2  A connection is closed only after its own turn or on expiry, never while events are read:
 *       no event can meet memory that has been given to another connection.
 *   I3  No allocation for a request: connections come from slabs and return to a free list.
 *   I4  A worker sleeps without limit unless the run queue, the linger list or accepting needs it:
 *       an idle connection costs no wake-up.
 *
 * What it does not do: TLS, names instead of addresses, limits on idle or stalled clients, logging.
 * Read next: http.c, one connection.
 */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SLAB_CONNS       16 /* connections allocated at a time */
#define ACCEPTS_PER_TURN 64
#define EVENTS_PER_TURN  256
#define ACCEPT_PAUSE_MS  100 /* after EMFILE and the like */
#define LINGER_MS        2000
#define WORKERS_MAX      256

#define CONTAINER_OF(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* A circular list with a head; a link on no list points at itself. */
struct link {
    struct link *prev;
    struct link *next;
};

struct conn {
    struct link run;    /* on worker.run while it has something to do; on worker.unused if free */
    struct link linger; /* on worker.linger while http_conn_lingers() */
    int64_t linger_until_ms; /* CLOCK_MONOTONIC */
    struct http_conn http;   /* embedded; http.fd is owned, -1 if free */
};

struct slab {
    struct slab *next; /* owned */
    struct conn conns[SLAB_CONNS];
};

struct worker {
    int epoll_fd;      /* owned */
    int signal_fd;     /* owned; TERM and INT */
    int listen_fd;     /* borrowed */
    bool listen_ready; /* accept4 has not said EAGAIN since the last edge */
    bool accept_complained;
    bool stopping;
    int64_t now_ms;       /* CLOCK_MONOTONIC, read once in a turn */
    int64_t accept_at_ms; /* no accept before */
    struct link run;      /* connections with something to do */
    struct link linger;   /* in order of linger_until_ms, as all linger for the same time */
    struct link unused;
    struct slab *slabs; /* owned */
};

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

struct options {
    union address address;
    int workers;
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

static void conn_close(struct worker *w, struct conn *c)
{
    (void)close(c->http.fd); /* also leaves the epoll set: there is no other copy of it */
    c->http.fd = -1;
    link_remove(&c->linger);
    link_remove(&c->run);
    link_append(&w->unused, &c->run);
}

static void conn_turn(struct worker *w, struct conn *c)
{
    enum http_outcome outcome = http_conn_turn(&c->http);

    if (outcome == HTTP_DONE) {
        conn_close(w, c);
        return;
    }
    if (outcome == HTTP_MOVED) {
        link_append(&w->run, &c->run);
    }
    if (http_conn_lingers(&c->http) && link_is_alone(&c->linger)) {
        c->linger_until_ms = w->now_ms + LINGER_MS;
        link_append(&w->linger, &c->linger);
    }
}

static void conn_note_events(struct worker *w, struct conn *c, uint32_t events)
{
    CHECK(c->http.fd >= 0);
    http_conn_note_events(&c->http, events);
    if (link_is_alone(&c->run)) {
        link_append(&w->run, &c->run);
    }
}

static bool pool_grow(struct worker *w)
{
    struct slab *slab = malloc(sizeof(*slab));

    if (slab == NULL) {
        return false;
    }
    slab->next = w->slabs;
    w->slabs = slab;
    for (size_t i = 0; i < SLAB_CONNS; i++) {
        link_init(&slab->conns[i].run);
        link_append(&w->unused, &slab->conns[i].run);
    }
    return true;
}

/* Takes over `fd`. */
static void conn_open(struct worker *w, int fd)
{
    struct conn *c = CONTAINER_OF(w->unused.next, struct conn, run);
    struct epoll_event event = {EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, {.ptr = c}};

    link_remove(&c->run);
    link_init(&c->linger);
    http_conn_init(&c->http, fd);
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

static void worker_accept(struct worker *w)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd;

        if (link_is_alone(&w->unused) && !pool_grow(w)) {
            worker_pause_accept(w, ENOMEM);
            return;
        }
        fd = accept4(w->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            conn_open(w, fd);
        } else if (errno == EAGAIN) {
            w->listen_ready = false;
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            worker_pause_accept(w, errno);
            return;
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
        struct conn *c = CONTAINER_OF(w->linger.next, struct conn, linger);
        if (c->linger_until_ms > w->now_ms) {
            return;
        }
        conn_close(w, c);
    }
}

/* How long epoll_wait may sleep: for ever (-1) unless something is due by itself. */
static int worker_timeout_ms(const struct worker *w)
{
    int64_t due_ms = INT64_MAX;

    if (!link_is_alone(&w->run)) {
        return 0;
    }
    if (w->listen_ready) {
        due_ms = w->accept_at_ms;
    }
    if (!link_is_alone(&w->linger)) {
        int64_t until_ms = CONTAINER_OF(w->linger.next, struct conn, linger)->linger_until_ms;
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
    if (event->data.ptr == &w->listen_fd) {
        w->listen_ready = true;
    } else if (event->data.ptr == &w->signal_fd) {
        w->stopping = true;
    } else {
        conn_note_events(w, event->data.ptr, event->events);
    }
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
        if (w->listen_ready && w->now_ms >= w->accept_at_ms) {
            worker_accept(w);
        }
        worker_run_queue(w);
        worker_expire_linger(w);
    }
}

/* One worker process, or the only one. Returns the exit status. */
static int worker_main(int listen_fd, const sigset_t *stop_signals)
{
    struct worker w = {.listen_fd = listen_fd};
    struct epoll_event listen_event = {EPOLLIN | EPOLLET | EPOLLEXCLUSIVE, {.ptr = &w.listen_fd}};
    struct epoll_event signal_event = {EPOLLIN, {.ptr = &w.signal_fd}};

    link_init(&w.run);
    link_init(&w.linger);
    link_init(&w.unused);
    w.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    w.signal_fd = signalfd(-1, stop_signals, SFD_NONBLOCK | SFD_CLOEXEC);
    if (w.epoll_fd < 0 || w.signal_fd < 0 ||
        epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, listen_fd, &listen_event) < 0 ||
        epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, w.signal_fd, &signal_event) < 0) {
        fprintf(stderr, "origin: cannot set up epoll: %s\n", strerror(errno));
        return 1;
    }
    worker_loop(&w);
    while (w.slabs != NULL) {
        struct slab *slab = w.slabs;
        w.slabs = slab->next;
        free(slab);
    }
    return 0; /* and the end of the process closes the descriptors */
}

/* "A.B.C.D:PORT", "[V6]:PORT" or "unix:/PATH". Names are not looked up. */
static bool address_parse(const char *text, union address *ret_address)
{
    union address address = {0};
    char host[INET6_ADDRSTRLEN] = "";
    unsigned port = 0;
    int end = 0;
    bool is_host_good = false;

    if (strncmp(text, "unix:", 5) == 0) {
        address.local.sun_family = AF_UNIX;
        is_host_good = text[5] != '\0' && strlen(text + 5) < sizeof(address.local.sun_path);
        memcpy(address.local.sun_path, text + 5, is_host_good ? strlen(text + 5) : 0);
        *ret_address = address;
        return is_host_good;
    }
    if (sscanf(text, "[%45[0-9a-fA-F:.]]:%5u%n", host, &port, &end) == 2) {
        address.v6.sin6_family = AF_INET6;
        address.v6.sin6_port = htons((uint16_t)port);
        is_host_good = inet_pton(AF_INET6, host, &address.v6.sin6_addr) == 1;
    } else if (sscanf(text, "%15[0-9.]:%5u%n", host, &port, &end) == 2) {
        address.v4.sin_family = AF_INET;
        address.v4.sin_port = htons((uint16_t)port);
        is_host_good = inet_pton(AF_INET, host, &address.v4.sin_addr) == 1;
    }
    *ret_address = address;
    return is_host_good && port <= UINT16_MAX && text[end] == '\0';
}

static socklen_t address_length(const union address *address)
{
    switch (address->any.sa_family) {
    case AF_UNIX:
        return sizeof(address->local);
    case AF_INET6:
        return sizeof(address->v6);
    default:
        return sizeof(address->v4);
    }
}

static void address_format(const union address *address, char *ret_text, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "";

    if (address->any.sa_family == AF_UNIX) {
        (void)snprintf(ret_text, size, "unix:%s", address->local.sun_path);
    } else if (address->any.sa_family == AF_INET6) {
        (void)inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof(host));
        (void)snprintf(ret_text, size, "[%s]:%u", host, ntohs(address->v6.sin6_port));
    } else {
        (void)inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof(host));
        (void)snprintf(ret_text, size, "%s:%u", host, ntohs(address->v4.sin_port));
    }
}

/* Removes a socket file that no process listens on any more; true if it did. */
static bool path_remove_stale(const union address *address)
{
    struct stat status;
    int fd;
    bool is_stale;

    if (lstat(address->local.sun_path, &status) < 0 || !S_ISSOCK(status.st_mode)) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    is_stale = connect(fd, &address->any, address_length(address)) < 0 && errno == ECONNREFUSED;
    (void)close(fd);
    return is_stale && unlink(address->local.sun_path) == 0;
}

/* Opens a listening socket and writes the port that the kernel chose to `address`. Returns it, or a
 * negative errno. */
static int listener_open(union address *address, bool shares_port)
{
    socklen_t len = address_length(address);
    int on = 1;
    int shares = shares_port;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error;

    if (fd < 0) {
        return -errno;
    }
    if (address->any.sa_family != AF_UNIX) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shares, sizeof(shares));
        /* Accepted sockets inherit it, which saves a call for each. */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    if (bind(fd, &address->any, len) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, &address->any, &len) < 0) {
        error = errno;
        (void)close(fd);
        return -error;
    }
    return fd;
}

/* One listening socket for each worker, or the same for all where ports do not exist. The first is
 * opened alone: with SO_REUSEPORT, a port in use by an earlier origin would count as free. */
static int listeners_open(union address *address, int workers, int *ret_fds)
{
    int fd = listener_open(address, false);

    if (fd == -EADDRINUSE && address->any.sa_family == AF_UNIX && path_remove_stale(address)) {
        fd = listener_open(address, false);
    }
    if (fd >= 0 && workers > 1 && address->any.sa_family != AF_UNIX) {
        (void)close(fd);
        fd = listener_open(address, true);
    }
    ret_fds[0] = fd;
    for (int i = 1; i < workers && fd >= 0; i++) {
        if (address->any.sa_family != AF_UNIX) {
            fd = listener_open(address, true);
        }
        ret_fds[i] = fd;
    }
    return fd < 0 ? fd : 0;
}

static void announce(const union address *address)
{
    char text[sizeof(struct sockaddr_un) + 8];

    address_format(address, text, sizeof(text));
    printf("origin: listening on %s\n", text);
    (void)fflush(stdout); /* nobody may be reading it, which is no reason to stop */
}

static pid_t worker_fork(int listen_fd, const sigset_t *stop_signals)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid != 0) {
        return pid;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        exit(0); /* it died before the line above */
    }
    exit(worker_main(listen_fd, stop_signals));
}

/* Sends the workers home and returns the exit status: 0 if all of them ended well. */
static int workers_stop(const pid_t *pids, int count)
{
    int result = 0;

    for (int i = 0; i < count; i++) {
        (void)kill(pids[i], SIGTERM); /* not reaped yet, so the number is still its own */
    }
    for (int i = 0; i < count; i++) {
        int status = 0;
        if (waitpid(pids[i], &status, 0) != pids[i] || status != 0) {
            fprintf(stderr, "origin: worker %d ended badly\n", (int)pids[i]);
            result = 1;
        }
    }
    return result;
}

/* Runs one process for each socket, until a signal or until one of them ends. */
static int workers_run(const struct options *options, const int *listen_fds,
                       const sigset_t *stop_signals)
{
    pid_t pids[WORKERS_MAX];
    sigset_t awaited = *stop_signals;

    (void)signal(SIGCHLD, SIG_DFL); /* ignored, it would never be pending */
    (void)sigaddset(&awaited, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &awaited, NULL);
    for (int i = 0; i < options->workers; i++) {
        pids[i] = worker_fork(listen_fds[i], stop_signals);
        if (pids[i] < 0) {
            fprintf(stderr, "origin: fork: %s\n", strerror(errno));
            (void)workers_stop(pids, i);
            return 1;
        }
    }
    for (int i = 0; i < options->workers; i++) {
        (void)close(listen_fds[i]); /* or a dead worker's port would still take connections */
    }
    announce(&options->address);
    while (sigwaitinfo(&awaited, NULL) < 0) {
        CHECK(errno == EINTR);
    }
    return workers_stop(pids, options->workers);
}

/* Every connection is a descriptor: take what the administrator lets us have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* without it there are fewer connections */
    }
}

static void usage(FILE *to)
{
    fputs("Usage: origin [--listen ADDRESS] [--workers N]\n"
          "A small HTTP server to measure and to try a forwarder with.\n"
          "\n"
          "  --listen ADDRESS  ADDR:PORT, [V6]:PORT or unix:/PATH (default 127.0.0.1:9000)\n"
          "  --workers N       processes, 1 to 256 (default 1)\n"
          "  --help            this text\n"
          "\n"
          "  GET  /            a line of text\n"
          "  GET  /bytes/N     N bytes of a fixed pattern\n"
          "  POST /discard     reads the body and answers with its size\n",
          to);
}

/* Returns false, after a line on stderr, for options that make no sense. */
static bool options_parse(int argc, char **argv, struct options *ret_options)
{
    static const struct option known[] = {{"listen", required_argument, NULL, 'l'},
                                          {"workers", required_argument, NULL, 'w'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    const char *listen_text = "127.0.0.1:9000";
    const char *workers_text = "1";
    char *end;
    long workers;
    int name;

    while ((name = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (name == 'l') {
            listen_text = optarg;
        } else if (name == 'w') {
            workers_text = optarg;
        } else if (name == 'h') {
            usage(stdout);
            exit(0);
        } else {
            return false; /* getopt_long has said why */
        }
    }
    workers = strtol(workers_text, &end, 10);
    if (optind < argc) {
        fprintf(stderr, "origin: unexpected argument '%s'\n", argv[optind]);
    } else if (end == workers_text || *end != '\0' || workers < 1 || workers > WORKERS_MAX) {
        fprintf(stderr, "origin: --workers takes 1 to %d, not '%s'\n", WORKERS_MAX, workers_text);
    } else if (!address_parse(listen_text, &ret_options->address)) {
        fprintf(stderr, "origin: --listen takes ADDR:PORT, [V6]:PORT or unix:/PATH, not '%s'\n",
                listen_text);
    } else {
        ret_options->workers = (int)workers;
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    int listen_fds[WORKERS_MAX];
    sigset_t stop_signals;
    int result;

    if (!options_parse(argc, argv, &options)) {
        fputs("Try: origin --help\n", stderr);
        return 2;
    }
    (void)sigemptyset(&stop_signals);
    (void)sigaddset(&stop_signals, SIGTERM);
    (void)sigaddset(&stop_signals, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &stop_signals, NULL);
    raise_descriptor_limit();
    http_init();
    result = listeners_open(&options.address, options.workers, listen_fds);
    if (result < 0) {
        char text[sizeof(struct sockaddr_un) + 8];
        address_format(&options.address, text, sizeof(text));
        fprintf(stderr, "origin: cannot listen on %s: %s\n", text, strerror(-result));
        return 1;
    }
    if (options.workers > 1) {
        result = workers_run(&options, listen_fds, &stop_signals);
    } else {
        announce(&options.address);
        result = worker_main(listen_fds[0], &stop_signals);
    }
    if (options.address.any.sa_family == AF_UNIX) {
        (void)unlink(options.address.local.sun_path); /* it may be gone already */
    }
    return result;
}
