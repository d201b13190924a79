/* Tests of abnormal ends: resets of either side with bytes on the way, delivery before the reset is
 * passed on, patience with slow peers, and the ends that sluice itself wants. See session.c for the
 * world. */
#include "base/macros.h"
#include "support/unit/fault.h"
#include "support/unit/world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define MINUTE_NS (60 * NS_PER_S)

static const enum splice_mode modes[] = {SPLICE_NEVER, SPLICE_ALWAYS, SPLICE_AUTO};

static struct world world;

static void open_pair(enum splice_mode mode, struct leg *ret_client, struct leg *ret_server)
{
    world_init(&world, mode);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, ret_client, ret_server);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
}

static size_t queued(int fd)
{
    int bytes = 0;

    cr_assert(ioctl(fd, FIONREAD, &bytes) == 0);
    return (size_t)bytes;
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

/* --- resets passed on --- */

/* Bytes, then RST, all before sluice looks: the other side gets every byte and then the reset,
 * never a FIN; by each engine, from either side, for nothing, a little and a lot. */
Test(session, delivers_what_came_before_a_reset_and_then_passes_it_on)
{
    static const size_t sizes[] = {0, 1, 50000};

    for (size_t i = 0; i < ARRAY_LEN(modes) * ARRAY_LEN(sizes) * 2; i++) {
        size_t len = sizes[i / 2 % ARRAY_LEN(sizes)];
        bool by_client = i % 2 == 1;
        const struct record *record;
        struct leg client;
        struct leg server;

        cr_log_info("case %zu", i);
        open_pair(modes[i / 2 / ARRAY_LEN(sizes)], &client, &server);
        cr_assert(leg_try_send(by_client ? &client : &server, len) == len);
        leg_reset(by_client ? &client : &server);
        leg_expect(&world, by_client ? &server : &client, len);
        leg_expect_end(&world, by_client ? &server : &client, LEG_RESET);
        record = world_expect_end(&world, by_client ? REASON_CLIENT_RESET : REASON_SERVER_RESET,
                                  by_client ? CLOSED_BY_CLIENT : CLOSED_BY_SERVER, ECONNRESET);
        cr_assert((by_client ? record->bytes_up : record->bytes_down) == len);
        cr_assert(record->undelivered_bytes == 0);
        close_world(&client, &server);
    }
}

/* A reset behind a FIN: what the FIN ended is complete, but the other direction broke. */
Test(session, passes_on_a_reset_that_comes_after_fin)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * 2; i++) {
        bool by_client = i % 2 == 1;
        struct leg client;
        struct leg server;
        struct leg *breaker = by_client ? &client : &server;
        struct leg *other = by_client ? &server : &client;

        open_pair(modes[i / 2], &client, &server);
        leg_send(&world, breaker, 1000);
        leg_shut(breaker);
        leg_expect_end(&world, other, LEG_FIN);
        cr_assert(other->received == 1000);
        leg_reset(breaker);
        (void)world_expect_end(&world, by_client ? REASON_CLIENT_RESET : REASON_SERVER_RESET,
                               by_client ? CLOSED_BY_CLIENT : CLOSED_BY_SERVER, EPIPE);
        WORLD_UNTIL(&world, (leg_try_send(other, 1), other->broken));
        close_world(&client, &server);
    }
}

/* A reset while the receiver does not read: sluice holds what it has until the receiver takes it,
 * for as long as it makes progress, and resets it only then. */
Test(session, holds_a_reset_back_until_a_slow_peer_has_read_everything)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        const struct record *record;
        struct session *session;
        struct leg client;
        struct leg server;
        uint64_t taken;

        world_init(&world, modes[i]);
        (void)world_add_tcp(&world);
        world_open(&world);
        client = world_connect_small(&world, 30000);
        server = world_accept(&world, 0, &client);
        session = world_session(&world);
        cr_assert(
            setsockopt(session->client.fd, SOL_SOCKET, SO_SNDBUF, &(int){20000}, sizeof(int)) == 0);
        for (int turns = 0; turns < 5; turns++) {
            (void)leg_try_send(&server, 60000);
            world_turn(&world);
        }
        leg_reset(&server);
        taken = session->down.bytes_in + queued(session->server.fd);
        cr_assert(taken > queued(client.fd) + 100000, "nothing is stuck");
        world_idle(&world, 3);
        /* Time-outs pass again and again, but each time something was read. */
        for (int reads = 0; client.end == LEG_OPEN; reads++) {
            cr_assert(reads < 5000, "it does not end");
            cr_assert(world.records_len == 0 || client.received + queued(client.fd) == taken);
            if (leg_try_read(&client, 1 << 20) > 0) {
                world_turn(&world);
                fault_clock_advance(40 * MINUTE_NS);
            }
            world_turn(&world);
        }
        cr_assert(client.end == LEG_RESET);
        cr_assert(client.received == taken, "only %zu of %zu bytes", (size_t)client.received,
                  (size_t)taken);
        record = world_expect_end(&world, REASON_SERVER_RESET, CLOSED_BY_SERVER, ECONNRESET);
        cr_assert(record->bytes_down == taken);
        cr_assert(record->undelivered_bytes == 0);
        close_world(&client, &server);
    }
}

/* ... but not for ever: a receiver that reads nothing at all ends with fin-timeout, and the record
 * says how much it did not get. */
Test(session, gives_up_on_a_peer_that_reads_nothing_before_a_reset)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        const struct record *record;
        struct session *session;
        struct leg client;
        struct leg server;
        uint64_t taken;

        open_pair(modes[i], &client, &server);
        session = world_session(&world);
        for (int quiet = 0; quiet < 5; quiet++) {
            if (leg_try_send(&server, 1 << 20) > 0) {
                quiet = 0;
            }
            world_turn(&world);
        }
        leg_reset(&server);
        taken = session->down.bytes_in + queued(session->server.fd);
        world_idle(&world, 3);
        cr_assert(world.records_len == 0);
        for (int looks = 0; world.records_len == 0; looks++) {
            cr_assert(looks < 10, "it does not give up");
            fault_clock_advance(30 * MINUTE_NS);
            world_idle(&world, 2);
        }
        record = &world.records[0];
        cr_assert(record->reason == REASON_SERVER_RESET || record->reason == REASON_FIN_TIMEOUT);
        cr_assert(record->undelivered_bytes > 0);
        cr_assert(record->bytes_down <= taken);
        leg_expect_end(&world, &client, LEG_RESET);
        cr_assert(client.received < taken);
        cr_assert(record->undelivered_bytes <= taken);
        close_world(&client, &server);
    }
}

/* Without a limit on half-closed connections there is none on delivery before a reset either. */
Test(session, delivers_before_a_reset_without_a_fin_timeout)
{
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_NEVER);
    (void)world_add_tcp(&world);
    world.settings.fin_timeout_ns = 0;
    world_open(&world);
    world_pair(&world, &client, &server);
    leg_send(&world, &server, 1000);
    leg_expect(&world, &client, 1000);
    /* The client's kernel does not acknowledge for a while. */
    fault_return(CALL_UNACKNOWLEDGED, world_session(&world)->client.fd, 1, ALWAYS, 1000);
    leg_reset(&server);
    world_idle(&world, 5);
    cr_assert(world.records_len == 0, "the client was reset with bytes still on their way to it");
    fault_disarm();
    (void)world_expect_end(&world, REASON_SERVER_RESET, CLOSED_BY_SERVER, ECONNRESET);
    close_world(&client, &server);
}

/* While delivering, the looks at the other side's kernel become rarer: an hour costs a few dozen
 * wake-ups, not millions. */
Test(session, looks_ever_more_rarely_at_a_slow_peer)
{
    struct leg client;
    struct leg server;
    size_t looks;

    open_pair(SPLICE_NEVER, &client, &server);
    fault_return(CALL_UNACKNOWLEDGED, ANY_FD, 1, ALWAYS, 1000);
    leg_reset(&server);
    WORLD_UNTIL(&world, fault_count(CALL_UNACKNOWLEDGED, ANY_FD) > 0);
    for (int seconds = 0; seconds < 1000; seconds++) {
        fault_clock_advance(NS_PER_S);
        world_turn(&world);
    }
    looks = fault_count(CALL_UNACKNOWLEDGED, world_session(&world)->client.fd);
    cr_assert(looks >= 1000 / 17 && looks <= 1000 / 16 + 20, "%zu looks", looks);
    fault_clock_advance(61 * MINUTE_NS);
    (void)world_expect_end(&world, REASON_SERVER_RESET, CLOSED_BY_SERVER, ECONNRESET);
    close_world(&client, &server);
}

/* What the living side goes on sending wakes the session up, but does not put off the next look, or
 * the reset would come ever later. */
Test(session, is_not_kept_from_looking_by_what_the_other_side_sends)
{
    struct session *session;
    struct leg client;
    struct leg server;
    uint64_t start_ns;

    open_pair(SPLICE_NEVER, &client, &server);
    session = world_session(&world);
    fault_return(CALL_UNACKNOWLEDGED, ANY_FD, 1, ALWAYS, 1000);
    leg_reset(&server);
    WORLD_UNTIL(&world, session->phase == SESSION_ENDING);
    start_ns = world.loop.now_ns;
    for (int i = 0; i < 100; i++) {
        cr_assert(leg_try_send(&client, 1) == 1);
        world_turn(&world);
    }
    cr_assert(session->wait_ms <= 2 * (world.loop.now_ns - start_ns) / NS_PER_MS + 8,
              "the next look is %u ms away", session->wait_ms);
    cr_assert(timer_is_set(&session->timer));
    fault_disarm();
    (void)world_expect_end(&world, REASON_SERVER_RESET, CLOSED_BY_SERVER, ECONNRESET);
    close_world(&client, &server);
}

/* Who was first to end is who ended first, though its last bytes are still held when the other side
 * breaks. The copy engine knows of the end before it has sent them. */
Test(session, names_who_ended_first_though_its_last_bytes_were_not_taken)
{
    static const enum splice_mode copying[] = {SPLICE_NEVER, SPLICE_AUTO};

    for (size_t i = 0; i < ARRAY_LEN(copying); i++) {
        struct pollfd arrived = {.events = POLLRDHUP};
        struct session *session;
        struct leg client;
        struct leg server;

        world_init(&world, copying[i]);
        (void)world_add_tcp(&world);
        world_open(&world);
        client = world_connect_small(&world, 4096);
        server = world_accept(&world, 0, &client);
        session = world_session(&world);
        cr_assert(
            setsockopt(session->client.fd, SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int)) == 0);
        world_idle(&world, 2);
        cr_assert(leg_try_send(&server, 60000) == 60000);
        leg_shut(&server);
        arrived.fd = session->server.fd; /* both, before sluice looks */
        cr_assert(poll(&arrived, 1, 10000) == 1);
        WORLD_UNTIL(&world, session->down.state == FLOW_DRAINING);
        cr_assert(flow_held_bytes(&session->down) > 0, "the client has taken all");
        leg_reset(&client);
        (void)world_expect_end(&world, REASON_CLIENT_RESET, CLOSED_BY_SERVER, ECONNRESET);
        leg_expect_end(&world, &server, LEG_RESET);
        close_world(&client, &server);
    }
}

/* --- races --- */

static void reset_leg(void *context)
{
    leg_reset(context);
}

/* The server resets between the turn's events and the FIN that sluice passes on to it. shutdown(2)
 * then says ENOTCONN; what happened is a reset all the same. */
Test(session, calls_a_reset_a_reset_even_if_shutdown_meets_it_first)
{
    for (int by_client = 0; by_client < 2; by_client++) {
        struct leg client;
        struct leg server;
        struct leg *shutting = by_client == 1 ? &server : &client;
        struct leg *breaking = by_client == 1 ? &client : &server;

        open_pair(SPLICE_NEVER, &client, &server);
        world_idle(&world, 2);
        fault_hook(CALL_SHUTDOWN_WRITE, ANY_FD, 1, 1, reset_leg, breaking);
        leg_shut(shutting);
        world_wait_records(&world, 1);
        leg_expect_end(&world, shutting, LEG_RESET);
        cr_assert(world.records[0].reason ==
                      (by_client == 1 ? REASON_CLIENT_RESET : REASON_SERVER_RESET),
                  "a reset is recorded as %s, error %s", reason_text(world.records[0].reason),
                  strerror(world.records[0].error));
        close_world(&client, &server);
    }
}

/* The same with bytes: the server resets just before sluice sends to it, having sent some itself.
 * They are delivered, the reset follows. */
Test(session, delivers_what_a_server_sent_that_resets_during_a_send)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct leg client;
        struct leg server;

        open_pair(modes[i], &client, &server);
        world_idle(&world, 2);
        cr_assert(leg_try_send(&server, 3000) == 3000);
        fault_hook(CALL_SEND, world_session(&world)->server.fd, 1, 1, reset_leg, &server);
        fault_hook(CALL_SPLICE_OUT, world_session(&world)->server.fd, 1, 1, reset_leg, &server);
        cr_assert(leg_try_send(&client, 100) == 100);
        leg_expect(&world, &client, 3000);
        leg_expect_end(&world, &client, LEG_RESET);
        (void)world_expect_end(&world, REASON_SERVER_RESET, CLOSED_BY_SERVER, ECONNRESET);
        close_world(&client, &server);
    }
}

static void close_leg(void *context)
{
    leg_close(context);
}

/* A unix server closes with bytes of ours unread, between the turn's events and our next send: send
 * says EPIPE, recv then ECONNRESET. Its answer is incomplete, so the client must not see a FIN. */
Test(session, shows_no_fin_for_a_unix_server_that_closed_with_bytes_unread)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct leg client;
        struct leg server;

        world_init(&world, modes[i]);
        (void)world_add_unix(&world, 10);
        world_open(&world);
        world_pair(&world, &client, &server);
        leg_send(&world, &client, 500);
        WORLD_UNTIL(&world, queued(server.fd) == 500); /* and never read */
        cr_assert(leg_try_send(&server, 3000) == 3000);
        fault_hook(CALL_SEND, world_session(&world)->server.fd, 1, 1, close_leg, &server);
        fault_hook(CALL_SPLICE_OUT, world_session(&world)->server.fd, 1, 1, close_leg, &server);
        leg_send(&world, &client, 500);
        leg_expect(&world, &client, 3000);
        leg_expect_end(&world, &client, LEG_RESET);
        world_wait_records(&world, 1);
        cr_assert(world.records[0].reason == REASON_SERVER_RESET);
        cr_assert(world.records[0].error == ECONNRESET);
        close_world(&client, &server);
    }
}

/* A unix server that gives up reading alone, and goes on writing: what is sent to it is lost, as it
 * wished, but its whole answer arrives, and its FIN. */
Test(session, delivers_the_answer_of_a_unix_server_that_stopped_reading)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct leg client;
        struct leg server;

        world_init(&world, modes[i]);
        (void)world_add_unix(&world, 10);
        world_open(&world);
        world_pair(&world, &client, &server);
        leg_send(&world, &server, 100);
        leg_expect(&world, &client, 100);
        cr_assert(shutdown(server.fd, SHUT_RD) == 0);
        leg_send(&world, &client, 1000);
        WORLD_UNTIL(&world, flow_is_over(&world_session(&world)->up));
        for (int round = 0; round < 5; round++) {
            world_idle(&world, 2);
            leg_send(&world, &server, 20000);
            leg_expect(&world, &client, 20000);
        }
        leg_shut(&server);
        leg_expect_end(&world, &client, LEG_FIN);
        world_wait_records(&world, 1);
        cr_assert(world.records[0].bytes_down == 100100);
        cr_assert(reason_how(world.records[0].reason) != HOW_FIN, "1000 bytes went nowhere");
        close_world(&client, &server);
    }
}

/* --- ends that sluice wants --- */

static bool is_stuck(struct leg *server)
{
    return leg_try_send(server, 1 << 20) == 0 && flow_held_bytes(&world_session(&world)->down) > 0;
}

/* Without delivery all sessions end at once, in any phase, with the reason given; twice is once. */
Test(session, ends_at_once_when_told_to)
{
    struct leg clients[2];
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_silent(&world);
    world_open(&world);
    clients[0] = world_connect(&world);
    WORLD_UNTIL(&world, world.relay.live_count == 1);
    relay_end_all(&world.relay, REASON_ADMIN, false);
    relay_end_all(&world.relay, REASON_DRAIN, true);
    (void)world_expect_end(&world, REASON_ADMIN, CLOSED_BY_PROXY, 0);
    cr_assert(world.records[0].connect_ns == RECORD_NO_TIME);
    leg_expect_end(&world, &clients[0], LEG_RESET);
    leg_close(&clients[0]);
    world_close(&world);

    open_pair(SPLICE_AUTO, &clients[1], &server);
    leg_send(&world, &server, 10);
    leg_expect(&world, &clients[1], 10);
    relay_end_all(&world.relay, REASON_DRAIN, false);
    (void)world_expect_end(&world, REASON_DRAIN, CLOSED_BY_PROXY, 0);
    leg_expect_end(&world, &clients[1], LEG_RESET);
    leg_expect_end(&world, &server, LEG_RESET);
    close_world(&clients[1], &server);
}

/* The record of a session that is cut with held bytes counts them, to the byte: towards a unix
 * server, where what the socket took is delivered. */
Test(session, counts_what_it_drops_when_it_is_cut)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        const struct record *record;
        struct leg client;
        struct leg server;
        uint64_t taken;

        world_init(&world, modes[i]);
        (void)world_add_unix(&world, 10);
        world_open(&world);
        world_pair(&world, &client, &server);
        while (flow_held_bytes(&world_session(&world)->up) == 0) {
            (void)leg_try_send(&client, 10000);
            world_turn(&world);
        }
        taken = world_session(&world)->up.bytes_in;
        relay_end_all(&world.relay, REASON_DRAIN, false);
        record = world_expect_end(&world, REASON_DRAIN, CLOSED_BY_PROXY, 0);
        cr_assert(record->bytes_up == queued(server.fd));
        cr_assert(record->bytes_up + record->undelivered_bytes == taken);
        cr_assert(record->undelivered_bytes > 0);
        close_world(&client, &server);
    }
}

/* With delivery, held bytes go out first, without reading more; then the reset, with the reason
 * given. */
Test(session, delivers_what_it_holds_before_it_ends)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        const struct record *record;
        struct leg client;
        struct leg server;
        uint64_t taken;

        open_pair(modes[i], &client, &server);
        WORLD_UNTIL(&world, is_stuck(&server));
        taken = world_session(&world)->down.bytes_in;
        relay_end_all(&world.relay, REASON_DRAIN, true);
        cr_assert(world.records_len == 0, "cut with bytes in hand");
        leg_expect_end(&world, &client, LEG_RESET);
        cr_assert(client.received == taken, "%zu of %zu", (size_t)client.received, (size_t)taken);
        record = world_expect_end(&world, REASON_DRAIN, CLOSED_BY_PROXY, 0);
        cr_assert(record->undelivered_bytes == 0 && record->bytes_down == taken);
        leg_expect_end(&world, &server, LEG_RESET);
        close_world(&client, &server);
    }
}

/* ... for at most a second: progress does not make it longer. */
Test(session, has_a_seconds_patience_with_delivery_when_told_to_end)
{
    struct leg client;
    struct leg server;

    open_pair(SPLICE_AUTO, &client, &server);
    WORLD_UNTIL(&world, is_stuck(&server));
    relay_end_all(&world.relay, REASON_DRAIN, true);
    for (int i = 0; i < 9; i++) {
        world_turn(&world);
        cr_assert(world.records_len == 0, "cut after %d tenths of a second", i);
        fault_clock_advance(i < 8 ? 100 * NS_PER_MS : 300 * NS_PER_MS);
        (void)leg_try_read(&client, 1000);
    }
    (void)world_expect_end(&world, REASON_DRAIN, CLOSED_BY_PROXY, 0);
    cr_assert(world.records[0].undelivered_bytes > 0);
    close_world(&client, &server);
}

/* A session already on its way out keeps its own reason; being told to end only makes it hurry.
 * Told to end at once, it does. */
Test(session, keeps_its_own_reason_when_told_to_end_while_ending)
{
    for (int at_once = 0; at_once < 2; at_once++) {
        struct leg client;
        struct leg server;

        open_pair(SPLICE_AUTO, &client, &server);
        fault_return(CALL_UNACKNOWLEDGED, ANY_FD, 1, ALWAYS, 1000);
        leg_reset(&server);
        WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_ENDING);
        world_idle(&world, 3);
        relay_end_all(&world.relay, REASON_DRAIN, at_once == 0);
        cr_assert(world.records_len == (size_t)at_once);
        world_idle(&world, 2);
        fault_clock_advance(1100 * NS_PER_MS);
        (void)world_expect_end(&world, REASON_SERVER_RESET, CLOSED_BY_SERVER, ECONNRESET);
        close_world(&client, &server);
    }
}

/* A FIN that is lost on the way is sent again only while its socket lives. So the reset that comes
 * after it is held back until the peer has acknowledged the FIN, as it is for bytes. */
Test(session, holds_a_reset_back_until_the_fin_before_it_has_arrived)
{
    struct session *session;
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, &client, &server);
    session = world_session(&world);
    leg_shut(&server);
    leg_expect_end(&world, &client, LEG_FIN);
    fault_return(CALL_UNACKNOWLEDGED, session->client.fd, 1, ALWAYS, 1); /* a FIN counts one */
    leg_reset(&server);
    WORLD_UNTIL(&world, session->phase == SESSION_ENDING);
    for (int i = 0; i < 20; i++) {
        fault_clock_advance(MINUTE_NS / 100);
        world_turn(&world);
    }
    cr_assert(world.records_len == 0, "the reset did not wait for the FIN");
    fault_disarm();
    fault_clock_advance(MINUTE_NS / 2);
    (void)world_expect_end(&world, REASON_SERVER_RESET, CLOSED_BY_SERVER, EPIPE);
    leg_close(&client);
    world_close(&world);
}

/* The kernel, or a filter of system calls, does not let SO_LINGER be taken back: the last FIN, which
 * close(2) would have sent, has gone out before, and neither end is shown as a reset. */
Test(session, ends_cleanly_although_linger_can_not_be_taken_back)
{
    for (int server_first = 0; server_first < 2; server_first++) {
        struct leg client;
        struct leg server;

        world_init(&world, SPLICE_AUTO);
        (void)world_add_tcp(&world);
        world_open(&world);
        world_pair(&world, &client, &server);
        WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
        fault_clear();
        fault_fail(CALL_SET_OPTION, ANY_FD, 1, ALWAYS, EPERM);
        leg_send(&world, &client, 1000);
        leg_expect(&world, &server, 1000);
        leg_shut(server_first == 1 ? &server : &client);
        leg_expect_end(&world, server_first == 1 ? &client : &server, LEG_FIN);
        leg_shut(server_first == 1 ? &client : &server);
        leg_expect_end(&world, server_first == 1 ? &server : &client, LEG_FIN);
        world_wait_records(&world, 1);
        cr_assert(fault_fired() == 2);
        cr_assert(reason_how(world.records[0].reason) == HOW_FIN);
        leg_close(&client);
        leg_close(&server);
        world_close(&world);
    }
}

/* A session that has to wait for its server, before it has lasted for a second, is told as any other
 * when that server is gone: nothing else would end the wait as soon as user-timeout says. */
Test(session, watches_the_server_it_has_to_wait_for_at_its_end)
{
    struct leg client;
    struct leg server;
    int timeout_ms = 0;
    socklen_t len = sizeof(timeout_ms);

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world.settings.tuning = (struct sock_tuning){61, 16, 123456};
    world_open(&world);
    world_pair(&world, &client, &server);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
    fault_return(CALL_UNACKNOWLEDGED, world_session(&world)->server.fd, 1, 2, 1000);
    leg_send(&world, &client, 1000);
    leg_reset(&client);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_ENDING);
    cr_assert(getsockopt(world_session(&world)->server.fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
                         &timeout_ms, &len) == 0);
    cr_assert(timeout_ms == 123456);
    leg_expect_end(&world, &server, LEG_RESET);
    leg_close(&server);
    world_close(&world);
}
