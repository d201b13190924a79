/* At its limits: descriptors, pipes, connections, storms. Established connections go on, new ones
 * wait in the backlog, and service comes back by itself (contract 7).
 *
 * Clients whose turn has not come are connected all the same: the kernel does that. "Served"
 * therefore means that a server has answered. */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BACKLOG = 4096, QUESTION = 7, ANSWER = 8, TALK_BYTES = 100, NOTHING_COMES_MS = 100 };

/* Gives this process all the descriptors it may have; that many. */
static size_t raise_own_limit(void)
{
    struct rlimit limit;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    return (size_t)limit.rlim_cur;
}

/* A client that has asked; whether it is served is another matter. All ask the same. */
static int ask(const struct proxy *proxy)
{
    int fd = peer_connect(proxy->ip, PROXY_PORT);

    peer_send(fd, QUESTION, 0, TALK_BYTES);
    return fd;
}

/* Serves the next client that sluice lets through; the server's end. */
static int answer(int origin)
{
    int fd = peer_accept(origin);

    peer_expect(fd, QUESTION, 0, TALK_BYTES);
    peer_send(fd, ANSWER, 0, TALK_BYTES);
    return fd;
}

static void expect_answer(int client)
{
    peer_expect(client, ANSWER, 0, TALK_BYTES);
}

static void close_all(const int fds[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        peer_close(fds[i]);
    }
}

/* --- descriptors --- */

/* The limit that leaves a process exactly `room` more descriptors. */
static rlim_t limit_with_room(pid_t pid, int room)
{
    int fd = 0;

    for (; room > 0; fd++) {
        char path[64];
        char target[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
        room -= readlink(path, target, sizeof(target)) < 0;
    }
    return (rlim_t)fd;
}

static void set_descriptors(pid_t pid, rlim_t descriptors, struct rlimit *ret_before)
{
    struct rlimit limit;

    cr_assert(prlimit(pid, RLIMIT_NOFILE, NULL, &limit) == 0);
    if (ret_before != NULL) {
        *ret_before = limit;
    }
    limit.rlim_cur = descriptors;
    cr_assert(prlimit(pid, RLIMIT_NOFILE, &limit, NULL) == 0, "prlimit: %s", strerror(errno));
}

static void exchange_bulk(const struct pair *pair, uint64_t len)
{
    struct peer_task up = {.fd = pair->client, .key = 21, .len = len};
    struct peer_task down = {.fd = pair->server, .key = 22, .len = len};
    struct peer_task from_server = {.fd = pair->client, .key = 22, .len = len};

    peer_start_sending(&up);
    peer_start_sending(&down);
    peer_start_receiving(&from_server);
    peer_expect(pair->server, 21, 0, len);
    peer_join(&up);
    peer_join(&down);
    peer_join(&from_server);
}

/* RX-01: a live worker loses all but three of its spare descriptors, then 50 clients come.
 * Established connections move bulk as before (there is no descriptor for a pipe), nobody is
 * accepted only to be dropped, there is one line about it and hardly any CPU. With the limit back,
 * all 50 are served by the connections they made long ago. */
Test(overload, waits_for_descriptors_and_goes_on_by_itself)
{
    enum { PAIRS = 4, CLIENTS = 50, BULK_BYTES = 2 << 20, LOOK_MS = 500, LOOK_CPU_MS = 100 };
    struct pair pairs[PAIRS];
    int clients[CLIENTS];
    int servers[CLIENTS];
    struct rlimit before;
    struct proxy proxy;
    size_t served = 0;
    uint64_t cpu_ms;
    pid_t worker;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    worker = only_worker(&proxy);
    for (size_t i = 0; i < PAIRS; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    set_descriptors(worker, limit_with_room(worker, 3), &before);
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = ask(&proxy);
    }
    proxy_wait_event(&proxy, "accept-paused", 1);
    proxy_expect_field(&proxy, "accept-paused", 0, "cause", "Too many open files");
    for (size_t i = 0; i < PAIRS; i++) {
        exchange_bulk(&pairs[i], BULK_BYTES);
    }
    while (peer_readable(origin, NOTHING_COMES_MS)) {
        servers[served++] = answer(origin);
    }
    cr_assert(served <= 3, "%zu clients served with 3 descriptors", served);
    cpu_ms = proxy_cpu_ms(&proxy);
    cr_assert(!peer_readable(origin, LOOK_MS));
    cpu_ms = proxy_cpu_ms(&proxy) - cpu_ms;
    cr_assert(cpu_ms < LOOK_CPU_MS, "%d ms of CPU while waiting", (int)cpu_ms);
    cr_assert(proxy_count_event(&proxy, "accept-paused") == 1, "%s", proxy.log);
    cr_assert(proxy_count_event(&proxy, "close") == 0, "%s", proxy.log);

    set_descriptors(worker, before.rlim_cur, NULL);
    while (served < CLIENTS) {
        servers[served++] = answer(origin);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        expect_answer(clients[i]);
    }
    for (size_t i = 0; i < PAIRS; i++) {
        pair_exchange(&pairs[i], i);
        pair_end(&pairs[i]);
    }
    close_all(clients, CLIENTS);
    close_all(servers, CLIENTS);
    peer_close(origin);
    proxy_finish(&proxy, PAIRS + CLIENTS);
}

/* The same shortage ends when a connection does: its descriptors go to a client that waits. */
Test(overload, a_connection_that_ends_makes_room_for_the_next)
{
    enum { PAIRS = 6, CLIENTS = 6 };
    struct pair pairs[PAIRS];
    int clients[CLIENTS];
    int servers[CLIENTS];
    struct proxy proxy;
    size_t served = 0;
    pid_t worker;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    worker = only_worker(&proxy);
    for (size_t i = 0; i < PAIRS; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    set_descriptors(worker, limit_with_room(worker, 1), NULL);
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = ask(&proxy);
    }
    while (served < CLIENTS) {
        if (served < PAIRS) {
            pair_end(&pairs[served]);
        }
        servers[served++] = answer(origin);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        expect_answer(clients[i]);
    }
    close_all(clients, CLIENTS);
    close_all(servers, CLIENTS);
    peer_close(origin);
    proxy_finish(&proxy, PAIRS + CLIENTS);
}

static struct rlimit child_limit; /* for limit_child(), which takes no argument */

static void limit_child(void)
{
    (void)setrlimit(RLIMIT_NOFILE, &child_limit);
}

/* RX-09: with 1024 descriptors (256 before it asks for its hard limit) sluice computes how many
 * connections that is, says so, and keeps to it: 2.5 for each, beside a fixed reserve. Those beyond
 * wait, and bulk still moves with every place taken. */
Test(overload, computes_its_limit_from_the_descriptors)
{
    enum { LIMIT = 399, WAITING = 20 };
    static struct pair pairs[LIMIT];
    int clients[WAITING];
    int servers[WAITING];
    struct proxy proxy;
    int origin;

    if (raise_own_limit() < 1024) {
        cr_skip_test("needs 1024 descriptors");
    }
    child_limit = (struct rlimit){.rlim_cur = 256, .rlim_max = 1024};
    proxy_init(&proxy);
    proxy.in_child = limit_child;
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    cr_assert(proxy_number(&proxy, "start", 0, "descriptors") == 1024);
    cr_assert(proxy_number(&proxy, "start", 0, "max_connections") == LIMIT, "%s", proxy.log);
    for (size_t i = 0; i < LIMIT; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    for (size_t i = 0; i < WAITING; i++) {
        clients[i] = ask(&proxy);
    }
    proxy_wait_event(&proxy, "accept-paused", 1);
    proxy_expect_field(&proxy, "accept-paused", 0, "cause", "max-connections");
    cr_assert(proxy_number(&proxy, "accept-paused", 0, "connections") == LIMIT);
    cr_assert(!peer_readable(origin, NOTHING_COMES_MS), "more than the limit was let in");
    for (size_t i = 0; i < 4; i++) {
        exchange_bulk(&pairs[i], 1 << 20);
    }
    for (size_t i = 0; i < WAITING; i++) {
        pair_end(&pairs[i]);
        servers[i] = answer(origin);
        cr_assert(highest_descriptor(only_worker(&proxy)) < 1024);
    }
    for (size_t i = 0; i < WAITING; i++) {
        expect_answer(clients[i]);
    }
    for (size_t i = WAITING; i < LIMIT; i++) {
        pair_close(&pairs[i]);
    }
    close_all(clients, WAITING);
    close_all(servers, WAITING);
    peer_close(origin);
    proxy_finish(&proxy, LIMIT + WAITING);
}

/* More connections than descriptors can carry is refused at start with 78, whoever asked for
 * them. */
Test(overload, refuses_a_limit_that_it_could_not_keep)
{
    static const struct {
        rlim_t descriptors;
        const char *max_connections;
        const char *text; /* NULL: it starts */
    } cases[] = {
        {1024, "600",
         "sluice: max-connections needs two descriptors for each connection of a worker, more than "
         "the descriptor limit (ulimit -n) has: raise that, use more workers, or lower it\n"},
        {1024, "500",
         "sluice: max-connections needs two descriptors for each connection of a worker, more than "
         "the descriptor limit (ulimit -n) has: raise that, use more workers, or lower it\n"},
        {1024, "499", NULL},
        {26, "auto",
         "sluice: the descriptor limit (ulimit -n) leaves no room for a single connection\n"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *arguments[] = {
            "--max-connections", cases[i].max_connections, "--workers", "1", NULL, NULL};
        struct proxy proxy;

        child_limit = (struct rlimit){cases[i].descriptors, cases[i].descriptors};
        proxy_init(&proxy);
        proxy.in_child = limit_child;
        arguments[4] = proxy.arg;
        if (cases[i].text == NULL) {
            proxy_start(&proxy, arguments);
            proxy_finish(&proxy, 0);
            continue;
        }
        cr_assert(proxy_run_to_end(&proxy, arguments) == 78);
        cr_assert(strcmp(proxy.log, cases[i].text) == 0, "%s", proxy.log);
        free(proxy.log);
    }
}

/* --- pipes --- */

static uid_t quota_user; /* for the functions that run in children */

static void become_quota_user(void)
{
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
        setresuid(quota_user, quota_user, quota_user) < 0) {
        _exit(126);
    }
}

/* In a child: uses up the user's quota of pipe pages until a new pipe is born small, then waits for
 * the end of `leash_fd`. */
static void hold_quota(int ready_fd, int leash_fd)
{
    char byte = 'r';
    int size;

    become_quota_user();
    do {
        int fds[2];

        if (pipe(fds) < 0) {
            _exit(1);
        }
        size = fcntl(fds[0], F_GETPIPE_SZ);
        (void)fcntl(fds[0], F_SETPIPE_SZ, 1 << 20); /* refused near the end */
    } while (size >= 65536);
    (void)!write(ready_fd, &byte, 1);
    (void)!read(leash_fd, &byte, 1);
    _exit(0);
}

/* Starts the holder; its pid. It ends when `ret_leash` is closed, whoever closes it. */
static pid_t start_holder(int *ret_leash)
{
    int ready[2];
    int leash[2];
    char byte;
    pid_t pid;

    cr_assert(pipe2(ready, O_CLOEXEC) == 0 && pipe2(leash, O_CLOEXEC) == 0);
    pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        (void)close(ready[0]);
        (void)close(leash[1]);
        hold_quota(ready[1], leash[0]);
    }
    (void)close(ready[1]);
    (void)close(leash[0]);
    cr_assert(read(ready[0], &byte, 1) == 1, "the quota could not be used up");
    (void)close(ready[0]);
    *ret_leash = leash[1];
    return pid;
}

/* RX-04: another process of sluice's user holds all pipe pages the user may have (root is exempt,
 * so sluice runs as an ordinary user here). Bulk is correct all the same, by copy; when the pages
 * are back, it is spliced again. */
Test(overload, copies_while_its_user_has_no_pipe_pages_left)
{
    enum { BULK_BYTES = 8 << 20, TRIES = 10 };
    size_t connections = 0;
    struct proxy proxy;
    struct pair pair;
    int origin;
    int leash;
    pid_t holder;

    need_root();
    if (read_number("/proc/sys/fs/pipe-user-pages-soft") <= 0) {
        cr_skip_test("this machine has no quota for pipes");
    }
    quota_user = 50000 + (uid_t)getpid() % 10000;
    proxy_init(&proxy);
    proxy.in_child = become_quota_user;
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    holder = start_holder(&leash);
    proxy_start_simple(&proxy, (const char *const[]){"--splice", "always", NULL});
    pair = pair_open(&proxy, origin);
    exchange_bulk(&pair, BULK_BYTES);
    pair_end(&pair);
    proxy_wait_event(&proxy, "close", ++connections);
    cr_assert(proxy_number(&proxy, "close", 0, "bytes_up") == BULK_BYTES);
    cr_assert(proxy_number(&proxy, "close", 0, "bytes_down") == BULK_BYTES);
    cr_assert(proxy_number(&proxy, "close", 0, "spliced_bytes") == 0, "%s", proxy.log);

    peer_close(leash);
    cr_assert(waitpid(holder, NULL, 0) == holder);
    do {
        cr_assert(connections < TRIES, "never spliced again:\n%s", proxy.log);
        pair = pair_open(&proxy, origin);
        exchange_bulk(&pair, BULK_BYTES);
        pair_end(&pair);
        proxy_wait_event(&proxy, "close", ++connections);
    } while (proxy_number(&proxy, "close", connections - 1, "spliced_bytes") == 0);
    peer_close(origin);
    proxy_finish(&proxy, connections);
}

/* --- max-connections --- */

static int compare_ms(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;

    return (a > b) - (a < b);
}

/* Five are served, the sixth waits in the backlog; each end lets one in at once, not at the next
 * look of some timer: the median of eleven waits is far below a polling interval worth having. */
Test(overload, lets_the_next_one_in_as_soon_as_one_ends)
{
    enum { LIMIT = 5, WAITING = 11, MEDIAN_MS = 40 };
    struct pair pairs[LIMIT];
    uint64_t waits_ms[WAITING];
    int clients[WAITING];
    int servers[WAITING];
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--max-connections", "5", NULL});
    for (size_t i = 0; i < LIMIT; i++) {
        pairs[i] = pair_open(&proxy, origin);
        pair_exchange(&pairs[i], i);
    }
    for (size_t i = 0; i < WAITING; i++) {
        clients[i] = ask(&proxy);
    }
    proxy_wait_event(&proxy, "accept-paused", 1);
    proxy_expect_field(&proxy, "accept-paused", 0, "cause", "max-connections");
    cr_assert(!peer_readable(origin, NOTHING_COMES_MS), "a sixth connection was let in");
    for (size_t i = 0; i < WAITING; i++) {
        uint64_t start_ms;

        if (i < LIMIT) {
            pair_end(&pairs[i]);
        } else {
            peer_reset(clients[i - LIMIT]);
            peer_close(servers[i - LIMIT]);
        }
        start_ms = monotonic_ms();
        servers[i] = answer(origin);
        waits_ms[i] = monotonic_ms() - start_ms;
        expect_answer(clients[i]); /* the queue is served in order */
    }
    qsort(waits_ms, WAITING, sizeof(waits_ms[0]), compare_ms);
    cr_assert(waits_ms[WAITING / 2] < MEDIAN_MS, "median wait %d ms", (int)waits_ms[WAITING / 2]);
    close_all(clients + WAITING - LIMIT, LIMIT);
    close_all(servers + WAITING - LIMIT, LIMIT);
    peer_close(origin);
    proxy_finish(&proxy, LIMIT + WAITING);
}

/* Two workers share one limit: of 24 clients never more than four are served at a time, whichever
 * worker the kernel chose for them, and in the end all are. Servers make room by a reset. */
Test(overload, workers_share_the_limit)
{
    enum { CLIENTS = 24, LIMIT = 4 };
    int clients[CLIENTS];
    int servers[CLIENTS];
    struct proxy proxy;
    size_t ended = 0;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy,
                       (const char *const[]){"--max-connections", "4", "--workers", "2", NULL});
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = ask(&proxy);
    }
    for (size_t served = 0; served < CLIENTS; served++) {
        /* A worker may have no client left while the other has a queue: then less than the
         * limit. */
        while (served > ended && !peer_readable(origin, NOTHING_COMES_MS)) {
            peer_reset(servers[ended++]);
        }
        servers[served] = answer(origin);
        cr_assert(served + 1 - ended <= LIMIT, "more than %d are served", LIMIT);
    }
    while (ended < CLIENTS) {
        peer_reset(servers[ended++]);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        expect_answer(clients[i]);
        peer_expect_end(clients[i], PEER_RESET);
        peer_close(clients[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, CLIENTS);
}

/* OV-06: the limit is reached, then all peers close at once. Those who wait are let in, the limit
 * can be reached again, exactly, and every counter is right. */
Test(overload, recovers_when_everybody_leaves_at_once)
{
    enum { LIMIT = 50, WAITING = 10 };
    struct pair pairs[LIMIT];
    int clients[WAITING];
    int servers[WAITING];
    struct proxy proxy;
    int origin;
    int last;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--max-connections", "50", NULL});
    for (size_t i = 0; i < LIMIT; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    for (size_t i = 0; i < WAITING; i++) {
        clients[i] = ask(&proxy);
    }
    proxy_wait_event(&proxy, "accept-paused", 1);
    for (size_t i = 0; i < LIMIT; i++) {
        if (i % 2 == 0) {
            peer_reset(pairs[i].client);
            peer_close(pairs[i].server);
        } else {
            pair_close(&pairs[i]);
        }
    }
    for (size_t i = 0; i < WAITING; i++) {
        servers[i] = answer(origin);
    }
    proxy_wait_event(&proxy, "close", LIMIT);
    for (size_t i = 0; i < LIMIT - WAITING; i++) {
        pairs[i] = pair_open(&proxy, origin);
    }
    last = ask(&proxy);
    cr_assert(!peer_readable(origin, NOTHING_COMES_MS), "the limit has grown");
    for (size_t i = 0; i < WAITING; i++) {
        expect_answer(clients[i]);
    }
    close_all(clients, WAITING);
    close_all(servers, WAITING);
    servers[0] = answer(origin);
    expect_answer(last);
    peer_close(last);
    peer_close(servers[0]);
    for (size_t i = 0; i < LIMIT - WAITING; i++) {
        pair_close(&pairs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, 2 * LIMIT + 1);
}

/* A server that refuses at once, many times within one turn, is no shortage of memory: with a limit
 * of one, every client is answered by a reset and no line says that accepting had to pause. Method:
 * the worker is stopped while ten clients queue up. */
Test(overload, refused_servers_are_no_shortage)
{
    enum { CLIENTS = 10 };
    int clients[CLIENTS];
    struct proxy proxy;
    char pair[128];
    pid_t worker;

    proxy_init(&proxy);
    (void)snprintf(pair, sizeof(pair), "%s:%d=unix:/nonexistent/app.sock", proxy.ip, PROXY_PORT);
    proxy_start(&proxy, (const char *const[]){pair, "--max-connections", "1", NULL});
    worker = only_worker(&proxy);
    freeze(worker);
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = peer_connect(proxy.ip, PROXY_PORT);
    }
    thaw(worker);
    for (size_t i = 0; i < CLIENTS; i++) {
        peer_expect_end(clients[i], PEER_RESET);
        peer_close(clients[i]);
    }
    proxy_wait_event(&proxy, "close", CLIENTS);
    cr_assert(proxy_count_event(&proxy, "accept-paused") == 0, "%s", proxy.log);
    proxy_finish(&proxy, CLIENTS);
}

/* --- storms --- */

/* OV-02, scaled: 2,000 clients connect at once, faster than anybody accepts. All are served. */
Test(overload, serves_a_storm_of_connections)
{
    enum { CLIENTS_MAX = 2000 };
    static int clients[CLIENTS_MAX];
    static int servers[CLIENTS_MAX];
    size_t room = (raise_own_limit() - 100) / 3;
    size_t count = room < CLIENTS_MAX ? room : CLIENTS_MAX;
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy,
                       (const char *const[]){"--workers", "2", "--connect-timeout", "30s", NULL});
    for (size_t i = 0; i < count; i++) {
        clients[i] = peer_connect_later(proxy.ip, PROXY_PORT);
    }
    for (size_t i = 0; i < count; i++) {
        servers[i] = peer_accept(origin);
        peer_send(servers[i], ANSWER, 0, TALK_BYTES);
    }
    for (size_t i = 0; i < count; i++) {
        cr_assert(peer_readable(clients[i], PEER_WAIT_S * 1000), "client %zu is not served", i);
        cr_assert(fcntl(clients[i], F_SETFL, 0) == 0);
        expect_answer(clients[i]);
    }
    close_all(clients, count);
    close_all(servers, count);
    peer_close(origin);
    proxy_finish(&proxy, count);
}

/* Takes and drops what waits at the origin, without waiting for more. */
static void clear_queue(int origin)
{
    while (peer_readable(origin, 0)) {
        int fd = accept4(origin, NULL, NULL, SOCK_CLOEXEC);

        if (fd >= 0) {
            peer_close(fd);
        }
    }
}

/* OV-04, scaled: 3,000 times connect and RST, as fast as one client can. Each gives one record, an
 * established connection does not notice, and afterwards no socket and no CPU is left in use. */
Test(overload, survives_a_storm_of_resets)
{
    enum { STORM = 3000 };
    struct proxy proxy;
    struct pair pair;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
    pair = pair_open(&proxy, origin);
    for (size_t i = 0; i < STORM; i++) {
        peer_reset(peer_connect(proxy.ip, PROXY_PORT));
        clear_queue(origin);
        if (i % 100 == 0) {
            pair_exchange(&pair, i);
        }
    }
    proxy_wait_event(&proxy, "close", STORM);
    pair_exchange(&pair, 1);
    pair_end(&pair);
    peer_close(origin);
    proxy_finish(&proxy, STORM + 1);
}
