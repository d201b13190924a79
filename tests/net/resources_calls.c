/* Shortages in the middle of the service: a call that needs a descriptor or memory fails again and
 * again (injected into the running workers, see support/inject.h), or the kernel is really short.
 *
 * After such an error no event tells that the shortage is over. What is tried again must therefore
 * be tried by a timer; what is not must end with a visible error. In each test every client is
 * served in the end, or reset with a record that says `limit`; nobody hangs, nothing spins, and the
 * counters balance (proxy_finish()). */
#include "support/ends.h"
#include "support/exchange.h"
#include "support/inject.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CLIENTS = 12, BULK_BYTES = 512 * 1024, WAIT_MS = 30000, CALM_MS = 300 };

struct shortage {
    const char *name;
    int call;
    int errors[5]; /* ends with 0 */
    const char *splice;
};

/* One connection is established before; while every second or third call fails, it moves bulk, and
 * twelve clients come, move bulk, and go. */
static void expect_all_served(const struct shortage *shortage, int error, unsigned every)
{
    struct inject_fault fault = {shortage->call, error, INJECT_CHILDREN, 1, every, INJECT_ANY, 0};
    struct proxy proxy;
    struct pair before;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
    inject_watch(&proxy, &shortage->call, 1);
    proxy_start_simple(&proxy, (const char *const[]){"--splice", shortage->splice, NULL});
    before = pair_open(&proxy, origin);
    inject_arm(&fault);
    exchange(&before, BOTH_AT_ONCE, 900, BULK_BYTES);
    for (uint64_t i = 0; i < CLIENTS; i++) {
        struct pair pair = pair_open(&proxy, origin);

        exchange(&pair, (enum order)(i % ORDERS), 10 * i, BULK_BYTES);
        pair_close(&pair);
    }
    cr_assert(inject_hits() > 0, "%s was never called", shortage->name);
    inject_disarm();
    pair_close(&before);
    for (size_t i = 0; i <= CLIENTS; i++) {
        proxy_wait_event(&proxy, "close", i + 1);
        cr_assert(proxy_number(&proxy, "close", i, "bytes_up") == BULK_BYTES);
        cr_assert(proxy_number(&proxy, "close", i, "bytes_down") == BULK_BYTES);
    }
    (void)fprintf(stderr, "  %-8s %-12s every %u: %u of %u calls failed, all served\n",
                  shortage->name, strerrorname_np(error), every, inject_hits(), inject_seen());
    peer_close(origin);
    proxy_finish(&proxy, CLIENTS + 1);
    inject_wait_for_end();
}

static void expect_all_served_in_each(const struct shortage shortages[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; shortages[i].errors[k] != 0; k++) {
            expect_all_served(&shortages[i], shortages[i].errors[k], 2 + k % 2);
        }
    }
}

/* RX-03: accepting, and the sockets for servers, fail for want of descriptors or memory. */
Test(resources, every_client_is_served_though_descriptors_keep_running_out)
{
    static const struct shortage shortages[] = {
        {"accept4", SYS_accept4, {EMFILE, ENFILE, ENOMEM, ECONNABORTED}, "auto"},
        {"socket", SYS_socket, {EMFILE, ENFILE, ENOBUFS, ENOMEM}, "auto"},
    };

    expect_all_served_in_each(shortages, 2);
}

/* RX-03: no pipe, or a small one: then it is copied. */
Test(resources, bulk_is_copied_when_there_is_no_pipe)
{
    static const struct shortage shortages[] = {
        {"pipe2", SYS_pipe2, {EMFILE, ENFILE}, "always"},
        {"fcntl", SYS_fcntl, {EPERM, ENOMEM}, "always"}, /* resizing, reading the size */
    };

    expect_all_served_in_each(shortages, 2);
}

/* RX-06: a socket has no memory for the moment, a signal comes, or a page can't be moved. */
Test(resources, a_transfer_goes_on_by_itself_after_a_shortage_of_memory)
{
    static const struct shortage shortages[] = {
        {"sendto", SYS_sendto, {ENOMEM, ENOBUFS, EINTR}, "never"},
        {"recvfrom", SYS_recvfrom, {ENOMEM, ENOBUFS, EINTR}, "never"},
        {"splice", SYS_splice, {ENOMEM, ENOBUFS, EINTR, EINVAL}, "always"},
    };

    expect_all_served_in_each(shortages, 3);
}

/* RX-06: the same with a single message on a silent connection: no event of anything else comes to
 * help, so the timer has to. */
Test(resources, a_single_message_gets_through_after_a_shortage_of_memory)
{
    static const struct shortage shortages[] = {
        {"sendto", SYS_sendto, {ENOMEM, ENOBUFS}, "never"},
        {"recvfrom", SYS_recvfrom, {ENOMEM, ENOBUFS}, "never"},
        {"splice", SYS_splice, {ENOMEM, ENOBUFS}, "always"},
    };

    for (size_t i = 0; i < 6; i++) {
        const struct shortage *shortage = &shortages[i / 2];
        struct inject_fault fault = {
            shortage->call, shortage->errors[i % 2], INJECT_CHILDREN, 1, 0, INJECT_ANY, 0};
        struct proxy proxy;
        struct pair pair;
        int origin;

        proxy_init(&proxy);
        origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
        inject_watch(&proxy, &shortage->call, 1);
        proxy_start_simple(&proxy, (const char *const[]){"--splice", shortage->splice, NULL});
        pair = pair_open(&proxy, origin);
        pair_exchange(&pair, 1);
        inject_arm(&fault);
        peer_send(pair.client, 2, 0, 100);
        peer_expect(pair.server, 2, 0, 100);
        cr_assert(inject_hits() == 1, "%s was not called", shortage->name);
        pair_end(&pair);
        peer_close(origin);
        proxy_finish(&proxy, 1);
        inject_wait_for_end();
    }
}

/* RX-06: the very first memory for connections can't be had; the timer asks again. */
Test(resources, the_first_client_waits_for_memory)
{
    static const int call = SYS_mmap;
    struct inject_fault fault = {call, ENOMEM, INJECT_CHILDREN, 1, 1, INJECT_ANY, 0};
    struct proxy proxy;
    struct pair pair;
    int origin;

#ifdef __SANITIZE_ADDRESS__
    cr_skip_test("AddressSanitizer maps memory itself, and does not survive a refusal");
#endif
    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
    inject_watch(&proxy, &call, 1);
    proxy_start_simple(&proxy, NULL);
    inject_arm(&fault);
    pair.client = peer_connect(proxy.ip, PROXY_PORT);
    proxy_wait_event(&proxy, "accept-paused", 1);
    proxy_expect_field(&proxy, "accept-paused", 0, "cause", strerror(ENOMEM));
    cr_assert(!peer_readable(origin, CALM_MS), "served without memory");
    inject_disarm();
    pair.server = peer_accept(origin);
    pair_exchange(&pair, 1);
    pair_end(&pair);
    peer_close(origin);
    proxy_finish(&proxy, 1);
    inject_wait_for_end();
}

/* --- a limit met by one connection --- */

/* What becomes of a client: true if it is served to the end, false if it is reset. The server speaks
 * first, so that the client's only word on it is what it reads. */
static bool is_served(int client, int origin)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    struct pair pair = {.client = client, .server = -1};
    char byte;

    while (!peer_readable(client, 1)) {
        cr_assert(monotonic_ms() < deadline, "neither served nor reset");
        if (pair.server < 0 && peer_readable(origin, 0)) {
            pair.server = peer_accept(origin);
            (void)peer_send_until_error(pair.server, 5, 100); /* it may be reset already */
        }
    }
    if (recv(client, &byte, 1, MSG_PEEK) == 1) {
        peer_expect(client, 5, 0, 100);
        pair_exchange(&pair, 7);
        pair_end(&pair);
        return true;
    }
    cr_assert(errno == ECONNRESET, "%s", strerror(errno));
    peer_close(client);
    if (pair.server >= 0) {
        peer_close(pair.server);
    }
    while (peer_readable(origin, 0)) {
        peer_close(peer_accept(origin)); /* reached before the other leg failed */
    }
    return false;
}

/* RX-08: the kernel's limit on watched descriptors. It falls on single connections, on the client of
 * the first (every fourth call, of two for each connection) and on servers of others: those end with
 * a reset and a record with the reason; all others, and those that come later, are served. */
Test(resources, a_connection_that_cannot_be_watched_ends_with_a_record)
{
    static const int errors[] = {ENOSPC, ENOMEM};
    static const int call = SYS_epoll_ctl;

    for (size_t k = 0; k < 2; k++) {
        struct inject_fault fault = {call, errors[k], INJECT_CHILDREN, 1, 4, 1, EPOLL_CTL_ADD};
        struct proxy proxy;
        size_t served = 0;
        size_t limited = 0;
        int origin;

        proxy_init(&proxy);
        origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
        inject_watch(&proxy, &call, 1);
        proxy_start_simple(&proxy, NULL);
        inject_arm(&fault);
        for (uint64_t i = 0; i < CLIENTS; i++) {
            served += is_served(peer_connect(proxy.ip, PROXY_PORT), origin);
        }
        inject_disarm();
        proxy_wait_event(&proxy, "close", CLIENTS);
        for (size_t i = 0; i < CLIENTS; i++) {
            char reason[PROXY_FIELD_BYTES];

            proxy_field(&proxy, "close", i, "reason", reason);
            if (strcmp(reason, "limit") == 0) {
                proxy_expect_field(&proxy, "close", i, "errno", strerrorname_np(errors[k]));
                limited++;
            }
        }
        cr_assert(inject_hits() >= 4, "%u calls failed", inject_hits());
        cr_assert(served > 0 && limited > 0 && served + limited == CLIENTS,
                  "%zu served, %zu with reason limit:\n%s", served, limited, proxy.log);
        peer_close(origin);
        proxy_finish(&proxy, CLIENTS);
        inject_wait_for_end();
    }
}

/* --- real limits --- */

static char group_path[96]; /* for enter_group(), which takes no argument */

static void enter_group(void)
{
    char path[128];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/cgroup.procs", group_path);
    file = fopen(path, "we");
    if (file == NULL || fprintf(file, "%d\n", getpid()) < 0 || fclose(file) != 0) {
        _exit(126);
    }
}

static bool write_to_group(const char *name, const char *value)
{
    char path[160];
    FILE *file;
    bool written;

    (void)snprintf(path, sizeof(path), "%s/%s", group_path, name);
    file = fopen(path, "we");
    written = file != NULL && fputs(value, file) >= 0;
    return file != NULL && fclose(file) == 0 && written;
}

static void make_group(void)
{
    (void)snprintf(group_path, sizeof(group_path), "/sys/fs/cgroup/memory/sluice-test-%d",
                   getpid());
    if (mkdir(group_path, 0755) < 0) {
        cr_skip_test("no memory cgroup (v1) can be made here: %s", strerror(errno));
    }
}

/* RX-06: all sockets of sluice together may hold 128 KiB. Sixteen transfers at once go on all the
 * same, slowly, and each byte arrives. */
Test(resources, transfers_go_on_with_hardly_any_memory_for_sockets)
{
    enum { PAIRS = 16, BYTES = 128 * 1024 };
    struct peer_task senders[PAIRS];
    struct peer_task receivers[PAIRS];
    struct pair pairs[PAIRS];
    struct proxy proxy;
    uint64_t deadline;
    int origin;

    need_root();
    make_group();
    if (!write_to_group("memory.kmem.tcp.limit_in_bytes", "131072")) {
        (void)rmdir(group_path);
        cr_skip_test("no limit on TCP memory for cgroups here");
    }
    proxy_init(&proxy);
    proxy.in_child = enter_group;
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 64);
    proxy_start_simple(&proxy, NULL);
    for (size_t i = 0; i < PAIRS; i++) {
        pairs[i] = pair_open(&proxy, origin);
        senders[i] =
            (struct peer_task){.fd = pairs[i].client, .key = i, .len = BYTES, .shut_after = true};
        receivers[i] = (struct peer_task){.fd = pairs[i].server, .key = i, .to_end = true};
        peer_start_sending(&senders[i]);
        peer_start_receiving(&receivers[i]);
    }
    for (size_t i = 0; i < PAIRS; i++) {
        peer_join(&senders[i]);
        join_receiving(&receivers[i], BYTES);
        peer_shut(pairs[i].server);
        peer_expect_end(pairs[i].client, PEER_FIN);
        pair_close(&pairs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, PAIRS);
    deadline = monotonic_ms() + WAIT_MS;
    while (rmdir(group_path) < 0) { /* the last charge of a socket is given back a moment later */
        cr_assert(errno == EBUSY && monotonic_ms() < deadline, "rmdir: %s", strerror(errno));
        pause_ms(10);
    }
}
