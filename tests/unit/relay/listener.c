/* Tests of accepting: batches, what is got before a client is accepted, errors of every kind,
 * pauses and what ends them, draining. See support/unit/world.h. */
#include "relay/listener.h"

#include "base/macros.h"
#include "net/sock.h"
#include "support/unit/fault.h"
#include "support/unit/world.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 200 };

static struct world world;
static struct leg clients[CLIENTS_MAX];
static struct leg servers[CLIENTS_MAX];

static void open_world(size_t sessions_max)
{
    world_init(&world, SPLICE_AUTO);
    (void)world_add_tcp(&world);
    world.settings.sessions_max = sessions_max;
    world_open(&world);
}

static void connect_clients(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        clients[i] = world_connect(&world);
    }
}

/* Client number i is served: bytes both ways, and a clean end. */
static void expect_service(size_t i)
{
    servers[i] = world_accept(&world, 0, &clients[i]);
    world_converse(&world, &clients[i], &servers[i], 100);
}

/* Moves the clock to behind the next try. */
static void wait_for_retry(void)
{
    fault_clock_advance(150 * NS_PER_MS);
    world_idle(&world, 2);
}

/* --- accepting --- */

/* One event, many connections: all are accepted, some in each turn, so that the established ones do
 * not wait for the whole queue. */
Test(listener, accepts_a_long_queue_in_batches)
{
    size_t accepted = 0;

    open_world(CLIENTS_MAX);
    connect_clients(CLIENTS_MAX);
    while (accepted < CLIENTS_MAX) {
        size_t before = accepted;

        world_turn(&world);
        accepted = metric_get(&world.metrics.accepted);
        cr_assert(accepted > before, "stuck after %zu", accepted);
        cr_assert(accepted - before <= 64, "%zu in one turn", accepted - before);
        if (accepted < CLIENTS_MAX) {
            world_turn(&world);
            cr_assert(fault_last(CALL_EPOLL_WAIT, ANY_FD)->len == 0, "it waits with work to do");
            accepted = metric_get(&world.metrics.accepted);
        }
    }
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        expect_service(i);
    }
    world_wait_records(&world, CLIENTS_MAX);
    world_close(&world);
}

/* The second socket and the record are there before the client is accepted, and are kept for the
 * next one if nobody waits: a connection costs one socket(2), made beforehand. */
Test(listener, gets_all_that_a_client_needs_before_it_accepts_it)
{
    open_world(4);
    for (size_t i = 0; i < 4; i++) {
        cr_assert((world.relay.spare_fd >= 0) == (i > 0));
        cr_assert((world.relay.spare_session != NULL) == (i > 0));
        fault_clear();
        clients[i] = world_connect(&world);
        WORLD_UNTIL(&world, fault_count_good(CALL_ACCEPT, ANY_FD) == 1);
        world_turn(&world);
        cr_assert(fault_count(CALL_SOCKET, ANY_FD) == (i == 0 ? 2 : 1));
        expect_service(i);
    }
    world_wait_records(&world, 4);
    world_close(&world);
}

/* Accepting costs no setsockopt(2): the options are inherited from the listening socket. */
Test(listener, sets_no_option_on_an_accepted_socket)
{
    int client_fd;

    open_world(4);
    clients[0] = world_connect(&world);
    servers[0] = world_accept(&world, 0, &clients[0]);
    client_fd = world_session(&world)->client.fd;
    cr_assert(fault_count(CALL_SET_OPTION, client_fd) == 0);
    world_converse(&world, &clients[0], &servers[0], 10);
    world_wait_records(&world, 1);
    world_close(&world);
}

/* --- errors --- */

/* Errors of a connection that is gone again (accept(2)) do not touch the next one in the queue,
 * which has no event of its own: it is served in the same turn, and the error is counted. */
Test(listener, goes_on_after_an_error_of_one_connection)
{
    static const int errors[] = {ECONNABORTED, EPERM,       EPROTO,    ENOPROTOOPT,
                                 ENETDOWN,     EHOSTDOWN,   ENONET,    EHOSTUNREACH,
                                 EOPNOTSUPP,   ENETUNREACH, ETIMEDOUT, EINTR};

    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        open_world(4);
        fault_fail(CALL_ACCEPT, ANY_FD, 1, 3, errors[i]);
        clients[0] = world_connect(&world);
        WORLD_UNTIL(&world, fault_count(CALL_ACCEPT, ANY_FD) > 0);
        cr_assert(metric_get(&world.metrics.accepted) == 1, "%s", strerror(errors[i]));
        cr_assert(metric_get(&world.metrics.accept_errors) == 3);
        cr_assert(world.pauses == 0);
        expect_service(0);
        world_wait_records(&world, 1);
        world_close(&world);
    }
}

/* A shortage pauses the listener without another event to come. The timer resumes it, as often as
 * it takes, without spinning; the client in the queue has lost nothing but time. */
Test(listener, comes_back_by_timer_after_a_shortage)
{
    static const struct {
        enum call call;
        int error;
    } cases[] = {
        {CALL_ACCEPT, EMFILE},  {CALL_ACCEPT, ENFILE},  {CALL_ACCEPT, ENOMEM},
        {CALL_ACCEPT, ENOBUFS}, {CALL_SOCKET, EMFILE},  {CALL_SOCKET, ENFILE},
        {CALL_SOCKET, ENOMEM},  {CALL_SOCKET, ENOBUFS}, {CALL_SET_OPTION, ENOMEM},
        {CALL_ACCEPT, EBADF},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool before_accept = cases[i].call != CALL_ACCEPT;

        cr_log_info("%s %s", call_name(cases[i].call), strerror(cases[i].error));
        open_world(4);
        fault_fail(cases[i].call, ANY_FD, 1, ALWAYS, cases[i].error);
        clients[0] = world_connect(&world);
        cr_assert(leg_try_send(&clients[0], 50) == 50);
        WORLD_UNTIL(&world, world.pauses == 1);
        cr_assert(world.pause_error == cases[i].error);
        world_idle(&world, 10);
        cr_assert(world.pauses == 1, "it spins");
        for (size_t pauses = 2; pauses <= 4; pauses++) {
            wait_for_retry();
            cr_assert(world.pauses == pauses);
        }
        cr_assert(metric_get(&world.metrics.accept_errors) == 4);
        cr_assert(!before_accept || fault_count(CALL_ACCEPT, ANY_FD) == 0,
                  "a client was accepted that can't be served");
        fault_disarm();
        wait_for_retry();
        servers[0] = world_accept(&world, 0, &clients[0]);
        leg_expect(&world, &servers[0], 50);
        world_converse(&world, &clients[0], &servers[0], 100);
        world_wait_records(&world, 1);
        world_close(&world);
    }
}

/* The spare socket that another listener has left may be of the wrong family. It is changed before a
 * client is accepted: afterwards a shortage could only be passed on to that client, as a reset. */
Test(listener, changes_a_spare_socket_of_another_family_before_it_accepts)
{
    world_init(&world, SPLICE_AUTO);
    (void)world_add_unix(&world, 16);
    world_open(&world);
    world.listener.family = AF_UNIX;
    world.relay.spare_fd = sock_new(AF_INET, NULL);
    world.relay.spare_family = AF_INET;
    cr_assert(world.relay.spare_fd >= 0);

    fault_fail(CALL_SOCKET, ANY_FD, 1, ALWAYS, EMFILE);
    clients[0] = world_connect(&world);
    WORLD_UNTIL(&world, world.pauses == 1 || world.records_len == 1);
    cr_assert(world.records_len == 0, "a client was accepted that can't be served");
    cr_assert(world.pauses == 1 && world.pause_error == EMFILE);
    fault_disarm();
    wait_for_retry();
    expect_service(0);
    world_wait_records(&world, 1);
    world_close(&world);
}

/* An error that says "this connection is gone" every time is not about connections: a security
 * module refuses the call. The listener pauses and tries again by timer, instead of spinning. */
Test(listener, does_not_spin_when_every_accept_is_refused)
{
    size_t tries;

    open_world(4);
    fault_fail(CALL_ACCEPT, ANY_FD, 1, ALWAYS, EPERM);
    clients[0] = world_connect(&world);
    WORLD_UNTIL(&world, world.pauses == 1);
    tries = fault_count(CALL_ACCEPT, ANY_FD);
    cr_assert(tries <= 64);
    world_idle(&world, 10);
    cr_assert(fault_count(CALL_ACCEPT, ANY_FD) == tries);
    wait_for_retry();
    cr_assert(fault_count(CALL_ACCEPT, ANY_FD) == 2 * tries);
    fault_disarm();
    wait_for_retry();
    expect_service(0);
    world_wait_records(&world, 1);
    world_close(&world);
}

/* No socket for the server leg, for a reason that is no shortage: that is no reason to pause. Each
 * client is accepted and told by its record. */
Test(listener, does_not_pause_when_only_the_server_can_not_be_reached)
{
    open_world(4);
    fault_fail(CALL_SOCKET, ANY_FD, 1, ALWAYS, EAFNOSUPPORT);
    for (size_t i = 0; i < 3; i++) {
        clients[i] = world_connect(&world);
        world_wait_records(&world, i + 1);
        cr_assert(world.records[i].reason == REASON_CONNECT_UNREACHABLE);
        cr_assert(world.records[i].error == EAFNOSUPPORT);
        leg_expect_end(&world, &clients[i], LEG_RESET);
        leg_close(&clients[i]);
    }
    cr_assert(world.pauses == 0);
    cr_assert(metric_get(&world.metrics.accept_errors) == 0);
    world_close(&world);
}

/* A session that ends gives back what was short: that resumes the listener at once, not the
 * timer. */
Test(listener, comes_back_when_a_session_has_ended)
{
    open_world(4);
    clients[0] = world_connect(&world);
    servers[0] = world_accept(&world, 0, &clients[0]);
    fault_fail(CALL_ACCEPT, ANY_FD, 1, 1, EMFILE);
    clients[1] = world_connect(&world);
    WORLD_UNTIL(&world, world.pauses == 1);
    world_converse(&world, &clients[0], &servers[0], 10);
    WORLD_UNTIL(&world, metric_get(&world.metrics.accepted) == 2);
    cr_assert(!timer_is_set(&world.listener.retry));
    expect_service(1);
    world_wait_records(&world, 2);
    world_close(&world);
}

/* No room in epoll for an accepted client: it is refused by a reset, with one record that names the
 * limit, and the next client is served. */
Test(listener, records_a_client_for_which_epoll_has_no_room)
{
    static const int errors[] = {ENOSPC, ENOMEM};

    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        open_world(4);
        fault_fail(CALL_EPOLL_ADD, ANY_FD, 1, 1, errors[i]);
        clients[0] = world_connect(&world);
        (void)world_expect_end(&world, REASON_LIMIT, CLOSED_BY_PROXY, errors[i]);
        cr_assert(world.records[0].server == NULL);
        leg_expect_end(&world, &clients[0], LEG_RESET);
        leg_close(&clients[0]);
        clients[1] = world_connect(&world);
        expect_service(1);
        world_wait_records(&world, 2);
        world_close(&world);
    }
}

/* --- limits --- */

/* At max-connections new clients wait in the kernel's queue, unaccepted; the established ones go
 * on; with each end the next one is served, in order. The pause is told, with error 0. */
Test(listener, lets_clients_wait_at_the_limit)
{
    enum { MAX = 2, COUNT = 6 };

    open_world(MAX);
    connect_clients(COUNT);
    WORLD_UNTIL(&world, world.pauses == 1);
    cr_assert(world.pause_error == 0);
    for (size_t i = 0; i < COUNT; i++) {
        world_idle(&world, 3);
        cr_assert(world.relay.live_count == (COUNT - i < MAX ? COUNT - i : MAX));
        cr_assert(!timer_is_set(&world.listener.retry), "only an end can help");
        expect_service(i);
        world_wait_records(&world, i + 1);
    }
    cr_assert(metric_get(&world.metrics.accept_errors) == 0);
    world_close(&world);
}

/* A queue of clients that all fail at once, at a limit of one session: each has its turn and its
 * record, and nothing was short. */
Test(listener, meets_no_shortage_when_many_sessions_end_at_once)
{
    enum { COUNT = 20 };

    world_init(&world, SPLICE_AUTO);
    world.settings.sessions_max = 1;
    world_open(&world); /* no server at all */
    connect_clients(COUNT);
    world_wait_records(&world, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        cr_assert(world.records[i].reason == REASON_NO_SERVER);
        leg_expect_end(&world, &clients[i], LEG_RESET);
        leg_close(&clients[i]);
    }
    cr_assert(metric_get(&world.metrics.accept_errors) == 0, "paused for errno %d",
              world.pause_error);
    world_close(&world);
}

/* --- several listeners --- */

static int listen_again(struct addr *ret_address)
{
    struct addr address = world.address;
    int fd;

    addr_set_port(&address, 0);
    fd = sock_listen_tcp(&address, &world.settings.tuning, true);
    cr_assert(fd >= 0);
    address.len = sizeof(address.u);
    cr_assert(getsockname(fd, &address.u.any, &address.len) == 0);
    *ret_address = address;
    return fd;
}

/* Two listeners share the limit: both pause, and the end of one session lets both try again;
 * whoever has a client in its queue gets the place. */
Test(listener, resumes_all_that_have_paused)
{
    struct listener second;
    struct addr first_address;

    open_world(1);
    first_address = world.address;
    second = world.listener;
    cr_assert(listener_start(&second, &world.relay, listen_again(&world.address)) == 0);
    clients[1] = world_connect(&world); /* to the second */
    world.address = first_address;
    servers[1] = world_accept(&world, 0, &clients[1]);
    clients[0] = world_connect(&world); /* to the first */
    WORLD_UNTIL(&world, world.listener.paused);
    world_converse(&world, &clients[1], &servers[1], 10);
    expect_service(0);
    world_wait_records(&world, 2);
    listener_close(&second);
    world_close(&world);
}

/* A listener on the wildcard has clients at many addresses of ours: the record says which one it was,
 * as it does for a listener on one address. */
Test(listener, knows_at_which_address_a_client_came)
{
    struct addr any = addr_any(AF_INET, 0);
    struct listener second;

    open_world(1);
    second = world.listener;
    cr_assert(listener_start(&second, &world.relay,
                             sock_listen_tcp(&any, &world.settings.tuning, true)) == 0);
    for (size_t i = 0; i < 3; i++) {
        struct addr first = world.address;
        struct addr address = first;

        if (i > 0) { /* 127.0.0.1 and 127.0.0.2 by the second listener */
            address.len = sizeof(address.u);
            cr_assert(getsockname(second.io.fd, &address.u.any, &address.len) == 0);
            address.u.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)i - 1);
        }
        world.address = address;
        clients[0] = world_connect(&world);
        world.address = first;
        expect_service(0);
        world_wait_records(&world, i + 1);
        cr_assert(addr_equal(&world.records[i].client_local, &address));
    }
    listener_close(&second);
    world_close(&world);
}

/* A listener on a unix socket serves its clients the same way; the record has no address and no RTT
 * of theirs, only the family. */
Test(listener, serves_clients_of_a_unix_socket)
{
    struct listener second;
    struct addr address = {0};

    open_world(2);
    address.u.local.sun_family = AF_UNIX;
    address.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                              (size_t)sprintf(address.u.local.sun_path + 1, "sluice-front-%ld",
                                              (long)getpid()));
    second = world.listener;
    cr_assert(listener_start(&second, &world.relay, sock_listen_unix(&address)) == 0);
    clients[0] = (struct leg){.send_key = 1, .receive_key = 2};
    clients[0].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert(connect(clients[0].fd, &address.u.any, address.len) == 0);
    expect_service(0);
    world_wait_records(&world, 1);
    cr_assert(world.records[0].client.family == AF_UNIX);
    cr_assert(world.records[0].rtt_us == 0);
    cr_assert(world.records[0].bytes_up == 100 && world.records[0].bytes_down == 100);
    listener_close(&second);
    world_close(&world);
}

/* --- start and end --- */

/* A listener that can't be registered closes its socket and is not in the relay's list. */
Test(listener, owns_its_socket_even_if_it_can_not_start)
{
    struct listener second;
    struct addr address;
    int fd;

    open_world(1);
    second = world.listener;
    fd = listen_again(&address);
    fault_fail(CALL_EPOLL_ADD, fd, 1, 1, ENOSPC);
    cr_assert(listener_start(&second, &world.relay, fd) == -ENOSPC);
    cr_assert(fault_count(CALL_CLOSE, fd) == 1);
    cr_assert(world.relay.listeners.next == &world.listener.node);
    cr_assert(world.relay.listeners.prev == &world.listener.node);
    world_close(&world);
}

/* Draining takes in those who wait, ends the registration before the socket is closed (others hold
 * it too), and accepts nobody any more; those taken in are served. Closing after that is
 * allowed. */
Test(listener, drains_its_queue_before_it_closes)
{
    enum { COUNT = 5 };
    int fd;

    open_world(8);
    connect_clients(COUNT);
    fd = world.listener.io.fd;
    listener_drain(&world.listener);
    cr_assert(metric_get(&world.metrics.accepted) == COUNT);
    cr_assert(fault_last(CALL_CLOSE, fd) == fault_note(fault_notes_len() - 1));
    cr_assert(fault_count(CALL_EPOLL_REMOVE, fd) == 1);
    cr_assert(world.listener.io.fd == -1);
    cr_assert(list_is_empty(&world.relay.listeners));
    listener_close(&world.listener);
    for (size_t i = 0; i < COUNT; i++) {
        expect_service(i);
    }
    world_wait_records(&world, COUNT);
    world_close(&world);
}

/* Draining is bounded: at the limit, or short of something, those who still wait are left to the
 * other holders of the socket, and no timer stays behind. */
Test(listener, drains_no_further_than_there_is_room)
{
    for (int shortage = 0; shortage < 2; shortage++) {
        open_world(3);
        connect_clients(5);
        if (shortage == 1) {
            fault_fail(CALL_ACCEPT, ANY_FD, 3, ALWAYS, EMFILE);
        }
        listener_drain(&world.listener);
        cr_assert(metric_get(&world.metrics.accepted) == (shortage == 1 ? 2 : 3));
        cr_assert(!timer_is_set(&world.listener.retry));
        fault_disarm();
        for (size_t i = 0; i < (shortage == 1 ? 2 : 3); i++) {
            expect_service(i);
        }
        for (size_t i = shortage == 1 ? 2 : 3; i < 5; i++) {
            leg_close(&clients[i]);
        }
        world_wait_records(&world, shortage == 1 ? 2 : 3);
        world_close(&world);
    }
}

/* A listener that is closed while paused, with its timer set and its task queued, is gone for good:
 * a session that ends afterwards does not wake it. */
Test(listener, stays_closed_when_a_session_ends_later)
{
    open_world(4);
    clients[0] = world_connect(&world);
    servers[0] = world_accept(&world, 0, &clients[0]);
    fault_fail(CALL_ACCEPT, ANY_FD, 1, ALWAYS, EMFILE);
    clients[1] = world_connect(&world);
    WORLD_UNTIL(&world, world.pauses == 1);
    loop_queue(&world.loop, &world.listener.task);
    listener_close(&world.listener);
    fault_clear();
    world_converse(&world, &clients[0], &servers[0], 10);
    world_wait_records(&world, 1);
    wait_for_retry();
    cr_assert(fault_count(CALL_ACCEPT, ANY_FD) == 0);
    leg_close(&clients[1]);
    world_close(&world);
}
