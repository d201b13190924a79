/* Soak: the load. Clients and servers around a running sluice, in one process and one epoll, which
 * open connections of many kinds at a fixed rate, check every byte, and write down how each
 * connection ended.
 *
 *   load --results FILE --rate PER_S --idle NUMBER --large-gap S --seed N ROUTE...
 *   ROUTE   NAME,LISTENER,ORIGIN    addresses as in wire.h. The origin refuses now and then if NAME
 *                                   begins with "flaky", and never answers if with "silent"
 *   load hold-pipes|limit ...       something else: see quota.h
 *
 * It is told what to do on stdin, a word a line: `burst N`, `finish` (open nothing more, use the
 * idle connections once, end with status 0 when all have ended). At the end of stdin it exits at
 * once.
 *
 * Each second, a line on stdout (soak.py reads it):
 *
 *   stat NOW_US ACTIVE OPENED OK REFUSED BROKEN WRONG STALLED REQUESTS P50_US P99_US MAX_US BYTES
 *
 * And in the results, a line for each `conn` that has ended, for each `slow` request, for each
 * `stranger` (a server's end that never got a header), for each `failed` attempt to open a
 * connection, and for each turn in which the load itself was `late`.
 *
 * The load is open-loop: what is due is due at fixed times, whatever sluice does, and the latency
 * of a request counts from when it should have been sent. So a stall is seen by all that it delays.
 */
#include "soak/conn.h"
#include "soak/quota.h"

#include "support/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ROUTES_MAX = 16,
    PROBES_MAX = 2 * ROUTES_MAX,
    EVENTS_MAX = 256,
    ACTIVE_MAX = 1400,
    TICK_MS = 2,
    FINISH_S = 100,
    REFUSE_EVERY_S = 10,
    REFUSE_S = 1,
    SLOW_REQUEST_US = 1000000,
    OWN_STALL_US = 100000
};

static struct {
    int epoll_fd;
    struct route routes[ROUTES_MAX];
    size_t routes_len;
    struct conn *conns;
    struct end *anonymous;
    struct conn *probes[PROBES_MAX];
    uint64_t probe_intended_us[PROBES_MAX];
    uint64_t active;
    uint64_t next_id;
    uint64_t random;
    uint64_t rate;
    uint64_t idle;
    uint64_t large_gap_us;
    uint64_t started_us;
    uint64_t next_open_us;
    uint64_t next_large_us;
    uint64_t next_report_us;
    uint64_t finish_us; /* 0: not yet */
    uint64_t burst;
    struct latency latency; /* since the last report */
    uint64_t open_failures;
    bool stdin_ended;
    struct tally tally;
} load;

static void report(uint64_t now_us)
{
    const struct tally *tally = &load.tally;

    (void)printf("stat %" PRIu64 " %" PRIu64 " %" PRIu64, now_us, load.active, tally->opened);
    for (size_t i = 0; i < OUTCOMES; i++) {
        (void)printf(" %" PRIu64, tally->outcomes[i]);
    }
    (void)printf(" %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", tally->requests,
                 latency_quantile(&load.latency, 50), latency_quantile(&load.latency, 99),
                 load.latency.max_us, tally->bytes);
    (void)fflush(stdout);
    latency_clear(&load.latency);
}

/* --- connections --- */

static struct conn *find(uint64_t id)
{
    struct conn *conn = load.conns;

    while (conn != NULL && conn->id != id) {
        conn = conn->next;
    }
    return conn;
}

static struct conn *open_one(struct route *route, enum kind kind, uint64_t intended_us)
{
    uint64_t seed = load.random;
    struct conn *conn = conn_open(route, kind, load.next_id, intended_us, load.epoll_fd, seed);

    if (conn == NULL) {
        load.open_failures++;
        (void)fprintf(load.tally.results, "failed %s %s %s\n", kind_name(kind), route->name,
                      strerrorname_np(errno));
        return NULL;
    }
    load.next_id++;
    load.tally.opened++;
    load.active++;
    conn->next = load.conns;
    if (load.conns != NULL) {
        load.conns->previous = conn;
    }
    load.conns = conn;
    return conn;
}

static void forget(struct conn *conn)
{
    for (size_t i = 0; i < PROBES_MAX; i++) {
        if (load.probes[i] == conn) {
            load.probes[i] = NULL;
            load.probe_intended_us[i] = conn->intended_us;
        }
    }
    if (conn->next != NULL) {
        conn->next->previous = conn->previous;
    }
    if (conn->previous != NULL) {
        conn->previous->next = conn->next;
    } else {
        load.conns = conn->next;
    }
    load.active--;
    conn_free(conn);
}

/* Time's part: all that is due now. The list may lose the one that runs, and no other. */
static void run_due(uint64_t now_us)
{
    struct conn *next;

    for (struct conn *conn = load.conns; conn != NULL; conn = next) {
        next = conn->next;
        if (now_us >= conn->check_us && conn_advance(conn, now_us, &load.tally)) {
            forget(conn);
        }
    }
}

/* --- servers' ends that have not said whose they are --- */

static void drop_anonymous(struct end *end)
{
    if (end->next_anonymous != NULL) {
        end->next_anonymous->previous_anonymous = end->previous_anonymous;
    }
    if (end->previous_anonymous != NULL) {
        end->previous_anonymous->next_anonymous = end->next_anonymous;
    } else {
        load.anonymous = end->next_anonymous;
    }
}

static void write_stranger(struct end *end, const char *what)
{
    const struct route *route = end->route;

    (void)fprintf(load.tally.results, "stranger %s %s %s %" PRIu64 "\n", route->name, end->text,
                  what, end->received);
    drop_anonymous(end);
    wire_close(end);
    free(end);
}

/* A header, an end, or nothing yet. Only when the client resets may it end without a header. */
static void run_anonymous(struct end *end, uint64_t now_us)
{
    struct conn *conn;

    (void)wire_run(end, now_us);
    if (end->wrong != NULL) {
        write_stranger(end, end->wrong);
    } else if (end->seen != SEEN_NOTHING) {
        write_stranger(end, "reset");
    } else if (now_us > end->moved_us + CONN_PATIENCE_S * UINT64_C(1000000)) {
        write_stranger(end, "stalled");
    } else if (end->received == WIRE_HEADER_BYTES) {
        conn = find(wire_header_read(end->header));
        if (conn == NULL || conn->server != NULL || conn->route != end->route) {
            write_stranger(end, conn == NULL ? "unknown-header" : "doubled-header");
            return;
        }
        drop_anonymous(end);
        conn_bind(conn, end);
        conn->check_us = 0;
    }
}

static void check_anonymous(uint64_t now_us)
{
    struct end *next;

    for (struct end *end = load.anonymous; end != NULL; end = next) {
        next = end->next_anonymous;
        if (now_us > end->moved_us + CONN_PATIENCE_S * UINT64_C(1000000)) {
            run_anonymous(end, now_us);
        }
    }
}

static void accept_all(struct route *route, uint64_t now_us)
{
    int fd;

    while (route->origin_fd >= 0 &&
           (fd = accept4(route->origin_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct end *end = calloc(1, sizeof(*end));

        if (end == NULL) {
            (void)close(fd);
            return;
        }
        end->epoll_fd = load.epoll_fd;
        end->route = route;
        wire_adopt(end, fd, route->origin.u.any.sa_family == AF_UNIX);
        end->next_anonymous = load.anonymous;
        if (load.anonymous != NULL) {
            load.anonymous->previous_anonymous = end;
        }
        load.anonymous = end;
        run_anonymous(end, now_us);
    }
}

/* --- what is opened when --- */

/* Pointers to routes are told from pointers to ends by their lowest bit. */
static void open_origin(struct route *route)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(uintptr_t)route | 1};

    route->origin_fd = wire_listen(&route->origin);
    if (route->origin_fd < 0 ||
        epoll_ctl(load.epoll_fd, EPOLL_CTL_ADD, route->origin_fd, &event) < 0) {
        (void)fprintf(stderr, "load: can't listen for route %s: %s\n", route->name,
                      strerror(errno));
        exit(1);
    }
}

/* A server that does not even answer: its queue is full and nobody accepts, so SYNs are dropped. */
static void fill_origin(struct route *route)
{
    static struct end fillers[ROUTES_MAX];

    route->origin_fd = wire_listen(&route->origin);
    if (route->origin_fd < 0 || listen(route->origin_fd, 0) < 0 ||
        wire_connect(&fillers[load.routes_len], &route->origin, 0) != 0) {
        (void)fprintf(stderr, "load: can't make route %s: %s\n", route->name, strerror(errno));
        exit(1);
    }
}

static void let_flaky_refuse(uint64_t now_us)
{
    uint64_t second = (now_us - load.started_us) / 1000000;
    bool refuses = load.finish_us == 0 && second % REFUSE_EVERY_S >= REFUSE_EVERY_S - REFUSE_S;

    for (size_t i = 0; i < load.routes_len; i++) {
        struct route *route = &load.routes[i];

        if (route->role == ROUTE_FLAKY && refuses && route->origin_fd >= 0) {
            accept_all(route, now_us);
            (void)close(route->origin_fd);
            route->origin_fd = -1;
        } else if (route->role == ROUTE_FLAKY && !refuses && route->origin_fd < 0) {
            open_origin(route);
        }
    }
}

static enum route_role role_for(enum kind kind)
{
    if (kind == KIND_UNANSWERED || kind == KIND_GIVES_UP) {
        return ROUTE_SILENT;
    }
    return kind == KIND_REFUSABLE ? ROUTE_FLAKY : ROUTE_USUAL;
}

/* Resets are for routes that have them on both legs. */
static struct route *route_for(enum kind kind)
{
    bool needs_tcp = kind >= KIND_CLIENT_RESET || kind == KIND_BURST;

    for (;;) {
        struct route *route = &load.routes[random_below(&load.random, load.routes_len)];

        if (route->role == role_for(kind) && (route->all_tcp || !needs_tcp)) {
            return route;
        }
    }
}

/* In thousandths: 80 % small, 15 % of 1 MiB both ways, the rest is trouble. */
static enum kind next_kind(void)
{
    static const struct {
        enum kind kind;
        unsigned weight;
    } mix[] = {
        {KIND_ONE_SHOT, 474},
        {KIND_KEEPALIVE, 300},
        {KIND_BULK, 150},
        {KIND_SLOW, 10},
        {KIND_BYTES, 8},
        {KIND_CLIENT_RESET, 8},
        {KIND_SERVER_RESET, 8},
        {KIND_VANISH, 6},
        {KIND_GIVES_UP, 4},
        {KIND_UNANSWERED, 2},
        {KIND_REFUSABLE, 26},
        {KIND_CLIENT_RESET_BLOCKED, 2},
        {KIND_SERVER_RESET_BLOCKED, 2},
    };
    uint64_t choice = random_below(&load.random, 1000);
    size_t i = 0;

    while (choice >= mix[i].weight) {
        choice -= mix[i].weight;
        i++;
    }
    return mix[i].kind;
}

static void keep_probes(uint64_t now_us)
{
    for (size_t i = 0; i < 2 * load.routes_len; i++) {
        struct route *route = &load.routes[i / 2];

        if (load.probes[i] == NULL && route->role == ROUTE_USUAL) {
            if (load.probe_intended_us[i] == 0) {
                load.probe_intended_us[i] = now_us;
            }
            load.probes[i] = open_one(route, KIND_PROBE, load.probe_intended_us[i]);
        }
    }
}

static void open_due(uint64_t now_us)
{
    if (load.finish_us != 0) {
        return;
    }
    keep_probes(now_us);
    for (; load.idle > 0; load.idle--) {
        (void)open_one(route_for(KIND_IDLE), KIND_IDLE, now_us);
    }
    for (; load.burst > 0 && load.active < ACTIVE_MAX; load.burst--) {
        (void)open_one(route_for(KIND_BURST), KIND_BURST, now_us);
    }
    while (now_us >= load.next_open_us && load.active < ACTIVE_MAX) {
        enum kind kind = next_kind();

        (void)open_one(route_for(kind), kind, load.next_open_us);
        load.next_open_us += 1000000 / load.rate;
    }
    if (now_us >= load.next_large_us) {
        (void)open_one(route_for(KIND_LARGE), KIND_LARGE, now_us);
        load.next_large_us += load.large_gap_us;
    }
}

/* --- being told --- */

static void finish(uint64_t now_us)
{
    load.finish_us = now_us;
    for (struct conn *conn = load.conns; conn != NULL; conn = conn->next) {
        conn->told = true;
        conn->check_us = 0;
    }
}

static void obey(uint64_t now_us)
{
    static char line[256];
    static size_t len;
    ssize_t result = read(STDIN_FILENO, line + len, sizeof(line) - 1 - len);
    char *end;

    if (result == 0) {
        load.stdin_ended = true;
    }
    if (result <= 0) {
        return;
    }
    len += (size_t)result;
    line[len] = '\0';
    while ((end = strchr(line, '\n')) != NULL) {
        if (strncmp(line, "burst ", 6) == 0) {
            load.burst += strtoull(line + 6, NULL, 10);
        } else if (strncmp(line, "finish", 6) == 0) {
            finish(now_us);
        }
        len -= (size_t)(end + 1 - line);
        memmove(line, end + 1, len + 1);
    }
}

/* --- the loop --- */

/* Ends of one batch may belong to a connection that an earlier one has ended, so nothing is freed
 * in it: the batch makes connections due, run_due() runs them. */
static void take_events(void)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(load.epoll_fd, events, EVENTS_MAX, TICK_MS);
    uint64_t now_us = wire_now_us();

    for (int i = 0; i < count; i++) {
        struct end *end = events[i].data.ptr;

        if ((events[i].data.u64 & 1) == 0 && end != NULL && end->owner != NULL) {
            ((struct conn *)end->owner)->check_us = 0;
        }
    }
    for (int i = 0; i < count; i++) {
        struct end *end = events[i].data.ptr;

        if (end == NULL) {
            obey(now_us);
        } else if ((events[i].data.u64 & 1) != 0) {
            accept_all((struct route *)(uintptr_t)(events[i].data.u64 & ~UINT64_C(1)), now_us);
        } else if (end->owner == NULL) {
            run_anonymous(end, now_us);
        }
    }
}

/* A turn that took so long was late by itself: the machine was busy, and sluice is not to blame. */
static void note_own_stall(uint64_t before_us, uint64_t now_us)
{
    if (now_us - before_us > OWN_STALL_US) {
        (void)fprintf(load.tally.results, "late %" PRIu64 " %" PRIu64 "\n", before_us, now_us);
    }
}

static void run(void)
{
    uint64_t now_us = load.started_us;
    uint64_t before_us;

    while (!load.stdin_ended &&
           (load.finish_us == 0 || load.conns != NULL || load.anonymous != NULL)) {
        before_us = now_us;
        take_events();
        now_us = wire_now_us();
        note_own_stall(before_us, now_us);
        open_due(now_us);
        run_due(now_us);
        if (now_us >= load.next_report_us) {
            let_flaky_refuse(now_us);
            check_anonymous(now_us);
            report(now_us);
            load.next_report_us += 1000000;
        }
        if (load.finish_us != 0 && now_us > load.finish_us + FINISH_S * UINT64_C(1000000)) {
            (void)fprintf(stderr, "load: %" PRIu64 " connections did not end\n", load.active);
            exit(1);
        }
    }
    report(wire_now_us());
    (void)printf("done %" PRIu64 " %d\n", load.open_failures, load.stdin_ended);
}

static void add_route(const char *text)
{
    struct route *route = &load.routes[load.routes_len];
    char *copy = strdup(text);
    char *listener = copy != NULL ? strchr(copy, ',') : NULL;
    char *origin = listener != NULL ? strchr(listener + 1, ',') : NULL;

    if (origin == NULL || load.routes_len == ROUTES_MAX) {
        (void)fprintf(stderr, "load: bad route '%s'\n", text);
        exit(2);
    }
    *listener++ = '\0';
    *origin++ = '\0';
    route->name = copy;
    route->listener = wire_addr_parse(listener);
    route->origin = wire_addr_parse(origin);
    route->role = strncmp(copy, "flaky", 5) == 0    ? ROUTE_FLAKY
                  : strncmp(copy, "silent", 6) == 0 ? ROUTE_SILENT
                                                    : ROUTE_USUAL;
    route->all_tcp =
        route->listener.u.any.sa_family != AF_UNIX && route->origin.u.any.sa_family != AF_UNIX;
    if (route->role == ROUTE_SILENT) {
        fill_origin(route);
    } else {
        open_origin(route);
    }
    load.routes_len++;
}

/* Else route_for() would look for ever. */
static bool has_all_routes(void)
{
    bool has[3] = {false};

    for (size_t i = 0; i < load.routes_len; i++) {
        has[load.routes[i].role] = has[load.routes[i].role] || load.routes[i].all_tcp;
    }
    return has[ROUTE_USUAL] && has[ROUTE_FLAKY] && has[ROUTE_SILENT];
}

static void parse(int argc, char **argv)
{
    const char *path = "/dev/null";

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strncmp(argv[i], "--", 2) != 0) {
            add_route(argv[i]);
            continue;
        }
        i++;
        if (strcmp(argv[i - 1], "--results") == 0) {
            path = value;
        } else if (strcmp(argv[i - 1], "--rate") == 0) {
            load.rate = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i - 1], "--idle") == 0) {
            load.idle = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i - 1], "--large-gap") == 0) {
            load.large_gap_us = strtoull(value, NULL, 10) * 1000000;
        } else if (strcmp(argv[i - 1], "--seed") == 0) {
            load.random = strtoull(value, NULL, 10);
        } else {
            (void)fprintf(stderr, "load: there is no option '%s'\n", argv[i - 1]);
            exit(2);
        }
    }
    load.tally.results = fopen(path, "we");
    if (load.rate == 0 || load.large_gap_us == 0 || load.tally.results == NULL ||
        !has_all_routes()) {
        (void)fprintf(
            stderr, "load: it needs --results, --rate, --large-gap, and routes: one of TCP alone, "
                    "one flaky, one silent\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};

    int quota = quota_run(argc, argv);

    if (quota >= 0) {
        return quota;
    }
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    load.next_id = 1;
    load.tally.latency = &load.latency;
    load.tally.slow_us = SLOW_REQUEST_US;
    parse(argc, argv);
    (void)fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    if (epoll_ctl(load.epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0) {
        (void)fprintf(stderr, "load: stdin must be a pipe\n");
        return 2;
    }
    load.started_us = wire_now_us();
    load.next_open_us = load.next_large_us = load.next_report_us = load.started_us;
    run();
    return fclose(load.tally.results) == 0 ? 0 : 1;
}
