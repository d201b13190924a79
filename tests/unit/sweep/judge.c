/* What must hold after every run, whatever was made to fail:
 *
 *  - each stream is a prefix of what was sent (leg_try_read() has checked every byte), and FIN
 *    came only behind the last byte, from a peer that had sent one;
 *  - a server that was given up got not one byte, and no FIN;
 *  - one record for each client, with an id of its own; bytes handed over are no fewer than bytes
 *    received;
 *  - the counters are the sums of the records; the pool's pipes are empty for the kernel too;
 *  - no session fell asleep: none ended by a time-out that the scenario did not ask for.
 *
 * Then what the outcome asks for: everything complete, or that session broken. A unix socket
 * knows no reset, so its end says less. Descriptors, slabs, timers and sessions that were left
 * behind are found by world_close(). */
#include "unit/sweep/judge.h"

#include "base/macros.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <sys/ioctl.h>

static bool is_unix(const struct side *side)
{
    return side->port == 0;
}

/* FIN only behind every byte, of a peer that has said FIN. A unix socket has no other end than
 * that. */
static void judge_stream(const struct side *from, const struct side *to, bool clean,
                         const char *name)
{
    cr_assert(to->leg.received <= from->leg.sent, "%s: more came than was sent", name);
    if (to->leg.end == LEG_FIN && (clean || !is_unix(to))) {
        cr_assert(from->shut, "%s: FIN came, and nobody sent one", name);
        cr_assert(to->leg.received == from->plan->sends, "%s: cut short by FIN at %" PRIu64, name,
                  to->leg.received);
    }
}

static const struct record *record_of(const struct side *client)
{
    const struct world *world = &sweep_world;

    for (size_t i = 0; i < world->records_len; i++) {
        if (clients_len == 1 || world->records[i].client.port == client->port) {
            return &world->records[i];
        }
    }
    cr_assert_fail("there is no record for port %u", client->port);
    return NULL;
}

/* Everything is there: both streams, both ends, and the record agrees. */
static void judge_complete(const struct side *client, const struct side *server,
                           const struct record *record)
{
    cr_assert(server != NULL);
    cr_assert(client->leg.received == server->plan->sends, "the client got %" PRIu64,
              client->leg.received);
    cr_assert(server->leg.received == client->plan->sends, "the server got %" PRIu64,
              server->leg.received);
    cr_assert(client->leg.end == LEG_FIN && server->leg.end == LEG_FIN);
    cr_assert(record->error == 0 && record->undelivered_bytes == 0);
    cr_assert(record->bytes_up == client->plan->sends && record->bytes_down == server->plan->sends);
}

static void judge_abnormal(const struct side *client, const struct side *server)
{
    bool client_fin = client->leg.end == LEG_FIN && !is_unix(client);
    bool server_fin = server != NULL && server->leg.end == LEG_FIN && !is_unix(server);

    cr_assert(!client_fin || server == NULL || is_unix(server) || !server_fin,
              "two clean ends of a session that broke");
    cr_assert(!client_fin || server != NULL, "a clean end without a server");
}

static void judge_client(const struct side *client, const struct record *record)
{
    static const struct plan nothing;
    static const struct side nobody = {.plan = &nothing, .of_client = -1};
    const struct side *server = client->partner;
    bool clean = reason_how(record->reason) == HOW_FIN;

    judge_stream(server != NULL ? server : &nobody, client, clean, "down");
    if (server != NULL) {
        judge_stream(client, server, clean, "up");
        cr_assert(record->bytes_up >= server->leg.received, "the record has fewer bytes up");
    }
    cr_assert(record->bytes_down >= client->leg.received, "the record has fewer bytes down");
    cr_assert(record->bytes_up <= client->leg.sent);
    if (!clean) {
        judge_abnormal(client, server);
    }
}

static void judge_natural(const struct scenario *scenario, const struct side *client,
                          const struct record *record)
{
    cr_assert((scenario->reasons & REASON_BIT(record->reason)) != 0, "reason %s, errno %d",
              reason_text(record->reason), record->error);
    if (reason_how(record->reason) == HOW_FIN) {
        judge_complete(client, client->partner, record);
        return;
    }
    cr_assert(client->leg.received >= scenario->down_arrives, "the client got %" PRIu64,
              client->leg.received);
    cr_assert(scenario->up_arrives == 0 || client->partner != NULL);
    if (client->partner != NULL) {
        cr_assert(client->partner->leg.received >= scenario->up_arrives,
                  "the server got %" PRIu64 " of %" PRIu64, client->partner->leg.received,
                  client->leg.sent);
    }
}

static void judge_awake(const struct scenario *scenario, const struct record *record)
{
    cr_assert(scenario->idles || reason_how(record->reason) != HOW_TIMEOUT ||
                  record->reason == REASON_CONNECT_TIMEOUT || record->reason == REASON_PEER_TIMEOUT,
              "it was asleep until %s", reason_text(record->reason));
}

/* The errno must be the one that was given, unless the scenario breaks the session by itself
 * too. */
static void judge_broken(const struct scenario *scenario, const struct record *record, int error)
{
    unsigned fins = REASON_BIT(REASON_CLIENT_FIN) | REASON_BIT(REASON_SERVER_FIN);

    judge_awake(scenario, record);
    cr_assert(reason_how(record->reason) != HOW_FIN, "it ended by %s", reason_text(record->reason));
    cr_assert((scenario->reasons & ~fins) != 0 || record->error == error, "errno %d, not %d",
              record->error, error);
}

static void judge_orphans(void)
{
    for (size_t i = 0; i < legs_len; i++) {
        const struct side *side = &legs[i];

        if (side->partner == NULL || side->partner->partner != side) {
            cr_assert(side->leg.received == 0, "bytes went to a server that was given up");
            cr_assert(side->leg.end != LEG_FIN || is_unix(side),
                      "a server that was given up saw FIN");
        }
    }
}

static void judge_books(void)
{
    const struct world *world = &sweep_world;
    uint64_t up = 0;
    uint64_t down = 0;
    uint64_t spliced = 0;

    cr_assert(world->records_len == clients_len, "%zu records", world->records_len);
    for (size_t i = 0; i < world->records_len; i++) {
        up += world->records[i].bytes_up;
        down += world->records[i].bytes_down;
        spliced += world->records[i].spliced_bytes;
        for (size_t j = 0; j < i; j++) {
            cr_assert(world->records[i].id != world->records[j].id, "two records of one session");
        }
    }
    cr_assert(metric_get(&world->metrics.accepted) == clients_len);
    cr_assert(metrics_closed(&world->metrics) == clients_len);
    cr_assert(metric_get(&world->metrics.bytes_up) == up);
    cr_assert(metric_get(&world->metrics.bytes_down) == down);
    cr_assert(metric_get(&world->metrics.spliced_bytes) == spliced);
    cr_assert(spliced <= up + down);
}

static void judge_pipes(void)
{
    const struct pipe_pool *pool = &sweep_world.relay.supplies.pipes;
    size_t kept = 0;

    for (const struct pipe *pipe = pool->kept; pipe != NULL; pipe = pipe->next) {
        int bytes = -1;

        cr_assert(ioctl(pipe->read_fd, FIONREAD, &bytes) == 0 && bytes == 0,
                  "a pipe in the pool holds %d bytes", bytes);
        kept++;
    }
    cr_assert(kept == pool->pipes_kept && pool->pipes_lent == 0);
}

void judge(const struct scenario *scenario, enum expectation expectation, uint64_t id, int error)
{
    judge_books();
    judge_pipes();
    judge_orphans();
    for (size_t i = 0; i < clients_len; i++) {
        const struct record *record = record_of(&clients[i]);

        judge_client(&clients[i], record);
        switch (expectation) {
        case EXPECT_NOTHING_SEEN:
            judge_natural(scenario, &clients[i], record);
            break;
        case EXPECT_ANY_END:
            judge_awake(scenario, record);
            break;
        case EXPECT_BROKEN:
            if (record->id == id) {
                judge_broken(scenario, record, error);
            } else {
                judge_natural(scenario, &clients[i], record);
            }
            break;
        }
    }
}
