/* Every system call of master, monitor and workers at start, at the start of a successor and at the
 * end fails once: the first one, the second one, and so on until there is none left to fail.
 *
 *      start ---------> serve ---------> kill -9 of a worker ----> serve ---------> TERM ----> gone
 *      [PHASE_START]                     [PHASE_RESPAWN]                            [PHASE_STOP]
 *
 * Two outcomes are right. REFUSED (at start only): a documented status that is not 0, a message with
 * the reason, no process, no socket file, no listening port. SERVED: both listeners work, with as
 * many workers as were asked for; connections of the worker that was not touched go on; the end is
 * clean, status 0, and the counters balance.
 *
 * sluice runs here in a network of its own, since it listens on every address; as root with --user,
 * since giving up root is part of the path. The connections that prove the service are made while
 * nothing is injected: what a failing call does to a connection is the matter of other tests. */
#include "process_faults.h"

#include "support/ends.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    WAIT_MS = 30000,
    WORKERS = 2,
    PAIRS = 8,      /* enough that each worker has one */
    TRIES_MAX = 200 /* no call is made more often in a phase */
};

#ifdef __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static const char *const phase_names[PHASES] = {"start", "respawn", "stop"};

struct run {
    struct proxy proxy;
    const struct fault_row *row;
    struct inject_fault fault;
    enum phase phase;
    const char *says;
    char directory[64];
    char socket_path[96];
    int origin;
    size_t connections;
    bool hit;
    bool hit_master;
};

/* What a failing assertion shows. */
static const char *describe(const struct run *run)
{
    static char text[160];

    (void)snprintf(text, sizeof(text), "%s: %s number %u fails with %s (%s)",
                   phase_names[run->phase], run->row->name, run->fault.nth,
                   strerrorname_np(run->fault.error), run->hit ? "met" : "not met");
    return text;
}

/* --- serving --- */

/* The number of the system call in which a process waits, -1: it runs. */
static long waits_in(pid_t pid)
{
    char path[64];
    long number = -1;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
    file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%ld", &number) != 1) {
            number = -1;
        }
        (void)fclose(file);
    }
    return number;
}

/* In its main loop: a worker that waits there has started. */
static bool is_in_epoll_wait(pid_t pid)
{
    long number = waits_in(pid);

    return number == SYS_epoll_wait || number == SYS_epoll_pwait;
}

/* Waits until all workers serve, none of them `not_this`, and the master has said so; false when
 * sluice has ended instead. */
static bool wait_until_serving(struct run *run, pid_t not_this)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    size_t serving;

    do {
        pid_t pids[PROXY_WORKERS_MAX + 1];
        size_t count = proxy_child_pids(&run->proxy, pids); /* by name it might not have one */

        serving = 0;
        for (size_t i = 0; i < count; i++) {
            serving += pids[i] != not_this && is_in_epoll_wait(pids[i]);
        }
        if (!proxy_read_log(&run->proxy, 2)) {
            return false;
        }
        cr_assert(monotonic_ms() < deadline, "%s: %zu of %d workers serve; the log:\n%s",
                  describe(run), serving, WORKERS, run->proxy.log);
    } while (serving < WORKERS || waits_in(run->proxy.pid) != SYS_rt_sigtimedwait);
    return true;
}

static void serve_some(struct run *run)
{
    for (uint64_t i = 0; i < PAIRS / 2; i++) { /* IPv4, unix, IPv6 */
        struct pair pair = pair_open(&run->proxy, run->origin);

        pair_exchange(&pair, i);
        pair_end(&pair);
        pair.client = peer_connect_unix(run->socket_path);
        pair.server = peer_accept(run->origin);
        pair_exchange(&pair, i);
        pair_end(&pair);
        pair.client = peer_connect("::1", PROXY_PORT);
        pair.server = peer_accept(run->origin);
        pair_exchange(&pair, i);
        pair_end(&pair);
        run->connections += 3;
    }
}

/* --- phases --- */

static void launch(struct run *run)
{
    char unix_arg[192];
    char tcp_arg[64];
    const char *arguments[] = {"--workers", "2", tcp_arg, unix_arg, "--user", "nobody", NULL};

    (void)snprintf(run->directory, sizeof(run->directory), "/tmp/sluice-faults.XXXXXX");
    cr_assert(mkdtemp(run->directory) != NULL);
    (void)snprintf(run->socket_path, sizeof(run->socket_path), "%s/in", run->directory);
    (void)snprintf(tcp_arg, sizeof(tcp_arg), ":%d=%s:%d", PROXY_PORT, run->proxy.ip, ORIGIN_PORT);
    (void)snprintf(unix_arg, sizeof(unix_arg), "unix:%s=%s:%d", run->socket_path, run->proxy.ip,
                   ORIGIN_PORT);
    inject_watch(&run->proxy, &run->fault.call, 1);
    if (run->phase == PHASE_START) {
        inject_arm(&run->fault);
    }
    proxy_launch(&run->proxy, arguments);
}

static void note_hits(struct run *run)
{
    inject_disarm();
    run->hit = inject_hits() > 0;
    run->hit_master = run->hit && inject_victim() == run->proxy.pid;
}

/* Which of the pairs were cut, which must be all of one worker's; the others work. */
static void expect_others_alive(struct run *run, struct pair pairs[])
{
    size_t lost = (size_t)proxy_number(&run->proxy, "worker-died", 0, "connections_lost");
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    size_t cut;

    do {
        cut = 0;
        for (size_t i = 0; i < PAIRS; i++) {
            cut += peer_readable(pairs[i].client, 0);
        }
        cr_assert(monotonic_ms() < deadline, "%s: %zu connections were cut, not %zu", describe(run),
                  cut, lost);
    } while (cut < lost);
    for (size_t i = 0; i < PAIRS; i++) {
        if (peer_readable(pairs[i].client, 0)) {
            pair_expect_reset(&pairs[i]);
            pair_close(&pairs[i]);
        } else {
            pair_exchange(&pairs[i], i);
            pair_end(&pairs[i]);
        }
    }
}

static void respawn(struct run *run)
{
    pid_t workers[PROXY_WORKERS_MAX];
    struct pair pairs[PAIRS];

    for (size_t i = 0; i < PAIRS; i++) {
        pairs[i] = pair_open(&run->proxy, run->origin);
        pair_exchange(&pairs[i], i);
    }
    run->connections += PAIRS;
    cr_assert(proxy_worker_pids(&run->proxy, workers) == WORKERS);
    if (run->phase == PHASE_RESPAWN) {
        inject_arm(&run->fault);
    }
    cr_assert(kill(workers[0], SIGKILL) == 0);
    cr_assert(wait_until_serving(run, workers[0]), "%s: sluice ended:\n%s", describe(run),
              run->proxy.log);
    if (run->phase == PHASE_RESPAWN) {
        note_hits(run);
    }
    if (!run->row->is_lossy) {
        proxy_wait_event(&run->proxy, "worker-died", 1);
        expect_others_alive(run, pairs);
        return;
    }
    for (size_t i = 0; i < PAIRS; i++) {
        pair_close(&pairs[i]);
    }
}

static bool is_port_open(void)
{
    return system("ss -Hltn sport = :8080 | grep -q .") == 0;
}

static void expect_nothing_left(struct run *run)
{
    bool is_there = access(run->socket_path, F_OK) == 0;

    inject_wait_for_end();
    cr_assert(!is_port_open(), "%s: somebody still listens", describe(run));
    cr_assert(!is_there || (run->row->leaves_file && run->hit), "%s: the socket file is left",
              describe(run));
    (void)unlink(run->socket_path);
    cr_assert(rmdir(run->directory) == 0);
    peer_close(run->origin);
}

static void expect_balance(struct run *run)
{
    struct proxy *proxy = &run->proxy;

    if (run->row->is_lossy) {
        return;
    }
    cr_assert(proxy_count_event(proxy, "start") == 1 && proxy_count_event(proxy, "end") == 1,
              "%s: lines are missing in the log:\n%s", describe(run), proxy->log);
    cr_assert(proxy_number(proxy, "end", 0, "connections_accepted") == run->connections,
              "%s: %zu connections\n%s", describe(run), run->connections, proxy->log);
    cr_assert(proxy_number(proxy, "end", 0, "connections_closed") == run->connections, "%s:\n%s",
              describe(run), proxy->log);
}

static void expect_refused(struct run *run)
{
    int status = proxy_wait_for_end(&run->proxy);
    const char *says = run->says != NULL ? run->says : strerror(run->fault.error);

    note_hits(run);
    cr_assert(run->hit, "%s: refused without cause:\n%s", describe(run), run->proxy.log);
    cr_assert(status == 1 || status == 78, "%s: status %d:\n%s", describe(run), status,
              run->proxy.log);
    cr_assert(strstr(run->proxy.log, "sluice: ") != NULL && strstr(run->proxy.log, says) != NULL,
              "%s: no message with \"%s\":\n%s", describe(run), says, run->proxy.log);
    cr_assert(proxy_count_event(&run->proxy, "start") == 0, "%s", run->proxy.log);
}

/* With one connection, which goes on to its end. There was none before: so the other worker looks
 * at its queue for the first time when it is to drain. */
static int stop_with_connection(struct run *run)
{
    struct pair pair = pair_open(&run->proxy, run->origin);
    int status;

    pair_exchange(&pair, 1);
    run->connections++;
    inject_arm(&run->fault);
    cr_assert(kill(run->proxy.pid, SIGTERM) == 0);
    if (!run->row->is_lossy) {
        proxy_wait_event(&run->proxy, "drain", 1);
    }
    pair_exchange(&pair, 2);
    pair_end(&pair);
    status = proxy_wait_for_end(&run->proxy);
    note_hits(run);
    return status;
}

static enum outcome run_once(struct run *run)
{
    int status;

    proxy_init(&run->proxy);
    run->origin = peer_listen(run->proxy.ip, ORIGIN_PORT, 64);
    launch(run);
    if (!wait_until_serving(run, 0)) {
        cr_assert(run->phase == PHASE_START, "%s: refused:\n%s", describe(run), run->proxy.log);
        expect_refused(run);
        expect_nothing_left(run);
        free(run->proxy.log);
        return OUTCOME_REFUSED;
    }
    if (run->phase == PHASE_START) {
        note_hits(run);
    }
    if (run->phase == PHASE_STOP) {
        status = stop_with_connection(run);
    } else {
        serve_some(run);
        if (run->phase == PHASE_RESPAWN) {
            respawn(run);
            serve_some(run);
        }
        status = proxy_stop(&run->proxy, SIGTERM);
    }
    cr_assert(status == 0, "%s: status %d:\n%s", describe(run), status, run->proxy.log);
    expect_balance(run);
    expect_nothing_left(run);
    free(run->proxy.log);
    return OUTCOME_SERVED;
}

/* --- the table --- */

static unsigned run_row(enum phase phase, const struct fault_row *row, size_t error_index)
{
    unsigned counts[OUTCOMES] = {0};
    unsigned of_master = 0;
    unsigned met = 0;
    struct run run;

    do {
        enum outcome outcome;

        cr_assert(met < TRIES_MAX, "%s is called without end", row->name);
        run = (struct run){
            .row = row,
            .phase = phase,
            .says = row->says[error_index],
            .fault = {row->call, row->errors[error_index], row->whose, met + 1, 0, INJECT_ANY, 0},
        };
        outcome = run_once(&run);
        cr_assert(outcome == OUTCOME_REFUSED || !run.hit || !row->refuses,
                  "%s: served all the same", describe(&run));
        if (run.hit) {
            counts[outcome]++;
            of_master += run.hit_master;
            met++;
        }
    } while (run.hit);
    (void)fprintf(stderr, "  %-8s %-14s %-12s met %3u (master %3u): refused %3u, served %3u\n",
                  phase_names[phase], row->name, strerrorname_np(row->errors[error_index]), met,
                  of_master, counts[OUTCOME_REFUSED], counts[OUTCOME_SERVED]);
    return met;
}

void run_fault_rows(enum phase phase, const struct fault_row rows[], size_t count)
{
    netns_enter();
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; rows[i].errors[k] != 0 && !(SANITIZED && rows[i].is_sanitizers); k++) {
            cr_assert(run_row(phase, &rows[i], k) > 0, "%s: %s is never called", phase_names[phase],
                      rows[i].name);
        }
    }
}

/* --- faults that last --- */

static const struct fault_row lasting_row = {.name = "(lasting)"};

static struct run begin_lasting(const struct lasting_fault *lasting)
{
    struct run run = {.row = &lasting_row, .fault = lasting->fault, .says = lasting->says};

    proxy_init(&run.proxy);
    run.origin = peer_listen(run.proxy.ip, ORIGIN_PORT, 64);
    return run;
}

void expect_refusal_of_lasting(const struct lasting_fault *lasting)
{
    struct run run;

    if (SANITIZED && lasting->fault.call == SYS_clone) {
        cr_skip_test("at its exit LeakSanitizer starts a process");
    }
    netns_enter();
    run = begin_lasting(lasting);
    launch(&run);
    while (proxy_read_log(&run.proxy, 100)) {
        cr_assert(!is_in_epoll_wait(run.proxy.pid));
    }
    expect_refused(&run);
    expect_nothing_left(&run);
    free(run.proxy.log);
}

/* Until it has been tried again, which takes three failures: two workers, and a successor. */
static void wait_for_failures(struct run *run)
{
    const char *error = strerror(run->fault.error);
    uint64_t deadline = monotonic_ms() + WAIT_MS;

    while (inject_hits() < 3 || strstr(run->proxy.log, run->says) == NULL ||
           strstr(run->proxy.log, error) == NULL) {
        cr_assert(proxy_read_log(&run->proxy, 10), "%s: sluice ended:\n%s", describe(run),
                  run->proxy.log);
        cr_assert(monotonic_ms() < deadline, "%s: failed %u times; no \"%s\", \"%s\" in\n%s",
                  describe(run), inject_hits(), run->says, error, run->proxy.log);
    }
}

void expect_survival_of_lasting(const struct lasting_fault *lasting)
{
    /* At its exit LeakSanitizer starts a process. */
    int first = SANITIZED && lasting->fault.call == SYS_clone ? 1 : 0;

    netns_enter();
    for (int is_over = first; is_over < 2; is_over++) {
        struct run run = begin_lasting(lasting);
        int status;

        launch(&run);
        wait_for_failures(&run);
        if (is_over) {
            inject_disarm();
            cr_assert(wait_until_serving(&run, 0), "%s: sluice ended:\n%s", describe(&run),
                      run.proxy.log);
            serve_some(&run);
        }
        status = proxy_stop(&run.proxy, SIGTERM);
        cr_assert(status == 0, "%s: status %d:\n%s", describe(&run), status, run.proxy.log);
        if (is_over) {
            expect_balance(&run);
        }
        expect_nothing_left(&run);
        free(run.proxy.log);
    }
}
