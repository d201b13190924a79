/* The scripts.
 *
 *   requests   client asks, server answers, `rounds_left` times; then one side ends, the other
 *              follows
 *   streams    both sides have bytes to send; who ends first is `order`: the second one begins to
 *              send when it has seen the FIN of the first (half-close), or both go at once
 *   aborts     streams in which one side resets, after some bytes or when it is blocked
 *
 * judge() says what became of it. Whether a BROKEN one was to be expected (its worker was killed)
 * is not known here: judge.py finds out from the times and the records of sluice. */
#include "soak/conn.h"

#include "support/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MIB = 1 << 20,
    LARGE_BYTES = 256 * MIB,
    LARGE_CHUNK_BYTES = 64 * 1024,
    LARGE_GAP_US = 1000, /* 64 MB/s at most */
    SLOW_BYTES = 2 * MIB,
    SLOW_CHUNK_BYTES = 24 * 1024,
    SLOW_GAP_US = 40000,
    SLOW_BUFFER_BYTES = 16 * 1024,
    BYTES_GAP_US = 3000,
    GIVES_UP_US_MAX = 2000000,
    BLOCKED_US = 300000, /* a sender that sent nothing for so long is blocked */
    BURST_HOLD_US = 2000000,
    TURNS_MAX = 4,        /* before other connections have theirs */
    ABSENT_US = 10000000, /* how long a server's side may take to come after the client's end */
};

static const char *const kind_names[KINDS] = {
    "probe",
    "keepalive",
    "one-shot",
    "idle",
    "burst",
    "refusable",
    "bulk",
    "large",
    "slow",
    "bytes",
    "client-reset",
    "server-reset",
    "client-reset-blocked",
    "server-reset-blocked",
    "unanswered",
    "gives-up",
    "vanish",
};
static const char *const outcome_names[OUTCOMES] = {"ok", "refused", "broken", "wrong", "stalled"};
static const char *const seen_names[] = {"nothing", "fin", "reset", "local"};

const char *kind_name(enum kind kind)
{
    return kind_names[kind];
}

static bool has_requests(enum kind kind)
{
    return kind <= KIND_REFUSABLE;
}

static bool is_blocked_kind(enum kind kind)
{
    return kind == KIND_CLIENT_RESET_BLOCKED || kind == KIND_SERVER_RESET_BLOCKED;
}

/* --- the beginning --- */

static uint64_t total_up(const struct conn *conn)
{
    return WIRE_HEADER_BYTES + conn->request_bytes;
}

static void plan_requests(struct conn *conn)
{
    conn->request_bytes = 1 + random_below(&conn->random, 1000);
    conn->answer_bytes = 1 + random_below(&conn->random, 4000);
    conn->rounds_left = 1;
    if (conn->kind == KIND_PROBE) {
        conn->rounds_left = UINT64_MAX;
        conn->period_us = 100000;
    } else if (conn->kind == KIND_KEEPALIVE) {
        conn->rounds_left = 5 + random_below(&conn->random, 20);
        conn->period_us = 50000 + random_below(&conn->random, 200000);
    } else if (conn->kind == KIND_IDLE || conn->kind == KIND_BURST) {
        conn->rounds_left = 2;
        conn->period_us = conn->kind == KIND_BURST ? BURST_HOLD_US : UINT64_MAX / 2;
    }
}

static void make_slow(struct end *end, bool is_slow)
{
    if (is_slow) {
        end->receive_chunk = SLOW_CHUNK_BYTES;
        end->receive_gap_us = SLOW_GAP_US;
    }
}

static void plan_streams(struct conn *conn)
{
    enum kind kind = conn->kind;

    conn->request_bytes = conn->answer_bytes = MIB;
    if (kind == KIND_LARGE) {
        conn->order = conn->id % 2 == 0 ? CLIENT_FIRST : SERVER_FIRST;
        conn->request_bytes = conn->order == CLIENT_FIRST ? LARGE_BYTES : 1000;
        conn->answer_bytes = conn->order == CLIENT_FIRST ? 1000 : LARGE_BYTES;
        conn->client.send_chunk = LARGE_CHUNK_BYTES;
        conn->client.send_gap_us = LARGE_GAP_US;
    } else if (kind == KIND_SLOW) {
        /* Nothing else moves on the sender's side meanwhile: no event may come to the rescue of a
         * forwarder that has forgotten that more is there to read. */
        conn->slow_server = random_below(&conn->random, 2) == 0;
        conn->request_bytes = conn->slow_server ? SLOW_BYTES : 1000;
        conn->answer_bytes = conn->slow_server ? 1000 : SLOW_BYTES;
        make_slow(&conn->client, !conn->slow_server);
    } else if (kind == KIND_BYTES) {
        conn->request_bytes = 100 + random_below(&conn->random, 200);
        conn->answer_bytes = 100 + random_below(&conn->random, 200);
        conn->client.send_chunk = 1;
        conn->client.send_gap_us = BYTES_GAP_US;
    } else if (kind == KIND_CLIENT_RESET || kind == KIND_SERVER_RESET) {
        conn->order = AT_ONCE;
        conn->abort_after_bytes = WIRE_HEADER_BYTES + random_below(&conn->random, MIB);
    } else if (kind == KIND_GIVES_UP) {
        conn->period_us = random_below(&conn->random, GIVES_UP_US_MAX);
    } else if (is_blocked_kind(kind)) {
        conn->order = CLIENT_FIRST;
        conn->request_bytes = LARGE_BYTES;
    }
}

struct conn *conn_open(struct route *route, enum kind kind, uint64_t id, uint64_t intended_us,
                       int epoll_fd, uint64_t seed)
{
    struct conn *conn = calloc(1, sizeof(*conn));

    if (conn == NULL) {
        return NULL;
    }
    conn->id = id;
    conn->kind = kind;
    conn->route = route;
    conn->random = seed ^ id * UINT64_C(0x9e3779b97f4a7c15);
    conn->order = (enum order)random_below(&conn->random, ORDERS);
    conn->started_us = wire_now_us();
    conn->intended_us = intended_us;
    conn->client = (struct end){.fd = -1,
                                .epoll_fd = epoll_fd,
                                .owner = conn,
                                .sends_header = true,
                                .send_key = 2 * id,
                                .receive_key = 2 * id + 1};
    if (has_requests(kind)) {
        plan_requests(conn);
    } else {
        plan_streams(conn);
    }
    wire_header_make(conn->client.header, id);
    if (wire_connect(&conn->client, &route->listener, kind == KIND_SLOW ? SLOW_BUFFER_BYTES : 0) !=
        0) {
        free(conn);
        return NULL;
    }
    return conn;
}

void conn_bind(struct conn *conn, struct end *server)
{
    conn->server = server;
    server->owner = conn;
    server->peer = &conn->client;
    server->send_key = conn->client.receive_key;
    server->receive_key = conn->client.send_key;
    server->send_chunk = conn->client.send_chunk;
    server->send_gap_us = conn->client.send_gap_us;
    server->reads =
        conn->kind != KIND_CLIENT_RESET_BLOCKED && conn->kind != KIND_SERVER_RESET_BLOCKED;
    conn->client.peer = server;
}

void conn_free(struct conn *conn)
{
    wire_close(&conn->client);
    if (conn->server != NULL) {
        wire_close(conn->server);
        free(conn->server);
    }
    free(conn);
}

/* --- the scripts --- */

/* No request is left: one side ends, the other follows. */
static void end_requests(struct conn *conn)
{
    bool client_first = conn->order != SERVER_FIRST;
    bool server_first = conn->order != CLIENT_FIRST;

    conn->client.fin_wanted = client_first || conn->client.seen == SEEN_FIN;
    conn->server->fin_wanted = server_first || conn->server->seen == SEEN_FIN;
}

static void answered(struct conn *conn, uint64_t now_us, struct tally *tally)
{
    uint64_t latency_us = now_us - conn->intended_us;

    conn->asking = conn->answering = false;
    conn->rounds_left--;
    tally->requests++;
    if (conn->kind != KIND_BURST && conn->kind != KIND_IDLE) {
        latency_add(tally->latency, latency_us);
        if (latency_us > tally->slow_us) {
            (void)fprintf(tally->results, "slow %s %s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
                          kind_names[conn->kind], conn->route->name, conn->intended_us, latency_us,
                          now_us - conn->asked_us);
        }
    }
    conn->intended_us += conn->period_us;
}

static void advance_requests(struct conn *conn, uint64_t now_us, struct tally *tally)
{
    struct end *client = &conn->client;
    struct end *server = conn->server;
    bool due = now_us >= conn->intended_us || (conn->told && conn->kind == KIND_IDLE);

    if (!conn->asking && conn->rounds_left > 0 && conn->told && conn->kind == KIND_PROBE) {
        conn->rounds_left = 0;
    }
    if (!conn->asking && conn->rounds_left > 0 && due) {
        if (conn->kind == KIND_IDLE && conn->told) {
            conn->intended_us = now_us;
        }
        conn->asking = true;
        conn->asked_us = client->send_limit == 0 ? conn->started_us : now_us;
        client->moved_us = now_us;
        client->send_limit +=
            conn->request_bytes + (client->send_limit == 0 ? WIRE_HEADER_BYTES : 0);
    }
    if (server == NULL) {
        return;
    }
    if (conn->asking && !conn->answering && server->received == client->send_limit) {
        conn->answering = true;
        server->send_limit += conn->answer_bytes;
    }
    if (conn->answering && client->received == server->send_limit) {
        answered(conn, now_us, tally);
    }
    if (!conn->asking && conn->rounds_left == 0) {
        end_requests(conn);
    }
}

static void advance_streams(struct conn *conn)
{
    struct end *client = &conn->client;
    struct end *server = conn->server;

    client->send_limit = WIRE_HEADER_BYTES;
    if (conn->order != SERVER_FIRST || client->seen == SEEN_FIN) {
        client->send_limit = total_up(conn);
        client->fin_wanted = true;
    }
    if (server != NULL && (conn->order != CLIENT_FIRST || server->seen == SEEN_FIN)) {
        server->send_limit = conn->answer_bytes;
        server->fin_wanted = true;
    }
    /* The one who is going to reset says no FIN: the other must see a reset and nothing else. */
    if (conn->kind == KIND_CLIENT_RESET) {
        client->send_limit = conn->abort_after_bytes;
        client->fin_wanted = false;
    }
    if (conn->kind == KIND_SERVER_RESET && server != NULL) {
        server->fin_wanted = false;
    }
}

static bool is_blocked(const struct conn *conn, uint64_t now_us)
{
    const struct end *client = &conn->client;
    const struct end *server = conn->server;

    return server != NULL && client->fd >= 0 && client->sent < client->send_limit &&
           now_us > client->moved_us + BLOCKED_US && now_us > server->moved_us + BLOCKED_US;
}

static bool is_unserved_kind(enum kind kind)
{
    return kind == KIND_UNANSWERED || kind == KIND_GIVES_UP;
}

static void advance_aborts(struct conn *conn, uint64_t now_us)
{
    struct end *client = &conn->client;
    struct end *server = conn->server;
    bool client_resets = conn->kind == KIND_VANISH;
    bool server_resets = false;

    if (conn->kind == KIND_GIVES_UP) {
        client_resets = now_us >= conn->started_us + conn->period_us;
    } else if (conn->kind == KIND_CLIENT_RESET) {
        client_resets = client->sent >= conn->abort_after_bytes;
    } else if (conn->kind == KIND_SERVER_RESET) {
        server_resets = server != NULL && server->received >= conn->abort_after_bytes;
    } else if (conn->kind == KIND_CLIENT_RESET_BLOCKED) {
        client_resets = is_blocked(conn, now_us);
    } else if (conn->kind == KIND_SERVER_RESET_BLOCKED) {
        server_resets = is_blocked(conn, now_us);
    }
    if (client_resets && client->fd >= 0) {
        wire_reset(client);
    }
    if (server_resets && server->fd >= 0) {
        wire_reset(server);
    }
    if (server != NULL && client->fd < 0) {
        server->reads = true; /* one that had stopped: what is left for it? */
    }
}

/* --- the end --- */

/* Resting: nothing is to move until a time or a word from outside comes. */
static bool is_resting(const struct conn *conn)
{
    return has_requests(conn->kind) && !conn->asking && conn->rounds_left > 0;
}

static uint64_t moved_us(const struct conn *conn)
{
    uint64_t client = conn->client.moved_us;
    uint64_t server = conn->server != NULL ? conn->server->moved_us : 0;

    return client > server ? client : server;
}

static bool is_clean(const struct conn *conn)
{
    const struct end *client = &conn->client;
    const struct end *server = conn->server;

    return server != NULL && client->seen == SEEN_FIN && server->seen == SEEN_FIN &&
           client->received == server->sent && server->received == client->sent;
}

static enum outcome judge(const struct conn *conn, const char **ret_detail)
{
    const struct end *client = &conn->client;
    const struct end *server = conn->server;

    *ret_detail = "-";
    if (client->wrong != NULL || (server != NULL && server->wrong != NULL)) {
        *ret_detail = client->wrong != NULL ? client->wrong : server->wrong;
        return OUTCOME_WRONG;
    }
    if (is_clean(conn)) {
        return OUTCOME_OK;
    }
    if (client->fd >= 0 || (server != NULL && server->fd >= 0)) {
        *ret_detail = client->fd >= 0 ? "client-waits" : "server-waits";
        return OUTCOME_STALLED;
    }
    if (client->seen == SEEN_LOCAL && (server == NULL || server->seen == SEEN_RESET)) {
        return OUTCOME_OK;
    }
    if (server != NULL && server->seen == SEEN_LOCAL && client->seen == SEEN_RESET) {
        return OUTCOME_OK;
    }
    if ((conn->kind == KIND_REFUSABLE || is_unserved_kind(conn->kind)) && server == NULL &&
        client->received == 0) {
        return OUTCOME_REFUSED;
    }
    return OUTCOME_BROKEN;
}

static void write_result(const struct conn *conn, uint64_t now_us, struct tally *tally)
{
    const struct end *client = &conn->client;
    const struct end *server = conn->server;
    const char *detail;
    enum outcome outcome = judge(conn, &detail);

    tally->outcomes[outcome]++;
    (void)fprintf(tally->results,
                  "conn %" PRIu64 " %s %s %s %" PRIu64 " %" PRIu64 " %s %s %" PRIu64 " %" PRIu64
                  " %" PRIu64 " %" PRIu64 " %s %s %s %" PRIu64 "\n",
                  conn->id, kind_names[conn->kind], conn->route->name, outcome_names[outcome],
                  conn->started_us, now_us, client->text, server != NULL ? server->text : "-",
                  client->sent, server != NULL ? server->received : 0,
                  server != NULL ? server->sent : 0, client->received, seen_names[client->seen],
                  server != NULL ? seen_names[server->seen] : "absent", detail, moved_us(conn));
}

static bool is_over(const struct conn *conn, uint64_t now_us)
{
    const struct end *server = conn->server;
    bool is_wrong = conn->client.wrong != NULL || (server != NULL && server->wrong != NULL);

    if (is_wrong) {
        return true;
    }
    if (conn->client.fd < 0) {
        if (server != NULL) {
            return server->fd < 0 || now_us > moved_us(conn) + CONN_PATIENCE_S * UINT64_C(1000000);
        }
        return conn->kind == KIND_VANISH || is_unserved_kind(conn->kind) ||
               conn->client.sent == 0 || now_us > conn->client.moved_us + ABSENT_US;
    }
    return !is_resting(conn) && now_us > moved_us(conn) + CONN_PATIENCE_S * UINT64_C(1000000);
}

static void count_bytes(struct conn *conn, struct tally *tally)
{
    uint64_t received = conn->client.received + (conn->server != NULL ? conn->server->received : 0);

    tally->bytes += received - conn->counted_bytes;
    conn->counted_bytes = received;
}

static void look_again_before(struct conn *conn, uint64_t now_us, uint64_t due_us)
{
    if (due_us > now_us && due_us < conn->check_us) {
        conn->check_us = due_us;
    }
}

/* When time alone will give this connection something to do. */
static void set_check(struct conn *conn, uint64_t now_us, bool has_more)
{
    const struct end *server = conn->server;

    conn->check_us = now_us + UINT64_C(1000000);
    look_again_before(conn, now_us, conn->client.next_send_us);
    look_again_before(conn, now_us, conn->client.next_receive_us);
    if (server != NULL) {
        look_again_before(conn, now_us, server->next_send_us);
        look_again_before(conn, now_us, server->next_receive_us);
    }
    if (is_resting(conn)) {
        look_again_before(conn, now_us, conn->intended_us);
        has_more = has_more || conn->intended_us <= now_us;
    }
    if (conn->kind == KIND_GIVES_UP) {
        look_again_before(conn, now_us, conn->started_us + conn->period_us);
    }
    if (is_blocked_kind(conn->kind)) {
        look_again_before(conn, now_us, now_us + BLOCKED_US / 4);
    }
    if (has_more) {
        conn->check_us = now_us;
    }
}

bool conn_advance(struct conn *conn, uint64_t now_us, struct tally *tally)
{
    bool moved = true;

    for (int turn = 0; turn < TURNS_MAX && moved; turn++) {
        if (has_requests(conn->kind)) {
            advance_requests(conn, now_us, tally);
        } else if (conn->kind != KIND_VANISH) {
            advance_streams(conn);
        }
        advance_aborts(conn, now_us);
        moved = wire_run(&conn->client, now_us);
        if (conn->server != NULL) {
            moved = wire_run(conn->server, now_us) || moved;
        }
    }
    count_bytes(conn, tally);
    if (!is_over(conn, now_us)) {
        set_check(conn, now_us, moved);
        return false;
    }
    write_result(conn, now_us, tally);
    return true;
}
