/* The model kernel: descriptors, edges, and what the network does to sockets. The system calls on
 * sockets and pipes are in calls.c. Where the model follows Linux, the function of the kernel is named;
 * that it does follow is tested against the real one, see trace.h.
 *
 * Edges: a wake-up puts the descriptor on the ready list; epoll_wait asks poll() for the mask, reports
 * it if it is not empty, and takes the descriptor off the list (ep_send_events with EPOLLET). Nothing
 * else ever tells, so a flow that rests too early stays at rest, and the world notices. */
#include "sim/inside.h"

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
uint64_t (*kernel_choose)(uint64_t bound);

void kernel_reset(uint64_t seed, const struct kernel_network *network)
{
    memset(&kernel, 0, sizeof(kernel));
    kernel.network = network;
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
    return kernel_choose != NULL ? kernel_choose(bound) : random_below(&kernel.random, bound);
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

bool segments_push(struct segments *queue, struct segment segment, size_t max)
{
    if (queue->count >= max || queue->count >= KERNEL_SEGMENTS) {
        return false;
    }
    queue->item[(queue->first + queue->count) % KERNEL_SEGMENTS] = segment;
    queue->count++;
    return true;
}

/* Takes up to `len` bytes of the first segment. */
struct segment segments_take(struct segments *queue, uint32_t len)
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

void kernel_wake_besides(int fd)
{
    if (!kernel.is_sparing) {
        kernel_wake(fd);
    }
}

/* sk_stream_is_writeable(): a third of the buffer is free. */
static bool is_writable(const struct ksocket *socket)
{
    return socket->tx_queued <= socket->sndbuf - socket->sndbuf / 3;
}

/* tcp_poll() */
uint32_t kernel_poll_mask(struct ksocket *socket)
{
    uint32_t mask = 0;
    bool closed = socket->state == STATE_CLOSED || socket->state == STATE_NEW;

    if (socket->kind == KIND_LISTENER) {
        return kernel.accept_count > 0 ? EPOLLIN : 0;
    }
    if (socket->error != 0) {
        mask |= EPOLLERR;
    }
    if (closed || (socket->fin_received && socket->shut_write)) {
        mask |= EPOLLHUP;
    }
    if (socket->fin_received || socket->state == STATE_CLOSED) {
        mask |= EPOLLIN | EPOLLRDHUP;
    }
    if (socket->state == STATE_CONNECTING) {
        return mask;
    }
    if (socket->rx.count > 0) {
        mask |= EPOLLIN;
    }
    if (socket->urgent) {
        mask |= EPOLLPRI;
    }
    if (socket->shut_write || closed || is_writable(socket)) {
        mask |= EPOLLOUT;
    } else {
        socket->nospace = true;
    }
    return mask;
}

/* The network is not waiting for sluice: it acts between any two calls. */
void kernel_interleave(void)
{
    kernel.system_calls++;
    if (kernel_chance(kernel.faults.interleave)) {
        (void)kernel.network->step();
    }
}

struct ksocket *kernel_socket_at(int fd, const char *call)
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

/* tcp_check_urg() */
void kernel_receive_urgent(int fd, uint64_t key, uint64_t offset)
{
    struct ksocket *socket = &kernel.fds[fd];

    socket->urgent = true;
    socket->urgent_at = socket->rx_taken + socket->rx_bytes;
    kernel_receive(fd, key, offset, 1);
}

/* tcp_time_wait(): FIN went both ways and ours has arrived. To its owner the socket is closed, and no
 * reset can reach it any more. */
static void end_if_both_have_ended(struct ksocket *socket)
{
    if (socket->fin_received && socket->fin_sent) {
        socket->state = STATE_CLOSED;
    }
}

/* tcp_fin() */
void kernel_receive_fin(int fd)
{
    kernel.fds[fd].fin_received = true;
    end_if_both_have_ended(&kernel.fds[fd]);
    kernel_wake(fd);
}

/* tcp_reset(): the write queue is purged, what was received stays readable. EPIPE is for CLOSE_WAIT;
 * after our own FIN (LAST_ACK, CLOSING) it is ECONNRESET again. */
void kernel_receive_reset(int fd)
{
    struct ksocket *socket = &kernel.fds[fd];

    if (socket->state == STATE_CLOSED) {
        return;
    }
    if (socket->state == STATE_CONNECTING) {
        socket->error = ECONNREFUSED;
        socket->syn_unanswered = true;
    } else {
        socket->error = socket->fin_received && !socket->shut_write ? EPIPE : ECONNRESET;
    }
    socket->state = STATE_CLOSED;
    kernel_wake(fd);
}

/* tcp_write_err(); from outside, as by `ss -K`: tcp_abort() */
void kernel_receive_error(int fd, int error)
{
    struct ksocket *socket = &kernel.fds[fd];

    if (socket->state == STATE_CLOSED) {
        return;
    }
    socket->syn_unanswered = socket->state == STATE_CONNECTING;
    socket->error = error;
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

void kernel_acknowledge_fin(int fd)
{
    struct ksocket *socket = &kernel.fds[fd];

    socket->fin_sent = true;
    end_if_both_have_ended(socket);
    kernel_wake_besides(fd);
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

void kernel_size_buffers(struct ksocket *socket)
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
    kernel_size_buffers(&kernel.fds[fd]);
    kernel.accept_queue[kernel.accept_count++] = fd;
    for (int listener = 3; listener < KERNEL_FDS; listener++) {
        if (kernel.fds[listener].kind == KIND_LISTENER) {
            kernel_wake(listener);
        }
    }
    return fd;
}

/* For the audit: what it asks changes nothing, not even the seed's random numbers. */
void look_at(int fd, struct look *ret_look)
{
    struct ksocket *socket = kernel_socket_at(fd, "look");
    bool is_pipe = socket->kind == KIND_PIPE_READ;
    bool nospace = socket->nospace;

    ret_look->events = is_pipe ? 0 : kernel_poll_mask(socket);
    socket->nospace = nospace; /* tcp_poll() would set it; an edge owed to a question hides a bug */
    ret_look->readable_bytes = is_pipe ? sys_readable_bytes(fd) : (int)socket->rx_bytes;
    ret_look->unacked_bytes = is_pipe ? -1 : kernel_unacknowledged(socket);
}

/* --- system calls: epoll --- */

int sys_epoll_create(void)
{
    return kernel_new(KIND_EPOLL);
}

int sys_epoll_add(int epoll_fd, int fd, uint32_t events, void *data)
{
    struct ksocket *socket = kernel_socket_at(fd, "epoll_ctl");

    (void)epoll_fd;
    kernel_interleave();
    if (socket->kind == KIND_SOCKET && kernel_chance(kernel.faults.epoll_refused)) {
        kernel.hit_fatal_fault = true;
        return -ENOSPC;
    }
    if ((events & EPOLLET) == 0 || socket->registered) {
        kernel_fail("descriptor %d is registered twice, or not edge-triggered", fd);
    }
    socket->registered = true;
    socket->data = data;
    socket->on_ready_list = kernel_poll_mask(socket) != 0; /* ep_insert() */
    return 0;
}

int sys_epoll_remove(int epoll_fd, int fd)
{
    (void)epoll_fd;
    kernel_socket_at(fd, "epoll_ctl")->registered = false;
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
        mask = kernel_poll_mask(socket);
        if (mask != 0) {
            events[count++] = (struct epoll_event){.events = mask, .data.ptr = socket->data};
        }
    }
    return count;
}

/* Nothing can happen now: time passes, until the network goes on or the limit. False: the limit. */
static bool time_passes(uint64_t limit_ns)
{
    uint64_t next_ns = kernel.network->next_ns();

    if (limit_ns == UINT64_MAX && next_ns == UINT64_MAX) {
        kernel_fail("a lost wake-up: sluice waits for ever and nothing will happen");
        return false;
    }
    if (kernel.now_ns < min_u64(limit_ns, next_ns)) {
        kernel.now_ns = min_u64(limit_ns, next_ns);
    }
    return kernel.now_ns < limit_ns;
}

static int wait_for_events(struct epoll_event *events, int events_max, int timeout_ms)
{
    int limit = 1 + (int)kernel_below((uint64_t)events_max < 8 ? (uint64_t)events_max : 8);
    uint64_t limit_ns = UINT64_MAX;

    kernel.system_calls++;
    for (uint64_t steps = kernel_below(4); steps > 0; steps--) {
        (void)kernel.network->step();
    }
    if (timeout_ms >= 0) {
        limit_ns = kernel.now_ns + (uint64_t)timeout_ms * NS_PER_MS;
    }
    for (;;) {
        int count = collect(events, limit);

        if (count > 0 || timeout_ms == 0 || kernel_chance(kernel.faults.spurious)) {
            return count;
        }
        if (!kernel.network->step() && !time_passes(limit_ns)) {
            return kernel.failure[0] == '\0' ? 0 : -EDEADLK;
        }
    }
}

static void check_fins(void)
{
    for (int fd = 0; fd < KERNEL_FDS; fd++) {
        const struct ksocket *socket = &kernel.fds[fd];

        if (socket->kind == KIND_SOCKET && socket->state == STATE_ESTABLISHED && !socket->orphan &&
            socket->fin_is_due && !socket->shut_write) {
            kernel_fail("bytes on descriptor %d wait for a FIN that was announced", fd);
        }
    }
}

int sys_epoll_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms)
{
    int result;

    (void)epoll_fd;
    check_fins();
    kernel.sluice_waits = timeout_ms != 0;
    result = wait_for_events(events, events_max, timeout_ms);
    kernel.sluice_waits = false;
    return result;
}
