/* Many connections: what an idle one costs, and what is left when they have gone.
 *
 * Numbers are bounded by the descriptors of this machine: one connection takes two of this process
 * and two of sluice's worker. */
#include "support/ends.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
enum { MANY = 1500, CHURN = 3000 };
#else
enum { MANY = 2500, CHURN = 10000 };
#endif

/* RX-11: connections that have moved bytes and are idle since. sluice holds no pipe for them and no
 * buffer, each costs it less than a KiB of its own memory (384 bytes), it uses no CPU, and is not
 * woken up once. Their number is bounded by debug builds, which look at each again and again. */
Test(resources, idle_connections_cost_a_record_each_and_nothing_else)
{
    enum { WARM = 100, WATCHED_MS = 1500, LOOK_MS = 1000, LOOK_CPU_MS = 30, BYTES_MAX = 1024 };
    static struct pair pairs[MANY];
    char before[PROCFS_VALUE_BYTES];
    char after[PROCFS_VALUE_BYTES];
    struct proxy proxy;
    uint64_t warm_kib = 0;
    uint64_t kib;
    uint64_t cpu_ms;
    size_t pipes;
    pid_t worker;
    int origin;

    need_descriptors(2 * MANY + 100);
    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
    proxy_start_simple(&proxy, NULL);
    worker = only_worker(&proxy);
    pipes = count_targets(worker, "pipe:"); /* control, log */
    for (size_t i = 0; i < MANY; i++) {
        if (i == WARM) {
            warm_kib = proxy_pss_kib(&proxy);
        }
        pairs[i] = pair_open(&proxy, origin);
        pair_exchange(&pairs[i], i);
    }
    kib = proxy_pss_kib(&proxy);
    cr_assert((kib - warm_kib) * 1024 <= (uint64_t)BYTES_MAX * (MANY - WARM), "%llu to %llu KiB",
              (unsigned long long)warm_kib, (unsigned long long)kib);
    (void)fprintf(stderr, "  %d idle connections: %llu bytes each\n", MANY,
                  (unsigned long long)((kib - warm_kib) * 1024 / (MANY - WARM)));
    cr_assert(count_targets(worker, "pipe:") == pipes, "it holds pipes for them");
    pause_ms(WATCHED_MS); /* after a second each has its server's leg watched, once */
    read_status(worker, "voluntary_ctxt_switches", before);
    cpu_ms = proxy_cpu_ms(&proxy);
    pause_ms(LOOK_MS);
    cpu_ms = proxy_cpu_ms(&proxy) - cpu_ms;
    read_status(worker, "voluntary_ctxt_switches", after);
    cr_assert(cpu_ms <= LOOK_CPU_MS, "%llu ms of CPU", (unsigned long long)cpu_ms);
    cr_assert(strcmp(before, after) == 0, "woken up while idle: %s to %s", before, after);
    for (size_t i = 0; i < MANY; i++) {
        pair_exchange(&pairs[i], i + 1);
        pair_end(&pairs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, MANY);
}

/* RX-12: connections come and go, 20 at a time. Memory does not grow after the first thousand, and
 * no descriptor stays. */
Test(resources, connections_that_come_and_go_leave_no_memory_behind)
{
    enum { AT_ONCE = 20, WARM = 1000, GROWTH_KIB = 256 };
    struct pair pairs[AT_ONCE];
    struct proxy proxy;
    uint64_t warm_kib = 0;
    uint64_t kib;
    int highest = 0;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
    proxy_start_simple(&proxy, NULL);
    for (size_t done = 0; done < CHURN; done += AT_ONCE) {
        if (done == WARM) {
            warm_kib = proxy_pss_kib(&proxy);
            highest = highest_descriptor(only_worker(&proxy));
        }
        for (size_t i = 0; i < AT_ONCE; i++) {
            pairs[i] = pair_open(&proxy, origin);
        }
        for (size_t i = 0; i < AT_ONCE; i++) {
            if (i % 4 == 0) { /* some by a reset, since that has a way of its own */
                peer_reset(pairs[i].client);
                peer_expect_end(pairs[i].server, PEER_RESET);
                peer_close(pairs[i].server);
            } else {
                pair_exchange(&pairs[i], i);
                pair_end(&pairs[i]);
            }
        }
        (void)proxy_read_log(&proxy, 0); /* so that its pipe never fills */
    }
    kib = proxy_pss_kib(&proxy);
    cr_assert(kib <= warm_kib + GROWTH_KIB, "%llu KiB after %d, %llu after %d",
              (unsigned long long)warm_kib, WARM, (unsigned long long)kib, CHURN);
    cr_assert(highest_descriptor(only_worker(&proxy)) <= highest + AT_ONCE);
    peer_close(origin);
    proxy_finish(&proxy, CHURN);
}

/* RX-10: the kernel keeps no more than two connections in TIME_WAIT and drops the rest at once.
 * sluice, which meets the next connection between the same addresses, serves all. */
Test(resources, few_places_for_time_wait_are_no_hindrance)
{
    enum { CONNECTIONS = 500 };
    struct proxy proxy;
    int origin;

    netns_enter();
    netns_set("tcp_max_tw_buckets", "2");
    netns_set("ip_local_port_range", "20000 20099");
    netns_set("tcp_tw_reuse", "1");
    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
    proxy_start_simple(&proxy, NULL);
    for (uint64_t i = 0; i < CONNECTIONS; i++) {
        struct pair pair = pair_open(&proxy, origin);

        pair_exchange(&pair, i);
        pair_end(&pair);
    }
    cr_assert(netns_counter("TCPTimeWaitOverflow") > 0, "there were places enough");
    peer_close(origin);
    proxy_finish(&proxy, CONNECTIONS);
}
