/* RX-07: each allocation of the start fails, one after the other, and all behind it as well in a
 * second pass. sluice refuses with a status that is not 0 and a message about memory, or says that
 * its workers can't start and goes on trying, or serves. It never crashes and never hangs.
 *
 * Without --user: looking up a user, glibc 2.36 itself does not survive a failed allocation.
 * After the start nothing is allocated with malloc; the memory of connections is mapped, and its
 * shortage is a test of resources_calls.c. */
#include "support/ends.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"
#include "support/shim.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALLOCATIONS_MAX = 400, WAIT_MS = 30000 };

enum fate { REFUSED, WORKERS_FAIL, SERVED, FATES };

/* For preload(), which takes no argument. */
static char shim[SHIM_PATH_BYTES];
static char mark[64];
static char number[16];
static bool lasts;

static void preload(void)
{
    (void)setenv("LD_PRELOAD", shim, 1);
    (void)setenv("MALLOC_FAILS_AT", number, 1);
    (void)setenv("MALLOC_FAILS_MARK", mark, 1);
    if (lasts) {
        (void)setenv("MALLOC_FAILS_ON", "1", 1);
    }
}

static void serve_one(struct proxy *proxy, int origin)
{
    struct pair pair = pair_open(proxy, origin);

    pair_exchange(&pair, 1);
    pair_end(&pair);
}

static enum fate watch_fate(struct proxy *proxy, int origin)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    enum fate fate = REFUSED;

    while (proxy_read_log(proxy, 20)) {
        cr_assert(monotonic_ms() < deadline, "allocation %s: neither refused nor served:\n%s",
                  number, proxy->log);
        if (strstr(proxy->log, "worker-start-failed") != NULL) {
            fate = WORKERS_FAIL;
            break;
        }
        if (strstr(proxy->log, " start ") != NULL) {
            pid_t pids[PROXY_WORKERS_MAX];

            if (proxy_worker_pids(proxy, pids) == 1 && process_state(pids[0]) == 'S') {
                fate = SERVED;
                break;
            }
        }
    }
    if (fate == SERVED) {
        serve_one(proxy, origin);
    }
    return fate;
}

/* Runs with the number-th allocation failing; false if there is no such allocation. */
static bool run_once(unsigned counts[FATES])
{
    struct proxy proxy;
    enum fate fate;
    bool met;
    int origin;
    int status;

    proxy_init(&proxy);
    proxy.in_child = preload;
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    proxy_launch(&proxy,
                 (const char *const[]){"--workers", "1", proxy.arg, "--pipe-size", "128k", NULL});
    fate = watch_fate(&proxy, origin);
    status = fate == REFUSED ? proxy_wait_for_end(&proxy) : proxy_stop(&proxy, SIGTERM);
    met = access(mark, F_OK) == 0;
    (void)unlink(mark);
    if (fate == REFUSED) {
        cr_assert(met && (status == 1 || status == 2 || status == 78),
                  "allocation %s: status %d:\n%s", number, status, proxy.log);
        cr_assert(strstr(proxy.log, "sluice: ") != NULL && strstr(proxy.log, "emory") != NULL,
                  "allocation %s: no word about memory:\n%s", number, proxy.log);
    } else {
        cr_assert(status == 0, "allocation %s: status %d:\n%s", number, status, proxy.log);
    }
    if (fate == WORKERS_FAIL) {
        proxy_expect_field(&proxy, "worker-start-failed", 0, "error", "Cannot allocate memory");
    }
    counts[fate] += met;
    free(proxy.log);
    peer_close(origin);
    return met;
}

static void fail_each_allocation(void)
{
    unsigned counts[FATES] = {0};
    unsigned i = 0;

    shim_find("malloc_fails", shim);
    (void)snprintf(mark, sizeof(mark), "/tmp/sluice-malloc.%d", getpid());
    do {
        cr_assert(++i < ALLOCATIONS_MAX);
        (void)snprintf(number, sizeof(number), "%u", i);
    } while (run_once(counts));
    (void)fprintf(stderr, "  %u allocations%s: refused %u, workers can't start %u, served %u\n",
                  i - 1, lasts ? ", and all behind" : "", counts[REFUSED], counts[WORKERS_FAIL],
                  counts[SERVED]);
    cr_assert(counts[REFUSED] > 0 && counts[WORKERS_FAIL] > 0);
}

Test(resources, one_failed_allocation_is_refused_or_survived)
{
    lasts = false;
    fail_each_allocation();
}

Test(resources, no_memory_from_some_allocation_on_is_refused_or_told)
{
    lasts = true;
    fail_each_allocation();
}
