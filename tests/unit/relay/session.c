/* Tests of a connection's life: bytes both ways, half-close, clean ends, time-outs, what it costs
 * while it rests, and its record. Abnormal ends are in session_ends.c, scripted faults in
 * session_faults.c.
 *
 * The relay runs inside the test (support/unit/world.h); hours pass by moving the loop's clock. */
#include "base/macros.h"
#include "support/stream.h"
#include "support/unit/fault.h"
#include "support/unit/world.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MINUTE_NS (60 * NS_PER_S)

static const enum splice_mode modes[] = {SPLICE_NEVER, SPLICE_ALWAYS, SPLICE_AUTO};

static struct world world;

/* --- clean ends --- */

static uint16_t port_of(int fd, bool peer)
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    int result = peer ? getpeername(fd, (struct sockaddr *)&address, &len)
                      : getsockname(fd, (struct sockaddr *)&address, &len);

    cr_assert(result == 0 && address.sin_family == AF_INET);
    return ntohs(address.sin_port);
}

/* A conversation and two FINs, whoever begins, over TCP and unix sockets, by each engine: the
 * reason names the last FIN, closed_by the first, and every byte is counted. */
Test(session, ends_cleanly_when_both_sides_have_shut)
{
    enum { LEN = 50000 };

    for (size_t i = 0; i < ARRAY_LEN(modes) * 4; i++) {
        bool client_first = i % 2 == 0;
        bool to_unix = i / 2 % 2 == 1;
        const struct record *record;
        struct leg client;
        struct leg server;

        world_init(&world, modes[i / 4]);
        (void)(to_unix ? world_add_unix(&world, 10) : world_add_tcp(&world));
        world_open(&world);
        world_pair(&world, &client, &server);
        if (client_first) {
            world_converse(&world, &client, &server, LEN);
            record = world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
        } else {
            world_converse(&world, &server, &client, LEN);
            record = world_expect_end(&world, REASON_CLIENT_FIN, CLOSED_BY_SERVER, 0);
        }
        cr_assert(record->bytes_up == LEN && record->bytes_down == LEN);
        cr_assert(record->undelivered_bytes == 0);
        cr_assert(record->spliced_bytes == (modes[i / 4] == SPLICE_ALWAYS ? 2 * LEN : 0) ||
                  modes[i / 4] == SPLICE_AUTO);
        cr_assert(metric_get(&world.metrics.bytes_up) == LEN);
        cr_assert(metric_get(&world.metrics.bytes_down) == LEN);
        cr_assert(metric_get(&world.metrics.spliced_bytes) == record->spliced_bytes);
        world_close(&world);
    }
}

/* The record names everyone: ids in a row, listener, pool, server, the addresses of both legs. */
Test(session, is_recorded_with_its_names_and_addresses)
{
    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    for (size_t i = 0; i < 3; i++) {
        const struct record *record = &world.records[i];
        struct leg client;
        struct leg server;
        uint16_t client_port;
        uint16_t server_port;

        world_pair(&world, &client, &server);
        client_port = port_of(client.fd, false);
        server_port = port_of(server.fd, true);
        world_converse(&world, &client, &server, 1);
        world_wait_records(&world, i + 1);
        cr_assert(record->id == 1000 + i);
        cr_assert(strcmp(record->listener, "front") == 0);
        cr_assert(strcmp(record->pool, "back") == 0);
        cr_assert(strcmp(record->server, "server-0") == 0);
        cr_assert(record->client.family == AF_INET && record->client.port == client_port);
        cr_assert(record->server_local.family == AF_INET);
        cr_assert(record->server_local.port == server_port);
        cr_assert(addr_equal(&record->client_local, &world.address));
        cr_assert(record->retries == 0);
    }
    world_close(&world);
}

/* Nobody reads the records: then the kernel is not asked for what only they would say. And a
 * listener on one address knows our end of what it accepts. */
Test(session, asks_the_kernel_for_details_only_if_they_are_wanted)
{
    for (int i = 0; i < 4; i++) {
        bool wanted = i % 2 == 1;
        bool wildcard = i / 2 == 1;
        const struct record *record;
        struct leg client;
        struct leg server;
        int client_fd;

        world_init(&world, SPLICE_AUTO);
        (void)world_add_tcp(&world);
        world.settings.want_details = wanted;
        world_open(&world);
        world.listener.local.len = wildcard ? 0 : world.listener.local.len;
        world_pair(&world, &client, &server);
        client_fd = world_session(&world)->client.fd;
        world_converse(&world, &client, &server, 1);
        record = world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
        cr_assert(fault_count(CALL_LOCAL_ADDRESS, client_fd) == (wanted && wildcard ? 1 : 0));
        cr_assert((record->client_local.len > 0) == wanted);
        cr_assert(!wanted || addr_equal(&record->client_local, &world.address));
        cr_assert((record->rtt_us > 0) == wanted);
        world_close(&world);
    }
}

/* The record's times are the loop's: one second to connect, two more to the first byte, four more
 * to the end. A time that never came is marked as such. */
Test(session, measures_its_times_by_the_loops_clock)
{
    const struct record *record;
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    client = world_connect(&world);
    WORLD_UNTIL(&world, world.relay.live_count == 1);
    fault_clock_advance(NS_PER_S);
    server = world_accept(&world, 0, &client);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
    fault_clock_advance(2 * NS_PER_S);
    leg_send(&world, &server, 1);
    leg_expect(&world, &client, 1);
    fault_clock_advance(4 * NS_PER_S);
    world_converse(&world, &client, &server, 10);
    record = world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    cr_assert(record->connect_ns >= NS_PER_S);
    cr_assert(record->first_byte_ns >= record->connect_ns + 2 * NS_PER_S);
    cr_assert(record->duration_ns >= record->first_byte_ns + 4 * NS_PER_S);
    cr_assert(record->duration_ns < 3600 * NS_PER_S);

    client = world_connect(&world);
    server = world_accept(&world, 0, &client);
    leg_send(&world, &client, 5);
    leg_expect(&world, &server, 5);
    leg_shut(&server);
    leg_shut(&client);
    world_wait_records(&world, 2);
    cr_assert(world.records[1].first_byte_ns == RECORD_NO_TIME);
    cr_assert(world.records[1].connect_ns != RECORD_NO_TIME);
    leg_close(&client);
    leg_close(&server);
    world_close(&world);
}

/* Half-close, either side first: the other direction goes on for as much as it likes, both before
 * and after more turns, and then ends by its own FIN. */
Test(session, lets_one_direction_go_on_after_the_other_has_ended)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * 2; i++) {
        bool client_first = i % 2 == 0;
        struct leg client;
        struct leg server;
        struct leg *first = client_first ? &client : &server;
        struct leg *last = client_first ? &server : &client;

        world_init(&world, modes[i / 2]);
        (void)world_add_tcp(&world);
        world_open(&world);
        world_pair(&world, &client, &server);
        leg_shut(first);
        leg_expect_end(&world, last, LEG_FIN);
        for (int round = 0; round < 20; round++) {
            leg_send(&world, last, 30000);
            leg_expect(&world, first, 30000);
            cr_assert(world.records_len == 0);
        }
        leg_shut(last);
        leg_expect_end(&world, first, LEG_FIN);
        (void)world_expect_end(&world, client_first ? REASON_SERVER_FIN : REASON_CLIENT_FIN,
                               client_first ? CLOSED_BY_CLIENT : CLOSED_BY_SERVER, 0);
        leg_close(&client);
        leg_close(&server);
        world_close(&world);
    }
}

/* A client that says all it has to say, FIN included, before the server is even connected: nothing
 * is read until then, and nothing is lost. */
Test(session, keeps_bytes_and_fin_that_come_before_the_server_is_connected)
{
    struct leg client;
    struct leg filler;
    struct leg server;
    struct addr *addr;
    int fd;

    world_init(&world, SPLICE_AUTO);
    addr = &world.targets[world_add_unix(&world, 0)].addr;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(connect(fd, &addr->u.any, addr->len) == 0); /* fills the server's queue */
    world_open(&world);
    client = world_connect(&world);
    cr_assert(leg_try_send(&client, 20000) == 20000);
    leg_shut(&client);
    WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) >= 3);
    cr_assert(fault_count(CALL_RECV, ANY_FD) == 0, "read from the client too early");
    cr_assert(world_session(&world)->phase == SESSION_CONNECTING);
    filler = world_accept(&world, 0, &client);
    leg_close(&filler);
    (void)close(fd);
    server = world_accept(&world, 0, &client);
    leg_expect(&world, &server, 20000);
    leg_expect_end(&world, &server, LEG_FIN);
    leg_send(&world, &server, 30000);
    leg_shut(&server);
    leg_expect(&world, &client, 30000);
    leg_expect_end(&world, &client, LEG_FIN);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    leg_close(&client);
    leg_close(&server);
    world_close(&world);
}

/* Both FINs within one turn: the client counts as the first, and one record is written. */
Test(session, counts_the_client_as_first_when_both_shut_at_once)
{
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, &client, &server);
    world_idle(&world, 2);
    leg_shut(&client);
    leg_shut(&server);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    leg_expect_end(&world, &client, LEG_FIN);
    leg_expect_end(&world, &server, LEG_FIN);
    leg_close(&client);
    leg_close(&server);
    world_close(&world);
}

/* Ten connections at once, with streams of their own, in random order of turns: no byte crosses
 * over. */
Test(session, keeps_connections_apart)
{
    enum { COUNT = 10, LEN = 200000 };
    static struct leg clients[COUNT];
    static struct leg servers[COUNT];
    uint64_t seed = 7;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    for (size_t i = 0; i < COUNT; i++) {
        world_pair(&world, &clients[i], &servers[i]);
    }
    for (size_t done = 0; done < COUNT;) {
        size_t i = (size_t)random_below(&seed, COUNT);
        struct leg *client = &clients[i];
        struct leg *server = &servers[i];

        (void)leg_try_send(client, min_size(random_below(&seed, 30000), LEN - client->sent));
        (void)leg_try_send(server, min_size(random_below(&seed, 30000), LEN - server->sent));
        (void)leg_try_read(client, random_below(&seed, 30000));
        (void)leg_try_read(server, random_below(&seed, 30000));
        if (random_below(&seed, 4) == 0) {
            world_turn(&world);
        }
        for (done = 0; done < COUNT; done++) {
            if (clients[done].received < LEN || servers[done].received < LEN) {
                break;
            }
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        world_converse(&world, &clients[i], &servers[i], 1);
    }
    world_wait_records(&world, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        cr_assert(world.records[i].bytes_up == LEN + 1);
        cr_assert(world.records[i].bytes_down == LEN + 1);
    }
    world_close(&world);
}

/* --- at rest --- */

/* A session at rest, fresh or after traffic or half-closed, owns two sockets and one timer, and
 * when its task is run for no reason it makes no system call. */
Test(session, makes_no_system_call_when_it_is_run_for_nothing)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * 3; i++) {
        struct session *session;
        struct leg client;
        struct leg server;

        world_init(&world, modes[i / 3]);
        (void)world_add_tcp(&world);
        world_open(&world);
        world_pair(&world, &client, &server);
        if (i % 3 > 0) {
            leg_send(&world, &server, 200000);
            leg_expect(&world, &client, 200000);
        }
        if (i % 3 > 1) {
            leg_shut(&client);
            leg_expect_end(&world, &server, LEG_FIN);
        }
        session = world_session(&world);
        WORLD_UNTIL(&world, session->phase == SESSION_RELAYING);
        world_idle(&world, 5); /* late edges of acknowledgements */
        for (int again = 0; again < 3; again++) {
            fault_clear();
            loop_queue(&world.loop, &session->task);
            world_turn(&world);
            cr_assert(fault_notes_len() == fault_count(CALL_EPOLL_WAIT, ANY_FD), "case %zu: %s", i,
                      call_name(fault_note(fault_notes_len() - 1)->call));
        }
        cr_assert(world.relay.supplies.buffers.objects_in_use == 0);
        cr_assert(world.relay.supplies.pipes.pipes_lent == 0);
        if (i % 3 < 2) {
            leg_shut(&client);
        }
        leg_shut(&server);
        (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
        leg_close(&client);
        leg_close(&server);
        world_close(&world);
    }
}

/* An idle connection costs no wake-up: over fifty turns, none of which finds an event, it is not
 * run. */
Test(session, costs_nothing_while_nothing_happens)
{
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, &client, &server);
    leg_send(&world, &client, 10);
    leg_expect(&world, &server, 10);
    world_idle(&world, 20);
    fault_clear();
    world_idle(&world, 50);
    /* The harness's own timer ends each wait, and before a timer fires the loop looks once more. */
    cr_assert(fault_notes_len() == 2 * 50);
    for (size_t i = 0; i < fault_notes_len(); i++) {
        cr_assert(fault_note(i)->call == CALL_EPOLL_WAIT);
        cr_assert(fault_note(i)->result == 0, "an event without a cause");
        cr_assert((fault_note(i)->len > 0) == (i % 2 == 0), "a turn that did not wait");
    }
    world_converse(&world, &client, &server, 1);
    world_close(&world);
}

/* --- time-outs --- */

static void expect_timeout(struct leg *client, struct leg *server, enum reason reason)
{
    (void)world_expect_end(&world, reason, CLOSED_BY_PROXY, 0);
    leg_expect_end(&world, server, LEG_RESET);
    if (client->end == LEG_OPEN) {
        leg_expect_end(&world, client, LEG_RESET);
    }
    leg_close(client);
    leg_close(server);
    world_close(&world);
}

/* Nothing moved for idle-timeout: both sides are reset. Bytes in either direction, and those alone,
 * put it off: three times fifty minutes with a byte between, then an hour without. */
Test(session, ends_when_nothing_has_moved_for_the_idle_timeout)
{
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, &client, &server);
    for (int i = 0; i < 3; i++) {
        fault_clock_advance(50 * MINUTE_NS);
        world_idle(&world, 2);
        leg_send(&world, i % 2 == 0 ? &client : &server, 1);
        leg_expect(&world, i % 2 == 0 ? &server : &client, 1);
    }
    world_idle(&world, 2);
    fault_clock_advance(59 * MINUTE_NS);
    world_idle(&world, 3);
    cr_assert(world.records_len == 0, "ended too early");
    /* What was sent has been acknowledged meanwhile, but make sure that no look finds otherwise. */
    fault_return(CALL_UNACKNOWLEDGED, ANY_FD, 1, ALWAYS, 0);
    fault_clock_advance(2 * MINUTE_NS);
    expect_timeout(&client, &server, REASON_IDLE_TIMEOUT);
}

/* Half-closed, fin-timeout counts instead: shorter or longer than idle-timeout, put off by bytes of
 * the direction that is left. */
Test(session, ends_half_closed_when_nothing_has_moved_for_the_fin_timeout)
{
    for (int longer = 0; longer < 2; longer++) {
        struct leg client;
        struct leg server;

        world_init(&world, SPLICE_AUTO);
        (void)world_add_tcp(&world);
        world.settings.idle_timeout_ns = longer == 1 ? MINUTE_NS : 1000 * MINUTE_NS;
        world.settings.fin_timeout_ns = 10 * MINUTE_NS;
        world_open(&world);
        world_pair(&world, &client, &server);
        leg_shut(&server);
        leg_expect_end(&world, &client, LEG_FIN);
        for (int i = 0; i < 3; i++) {
            fault_clock_advance(9 * MINUTE_NS);
            world_idle(&world, 2);
            leg_send(&world, &client, 1);
            leg_expect(&world, &server, 1);
        }
        fault_return(CALL_UNACKNOWLEDGED, ANY_FD, 1, ALWAYS, 0);
        fault_clock_advance(11 * MINUTE_NS);
        expect_timeout(&client, &server, REASON_FIN_TIMEOUT);
    }
}

static int option(int fd, int level, int name)
{
    int value = 0;
    socklen_t len = sizeof(value);

    cr_assert(getsockopt(fd, level, name, &value, &len) == 0);
    return value;
}

/* With both off, or one of them, the respective session soon has no timer at all and stays for
 * years. */
Test(session, stays_for_ever_without_an_idle_timeout)
{
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world.settings.idle_timeout_ns = 0;
    world_open(&world);
    world_pair(&world, &client, &server);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
    fault_clock_advance(NS_PER_S);
    WORLD_UNTIL(&world, !timer_is_set(&world_session(&world)->timer));
    fault_clock_advance(UINT64_C(3) * 365 * 24 * 60 * MINUTE_NS);
    world_idle(&world, 5);
    cr_assert(world.records_len == 0);
    world_converse(&world, &client, &server, 100);
    world_close(&world);
}

/* A connection that lasts for a second, busy or not, has keepalive and user timeout set on its
 * server's leg. If that fails, it is tried again a second later. */
Test(session, watches_the_servers_leg_of_a_connection_that_lasts)
{
    struct leg client;
    struct leg server;
    int fd;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world.settings.tuning = (struct sock_tuning){61, 16, 123456};
    world_open(&world);
    world_pair(&world, &client, &server);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
    fd = world_session(&world)->server.fd;
    fault_clear();
    fault_fail(CALL_SET_OPTION, fd, 4, 1, ENOMEM);
    fault_clock_advance(NS_PER_S / 2);
    leg_send(&world, &client, 1);
    leg_expect(&world, &server, 1);
    world_idle(&world, 2);
    cr_assert(fault_count(CALL_SET_OPTION, fd) == 0, "it did not wait to see whether it lasts");
    fault_clock_advance(NS_PER_S / 2 + 2 * NS_PER_MS);
    world_idle(&world, 2);
    cr_assert(fault_fired() == 1);
    cr_assert(!world_session(&world)->is_watched);
    fault_clock_advance(NS_PER_S + 2 * NS_PER_MS);
    world_idle(&world, 2);
    cr_assert(world_session(&world)->is_watched);
    cr_assert(fault_count(CALL_SET_OPTION, fd) == 8);
    cr_assert(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    cr_assert(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 61);
    cr_assert(option(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 16);
    cr_assert(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) == 123456);
    fault_clock_advance(10 * NS_PER_S);
    world_idle(&world, 2);
    cr_assert(fault_count(CALL_SET_OPTION, fd) == 8, "once is enough");
    world_converse(&world, &client, &server, 100);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    world_close(&world);
}

struct looks {
    int64_t answers[4]; /* unacknowledged bytes, one a look */
    size_t ends_at;     /* number of the look that ends the session */
};

/* At each look the kernel's answer is scripted, for the client's socket or the server's; the
 * session must end at the look named and not before. */
static void expect_end_at_look(const struct looks *looks, bool client_is_slow)
{
    struct leg client;
    struct leg server;
    int slow_fd;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, &client, &server);
    WORLD_UNTIL(&world, world_session(&world)->phase == SESSION_RELAYING);
    world_idle(&world, 5);
    slow_fd = client_is_slow ? world_session(&world)->client.fd : world_session(&world)->server.fd;
    for (uint32_t look = 1; look <= ARRAY_LEN(looks->answers); look++) {
        fault_return(CALL_UNACKNOWLEDGED, slow_fd, look, 1, looks->answers[look - 1]);
    }
    for (size_t look = 1; look <= looks->ends_at; look++) {
        cr_assert(world.records_len == 0, "it ended at look %zu", look - 1);
        fault_clock_advance(61 * MINUTE_NS);
        WORLD_UNTIL(&world, fault_count(CALL_UNACKNOWLEDGED, slow_fd) >= look);
    }
    expect_timeout(&client, &server, REASON_IDLE_TIMEOUT);
}

/* A slow reader of bytes sent long ago is no event for sluice, but it is not idle: when the time is
 * up, its kernel is asked what is still unacknowledged, and fewer bytes than at the last look are
 * progress. */
Test(session, takes_no_slow_reader_for_idle)
{
    static const struct looks cases[] = {
        {{0}, 1},          /* nothing to read: idle */
        {{1000, 1000}, 2}, /* it does not read */
        {{1000, 2000}, 2}, /* more than before is no progress */
        {{1000, 999, 999}, 3},
        {{1000, 999, 998, 998}, 4},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases) * 2; i++) {
        cr_log_info("case %zu", i);
        expect_end_at_look(&cases[i / 2], i % 2 == 0);
    }
}

/* A slow reader that took the last of its bytes since the last look has made progress, too:
 * idle-timeout counts from there. */
Test(session, takes_no_reader_that_has_just_read_everything_for_idle)
{
    static const struct looks cases[] = {{{1000, 0, 0}, 3}, {{1000, 500, 0, 0}, 4}};

    for (size_t i = 0; i < ARRAY_LEN(cases) * 2; i++) {
        cr_log_info("case %zu", i);
        expect_end_at_look(&cases[i / 2], i % 2 == 0);
    }
}

/* A FIN that is not acknowledged is no byte that somebody reads slowly. */
Test(session, does_not_count_fin_as_a_byte_to_be_read)
{
    struct leg client;
    struct leg server;
    int client_fd;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, &client, &server);
    leg_shut(&server);
    leg_expect_end(&world, &client, LEG_FIN);
    world_idle(&world, 5);
    client_fd = world_session(&world)->client.fd;
    fault_return(CALL_UNACKNOWLEDGED, client_fd, 1, ALWAYS, 1);
    fault_clock_advance(61 * MINUTE_NS);
    expect_timeout(&client, &server, REASON_FIN_TIMEOUT);
}
