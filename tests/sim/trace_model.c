/* The model's side of a trace: a network without delay, and a peer that is a small TCP of its own. */
#include "base/check.h"
#include "net/sys.h"
#include "sim/kernel.h"
#include "sim/trace.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

enum { PEER_WINDOW = 64 * 1024, OUR_BUFFER = 64 * 1024, PORT_OPEN = 1, PORT_CLOSED = 2 };

/* What the kernel on the peer's side knows. */
static struct {
    int fd;          /* our socket, as long as packets reach it; -1 */
    uint32_t unread; /* our bytes, acknowledged and not taken */
    bool got_fin;    /* ours has arrived */
    bool fin_sent;   /* its own */
    bool closed;     /* by its program: what still arrives is answered with RST */
    bool gone;       /* no connection any more */
    int error;       /* what its program will be told */
    int connecting_fd;
} peer;

static bool nothing_happens(void)
{
    return false;
}

static uint64_t never(void)
{
    return UINT64_MAX;
}

static int our_connect(int fd, uint32_t port)
{
    if (port == PORT_CLOSED) {
        kernel_receive_reset(fd);
    } else {
        peer.connecting_fd = fd;
    }
    return -EINPROGRESS;
}

/* Our socket is closed and all it had to say is said. */
static void our_close(int number, bool reset)
{
    if (number != 0 || peer.fd < 0) {
        return;
    }
    peer.fd = -1;
    if (reset && !peer.gone) {
        peer.error = peer.got_fin ? EPIPE : ECONNRESET;
        peer.gone = true;
    }
}

static void our_giving_up(int fd)
{
    (void)fd;
}

static const struct kernel_network network = {
    .step = nothing_happens,
    .next_ns = never,
    .connecting = our_connect,
    .closed = our_close,
    .gave_up = our_giving_up,
};

static void begin(struct traced *t)
{
    kernel_reset(1, &network);
    memset(&peer, 0, sizeof(peer));
    peer.fd = -1;
    peer.connecting_fd = -1;
    kernel.buffers_are_huge = true;
    t->listener_fd = kernel_new(KIND_LISTENER);
}

static void end(struct traced *t)
{
    (void)t;
}

static void meet(int fd)
{
    kernel.fds[fd].tx_key = KEY_NONE; /* a trace may send back what came */
    kernel.fds[fd].sndbuf = OUR_BUFFER;
    if (peer.fd < 0) {
        peer.fd = fd;
    }
}

static long arrive(struct traced *t)
{
    int fd = kernel_arrive(peer.fd < 0 ? 0 : 1);

    (void)t;
    meet(fd);
    return 0;
}

static struct sockaddr_in target(struct traced *t, bool listening)
{
    (void)t;
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(listening ? PORT_OPEN : PORT_CLOSED)};
}

static void connecting(struct traced *t, bool listening)
{
    (void)t;
    if (listening) {
        meet(peer.connecting_fd);
        kernel_connected(peer.connecting_fd, 0);
    }
}

static long send_bytes(struct traced *t, size_t len)
{
    int error = peer.error;

    if (error != 0) {
        peer.error = 0;
        return -error;
    }
    if (peer.gone || peer.fin_sent) {
        return -EPIPE;
    }
    kernel_receive(peer.fd, KEY_PEERS, t->peer_sent, (uint32_t)len);
    t->peer_sent += len;
    return (long)len;
}

static long send_urgent(struct traced *t)
{
    long result = peer.error != 0 || peer.gone || peer.fin_sent ? send_bytes(t, 1) : 1;

    if (result == 1) {
        kernel_receive_urgent(peer.fd, KEY_PEERS, t->peer_sent++);
    }
    return result;
}

static void lose(struct traced *t)
{
    kernel_receive_error(t->fd, ETIMEDOUT);
}

static long take(struct traced *t, int *ret_end)
{
    uint32_t taken = peer.unread;

    peer.unread = 0;
    (void)t;
    *ret_end = -EAGAIN;
    if (peer.got_fin || peer.gone) {
        *ret_end = peer.got_fin ? 0 : -peer.error;
        peer.error = peer.got_fin ? peer.error : 0;
    }
    return taken;
}

static long fin(struct traced *t)
{
    (void)t;
    if (peer.gone) {
        return -ENOTCONN;
    }
    peer.fin_sent = true;
    kernel_receive_fin(peer.fd);
    return 0;
}

static void send_reset(void)
{
    bool over = peer.fin_sent && peer.got_fin;

    if (!peer.gone && !over && peer.fd >= 0) {
        if (kernel.fds[peer.fd].orphan) {
            kernel.fds[peer.fd].kind = KIND_FREE;
        } else {
            kernel_receive_reset(peer.fd);
        }
        peer.fd = -1;
    }
    peer.gone = true;
}

static long reset(struct traced *t)
{
    (void)t;
    send_reset();
    peer.closed = true;
    return 0;
}

static long close_peer(struct traced *t)
{
    (void)t;
    peer.closed = true;
    if (peer.unread > 0) {
        send_reset();
    } else if (!peer.gone && !peer.fin_sent) {
        peer.fin_sent = true;
        kernel_receive_fin(peer.fd);
    }
    return 0;
}

static long slots(struct traced *t, int slots)
{
    kernel.fds[t->pipe[0]].slots_max = (size_t)slots;
    return slots;
}

static void settle(struct traced *t)
{
    struct ksocket *socket = &kernel.fds[peer.fd < 0 ? 0 : peer.fd];
    uint32_t len;

    (void)t;
    if (peer.fd < 0 || peer.gone || socket->kind != KIND_SOCKET ||
        socket->state == STATE_CONNECTING) {
        return;
    }
    if (peer.closed && socket->tx_queued > 0) {
        send_reset();
        return;
    }
    len = (uint32_t)min_u64(socket->tx_queued, PEER_WINDOW - peer.unread);
    if (len > 0) {
        peer.unread += len;
        kernel_acknowledge(peer.fd, len);
    }
    if (socket->tx_queued == 0 && socket->shut_write && !socket->fin_sent) {
        peer.got_fin = true;
        kernel_acknowledge_fin(peer.fd);
    }
}

const struct trace_kernel trace_model = {
    .name = "model",
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
