/* Tests of the lost-wake-up detector: each kind of lost wake-up is made by hand, and must be seen;
 * an edge that is only on its way must not. Every other test in a debug build runs under the
 * detector as well. */
#include "relay/audit.h"

#include "base/clock.h"
#include "support/unit/fault.h"
#include "support/unit/world.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#ifdef SLUICE_DEBUG
enum { CHECKS_ARE_OFF = 0 };
#else
enum { CHECKS_ARE_OFF = 1 };
#endif

enum { SUSPICIOUS_TURNS = 1200, LEN = 1000 };

static struct world world;
static struct leg client;
static struct leg server;

static void open_pair(enum splice_mode mode)
{
    world_init(&world, mode);
    (void)world_add_tcp(&world);
    world_open(&world);
    world_pair(&world, &client, &server);
    world_idle(&world, 3);
}

/* Takes the edges that wait in epoll's list, as nobody should. */
static void swallow_edges(void)
{
    struct epoll_event events[16];
    struct pollfd poll_fd = {.fd = world.loop.epoll_fd, .events = POLLIN};

    cr_assert(poll(&poll_fd, 1, 10000) == 1, "no edge has come");
    cr_assert(epoll_wait(world.loop.epoll_fd, events, 16, 0) > 0);
}

/* More turns, and more time, than any edge is under way. */
static void turn_for_long(void)
{
    for (int i = 0; i < SUSPICIOUS_TURNS; i++) {
        fault_clock_advance(2 * NS_PER_MS);
        world_turn(&world);
    }
}

/* Sends until the flow holds bytes that nobody takes. */
static void stall_up(void)
{
    while (flow_held_bytes(&world_session(&world)->up) == 0 ||
           (world_session(&world)->client.ready & IO_READABLE) == 0) {
        (void)leg_try_send(&client, 256 * 1024);
        world_turn(&world);
    }
}

Test(audit, is_content_with_an_edge_that_is_on_its_way)
{
    open_pair(SPLICE_AUTO);
    cr_assert(audit_before_wait(&world.relay) == -1);
    cr_assert(leg_try_send(&client, LEN) == LEN);
    cr_assert(audit_before_wait(&world.relay) == 1, "the kernel knows more than the session");
    leg_expect(&world, &server, LEN);
    cr_assert(audit_before_wait(&world.relay) == -1);
    world_converse(&world, &client, &server, LEN);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    world_close(&world);
}

/* A stalled flow rests for any time: that is back-pressure and no lost wake-up. */
Test(audit, is_content_with_a_reader_that_does_not_read)
{
    open_pair(SPLICE_ALWAYS);
    stall_up();
    turn_for_long();
    cr_assert(audit_before_wait(&world.relay) == -1);
    leg_reset(&client);
    leg_close(&server);
    world_wait_records(&world, 1);
    world_close(&world);
}

/* B01, B04, B46: bytes wait in a socket that is taken for empty. */
Test(audit, aborts_when_the_edge_of_arrived_bytes_is_lost, .init = cr_redirect_stderr,
     .signal = SIGABRT, .disabled = CHECKS_ARE_OFF)
{
    open_pair(SPLICE_AUTO);
    cr_assert(leg_try_send(&client, LEN) == LEN);
    swallow_edges();
    turn_for_long();
}

/* B06: the same for the end of a stream. */
Test(audit, aborts_when_the_edge_of_an_end_is_lost, .init = cr_redirect_stderr, .signal = SIGABRT,
     .disabled = CHECKS_ARE_OFF)
{
    open_pair(SPLICE_AUTO);
    leg_shut(&server);
    swallow_edges();
    turn_for_long();
}

static void lose_room(enum splice_mode mode)
{
    open_pair(mode);
    stall_up();
    while (leg_try_read(&server, 1 << 20) > 0) {}
    swallow_edges();
    turn_for_long();
}

/* B05: the target has room again, and nobody was told. */
Test(audit, aborts_when_the_edge_of_new_room_is_lost_by_copy, .init = cr_redirect_stderr,
     .signal = SIGABRT, .disabled = CHECKS_ARE_OFF)
{
    lose_room(SPLICE_NEVER);
}

Test(audit, aborts_when_the_edge_of_new_room_is_lost_by_splice, .init = cr_redirect_stderr,
     .signal = SIGABRT, .disabled = CHECKS_ARE_OFF)
{
    lose_room(SPLICE_ALWAYS);
}

/* B13: something is left to do, and the session is not queued. */
Test(audit, aborts_when_work_is_left_and_nothing_queued, .init = cr_redirect_stderr,
     .signal = SIGABRT, .disabled = CHECKS_ARE_OFF)
{
    open_pair(SPLICE_AUTO);
    world_session(&world)->client.ready |= IO_READABLE;
    world_turn(&world);
}

Test(audit, aborts_when_an_error_is_left_unnoticed, .init = cr_redirect_stderr, .signal = SIGABRT,
     .disabled = CHECKS_ARE_OFF)
{
    open_pair(SPLICE_AUTO);
    world_session(&world)->server.ready |= IO_ERROR;
    world_turn(&world);
}

Test(audit, aborts_when_a_session_has_no_timer, .init = cr_redirect_stderr, .signal = SIGABRT,
     .disabled = CHECKS_ARE_OFF)
{
    open_pair(SPLICE_AUTO);
    timer_cancel(&world.loop.timers, &world_session(&world)->timer);
    world_turn(&world);
}

/* B37: the flow has lost count of what is in its pipe. */
Test(audit, aborts_when_a_pipe_holds_other_than_what_was_counted, .init = cr_redirect_stderr,
     .signal = SIGABRT, .disabled = CHECKS_ARE_OFF)
{
    char byte;

    open_pair(SPLICE_ALWAYS);
    stall_up();
    cr_assert(read(world_session(&world)->up.pipe->read_fd, &byte, 1) == 1);
    world_turn(&world);
}

/* B08: the listener sleeps while clients wait. */
Test(audit, aborts_when_the_edge_of_a_waiting_client_is_lost, .init = cr_redirect_stderr,
     .signal = SIGABRT, .disabled = CHECKS_ARE_OFF)
{
    open_pair(SPLICE_AUTO);
    (void)world_connect(&world);
    swallow_edges();
    turn_for_long();
}

/* B17, B20: nothing would ever make it go on. */
Test(audit, aborts_when_a_listener_pauses_for_ever, .init = cr_redirect_stderr, .signal = SIGABRT,
     .disabled = CHECKS_ARE_OFF)
{
    open_pair(SPLICE_AUTO);
    world.listener.paused = true;
    world_turn(&world);
}

/* A session short of memory waits for a timer, and is not taken for a forgotten one. */
Test(audit, is_content_with_a_session_that_tries_again_soon)
{
    open_pair(SPLICE_NEVER);
    fault_fail(CALL_RECV, world_session(&world)->client.fd, 1, 3, ENOMEM);
    cr_assert(leg_try_send(&client, LEN) == LEN);
    leg_expect(&world, &server, LEN);
    cr_assert(fault_fired() == 3);
    world_converse(&world, &client, &server, LEN);
    (void)world_expect_end(&world, REASON_SERVER_FIN, CLOSED_BY_CLIENT, 0);
    world_close(&world);
}
