/* Tests of what happens rarely: two ends within one turn, an end told twice, an event without its
 * cause, memory that is short at a bad moment. Each was a line that no other test ran, or a mistake
 * that no other test saw. See support/unit/world.h. */
#include "base/macros.h"
#include "relay/connect.h"
#include "support/stream.h"
#include "support/unit/fault.h"
#include "support/unit/world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* RLIMIT_AS says nothing useful about a process with terabytes of shadow memory. */
#if defined(__SANITIZE_ADDRESS__)
#define ADDRESS_SANITIZER true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER true
#endif
#endif
#ifndef ADDRESS_SANITIZER
#define ADDRESS_SANITIZER false
#endif

static struct world world;

static void open_pair(enum splice_mode mode, struct leg *ret_client, struct leg *ret_server)
{
    world_init(&world, mode);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, ret_client, ret_server);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
    world_idle(&world, 2);
}

static void close_world(struct leg *client, struct leg *server)
{
    if (client->fd >= 0) {
        leg_close(client);
    }
    if (server->fd >= 0) {
        leg_close(server);
    }
    world_close(&world);
}

static void reset_leg(void *context)
{
    leg_reset(context);
}

/* Bytes of the leg's stream with a descriptor beside them, as only unix sockets take it. */
static void send_with_descriptor(struct leg *leg, size_t len)
{
    unsigned char bytes[1024];
    struct iovec piece = {.iov_base = bytes, .iov_len = len};
    union {
        struct cmsghdr header;
        unsigned char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct msghdr message = {
        .msg_iov = &piece,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };

    cr_assert(len <= sizeof(bytes));
    stream_fill(leg->send_key, leg->sent, bytes, len);
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &leg->fd, sizeof(int));
    cr_assert(sendmsg(leg->fd, &message, MSG_NOSIGNAL) == (ssize_t)len);
    leg->sent += len;
}

/* --- session --- */

static uint64_t bytes_moved(const struct session *session)
{
    return session->up.bytes_in + flow_bytes_out(&session->up);
}

/* The loop lets bulk move so many bytes a turn; so a session says how much it has moved, in and out,
 * and that it moves bulk, as long as it does. */
Test(session, tells_the_loop_how_much_bulk_it_has_moved)
{
    const struct session *session;
    struct leg client;
    struct leg server;

    open_pair(SPLICE_AUTO, &client, &server);
    session = world_session(&world);
    for (int turns = 0, measured = 0; measured < 5; turns++) {
        uint64_t before = bytes_moved(session);
        bool is_bulk = session->task.is_bulk;

        cr_assert(turns < 10000, "it moves bulk, and does not say so");
        (void)leg_try_send(&client, 1 << 20);
        (void)leg_try_read(&server, SIZE_MAX);
        world_turn(&world);
        if (is_bulk && bytes_moved(session) > before) {
            cr_assert(world.loop.moved_bytes == bytes_moved(session) - before);
            measured++;
        }
    }
    leg_expect(&world, &server, client.sent - server.received);
    leg_send(&world, &client, 1);
    leg_expect(&world, &server, 1);
    world_idle(&world, 2);
    cr_assert(!session->task.is_bulk, "what it moves now is small");
    world_converse(&world, &client, &server, 1);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    world_close(&world);
}

/* A read of a unix socket stops behind bytes that had a descriptor beside them, though more is there,
 * and one event tells of both. sluice passes on bytes, and drops the descriptor; the bytes behind it
 * arrive at once, of clients as of servers. */
Test(session, reads_on_behind_a_descriptor_in_a_unix_stream)
{
    static const enum splice_mode modes[] = {SPLICE_NEVER, SPLICE_ALWAYS, SPLICE_AUTO};

    for (size_t i = 0; i < ARRAY_LEN(modes) * 2; i++) {
        bool from_client = i % 2 == 0;
        struct leg client;
        struct leg server;
        struct leg *from = from_client ? &client : &server;
        struct leg *to = from_client ? &server : &client;

        world_init(&world, modes[i / 2]);
        (void)world_add_unix(&world, 10);
        world.unix_front = true;
        world_open(&world);
        world_pair(&world, &client, &server);
        WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
        world_idle(&world, 2);
        send_with_descriptor(from, 100);
        cr_assert(leg_try_send(from, 200) == 200);
        leg_expect(&world, to, 300);
        world_converse(&world, &client, &server, 1000);
        (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
        world_close(&world);
    }
}

/* The client shuts; in the same turn, after its FIN was read, the server turns out to have reset.
 * The reset is what ended the connection. */
Test(session, counts_the_side_that_reset_as_first_when_the_other_shut_at_once)
{
    struct leg client;
    struct leg server;

    open_pair(SPLICE_NEVER, &client, &server);
    cr_assert(leg_try_send(&server, 1) == 1);
    WORLD_UNTIL(&world, world_session(&world)->down.bytes_in == 1);
    leg_expect(&world, &client, 1);
    fault_clear();
    fault_hook(CALL_RECV, world_session(&world)->server.fd, 1, 1, reset_leg, &server);
    leg_shut(&client);
    world_session(&world)->server.ready |= IO_READABLE; /* so that it is read in the same turn */
    loop_queue(&world.loop, &world_session(&world)->task);
    world_wait_records(&world, 1);
    cr_assert(world.records[0].reason == REASON_SERVER_RESET, "%s",
              reason_text(world.records[0].reason));
    cr_assert(world.records[0].closed_by == CLOSED_BY_SERVER);
    close_world(&client, &server);
}

/* Told to end with bytes in hand, and sending goes by a few bytes a call: what one turn's budget
 * does not suffice for goes on in the next, without an event. */
Test(session, goes_on_in_the_next_turn_while_it_delivers_before_its_end)
{
    struct leg client;
    struct leg server;
    const struct session *session;

    open_pair(SPLICE_NEVER, &client, &server);
    session = world_session(&world);
    fault_fail(CALL_SEND, session->client.fd, 1, 1, EAGAIN); /* so that it holds the bytes */
    cr_assert(leg_try_send(&server, 40000) == 40000);
    WORLD_UNTIL(&world, flow_held_bytes(&session->down) == 40000);
    fault_clear();
    fault_shorten(CALL_SEND, session->client.fd, 1, ALWAYS, 100);
    world_session(&world)->client.ready |= IO_WRITABLE; /* the edge that EAGAIN has promised */
    relay_end_all(&world.relay, REASON_DRAIN, true);
    cr_assert(session->phase == SESSION_ENDING);
    cr_assert(flow_held_bytes(&session->down) > 0, "it all went out within one turn");
    leg_expect(&world, &client, 40000);
    leg_expect_end(&world, &client, LEG_RESET);
    (void)world_expect_end(&world, REASON_DRAIN, CLOSED_BY_PROXY, 0);
    cr_assert(world.records[0].undelivered_bytes == 0);
    close_world(&client, &server);
}

/* Whoever ends a session that has just ended changes nothing: one record, with the first reason. */
Test(session, ends_once_however_often_it_is_told)
{
    struct leg client;
    struct leg server;
    struct session *session;

    open_pair(SPLICE_AUTO, &client, &server);
    session = world_session(&world);
    session_end(session, REASON_DRAIN, false);
    session_end(session, REASON_IDLE_TIMEOUT, false);
    session_end(session, REASON_IDLE_TIMEOUT, true);
    leg_expect_end(&world, &client, LEG_RESET);
    leg_expect_end(&world, &server, LEG_RESET);
    (void)world_expect_end(&world, REASON_DRAIN, CLOSED_BY_PROXY, 0);
    close_world(&client, &server);
}

/* EPOLLERR may come although SO_ERROR says nothing any more. That is no error. */
Test(session, goes_on_after_an_error_event_without_an_error)
{
    for (int by_client = 0; by_client < 2; by_client++) {
        struct leg client;
        struct leg server;
        struct session *session;

        open_pair(SPLICE_AUTO, &client, &server);
        session = world_session(&world);
        (by_client == 1 ? &session->client : &session->server)->ready |= IO_ERROR;
        loop_queue(&world.loop, &session->task);
        world_idle(&world, 2);
        cr_assert(world.records_len == 0, "it ended as %s", reason_text(world.records[0].reason));
        world_converse(&world, &client, &server, 1000);
        (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
        world_close(&world);
    }
}

/* One turn; true when its first wait for events was allowed to take some time. */
static bool turn_with_a_wait(void)
{
    size_t index = fault_notes_len();

    world_turn(&world);
    while (fault_note(index)->call != CALL_EPOLL_WAIT) {
        index++;
    }
    return fault_note(index)->len != 0;
}

/* While the kernel has no memory for what is to be sent, sluice tries again from time to time. It
 * does not spin: no two turns in a row go without a wait. */
Test(session, sleeps_between_its_tries_while_the_kernel_has_no_memory)
{
    struct leg client;
    struct leg server;
    bool waited = true;

    open_pair(SPLICE_NEVER, &client, &server);
    fault_fail(CALL_SEND, world_session(&world)->client.fd, 1, ALWAYS, ENOBUFS);
    cr_assert(leg_try_send(&server, 1000) == 1000);
    WORLD_UNTIL(&world, fault_fired() > 0);
    while (fault_fired() < 5) {
        bool waited_before = waited;

        waited = turn_with_a_wait();
        cr_assert(waited || waited_before, "after %zu tries", fault_fired());
    }
    fault_disarm();
    leg_expect(&world, &client, 1000);
    world_converse(&world, &client, &server, 1000);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    world_close(&world);
}

/* --- listener --- */

/* There is no memory for the record of a client: it stays in the queue, is not dropped, and is
 * served when memory has come back. */
Test(listener, lets_a_client_wait_while_there_is_no_memory_for_it, .disabled = ADDRESS_SANITIZER)
{
    struct rlimit limit;
    struct rlimit none;
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    client = world_connect(&world);
    cr_assert(getrlimit(RLIMIT_AS, &limit) == 0);
    none = limit;
    none.rlim_cur = 4096; /* less than is in use: nothing can be mapped */
    cr_assert(setrlimit(RLIMIT_AS, &none) == 0);
    for (int turn = 0; turn < 100 && world.pauses == 0; turn++) {
        world_turn(&world);
    }
    cr_assert(setrlimit(RLIMIT_AS, &limit) == 0);
    cr_assert(world.pauses == 1);
    cr_assert(world.pause_error == ENOMEM);
    cr_assert(fault_count(CALL_ACCEPT, ANY_FD) == 0, "a client was taken that could not be served");
    fault_clock_advance(150 * NS_PER_MS);
    server = world_accept(&world, 0, &client);
    world_converse(&world, &client, &server, 1000);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    world_close(&world);
}

/* --- connect --- */

/* An errno that no table knows is sluice's own fault until somebody knows better. */
Test(connect, calls_an_errno_that_it_does_not_know_internal)
{
    cr_assert(connect_reason(ENOTBLK) == REASON_INTERNAL);
}

/* A connection that is there at once, whose address can't be asked for: the next server's turn. */
Test(connect, passes_over_a_server_met_at_once_whose_address_it_can_not_learn)
{
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    (void)world_add_tcp(&world);
    world_open(&world);
    client = world_connect(&world);
    fault_return(CALL_CONNECT, ANY_FD, 1, 1, 0);
    fault_fail(CALL_LOCAL_ADDRESS, ANY_FD, 1, 1, ENOBUFS);
    server = world_accept(&world, 1, &client);
    cr_assert(fault_fired() == 2);
    world_converse(&world, &client, &server, 1000);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    cr_assert(world.records[0].retries == 1);
    world_close(&world);
}
