/* Tests of the server leg: from the first server tried to an established connection, or to the end
 * of the list. Real listeners on loopback that accept, refuse or never answer; errors that are hard
 * to get are scripted. See support/unit/world.h. */
#include "relay/connect.h"

#include "base/macros.h"
#include "support/unit/fault.h"
#include "support/unit/world.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct world world;

/* A client whose connection must end by a reset, with one record; then the world ends. */
static const struct record *expect_failure(struct leg *client, enum reason reason,
                                           enum closed_by closed_by, int error)
{
    const struct record *record = world_expect_end(&world, reason, closed_by, error);

    leg_expect_end(&world, client, LEG_RESET);
    leg_close(client);
    cr_assert(record->bytes_up == 0 && record->bytes_down == 0);
    cr_assert(record->undelivered_bytes == 0);
    cr_assert(record->connect_ns == RECORD_NO_TIME);
    cr_assert(record->first_byte_ns == RECORD_NO_TIME);
    return record;
}

/* The client reaches the server of this index, the last one that was tried; then the world ends. */
static void expect_success(struct leg *client, size_t index)
{
    struct leg server = world_accept(&world, index, client);
    const struct record *record;

    world_converse(&world, client, &server, 1000);
    record = world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    cr_assert(record->retries == index, "%u servers tried beyond the first", record->retries);
    cr_assert(strcmp(record->server, world.names[index]) == 0, "%s", record->server);
    cr_assert(record->connect_ns != RECORD_NO_TIME);
    world_close(&world);
}

/* --- refused --- */

/* A refusal by TCP comes as an event, one by a unix socket at once; either way the next server is
 * tried, with all that the client said meanwhile. */
Test(connect, goes_on_to_the_next_server_when_one_refuses)
{
    for (int by_unix = 0; by_unix < 2; by_unix++) {
        struct leg client;

        world_init(&world, SPLICE_AUTO);
        if (by_unix == 1) {
            size_t gone = world_add_unix(&world, 1);

            (void)close(world.upstream[gone]);
            world.upstream[gone] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        } else {
            (void)world_add_refusing(&world);
        }
        (void)world_add_refusing(&world);
        (void)world_add_tcp(&world);
        world_open(&world);
        client = world_connect(&world);
        expect_success(&client, 2);
    }
}

/* Nobody is left to try: refused, by the server, with the errno of the last attempt. */
Test(connect, ends_when_every_server_has_refused)
{
    const struct record *record;
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_refusing(&world);
    (void)world_add_refusing(&world);
    world_open(&world);
    client = world_connect(&world);
    record = expect_failure(&client, REASON_CONNECT_REFUSED, CLOSED_BY_SERVER, ECONNREFUSED);
    cr_assert(record->retries == 1);
    cr_assert(strcmp(record->server, "server-1") == 0);
    world_close(&world);
}

/* A pool without servers: the record has no server and no errno. */
Test(connect, ends_without_a_server)
{
    const struct record *record;
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    world_open(&world);
    client = world_connect(&world);
    record = expect_failure(&client, REASON_NO_SERVER, CLOSED_BY_PROXY, 0);
    cr_assert(record->server == NULL);
    cr_assert(record->retries == 0);
    world_close(&world);
}

/* --- no answer --- */

/* A server that never answers costs connect-timeout, no less; then the next one has its turn, with
 * a time-out of its own. */
Test(connect, gives_each_server_the_connect_timeout)
{
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_silent(&world);
    (void)world_add_silent(&world);
    (void)world_add_tcp(&world);
    world.settings.connect_timeout_ns = 10 * NS_PER_S;
    world_open(&world);
    client = world_connect(&world);
    WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == 1);
    for (size_t tried = 1; tried <= 2; tried++) {
        fault_clock_advance(9 * NS_PER_S);
        world_idle(&world, 3);
        cr_assert(fault_count(CALL_CONNECT, ANY_FD) == tried, "given up too early");
        fault_clock_advance(2 * NS_PER_S);
        WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == tried + 1);
    }
    expect_success(&client, 2);
}

/* Nobody answers: connect-timeout, after the time-out of the last one. In real time, to see the
 * loop wake up for it. */
Test(connect, ends_when_no_server_answers)
{
    const struct record *record;
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_silent(&world);
    (void)world_add_silent(&world);
    world.settings.connect_timeout_ns = 30 * NS_PER_MS;
    world_open(&world);
    client = world_connect(&world);
    record = expect_failure(&client, REASON_CONNECT_TIMEOUT, CLOSED_BY_PROXY, ETIMEDOUT);
    cr_assert(record->duration_ns >= 60 * NS_PER_MS);
    cr_assert(record->retries == 1);
    world_close(&world);
}

/* A client that resets before a server was reached: the attempt ends at once, also if its FIN came
 * first. A FIN alone is no reason to give up. */
Test(connect, ends_when_the_client_resets_meanwhile)
{
    for (int shut_first = 0; shut_first < 2; shut_first++) {
        const struct record *record;
        struct leg client;

        world_init(&world, SPLICE_AUTO);
        (void)world_add_silent(&world);
        (void)world_add_tcp(&world);
        world_open(&world);
        client = world_connect(&world);
        WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == 1);
        cr_assert(leg_try_send(&client, 100) == 100);
        if (shut_first == 1) {
            leg_shut(&client);
        }
        world_idle(&world, 5);
        cr_assert(world.records_len == 0, "a client's FIN is no abort");
        leg_reset(&client);
        record = world_expect_end(&world, REASON_CLIENT_ABORT, CLOSED_BY_CLIENT,
                                  shut_first == 1 ? EPIPE : ECONNRESET);
        cr_assert(record->retries == 0, "a server was tried for a client that is gone");
        world_close(&world);
    }
}

/* A client that resets when the server has accepted already, though sluice has not looked yet: it
 * was connected, so what it said is delivered, and then its reset. */
Test(connect, delivers_what_a_client_said_that_resets_once_the_server_is_reached)
{
    const struct record *record;
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    client = world_connect(&world);
    WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == 1);
    cr_assert(world_session(&world)->phase == SESSION_CONNECTING);
    cr_assert(leg_try_send(&client, 500) == 500);
    server = (struct leg){.send_key = client.receive_key, .receive_key = client.send_key};
    server.fd = accept4(world.upstream[0], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    cr_assert(server.fd >= 0);
    leg_reset(&client);
    leg_expect(&world, &server, 500);
    leg_expect_end(&world, &server, LEG_RESET);
    record = world_expect_end(&world, REASON_CLIENT_RESET, CLOSED_BY_CLIENT, ECONNRESET);
    cr_assert(record->bytes_up == 500 && record->undelivered_bytes == 0);
    leg_close(&server);
    world_close(&world);
}

/* --- unix sockets --- */

/* A unix server whose queue is full says so at once, and no event tells when there is room: the
 * attempt is repeated by timer, as the same attempt, until it works. */
Test(connect, waits_for_room_in_the_queue_of_a_unix_server)
{
    struct leg first;
    struct leg client;
    struct leg server;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_unix(&world, 0);
    world_open(&world);
    first = world_connect(&world); /* fills the queue */
    WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == 1);
    client = world_connect(&world);
    WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) >= 5);
    cr_assert(world.records_len == 0);
    server = world_accept(&world, 0, &first);
    world_converse(&world, &first, &server, 10);
    server = world_accept(&world, 0, &client);
    world_converse(&world, &client, &server, 10);
    world_wait_records(&world, 2);
    cr_assert(world.records[1].retries == 0);
    world_close(&world);
}

/* The tries become rarer, down to one a second: thousands may be waiting for the same queue. */
Test(connect, tries_a_full_unix_server_ever_more_rarely)
{
    struct leg first;
    struct leg client;
    size_t tries;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_unix(&world, 0);
    world_open(&world);
    first = world_connect(&world);
    WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == 1);
    client = world_connect(&world);
    for (int tenths = 0; tenths < 300; tenths++) {
        fault_clock_advance(100 * NS_PER_MS);
        world_turn(&world);
    }
    tries = fault_count(CALL_CONNECT, ANY_FD);
    cr_assert(tries >= 25 && tries <= 45, "%zu tries in half a minute", tries);
    relay_end_all(&world.relay, REASON_DRAIN, false);
    world_wait_records(&world, 2);
    leg_close(&first);
    leg_close(&client);
    world_close(&world);
}

/* ... or until connect-timeout, and then the next server's turn comes. */
Test(connect, waits_no_longer_than_the_timeout_for_a_full_unix_server)
{
    for (int with_another = 0; with_another < 2; with_another++) {
        struct leg first;
        struct leg client;
        struct leg server;

        world_init(&world, SPLICE_AUTO);
        (void)world_add_unix(&world, 0);
        world.settings.connect_timeout_ns = 10 * NS_PER_S;
        world_open(&world);
        first = world_connect(&world);
        WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == 1);
        if (with_another == 1) {
            (void)world_add_tcp(&world);
        }
        client = world_connect(&world);
        WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) >= 3);
        fault_clock_advance(9 * NS_PER_S);
        world_idle(&world, 3);
        cr_assert(world.records_len == 0);
        fault_clock_advance(2 * NS_PER_S);
        if (with_another == 1) {
            server = world_accept(&world, 1, &client);
            world_converse(&world, &client, &server, 10);
        } else {
            leg_expect_end(&world, &client, LEG_RESET);
            leg_close(&client);
        }
        world_wait_records(&world, 1);
        cr_assert(world.records[0].reason ==
                  (with_another == 1 ? REASON_SERVER_FIN : REASON_CONNECT_TIMEOUT));
        server = world_accept(&world, 0, &first);
        world_converse(&world, &first, &server, 10);
        world_wait_records(&world, 2);
        world_close(&world);
    }
}

/* A unix server that goes away while its queue was full refuses at the next attempt. */
Test(connect, notices_that_a_full_unix_server_has_gone)
{
    struct leg first;
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_unix(&world, 0);
    (void)world_add_tcp(&world);
    world_open(&world);
    first = world_connect(&world);
    WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == 1);
    client = world_connect(&world);
    WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) >= 3);
    (void)close(world.upstream[0]);
    world.upstream[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    leg_expect_end(&world, &first, LEG_RESET); /* it was never accepted */
    leg_close(&first);
    {
        struct leg server = world_accept(&world, 1, &client);

        world_converse(&world, &client, &server, 10);
    }
    world_wait_records(&world, 2);
    cr_assert(world.records[1].retries == 1);
    world_close(&world);
}

/* --- errors --- */

struct naming {
    int error;
    enum reason reason;
};

static const struct naming namings[] = {
    {ECONNREFUSED, REASON_CONNECT_REFUSED},
    {ECONNRESET, REASON_CONNECT_REFUSED},
    {ECONNABORTED, REASON_CONNECT_REFUSED},
    {ENOENT, REASON_CONNECT_REFUSED},
    {ETIMEDOUT, REASON_CONNECT_TIMEOUT},
    {ENETUNREACH, REASON_CONNECT_UNREACHABLE},
    {EHOSTUNREACH, REASON_CONNECT_UNREACHABLE},
    {ENETDOWN, REASON_CONNECT_UNREACHABLE},
    {EHOSTDOWN, REASON_CONNECT_UNREACHABLE},
    {EACCES, REASON_CONNECT_UNREACHABLE},
    {EPERM, REASON_CONNECT_UNREACHABLE},
    {ENOTDIR, REASON_CONNECT_REFUSED},
    {ELOOP, REASON_CONNECT_REFUSED},
    {EPROTOTYPE, REASON_CONNECT_REFUSED},
    {EINVAL, REASON_CONNECT_UNREACHABLE},
    {ENONET, REASON_CONNECT_UNREACHABLE},
    {EPROTO, REASON_CONNECT_UNREACHABLE},
    {ENOPROTOOPT, REASON_CONNECT_UNREACHABLE},
    {EOPNOTSUPP, REASON_CONNECT_UNREACHABLE},
    {EADDRNOTAVAIL, REASON_NO_PORT},
    {EADDRINUSE, REASON_NO_PORT},
    {EAGAIN, REASON_NO_PORT},
    {ENOMEM, REASON_LIMIT},
    {ENOBUFS, REASON_LIMIT},
    {EAFNOSUPPORT, REASON_CONNECT_UNREACHABLE},
};

/* What connect(2) says at once: each errno has its reason, and the next server is tried all the
 * same. */
Test(connect, names_what_connect_said_at_once)
{
    for (size_t i = 0; i < ARRAY_LEN(namings) * 2; i++) {
        const struct naming *row = &namings[i / 2];
        enum closed_by closed_by =
            row->reason == REASON_CONNECT_REFUSED ? CLOSED_BY_SERVER : CLOSED_BY_PROXY;
        struct leg client;

        cr_log_info("%s", strerror(row->error));
        world_init(&world, SPLICE_AUTO);
        (void)world_add_tcp(&world);
        if (i % 2 == 1) {
            (void)world_add_tcp(&world);
        }
        world_open(&world);
        fault_fail(CALL_CONNECT, ANY_FD, 1, 1, row->error);
        client = world_connect(&world);
        if (i % 2 == 1) {
            expect_success(&client, 1);
        } else {
            (void)expect_failure(&client, row->reason, closed_by, row->error);
            world_close(&world);
        }
    }
}

/* The same as the outcome of an attempt that was under way (SO_ERROR); but a reset means that there
 * had been a connection. */
Test(connect, names_how_an_attempt_ended)
{
    for (size_t i = 0; i < ARRAY_LEN(namings); i++) {
        const struct naming *row = &namings[i];
        enum closed_by closed_by =
            row->reason == REASON_CONNECT_REFUSED ? CLOSED_BY_SERVER : CLOSED_BY_PROXY;
        struct leg client;

        if (row->error == ECONNRESET) {
            continue;
        }
        cr_log_info("%s", strerror(row->error));
        world_init(&world, SPLICE_AUTO);
        (void)world_add_refusing(&world);
        world_open(&world);
        client = world_connect(&world);
        fault_socket_error(ANY_FD, 1, row->error);
        (void)expect_failure(&client, row->reason, closed_by, row->error);
        world_close(&world);
    }
}

/* No room in epoll for the server's descriptor: a limit, one record, nothing left open. */
Test(connect, ends_by_a_limit_when_epoll_takes_no_more)
{
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world_open(&world);
    client = world_connect(&world);
    fault_fail(CALL_EPOLL_ADD, ANY_FD, 2, 1, ENOSPC);
    (void)expect_failure(&client, REASON_LIMIT, CLOSED_BY_PROXY, ENOSPC);
    world_close(&world);
}

/* The socket kept for the server leg is of the usual family; for a server of another one it is
 * closed first, which makes room, and the right one opened. If that fails, the next server has its
 * turn. */
Test(connect, opens_a_socket_of_the_servers_family)
{
    for (int failing = 0; failing < 2; failing++) {
        const struct call_note *spare;
        struct leg client;
        size_t i = 0;

        world_init(&world, SPLICE_AUTO);
        (void)world_add_unix(&world, 10);
        (void)world_add_tcp(&world);
        world_open(&world);
        client = world_connect(&world);
        if (failing == 1) {
            fault_fail(CALL_SOCKET, ANY_FD, 2, 1, EMFILE);
        }
        WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) >= 1);
        while (fault_note(i)->call != CALL_SOCKET) {
            i++;
        }
        spare = fault_note(i);
        while (fault_note(i)->call != CALL_CLOSE || fault_note(i)->fd != spare->result) {
            i++;
        }
        cr_assert(fault_note(i + 1)->call == CALL_SOCKET, "first make room, then open");
        expect_success(&client, (size_t)failing);
    }
}

/* --- meeting oneself --- */

/* A loopback connect whose local port is the very port it connects to succeeds against itself. Here
 * it is made to happen, by binding the source to the server's address; it counts as refused. */
Test(connect, takes_a_connection_to_itself_for_refused)
{
    static struct addr source;
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_refusing(&world);
    source = world.targets[0].addr;
    (void)close(world.upstream[0]); /* the port must be free to be met */
    world.upstream[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    world.settings.source = &source;
    world_open(&world);
    client = world_connect(&world);
    (void)expect_failure(&client, REASON_CONNECT_REFUSED, CLOSED_BY_SERVER, ECONNREFUSED);
    cr_assert(fault_count_good(CALL_LOCAL_ADDRESS, ANY_FD) >= 1, "the kernel did not connect it");
    world_close(&world);
}

/* The wildcard as a target means loopback, so that can be met, too. */
Test(connect, takes_a_connection_to_itself_by_the_wildcard_for_refused)
{
    static struct addr source;
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_refusing(&world);
    source = world.targets[0].addr;
    (void)close(world.upstream[0]);
    world.upstream[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    world.targets[0].addr = addr_any(AF_INET, addr_port(&source));
    world.settings.source = &source;
    world_open(&world);
    client = world_connect(&world);
    (void)expect_failure(&client, REASON_CONNECT_REFUSED, CLOSED_BY_SERVER, ECONNREFUSED);
    cr_assert(fault_count_good(CALL_LOCAL_ADDRESS, ANY_FD) >= 1, "the kernel did not connect it");
    world_close(&world);
}

/* The local address can't be had: whether it is a connection to itself is then not known, so it
 * counts as a failed attempt, and the next server is tried. */
Test(connect, does_not_use_a_connection_whose_address_it_can_not_learn)
{
    struct leg client;

    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    (void)world_add_tcp(&world);
    world_open(&world);
    client = world_connect(&world);
    fault_fail(CALL_LOCAL_ADDRESS, ANY_FD, 1, 1, ENOBUFS);
    expect_success(&client, 1);
}

/* --- servers that break at once --- */

/* A server that accepts and resets before sluice has looked was reached: what it said meanwhile was
 * received before the reset, so it is delivered, and then the reset; whether it said anything or
 * not, and whether FIN came in between or not. */
Test(connect, delivers_what_a_server_said_that_resets_at_once)
{
    for (int i = 0; i < 4; i++) {
        size_t len = i < 2 ? 0 : 500;
        struct leg client;
        struct leg server;

        world_init(&world, SPLICE_AUTO);
        (void)world_add_tcp(&world);
        world_open(&world);
        client = world_connect(&world);
        WORLD_UNTIL(&world, fault_count(CALL_CONNECT, ANY_FD) == 1);
        cr_assert(world_session(&world)->phase == SESSION_CONNECTING);
        server = (struct leg){.send_key = client.receive_key, .receive_key = client.send_key};
        server.fd = accept4(world.upstream[0], NULL, NULL, SOCK_CLOEXEC);
        cr_assert(server.fd >= 0);
        cr_assert(leg_try_send(&server, len) == len);
        if (i % 2 == 1) {
            leg_shut(&server);
        }
        leg_reset(&server);
        (void)world_expect_end(&world, REASON_SERVER_RESET, CLOSED_BY_SERVER,
                               i % 2 == 1 ? EPIPE : ECONNRESET);
        WORLD_UNTIL(&world, (leg_try_read(&client, 1000), client.end != LEG_OPEN));
        cr_assert(client.received == len);
        /* FIN came before the reset: seeing it first, or only the reset, are both the truth. */
        cr_assert(client.end == LEG_RESET || i % 2 == 1);
        cr_assert(world.records[0].connect_ns != RECORD_NO_TIME);
        cr_assert(world.records[0].bytes_down == len);
        leg_close(&client);
        world_close(&world);
    }
}
