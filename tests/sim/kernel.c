/* The model kernel. Where it follows Linux, the function of the kernel is named.
 *
 * Edges: a wake-up puts the descriptor on the ready list; epoll_wait asks poll() for the mask, reports
 * it if it is not empty, and takes the descriptor off the list (ep_send_events with EPOLLET). Nothing
 * else ever tells, so a flow that rests too early stays at rest, and the world notices. */
#include "sim/kernel.h"

#include "base/clock.h"
#include "net/look.h"
#include "net/sys.h"
#include "support/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

struct kernel kernel;

void kernel_reset(uint64_t seed)
{
    memset(&kernel, 0, sizeof(kernel));
    kernel.random = seed * UINT64_C(0x9e3779b97f4a7c15);
    kernel.now_ns = NS_PER_S;
}

void kernel_fail(const char *format, ...)
{
    va_list values;

    if (kernel.failure[0] != '\0') {
        return;
    }
    va_start(values, format);
    (void)vsnprintf(kernel.failure, sizeof(kernel.failure), format, values);
    va_end(values);
}

uint64_t kernel_below(uint64_t bound)
{
    return random_below(&kernel.random, bound);
}

bool kernel_chance(uint32_t per_mille)
{
    return per_mille > 0 && kernel_below(1000) < per_mille;
}

uint64_t clock_monotonic_ns(void)
{
    return kernel.now_ns;
}

uint64_t clock_realtime_ns(void)
{
    return kernel.now_ns;
}

/* --- queues of segments --- */

static bool segments_push(struct segments *queue, struct segment segment, size_t max)
{
    if (queue->count >= max || queue->count >= KERNEL_SEGMENTS) {
        return false;
    }
    queue->item[(queue->first + queue->count) % KERNEL_SEGMENTS] = segment;
    queue->count++;
    return true;
}

/* Takes up to `len` bytes of the first segment. */
static struct segment segments_take(struct segments *queue, uint32_t len)
{
    struct segment *first = &queue->item[queue->first];
    struct segment taken = *first;

    taken.len = (uint32_t)min_u64(len, first->len);
    first->offset += taken.len;
    first->len -= taken.len;
    if (first->len == 0) {
        queue->first = (queue->first + 1) % KERNEL_SEGMENTS;
        queue->count--;
    }
    return taken;
}

/* --- descriptors and edges --- */

int kernel_new(enum kernel_kind kind)
{
    for (int fd = 3; fd < KERNEL_FDS; fd++) {
        if (kernel.fds[fd].kind == KIND_FREE) {
            memset(&kernel.fds[fd], 0, sizeof(kernel.fds[fd]));
            kernel.fds[fd].kind = kind;
            kernel.fds[fd].peer = -1;
            kernel.fds[fd].other_end = -1;
            return fd;
        }
    }
    return -1;
}

void kernel_wake(int fd)
{
    if (kernel.fds[fd].registered) {
        kernel.fds[fd].on_ready_list = true;
    }
}

/* sk_stream_is_writeable(): a third of the buffer is free. */
static bool is_writable(const struct ksocket *socket)
{
    return socket->tx_queued <= socket->sndbuf - socket->sndbuf / 3;
}

/* tcp_poll() */
static uint32_t poll_mask(struct ksocket *socket)
{
    uint32_t mask = 0;
    bool closed = socket->state == STATE_CLOSED;

    if (socket->kind == KIND_LISTENER) {
        return kernel.accept_count > 0 ? EPOLLIN : 0;
    }
    if (socket->error != 0) {
        mask |= EPOLLERR;
    }
    if (closed || (socket->fin_received && socket->shut_write)) {
        mask |= EPOLLHUP;
    }
    if (socket->fin_received || closed) {
        mask |= EPOLLIN | EPOLLRDHUP;
    }
    if (socket->state == STATE_CONNECTING) {
        return mask;
    }
    if (socket->rx.count > 0) {
        mask |= EPOLLIN;
    }
    if (socket->shut_write || closed || is_writable(socket)) {
        mask |= EPOLLOUT;
    } else {
        socket->nospace = true;
    }
    return mask;
}

/* The network is not waiting for sluice: it acts between any two calls. */
static void interleave(void)
{
    kernel.system_calls++;
    if (kernel_chance(kernel.faults.interleave)) {
        (void)world_step();
    }
}

static struct ksocket *socket_at(int fd, const char *call)
{
    if (fd < 0 || fd >= KERNEL_FDS || kernel.fds[fd].kind == KIND_FREE) {
        kernel_fail("%s on descriptor %d, which is not open", call, fd);
        return &kernel.fds[0];
    }
    return &kernel.fds[fd];
}

/* --- what the network does --- */

void kernel_receive(int fd, uint64_t key, uint64_t offset, uint32_t len)
{
    struct ksocket *socket = &kernel.fds[fd];

    if (!segments_push(&socket->rx, (struct segment){key, offset, len}, KERNEL_SEGMENTS)) {
        kernel_fail("the world sent more than the window");
        return;
    }
    socket->rx_bytes += len;
    kernel_wake(fd);
}

void kernel_receive_fin(int fd)
{
    kernel.fds[fd].fin_received = true;
    kernel_wake(fd);
}

/* tcp_reset(): the write queue is purged, what was received stays readable. */
void kernel_receive_reset(int fd)
{
    struct ksocket *socket = &kernel.fds[fd];

    if (socket->state == STATE_CONNECTING) {
        socket->error = ECONNREFUSED;
    } else {
        socket->error = socket->fin_received ? EPIPE : ECONNRESET;
    }
    socket->state = STATE_CLOSED;
    kernel_wake(fd);
}

/* tcp_check_space() */
void kernel_acknowledge(int fd, uint32_t len)
{
    struct ksocket *socket = &kernel.fds[fd];

    socket->tx_queued -= len;
    if (socket->nospace && is_writable(socket)) {
        socket->nospace = false;
        kernel_wake(fd);
    }
}

void kernel_connected(int fd, int peer)
{
    struct ksocket *socket = &kernel.fds[fd];

    socket->state = STATE_ESTABLISHED;
    socket->peer = peer;
    kernel_wake(fd);
}

static uint32_t buffer_size(void)
{
    if (kernel.buffers_are_tiny) {
        return 3 + (uint32_t)kernel_below(61);
    }
    if (kernel.buffers_are_huge) {
        return 1u << 20;
    }
    return 64 + (uint32_t)kernel_below(1u << (6 + kernel_below(13)));
}

static void size_buffers(struct ksocket *socket)
{
    socket->rcvbuf = buffer_size();
    socket->sndbuf = buffer_size();
}

int kernel_arrive(int peer)
{
    int fd = kernel_new(KIND_SOCKET);

    if (fd < 0) {
        return -1;
    }
    kernel.fds[fd].state = STATE_ESTABLISHED;
    kernel.fds[fd].peer = peer;
    kernel.fds[fd].linger_reset = true; /* inherited from the listener */
    size_buffers(&kernel.fds[fd]);
    kernel.accept_queue[kernel.accept_count++] = fd;
    for (int listener = 3; listener < KERNEL_FDS; listener++) {
        if (kernel.fds[listener].kind == KIND_LISTENER) {
            kernel_wake(listener);
        }
    }
    return fd;
}

/* --- system calls: sockets --- */

int sys_socket(int family)
{
    int fd;

    (void)family;
    interleave();
    if (kernel_chance(kernel.faults.no_descriptor)) {
        kernel.hit_fatal_fault = true;
        return -EMFILE;
    }
    fd = kernel_new(KIND_SOCKET);
    if (fd < 0) {
        return -EMFILE;
    }
    size_buffers(&kernel.fds[fd]);
    return fd;
}

int sys_accept(int fd, struct sockaddr *address, socklen_t *address_len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)address;
    int accepted;

    (void)fd;
    interleave();
    if (kernel.accept_count == 0) {
        return -EAGAIN;
    }
    if (kernel_chance(kernel.faults.no_descriptor)) {
        return -EMFILE;
    }
    accepted = kernel.accept_queue[0];
    kernel.accept_count--;
    memmove(kernel.accept_queue, kernel.accept_queue + 1,
            kernel.accept_count * sizeof(kernel.accept_queue[0]));
    memset(v4, 0, sizeof(*v4));
    v4->sin_family = AF_INET;
    v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    v4->sin_port = htons((uint16_t)(40000 + kernel.fds[accepted].peer));
    *address_len = sizeof(*v4);
    return accepted;
}

int sys_connect(int fd, const struct sockaddr *address, socklen_t address_len)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
    struct ksocket *socket = socket_at(fd, "connect");

    (void)address_len;
    socket->state = STATE_CONNECTING;
    socket->connect_port = ntohs(v4->sin_port);
    world_connecting(fd, socket->connect_port);
    return -EINPROGRESS;
}

int sys_bind(int fd, const struct sockaddr *address, socklen_t address_len)
{
    (void)fd;
    (void)address;
    (void)address_len;
    return 0;
}

int sys_listen(int fd, int backlog)
{
    (void)backlog;
    socket_at(fd, "listen")->kind = KIND_LISTENER;
    return 0;
}

int sys_set_option(int fd, int level, int name, const void *value, socklen_t value_len)
{
    struct ksocket *socket = socket_at(fd, "setsockopt");

    (void)value_len;
    if (level == SOL_SOCKET && name == SO_LINGER) {
        socket->linger_reset = ((const struct linger *)value)->l_onoff != 0;
    }
    return 0;
}

int sys_get_option(int fd, int level, int name, void *value, socklen_t *value_len)
{
    struct ksocket *socket = socket_at(fd, "getsockopt");

    interleave();
    memset(value, 0, *value_len);
    if (level == SOL_SOCKET && name == SO_ERROR) {
        memcpy(value, &socket->error, sizeof(socket->error));
        socket->error = 0;
    }
    return 0;
}

int sys_local_address(int fd, struct sockaddr *address, socklen_t *address_len)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)(1000 + fd))};

    memcpy(address, &v4, sizeof(v4));
    *address_len = sizeof(v4);
    return 0;
}

/* What a socket without received bytes says: tcp_recvmsg_locked(), tcp_splice_read(). */
static ssize_t nothing_received(struct ksocket *socket)
{
    int error = socket->error;

    if (socket->fin_received) {
        return 0;
    }
    if (error != 0) {
        socket->error = 0;
        return -error;
    }
    return socket->state == STATE_CLOSED ? 0 : -EAGAIN;
}

static size_t maybe_short(size_t len)
{
    if (len > 1 && kernel_chance(kernel.faults.short_count)) {
        return 1 + kernel_below(len - 1);
    }
    return len;
}

ssize_t sys_recv(int fd, void *bytes, size_t len)
{
    struct ksocket *socket = socket_at(fd, "recv");
    size_t wanted = maybe_short(len);
    size_t done = 0;

    interleave();
    if (kernel_chance(kernel.faults.no_memory)) {
        return -ENOMEM;
    }
    while (done < wanted && socket->rx.count > 0) {
        struct segment taken = segments_take(&socket->rx, (uint32_t)(wanted - done));

        stream_fill(taken.key, taken.offset, (unsigned char *)bytes + done, taken.len);
        socket->rx_bytes -= taken.len;
        done += taken.len;
    }
    return done > 0 ? (ssize_t)done : nothing_received(socket);
}

/* sk_stream_wait_memory(), sk_stream_error(): why nothing can be sent; 0 if something can. */
static ssize_t cannot_send(struct ksocket *socket)
{
    int error = socket->error;

    if (error != 0) {
        socket->error = 0;
        return -error;
    }
    if (socket->state != STATE_ESTABLISHED || socket->shut_write) {
        return -EPIPE;
    }
    if (socket->tx_queued >= socket->sndbuf) {
        socket->nospace = true;
        return -EAGAIN;
    }
    return 0;
}

static size_t room_for(struct ksocket *socket, size_t len)
{
    size_t room = socket->sndbuf - socket->tx_queued;

    if (room < len) {
        socket->nospace = true;
        len = room;
    }
    return len;
}

ssize_t sys_send(int fd, const void *bytes, size_t len)
{
    struct ksocket *socket = socket_at(fd, "send");
    ssize_t refused;
    size_t taken;

    interleave();
    if (kernel_chance(kernel.faults.no_memory)) {
        return -ENOMEM;
    }
    refused = cannot_send(socket);
    if (refused != 0) {
        return refused;
    }
    taken = room_for(socket, maybe_short(len));
    if (stream_mismatch(socket->tx_key, socket->tx_offset, bytes, taken) != taken) {
        kernel_fail("send: a wrong byte behind offset %llu", (unsigned long long)socket->tx_offset);
    }
    socket->tx_offset += taken;
    socket->tx_queued += (uint32_t)taken;
    return (ssize_t)taken;
}

int sys_shutdown_write(int fd)
{
    struct ksocket *socket = socket_at(fd, "shutdown");

    interleave();
    if (socket->state != STATE_ESTABLISHED) {
        return -ENOTCONN;
    }
    if (socket->shut_write) {
        kernel_fail("FIN is sent twice");
    }
    socket->shut_write = true;
    return 0;
}

int sys_unacknowledged(int fd)
{
    struct ksocket *socket = socket_at(fd, "SIOCOUTQ");

    interleave();
    return (int)socket->tx_queued + (socket->shut_write && !socket->fin_sent);
}

/* --- system calls: pipes --- */

int sys_pipe(int fds[2])
{
    interleave();
    if (kernel_chance(kernel.faults.no_descriptor)) {
        return -EMFILE;
    }
    fds[0] = kernel_new(KIND_PIPE_READ);
    fds[1] = kernel_new(KIND_PIPE_WRITE);
    if (fds[0] < 0 || fds[1] < 0) {
        return -EMFILE;
    }
    kernel.fds[fds[0]].slots_max = kernel.pipes_are_small ? 2 : 1 + kernel_below(16);
    kernel.fds[fds[0]].other_end = fds[1];
    kernel.fds[fds[1]].other_end = fds[0];
    return 0;
}

int sys_pipe_resize(int fd, int size_bytes)
{
    (void)socket_at(fd, "F_SETPIPE_SZ");
    return kernel.pipes_are_small ? -EPERM : size_bytes;
}

int sys_pipe_size(int fd)
{
    (void)socket_at(fd, "F_GETPIPE_SZ");
    return kernel.pipes_are_small ? 8192 : 65536;
}

static struct ksocket *pipe_of(int fd)
{
    struct ksocket *end = socket_at(fd, "splice");

    return end->kind == KIND_PIPE_WRITE ? &kernel.fds[end->other_end] : end;
}

static ssize_t splice_in(struct ksocket *socket, struct ksocket *pipe, size_t len)
{
    size_t wanted = maybe_short(len);
    size_t done = 0;

    if (pipe->slots.count >= pipe->slots_max) {
        return -EAGAIN; /* wait_for_space(): even when the stream has ended */
    }
    while (done < wanted && socket->rx.count > 0 && pipe->slots.count < pipe->slots_max) {
        struct segment taken = segments_take(&socket->rx, (uint32_t)(wanted - done));

        socket->rx_bytes -= taken.len;
        done += taken.len;
        (void)segments_push(&pipe->slots, taken, pipe->slots_max);
    }
    return done > 0 ? (ssize_t)done : nothing_received(socket);
}

static ssize_t splice_out(struct ksocket *pipe, struct ksocket *socket, size_t len)
{
    ssize_t refused = cannot_send(socket);
    size_t wanted;
    size_t done = 0;

    if (pipe->slots.count == 0) {
        kernel_fail("splice from an empty pipe");
        return -EAGAIN;
    }
    if (refused != 0) {
        return refused;
    }
    wanted = room_for(socket, maybe_short(len));
    while (done < wanted && pipe->slots.count > 0) {
        struct segment taken = segments_take(&pipe->slots, (uint32_t)(wanted - done));

        if (taken.key != socket->tx_key || taken.offset != socket->tx_offset) {
            kernel_fail("splice: stream %llx offset %llu where %llx offset %llu must come",
                        (unsigned long long)taken.key, (unsigned long long)taken.offset,
                        (unsigned long long)socket->tx_key, (unsigned long long)socket->tx_offset);
        }
        done += taken.len;
        socket->tx_offset += taken.len;
        socket->tx_queued += taken.len;
    }
    return (ssize_t)done;
}

ssize_t sys_splice(int from_fd, int to_fd, size_t len)
{
    interleave();
    if (kernel_chance(kernel.faults.splice_refused)) {
        kernel.splice_is_refused = true;
    }
    if (kernel.splice_is_refused) {
        return -EINVAL;
    }
    if (kernel_chance(kernel.faults.no_memory)) {
        return -ENOMEM;
    }
    if (socket_at(from_fd, "splice")->kind == KIND_SOCKET) {
        return splice_in(&kernel.fds[from_fd], pipe_of(to_fd), len);
    }
    return splice_out(pipe_of(from_fd), socket_at(to_fd, "splice"), len);
}

ssize_t sys_read(int fd, void *bytes, size_t len)
{
    struct ksocket *pipe = pipe_of(fd);
    size_t wanted = maybe_short(len);
    size_t done = 0;

    interleave();
    while (done < wanted && pipe->slots.count > 0) {
        struct segment taken = segments_take(&pipe->slots, (uint32_t)(wanted - done));

        stream_fill(taken.key, taken.offset, (unsigned char *)bytes + done, taken.len);
        done += taken.len;
    }
    return done > 0 ? (ssize_t)done : -EAGAIN;
}

int sys_readable_bytes(int fd)
{
    struct ksocket *pipe = pipe_of(fd);
    int bytes = 0;

    for (size_t i = 0; i < pipe->slots.count; i++) {
        bytes += (int)pipe->slots.item[(pipe->slots.first + i) % KERNEL_SEGMENTS].len;
    }
    return bytes;
}

/* For the audit: what it asks changes nothing, not even the seed's random numbers. */
void look_at(int fd, struct look *ret_look)
{
    struct ksocket *socket = socket_at(fd, "look");
    bool is_pipe = socket->kind == KIND_PIPE_READ;
    bool nospace = socket->nospace;

    ret_look->events = is_pipe ? 0 : poll_mask(socket);
    socket->nospace = nospace; /* tcp_poll() would set it; an edge owed to a question hides a bug */
    ret_look->readable_bytes = is_pipe ? sys_readable_bytes(fd) : (int)socket->rx_bytes;
    ret_look->unacked_bytes = (int)socket->tx_queued;
}

/* --- system calls: close and epoll --- */

void sys_close(int fd)
{
    struct ksocket *socket = socket_at(fd, "close");
    bool connected = socket->kind == KIND_SOCKET && socket->peer >= 0;
    bool alive = connected && socket->state == STATE_ESTABLISHED;
    bool reset = socket->linger_reset || socket->rx_bytes > 0; /* __tcp_close() */

    socket->registered = false;
    if (alive && !reset && (socket->tx_queued > 0 || !socket->fin_sent)) {
        socket->shut_write = true;
        socket->orphan = true; /* the kernel goes on sending; world.c frees it */
        return;
    }
    if (connected) {
        world_closed(socket->peer, alive && reset);
    } else if (socket->state == STATE_CONNECTING) {
        world_gave_up(fd);
    }
    socket->kind = KIND_FREE;
}

int sys_epoll_create(void)
{
    return kernel_new(KIND_EPOLL);
}

int sys_epoll_add(int epoll_fd, int fd, uint32_t events, void *data)
{
    struct ksocket *socket = socket_at(fd, "epoll_ctl");

    (void)epoll_fd;
    interleave();
    if (socket->kind == KIND_SOCKET && kernel_chance(kernel.faults.epoll_refused)) {
        kernel.hit_fatal_fault = true;
        return -ENOSPC;
    }
    if ((events & EPOLLET) == 0 || socket->registered) {
        kernel_fail("descriptor %d is registered twice, or not edge-triggered", fd);
    }
    socket->registered = true;
    socket->data = data;
    socket->on_ready_list = poll_mask(socket) != 0; /* ep_insert() */
    return 0;
}

int sys_epoll_remove(int epoll_fd, int fd)
{
    (void)epoll_fd;
    socket_at(fd, "epoll_ctl")->registered = false;
    return 0;
}

/* Reports what is on the ready list, in an order of the seed's choice. */
static int collect(struct epoll_event *events, int events_max)
{
    int start = (int)kernel_below(KERNEL_FDS);
    int count = 0;

    for (int i = 0; i < KERNEL_FDS && count < events_max; i++) {
        struct ksocket *socket = &kernel.fds[(start + i) % KERNEL_FDS];
        bool spurious = socket->registered && kernel_chance(kernel.faults.spurious);
        uint32_t mask;

        if (socket->kind == KIND_FREE || !socket->registered ||
            (!socket->on_ready_list && !spurious)) {
            continue;
        }
        socket->on_ready_list = false;
        mask = poll_mask(socket);
        if (mask != 0) {
            events[count++] = (struct epoll_event){.events = mask, .data.ptr = socket->data};
        }
    }
    return count;
}

int sys_epoll_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms)
{
    int limit = 1 + (int)kernel_below((uint64_t)events_max < 8 ? (uint64_t)events_max : 8);

    (void)epoll_fd;
    kernel.system_calls++;
    for (uint64_t steps = kernel_below(4); steps > 0; steps--) {
        (void)world_step();
    }
    for (;;) {
        int count = collect(events, limit);

        if (count > 0 || timeout_ms == 0 || kernel_chance(kernel.faults.spurious)) {
            return count;
        }
        if (!world_step()) {
            break;
        }
    }
    if (timeout_ms < 0) {
        kernel_fail("a lost wake-up: sluice waits for ever and nothing will happen");
        return -EDEADLK;
    }
    kernel.now_ns += (uint64_t)timeout_ms * NS_PER_MS;
    return 0;
}
