/* Scripted peers. They use blocking sockets with SO_RCVTIMEO and SO_SNDTIMEO: simple code on this side
 * of the wire, and no wait without a bound. */
#include "support/peer.h"

#include "support/stream.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum { CHUNK_BYTES = 256 * 1024 };

bool is_long_run(void)
{
    const char *value = getenv("LONG");

    return value != NULL && strcmp(value, "1") == 0;
}

static socklen_t fill_inet(const char *ip, uint16_t port, struct sockaddr_storage *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;

    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, ip, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof(*v4);
    }
    cr_assert(inet_pton(AF_INET6, ip, &v6->sin6_addr) == 1, "bad test address %s", ip);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    return sizeof(*v6);
}

static socklen_t fill_unix(const char *name, struct sockaddr_storage *address)
{
    struct sockaddr_un *local = (struct sockaddr_un *)address;
    size_t len = strlen(name);

    memset(address, 0, sizeof(*address));
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, name, len);
    if (name[0] == '@') {
        local->sun_path[0] = '\0';
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    return (socklen_t)sizeof(*local);
}

static void bound_waits(int fd)
{
    struct timeval wait = {.tv_sec = PEER_WAIT_S};

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0);
}

static int new_socket(int family)
{
    int one = 1;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0, "socket: %s", strerror(errno));
    bound_waits(fd);
    if (family != AF_UNIX) {
        cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
    }
    return fd;
}

static int listen_on(const struct sockaddr_storage *address, socklen_t len, int backlog)
{
    int one = 1;
    int fd = new_socket(address->ss_family);

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
    cr_assert(bind(fd, (const struct sockaddr *)address, len) == 0, "bind: %s", strerror(errno));
    cr_assert(listen(fd, backlog) == 0, "listen: %s", strerror(errno));
    return fd;
}

int peer_listen(const char *ip, uint16_t port, int backlog)
{
    struct sockaddr_storage address;
    socklen_t len = fill_inet(ip, port, &address);

    return listen_on(&address, len, backlog);
}

int peer_listen_unix(const char *name)
{
    struct sockaddr_storage address;
    socklen_t len = fill_unix(name, &address);

    return listen_on(&address, len, 128);
}

static int connect_to(int fd, const struct sockaddr_storage *address, socklen_t len)
{
    cr_assert(connect(fd, (const struct sockaddr *)address, len) == 0, "connect: %s",
              strerror(errno));
    return fd;
}

int peer_connect(const char *ip, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t len = fill_inet(ip, port, &address);

    return connect_to(new_socket(address.ss_family), &address, len);
}

int peer_connect_unix(const char *name)
{
    struct sockaddr_storage address;
    socklen_t len = fill_unix(name, &address);

    return connect_to(new_socket(AF_UNIX), &address, len);
}

int peer_connect_later(const char *ip, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t len = fill_inet(ip, port, &address);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    cr_assert(fd >= 0, "socket: %s", strerror(errno));
    if (connect(fd, (const struct sockaddr *)&address, len) < 0) {
        cr_assert(errno == EINPROGRESS, "connect: %s", strerror(errno));
    }
    return fd;
}

int peer_connect_small(const char *ip, uint16_t port, int receive_bytes, int send_bytes)
{
    struct sockaddr_storage address;
    socklen_t len = fill_inet(ip, port, &address);
    int fd = new_socket(address.ss_family);

    /* Before connect: the window scale is agreed in the handshake. */
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes)) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes)) == 0);
    return connect_to(fd, &address, len);
}

bool peer_readable(int fd, int wait_ms)
{
    struct pollfd poller = {.fd = fd, .events = POLLIN};

    return poll(&poller, 1, wait_ms) == 1;
}

int peer_accept(int listen_fd)
{
    int one = 1;
    int fd;

    cr_assert(peer_readable(listen_fd, PEER_WAIT_S * 1000), "no connection came");
    fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(fd >= 0, "accept: %s", strerror(errno));
    bound_waits(fd);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* fails on unix: fine */
    return fd;
}

static size_t chunk_size(struct peer_task *task, uint64_t left)
{
    size_t size = CHUNK_BYTES;

    if (task->chunk_max > 0) {
        size = 1 + (size_t)random_below(&task->seed, task->chunk_max);
    }
    return size < left ? size : (size_t)left;
}

static void pause_between(const struct peer_task *task)
{
    if (task->pause_us > 0) {
        (void)usleep(task->pause_us);
    }
}

static void *send_thread(void *argument)
{
    struct peer_task *task = argument;
    unsigned char *bytes = malloc(CHUNK_BYTES);
    uint64_t done = 0;

    while (done < task->len && task->error == 0) {
        size_t size = chunk_size(task, task->len - done);
        size_t sent = 0;

        stream_fill(task->key, task->offset + done, bytes, size);
        while (sent < size && task->error == 0) {
            ssize_t result = send(task->fd, bytes + sent, size - sent, MSG_NOSIGNAL);

            if (result < 0) {
                task->error = errno;
            } else {
                sent += (size_t)result;
            }
        }
        done += sent;
        pause_between(task);
    }
    if (task->error == 0 && task->shut_after && shutdown(task->fd, SHUT_WR) < 0) {
        task->error = errno;
    }
    task->len = done;
    free(bytes);
    return NULL;
}

static void *receive_thread(void *argument)
{
    struct peer_task *task = argument;
    unsigned char *bytes = malloc(CHUNK_BYTES);
    uint64_t limit = task->to_end ? UINT64_MAX : task->len;
    uint64_t done = 0;

    task->end = PEER_NO_END;
    task->mismatch_at = UINT64_MAX;
    while (done < limit && task->end == PEER_NO_END && task->error == 0) {
        size_t size = chunk_size(task, limit - done);
        ssize_t result = recv(task->fd, bytes, size, 0);

        if (result > 0) {
            size_t good = stream_mismatch(task->key, task->offset + done, bytes, (size_t)result);

            if (good < (size_t)result && task->mismatch_at == UINT64_MAX) {
                task->mismatch_at = task->offset + done + good;
            }
            done += (uint64_t)result;
            pause_between(task);
        } else if (result == 0) {
            task->end = PEER_FIN;
        } else if (errno == ECONNRESET) {
            task->end = PEER_RESET;
        } else {
            task->error = errno;
        }
    }
    task->len = done;
    free(bytes);
    return NULL;
}

void peer_start_sending(struct peer_task *task)
{
    task->mismatch_at = UINT64_MAX;
    cr_assert(pthread_create(&task->thread, NULL, send_thread, task) == 0);
}

void peer_start_receiving(struct peer_task *task)
{
    cr_assert(pthread_create(&task->thread, NULL, receive_thread, task) == 0);
}

void peer_join(struct peer_task *task)
{
    cr_assert(pthread_join(task->thread, NULL) == 0);
    cr_assert(task->error == 0, "after %llu bytes: %s", (unsigned long long)task->len,
              strerror(task->error));
    cr_assert(task->mismatch_at == UINT64_MAX, "wrong byte at offset %llu",
              (unsigned long long)task->mismatch_at);
}

void peer_send(int fd, uint64_t key, uint64_t offset, uint64_t len)
{
    struct peer_task task = {
        .fd = fd, .key = key, .offset = offset, .len = len, .mismatch_at = UINT64_MAX};

    (void)send_thread(&task);
    cr_assert(task.error == 0, "send after %llu bytes: %s", (unsigned long long)task.len,
              strerror(task.error));
}

uint64_t peer_send_until_error(int fd, uint64_t key, uint64_t len)
{
    struct peer_task task = {.fd = fd, .key = key, .len = len, .mismatch_at = UINT64_MAX};

    (void)send_thread(&task);
    return task.len;
}

void peer_expect(int fd, uint64_t key, uint64_t offset, uint64_t len)
{
    struct peer_task task = {.fd = fd, .key = key, .offset = offset, .len = len};

    (void)receive_thread(&task);
    cr_assert(task.error == 0, "recv after %llu bytes: %s", (unsigned long long)task.len,
              strerror(task.error));
    cr_assert(task.mismatch_at == UINT64_MAX, "wrong byte at offset %llu",
              (unsigned long long)task.mismatch_at);
    cr_assert(task.len == len, "the stream ended after %llu of %llu bytes (%s)",
              (unsigned long long)task.len, (unsigned long long)len,
              task.end == PEER_FIN ? "FIN" : "reset");
}

uint64_t peer_drain(int fd, uint64_t key, uint64_t offset, enum peer_end *ret_end)
{
    struct peer_task task = {.fd = fd, .key = key, .offset = offset, .to_end = true};

    (void)receive_thread(&task);
    cr_assert(task.error == 0, "recv after %llu bytes: %s", (unsigned long long)task.len,
              strerror(task.error));
    cr_assert(task.mismatch_at == UINT64_MAX, "wrong byte at offset %llu",
              (unsigned long long)task.mismatch_at);
    *ret_end = task.end;
    return task.len;
}

void peer_expect_end(int fd, enum peer_end end)
{
    enum peer_end found;
    uint64_t len = peer_drain(fd, 0, 0, &found);

    cr_assert(len == 0, "%llu bytes came before the end", (unsigned long long)len);
    cr_assert(found == end, "expected %s, found %s", end == PEER_FIN ? "FIN" : "a reset",
              found == PEER_FIN ? "FIN" : "a reset");
}

void peer_shut(int fd)
{
    cr_assert(shutdown(fd, SHUT_WR) == 0, "shutdown: %s", strerror(errno));
}

void peer_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    cr_assert(close(fd) == 0);
}

void peer_close(int fd)
{
    cr_assert(close(fd) == 0);
}
