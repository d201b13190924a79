/* Actors and judge.
 *
 * A run has up to PAIRS_MAX connections. Each has a client and a server, both with a plan made from the
 * seed: how much to send, what to wait for, whether to half-close, whether and when to reset, whether
 * to read at all, how often connecting fails first. world_step() picks one of all things that could
 * happen next. When nothing can, and sluice waits without a timer, a wake-up was lost (kernel.c).
 *
 * The judge, for each connection:
 *   J1 what a peer got is a prefix of what the other sent (checked where it is sent, kernel.c)
 *   J2 a peer that sees FIN has got all, and the other one has sent FIN
 *   J3 without a cause for an abnormal end, both get all, then FIN, and the record says so
 *   J4 after a reset by one side, the other gets all that was received before it, then a reset, if it
 *      reads at all
 *   J5 one record for each connection; no descriptor, session, buffer or pipe is left */
#include "sim/world.h"

#include "base/check.h"
#include "relay/listener.h"
#include "relay/session.h"
#include "sim/kernel.h"

#include <arpa/inet.h>
#include <string.h>

enum { PAIRS_MAX = 4, TARGETS = 3, IDLE_TURNS_MAX = 20000, NEVER = -1 };

struct side {
    int fd; /* sluice's socket towards this peer, -1: none (any more) */
    uint64_t key;
    uint64_t to_send;
    uint64_t sent;
    uint64_t wait_for; /* sends nothing before it has got so much */
    int64_t reset_at;  /* resets once it has sent so much; NEVER */
    bool fin_planned;
    bool fin_sent;
    bool reset_sent;
    bool reads;
    uint64_t got;
    bool got_fin;
    bool got_reset;
};

struct pair {
    struct side client;
    struct side server;
    bool arrived;
    int connecting_fd; /* -1: none */
    unsigned refusals; /* attempts that fail before one succeeds */
    bool silent;       /* those attempts get no answer at all */
    unsigned records;
    struct record record;
};

static struct {
    struct pair pairs[PAIRS_MAX];
    size_t pairs_len;
    int picking; /* the pair whose session picks a server now */
    struct target targets[TARGETS];
    bool told_to_end;
    uint64_t steps; /* things that happened */
} world;

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
    memset(side, 0, sizeof(*side));
    side->fd = -1;
    side->key = key;
    side->to_send = plan_size();
    side->fin_planned = !kernel_chance(20);
    side->reads = !kernel_chance(30);
    side->reset_at = kernel_chance(100) ? (int64_t)kernel_below(side->to_send + 1) : NEVER;
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
    pair->silent = kernel_chance(300);
}

static void plan_faults(void)
{
    struct kernel_faults *faults = &kernel.faults;

    faults->interleave = kernel_chance(500) ? (uint32_t)kernel_below(800) : 0;
    faults->short_count = kernel_chance(300) ? (uint32_t)kernel_below(900) : 0;
    faults->spurious = kernel_chance(300) ? (uint32_t)kernel_below(200) : 0;
    faults->no_memory = kernel_chance(100) ? (uint32_t)kernel_below(300) : 0;
    faults->no_descriptor = kernel_chance(100) ? (uint32_t)kernel_below(300) : 0;
    faults->epoll_refused = kernel_chance(30) ? 100 : 0;
    faults->splice_refused = kernel_chance(100) ? (uint32_t)kernel_below(100) : 0;
    kernel.pipes_are_small = kernel_chance(50);
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
    return side->fd >= 0 && !side->reset_sent && !side->got_reset &&
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
    kernel_receive(side->fd, side->key, side->sent, len);
    side->sent += len;
    return true;
}

static bool try_fin(struct side *side)
{
    if (side->sent < side->to_send || side->fin_sent || !side->fin_planned) {
        return false;
    }
    side->fin_sent = true;
    kernel_receive_fin(side->fd);
    return true;
}

static bool try_reset(struct side *side)
{
    if (side->reset_at == NEVER || side->sent < (uint64_t)side->reset_at) {
        return false;
    }
    side->reset_sent = true;
    if (kernel.fds[side->fd].orphan) {
        kernel.fds[side->fd].kind = KIND_FREE;
        side->fd = -1;
    } else {
        kernel_receive_reset(side->fd);
    }
    return true;
}

static bool try_take(struct side *side)
{
    struct ksocket *socket = &kernel.fds[side->fd];
    uint32_t len;

    if (!side->reads) {
        return false;
    }
    if (socket->tx_queued > 0) {
        len = 1 + (uint32_t)kernel_below(socket->tx_queued);
        side->got += len;
        kernel_acknowledge(side->fd, len);
        return true;
    }
    if (!socket->shut_write || socket->fin_sent) {
        return false;
    }
    socket->fin_sent = true;
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
    kernel.fds[fd].tx_key = pair->server.key;
    return true;
}

static bool try_connect(struct pair *pair)
{
    int fd = pair->connecting_fd;

    if (fd < 0 || kernel.fds[fd].state != STATE_CONNECTING) {
        return false;
    }
    if (pair->refusals > 0) {
        if (pair->silent) {
            return false;
        }
        pair->refusals--;
        kernel_receive_reset(fd);
    } else {
        pair->server.fd = fd;
        kernel.fds[fd].tx_key = pair->client.key;
        kernel_connected(fd, peer_of(pair, &pair->server));
    }
    pair->connecting_fd = -1;
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
        return try_arrive(pair);
    default:
        return try_connect(pair);
    }
}

bool world_step(void)
{
    enum { ACTIONS = 12 };
    unsigned total = (unsigned)world.pairs_len * ACTIONS;
    unsigned start = (unsigned)kernel_below(total);

    kernel.now_ns += 1000 * kernel_below(50);
    for (unsigned i = 0; i < total; i++) {
        unsigned choice = (start + i) % total;

        if (try_action(&world.pairs[choice / ACTIONS], choice % ACTIONS)) {
            world.steps++;
            return true;
        }
    }
    return false;
}

void world_connecting(int fd, uint32_t port)
{
    (void)port;
    world.pairs[world.picking].connecting_fd = fd;
}

void world_gave_up(int fd)
{
    for (size_t i = 0; i < world.pairs_len; i++) {
        struct pair *pair = &world.pairs[i];

        if (pair->connecting_fd == fd) {
            pair->connecting_fd = -1;
            pair->refusals -= pair->refusals > 0; /* an attempt without answer is over */
        }
    }
}

void world_closed(int peer, bool reset)
{
    struct side *side = side_of(peer);

    side->fd = -1;
    side->got_reset = side->got_reset || reset;
}

static const struct target *pick(void *pool, struct tries *tries)
{
    const struct session *session = CONTAINER_OF(tries, struct session, tries);

    (void)pool;
    world.picking = kernel.fds[session->client.fd].peer / 2;
    return tries->made == TARGETS ? NULL : &world.targets[tries->made++];
}

/* --- the judge --- */

static void on_ended(void *owner, const struct record *record)
{
    struct pair *pair = &world.pairs[(record->client.port - 40000) / 2];

    (void)owner;
    pair->records++;
    pair->record = *record;
    pair->record.listener = NULL;
    world_seen.clean_ends += reason_how(record->reason) == HOW_FIN;
    world_seen.resets_passed_on += reason_how(record->reason) == HOW_RST;
    world_seen.timeouts += reason_how(record->reason) == HOW_TIMEOUT;
    world_seen.connect_failures +=
        record->reason == REASON_CONNECT_REFUSED || record->reason == REASON_CONNECT_TIMEOUT;
    world_seen.retries += record->retries;
    world_seen.spliced_bytes += record->spliced_bytes;
    world_seen.bytes += record->bytes_up + record->bytes_down;
}

static const char *name_of(const struct pair *pair, const struct side *side)
{
    return side == &pair->client ? "client" : "server";
}

/* J2, J4 for one receiver. `undisturbed`: no cause but the sender's own reset. */
static void judge_receiver(const struct pair *pair, const struct side *receiver,
                           const struct side *sender, bool undisturbed)
{
    if (receiver->got > sender->sent) {
        kernel_fail("the %s got more than was sent", name_of(pair, receiver));
    }
    if (receiver->got_fin && (!sender->fin_sent || receiver->got != sender->sent)) {
        kernel_fail("J2: the %s saw FIN after %llu of %llu bytes, FIN sent: %d",
                    name_of(pair, receiver), (unsigned long long)receiver->got,
                    (unsigned long long)sender->sent, sender->fin_sent);
    }
    if (!undisturbed || !sender->reset_sent || receiver->reset_sent || !receiver->reads) {
        return;
    }
    if (receiver->got != sender->sent) {
        kernel_fail("J4: the %s got %llu of the %llu bytes received before the reset",
                    name_of(pair, receiver), (unsigned long long)receiver->got,
                    (unsigned long long)sender->sent);
    }
    if (!receiver->got_reset && !receiver->got_fin) {
        kernel_fail("J4: the %s was not told of the reset", name_of(pair, receiver));
    }
}

static bool will_be_quiet(const struct pair *pair)
{
    return !pair->client.fin_planned || !pair->server.fin_planned || !pair->client.reads ||
           !pair->server.reads;
}

static void judge_pair(const struct pair *pair)
{
    const struct side *client = &pair->client;
    const struct side *server = &pair->server;
    bool reset = client->reset_sent || server->reset_sent;
    bool undisturbed = !kernel.hit_fatal_fault && !world.told_to_end && !will_be_quiet(pair) &&
                       pair->record.connect_ns != RECORD_NO_TIME;

    if (pair->records != 1) {
        kernel_fail("J5: %u records", pair->records);
    }
    judge_receiver(pair, client, server, undisturbed);
    judge_receiver(pair, server, client, undisturbed);
    if (!undisturbed || reset) {
        return;
    }
    if (client->got != server->to_send || server->got != client->to_send || !client->got_fin ||
        !server->got_fin || reason_how(pair->record.reason) != HOW_FIN) {
        kernel_fail("J3: client got %llu of %llu, server %llu of %llu, reason %s",
                    (unsigned long long)client->got, (unsigned long long)server->to_send,
                    (unsigned long long)server->got, (unsigned long long)client->to_send,
                    reason_text(pair->record.reason));
    }
}

static void judge_leftovers(void)
{
    for (int fd = 3; fd < KERNEL_FDS; fd++) {
        if (kernel.fds[fd].kind != KIND_FREE && !kernel.fds[fd].orphan) {
            kernel_fail("J5: descriptor %d is left open", fd);
        }
    }
}

/* --- one run --- */

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
    kernel_reset(seed);
    memset(&world, 0, sizeof(world));
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
    struct relay_settings settings = {
        .connect_timeout_ns = 5 * NS_PER_S,
        .idle_timeout_ns = 60 * NS_PER_S,
        .fin_timeout_ns = 90 * NS_PER_S,
        .splice = (enum splice_mode)kernel_below(3),
        .sessions_max = 1 + kernel_below(PAIRS_MAX),
        .pipes_max = kernel_below(5),
        .pipe_bytes = PIPE_BYTES_DEFAULT,
    };
    static struct metrics metrics;
    static struct loop loop;
    static struct relay relay;
    struct listener listener = {.name = "listener", .pool_name = "pool", .pick = pick};

    CHECK(loop_init(&loop) == 0);
    CHECK(relay_init(&relay, &loop, &settings, 1, &metrics) == 0);
    relay.on_ended = on_ended;
    CHECK(listener_start(&listener, &relay, kernel_new(KIND_LISTENER)) == 0);
    turn_until_over(&relay);
    if (kernel.failure[0] != '\0') {
        return;
    }
    /* Sessions are freed at the end of a turn; orphans live on in the kernel. */
    while (world_step()) {}
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
