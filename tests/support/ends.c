/* The kernel's table is read in two ways, neither of which needs rights: /proc/net/tcp lists the
 * IPv4 sockets of this network namespace; sock_diag(7) tells the queues of one of them, without a
 * walk through the whole table. */
#include "support/ends.h"

#include "support/peer.h"
#include "support/procfs.h"
#include "support/stream.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
    WAIT_MS = PEER_WAIT_S * 1000,
    /* As often the same, 10 ms apart, means that nothing moves: longer than the 200 ms after which
     * TCP probes a window that is too small for a whole segment, and fills it. */
    SETTLE_LOOKS = 26,
    TCP_TIME_WAIT = 6,
    TCP_LISTENING = 10
};

const char *const splice_names[SPLICE_MODES] = {"auto", "always", "never"};

uint64_t monotonic_ms(void)
{
    struct timespec now;

    cr_assert(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void pause_ms(long ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    (void)nanosleep(&pause, NULL);
}

/* --- the close record --- */

void expect_reason(struct proxy *proxy, size_t index, const char *reason, const char *closed_by,
                   const char *how, const char *error)
{
    proxy_wait_event(proxy, "close", index + 1);
    proxy_expect_field(proxy, "close", index, "reason", reason);
    proxy_expect_field(proxy, "close", index, "closed_by", closed_by);
    proxy_expect_field(proxy, "close", index, "how", how);
    proxy_expect_field(proxy, "close", index, "errno", error != NULL ? error : "");
}

static void expect_number(const struct proxy *proxy, size_t index, const char *key, uint64_t value)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    proxy_expect_field(proxy, "close", index, key, text);
}

void expect_end(struct proxy *proxy, size_t index, const struct expected_end *expected)
{
    expect_reason(proxy, index, expected->reason, expected->closed_by, expected->how,
                  expected->error);
    expect_number(proxy, index, "bytes_up", expected->bytes_up);
    expect_number(proxy, index, "bytes_down", expected->bytes_down);
    expect_number(proxy, index, "undelivered_bytes", expected->undelivered_bytes);
}

double record_ms(const struct proxy *proxy, size_t index, const char *key)
{
    char value[PROXY_FIELD_BYTES];

    proxy_field(proxy, "close", index, key, value);
    cr_assert(value[0] != '\0', "%s is missing", key);
    return strtod(value, NULL) * 1000;
}

void expect_stopped(struct proxy *proxy, size_t records, size_t connections)
{
    if (proxy->running) {
        cr_assert(proxy_stop(proxy, SIGTERM) == 0, "sluice ended badly:\n%s", proxy->log);
    }
    cr_assert(proxy_count_event(proxy, "close") == records, "%zu records expected:\n%s", records,
              proxy->log);
    cr_assert(proxy_number(proxy, "end", 0, "connections_accepted") == connections);
    cr_assert(proxy_number(proxy, "end", 0, "connections_closed") == connections);
    cr_assert(proxy_number(proxy, "end", 0, "log_lines_dropped") == 0);
    free(proxy->log);
    proxy->log = NULL;
}

/* --- the kernel's table --- */

struct tcp_row {
    struct in_addr local_ip;
    struct in_addr remote_ip;
    unsigned local_port;
    unsigned remote_port;
    unsigned state;
};

static FILE *open_table(void)
{
    char line[256];
    FILE *table = fopen("/proc/thread-self/net/tcp", "re");

    cr_assert(table != NULL, "/proc/thread-self/net/tcp: %s", strerror(errno));
    cr_assert(fgets(line, sizeof(line), table) != NULL, "the heading is missing");
    return table;
}

static bool next_row(FILE *table, struct tcp_row *row)
{
    char line[256];

    if (fgets(line, sizeof(line), table) == NULL) {
        (void)fclose(table);
        return false;
    }
    cr_assert(sscanf(line, "%*d: %x:%x %x:%x %x", &row->local_ip.s_addr, &row->local_port,
                     &row->remote_ip.s_addr, &row->remote_port, &row->state) == 5,
              "a line of another form: %s", line);
    return true;
}

void wait_tcp_count(const char *ip, uint16_t port, enum tcp_place state, size_t count)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    in_addr_t wanted = inet_addr(ip);
    size_t found;

    do {
        FILE *table = open_table();
        struct tcp_row row;

        found = 0;
        while (next_row(table, &row)) {
            bool local = row.local_ip.s_addr == wanted && row.local_port == port;
            bool remote = row.remote_ip.s_addr == wanted && row.remote_port == port;

            found += (local || remote) && row.state == (unsigned)state;
        }
        cr_assert(monotonic_ms() < deadline, "%zu sockets of %s:%u in state %d, expected %zu",
                  found, ip, port, (int)state, count);
        if (found != count) {
            pause_ms(1);
        }
    } while (found != count);
}

size_t count_tcp(const char *ip)
{
    in_addr_t wanted = inet_addr(ip);
    FILE *table = open_table();
    struct tcp_row row;
    size_t count = 0;

    while (next_row(table, &row)) {
        bool ours = row.local_ip.s_addr == wanted || row.remote_ip.s_addr == wanted;

        count += ours && row.state != TCP_TIME_WAIT && row.state != TCP_LISTENING;
    }
    return count;
}

struct queues {
    uint64_t unread;
    uint64_t unacked;
};

static struct sockaddr_in own_address(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t len = sizeof(address);

    cr_assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0, "%s", strerror(errno));
    return address;
}

static struct sockaddr_in other_address(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t len = sizeof(address);

    cr_assert(getpeername(fd, (struct sockaddr *)&address, &len) == 0, "%s", strerror(errno));
    return address;
}

/* The queues of the socket that `fd` is connected with. */
static struct queues other_queues(int fd)
{
    struct sockaddr_in own = own_address(fd);
    struct sockaddr_in other = other_address(fd);
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } question = {
        .header = {.nlmsg_len = sizeof(question),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST},
        .request = {.sdiag_family = AF_INET,
                    .sdiag_protocol = IPPROTO_TCP,
                    .idiag_states = ~0U,
                    .id = {.idiag_sport = other.sin_port,
                           .idiag_dport = own.sin_port,
                           .idiag_src = {other.sin_addr.s_addr},
                           .idiag_dst = {own.sin_addr.s_addr},
                           .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
    };
    union {
        struct nlmsghdr header;
        char bytes[4096];
    } answer;
    const struct inet_diag_msg *told = NLMSG_DATA(&answer.header);
    int netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);

    cr_assert(netlink >= 0, "NETLINK_SOCK_DIAG: %s", strerror(errno));
    cr_assert(send(netlink, &question, sizeof(question), 0) == (ssize_t)sizeof(question));
    cr_assert(recv(netlink, &answer, sizeof(answer), 0) > 0, "%s", strerror(errno));
    cr_assert(close(netlink) == 0);
    cr_assert(answer.header.nlmsg_type == SOCK_DIAG_BY_FAMILY,
              "the kernel knows no other end of descriptor %d", fd);
    return (struct queues){.unread = told->idiag_rqueue, .unacked = told->idiag_wqueue};
}

static uint64_t queue_bytes(int fd, unsigned long request)
{
    int bytes = 0;

    cr_assert(ioctl(fd, request, &bytes) == 0, "ioctl: %s", strerror(errno));
    return (uint64_t)bytes;
}

void wait_acknowledged(int fd)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;

    while (queue_bytes(fd, SIOCOUTQ) > 0) {
        cr_assert(monotonic_ms() < deadline, "%llu bytes are not acknowledged",
                  (unsigned long long)queue_bytes(fd, SIOCOUTQ));
        pause_ms(1);
    }
}

/* Sends what the kernel takes at once. */
static uint64_t send_some(int fd, uint64_t key, uint64_t offset)
{
    unsigned char bytes[64 * 1024];
    uint64_t sent = 0;
    ssize_t result;

    do {
        stream_fill(key, offset + sent, bytes, sizeof(bytes));
        result = send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += result > 0 ? (uint64_t)result : 0;
    } while (result > 0);
    cr_assert(errno == EAGAIN, "send: %s", strerror(errno));
    return sent;
}

/* Sends what is taken now, and looks where everything is; false when that is as it was before. */
static bool way_moves(struct way *way)
{
    struct way before = *way;

    way->sent += send_some(way->sender, way->key, way->sent);
    way->unsent = queue_bytes(way->sender, SIOCOUTQ);
    way->untaken = other_queues(way->sender).unread;
    way->unacked = other_queues(way->receiver).unacked;
    way->received = queue_bytes(way->receiver, FIONREAD);
    return way->sent != before.sent || way->unsent != before.unsent ||
           way->untaken != before.untaken || way->unacked != before.unacked ||
           way->received != before.received;
}

void block(struct way ways[], size_t count)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;

    for (int same = 0; same < SETTLE_LOOKS; same++) {
        for (size_t i = 0; i < count; i++) {
            if (way_moves(&ways[i])) {
                same = 0;
            }
        }
        cr_assert(monotonic_ms() < deadline, "the way never fills up");
        pause_ms(10);
    }
}

uint64_t way_arrived(const struct way *way)
{
    return way->sent - way->unsent;
}

uint64_t way_taken(const struct way *way)
{
    return way->sent - way->unsent - way->untaken;
}

uint64_t way_passed_on(const struct way *way)
{
    return way->read + way->received + way->unacked;
}

uint64_t way_undelivered(const struct way *way)
{
    return way_taken(way) - way->read - way->received;
}

void expect_broken(int fd)
{
    struct pollfd poller = {.fd = fd};
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    int error = 0;
    socklen_t len = sizeof(error);

    /* POLLHUP alone only says that both directions have ended, however they did. */
    while (poll(&poller, 1, 1) != 1 || (poller.revents & POLLERR) == 0) {
        cr_assert(monotonic_ms() < deadline, "no reset came");
    }
    cr_assert(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0);
    cr_assert(error == ECONNRESET || error == EPIPE, "not a reset: events %x, %s",
              (unsigned)poller.revents, strerror(error));
}

/* --- processes and backlogs --- */

pid_t only_worker(const struct proxy *proxy)
{
    pid_t pids[PROXY_WORKERS_MAX];

    cr_assert(proxy_worker_pids(proxy, pids) == 1);
    return pids[0];
}

void freeze(pid_t pid)
{
    /* Asleep it can only be in epoll_wait(2), so what happened before is dealt with, and what
     * happens from now on makes one batch. */
    wait_for_state(pid, 'S');
    cr_assert(kill(pid, SIGSTOP) == 0);
    wait_for_state(pid, 'T');
}

void thaw(pid_t pid)
{
    cr_assert(kill(pid, SIGCONT) == 0);
}

int fill_backlog(int listen_fd, const char *ip, uint16_t port)
{
    /* 0 leaves room for one (sk_acceptq_is_full() compares with >). */
    cr_assert(listen(listen_fd, 0) == 0);
    return peer_connect(ip, port);
}

void free_backlog(int listen_fd, int filler)
{
    peer_close(peer_accept(listen_fd));
    peer_close(filler);
    cr_assert(listen(listen_fd, 128) == 0);
}
