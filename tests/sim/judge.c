/* The judge of the simulation. For each connection:
 *
 *   J1 what a peer got is a prefix of what the other sent (checked where it is sent, calls.c)
 *   J2 a peer that sees FIN has got all, and the other one has sent FIN
 *   J3 without a cause for an abnormal end, both get all, then FIN, and the record says so; and when the
 *      record says so, it is so
 *   J4 after a reset by one side, or when it is gone, the other gets all that was received before it,
 *      then a reset, if it reads at all; and soon
 *   J5 one record for each connection; no descriptor, session, buffer or pipe is left
 *   J6 the record counts what the kernel's sockets took, and what was not delivered
 *   J7 its reason, errno and closed_by are what happened
 *   J8 it ends within the limits, and at no limit that was not met */
#include "base/macros.h"
#include "relay/connect.h"
#include "sim/actors.h"
#include "sim/kernel.h"

#include <errno.h>

/* To a peer that reads at once; and to one that does not, the longest time between two looks
 * (ending.c), and some turns. */
#define AT_ONCE_NS (50 * NS_PER_MS)
#define SOON_NS    (17 * NS_PER_S)
/* Sluice's clock stands still during a turn, the network's does not. */
#define TURN_NS NS_PER_S

static const char *name_of(const struct pair *pair, const struct side *side)
{
    return side == &pair->client ? "client" : "server";
}

static bool has_broken(const struct side *side)
{
    return side->reset_sent || side->vanished;
}

static bool has_ended(const struct side *side)
{
    return side->fin_sent || has_broken(side);
}

/* --- when the record comes --- */

/* Bytes taken from the one socket that did not get to the peer behind the other. */
static uint64_t lost_between(int from_fd, int to_fd)
{
    uint64_t taken = from_fd < 0 ? 0 : kernel.fds[from_fd].rx_taken;

    if (to_fd < 0) {
        return taken;
    }
    return taken - kernel.fds[to_fd].tx_offset + kernel.fds[to_fd].tx_queued;
}

/* J6, while the model still knows of the sockets. What is lost can be compared only if the network
 * did not act between sluice's question and its close(2). */
void judge_record(struct pair *pair, const struct record *record)
{
    uint64_t up = pair->server_fd < 0 ? 0 : kernel.fds[pair->server_fd].tx_offset;
    uint64_t down = pair->client_fd < 0 ? 0 : kernel.fds[pair->client_fd].tx_offset;
    uint64_t lost = lost_between(pair->client_fd, pair->server_fd) +
                    lost_between(pair->server_fd, pair->client_fd);

    pair->records++;
    pair->record = *record;
    pair->record.listener = NULL;
    pair->ended_ns = kernel.now_ns;
    pair->was_reached = pair->server_fd >= 0 && !kernel.fds[pair->server_fd].on_ready_list &&
                        kernel.fds[pair->server_fd].state == STATE_ESTABLISHED;
    if (record->bytes_up != up || record->bytes_down != down) {
        kernel_fail("J6: the record says %llu up, %llu down, where %llu and %llu were taken",
                    (unsigned long long)record->bytes_up, (unsigned long long)record->bytes_down,
                    (unsigned long long)up, (unsigned long long)down);
    }
    if (record->spliced_bytes > up + down) {
        kernel_fail("J6: more spliced than moved");
    }
    if (reason_how(record->reason) == HOW_FIN
            ? record->undelivered_bytes != 0
            : kernel.faults.interleave == 0 && record->undelivered_bytes != lost) {
        kernel_fail("J6: the record says %llu undelivered, where %llu were, reason %s",
                    (unsigned long long)record->undelivered_bytes, (unsigned long long)lost,
                    reason_text(record->reason));
    }
}

/* --- when all is over --- */

/* J2, J4 for one receiver. `undisturbed`: no cause but the sender's own doing. */
static void judge_receiver(const struct pair *pair, const struct side *receiver,
                           const struct side *sender, bool undisturbed)
{
    bool at_once = receiver->pause_ns == 0 && kernel.faults.no_memory == 0;
    uint64_t patience_ns = at_once ? AT_ONCE_NS : SOON_NS;

    if (receiver->got > sender->sent) {
        kernel_fail("the %s got more than was sent", name_of(pair, receiver));
    }
    if (receiver->got_fin && (!sender->fin_sent || receiver->got != sender->sent)) {
        kernel_fail("J2: the %s saw FIN after %llu of %llu bytes, FIN sent: %d",
                    name_of(pair, receiver), (unsigned long long)receiver->got,
                    (unsigned long long)sender->sent, sender->fin_sent);
    }
    if (!undisturbed || !has_broken(sender) || has_broken(receiver) || !receiver->reads) {
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
    if (sender->fin_was_first && !receiver->got_fin) {
        kernel_fail("J4: the %s was not told of the FIN before the reset", name_of(pair, receiver));
    }
    if (pair->ended_ns > pair->moved_ns + patience_ns) {
        kernel_fail("J4: the %s was told of the reset after %llu ms", name_of(pair, receiver),
                    (unsigned long long)((pair->ended_ns - pair->moved_ns) / NS_PER_MS));
    }
}

static bool will_be_quiet(const struct pair *pair)
{
    return !pair->client.fin_planned || !pair->server.fin_planned || !pair->client.reads ||
           !pair->server.reads;
}

/* J3, the other way round. */
static void judge_clean_end(const struct pair *pair, const struct side *receiver,
                            const struct side *sender)
{
    bool complete = receiver->got_fin && receiver->got == sender->sent;

    if (reason_how(pair->record.reason) == HOW_FIN && !has_broken(receiver) && receiver->reads &&
        !complete) {
        kernel_fail("J3: a clean end, where the %s got %llu of %llu and FIN: %d",
                    name_of(pair, receiver), (unsigned long long)receiver->got,
                    (unsigned long long)sender->sent, receiver->got_fin);
    }
}

/* True if `reason` is one that what happened can have. */
static bool reason_fits(const struct pair *pair, enum reason reason)
{
    const struct side *client = &pair->client;
    const struct side *server = &pair->server;
    bool connected = pair->record.connect_ns != RECORD_NO_TIME;

    switch (reason) {
    case REASON_CLIENT_FIN:
    case REASON_SERVER_FIN:
        return connected && client->fin_sent && server->fin_sent;
    case REASON_CLIENT_RESET:
        return connected && client->reset_sent;
    case REASON_SERVER_RESET:
        return connected && server->reset_sent;
    case REASON_CLIENT_ABORT:
        return !connected && has_broken(client) && (!pair->was_reached || kernel.hit_fatal_fault);
    case REASON_PEER_TIMEOUT:
        return connected && (client->vanished || server->vanished);
    case REASON_CONNECT_REFUSED:
    case REASON_CONNECT_TIMEOUT:
    case REASON_CONNECT_UNREACHABLE:
    case REASON_NO_PORT:
        return !connected && pair->failures > 0 && connect_reason(pair->last_failure) == reason;
    case REASON_IDLE_TIMEOUT:
    case REASON_FIN_TIMEOUT:
        return connected && will_be_quiet(pair);
    case REASON_LIMIT:
        return !connected && kernel.hit_fatal_fault;
    case REASON_DRAIN:
        return world.told_to_end;
    case REASON_NO_SERVER:
    case REASON_DENIED:
    case REASON_ADMIN:
    case REASON_PROXY_HEADER:
    case REASON_INTERNAL:
    case REASON_COUNT:
        return false;
    }
    return false;
}

static bool closed_by_fits(const struct pair *pair)
{
    const struct record *record = &pair->record;
    enum how how = reason_how(record->reason);
    bool by_peer = how == HOW_FIN || how == HOW_RST || record->reason == REASON_PEER_TIMEOUT;

    if (record->reason == REASON_CONNECT_REFUSED) {
        return record->closed_by == CLOSED_BY_SERVER;
    }
    switch (record->closed_by) {
    case CLOSED_BY_CLIENT:
        return by_peer && has_ended(&pair->client);
    case CLOSED_BY_SERVER:
        return by_peer && has_ended(&pair->server);
    case CLOSED_BY_PROXY:
        return !by_peer;
    case CLOSED_BY_COUNT:
        return false;
    }
    return false;
}

static bool errno_fits(const struct pair *pair)
{
    int error = pair->record.error;

    switch (reason_how(pair->record.reason)) {
    case HOW_FIN:
        return error == 0;
    case HOW_RST:
        return error == ECONNRESET || error == EPIPE ||
               (pair->record.reason == REASON_CLIENT_ABORT && pair->client.vanished &&
                error == pair->client.vanish_error);
    case HOW_TIMEOUT:
        return pair->record.reason != REASON_PEER_TIMEOUT ||
               (pair->client.vanished && error == pair->client.vanish_error) ||
               (pair->server.vanished && error == pair->server.vanish_error);
    case HOW_ERROR:
        return error != 0;
    case HOW_ADMIN:
    case HOW_COUNT:
        return true;
    }
    return false;
}

/* J7 */
static void judge_words(const struct pair *pair)
{
    const struct record *record = &pair->record;

    if (!reason_fits(pair, record->reason) || !closed_by_fits(pair) || !errno_fits(pair)) {
        kernel_fail("J7: %s, closed by %s, errno %d; client: FIN %d, reset %d, gone %d; "
                    "server: FIN %d, reset %d, gone %d; connect failed %u times, last %d",
                    reason_text(record->reason), closed_by_text(record->closed_by), record->error,
                    pair->client.fin_sent, pair->client.reset_sent, pair->client.vanished,
                    pair->server.fin_sent, pair->server.reset_sent, pair->server.vanished,
                    pair->failures, pair->last_failure);
    }
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* J8. From the last thing that a peer did, or from accept: so long as everything that can wait does
 * wait. Idle is looked at twice, see session.c. */
static void judge_times(const struct pair *pair)
{
    const struct record *record = &pair->record;
    uint64_t accepted_ns = pair->ended_ns - record->duration_ns;
    uint64_t since_ns = pair->ended_ns - max_u64(pair->moved_ns, accepted_ns);
    uint64_t longest_ns =
        TARGETS * world_limits.connect_timeout_ns + 3 * world_limits.fin_timeout_ns + SOON_NS;
    uint64_t quiet_ns = pair->ended_ns - max_u64(pair->sent_ns, accepted_ns);
    bool idle = record->reason == REASON_IDLE_TIMEOUT;
    bool half_idle = record->reason == REASON_FIN_TIMEOUT;

    if (since_ns > longest_ns) {
        kernel_fail("J8: ended %llu s after anything moved",
                    (unsigned long long)(since_ns / NS_PER_S));
    }
    if (pair->client.reads && pair->server.reads &&
        ((idle && quiet_ns + TURN_NS < world_limits.idle_timeout_ns) ||
         (half_idle && quiet_ns + TURN_NS < world_limits.fin_timeout_ns))) {
        kernel_fail("J8: %s after %llu ms", reason_text(record->reason),
                    (unsigned long long)(quiet_ns / NS_PER_MS));
    }
}

void judge_pair(const struct pair *pair)
{
    const struct side *client = &pair->client;
    const struct side *server = &pair->server;
    bool broken = has_broken(client) || has_broken(server);
    bool undisturbed = !kernel.hit_fatal_fault && !world.told_to_end && !will_be_quiet(pair) &&
                       pair->record.connect_ns != RECORD_NO_TIME;

    if (pair->records != 1) {
        kernel_fail("J5: %u records", pair->records);
        return;
    }
    judge_receiver(pair, client, server, undisturbed);
    judge_receiver(pair, server, client, undisturbed);
    judge_clean_end(pair, client, server);
    judge_clean_end(pair, server, client);
    judge_words(pair);
    judge_times(pair);
    if (!undisturbed || broken) {
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

void judge_leftovers(void)
{
    for (int fd = 3; fd < KERNEL_FDS; fd++) {
        if (kernel.fds[fd].kind != KIND_FREE && !kernel.fds[fd].orphan) {
            kernel_fail("J5: descriptor %d is left open", fd);
        }
    }
}
