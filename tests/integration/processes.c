/* Master, workers, monitor: who lives, who dies, and what the connections notice of it.
 *
 * Waiting for an event is waiting for its log line or for /proc to show it, never for time to pass;
 * the only exceptions are tests that something does not happen. */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WAIT_MS = 30000, BACKLOG = 256 };

/* --- deaths --- */

static bool is_lost(enum peer_end end)
{
    return end == PEER_RESET;
}

/* Ends a bulk transfer: whole if its worker lived, else cut by a reset. True when it was cut. */
static bool end_bulk(struct pair *pair, struct peer_task *sender, struct peer_task *receiver,
                     uint64_t len)
{
    cr_assert(pthread_join(sender->thread, NULL) == 0);
    if (sender->error == 0) {
        (void)shutdown(pair->server, SHUT_WR); /* fails if it was reset behind the last byte */
    }
    peer_join(receiver);
    cr_assert(receiver->end == PEER_RESET || receiver->len == len, "FIN after %llu bytes",
              (unsigned long long)receiver->len);
    cr_assert(sender->error == 0 || is_lost(receiver->end), "%s", strerror(sender->error));
    return is_lost(receiver->end);
}

/* Counts the idle pairs that are reset, waiting for `lost` of them; the others must work. */
static void expect_lost(const struct pair pairs[], size_t count, size_t lost)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    size_t found;

    do {
        found = 0;
        for (size_t i = 0; i < count; i++) {
            found += peer_readable(pairs[i].client, 0);
        }
        cr_assert(monotonic_ms() < deadline, "%zu of %zu connections were reset", found, lost);
    } while (found < lost);
    for (size_t i = 0; i < count; i++) {
        if (peer_readable(pairs[i].client, 0)) {
            pair_expect_reset(&pairs[i]);
        } else {
            pair_exchange(&pairs[i], 2 * i);
        }
        pair_close(&pairs[i]);
    }
}

/* RL-05: kill -9 of one of two workers, under load. Its connections see a reset, whatever they were
 * doing; all others go on. It is back within a second, the log says how many were lost, the master
 * has lost and kept no descriptor, no zombie stays, and the counters balance. */
Test(processes, a_killed_worker_takes_only_its_own_connections)
{
    enum { IDLE = 40, BULK = 8, BULK_BYTES = 1 << 20, BACK_MS = 1000 };
    static struct peer_task senders[BULK];
    static struct peer_task receivers[BULK];
    pid_t workers[PROXY_WORKERS_MAX];
    struct pair idle[IDLE];
    struct pair bulk[BULK];
    size_t bulk_lost = 0;
    size_t master_fds;
    struct proxy proxy;
    uint64_t start_ms;
    uint64_t lost;
    pid_t victim;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
    master_fds = count_targets(proxy.pid, "");
    for (size_t i = 0; i < IDLE; i++) {
        idle[i] = pair_open(&proxy, origin);
    }
    for (size_t i = 0; i < BULK; i++) {
        bulk[i] = pair_open(&proxy, origin);
        senders[i] = (struct peer_task){
            .fd = bulk[i].server, .key = i, .len = BULK_BYTES, .chunk_max = 8192, .pause_us = 500};
        receivers[i] = (struct peer_task){.fd = bulk[i].client, .key = i, .to_end = true};
        peer_start_sending(&senders[i]);
        peer_start_receiving(&receivers[i]);
    }
    cr_assert(proxy_worker_pids(&proxy, workers) == 2);
    victim = workers[0];
    start_ms = monotonic_ms();
    cr_assert(kill(victim, SIGKILL) == 0);
    wait_for_workers(&proxy, victim, workers);
    cr_assert(monotonic_ms() - start_ms < BACK_MS, "back after %d ms",
              (int)(monotonic_ms() - start_ms));
    proxy_wait_event(&proxy, "worker-died", 1);
    proxy_expect_field(&proxy, "worker-died", 0, "signal", "KILL");
    cr_assert(proxy_number(&proxy, "worker-died", 0, "pid") == (uint64_t)victim);
    lost = proxy_number(&proxy, "worker-died", 0, "connections_lost");
    cr_assert(lost > 0 && lost < IDLE + BULK, "%llu lost", (unsigned long long)lost);
    for (size_t i = 0; i < BULK; i++) {
        bulk_lost += end_bulk(&bulk[i], &senders[i], &receivers[i], BULK_BYTES);
        pair_close(&bulk[i]);
    }
    cr_assert(bulk_lost <= lost);
    expect_lost(idle, IDLE, (size_t)lost - bulk_lost);
    for (size_t i = 0; i < IDLE; i++) {
        idle[i] = pair_open(&proxy, origin);
        pair_exchange(&idle[i], i);
        pair_close(&idle[i]);
    }
    cr_assert(count_targets(proxy.pid, "") == master_fds, "the master has %zu descriptors, had %zu",
              count_targets(proxy.pid, ""), master_fds);
    peer_close(origin);
    proxy_wait_event(&proxy, "close", 2 * IDLE + BULK - (size_t)lost);
    expect_stopped(&proxy, 2 * IDLE + BULK - (size_t)lost, 2 * IDLE + BULK);
}

/* Connections that wait in the queue of a worker that dies are served by its successor, from the
 * same listening socket; TCP and unix. */
Test(processes, a_successor_serves_the_queue_of_the_dead)
{
    enum { CLIENTS = 20 };
    int clients[CLIENTS];
    struct proxy proxy;
    char name[64];
    char pair[128];
    pid_t worker;
    int origin;

    proxy_init(&proxy);
    (void)snprintf(name, sizeof(name), "@sluice-queue-%d", (int)getpid());
    (void)snprintf(pair, sizeof(pair), "unix:%s=%s:%d", name, proxy.ip, ORIGIN_PORT);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start(&proxy, (const char *const[]){proxy.arg, pair, NULL});
    worker = only_worker(&proxy);
    freeze(worker);
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = i % 2 == 0 ? peer_connect(proxy.ip, PROXY_PORT) : peer_connect_unix(name);
        peer_send(clients[i], 1, 0, 3000);
        peer_shut(clients[i]);
    }
    cr_assert(kill(worker, SIGKILL) == 0);
    for (size_t i = 0; i < CLIENTS; i++) {
        int server = peer_accept(origin);

        peer_expect(server, 1, 0, 3000);
        peer_expect_end(server, PEER_FIN);
        peer_send(server, 2, 0, 50);
        peer_close(server);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        peer_expect(clients[i], 2, 0, 50);
        peer_expect_end(clients[i], PEER_FIN);
        peer_close(clients[i]);
    }
    proxy_wait_event(&proxy, "worker-died", 1);
    cr_assert(proxy_number(&proxy, "worker-died", 0, "connections_lost") == 0);
    peer_close(origin);
    proxy_finish(&proxy, CLIENTS);
}

/* A worker that dies right after each start is started again after 0.1, 0.2, 0.4 ... seconds, and
 * each time the log says so; the first that stays serves. Method: kill -9 as soon as it appears. */
Test(processes, restarts_a_worker_that_keeps_dying_ever_more_slowly)
{
    enum { DEATHS = 4 };
    pid_t workers[PROXY_WORKERS_MAX];
    struct proxy proxy;
    struct pair pair;
    uint64_t quick = 0;
    size_t deaths = 0;
    pid_t victim = 0;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    while (quick < DEATHS) {
        char text[PROXY_FIELD_BYTES];
        double expected = 0.05;
        double delay;

        cr_assert(deaths < 3 * DEATHS, "never %d quick deaths in a row:\n%s", DEATHS, proxy.log);
        wait_for_workers(&proxy, victim, workers);
        victim = workers[0];
        cr_assert(kill(victim, SIGKILL) == 0);
        proxy_wait_event(&proxy, "worker-died", ++deaths);
        proxy_field(&proxy, "worker-died", deaths - 1, "restart_in_s", text);
        delay = strtod(text, NULL);
        /* On a machine so slow that the worker lived for a second, counting begins anew. */
        quick = proxy_number(&proxy, "worker-died", deaths - 1, "quick_deaths");
        for (uint64_t i = 0; i < quick; i++) {
            expected *= 2;
        }
        cr_assert(quick == 0 ? delay == 0 : delay > expected / 2 && delay <= expected,
                  "%g s after %llu quick deaths", delay, (unsigned long long)quick);
    }
    pair = pair_open(&proxy, origin);
    pair_exchange(&pair, 1);
    pair_close(&pair);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* The monitor is replaced when it dies, and no record is lost after that: they wait in the pipe. */
Test(processes, loses_no_record_when_the_monitor_is_replaced)
{
    enum { BEFORE = 5, AFTER = 60 };
    struct proxy proxy;
    struct pair pair;
    pid_t monitor;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    monitor = wait_for_monitor(&proxy, 0);
    for (size_t i = 0; i < BEFORE + AFTER; i++) {
        if (i == BEFORE) {
            proxy_wait_event(&proxy, "close", BEFORE);
            cr_assert(kill(monitor, SIGKILL) == 0);
            while (!is_gone(monitor)) {
                pause_ms(1); /* while it dies, it may still take lines with it */
            }
        }
        pair = pair_open(&proxy, origin);
        pair_exchange(&pair, i);
        pair_close(&pair);
    }
    cr_assert(wait_for_monitor(&proxy, monitor) != monitor);
    peer_close(origin);
    proxy_finish(&proxy, BEFORE + AFTER);
}

/* The last lines are not lost either when the monitor dies shortly before the end. Method: it is
 * killed until its return takes a while; then TERM comes before it is back. */
Test(processes, writes_its_last_lines_though_the_monitor_has_just_died)
{
    struct proxy proxy;
    struct pair pair;
    pid_t monitor = 0;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    for (int i = 0; i < 3; i++) {
        monitor = wait_for_monitor(&proxy, monitor);
        cr_assert(kill(monitor, SIGKILL) == 0);
    }
    wait_for_state(monitor, 0);
    pair = pair_open(&proxy, origin);
    pair_exchange(&pair, 1);
    pair_close(&pair);
    cr_assert(proxy_stop(&proxy, SIGTERM) == 0);
    cr_assert(proxy_count_event(&proxy, "close") == 1, "no record in:\n%s", proxy.log);
    cr_assert(proxy_count_event(&proxy, "end") == 1, "no end line in:\n%s", proxy.log);
    free(proxy.log);
    peer_close(origin);
}

/* kill -9 of the master: nobody stays behind, connections are reset (never shown as a clean end),
 * and the port is free again. */
Test(processes, nobody_outlives_the_master)
{
    enum { SOON_MS = 2000 };
    pid_t children[PROXY_WORKERS_MAX + 1];
    struct proxy proxy;
    struct pair pair;
    uint64_t start_ms;
    size_t count;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
    pair = pair_open(&proxy, origin);
    pair_exchange(&pair, 1);
    count = proxy_child_pids(&proxy, children);
    cr_assert(count == 3);
    start_ms = monotonic_ms();
    cr_assert(proxy_stop(&proxy, SIGKILL) == 128 + SIGKILL);
    pair_expect_reset(&pair);
    for (size_t i = 0; i < count; i++) {
        while (!is_gone(children[i])) {
            cr_assert(monotonic_ms() - start_ms < SOON_MS, "process %d is still there",
                      children[i]);
            pause_ms(1);
        }
    }
    cr_assert(proxy_count_event(&proxy, "close") == 1, "%s", proxy.log);
    peer_close(peer_listen(proxy.ip, PROXY_PORT, 1));
    pair_close(&pair);
    peer_close(origin);
    free(proxy.log);
}

/* Whatever dies, the master fetches it: no zombie among its children. */
Test(processes, leaves_no_zombies)
{
    pid_t children[PROXY_WORKERS_MAX + 1];
    pid_t workers[PROXY_WORKERS_MAX];
    struct proxy proxy;
    size_t count;
    pid_t monitor;

    proxy_init(&proxy);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "3", NULL});
    monitor = wait_for_monitor(&proxy, 0);
    count = proxy_child_pids(&proxy, children);
    cr_assert(count == 4);
    for (size_t i = 0; i < count; i++) {
        cr_assert(kill(children[i], SIGKILL) == 0);
    }
    cr_assert(wait_for_monitor(&proxy, monitor) != monitor);
    for (size_t i = 0; i < count; i++) {
        wait_for_state(children[i], 0);
    }
    wait_for_workers(&proxy, 0, workers);
    count = proxy_child_pids(&proxy, children);
    cr_assert(count == 4, "%zu children", count);
    for (size_t i = 0; i < count; i++) {
        cr_assert(process_state(children[i]) != 'Z', "process %d is a zombie", children[i]);
    }
    proxy_finish(&proxy, 0);
}

/* --- who has what --- */

static int processors; /* for use_processors(), which takes no argument */

static void use_processors(void)
{
    cpu_set_t all;
    cpu_set_t some;
    int found = 0;

    CPU_ZERO(&some);
    (void)sched_getaffinity(0, sizeof(all), &all);
    for (size_t i = 0; i < CPU_SETSIZE && found < processors; i++) {
        if (CPU_ISSET(i, &all)) {
            CPU_SET(i, &some);
            found++;
        }
    }
    (void)sched_setaffinity(0, sizeof(some), &some);
}

/* `workers auto`, the default, is one for each processor in the affinity mask, not in the
 * machine. */
Test(processes, has_a_worker_for_each_processor_it_may_use)
{
    cpu_set_t all;

    cr_assert(sched_getaffinity(0, sizeof(all), &all) == 0);
    for (processors = 1; processors <= 2 && processors <= CPU_COUNT(&all); processors++) {
        pid_t workers[PROXY_WORKERS_MAX];
        struct proxy proxy;

        proxy_init(&proxy);
        proxy.in_child = use_processors;
        proxy_start_simple(&proxy, (const char *const[]){"--workers", "auto", NULL});
        cr_assert(proxy.workers == (size_t)processors, "%zu workers", proxy.workers);
        cr_assert(proxy_worker_pids(&proxy, workers) == (size_t)processors);
        proxy_finish(&proxy, 0);
    }
}

/* Both of two workers get a part of 200 connections. The upper half of an id is the worker's
 * number. */
Test(processes, spreads_connections_over_the_workers)
{
    enum { CONNECTIONS = 200, STARTS = 2 };
    size_t shares[STARTS + 1] = {0};
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
    for (size_t i = 0; i < CONNECTIONS; i++) {
        struct pair pair = pair_open(&proxy, origin);

        pair_close(&pair);
    }
    proxy_wait_event(&proxy, "close", CONNECTIONS);
    for (size_t i = 0; i < CONNECTIONS; i++) {
        char id[PROXY_FIELD_BYTES];
        uint64_t worker;

        proxy_field(&proxy, "close", i, "id", id);
        worker = strtoull(id, NULL, 16) >> 40;
        cr_assert(worker >= 1 && worker <= STARTS, "id %s", id);
        shares[worker]++;
    }
    cr_assert(shares[1] >= CONNECTIONS / 10 && shares[2] >= CONNECTIONS / 10,
              "%zu and %zu connections", shares[1], shares[2]);
    peer_close(origin);
    proxy_finish(&proxy, CONNECTIONS);
}

/* Workers share nothing: a socket that one holds, listening or connected, no other holds, and a
 * control pipe belongs to one of them. The master holds the listening sockets and no connection.
 * Method: the descriptors in /proc, also after a respawn, whose process is a late copy of the
 * master. */
Test(processes, no_descriptor_of_one_worker_is_in_another)
{
    enum { WORKERS = 3, PAIRS = 12, LISTENERS = 2 };
    static char targets[PROCFS_TARGETS_MAX][PROCFS_TARGET_BYTES];
    pid_t workers[PROXY_WORKERS_MAX];
    struct pair pairs[PAIRS];
    struct proxy proxy;
    char second[64];
    pid_t monitor;
    pid_t victim;
    int origin;

    proxy_init(&proxy);
    (void)snprintf(second, sizeof(second), "%s:8081=%s:%d", proxy.ip, proxy.ip, ORIGIN_PORT);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start(&proxy, (const char *const[]){proxy.arg, second, "--workers", "3", NULL});
    cr_assert(proxy_worker_pids(&proxy, workers) == WORKERS);
    victim = workers[1];
    cr_assert(kill(victim, SIGKILL) == 0);
    proxy_wait_event(&proxy, "worker-died", 1);
    wait_for_workers(&proxy, victim, workers);
    monitor = wait_for_monitor(&proxy, 0);
    for (size_t i = 0; i < PAIRS; i++) {
        pairs[i] = pair_open(&proxy, origin);
        pair_exchange(&pairs[i], i);
    }
    cr_assert(count_targets(proxy.pid, "socket:") == WORKERS * LISTENERS);
    cr_assert(count_targets(monitor, "socket:") == 0);
    for (size_t i = 0; i < WORKERS; i++) {
        size_t count = read_targets(workers[i], targets);

        for (size_t k = 0; k < count; k++) {
            /* The log's pipe and stderr are everyone's: the monitor has them too. */
            bool shared =
                strncmp(targets[k], "pipe:", 5) == 0 && count_targets(monitor, targets[k]) > 0;
            bool owned =
                strncmp(targets[k], "socket:", 7) == 0 || strncmp(targets[k], "pipe:", 5) == 0;

            for (size_t other = 0; other < WORKERS && owned && !shared; other++) {
                cr_assert(other == i || count_targets(workers[other], targets[k]) == 0,
                          "worker %zu has %s of worker %zu", other, targets[k], i);
            }
        }
    }
    for (size_t i = 0; i < PAIRS; i++) {
        pair_close(&pairs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, PAIRS);
}

/* The file of a unix socket goes with sluice, but only if it is still the one sluice made. */
Test(processes, removes_its_own_socket_file_only)
{
    struct proxy proxy;
    struct stat before;
    struct stat after;
    char path[64];
    char pair[128];

    (void)snprintf(path, sizeof(path), "/tmp/sluice-%d-own", (int)getpid());
    for (int replaced = 0; replaced < 2; replaced++) {
        proxy_init(&proxy);
        (void)snprintf(pair, sizeof(pair), "unix:%s=%s:%d", path, proxy.ip, ORIGIN_PORT);
        proxy_start(&proxy, (const char *const[]){pair, "--workers", "2", NULL});
        cr_assert(stat(path, &before) == 0 && S_ISSOCK(before.st_mode));
        if (replaced == 1) {
            cr_assert(unlink(path) == 0);
            peer_close(peer_listen_unix(path));
            cr_assert(stat(path, &before) == 0);
        }
        proxy_finish(&proxy, 0);
        if (replaced == 0) {
            cr_assert(access(path, F_OK) < 0 && errno == ENOENT, "%s is left behind", path);
        } else {
            cr_assert(stat(path, &after) == 0 && after.st_ino == before.st_ino);
            cr_assert(unlink(path) == 0);
        }
    }
}

/* Started by a user with groups, as a login shell of root may have them. */
static void join_groups(void)
{
    static const gid_t groups[] = {0, 1, 4};

    (void)setgroups(sizeof(groups) / sizeof(groups[0]), groups);
}

/* SE-01: with --user, workers and monitor have no trace of root left: user and group in all four
 * forms, no other group, no capability; also after a respawn. The master keeps its own. */
Test(processes, workers_and_monitor_give_up_root)
{
    pid_t children[PROXY_WORKERS_MAX + 1];
    pid_t workers[PROXY_WORKERS_MAX];
    struct proxy proxy;
    struct pair pair;
    char value[PROCFS_VALUE_BYTES];
    size_t count;
    int origin;

    need_root();
    proxy_init(&proxy);
    proxy.in_child = join_groups;
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--user", "nobody", "--workers", "2", NULL});
    cr_assert(proxy_worker_pids(&proxy, workers) == 2);
    cr_assert(kill(workers[0], SIGKILL) == 0);
    wait_for_workers(&proxy, workers[0], workers);
    pair = pair_open(&proxy, origin); /* a worker that serves has become who it is */
    pair_exchange(&pair, 1);
    pair_close(&pair);
    proxy_wait_event(&proxy, "close", 1); /* and so has a monitor that writes */
    for (size_t i = 0; i < 16; i++) {     /* the other worker, too */
        pair = pair_open(&proxy, origin);
        pair_close(&pair);
    }
    proxy_wait_event(&proxy, "close", 17);
    count = proxy_child_pids(&proxy, children);
    cr_assert(count == 3);
    for (size_t i = 0; i < count; i++) {
        read_status(children[i], "Uid", value);
        cr_assert(strcmp(value, "65534\t65534\t65534\t65534") == 0, "Uid %s", value);
        read_status(children[i], "Gid", value);
        cr_assert(strcmp(value, "65534\t65534\t65534\t65534") == 0, "Gid %s", value);
        read_status(children[i], "Groups", value);
        cr_assert(value[strspn(value, " ")] == '\0', "Groups %s", value);
        read_status(children[i], "CapPrm", value);
        cr_assert(strtoull(value, NULL, 16) == 0, "CapPrm %s", value);
        read_status(children[i], "CapEff", value);
        cr_assert(strtoull(value, NULL, 16) == 0, "CapEff %s", value);
    }
    read_status(proxy.pid, "Uid", value);
    cr_assert(strcmp(value, "0\t0\t0\t0") == 0, "Uid %s", value);
    peer_close(origin);
    proxy_finish(&proxy, 17);
}
