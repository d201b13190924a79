/* Tests of sessions when system calls fail: every call of a whole conversation, one after the
 * other, with every outcome that the kernel could give; and what each errno is called in the
 * record. */
#include "base/macros.h"
#include "support/unit/fault.h"
#include "support/unit/world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MINUTE_NS (60 * NS_PER_S)

static const enum splice_mode modes[] = {SPLICE_NEVER, SPLICE_ALWAYS, SPLICE_AUTO};

static struct world world;

/* --- a conversation that may break --- */

enum { REQUEST_BYTES = 3000, RESPONSE_BYTES = 70000 };

struct conversation {
    struct leg client;
    struct leg server;
    bool server_shut;
};

static void accept_server(struct conversation *talk)
{
    if (talk->server.fd < 0) {
        talk->server.fd = accept4(world.upstream[0], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        talk->server.send_key = talk->client.receive_key;
        talk->server.receive_key = talk->client.send_key;
    }
}

/* The server's part: once the request and its FIN are there, it answers and shuts. */
static void serve(struct conversation *talk)
{
    struct leg *server = &talk->server;

    accept_server(talk);
    if (server->fd < 0) {
        return;
    }
    (void)leg_try_read(server, SIZE_MAX);
    if (server->end == LEG_FIN && !talk->server_shut) {
        (void)leg_try_send(server, RESPONSE_BYTES - server->sent);
        if (server->sent == RESPONSE_BYTES) {
            leg_shut(server);
            talk->server_shut = true;
        }
    }
}

/* A request and FIN, a response and FIN, as far as it goes; until the session is recorded. */
static void converse(struct conversation *talk)
{
    *talk = (struct conversation){.client = world_connect(&world), .server.fd = -1};
    cr_assert(leg_try_send(&talk->client, REQUEST_BYTES) == REQUEST_BYTES);
    leg_shut(&talk->client);
    for (int turns = 0; world.records_len == 0; turns++) {
        cr_assert(turns < 5000, "the session never ends");
        world_turn(&world);
        serve(talk);
        (void)leg_try_read(&talk->client, SIZE_MAX);
        fault_clock_advance(20 * NS_PER_MS); /* retries come by timer */
    }
    WORLD_UNTIL(&world, (leg_try_read(&talk->client, SIZE_MAX), talk->client.end != LEG_OPEN));
    leg_close(&talk->client);
    accept_server(talk);
    if (talk->server.fd >= 0) {
        WORLD_UNTIL(&world, (leg_try_read(&talk->server, SIZE_MAX), talk->server.end != LEG_OPEN));
        leg_close(&talk->server);
    }
}

/* The oracle of all faults: whoever has seen a FIN has every byte that was sent to it. */
static void expect_no_silent_truncation(const struct conversation *talk)
{
    const struct record *record = &world.records[0];

    cr_assert(world.records_len == 1);
    if (talk->server.end == LEG_FIN) {
        cr_assert(talk->server.received == REQUEST_BYTES, "a request cut short by FIN");
    }
    if (talk->client.end == LEG_FIN) {
        cr_assert(talk->client.received == RESPONSE_BYTES, "a response cut short by FIN");
    }
    cr_assert((reason_how(record->reason) == HOW_FIN) == (talk->client.end == LEG_FIN));
    if (reason_how(record->reason) == HOW_FIN) {
        cr_assert(record->error == 0 && record->undelivered_bytes == 0);
        cr_assert(record->bytes_up == REQUEST_BYTES && record->bytes_down == RESPONSE_BYTES);
    }
    cr_assert(record->bytes_up >= talk->server.received);
    cr_assert(record->bytes_down >= talk->client.received);
}

enum verdict { CLEAN, BROKEN, EITHER };

struct fault_case {
    enum call call;
    int error; /* 0: a short count */
    enum verdict verdict;
};

/* Runs the conversation with the first such call hit, then the second, and so on until none is
 * left. */
static void hit_every_call(const struct fault_case *hit, enum splice_mode mode)
{
    bool fired = true;

    for (uint32_t nth = 1; fired; nth++) {
        struct conversation talk;
        bool clean;

        cr_log_info("%s %s, number %u, mode %d", call_name(hit->call), strerror(hit->error), nth,
                    mode);
        world_init(&world, mode);
        (void)world_add_tcp(&world);
        world_open(&world);
        if (hit->error == 0) {
            fault_shorten(hit->call, ANY_FD, nth, 1, 1000);
        } else {
            fault_fail(hit->call, ANY_FD, nth, 1, hit->error);
        }
        converse(&talk);
        fired = fault_fired() > 0;
        fault_disarm();
        expect_no_silent_truncation(&talk);
        clean = reason_how(world.records[0].reason) == HOW_FIN;
        cr_assert(clean || fired, "%s", reason_text(world.records[0].reason));
        cr_assert(!fired || hit->verdict == EITHER || clean == (hit->verdict == CLEAN),
                  "the session ended by %s", reason_text(world.records[0].reason));
        world_close(&world);
    }
}

/* Short counts, shortages and refusals: nobody outside notices anything, whichever call they
 * hit. */
Test(session, survives_short_counts_and_shortages_at_every_call)
{
    static const struct fault_case cases[] = {
        {CALL_RECV, 0, CLEAN},
        {CALL_SEND, 0, CLEAN},
        {CALL_SPLICE_IN, 0, CLEAN},
        {CALL_SPLICE_OUT, 0, CLEAN},
        {CALL_RECV, ENOMEM, CLEAN},
        {CALL_SEND, ENOBUFS, CLEAN},
        {CALL_SPLICE_IN, ENOMEM, CLEAN},
        {CALL_SPLICE_OUT, ENOBUFS, CLEAN},
        {CALL_SPLICE_IN, EINVAL, CLEAN},
        {CALL_SPLICE_OUT, EINVAL, CLEAN},
        {CALL_PIPE, ENFILE, CLEAN},
        {CALL_PIPE_RESIZE, EPERM, CLEAN},
        {CALL_SOCKET, EMFILE, CLEAN},
        {CALL_SOCKET, ENOBUFS, CLEAN},
        {CALL_ACCEPT, ECONNABORTED, CLEAN},
        {CALL_ACCEPT, ENFILE, CLEAN},
        {CALL_ACCEPT, ENOMEM, CLEAN},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(modes); i++) {
        hit_every_call(&cases[i % ARRAY_LEN(cases)], modes[i / ARRAY_LEN(cases)]);
    }
}

/* Errors that end a connection, at every call: the peers may see a reset, never a FIN behind too
 * few bytes; one record; nothing left behind. */
Test(session, never_shows_fin_behind_too_few_bytes_whatever_fails)
{
    static const struct fault_case cases[] = {
        {CALL_RECV, ECONNRESET, BROKEN},
        {CALL_RECV, ETIMEDOUT, BROKEN},
        {CALL_RECV, EIO, BROKEN},
        {CALL_SEND, ECONNRESET, BROKEN},
        {CALL_SEND, EPIPE, BROKEN},
        {CALL_SEND, EIO, BROKEN},
        {CALL_SPLICE_IN, ECONNRESET, BROKEN},
        {CALL_SPLICE_IN, EIO, BROKEN},
        {CALL_SPLICE_OUT, EPIPE, BROKEN},
        {CALL_SPLICE_OUT, EHOSTUNREACH, BROKEN},
        {CALL_SHUTDOWN_WRITE, ENOTCONN, BROKEN},
        {CALL_SHUTDOWN_WRITE, ENOBUFS, BROKEN},
        {CALL_CONNECT, ECONNREFUSED, BROKEN},
        {CALL_CONNECT, ENETUNREACH, BROKEN},
        {CALL_EPOLL_ADD, ENOSPC, BROKEN},
        {CALL_EPOLL_ADD, ENOMEM, BROKEN},
        {CALL_GET_OPTION, ENOBUFS, BROKEN},
        {CALL_LOCAL_ADDRESS, ENOBUFS, EITHER},
        {CALL_UNACKNOWLEDGED, EINVAL, EITHER},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(modes); i++) {
        hit_every_call(&cases[i % ARRAY_LEN(cases)], modes[i / ARRAY_LEN(cases)]);
    }
}

/* --- shortages --- */

/* A kernel without memory gives no edge when it has some again: the session tries again by timer,
 * without spinning, until it works. */
Test(session, tries_again_by_timer_when_the_kernel_was_short_of_memory)
{
    static const enum call calls[] = {CALL_RECV, CALL_SEND};

    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        struct leg client;
        struct leg server;
        size_t tries;

        world_init(&world, SPLICE_NEVER);
        (void)world_add_tcp(&world);
        world_open(&world);
        world_pair(&world, &client, &server);
        WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
        world_idle(&world, 3);
        fault_clear();
        fault_fail(calls[i], ANY_FD, 1, ALWAYS, ENOBUFS);
        leg_send(&world, &client, 1000);
        for (int tenths = 0; tenths < 10; tenths++) {
            fault_clock_advance(100 * NS_PER_MS);
            world_idle(&world, 2);
        }
        tries = fault_count(calls[i], ANY_FD);
        cr_assert(tries >= 5 && tries <= 30, "%zu tries in a second", tries);
        fault_disarm();
        leg_expect(&world, &server, 1000);
        world_converse(&world, &client, &server, 100);
        world_close(&world);
    }
}

/* A shortage without end is no way to live for ever: the idle time-out counts on. */
Test(session, ends_by_idle_timeout_when_the_shortage_does_not_end)
{
    const struct record *record;
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_NEVER);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, &client, &server);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
    fault_fail(CALL_SEND, ANY_FD, 1, ALWAYS, ENOMEM);
    leg_send(&world, &client, 1000);
    for (int minutes = 0; minutes < 55; minutes++) {
        fault_clock_advance(MINUTE_NS);
        world_turn(&world);
        cr_assert(world.records_len == 0);
    }
    for (int minutes = 0; minutes < 10; minutes++) {
        fault_clock_advance(MINUTE_NS);
        world_turn(&world);
    }
    record = world_expect_end(&world, REASON_IDLE_TIMEOUT, CLOSED_BY_PROXY, 0);
    cr_assert(record->undelivered_bytes == 1000 && record->bytes_up == 0);
    leg_close(&client);
    leg_close(&server);
    world_close(&world);
}

/* More sessions with bulk than pipes: those without one copy. */
Test(session, copies_when_all_pipes_are_lent)
{
    enum { COUNT = 3 };
    struct leg clients[COUNT];
    struct leg servers[COUNT];

    world_init(&world, SPLICE_ALWAYS);
    (void)world_add_tcp(&world);
    world.settings.pipes_max = 1;
    world_open(&world);
    for (size_t i = 0; i < COUNT; i++) {
        world_pair(&world, &clients[i], &servers[i]);
    }
    for (int turns = 0; turns < 20; turns++) {
        for (size_t i = 0; i < COUNT; i++) {
            (void)leg_try_send(&servers[i], 1 << 20);
        }
        world_turn(&world);
        cr_assert(world.relay.supplies.pipes.pipes_lent <= 1);
    }
    for (size_t i = 0; i < COUNT; i++) {
        leg_expect(&world, &clients[i], servers[i].sent);
        world_converse(&world, &clients[i], &servers[i], 1);
    }
    world_wait_records(&world, COUNT);
    world_close(&world);
}

/* --- what an errno is called --- */

struct naming {
    int error;
    enum reason by_client;
    enum reason by_server;
};

static const struct naming namings[] = {
    {ECONNRESET, REASON_CLIENT_RESET, REASON_SERVER_RESET},
    {EPIPE, REASON_CLIENT_RESET, REASON_SERVER_RESET},
    {ECONNABORTED, REASON_CLIENT_RESET, REASON_SERVER_RESET},
    {ETIMEDOUT, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {EHOSTUNREACH, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {ENETUNREACH, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {ECONNREFUSED, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {ENETDOWN, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {EHOSTDOWN, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {EACCES, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {EPROTO, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {ENOPROTOOPT, REASON_PEER_TIMEOUT, REASON_PEER_TIMEOUT},
    {EIO, REASON_INTERNAL, REASON_INTERNAL},
    {EBADF, REASON_INTERNAL, REASON_INTERNAL},
};

/* An established session meets the errno as a pending error (SO_ERROR with EPOLLERR), on either
 * side: the record has the reason, the party and the errno, and both peers see a reset. */
Test(session, names_a_pending_error_by_side_and_errno)
{
    for (size_t i = 0; i < ARRAY_LEN(namings) * 2; i++) {
        const struct naming *row = &namings[i / 2];
        bool by_client = i % 2 == 0;
        struct epoll_event event = {.events = EPOLLERR | EPOLLIN};
        enum reason reason = by_client ? row->by_client : row->by_server;
        enum closed_by closed_by = by_client ? CLOSED_BY_CLIENT : CLOSED_BY_SERVER;
        struct session *session;
        struct leg client;
        struct leg server;
        struct io *io;

        cr_log_info("case %zu: %s", i, strerror(row->error));
        world_init(&world, SPLICE_AUTO);
        (void)world_add_tcp(&world);
        world_open(&world);
        world_pair(&world, &client, &server);
        session = world_session(&world);
        WORLD_UNTIL(&world, session->phase == SESSION_RELAYING);
        world_idle(&world, 3);
        io = by_client ? &session->client : &session->server;
        event.data.ptr = io;
        fault_socket_error(io->fd, 1, row->error);
        fault_events(&event, 1);
        (void)world_expect_end(&world, reason,
                               reason == REASON_INTERNAL ? CLOSED_BY_PROXY : closed_by, row->error);
        leg_expect_end(&world, &client, LEG_RESET);
        leg_expect_end(&world, &server, LEG_RESET);
        leg_close(&client);
        leg_close(&server);
        world_close(&world);
    }
}

/* The same errno met by a send on a socket that still lives: that side can't be used any more, so
 * the session ends; what the other direction held is delivered, and both see a reset. */
Test(session, ends_when_one_side_can_not_be_written_to)
{
    for (size_t i = 0; i < ARRAY_LEN(namings) * 2; i++) {
        const struct naming *row = &namings[i / 2];
        bool to_client = i % 2 == 0;
        enum reason reason = to_client ? row->by_client : row->by_server;
        enum closed_by closed_by = to_client ? CLOSED_BY_CLIENT : CLOSED_BY_SERVER;
        const struct record *record;
        struct session *session;
        struct leg client;
        struct leg server;

        cr_log_info("case %zu: %s", i, strerror(row->error));
        world_init(&world, SPLICE_NEVER);
        (void)world_add_tcp(&world);
        world_open(&world);
        world_pair(&world, &client, &server);
        session = world_session(&world);
        WORLD_UNTIL(&world, session->phase == SESSION_RELAYING);
        fault_fail(CALL_SEND, to_client ? session->client.fd : session->server.fd, 1, 1,
                   row->error);
        cr_assert(leg_try_send(to_client ? &server : &client, 700) == 700);
        cr_assert(leg_try_send(to_client ? &client : &server, 300) == 300);
        record = world_expect_end(
            &world, reason, reason == REASON_INTERNAL ? CLOSED_BY_PROXY : closed_by, row->error);
        cr_assert(record->undelivered_bytes == 700);
        leg_expect_end(&world, &client, LEG_RESET);
        leg_expect_end(&world, &server, LEG_RESET);
        cr_assert((to_client ? &server : &client)->received == 300);
        cr_assert((to_client ? &client : &server)->received == 0);
        leg_close(&client);
        leg_close(&server);
        world_close(&world);
    }
}

/* While the last bytes are delivered at the end of a drain, the kernel is short of memory for a moment:
 * the next try is 10 ms away, not at the next look at the peer, which comes ever later. What counts
 * is when it tries, not when it ends: the server's kernel may acknowledge the last bytes 40 ms late
 * (a delayed ACK), and then the end does wait for the next look. Whether it does so hangs on how many
 * bytes there are, and that on what the kernel remembers of earlier connections (ip tcp_metrics). */
Test(session, tries_again_soon_when_memory_is_short_while_it_ends)
{
    for (size_t i = 0; i < 2; i++) {
        enum call call = i == 0 ? CALL_SEND : CALL_SPLICE_OUT;
        struct session *session;
        struct leg client;
        struct leg server;
        uint64_t failed_ns;
        size_t good;

        world_init(&world, i == 0 ? SPLICE_NEVER : SPLICE_ALWAYS);
        (void)world_add_tcp(&world);
        world_open(&world);
        world_pair(&world, &client, &server);
        session = world_session(&world);
        while (flow_held_bytes(&session->up) == 0 || (session->client.ready & IO_READABLE) == 0) {
            (void)leg_try_send(&client, 256 * 1024);
            world_turn(&world);
        }
        session_end(session, REASON_DRAIN, true);
        while (session->wait_ms < 256) {
            fault_clock_advance(NS_PER_MS);
            world_turn(&world);
        }
        fault_fail(call, ANY_FD, 1, 1, ENOMEM);
        WORLD_UNTIL(&world, (leg_try_read(&server, SIZE_MAX), fault_fired() == 1));
        failed_ns = world.loop.now_ns;
        good = fault_count_good(call, ANY_FD);
        WORLD_UNTIL(&world, fault_count_good(call, ANY_FD) > good);
        cr_assert(world.loop.now_ns - failed_ns < 100 * NS_PER_MS, "it waited for the next look");
        leg_expect_end(&world, &server, LEG_RESET);
        cr_assert(world.records[0].undelivered_bytes == 0);
        cr_assert(world.records[0].bytes_up == server.received);
        leg_close(&client);
        leg_close(&server);
        world_close(&world);
    }
}
