/* The checks ask the kernel with calls of their own, past the seam, so that they neither meet the
 * faults nor show up in the notes. */
#include "support/unit/lane.h"

#include "base/macros.h"
#include "support/stream.h"
#include "support/unit/fault.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WAIT_MS = 10000, STEPS_MAX = 100000, CHUNK_BYTES = 64 * 1024, STALL_CHUNK_BYTES = 4096 };

size_t count_open_fds(void)
{
    DIR *directory = opendir("/proc/self/fd");
    size_t count = 0;

    cr_assert(directory != NULL);
    while (readdir(directory) != NULL) {
        count++;
    }
    (void)closedir(directory);
    return count;
}

/* --- socket pairs --- */

static void set_option(int fd, int level, int name, int value)
{
    cr_assert(setsockopt(fd, level, name, &value, sizeof(value)) == 0, "%s", strerror(errno));
}

static void tune(int fd)
{
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_OOBINLINE, 1);
    cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

static void open_tcp_pair(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(listener >= 0);
    cr_assert(bind(listener, (struct sockaddr *)&address, len) == 0);
    cr_assert(listen(listener, 1) == 0);
    cr_assert(getsockname(listener, (struct sockaddr *)&address, &len) == 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fds[0] >= 0);
    cr_assert(connect(fds[0], (struct sockaddr *)&address, len) == 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(fds[1] >= 0);
    (void)close(listener);
    tune(fds[0]);
    tune(fds[1]);
}

static void open_pair(enum lane_kind kind, int fds[2])
{
    if (kind == LANE_TCP) {
        open_tcp_pair(fds);
    } else {
        cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    }
}

void lane_init_pipes(struct lane *lane, enum lane_kind kind, enum splice_mode splice,
                     size_t pipes_max, int pipe_bytes)
{
    static uint64_t next_key = 1;
    int fds[2];

    memset(lane, 0, sizeof(*lane));
    bound_test_time();
    (void)signal(SIGPIPE, SIG_IGN); /* as sluice does: splice(2) knows no MSG_NOSIGNAL */
    lane->fds_before = count_open_fds();
    lane->kind = kind;
    lane->key = next_key++;
    open_pair(kind, fds);
    lane->writer = fds[0];
    io_init(&lane->source, &lane->task);
    lane->source.fd = fds[1];
    lane->source.ready = IO_READABLE | IO_WRITABLE;
    open_pair(kind, fds);
    lane->reader = fds[0];
    io_init(&lane->target, &lane->task);
    lane->target.fd = fds[1];
    lane->target.ready = IO_READABLE | IO_WRITABLE;
    lane->supplies.splice = splice;
    slab_init(&lane->supplies.buffers, FLOW_BUFFER_BYTES, LANE_BUFFERS_MAX);
    cr_assert(pipe_pool_init(&lane->supplies.pipes, pipes_max, pipe_bytes, &lane->metrics) == 0);
    flow_init(&lane->flow);
    fault_clear();
}

void lane_init(struct lane *lane, enum lane_kind kind, enum splice_mode splice)
{
    lane_init_pipes(lane, kind, splice, LANE_PIPES_MAX, PIPE_BYTES_MIN);
}

static void close_if_open(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

void lane_fini(struct lane *lane)
{
    flow_fail(&lane->flow, &lane->supplies);
    cr_assert(lane->supplies.buffers.objects_in_use == 0, "a buffer was not returned");
    cr_assert(lane->supplies.pipes.pipes_lent == 0, "a pipe was not returned");
    pipe_pool_fini(&lane->supplies.pipes);
    slab_fini(&lane->supplies.buffers);
    close_if_open(lane->writer);
    close_if_open(lane->reader);
    close_if_open(lane->source.fd);
    close_if_open(lane->target.fd);
    cr_assert(count_open_fds() == lane->fds_before, "a descriptor was left open");
}

/* --- asking the kernel --- */

static short poll_now(int fd, short events, int wait_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = events};

    cr_assert(poll(&poll_fd, 1, wait_ms) >= 0);
    return poll_fd.revents;
}

static size_t queued(int fd)
{
    int bytes = 0;

    cr_assert(ioctl(fd, FIONREAD, &bytes) == 0, "%s", strerror(errno));
    return (size_t)bytes;
}

/* --- the peers --- */

/* Bytes (and a FIN) of the writer that have not arrived at the source: of TCP when its window is
 * closed, or for a moment when the machine is busy. */
static bool is_on_its_way(const struct lane *lane)
{
    int bytes = 0;

    if (lane->kind == LANE_UNIX || lane->writer < 0) {
        return false;
    }
    cr_assert(ioctl(lane->writer, SIOCOUTQ, &bytes) == 0);
    return bytes > 0;
}

static void await_at_source(const struct lane *lane)
{
    cr_assert(poll_now(lane->source.fd, POLLIN | POLLRDHUP, WAIT_MS) != 0, "nothing arrived");
}

/* Gives the edge for what arrives of itself, after the window has opened. */
static void take_late_edges(struct lane *lane)
{
    if (lane->kind == LANE_TCP && lane->flow.state == FLOW_OPEN &&
        poll_now(lane->source.fd, POLLIN | POLLRDHUP, 0) != 0) {
        lane->source.ready |= IO_READABLE;
    }
}

size_t lane_write(struct lane *lane, size_t len)
{
    static unsigned char bytes[CHUNK_BYTES];
    size_t done = 0;

    while (done < len) {
        size_t chunk = min_size(len - done, sizeof(bytes));
        ssize_t result;

        stream_fill(lane->key, lane->written, bytes, chunk);
        result = send(lane->writer, bytes, chunk, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (result < 0) {
            cr_assert(errno == EAGAIN, "writer: %s", strerror(errno));
            break;
        }
        done += (size_t)result;
        lane->written += (uint64_t)result;
    }
    if (done > 0) {
        await_at_source(lane);
        lane->source.ready |= IO_READABLE;
    }
    return done;
}

void lane_write_all(struct lane *lane, size_t len)
{
    size_t done = lane_write(lane, len);

    cr_assert(done == len, "only %zu of %zu bytes fitted", done, len);
}

void lane_shut(struct lane *lane)
{
    cr_assert(shutdown(lane->writer, SHUT_WR) == 0);
    lane->writer_shut = true;
    await_at_source(lane);
    lane->source.ready |= IO_READABLE;
}

static void reset(int *fd, struct io *other)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(*fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    (void)close(*fd);
    *fd = -1;
    cr_assert((poll_now(other->fd, POLLHUP, WAIT_MS) & POLLHUP) != 0);
    other->ready |= IO_READABLE | IO_WRITABLE;
}

void lane_reset_writer(struct lane *lane)
{
    reset(&lane->writer, &lane->source);
}

void lane_reset_reader(struct lane *lane)
{
    reset(&lane->reader, &lane->target);
}

size_t lane_read(struct lane *lane, size_t len)
{
    static unsigned char bytes[CHUNK_BYTES];
    size_t done = 0;

    while (done < len && lane->end == LANE_NO_END && lane->reader >= 0) {
        size_t chunk = min_size(len - done, sizeof(bytes));
        ssize_t result = recv(lane->reader, bytes, chunk, MSG_DONTWAIT);
        size_t sound;

        if (result == 0) {
            lane->end = LANE_FIN;
            break;
        }
        if (result < 0 && errno == EAGAIN) {
            break;
        }
        if (result < 0) {
            cr_assert(errno == ECONNRESET, "reader: %s", strerror(errno));
            lane->end = LANE_RESET;
            break;
        }
        sound = stream_mismatch(lane->key, lane->received, bytes, (size_t)result);
        cr_assert(sound == (size_t)result, "wrong byte at %" PRIu64, lane->received + sound);
        done += (size_t)result;
        lane->received += (uint64_t)result;
    }
    if (done > 0) {
        lane->target.ready |= IO_WRITABLE;
    }
    return done;
}

size_t lane_read_all(struct lane *lane)
{
    return lane_read(lane, SIZE_MAX);
}

void lane_await(struct lane *lane, uint64_t total)
{
    while (lane->received < total) {
        cr_assert(poll_now(lane->reader, POLLIN, WAIT_MS) != 0,
                  "only %" PRIu64 " of %" PRIu64 " bytes came", lane->received, total);
        cr_assert(lane->end == LANE_NO_END);
        (void)lane_read_all(lane);
    }
}

/* --- the step and its oracles --- */

static bool was_lied_to(size_t notes_before, enum call copy, enum call splice)
{
    for (size_t i = notes_before; i < fault_notes_len(); i++) {
        const struct call_note *note = fault_note(i);

        if (note->injected && note->result == -EAGAIN &&
            (note->call == copy || note->call == splice)) {
            return true;
        }
    }
    return false;
}

/* Where the kernel's queues are exact, nothing may be missing between two ends of a chain. */
static void check_conservation(const struct lane *lane)
{
    const struct flow *flow = &lane->flow;

    cr_assert(flow_bytes_out(flow) + flow_held_bytes(flow) == flow->bytes_in);
    cr_assert(flow->bytes_spliced <= flow_bytes_out(flow));
    if (flow->pipe != NULL) {
        cr_assert(queued(flow->pipe->read_fd) == flow->pipe_bytes,
                  "the pipe's bytes are miscounted");
    }
    if (lane->source.error == 0 && lane->writer >= 0) {
        cr_assert(flow->bytes_in + queued(lane->source.fd) == lane->written || is_on_its_way(lane),
                  "taken: %" PRIu64 ", queued: %zu, written: %" PRIu64, flow->bytes_in,
                  queued(lane->source.fd), lane->written);
    }
    if (lane->kind == LANE_UNIX && lane->reader >= 0) {
        cr_assert(lane->received + queued(lane->reader) == flow_bytes_out(flow));
    }
}

static void check_borrowed(const struct lane *lane)
{
    const struct flow *flow = &lane->flow;
    bool over = flow->state == FLOW_FAILED; /* its counters then say what was dropped */

    cr_assert((flow->pipe != NULL) == (!over && flow->pipe_bytes > 0));
    cr_assert((flow->buffer != NULL) == (!over && flow->buffer_end > flow->buffer_start));
    cr_assert(lane->supplies.pipes.pipes_lent == (flow->pipe != NULL));
    cr_assert(lane->supplies.buffers.objects_in_use == (flow->buffer != NULL));
}

/* A cleared bit that the kernel would still report is an edge lost for ever. */
static void check_no_lost_wakeup(const struct lane *lane, size_t notes_before, bool was_on_its_way)
{
    const struct flow *flow = &lane->flow;
    if (flow->state == FLOW_OPEN && (lane->source.ready & IO_READABLE) == 0 && !was_on_its_way &&
        !was_lied_to(notes_before, CALL_RECV, CALL_SPLICE_IN)) {
        cr_assert(poll_now(lane->source.fd, POLLIN | POLLRDHUP, 0) == 0, "the source is readable");
    }
    if (lane->kind == LANE_UNIX && flow_held_bytes(flow) > 0 && !flow_is_over(flow) &&
        (lane->target.ready & IO_WRITABLE) == 0 &&
        !was_lied_to(notes_before, CALL_SEND, CALL_SPLICE_OUT)) {
        cr_assert(poll_now(lane->target.fd, POLLOUT, 0) == 0, "the target is writable");
    }
}

static void check_fin(struct lane *lane, size_t notes_before)
{
    for (size_t i = notes_before; i < fault_notes_len(); i++) {
        const struct call_note *note = fault_note(i);

        if (note->call == CALL_SHUTDOWN_WRITE && note->result >= 0) {
            lane->shutdowns++;
        } else if (note->call == CALL_SEND || note->call == CALL_SPLICE_OUT) {
            cr_assert(lane->shutdowns == 0, "bytes after FIN");
        }
    }
    cr_assert(lane->shutdowns == (lane->flow.state == FLOW_FINISHED), "%u times FIN in state %u",
              lane->shutdowns, lane->flow.state);
    if (lane->shutdowns > 0) {
        cr_assert(flow_held_bytes(&lane->flow) == 0, "FIN overtook bytes");
        cr_assert(lane->flow.bytes_in == lane->written, "FIN before the last byte");
    }
}

enum flow_outcome lane_step(struct lane *lane)
{
    size_t notes_before = fault_notes_len();
    bool was_on_its_way = is_on_its_way(lane);
    enum flow_outcome outcome;
    bool may_rest;

    take_late_edges(lane);
    outcome = flow_step(&lane->flow, &lane->source, &lane->target, &lane->supplies);
    may_rest = flow_may_rest(&lane->flow, &lane->source, &lane->target);
    cr_assert((outcome == FLOW_RESTS) == may_rest, "outcome %d, but it may%s rest", outcome,
              may_rest ? "" : " not");
    check_conservation(lane);
    check_borrowed(lane);
    check_no_lost_wakeup(lane, notes_before, was_on_its_way);
    check_fin(lane, notes_before);
    if (was_lied_to(notes_before, CALL_RECV, CALL_SPLICE_IN)) {
        lane->source.ready |= IO_READABLE;
    }
    if (was_lied_to(notes_before, CALL_SEND, CALL_SPLICE_OUT)) {
        lane->target.ready |= IO_WRITABLE;
    }
    lane->outcome = outcome;
    return outcome;
}

enum flow_outcome lane_pump(struct lane *lane)
{
    for (int steps = 0; steps < STEPS_MAX; steps++) {
        if (lane_step(lane) != FLOW_HAS_MORE) {
            return lane->outcome;
        }
    }
    cr_assert_fail("the flow never came to rest");
    return lane->outcome;
}

/* The next edge, when nothing else can be done: for TCP it may come a moment later. */
static void await_edge(struct lane *lane)
{
    struct pollfd poll_fds[] = {
        {.fd = lane->reader, .events = POLLIN | POLLRDHUP},
        {.fd = lane->target.fd,
         .events = flow_held_bytes(&lane->flow) > 0 && !flow_is_over(&lane->flow) ? POLLOUT : 0},
        {.fd = is_on_its_way(lane) && lane->flow.state == FLOW_OPEN &&
                       flow_held_bytes(&lane->flow) == 0
                   ? lane->source.fd
                   : -1,
         .events = POLLIN | POLLRDHUP},
    };

    cr_assert(poll(poll_fds, ARRAY_LEN(poll_fds), WAIT_MS) > 0, "nothing happens any more");
    if ((poll_fds[1].revents & POLLOUT) != 0) {
        lane->target.ready |= IO_WRITABLE;
    }
}

void lane_finish(struct lane *lane)
{
    for (int steps = 0; steps < STEPS_MAX; steps++) {
        bool over;

        (void)lane_step(lane);
        over = flow_is_over(&lane->flow);
        (void)lane_read_all(lane);
        if (over && (lane->end != LANE_NO_END || lane->flow.state == FLOW_FAILED) &&
            lane->received == flow_bytes_out(&lane->flow)) {
            return;
        }
        cr_assert(lane->end == LANE_NO_END, "the end came before the bytes");
        if (lane->outcome == FLOW_RESTS &&
            flow_may_rest(&lane->flow, &lane->source, &lane->target)) {
            await_edge(lane);
        }
    }
    cr_assert_fail("the flow does not come to its end");
}

void lane_stall(struct lane *lane)
{
    for (int steps = 0; steps < STEPS_MAX; steps++) {
        lane_write_all(lane, STALL_CHUNK_BYTES);
        if (lane_pump(lane) == FLOW_RESTS && flow_held_bytes(&lane->flow) > 0) {
            return;
        }
    }
    cr_assert_fail("the target takes without end");
}

void lane_expect_complete(struct lane *lane)
{
    cr_assert(lane->flow.state == FLOW_FINISHED, "state %u, errors %d and %d", lane->flow.state,
              lane->source.error, lane->target.error);
    cr_assert(lane->received == lane->written, "%" PRIu64 " of %" PRIu64 " bytes", lane->received,
              lane->written);
    cr_assert(lane->end == LANE_FIN);
    cr_assert(lane->shutdowns == 1);
    cr_assert(lane->flow.pipe == NULL && lane->flow.buffer == NULL);
}
