/* Tests of the short read: a TCP socket that gave less than was asked for is empty and is not asked
 * again, but where something else may have ended the read, it is. Here the flow is stepped without the
 * checks of lane_step(), which make up for edges that are late: the bits are those of one event, and
 * nothing comes after it. Descriptors in a unix stream are in corners.c. */
#include "base/macros.h"
#include "net/sock.h"
#include "support/stream.h"
#include "support/unit/fault.h"
#include "support/unit/lane.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/tcp.h> /* tcpi_segs_in, which libc does not know */
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LEN = 100, STEPS_MAX = 100 };

static const enum splice_mode modes[] = {SPLICE_NEVER, SPLICE_ALWAYS, SPLICE_AUTO};

static void open_lane(struct lane *lane, enum lane_kind kind, enum splice_mode mode)
{
    lane_init(lane, kind, mode);
    lane->source.is_tcp = kind == LANE_TCP;
}

static void step_to_rest(struct lane *lane)
{
    enum flow_outcome outcome = FLOW_HAS_MORE;

    for (int steps = 0; outcome == FLOW_HAS_MORE; steps++) {
        cr_assert(steps < STEPS_MAX);
        outcome = flow_step(&lane->flow, &lane->source, &lane->target, &lane->supplies);
    }
    cr_assert(outcome == FLOW_RESTS);
}

static void wait_for_queue(const struct lane *lane, int len)
{
    int bytes = 0;

    for (int waits = 0; bytes < len; waits++) {
        cr_assert(waits < 10000, "loopback delivers at once, unless the machine is busy");
        cr_assert(ioctl(lane->source.fd, FIONREAD, &bytes) == 0);
        (void)usleep(1000);
    }
}

/* A message takes one call to read from a TCP socket, and two from a unix socket, where a short read
 * says nothing; and then the next message, with its own event. */
Test(flow, asks_a_tcp_socket_only_once_for_a_message)
{
    for (size_t i = 0; i < LANE_KINDS; i++) {
        size_t calls = i == LANE_TCP ? 1 : 2;
        struct lane lane;

        open_lane(&lane, (enum lane_kind)i, SPLICE_AUTO);
        for (size_t round = 1; round <= 5; round++) {
            lane_write_all(&lane, LEN);
            step_to_rest(&lane);
            cr_assert((lane.source.ready & IO_READABLE) == 0);
            cr_assert(fault_count(CALL_RECV, lane.source.fd) == round * calls);
            lane_await(&lane, round * LEN);
        }
        lane_shut(&lane);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* Bytes and an end, FIN or reset, told by one event: the bytes are a short read, and the end, which
 * no event tells again, is found all the same. */
Test(flow, reads_on_to_the_end_behind_a_short_read)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * 2; i++) {
        bool reset = i % 2 == 1;
        struct lane lane;

        open_lane(&lane, LANE_TCP, modes[i / 2]);
        lane_write_all(&lane, LEN);
        wait_for_queue(&lane, LEN);
        if (reset) {
            lane_reset_writer(&lane);
        } else {
            struct pollfd poll_fd = {.fd = lane.source.fd, .events = POLLRDHUP};

            lane_shut(&lane);
            cr_assert(poll(&poll_fd, 1, 10000) == 1);
        }
        lane.source.ready |= IO_READABLE | IO_ENDING; /* EPOLLIN | EPOLLRDHUP */
        step_to_rest(&lane);
        cr_assert(lane.flow.state == (reset ? FLOW_FAILED : FLOW_FINISHED), "the end was not read");
        cr_assert(lane.source.error == (reset ? ECONNRESET : 0));
        lane_await(&lane, LEN);
        lane_fini(&lane);
    }
}

static void send_and_shut(struct lane *lane)
{
    struct pollfd poll_fd = {.fd = lane->source.fd, .events = POLLRDHUP};

    lane_write_all(lane, LEN);
    wait_for_queue(lane, LEN);
    lane_shut(lane);
    cr_assert(poll(&poll_fd, 1, 10000) == 1);
}

static uint32_t segments_received(int fd)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    cr_assert(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
    return info.tcpi_segs_in;
}

/* Bytes and a FIN, told by one event: the FIN is read before the bytes are sent, and goes on with them in
 * one segment. On a unix socket nobody sees the difference. */
Test(flow, passes_on_a_fin_in_the_segment_of_the_bytes_before_it)
{
    static const enum splice_mode copying[] = {SPLICE_NEVER, SPLICE_AUTO};

    for (size_t i = 0; i < ARRAY_LEN(copying) * LANE_KINDS; i++) {
        struct pollfd reader = {.events = POLLRDHUP};
        uint32_t before = 0;
        struct lane lane;

        open_lane(&lane, (enum lane_kind)(i % LANE_KINDS), copying[i / LANE_KINDS]);
        reader.fd = lane.reader;
        send_and_shut(&lane);
        before = lane.kind == LANE_TCP ? segments_received(lane.reader) : 0;
        lane.source.ready |= IO_READABLE | IO_ENDING; /* EPOLLIN | EPOLLRDHUP */
        step_to_rest(&lane);
        cr_assert(lane.flow.state == FLOW_FINISHED);
        cr_assert(fault_count(CALL_RECV, lane.source.fd) == 2);
        cr_assert(poll(&reader, 1, 10000) == 1);
        cr_assert(lane.kind == LANE_UNIX || segments_received(lane.reader) == before + 1,
                  "%u segments", segments_received(lane.reader) - before);
        lane_await(&lane, LEN);
        lane_fini(&lane);
    }
}

/* What the second read finds need not be the end: bytes behind an urgent one, nothing, or a shortage.
 * The bytes before it go on, and the end is found later. */
Test(flow, goes_on_when_the_end_that_was_told_is_not_next)
{
    static const int errors[] = {EAGAIN, ENOMEM, ENOBUFS};

    for (size_t i = 0; i <= ARRAY_LEN(errors); i++) {
        struct lane lane;

        open_lane(&lane, LANE_TCP, SPLICE_NEVER);
        if (i < ARRAY_LEN(errors)) {
            fault_fail(CALL_RECV, lane.source.fd, 2, 1, errors[i]);
        } else {
            fault_shorten(CALL_RECV, lane.source.fd, 1, 2, LEN / 4);
        }
        send_and_shut(&lane);
        lane.source.ready |= IO_READABLE | IO_ENDING;
        step_to_rest(&lane);
        lane.source.ready |= IO_READABLE; /* the edge that makes EAGAIN true */
        step_to_rest(&lane);
        cr_assert(lane.flow.state == FLOW_FINISHED, "row %zu", i);
        lane_await(&lane, LEN);
        lane_fini(&lane);
    }
}

/* A target without room for all of the last bytes gets the rest later, and the FIN behind it. */
Test(flow, sends_the_rest_of_the_last_bytes_before_the_fin)
{
    struct lane lane;

    open_lane(&lane, LANE_TCP, SPLICE_NEVER);
    fault_shorten(CALL_SEND, lane.target.fd, 1, 3, 7);
    send_and_shut(&lane);
    lane.source.ready |= IO_READABLE | IO_ENDING;
    step_to_rest(&lane);
    cr_assert(lane.flow.state == FLOW_FINISHED);
    cr_assert(fault_count(CALL_SEND, lane.target.fd) == 4);
    lane_await(&lane, LEN);
    lane_fini(&lane);
}

/* The same when it was the other direction that met the error, by a send, before any event has told:
 * the error is noted, the socket's own is gone, and what it still has is read up to its end. */
Test(flow, reads_on_to_the_end_after_an_error_that_a_send_has_met)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;

        open_lane(&lane, LANE_TCP, modes[i]);
        lane_write_all(&lane, LEN);
        wait_for_queue(&lane, LEN);
        lane_reset_writer(&lane);
        io_set_error(&lane.source, sock_take_error(lane.source.fd));
        cr_assert(lane.source.error == ECONNRESET);
        step_to_rest(&lane);
        cr_assert(lane.flow.state == FLOW_FAILED, "the end was not read");
        lane_await(&lane, LEN);
        lane_fini(&lane);
    }
}

/* A read stops before an urgent byte, whatever is behind it; one event tells of all that. */
Test(flow, reads_on_behind_a_short_read_that_an_urgent_byte_has_ended)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        unsigned char byte;
        struct lane lane;

        open_lane(&lane, LANE_TCP, modes[i]);
        lane_write_all(&lane, LEN);
        stream_fill(lane.key, lane.written, &byte, 1);
        cr_assert(send(lane.writer, &byte, 1, MSG_OOB) == 1);
        lane.written++;
        lane_write_all(&lane, LEN);
        wait_for_queue(&lane, 2 * LEN + 1);
        lane.source.ready |= IO_READABLE | IO_URGENT; /* EPOLLIN | EPOLLPRI */
        step_to_rest(&lane);
        cr_assert(lane.flow.bytes_in == 2 * LEN + 1, "%d bytes", (int)lane.flow.bytes_in);
        lane_await(&lane, 2 * LEN + 1);
        lane_fini(&lane);
    }
}
