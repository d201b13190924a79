/* Linux's side of a trace: real sockets on the loopback interface.
 *
 * When has everything arrived? On loopback a packet is handled on the processor that sent it, mostly
 * before the call returns, but the kernel may put it off. So the process stays on one processor and
 * sends datagrams to itself after each word: they queue up behind the packets of the connection, and
 * when they have come, so have those, and the answers to them. What may be put off for longer is an
 * acknowledgement (TCP_QUICKACK makes the peer send it); SIOCOUTQ tells when it has come. */
#include "sim/real_names.h"

#include "base/check.h"
#include "sim/trace.h"
#include "support/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* Answers to answers: data, acknowledgement, reset. */
enum {
    OPTION_DELACK_MAX_US = 46, /* TCP_DELACK_MAX_US of Linux 6.15 */
    DELACK_MAX_US = 1000
};
enum { GENERATIONS = 3, BUFFER = 64 * 1024, SETTLE_MS_MAX = 10000, CLOSED_PORTS = 1 };

static struct {
    int listener;
    int closed_port_fd; /* bound and not listening: nobody else gets the port */
    int barrier[2];
    int fd; /* the peer's socket */
    int others[TRACE_WORDS_MAX];
    size_t others_len;
} peer;

static void set_int(int fd, int level, int name, int value)
{
    CHECK(setsockopt(fd, level, name, &value, sizeof(value)) == 0);
}

static struct sockaddr_in address_of(int fd)
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);

    CHECK(getsockname(fd, (struct sockaddr *)(void *)&address, &len) == 0);
    return address;
}

static int bound(int type)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0);
    if (type == SOCK_STREAM) {
        set_int(fd, SOL_SOCKET, SO_RCVBUF, BUFFER);
        set_int(fd, SOL_SOCKET, SO_SNDBUF, BUFFER);
        set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        set_int(fd, SOL_SOCKET, SO_OOBINLINE, 1); /* as sock.c does */
    }
    CHECK(bind(fd, (struct sockaddr *)(void *)&address, sizeof(address)) == 0);
    return fd;
}

static void listen_on(int fd)
{
    CHECK(listen(fd, 128) == 0);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

/* Once for each process. */
static void prepare(void)
{
    struct timeval limit = {.tv_sec = SETTLE_MS_MAX / 1000};
    struct sockaddr_in address;
    cpu_set_t one;

    if (peer.barrier[0] > 0) {
        return;
    }
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR); /* splice(2) has no MSG_NOSIGNAL */
    peer.barrier[0] = bound(SOCK_DGRAM);
    peer.barrier[1] = bound(SOCK_DGRAM);
    address = address_of(peer.barrier[0]);
    CHECK(setsockopt(peer.barrier[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    CHECK(connect(peer.barrier[1], (struct sockaddr *)(void *)&address, sizeof(address)) == 0);
}

static void begin(struct traced *t)
{
    struct linger linger = {.l_onoff = t->linger, .l_linger = 0};

    prepare();
    peer.fd = -1;
    peer.others_len = 0;
    peer.listener = bound(SOCK_STREAM);
    listen_on(peer.listener);
    peer.closed_port_fd = bound(SOCK_STREAM);
    t->listener_fd = bound(SOCK_STREAM);
    CHECK(setsockopt(t->listener_fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    listen_on(t->listener_fd);
}

static void close_with_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    CHECK(close(fd) == 0);
}

static void end(struct traced *t)
{
    (void)t;
    if (peer.fd >= 0) {
        close_with_reset(peer.fd);
    }
    for (size_t i = 0; i < peer.others_len; i++) {
        close_with_reset(peer.others[i]);
    }
    CHECK(close(peer.listener) == 0);
    CHECK(close(peer.closed_port_fd) == 0);
}

static void meet(int fd)
{
    int delay_us = DELACK_MAX_US;
    int ignored = setsockopt(fd, IPPROTO_TCP, OPTION_DELACK_MAX_US, &delay_us, sizeof(delay_us));

    (void)ignored; /* without it a trace takes 40 ms here and there */
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (peer.fd < 0) {
        peer.fd = fd;
    } else {
        peer.others[peer.others_len++] = fd;
    }
}

static long arrive(struct traced *t)
{
    struct sockaddr_in address = address_of(t->listener_fd);
    int fd = bound(SOCK_STREAM);

    CHECK(connect(fd, (struct sockaddr *)(void *)&address, sizeof(address)) == 0);
    meet(fd);
    return 0;
}

static struct sockaddr_in target(struct traced *t, bool listening)
{
    set_int(t->fd, SOL_SOCKET, SO_RCVBUF, BUFFER);
    set_int(t->fd, SOL_SOCKET, SO_SNDBUF, BUFFER);
    set_int(t->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(t->fd, SOL_SOCKET, SO_OOBINLINE, 1);
    return address_of(listening ? peer.listener : peer.closed_port_fd);
}

static void settle(struct traced *t);

static void connecting(struct traced *t, bool listening)
{
    settle(t);
    if (listening) {
        struct pollfd waits = {.fd = peer.listener, .events = POLLIN};
        int fd;

        CHECK(poll(&waits, 1, SETTLE_MS_MAX) == 1);
        fd = accept4(peer.listener, NULL, NULL, SOCK_CLOEXEC);
        CHECK(fd >= 0);
        meet(fd);
    }
}

static long result_of(ssize_t result)
{
    return result < 0 ? -(long)errno : (long)result;
}

static long send_bytes(struct traced *t, size_t len)
{
    unsigned char bytes[BUFFER];
    long result;

    CHECK(len <= sizeof(bytes));
    stream_fill(KEY_PEERS, t->peer_sent, bytes, len);
    result = result_of(send(peer.fd, bytes, len, MSG_NOSIGNAL));
    t->peer_sent += result > 0 ? (uint64_t)result : 0;
    return result;
}

static long send_urgent(struct traced *t)
{
    unsigned char byte;
    long result;

    stream_fill(KEY_PEERS, t->peer_sent, &byte, 1);
    result = result_of(send(peer.fd, &byte, 1, MSG_NOSIGNAL | MSG_OOB));
    t->peer_sent += result > 0 ? 1 : 0;
    return result;
}

static void lose(struct traced *t)
{
    struct pollfd waits = {.fd = t->fd, .events = 0};

    set_int(t->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 1);
    CHECK(poll(&waits, 1, SETTLE_MS_MAX) == 1);
}

static long take(struct traced *t, int *ret_end)
{
    unsigned char bytes[BUFFER];
    long total = 0;

    (void)t;

    for (;;) {
        long result = result_of(recv(peer.fd, bytes, sizeof(bytes), 0));

        if (result <= 0) {
            *ret_end = (int)result;
            return total;
        }
        total += result;
    }
}

static long fin(struct traced *t)
{
    (void)t;
    return result_of(shutdown(peer.fd, SHUT_WR));
}

static long reset(struct traced *t)
{
    (void)t;
    close_with_reset(peer.fd);
    peer.fd = -1;
    return 0;
}

static long close_peer(struct traced *t)
{
    long result = result_of(close(peer.fd));

    (void)t;
    peer.fd = -1;
    return result;
}

static long slots(struct traced *t, int slots)
{
    int size = sys_pipe_resize(t->pipe[1], slots * (int)sysconf(_SC_PAGESIZE));

    return size < 0 ? size : size / sysconf(_SC_PAGESIZE);
}

/* --- coming to rest --- */

static void barrier(void)
{
    for (int i = 0; i < GENERATIONS; i++) {
        char byte = 0;

        CHECK(send(peer.barrier[1], &byte, 1, 0) == 1);
        CHECK(recv(peer.barrier[0], &byte, 1, 0) == 1);
    }
}

static int state_of(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 ? info.tcpi_state : TCP_CLOSE;
}

/* Bytes or a FIN of `fd` are on their way. After a reset SIOCOUTQ counts what will never be
 * acknowledged. */
static bool is_waiting(int fd)
{
    int bytes = 0;

    if (fd < 0) {
        return false;
    }
    switch (state_of(fd)) {
    case TCP_CLOSE:
    case TCP_LISTEN:
        return false;
    case TCP_SYN_SENT:
        return true;
    default:
        return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0;
    }
}

static void push_acknowledgements(int fd)
{
    int on = 1;

    if (fd >= 0) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
    }
}

static uint64_t now_ms(void)
{
    struct timespec now;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The peer's FIN has come as soon as our socket says so; when it is acknowledged is of no account. */
static bool is_peer_waiting(const struct traced *t)
{
    static const bool has_fin[TCP_CLOSING + 1] = {
        [TCP_CLOSE_WAIT] = true, [TCP_LAST_ACK] = true, [TCP_CLOSING] = true, [TCP_CLOSE] = true};

    return is_waiting(peer.fd) && !(t->fd >= 0 && has_fin[state_of(t->fd)]);
}

static void settle(struct traced *t)
{
    uint64_t start_ms = now_ms();

    do {
        push_acknowledgements(peer.fd);
        push_acknowledgements(t->fd);
        barrier();
        CHECK(now_ms() - start_ms < SETTLE_MS_MAX);
    } while ((!t->filled && is_waiting(t->fd)) || is_peer_waiting(t));
}

const struct trace_kernel trace_real = {
    .name = "Linux",
    .calls = TRACE_CALLS,
    .begin = begin,
    .end = end,
    .arrive = arrive,
    .target = target,
    .connecting = connecting,
    .send = send_bytes,
    .send_urgent = send_urgent,
    .lose = lose,
    .take = take,
    .fin = fin,
    .reset = reset,
    .close = close_peer,
    .slots = slots,
    .settle = settle,
};
