/* The model's system calls on sockets and pipes: what each function of net/sys.h says and does. */
#include "net/sys.h"

#include "sim/inside.h"
#include "support/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

/* --- system calls: sockets --- */

int sys_socket(int family)
{
    int fd;

    (void)family;
    kernel_interleave();
    if (kernel_chance(kernel.faults.no_descriptor)) {
        kernel.hit_fatal_fault = true;
        return -EMFILE;
    }
    fd = kernel_new(KIND_SOCKET);
    if (fd < 0) {
        return -EMFILE;
    }
    kernel_size_buffers(&kernel.fds[fd]);
    return fd;
}

int sys_accept(int fd, struct sockaddr *address, socklen_t *address_len)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)address;
    int accepted;

    (void)fd;
    kernel_interleave();
    if (kernel.accept_count == 0) {
        return -EAGAIN;
    }
    if (kernel_chance(kernel.faults.no_descriptor)) {
        return -EMFILE;
    }
    if (kernel_chance(kernel.faults.accept_aborted)) {
        return -ECONNABORTED;
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
    struct ksocket *socket = kernel_socket_at(fd, "connect");
    int result;

    (void)address_len;
    socket->state = STATE_CONNECTING;
    socket->connect_port = ntohs(v4->sin_port);
    result = kernel.network->connecting(fd, socket->connect_port);
    if (result != -EINPROGRESS) {
        socket->state = STATE_NEW;
    }
    return result;
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
    kernel_socket_at(fd, "listen")->kind = KIND_LISTENER;
    return 0;
}

int sys_set_option(int fd, int level, int name, const void *value, socklen_t value_len)
{
    struct ksocket *socket = kernel_socket_at(fd, "setsockopt");

    (void)value_len;
    if (level == SOL_SOCKET && name == SO_LINGER) {
        socket->linger_reset = ((const struct linger *)value)->l_onoff != 0;
    }
    return 0;
}

int sys_get_option(int fd, int level, int name, void *value, socklen_t *value_len)
{
    struct ksocket *socket = kernel_socket_at(fd, "getsockopt");

    kernel_interleave();
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

static bool is_at_urgent_byte(const struct ksocket *socket)
{
    return socket->urgent && socket->rx_taken == socket->urgent_at;
}

/* Takes from the first segment, and not up to an urgent byte and behind it at once. */
static struct segment take_received(struct ksocket *socket, size_t len)
{
    struct segment taken;

    if (socket->urgent && socket->rx_taken < socket->urgent_at) {
        len = min_u64(len, socket->urgent_at - socket->rx_taken);
    }
    taken = segments_take(&socket->rx, (uint32_t)len);
    socket->rx_bytes -= taken.len;
    socket->rx_taken += taken.len;
    socket->urgent = socket->urgent && socket->rx_taken <= socket->urgent_at;
    return taken;
}

/* Never short while there is more, but for an urgent byte: tcp_recvmsg_locked() goes on until the queue is
 * empty or `len` is reached. Flows rely on it, see short_read_proves_empty(). */
ssize_t sys_recv(int fd, void *bytes, size_t len)
{
    struct ksocket *socket = kernel_socket_at(fd, "recv");
    size_t done = 0;

    kernel_interleave();
    if (kernel_chance(kernel.faults.no_memory)) {
        return -ENOMEM;
    }
    while (done < len && socket->rx.count > 0 && !(done > 0 && is_at_urgent_byte(socket))) {
        struct segment taken = take_received(socket, len - done);

        stream_fill(taken.key, taken.offset, (unsigned char *)bytes + done, taken.len);
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

ssize_t sys_send(int fd, const void *bytes, size_t len, bool fin_follows)
{
    struct ksocket *socket = kernel_socket_at(fd, "send");
    ssize_t refused;
    size_t taken;

    kernel_interleave();
    if (kernel_chance(kernel.faults.no_memory)) {
        return -ENOMEM;
    }
    refused = cannot_send(socket);
    if (refused != 0) {
        return refused;
    }
    taken = room_for(socket, maybe_short(len));
    if (socket->tx_key != KEY_NONE &&
        stream_mismatch(socket->tx_key, socket->tx_offset, bytes, taken) != taken) {
        kernel_fail("send: a wrong byte behind offset %llu", (unsigned long long)socket->tx_offset);
    }
    socket->tx_offset += taken;
    socket->tx_queued += (uint32_t)taken;
    socket->fin_is_due = fin_follows && taken == len; /* else tcp_push() without MSG_MORE */
    return (ssize_t)taken;
}

int sys_shutdown_write(int fd)
{
    struct ksocket *socket = kernel_socket_at(fd, "shutdown");

    kernel_interleave();
    kernel_wake_besides(fd); /* inet_shutdown() */
    if (socket->state != STATE_ESTABLISHED) {
        return -ENOTCONN;
    }
    if (socket->shut_write) {
        kernel_fail("FIN is sent twice");
    }
    socket->shut_write = true;
    return 0;
}

int kernel_unacknowledged(const struct ksocket *socket)
{
    return (int)socket->tx_queued + (socket->shut_write && !socket->fin_sent) +
           socket->syn_unanswered;
}

int sys_unacknowledged(int fd)
{
    struct ksocket *socket = kernel_socket_at(fd, "SIOCOUTQ");

    kernel_interleave();
    return kernel_unacknowledged(socket);
}

/* --- system calls: pipes --- */

int sys_pipe(int fds[2])
{
    kernel_interleave();
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
    (void)kernel_socket_at(fd, "F_SETPIPE_SZ");
    return kernel.pipes_are_small ? -EPERM : size_bytes;
}

int sys_pipe_size(int fd)
{
    (void)kernel_socket_at(fd, "F_GETPIPE_SZ");
    return kernel.pipes_are_small ? 8192 : 65536;
}

static struct ksocket *pipe_of(int fd)
{
    struct ksocket *end = kernel_socket_at(fd, "splice");

    return end->kind == KIND_PIPE_WRITE ? &kernel.fds[end->other_end] : end;
}

static ssize_t splice_in(struct ksocket *socket, struct ksocket *pipe, size_t len)
{
    size_t wanted = maybe_short(len);
    size_t done = 0;

    if (pipe->slots.count >= pipe->slots_max) {
        return -EAGAIN; /* wait_for_space(): even when the stream has ended */
    }
    while (done < wanted && socket->rx.count > 0 && pipe->slots.count < pipe->slots_max &&
           !is_at_urgent_byte(socket)) {
        struct segment taken = take_received(socket, wanted - done);

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

        if (socket->tx_key != KEY_NONE &&
            (taken.key != socket->tx_key || taken.offset != socket->tx_offset)) {
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
    kernel_interleave();
    if (kernel_chance(kernel.faults.splice_refused)) {
        kernel.splice_is_refused = true;
    }
    if (kernel.splice_is_refused) {
        return -EINVAL;
    }
    if (kernel_chance(kernel.faults.no_memory)) {
        return -ENOMEM;
    }
    if (kernel_socket_at(from_fd, "splice")->kind == KIND_SOCKET) {
        return splice_in(&kernel.fds[from_fd], pipe_of(to_fd), len);
    }
    return splice_out(pipe_of(from_fd), kernel_socket_at(to_fd, "splice"), len);
}

ssize_t sys_read(int fd, void *bytes, size_t len)
{
    struct ksocket *pipe = pipe_of(fd);
    size_t wanted = maybe_short(len);
    size_t done = 0;

    kernel_interleave();
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

    if (pipe->kind == KIND_SOCKET) {
        return (int)pipe->rx_bytes;
    }
    for (size_t i = 0; i < pipe->slots.count; i++) {
        bytes += (int)pipe->slots.item[(pipe->slots.first + i) % KERNEL_SEGMENTS].len;
    }
    return bytes;
}

/* --- close --- */

void sys_close(int fd)
{
    struct ksocket *socket = kernel_socket_at(fd, "close");
    bool connected = socket->kind == KIND_SOCKET && socket->peer >= 0;
    bool alive = connected && socket->state == STATE_ESTABLISHED;
    bool reset = socket->linger_reset || socket->rx_bytes > 0; /* __tcp_close() */

    socket->registered = false;
    if (alive && !reset && (socket->tx_queued > 0 || !socket->fin_sent)) {
        socket->shut_write = true;
        socket->orphan = true; /* the kernel goes on sending; the network frees it */
        return;
    }
    if (connected) {
        kernel.network->closed(socket->peer, alive && reset);
    } else if (socket->state == STATE_CONNECTING) {
        kernel.network->gave_up(fd);
    }
    socket->kind = KIND_FREE;
}
