/* The end of sluice: draining, deadlines, and signals that say stop. (What the processes are, and
 * what happens when one dies without being asked: processes.c.)
 *
 * Waiting for an event is waiting for its log line or for /proc to show it, never for time to pass;
 * the only exceptions are tests that something does not happen. */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BACKLOG = 256 };

static void send_signal(const struct proxy *proxy, int number)
{
    cr_assert(kill(proxy->pid, number) == 0);
}

/* For proxy.in_child: a process group as a shell's job has one. */
static void own_group(void)
{
    (void)setpgid(0, 0);
}

/* The end after a signal that was sent already: status 0, a record of each connection, and counters
 * that balance. */
static void expect_end_of(struct proxy *proxy, size_t connections)
{
    cr_assert(proxy_stop(proxy, 0) == 0, "sluice ended badly:\n%s", proxy->log);
    expect_stopped(proxy, connections, connections);
}

/* RL-03: TERM during 50 transfers with a deadline of 2 s. Half of them finish in time and are
 * whole, the rest is reset at the deadline with reason drain. Meanwhile nobody new is let in. */
Test(draining, finishes_what_it_can_and_cuts_the_rest_at_the_deadline)
{
    enum { PAIRS = 50, FINISHING = 25, HALF = 100000, DRAIN_MS = 5000, LATE_MS = 10000 };
    struct pair pairs[PAIRS];
    struct proxy proxy;
    uint64_t start_ms;
    uint64_t end_ms;
    size_t drained = 0;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--drain-timeout", "5s", NULL});
    for (uint64_t i = 0; i < PAIRS; i++) {
        pairs[i] = pair_open(&proxy, origin);
        peer_send(pairs[i].server, i, 0, HALF);
    }
    start_ms = monotonic_ms();
    send_signal(&proxy, SIGTERM);
    proxy_wait_event(&proxy, "drain", 1);
    wait_until_closed(&proxy);
    for (uint64_t i = 0; i < FINISHING; i++) {
        peer_send(pairs[i].server, i, HALF, HALF);
        peer_shut(pairs[i].server);
        peer_expect(pairs[i].client, i, 0, 2 * HALF);
        peer_expect_end(pairs[i].client, PEER_FIN);
        pair_close(&pairs[i]);
    }
    proxy_wait_event(&proxy, "close", FINISHING);
    for (uint64_t i = FINISHING; i < PAIRS; i++) {
        peer_expect(pairs[i].client, i, 0, HALF);
        pair_expect_reset(&pairs[i]);
    }
    end_ms = monotonic_ms();
    cr_assert(end_ms - start_ms >= DRAIN_MS, "cut after %d ms", (int)(end_ms - start_ms));
    cr_assert(end_ms - start_ms < DRAIN_MS + LATE_MS, "cut after %d ms", (int)(end_ms - start_ms));
    for (size_t i = FINISHING; i < PAIRS; i++) {
        pair_close(&pairs[i]);
    }
    proxy_wait_event(&proxy, "close", PAIRS);
    for (size_t i = 0; i < PAIRS; i++) {
        char reason[PROXY_FIELD_BYTES];

        proxy_field(&proxy, "close", i, "reason", reason);
        if (strcmp(reason, "drain") == 0) {
            drained++;
            proxy_expect_field(&proxy, "close", i, "how", "admin");
            proxy_expect_field(&proxy, "close", i, "closed_by", "proxy");
        } else {
            proxy_expect_field(&proxy, "close", i, "how", "fin");
        }
    }
    cr_assert(drained == PAIRS - FINISHING);
    peer_close(origin);
    expect_end_of(&proxy, PAIRS);
}

/* HC-09: a connection that is cut at the deadline still delivers what sluice has received: the
 * client reads slowly, with a small window, and the deadline comes in the middle. */
Test(draining, delivers_what_was_received_before_it_cuts)
{
    enum { LEN = 200000 };
    struct peer_task receiver = {.key = 1, .to_end = true, .chunk_max = 8192, .pause_us = 4000};
    struct proxy proxy;
    int client;
    int server;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--drain-timeout", "50ms", NULL});
    client = peer_connect_small(proxy.ip, PROXY_PORT, 16384, 16384);
    server = peer_accept(origin);
    receiver.fd = client;
    peer_send(server, 1, 0, LEN);
    peer_start_receiving(&receiver);
    send_signal(&proxy, SIGTERM);
    peer_join(&receiver);
    cr_assert(receiver.end == PEER_RESET && receiver.len == LEN, "%llu bytes came",
              (unsigned long long)receiver.len);
    proxy_wait_event(&proxy, "close", 1);
    proxy_expect_field(&proxy, "close", 0, "reason", "drain");
    cr_assert(proxy_number(&proxy, "close", 0, "undelivered_bytes") == 0);
    peer_close(client);
    peer_close(server);
    peer_close(origin);
    expect_end_of(&proxy, 1);
}

/* RL-04: the second signal ends everything at once, whatever the first one promised. */
Test(draining, a_second_signal_stops_at_once)
{
    static const int signals[][2] = {{SIGTERM, SIGTERM}, {SIGINT, SIGINT},  {SIGQUIT, SIGQUIT},
                                     {SIGTERM, SIGINT},  {SIGINT, SIGTERM}, {SIGTERM, SIGQUIT}};
    enum { AT_ONCE_MS = 1500 };

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct proxy proxy;
        struct pair pair;
        uint64_t start_ms;
        int origin;

        proxy_init(&proxy);
        origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
        proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
        pair = pair_open(&proxy, origin);
        pair_exchange(&pair, 1);
        send_signal(&proxy, signals[i][0]);
        proxy_wait_event(&proxy, "drain", 1);
        cr_assert(proxy_count_event(&proxy, "stop") == 0);
        start_ms = monotonic_ms();
        send_signal(&proxy, signals[i][1]);
        proxy_wait_event(&proxy, "stop", 1);
        pair_expect_reset(&pair);
        proxy_wait_event(&proxy, "end", 1);
        cr_assert(monotonic_ms() - start_ms < AT_ONCE_MS);
        proxy_expect_field(&proxy, "close", 0, "reason", "drain");
        pair_close(&pair);
        peer_close(origin);
        expect_end_of(&proxy, 1);
    }
}

/* QUIT drains without a deadline: a connection outlives drain-timeout many times, works, and its
 * end is the end of sluice. */
Test(draining, quit_waits_for_the_last_connection)
{
    struct proxy proxy;
    struct pair pair;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--drain-timeout", "50ms", NULL});
    pair = pair_open(&proxy, origin);
    pair_exchange(&pair, 1);
    send_signal(&proxy, SIGQUIT);
    proxy_wait_event(&proxy, "drain", 1);
    wait_until_closed(&proxy);
    pause_ms(500); /* that nothing happens takes time to see */
    pair_exchange(&pair, 3);
    peer_shut(pair.client);
    peer_expect_end(pair.server, PEER_FIN);
    pair_close(&pair);
    proxy_wait_event(&proxy, "close", 1);
    proxy_expect_field(&proxy, "close", 0, "how", "fin");
    peer_close(origin);
    expect_end_of(&proxy, 1);
}

/* TERM after QUIT does not stop at once: it gives the drain the deadline that QUIT left out. */
Test(draining, term_after_quit_sets_the_deadline)
{
    struct proxy proxy;
    struct pair pair;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--drain-timeout", "400ms", NULL});
    pair = pair_open(&proxy, origin);
    send_signal(&proxy, SIGQUIT);
    proxy_wait_event(&proxy, "drain", 1);
    send_signal(&proxy, SIGTERM);
    proxy_wait_event(&proxy, "drain", 2);
    pair_exchange(&pair, 1);
    pair_expect_reset(&pair);
    proxy_wait_event(&proxy, "close", 1);
    proxy_expect_field(&proxy, "close", 0, "reason", "drain");
    cr_assert(proxy_count_event(&proxy, "stop") == 0);
    pair_close(&pair);
    peer_close(origin);
    expect_end_of(&proxy, 1);
}

/* Clients that wait in the accept queue when TERM comes have been told that they are connected:
 * they are served. Method: the worker is stopped while 100 of them queue up, more than one
 * batch. */
Test(draining, serves_the_accept_queue_before_it_drains)
{
    enum { CLIENTS = 100 };
    int clients[CLIENTS];
    struct proxy proxy;
    pid_t worker;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    worker = only_worker(&proxy);
    freeze(worker);
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = peer_connect(proxy.ip, PROXY_PORT);
        peer_send(clients[i], 1, 0, 100);
        peer_shut(clients[i]);
    }
    send_signal(&proxy, SIGTERM);
    pause_ms(50); /* the master tells the worker, which can't say so */
    thaw(worker);
    for (size_t i = 0; i < CLIENTS; i++) {
        int server = peer_accept(origin);

        peer_expect(server, 1, 0, 100);
        peer_expect_end(server, PEER_FIN);
        peer_send(server, 2, 0, 100);
        peer_close(server);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        peer_expect(clients[i], 2, 0, 100);
        peer_expect_end(clients[i], PEER_FIN);
        peer_close(clients[i]);
    }
    proxy_wait_event(&proxy, "close", CLIENTS);
    peer_close(origin);
    expect_end_of(&proxy, CLIENTS);
}

/* A worker that no longer obeys is killed after a short grace, and its connection is booked. */
Test(draining, kills_a_worker_that_does_not_stop)
{
    struct proxy proxy;
    struct pair pair;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    pair = pair_open(&proxy, origin);
    freeze(only_worker(&proxy));
    send_signal(&proxy, SIGTERM);
    proxy_wait_event(&proxy, "drain", 1);
    send_signal(&proxy, SIGTERM);
    pair_expect_reset(&pair);
    proxy_wait_event(&proxy, "worker-died", 1);
    proxy_expect_field(&proxy, "worker-died", 0, "signal", "KILL");
    cr_assert(proxy_number(&proxy, "worker-died", 0, "connections_lost") == 1);
    pair_close(&pair);
    peer_close(origin);
    cr_assert(proxy_stop(&proxy, 0) == 0);
    expect_stopped(&proxy, 0, 1);
}

/* A terminal's Ctrl-C and a supervisor's TERM go to every process of the group. They count once:
 * the transfer in flight still finishes. */
Test(draining, a_signal_to_the_whole_group_counts_once)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGQUIT};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct proxy proxy;
        struct pair pair;
        int origin;

        proxy_init(&proxy);
        proxy.in_child = own_group;
        origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
        proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
        pair = pair_open(&proxy, origin);
        pair_exchange(&pair, 1);
        cr_assert(kill(-proxy.pid, signals[i]) == 0);
        proxy_wait_event(&proxy, "drain", 1);
        wait_until_closed(&proxy);
        pair_exchange(&pair, 3);
        peer_shut(pair.client);
        peer_expect_end(pair.server, PEER_FIN);
        pair_close(&pair);
        proxy_wait_event(&proxy, "end", 1);
        proxy_expect_field(&proxy, "close", 0, "how", "fin");
        cr_assert(proxy_count_event(&proxy, "drain") == 1, "%s", proxy.log);
        cr_assert(proxy_count_event(&proxy, "stop") == 0, "%s", proxy.log);
        cr_assert(proxy_count_event(&proxy, "worker-died") == 0, "%s", proxy.log);
        peer_close(origin);
        expect_end_of(&proxy, 1);
    }
}

/* HUP (a closed terminal) and USR1 (log rotation of others) change nothing, in any process. */
Test(draining, ignores_hup_and_usr1)
{
    pid_t before[PROXY_WORKERS_MAX + 1];
    pid_t after[PROXY_WORKERS_MAX + 1];
    struct proxy proxy;
    struct pair pair;
    size_t count;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
    pair = pair_open(&proxy, origin);
    count = proxy_child_pids(&proxy, before);
    cr_assert(count == 3);
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < count; i++) {
            cr_assert(kill(before[i], round % 2 == 0 ? SIGHUP : SIGUSR1) == 0);
        }
        send_signal(&proxy, round % 2 == 0 ? SIGHUP : SIGUSR1);
    }
    pair_exchange(&pair, 1);
    pair_close(&pair);
    pair = pair_open(&proxy, origin);
    pair_exchange(&pair, 1);
    pair_close(&pair);
    cr_assert(proxy_child_pids(&proxy, after) == count);
    cr_assert(memcmp(before, after, count * sizeof(before[0])) == 0, "processes were replaced");
    peer_close(origin);
    proxy_finish(&proxy, 2);
}
