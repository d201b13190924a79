/* The world of a scenario and its peers.
 *
 * Everybody acts once behind each turn of the loop, as far as the kernel lets them at that
 * moment. Time is the loop's clock, which is moved on only when a turn did nothing: so retries
 * by timer and time-outs cost no waiting, and a transfer is never cut by one. What takes real
 * time (a delayed ACK) just takes more turns. */
#include "unit/sweep/scenario.h"

#include "base/macros.h"
#include "net/addr.h"
#include "support/unit/lane.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    STUCK_TURNS = 20, /* without a byte, more than any retry or run of short reads takes: stuck */
    LAST_TURNS = 4,   /* for edges that are still owed */
    PLAY_MS = 8000,   /* and then something hangs */
    FORGET_NOTES = 1 << 16,
    IDLE_STEP_NS = 5 * NS_PER_MS
};

struct world sweep_world;

struct side clients[SCENARIO_CLIENTS_MAX];
struct side legs[SCENARIO_LEGS_MAX];
size_t clients_len;
size_t legs_len;

static bool drained;
static bool is_armed[SCENARIO_BASES_MAX];
static int full_turns; /* how long the full server has waited before it accepts */
static struct addr source;

static bool is_due(const struct side *side, enum when when);

/* --- the world --- */

static void add_server(struct world *world, enum server_kind kind)
{
    struct addr *addr;
    size_t index;

    switch (kind) {
    case NO_SERVER:
        return;
    case TCP_SERVER:
        (void)world_add_tcp(world);
        return;
    case UNIX_SERVER:
        (void)world_add_unix(world, 10);
        return;
    case REFUSING_SERVER:
        (void)world_add_refusing(world);
        return;
    case SILENT_SERVER:
        (void)world_add_silent(world);
        return;
    case GONE_UNIX_SERVER:
        index = world_add_unix(world, 10);
        (void)close(world->upstream[index]);
        world->upstream[index] = -1;
        return;
    case FULL_SERVER:
        index = world_add_unix(world, 0); /* room for one, which the filler takes */
        addr = &world->targets[index].addr;
        world->filler[index] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        cr_assert(connect(world->filler[index], &addr->u.any, addr->len) == 0);
        return;
    }
}

static void adjust(const struct scenario *scenario, struct relay_settings *settings)
{
    settings->connect_timeout_ns = 200 * NS_PER_MS;
    if (scenario->sessions_max != 0) {
        settings->sessions_max = scenario->sessions_max;
    }
    if (scenario->idles) {
        settings->idle_timeout_ns = 100 * NS_PER_MS;
        settings->fin_timeout_ns = 100 * NS_PER_MS;
    }
    if (scenario->tuned) {
        source = addr_any(AF_INET, 0);
        source.u.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        settings->source = &source;
        settings->tuning = (struct sock_tuning){60, 15, 900000};
    }
}

static void arm_bases(const struct scenario *scenario)
{
    for (size_t i = 0; i < SCENARIO_BASES_MAX; i++) {
        const struct base *base = &scenario->bases[i];

        if (base->error != 0 && !is_armed[i] && is_due(&clients[0], base->when)) {
            fault_fail(base->call, ANY_FD, base->nth, ALWAYS, base->error);
            is_armed[i] = true;
        }
    }
}

void scenario_open(const struct scenario *scenario)
{
    struct world *world = &sweep_world;

    world_init(world, scenario->splice);
    world->unix_front = scenario->unix_front;
    adjust(scenario, &world->settings);
    for (size_t i = 0; i < SCENARIO_SERVERS_MAX; i++) {
        add_server(world, scenario->servers[i]);
    }
    world_open(world);
    world->listener.local.len = 0; /* as if on the wildcard: each connection is asked for its end */
    world->listener.family = world->targets[0].addr.u.any.sa_family;
    memset(clients, 0, sizeof(clients));
    memset(legs, 0, sizeof(legs));
    clients_len = scenario->clients != 0 ? scenario->clients : 1;
    legs_len = 0;
    drained = false;
    full_turns = 0;
    memset(is_armed, 0, sizeof(is_armed));
    for (size_t i = 0; i < clients_len; i++) {
        clients[i] = (struct side){.leg = scenario->client_window != 0
                                              ? world_connect_small(world, scenario->client_window)
                                              : world_connect(world),
                                   .plan = &scenario->client,
                                   .of_client = -1};
    }
    arm_bases(scenario);
}

/* --- who is whose --- */

static uint16_t local_port(int fd)
{
    struct addr addr = {.len = sizeof(addr.u)};

    cr_assert(getsockname(fd, &addr.u.any, &addr.len) == 0);
    return addr_compact(&addr).port;
}

static int client_at(uint16_t port)
{
    for (size_t i = 0; i < clients_len; i++) {
        if (clients[i].port == port) {
            return (int)i;
        }
    }
    return -1;
}

/* A server's connection comes from a port of sluice's; the session, or its record, knows for
 * whom. */
static int client_behind(uint16_t port)
{
    const struct world *world = &sweep_world;

    for (const struct list_node *node = world->relay.live.next; node != &world->relay.live;
         node = node->next) {
        const struct session *session = CONTAINER_OF(node, struct session, live);

        if (session->server_local.port == port && session->server.fd >= 0) {
            return client_at(session->client_addr.port);
        }
    }
    for (size_t i = 0; i < world->records_len; i++) {
        if (world->records[i].server_local.port == port) {
            return client_at(world->records[i].client.port);
        }
    }
    return -1;
}

static void find_partner(struct side *side)
{
    if (side->partner == NULL && clients_len > 1) {
        side->of_client = client_behind(side->port);
    } else if (side->partner == NULL) {
        side->of_client = 0;
    }
    if (side->partner == NULL && side->of_client >= 0) {
        side->partner = &clients[side->of_client];
        side->leg.send_key = side->partner->leg.receive_key;
        side->leg.receive_key = side->partner->leg.send_key;
        side->partner->partner = side;
        side->partner->still_turns = 0;
    }
}

static void accept_from(const struct scenario *scenario, size_t server)
{
    struct world *world = &sweep_world;
    struct side *side = &legs[legs_len];
    struct addr peer = {.len = sizeof(peer.u)};
    int fd = accept4(world->upstream[server], &peer.u.any, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        return;
    }
    if (scenario->servers[server] == FULL_SERVER && full_turns >= 0) {
        (void)close(fd); /* the filler's */
        full_turns = -1;
        return;
    }
    cr_assert(legs_len < SCENARIO_LEGS_MAX, "a server was connected to again and again");
    legs_len++;
    *side = (struct side){.leg.fd = fd, .plan = &scenario->server, .of_client = -1};
    side->port = addr_compact(&peer).port;
}

static void accept_all(const struct scenario *scenario)
{
    for (size_t i = 0; i < sweep_world.servers_len; i++) {
        if (scenario->servers[i] == SILENT_SERVER) {
            continue;
        }
        if (scenario->servers[i] == FULL_SERVER && full_turns >= 0 && full_turns++ < 10) {
            continue;
        }
        accept_from(scenario, i);
    }
    for (size_t i = 0; i < legs_len; i++) {
        find_partner(&legs[i]);
    }
}

/* --- what a peer does --- */

static bool all_arrived(const struct side *side)
{
    int queued = 0;

    return ioctl(side->leg.fd, SIOCOUTQ, &queued) == 0 && queued == 0;
}

static bool is_stuck(const struct side *side)
{
    return side != NULL && side->partner != NULL && side->leg.sent > 0 &&
           side->still_turns >= STUCK_TURNS;
}

static bool is_over(const struct side *side)
{
    return (side->partner != NULL && side->partner->reset) || side->leg.broken ||
           sweep_world.records_len == clients_len;
}

static bool is_due(const struct side *side, enum when when)
{
    bool sent = side->leg.sent == side->plan->sends;
    const struct side *other = side->partner;

    switch (when) {
    case NEVER:
        return false;
    case AT_ONCE:
        return true;
    case WHEN_SENT:
        return sent;
    case WHEN_ARRIVED:
        return sent && all_arrived(side);
    case WHEN_END_SEEN:
        return side->leg.end != LEG_OPEN;
    case WHEN_GOT_SOME:
        return side->leg.received > 0;
    case WHEN_STUCK:
        return is_stuck(side);
    case WHEN_OTHER_STUCK:
        return is_over(side) || is_stuck(other);
    case WHEN_DRAINED:
        return drained;
    case WHEN_OVER:
        return is_over(side);
    }
    return false;
}

static bool is_gone(const struct side *side)
{
    return side->leg.fd < 0;
}

static void count_still_turns(struct side *side)
{
    uint64_t moved = side->leg.sent + side->leg.received;

    side->still_turns = moved == side->moved ? side->still_turns + 1 : 0;
    side->moved = moved;
}

static void act(struct side *side)
{
    const struct plan *plan = side->plan;
    struct leg *leg = &side->leg;

    if (is_gone(side)) {
        return;
    }
    if (is_due(side, plan->reads)) {
        (void)leg_try_read(leg, plan->sips != 0 ? plan->sips : SIZE_MAX);
    }
    if (is_due(side, plan->gives_up)) {
        (void)shutdown(leg->fd, SHUT_RD);
    }
    if (leg->sent < plan->sends && is_due(side, plan->begins) &&
        (side->of_client < 0 || side->partner)) {
        (void)leg_try_send(leg, plan->sends - leg->sent);
    }
    if (!side->shut && leg->sent == plan->sends && is_due(side, plan->shuts)) {
        side->shut = shutdown(leg->fd, SHUT_WR) == 0;
    }
    if (is_due(side, plan->resets)) {
        side->reset = true;
        leg_reset(leg);
        return;
    }
    count_still_turns(side);
}

/* Orphans read only: what they are sent would be a fault. */
static void act_all(void)
{
    static const struct plan orphan = {.reads = AT_ONCE};

    for (size_t i = 0; i < clients_len; i++) {
        act(&clients[i]);
    }
    for (size_t i = 0; i < legs_len; i++) {
        const struct plan *plan = legs[i].plan;

        legs[i].plan = legs[i].partner == NULL ? &orphan : plan;
        act(&legs[i]);
        legs[i].plan = plan;
    }
}

static void drain_if_due(const struct scenario *scenario)
{
    if (!drained && is_due(&clients[0], scenario->drains)) {
        drained = true;
        listener_drain(&sweep_world.listener);
        relay_end_all(&sweep_world.relay, REASON_DRAIN, true);
    }
}

/* --- playing --- */

static bool has_ended(const struct side *side)
{
    return is_gone(side) || side->leg.end != LEG_OPEN;
}

static bool all_have_ended(void)
{
    bool ended = sweep_world.records_len >= clients_len;

    for (size_t i = 0; i < clients_len; i++) {
        ended = ended && has_ended(&clients[i]);
    }
    for (size_t i = 0; i < legs_len; i++) {
        ended = ended && has_ended(&legs[i]);
    }
    return ended;
}

static uint64_t bytes_moved(void)
{
    uint64_t bytes = legs_len;

    for (size_t i = 0; i < clients_len; i++) {
        bytes += clients[i].leg.sent + clients[i].leg.received;
    }
    for (size_t i = 0; i < legs_len; i++) {
        bytes += legs[i].leg.sent + legs[i].leg.received;
    }
    return bytes;
}

/* One turn, and what the peers make of it. */
static void turn(const struct scenario *scenario, void (*after_turn)(void))
{
    uint64_t before = bytes_moved();
    size_t notes = fault_notes_len();
    bool idle;

    world_turn(&sweep_world);
    after_turn();
    idle = fault_notes_len() <= notes + 2; /* epoll_wait, perhaps twice */
    if (fault_notes_len() > FORGET_NOTES) {
        fault_forget_notes();
    }
    accept_all(scenario);
    act_all();
    arm_bases(scenario);
    drain_if_due(scenario);
    fault_clock_advance(idle && bytes_moved() == before ? (uint64_t)IDLE_STEP_NS : 1000);
}

/* Once all sessions have their record, everybody reads. */
static void read_rest(void)
{
    for (size_t i = 0; i < clients_len + legs_len; i++) {
        struct side *side = i < clients_len ? &clients[i] : &legs[i - clients_len];

        if (!is_gone(side)) {
            (void)leg_try_read(&side->leg, SIZE_MAX);
        }
    }
}

void scenario_play(const struct scenario *scenario, void (*after_turn)(void))
{
    uint64_t give_up_ms = world_deadline_ms() + PLAY_MS;

    for (size_t i = 0; i < clients_len; i++) {
        clients[i].port = local_port(clients[i].leg.fd);
    }
    while (!all_have_ended()) {
        cr_assert(world_deadline_ms() < give_up_ms, "it hangs: %zu records, %zu alive",
                  sweep_world.records_len, sweep_world.relay.live_count);
        turn(scenario, after_turn);
        if (sweep_world.records_len >= clients_len) {
            read_rest();
        }
    }
    for (int i = 0; i < LAST_TURNS; i++) {
        turn(scenario, after_turn);
    }
    listener_close(&sweep_world.listener);
    turn(scenario, after_turn);
}

void scenario_close(void)
{
    for (size_t i = 0; i < clients_len; i++) {
        leg_close(&clients[i].leg);
    }
    for (size_t i = 0; i < legs_len; i++) {
        leg_close(&legs[i].leg);
    }
    world_close(&sweep_world);
}
