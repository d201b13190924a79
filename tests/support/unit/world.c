/* Sockets of the test are made with calls of their own, past the seam. */
#include "support/unit/world.h"

#include "base/macros.h"
#include "net/sock.h"
#include "support/stream.h"
#include "support/unit/fault.h"
#include "support/unit/lane.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PULSE_MS = 5, WAIT_MS = 10000, CHUNK_BYTES = 64 * 1024 };

uint64_t world_deadline_ms(void)
{
    struct timespec now;

    /* Not the loop's clock, which tests move. */
    cr_assert(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- servers --- */

static struct addr loopback(void)
{
    struct addr addr = addr_any(AF_INET, 0);

    addr.u.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return addr;
}

static struct addr address_of(int fd)
{
    struct addr addr = {.len = sizeof(addr.u)};

    cr_assert(getsockname(fd, &addr.u.any, &addr.len) == 0);
    return addr;
}

static void await(int fd, short events)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};

    cr_assert(poll(&poll_fd, 1, WAIT_MS) == 1, "a socket of the test itself is stuck");
}

static size_t add_server(struct world *world, int fd)
{
    size_t index = world->servers_len++;

    cr_assert(index < WORLD_SERVERS_MAX);
    (void)snprintf(world->names[index], WORLD_NAME_BYTES, "server-%zu", index);
    world->targets[index] = (struct target){.addr = address_of(fd), .name = world->names[index]};
    world->upstream[index] = fd;
    world->filler[index] = -1;
    return index;
}

static int new_socket(int family)
{
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0, "%s", strerror(errno));
    return fd;
}

static int bind_tcp(void)
{
    struct addr addr = loopback();
    int fd = new_socket(AF_INET);

    cr_assert(bind(fd, &addr.u.any, addr.len) == 0);
    return fd;
}

size_t world_add_tcp(struct world *world)
{
    int fd = bind_tcp();

    cr_assert(listen(fd, 1000) == 0);
    return add_server(world, fd);
}

/* An abstract name of this process's own. */
static struct addr unix_address(size_t number)
{
    struct addr addr = {0};
    char *name = addr.u.local.sun_path + 1; /* behind the 0 that makes it abstract */
    int len = snprintf(name, sizeof(addr.u.local.sun_path) - 1, "sluice-unit-%ld-%zu",
                       (long)getpid(), number);

    addr.u.local.sun_family = AF_UNIX;
    addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
    return addr;
}

size_t world_add_unix(struct world *world, int backlog)
{
    struct addr addr = unix_address(world->servers_len);
    int fd = new_socket(AF_UNIX);

    cr_assert(bind(fd, &addr.u.any, addr.len) == 0);
    cr_assert(listen(fd, backlog) == 0);
    return add_server(world, fd);
}

size_t world_add_refusing(struct world *world)
{
    return add_server(world, bind_tcp());
}

size_t world_add_silent(struct world *world)
{
    int fd = bind_tcp();
    int filler = new_socket(AF_INET);
    size_t index;

    cr_assert(listen(fd, 0) == 0); /* room for one */
    index = add_server(world, fd);
    cr_assert(connect(filler, &world->targets[index].addr.u.any, world->targets[index].addr.len) ==
                  0 ||
              errno == EINPROGRESS);
    await(filler, POLLOUT);
    await(fd, POLLIN);
    world->filler[index] = filler;
    return index;
}

/* --- the relay --- */

static const struct target *pick_in_order(void *context, struct tries *tries)
{
    struct world *world = context;

    return tries->made < world->servers_len ? &world->targets[tries->made++] : NULL;
}

static void on_ended(void *owner, const struct record *record)
{
    struct world *world = owner;

    cr_assert(world->records_len < WORLD_RECORDS_MAX);
    world->records[world->records_len++] = *record; /* names outlive it here */
}

static void on_paused(void *owner, const char *listener, int error)
{
    struct world *world = owner;

    cr_assert(strcmp(listener, "front") == 0);
    world->pauses++;
    world->pause_error = error;
}

static void on_pulse(struct timer *timer, uint64_t now_ns)
{
    struct world *world = CONTAINER_OF(timer, struct world, pulse);

    timer_set(&world->loop.timers, &world->pulse, now_ns + PULSE_MS * NS_PER_MS);
}

void world_init(struct world *world, enum splice_mode splice)
{
    memset(world, 0, sizeof(*world));
    bound_test_time();
    (void)signal(SIGPIPE, SIG_IGN); /* as sluice does */
    fault_clear();
    world->fds_before = count_open_fds();
    world->next_key = 1;
    world->settings = (struct relay_settings){
        .connect_timeout_ns = 3600 * NS_PER_S,
        .idle_timeout_ns = 3600 * NS_PER_S,
        .fin_timeout_ns = 3600 * NS_PER_S,
        .splice = splice,
        .sessions_max = 16,
        .pipes_max = 8,
        .pipe_bytes = PIPE_BYTES_MIN,
        .want_details = true,
    };
}

static int listen_front(const struct world *world)
{
    struct addr address = world->unix_front ? unix_address(WORLD_SERVERS_MAX) : loopback();

    return world->unix_front ? sock_listen_unix(&address)
                             : sock_listen_tcp(&address, &world->settings.tuning, true);
}

void world_open(struct world *world)
{
    int fd;

    cr_assert(loop_init(&world->loop) == 0);
    cr_assert(relay_init(&world->relay, &world->loop, &world->settings, 1000, &world->metrics) ==
              0);
    world->relay.on_ended = on_ended;
    world->relay.on_paused = on_paused;
    world->relay.owner = world;
    fd = listen_front(world);
    cr_assert(fd >= 0);
    world->address = address_of(fd);
    world->listener = (struct listener){
        .name = "front",
        .pool_name = "back",
        .pick = pick_in_order,
        .pool = world,
        .family = AF_INET,
    };
    cr_assert(listener_start(&world->listener, &world->relay, fd) == 0);
    timer_init(&world->pulse, on_pulse);
    timer_set(&world->loop.timers, &world->pulse, world->loop.now_ns);
    fault_clear();
}

static void check_books(const struct world *world)
{
    size_t live = 0;

    for (const struct list_node *node = world->relay.live.next; node != &world->relay.live;
         node = node->next) {
        live++;
    }
    cr_assert(world->relay.live_count == live);
    cr_assert(metrics_closed(&world->metrics) == world->records_len, "one record per session");
    cr_assert(metric_get(&world->metrics.accepted) == live + world->records_len);
}

void world_turn(struct world *world)
{
    cr_assert(loop_turn(&world->loop) == 0);
    check_books(world);
}

void world_idle(struct world *world, int turns)
{
    for (int i = 0; i < turns; i++) {
        world_turn(world);
    }
}

void world_close(struct world *world)
{
    struct relay *relay = &world->relay;

    fault_disarm();
    listener_close(&world->listener);
    world_turn(world);
    cr_assert(relay->live_count == 0, "a session is still alive");
    cr_assert(relay->sessions.objects_in_use == (relay->spare_session != NULL));
    cr_assert(relay->supplies.buffers.objects_in_use == 0);
    cr_assert(relay->supplies.pipes.pipes_lent == 0);
    timer_cancel(&world->loop.timers, &world->pulse);
    cr_assert(world->loop.timers.count == 0, "a timer is still set");
    loop_fini(&world->loop);
    relay_fini(relay);
    for (size_t i = 0; i < world->servers_len; i++) {
        (void)close(world->upstream[i]);
        if (world->filler[i] >= 0) {
            (void)close(world->filler[i]);
        }
    }
    cr_assert(count_open_fds() == world->fds_before, "%zu descriptors more than before",
              count_open_fds() - world->fds_before);
}

void world_wait_records(struct world *world, size_t len)
{
    WORLD_UNTIL(world, world->records_len >= len);
    cr_assert(world->records_len == len, "%zu records, not %zu", world->records_len, len);
}

const struct record *world_expect_end(struct world *world, enum reason reason,
                                      enum closed_by closed_by, int error)
{
    const struct record *record = &world->records[0];

    world_wait_records(world, 1);
    cr_assert(record->reason == reason, "reason %s, not %s", reason_text(record->reason),
              reason_text(reason));
    cr_assert(record->closed_by == closed_by, "closed by %s, not %s",
              closed_by_text(record->closed_by), closed_by_text(closed_by));
    cr_assert(record->error == error, "error %d, not %d", record->error, error);
    return record;
}

struct session *world_session(struct world *world)
{
    cr_assert(!list_is_empty(&world->relay.live), "there is no session");
    return CONTAINER_OF(world->relay.live.next, struct session, live);
}

/* --- legs --- */

static void set_no_delay(int fd)
{
    int on = 1;

    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
}

static struct leg connect_leg(struct world *world, int receive_bytes)
{
    sa_family_t family = world->address.u.any.sa_family;
    struct leg leg = {.fd = new_socket(family)};

    leg.send_key = world->next_key++;
    leg.receive_key = world->next_key++;
    if (receive_bytes > 0) {
        cr_assert(
            setsockopt(leg.fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes)) == 0);
    }
    if (family != AF_UNIX) {
        set_no_delay(leg.fd);
    }
    cr_assert(connect(leg.fd, &world->address.u.any, world->address.len) == 0 ||
              errno == EINPROGRESS);
    await(leg.fd, POLLOUT);
    return leg;
}

struct leg world_connect(struct world *world)
{
    return connect_leg(world, 0);
}

struct leg world_connect_small(struct world *world, int bytes)
{
    return connect_leg(world, bytes);
}

static int accept_now(const struct world *world, size_t server)
{
    return accept4(world->upstream[server], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

struct leg world_accept(struct world *world, size_t server, const struct leg *of)
{
    struct leg leg = {.send_key = of->receive_key, .receive_key = of->send_key};

    WORLD_UNTIL(world, (leg.fd = accept_now(world, server)) >= 0);
    if (world->targets[server].addr.u.any.sa_family != AF_UNIX) {
        set_no_delay(leg.fd);
    }
    return leg;
}

void world_pair(struct world *world, struct leg *ret_client, struct leg *ret_server)
{
    *ret_client = world_connect(world);
    *ret_server = world_accept(world, 0, ret_client);
}

size_t leg_try_send(struct leg *leg, size_t len)
{
    static unsigned char bytes[CHUNK_BYTES];
    size_t done = 0;

    while (done < len && !leg->broken) {
        size_t chunk = min_size(len - done, sizeof(bytes));
        ssize_t result;

        stream_fill(leg->send_key, leg->sent, bytes, chunk);
        result = send(leg->fd, bytes, chunk, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (result < 0) {
            cr_assert(errno == EAGAIN || errno == EPIPE || errno == ECONNRESET, "%s",
                      strerror(errno));
            leg->broken = errno != EAGAIN;
            leg->reset_seen = errno == ECONNRESET;
            break;
        }
        done += (size_t)result;
        leg->sent += (uint64_t)result;
    }
    return done;
}

void leg_send(struct world *world, struct leg *leg, size_t len)
{
    uint64_t until = leg->sent + len;

    WORLD_UNTIL(world, (leg_try_send(leg, until - leg->sent), leg->sent == until || leg->broken));
    cr_assert(!leg->broken, "the connection is gone");
}

size_t leg_try_read(struct leg *leg, size_t len)
{
    static unsigned char bytes[CHUNK_BYTES];
    size_t done = 0;

    while (done < len && leg->end == LEG_OPEN) {
        ssize_t result = recv(leg->fd, bytes, min_size(len - done, sizeof(bytes)), MSG_DONTWAIT);
        size_t sound;

        if (result < 0 && errno == EAGAIN) {
            break;
        }
        if (result <= 0) {
            cr_assert(result == 0 || errno == ECONNRESET, "%s", strerror(errno));
            leg->end = result == 0 && !leg->reset_seen ? LEG_FIN : LEG_RESET;
            break;
        }
        sound = stream_mismatch(leg->receive_key, leg->received, bytes, (size_t)result);
        cr_assert(sound == (size_t)result, "wrong byte at %" PRIu64, leg->received + sound);
        done += (size_t)result;
        leg->received += (uint64_t)result;
    }
    return done;
}

void leg_expect(struct world *world, struct leg *leg, size_t len)
{
    uint64_t until = leg->received + len;

    WORLD_UNTIL(world, (leg_try_read(leg, until - leg->received),
                        leg->received == until || leg->end != LEG_OPEN));
    cr_assert(leg->received == until, "the end came %" PRIu64 " bytes early",
              until - leg->received);
}

void leg_expect_end(struct world *world, struct leg *leg, enum leg_end end)
{
    WORLD_UNTIL(world, (leg_try_read(leg, SIZE_MAX), leg->end != LEG_OPEN));
    cr_assert(leg->end == end, "the connection ended by %s",
              leg->end == LEG_FIN ? "FIN" : "a reset");
}

void leg_shut(const struct leg *leg)
{
    cr_assert(shutdown(leg->fd, SHUT_WR) == 0);
}

void leg_close(struct leg *leg)
{
    (void)close(leg->fd);
    leg->fd = -1;
}

void leg_reset(struct leg *leg)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(leg->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    leg_close(leg);
}

void world_converse(struct world *world, struct leg *first, struct leg *second, size_t len)
{
    leg_send(world, first, len);
    leg_expect(world, second, len);
    leg_send(world, second, len);
    leg_expect(world, first, len);
    leg_shut(first);
    leg_expect_end(world, second, LEG_FIN);
    leg_shut(second);
    leg_expect_end(world, first, LEG_FIN);
    leg_close(first);
    leg_close(second);
}
