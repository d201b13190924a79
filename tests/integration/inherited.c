/* What sluice inherits from whoever starts it: a shell, a supervisor, a container's first process.
 *
 * Signal dispositions and masks survive execve(2), so a careless parent's are sluice's from the
 * start. It must not matter. */
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <unistd.h>

enum { BACKLOG = 16 };

static void ignore_children(void)
{
    (void)signal(SIGCHLD, SIG_IGN);
}

/* Bytes both ways through a sluice, then a clean end. */
static void expect_service(const struct proxy *proxy, int origin)
{
    struct pair pair = pair_open(proxy, origin);

    pair_exchange(&pair, 1);
    pair_end(&pair);
}

/* A parent that ignores SIGCHLD (a common way to be rid of zombies): the kernel would then reap the
 * children itself and tell nobody. A dead worker is noticed and replaced all the same. */
Test(processes, notices_deaths_even_if_started_with_sigchld_ignored)
{
    pid_t workers[PROXY_WORKERS_MAX];
    struct proxy proxy;
    pid_t victim;
    int origin;

    proxy_init(&proxy);
    proxy.in_child = ignore_children;
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){NULL});
    cr_assert(proxy_worker_pids(&proxy, workers) == 1);
    victim = workers[0];
    cr_assert(kill(victim, SIGKILL) == 0);
    wait_for_workers(&proxy, victim, workers);
    proxy_wait_event(&proxy, "worker-died", 1);
    expect_service(&proxy, origin);
    proxy_finish(&proxy, 1);
    (void)close(origin);
}
