/* The actors of the simulation.
 *
 * A run has up to PAIRS_MAX connections. Each has a client and a server, both with a plan made from the
 * seed: how much to send, what to wait for, whether to half-close, whether and when to reset or to
 * vanish, whether to read at all, whether the program is gone once it has sent its FIN, how often and
 * how connecting fails first. world_step() picks one of all things that could happen next. When
 * nothing can, and sluice waits without a timer, a wake-up was lost (kernel.c). What must come of it
 * stands in judge.c. */
#include "sim/world.h"

#include "base/check.h"
#include "relay/listener.h"
#include "relay/session.h"
#include "sim/actors.h"
#include "sim/kernel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

const struct relay_settings world_limits = {
    .connect_timeout_ns = 5 * NS_PER_S,
    .idle_timeout_ns = 60 * NS_PER_S,
    .fin_timeout_ns = 90 * NS_PER_S,
    .pipe_bytes = PIPE_BYTES_DEFAULT,
};
struct world world;
struct world_seen world_seen;

/* --- plans --- */

/* Sizes from nothing to several buffers, small ones more often. */
static uint64_t plan_size(void)
{
    uint64_t bits = kernel.buffers_are_tiny ? 12 : 19;

    if (kernel.buffers_are_huge) {
        return kernel_below(1u << (17 + kernel_below(5)));
    }
    return kernel_chance(200) ? 0 : kernel_below(1u << kernel_below(bits));
}

static void plan_side(struct side *side, uint64_t key)
{
    static const int silence[] = {ETIMEDOUT, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH};

    memset(side, 0, sizeof(*side));
    side->fd = -1;
    side->key = key;
    side->to_send = plan_size();
    side->fin_planned = !kernel_chance(20);
    side->reads = !kernel_chance(30);
    side->reset_at = kernel_chance(world.is_rough ? 600 : 100)
                         ? (int64_t)kernel_below(side->to_send + 1)
                         : NEVER;
    side->vanish_at = kernel_chance(30) ? (int64_t)kernel_below(side->to_send + 1) : NEVER;
    side->vanish_error = silence[kernel_below(ARRAY_LEN(silence))];
    side->urgent_at =
        kernel_chance(world.is_rough ? 700 : 50) ? kernel_below(side->to_send + 1) : UINT64_MAX;
    side->closes = kernel_chance(100);
    side->pause_ns = kernel_chance(world.is_slow ? 500 : 20) ? kernel_below(50 * NS_PER_S) : 0;
}

static void plan_pair(struct pair *pair, uint64_t key)
{
    memset(pair, 0, sizeof(*pair));
    plan_side(&pair->client, key);
    plan_side(&pair->server, key + 1);
    if (kernel_chance(500)) {
        pair->server.wait_for = kernel_below(pair->client.to_send + 1);
    }
    pair->connecting_fd = -1;
    pair->refusals = kernel_chance(200) ? (unsigned)kernel_below(TARGETS + 2) : 0;
    pair->refusal = (enum refusal)kernel_below(REFUSALS);
    pair->client_fd = -1;
    pair->server_fd = -1;
}

static void plan_faults(void)
{
    struct kernel_faults *faults = &kernel.faults;

    faults->interleave = kernel_chance(500) ? (uint32_t)kernel_below(800) : 0;
    if (world.is_rough) {
        faults->interleave = 600;
    }
    faults->short_count = kernel_chance(300) ? (uint32_t)kernel_below(900) : 0;
    faults->spurious = kernel_chance(300) ? (uint32_t)kernel_below(200) : 0;
    faults->no_memory = kernel_chance(world.is_slow ? 900 : 100) ? (uint32_t)kernel_below(300) : 0;
    faults->no_descriptor = kernel_chance(100) ? (uint32_t)kernel_below(300) : 0;
    faults->accept_aborted = kernel_chance(50) ? (uint32_t)kernel_below(500) : 0;
    faults->epoll_refused = kernel_chance(30) ? 100 : 0;
    faults->splice_refused = kernel_chance(100) ? (uint32_t)kernel_below(100) : 0;
    kernel.pipes_are_small = kernel_chance(50);
    kernel.is_sparing = kernel_chance(500);
}

/* --- what can happen next --- */

static struct side *side_of(int peer)
{
    struct pair *pair = &world.pairs[peer / 2];

    return peer % 2 == 0 ? &pair->client : &pair->server;
}

static int peer_of(const struct pair *pair, const struct side *side)
{
    return (int)(pair - world.pairs) * 2 + (side == &pair->server);
}

static bool can_talk(const struct side *side)
{
    return side->fd >= 0 && !side->reset_sent && !side->vanished && !side->got_reset &&
           kernel.fds[side->fd].state == STATE_ESTABLISHED;
}

static bool try_send(struct side *side)
{
    const struct ksocket *socket = &kernel.fds[side->fd];
    uint64_t window;
    uint32_t len;

    if (side->sent == side->to_send || side->got < side->wait_for || socket->orphan ||
        socket->rx_bytes >= socket->rcvbuf || socket->rx.count >= KERNEL_SEGMENTS) {
        return false;
    }
    window = min_u64(side->to_send - side->sent, socket->rcvbuf - socket->rx_bytes);
    if (kernel.buffers_are_huge) {
        len = (uint32_t)window;
    } else {
        len = 1 + (uint32_t)kernel_below(kernel_chance(300) ? window : min_u64(window, 1448));
    }
    world.pairs[kernel.fds[side->fd].peer / 2].sent_ns = kernel.now_ns;
    if (side->sent == side->urgent_at) {
        kernel_receive_urgent(side->fd, side->key, side->sent);
        len = 1;
    } else {
        len = side->sent < side->urgent_at ? (uint32_t)min_u64(len, side->urgent_at - side->sent)
                                           : len;
        kernel_receive(side->fd, side->key, side->sent, len);
    }
    side->sent += len;
    return true;
}

static bool try_fin(struct side *side)
{
    if (side->sent < side->to_send || side->fin_sent || !side->fin_planned) {
        return false;
    }
    side->fin_sent = true;
    world.pairs[kernel.fds[side->fd].peer / 2].sent_ns = kernel.now_ns;
    kernel_receive_fin(side->fd);
    return true;
}

/* Sluice's socket learns that the connection is broken: by a reset, or by an error of its own. */
static void break_off(struct side *side, int error)
{
    if (kernel.fds[side->fd].orphan) {
        kernel.fds[side->fd].kind = KIND_FREE;
        side->fd = -1;
    } else if (error != 0) {
        kernel_receive_error(side->fd, error);
    } else {
        kernel_receive_reset(side->fd);
    }
}

static bool try_reset(struct side *side)
{
    if (side->reset_at == NEVER || side->sent < (uint64_t)side->reset_at) {
        return false;
    }
    side->reset_sent = true;
    break_off(side, 0);
    side->fin_was_first = side->fd >= 0 && kernel.fds[side->fd].error == EPIPE;
    return true;
}

/* It takes TCP minutes to find out; by then sluice has seen what came before. */
static bool try_vanish(struct side *side)
{
    if (side->vanish_at == NEVER || side->sent < (uint64_t)side->vanish_at ||
        kernel.fds[side->fd].on_ready_list || !kernel.sluice_waits) {
        return false;
    }
    side->vanished = true;
    break_off(side, side->vanish_error);
    return true;
}

static bool try_take(struct side *side)
{
    struct ksocket *socket = &kernel.fds[side->fd];
    uint32_t len;

    if (!side->reads || kernel.now_ns < side->pauses_until_ns) {
        return false;
    }
    if (socket->tx_queued > 0 && side->closes && side->fin_sent) {
        side->reset_sent = true;
        break_off(side, 0);
        return true;
    }
    if (socket->tx_queued > 0) {
        side->pauses_until_ns = kernel.now_ns + side->pause_ns;
        len = 1 + (uint32_t)kernel_below(socket->tx_queued);
        side->got += len;
        kernel_acknowledge(side->fd, len);
        return true;
    }
    if (!socket->shut_write || socket->fin_sent) {
        return false;
    }
    kernel_acknowledge_fin(side->fd);
    side->got_fin = true;
    if (socket->orphan) {
        socket->kind = KIND_FREE;
        side->fd = -1;
    }
    return true;
}

static bool try_arrive(struct pair *pair)
{
    int fd;

    if (pair->arrived) {
        return false;
    }
    fd = kernel_arrive(peer_of(pair, &pair->client));
    if (fd < 0) {
        return false;
    }
    pair->arrived = true;
    pair->client.fd = fd;
    pair->client_fd = fd;
    kernel.fds[fd].tx_key = pair->server.key;
    return true;
}

static void attempt_failed(struct pair *pair, int error)
{
    pair->connecting_fd = -1;
    pair->refusals--;
    pair->failures++;
    pair->last_failure = error;
}

/* Sluice may give up a connection that it has (no place in epoll), and try again. */
static void start_anew(struct side *side)
{
    side->sent = 0;
    side->got = 0;
    side->fin_sent = false;
    side->reset_sent = false;
    side->vanished = false;
    side->got_reset = false;
}

static bool try_connect(struct pair *pair)
{
    static const int errors[] = {EHOSTUNREACH, ETIMEDOUT, ENETUNREACH, EACCES};
    int fd = pair->connecting_fd;

    if (fd < 0 || kernel.fds[fd].state != STATE_CONNECTING) {
        return false;
    }
    if (pair->refusals > 0) {
        int error =
            pair->refusal == REFUSAL_RESET ? ECONNREFUSED : errors[kernel_below(ARRAY_LEN(errors))];

        if (pair->refusal == REFUSAL_SILENCE) {
            return false;
        }
        attempt_failed(pair, error);
        kernel_receive_error(fd, error);
        return true;
    }
    start_anew(&pair->server);
    pair->server.fd = fd;
    pair->server_fd = fd;
    pair->connecting_fd = -1;
    kernel.fds[fd].tx_key = pair->client.key;
    kernel_connected(fd, peer_of(pair, &pair->server));
    return true;
}

static bool try_action(struct pair *pair, unsigned action)
{
    struct side *side = action % 2 == 0 ? &pair->client : &pair->server;

    switch (action / 2) {
    case 0:
        return can_talk(side) && try_send(side);
    case 1:
        return can_talk(side) && try_take(side);
    case 2:
        return can_talk(side) && try_fin(side);
    case 3:
        return can_talk(side) && try_reset(side);
    case 4:
        return can_talk(side) && try_vanish(side);
    case 5:
        return try_arrive(pair);
    default:
        return try_connect(pair);
    }
}

static bool world_step(void)
{
    enum { ACTIONS = 14 };
    unsigned total = (unsigned)world.pairs_len * ACTIONS;
    unsigned start = (unsigned)kernel_below(total);

    kernel.now_ns += 1000 * kernel_below(50);
    for (unsigned i = 0; i < total; i++) {
        unsigned choice = (start + i) % total;

        if (try_action(&world.pairs[choice / ACTIONS], choice % ACTIONS)) {
            world.steps++;
            if (world.pairs[choice / ACTIONS].records == 0) {
                world.pairs[choice / ACTIONS].moved_ns = kernel.now_ns;
            }
            return true;
        }
    }
    return false;
}

static uint64_t world_next_ns(void)
{
    uint64_t next_ns = UINT64_MAX;

    for (size_t i = 0; i < 2 * world.pairs_len; i++) {
        const struct side *side = side_of((int)i);

        if (can_talk(side) && side->pauses_until_ns > kernel.now_ns) {
            next_ns = min_u64(next_ns, side->pauses_until_ns);
        }
    }
    return next_ns;
}

static int world_connecting(int fd, uint32_t port)
{
    static const int errors[] = {ENETUNREACH, EADDRNOTAVAIL, ECONNREFUSED, EPERM};
    struct pair *pair = &world.pairs[world.picking];
    int error = errors[kernel_below(ARRAY_LEN(errors))];

    (void)port;
    pair->server_fd = -1; /* an earlier attempt was given up */
    if (pair->refusals > 0 && pair->refusal == REFUSAL_AT_ONCE) {
        attempt_failed(pair, error);
        return -error;
    }
    pair->connecting_fd = fd;
    return -EINPROGRESS;
}

static void world_gave_up(int fd)
{
    for (size_t i = 0; i < world.pairs_len; i++) {
        struct pair *pair = &world.pairs[i];

        if (pair->connecting_fd == fd && pair->refusals > 0) {
            attempt_failed(pair, ETIMEDOUT); /* there was no answer */
        } else if (pair->connecting_fd == fd) {
            pair->connecting_fd = -1;
        }
    }
}

static void world_closed(int peer, bool reset)
{
    struct side *side = side_of(peer);

    /* A FIN that was on its way alone is there before the reset. */
    side->got_fin = side->got_fin || (reset && side->reads && kernel.fds[side->fd].shut_write &&
                                      kernel.fds[side->fd].tx_queued == 0);
    side->fd = -1;
    side->got_reset = side->got_reset || reset;
}

static const struct kernel_network network = {
    .step = world_step,
    .next_ns = world_next_ns,
    .connecting = world_connecting,
    .closed = world_closed,
    .gave_up = world_gave_up,
};

static const struct target *pick(void *pool, struct tries *tries)
{
    const struct session *session = CONTAINER_OF(tries, struct session, tries);

    (void)pool;
    world.picking = kernel.fds[session->client.fd].peer / 2;
    return tries->made == TARGETS ? NULL : &world.targets[tries->made++];
}

/* --- one run --- */

static void on_ended(void *owner, const struct record *record)
{
    struct pair *pair = &world.pairs[(record->client.port - 40000) / 2];

    (void)owner;
    judge_record(pair, record);
    world_seen.ends[record->reason]++;
    world_seen.retries += record->retries;
    world_seen.spliced_bytes += record->spliced_bytes;
    world_seen.bytes += record->bytes_up + record->bytes_down;
}

static bool is_over(void)
{
    for (size_t i = 0; i < world.pairs_len; i++) {
        if (world.pairs[i].records == 0) {
            return false;
        }
    }
    return true;
}

static void prepare(uint64_t seed)
{
    kernel_reset(seed, &network);
    memset(&world, 0, sizeof(world));
    world.is_rough = kernel_chance(100);
    world.is_slow = kernel_chance(50);
    world.pairs_len = 1 + kernel_below(PAIRS_MAX);
    kernel.buffers_are_tiny = kernel_chance(200);
    kernel.buffers_are_huge = !kernel.buffers_are_tiny && kernel_chance(20);
    for (size_t i = 0; i < world.pairs_len; i++) {
        plan_pair(&world.pairs[i], seed * 16 + 2 * i + 1);
    }
    for (unsigned i = 0; i < TARGETS; i++) {
        world.targets[i].addr.len = sizeof(world.targets[i].addr.u.v4);
        world.targets[i].addr.u.v4.sin_family = AF_INET;
        world.targets[i].addr.u.v4.sin_port = htons((uint16_t)(20000 + i));
        world.targets[i].name = "target";
    }
    plan_faults();
}

static void turn_until_over(struct relay *relay)
{
    uint64_t end_turn = kernel_chance(50) ? kernel_below(60) : UINT64_MAX;
    uint64_t steps = 0;
    unsigned idle_turns = 0;

    for (uint64_t turn = 0; !is_over() && kernel.failure[0] == '\0'; turn++) {
        if (turn == end_turn) {
            world.told_to_end = true;
            world_seen.drains++;
            relay_end_all(relay, REASON_DRAIN, kernel_chance(500));
        }
        if (loop_turn(relay->loop) < 0) {
            return;
        }
        idle_turns = world.steps == steps ? idle_turns + 1 : 0;
        steps = world.steps;
        if (idle_turns > IDLE_TURNS_MAX) {
            kernel_fail("a spin: turn after turn, and nothing happens in the world");
        }
    }
}

static void run_sluice(void)
{
    struct relay_settings settings = world_limits;
    static struct metrics metrics;
    static struct loop loop;
    static struct relay relay;
    struct listener listener = {.name = "listener", .pool_name = "pool", .pick = pick};

    settings.splice = world.is_rough ? SPLICE_ALWAYS : (enum splice_mode)kernel_below(3);
    settings.sessions_max = 1 + kernel_below(PAIRS_MAX);
    settings.pipes_max = kernel_below(5);
    CHECK(loop_init(&loop) == 0);
    CHECK(relay_init(&relay, &loop, &settings, 1, &metrics) == 0);
    relay.on_ended = on_ended;
    CHECK(listener_start(&listener, &relay, kernel_new(KIND_LISTENER)) == 0);
    turn_until_over(&relay);
    if (kernel.failure[0] != '\0') {
        return;
    }
    /* Sessions are freed at the end of a turn; orphans live on in the kernel. */
    do {
        while (world_step()) {}
        kernel.now_ns = world_next_ns();
    } while (kernel.now_ns != UINT64_MAX);
    listener_close(&listener);
    relay_fini(&relay);
    loop_fini(&loop);
    judge_leftovers();
}

bool world_run(uint64_t seed)
{
    prepare(seed);
    run_sluice();
    for (size_t i = 0; i < world.pairs_len && kernel.failure[0] == '\0'; i++) {
        judge_pair(&world.pairs[i]);
    }
    world_seen.runs++;
    world_seen.system_calls += kernel.system_calls;
    return kernel.failure[0] == '\0';
}
