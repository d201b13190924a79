/* One direction of a connection: takes bytes from a source, holds what the target does not take
 * yet, passes on the end of the stream after the last byte.
 *
 * The problem. Edge-triggered epoll tells once, so whatever could be done must be done or
 * remembered. splice(2) into a pipe says EAGAIN both when the socket is empty and when the pipe
 * has no free slot, and small segments use up the slots long before the bytes (16 segments can
 * fill a 64 KiB pipe). A FIN must not overtake bytes that still sit in the channel. One busy flow
 * must not starve others.
 *
 *                     fill                                drain
 *    source --------------------->  [ channel ]  --------------------->  target
 *    (IO_READABLE)   recv, splice   buffer | pipe   send, splice         (IO_WRITABLE)
 *
 *    OPEN      --- recv says 0, or an error, or flow_stop() --->  DRAINING (bytes may be held)
 *    DRAINING  --- channel empty, source ended by FIN, FIN passed on --->  FINISHED
 *    DRAINING  --- channel empty, source failed --->  FAILED
 *    OPEN, DRAINING  --- target failed, or flow_fail() --->  FAILED
 *
 * The channel is a buffer (copy engine), or a pipe (splice engine), or for a moment both: the
 * buffer's bytes come before the pipe's. Each is borrowed while it holds bytes, so an idle flow
 * owns neither.
 *
 * Invariants
 *  I1 Park rule: flow_step() returns FLOW_RESTS only if the source is not readable, or ended, or
 *     the channel has no known room, and the target is not writable, or the channel is empty.
 *     EAGAIN, or a short read that proves as much, clears IO_READABLE. After a splice it does so
 *     only when the pipe was empty; otherwise it means "pipe full" and
 *     sets pipe_blocked, until a byte has left the pipe.
 *  I2 buffer_start <= buffer_end <= FLOW_BUFFER_BYTES. The pipe's bytes are compared with nothing.
 *  I3 Between steps a buffer or a pipe is held iff it holds bytes.
 *  I4 FIN is passed on once, when the channel is empty, and never for a source that failed.
 *  I5 bytes_in == bytes out + held, always.
 *
 * Ownership: borrows both io's and the supplies. Never blocks, logs, allocates, or reads a clock.
 * It does not close sockets, know timeouts or retries: session.c does (read it next). Tests:
 * tests/unit/relay/flow.c, with socket pairs and ready bits set by hand.
 *
 * Measured 2026-11-22 (Linux 6.18, loopback) with a bare relay of a hundred lines, before this was
 * written: a small message costs 17.5 us of CPU by copy and about a tenth more by splice; a GB costs
 * 730 ms by copy and 410 ms by splice. Hence two engines: a flow starts with copy, and a read that
 * fills the whole buffer shows that it is bulk. */
#include "relay/flow.h"

#include "base/check.h"
#include "net/sock.h"
#include "net/sys.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum {
    /* One step moves at most about this much before others have their turn: about 100 us of CPU. */
    FLOW_BUDGET_BYTES = 512 * 1024,
    /* And at most so many rounds of drain and fill, for peers that send byte by byte. */
    FLOW_ROUNDS_MAX = 32,
    /* Asked of one splice; the pipe bounds it. Finite, because some kernels refuse huge lengths. */
    SPLICE_BYTES_MAX = 1 << 20,
    /* `auto` goes back to copy when less than this came between two moments of an empty source. */
    SPLICE_RUN_BYTES_MIN = FLOW_BUFFER_BYTES
};

static_assert(sizeof(struct flow) <= 64, "a session holds two flows and must stay small");

enum move {
    MOVED_NOTHING,
    MOVED_SOME, /* or found out something that makes another round worth while */
    MOVE_STARVED
};

static void flow_check(const struct flow *flow)
{
    DCHECK(flow->state < FLOW_STATES);
    DCHECK(flow->buffer_start <= flow->buffer_end);  /* I2 */
    DCHECK(flow->buffer_end <= FLOW_BUFFER_BYTES);   /* I2 */
    DCHECK(flow_held_bytes(flow) <= flow->bytes_in); /* I5 */
    DCHECK(!flow->pipe_blocked || flow->pipe_bytes > 0);
    if (flow->state == FLOW_FAILED) {
        DCHECK(flow->buffer == NULL);
        DCHECK(flow->pipe == NULL);
    } else {
        DCHECK((flow->buffer != NULL) == (flow->buffer_end > flow->buffer_start)); /* I3 */
        DCHECK((flow->pipe != NULL) == (flow->pipe_bytes > 0));                    /* I3 */
    }
    if (flow->state == FLOW_FINISHED) {
        DCHECK(flow_held_bytes(flow) == 0); /* I4 */
        DCHECK(!flow->source_failed);       /* I4 */
    }
}

static void set_state(struct flow *flow, enum flow_state state)
{
    static const bool allowed[FLOW_STATES][FLOW_STATES] = {
        [FLOW_OPEN] = {[FLOW_DRAINING] = true, [FLOW_FAILED] = true},
        [FLOW_DRAINING] = {[FLOW_FINISHED] = true, [FLOW_FAILED] = true},
    };

    CHECK(allowed[flow->state][state]);
    flow->state = (uint8_t)state;
}

void flow_init(struct flow *flow)
{
    memset(flow, 0, sizeof(*flow));
    flow->state = FLOW_OPEN;
}

static bool is_shortage(ssize_t result)
{
    return result == -ENOMEM || result == -ENOBUFS;
}

/* What splice(2) says of sockets or kernels that do not take it (a unix socket on old kernels,
 * kTLS, a seccomp filter). EPERM also comes from security modules; copying finds out whether it
 * persists. */
static bool is_refusal(ssize_t result)
{
    return result == -EINVAL || result == -ENOSYS || result == -EPERM || result == -EOPNOTSUPP;
}

/* --- taking from the source --- */

static void took(struct flow *flow, size_t len)
{
    flow->bytes_in += len;
    flow->fill_run_bytes = (uint32_t)min_u64((uint64_t)flow->fill_run_bytes + len, UINT32_MAX);
    if (!flow->splicing && len == FLOW_BUFFER_BYTES) {
        flow->splicing = true; /* more than a buffer at once: bulk */
    }
}

static void source_is_empty(struct flow *flow, struct io *source)
{
    source->ready &= (uint8_t)~IO_READABLE;
    if (flow->fill_run_bytes < SPLICE_RUN_BYTES_MIN) {
        flow->splicing = false;
    }
    flow->fill_run_bytes = 0;
}

/* A TCP socket that gave less than was asked for has no more, unless its end, an error or an urgent
 * mark was told: those make recv(2) stop early too. Whatever comes after the call wakes epoll
 * (epoll(7), question 9). On unix sockets descriptors in the stream end a read, so there only EAGAIN
 * counts. One system call in three of a small message. */
static bool short_read_proves_empty(const struct io *source)
{
    return source->is_tcp && (source->ready & (IO_ENDING | IO_URGENT)) == 0;
}

/* recv(2) said 0. After the other direction took an error from the socket that is no FIN; except
 * EPIPE, which the kernel stores for a reset that came after FIN. */
static bool is_true_fin(const struct io *source)
{
    return source->error == 0 || source->error == EPIPE;
}

/* The source gave no bytes: empty, ended, failed, or the kernel is short of memory. */
static enum move source_gave_none(struct flow *flow, struct io *source, ssize_t result)
{
    if (result == -EAGAIN) {
        source_is_empty(flow, source);
        return MOVED_NOTHING;
    }
    if (is_shortage(result)) {
        return MOVE_STARVED;
    }
    if (result < 0) {
        io_set_error(source, (int)-result);
    }
    flow->source_failed = flow->source_failed || result < 0 || !is_true_fin(source);
    set_state(flow, FLOW_DRAINING);
    return MOVED_SOME;
}

/* An end was told and is probably next. Read now and not after the bytes were sent, its FIN goes out in
 * their last segment: one packet and one wake-up of the receiver less. Nothing else depends on it:
 * whatever recv(2) says here is right, and is asked again when it said nothing. */
static void read_on_to_the_end(struct flow *flow, struct io *source)
{
    ssize_t len =
        sys_recv(source->fd, flow->buffer + flow->buffer_end, FLOW_BUFFER_BYTES - flow->buffer_end);

    if (len > 0) {
        flow->buffer_end += (uint32_t)len;
        took(flow, (size_t)len);
    } else {
        (void)source_gave_none(flow, source, len);
    }
}

static enum move fill_by_copy(struct flow *flow, struct io *source, struct flow_supplies *supplies)
{
    unsigned char *buffer;
    ssize_t len;

    if (flow_held_bytes(flow) > 0) {
        return MOVED_NOTHING; /* order: what is held goes first */
    }
    buffer = slab_get(&supplies->buffers);
    if (buffer == NULL) {
        return MOVE_STARVED;
    }
    len = sys_recv(source->fd, buffer, FLOW_BUFFER_BYTES);
    if (len <= 0) {
        slab_put(&supplies->buffers, buffer);
        return source_gave_none(flow, source, len);
    }
    flow->buffer = buffer;
    flow->buffer_start = 0;
    flow->buffer_end = (uint32_t)len;
    took(flow, (size_t)len);
    if (len < FLOW_BUFFER_BYTES && short_read_proves_empty(source)) {
        source_is_empty(flow, source);
    } else if (len < FLOW_BUFFER_BYTES && (source->ready & IO_ENDING) != 0) {
        read_on_to_the_end(flow, source);
    }
    return MOVED_SOME;
}

static void return_empty_pipe(struct flow *flow, struct flow_supplies *supplies)
{
    if (flow->pipe != NULL && flow->pipe_bytes == 0) {
        pipe_pool_return(&supplies->pipes, flow->pipe, true);
        flow->pipe = NULL;
    }
}

/* Splice can't go on: from here on recv(2) tells the truth about this source. */
static enum move fall_back_to_copy(struct flow *flow, struct io *source,
                                   struct flow_supplies *supplies)
{
    flow->splicing = false;
    return_empty_pipe(flow, supplies);
    return fill_by_copy(flow, source, supplies);
}

static enum move fill_by_splice(struct flow *flow, struct io *source,
                                struct flow_supplies *supplies)
{
    ssize_t len;

    if (flow->buffer != NULL || flow->pipe_blocked) {
        return MOVED_NOTHING;
    }
    if (flow->pipe == NULL) {
        flow->pipe = pipe_pool_lend(&supplies->pipes);
        if (flow->pipe == NULL) {
            return fall_back_to_copy(flow, source, supplies);
        }
    }
    len = sys_splice(source->fd, flow->pipe->write_fd, SPLICE_BYTES_MAX);
    if (len > 0) {
        flow->pipe_bytes += (uint64_t)len;
        took(flow, (size_t)len);
        return MOVED_SOME;
    }
    if (len == -EAGAIN && flow->pipe_bytes > 0) {
        flow->pipe_blocked = true; /* no slot left, or socket empty: only an empty pipe can tell */
        return MOVED_NOTHING;
    }
    if (len == 0 || is_refusal(len)) {
        /* 0 is the end of the stream or something splice can't pass, such as an urgent byte. */
        flow->splice_refused = flow->splice_refused || len < 0;
        return fall_back_to_copy(flow, source, supplies);
    }
    if (len != -EAGAIN && !is_shortage(len) && sys_readable_bytes(source->fd) > 0) {
        /* It stopped before an urgent byte and told the error behind it. */
        io_set_error(source, (int)-len);
        flow->source_failed = true;
        return fall_back_to_copy(flow, source, supplies);
    }
    return source_gave_none(flow, source, len);
}

static enum move fill(struct flow *flow, struct io *source, struct flow_supplies *supplies)
{
    if (flow->state != FLOW_OPEN || (source->ready & IO_READABLE) == 0) {
        return MOVED_NOTHING;
    }
    if (flow_held_bytes(flow) == 0) {
        if (supplies->splice == SPLICE_ALWAYS) {
            flow->splicing = true;
        }
        if (supplies->splice == SPLICE_NEVER || flow->splice_refused ||
            (source->ready & IO_URGENT) != 0) {
            flow->splicing = false;
        }
    }
    return flow->splicing ? fill_by_splice(flow, source, supplies)
                          : fill_by_copy(flow, source, supplies);
}

/* --- giving to the target --- */

static enum move target_took_none(struct flow *flow, struct io *target, ssize_t result,
                                  struct flow_supplies *supplies)
{
    if (result == -EAGAIN) {
        target->ready &= (uint8_t)~IO_WRITABLE;
        return MOVED_NOTHING;
    }
    if (is_shortage(result)) {
        return MOVE_STARVED;
    }
    /* 0 for a pipe that holds bytes is nothing splice(2) documents; going on could not end. */
    io_set_error(target, result == 0 ? EIO : (int)-result);
    flow_fail(flow, supplies);
    return MOVED_NOTHING;
}

/* Takes bytes back out of a pipe whose target refuses splice, so that they can be sent by copy. */
static enum move unpipe(struct flow *flow, struct io *target, struct flow_supplies *supplies)
{
    unsigned char *buffer = slab_get(&supplies->buffers);
    ssize_t len;

    if (buffer == NULL) {
        return MOVE_STARVED;
    }
    len = sys_read(flow->pipe->read_fd, buffer, FLOW_BUFFER_BYTES);
    if (len <= 0) {
        slab_put(&supplies->buffers, buffer);
        return target_took_none(flow, target, len == -EAGAIN ? 0 : len, supplies);
    }
    CHECK((uint64_t)len <= flow->pipe_bytes);
    flow->pipe_bytes -= (uint64_t)len;
    flow->pipe_blocked = false;
    flow->buffer = buffer;
    flow->buffer_start = 0;
    flow->buffer_end = (uint32_t)len;
    return_empty_pipe(flow, supplies);
    return MOVED_SOME;
}

static void gave_from_buffer(struct flow *flow, size_t len, struct flow_supplies *supplies)
{
    flow->buffer_start += (uint32_t)len;
    CHECK(flow->buffer_start <= flow->buffer_end);
    if (flow->buffer_start == flow->buffer_end) {
        slab_put(&supplies->buffers, flow->buffer);
        flow->buffer = NULL;
        flow->buffer_start = 0;
        flow->buffer_end = 0;
    }
}

static void gave_from_pipe(struct flow *flow, size_t len)
{
    CHECK(len <= flow->pipe_bytes);
    flow->pipe_bytes -= len;
    flow->bytes_spliced += len;
    flow->pipe_blocked = false;
}

static enum move drain(struct flow *flow, struct io *target, struct flow_supplies *supplies)
{
    ssize_t len;

    if (flow_held_bytes(flow) == 0 || (target->ready & IO_WRITABLE) == 0) {
        return MOVED_NOTHING;
    }
    if (flow->buffer == NULL && flow->splice_refused) {
        enum move moved = unpipe(flow, target, supplies);

        if (moved != MOVED_SOME) {
            return moved;
        }
    }
    if (flow->buffer != NULL) {
        bool fin_follows =
            flow->state == FLOW_DRAINING && !flow->source_failed && flow->pipe_bytes == 0;

        len = sys_send(target->fd, flow->buffer + flow->buffer_start,
                       flow->buffer_end - flow->buffer_start, fin_follows);
        if (len > 0) {
            gave_from_buffer(flow, (size_t)len, supplies);
            return MOVED_SOME;
        }
    } else {
        CHECK(flow->pipe != NULL); /* I3 */
        len = sys_splice(flow->pipe->read_fd, target->fd, (size_t)flow->pipe_bytes);
        if (len > 0) {
            gave_from_pipe(flow, (size_t)len);
            return MOVED_SOME;
        }
        if (is_refusal(len)) {
            flow->splice_refused = true;
            return MOVED_SOME;
        }
    }
    return target_took_none(flow, target, len, supplies);
}

/* Passes on the end of the stream once the last byte is gone: I4. */
static void finish_if_drained(struct flow *flow, struct io *target, struct flow_supplies *supplies)
{
    int result;

    if (flow->state != FLOW_DRAINING || flow_held_bytes(flow) > 0) {
        return;
    }
    if (flow->source_failed) {
        set_state(flow, FLOW_FAILED);
        return;
    }
    result = flow->is_last ? 0 : sys_shutdown_write(target->fd);
    if (result < 0) {
        /* ENOTCONN says only that the connection is gone; SO_ERROR says why. */
        int error = sock_take_error(target->fd);

        io_set_error(target, error != 0 ? error : -result);
        flow_fail(flow, supplies);
        return;
    }
    set_state(flow, FLOW_FINISHED);
}

/* --- the step --- */

bool flow_may_rest(const struct flow *flow, const struct io *source, const struct io *target)
{
    uint64_t held = flow_held_bytes(flow);
    bool room = held == 0 || (flow->splicing && flow->buffer == NULL && !flow->pipe_blocked);
    bool can_fill = flow->state == FLOW_OPEN && (source->ready & IO_READABLE) != 0 && room;
    bool can_drain = held > 0 && (target->ready & IO_WRITABLE) != 0;
    bool can_finish = flow->state == FLOW_DRAINING && held == 0;

    return flow_is_over(flow) || (!can_fill && !can_drain && !can_finish);
}

enum flow_outcome flow_step(struct flow *flow, struct io *source, struct io *target,
                            struct flow_supplies *supplies)
{
    uint64_t out_before = flow_bytes_out(flow);
    enum flow_outcome outcome = FLOW_RESTS;

    flow_check(flow);
    for (int round = 0; round < FLOW_ROUNDS_MAX && !flow_is_over(flow); round++) {
        enum move drained;
        enum move filled;

        if (target->error != 0) {
            flow_fail(flow, supplies);
            break;
        }
        drained = drain(flow, target, supplies);
        filled = fill(flow, source, supplies);
        finish_if_drained(flow, target, supplies);
        if (drained != MOVED_SOME && filled != MOVED_SOME) {
            if (drained == MOVE_STARVED || filled == MOVE_STARVED) {
                outcome = FLOW_STARVES;
            }
            break;
        }
        if (flow_bytes_out(flow) - out_before >= FLOW_BUDGET_BYTES) {
            break;
        }
    }
    return_empty_pipe(flow, supplies);
    flow_check(flow);
    if (outcome == FLOW_RESTS && !flow_may_rest(flow, source, target)) {
        outcome = FLOW_HAS_MORE; /* I1: never rest because a budget ended */
    }
    return outcome;
}

void flow_stop(struct flow *flow)
{
    if (flow->state == FLOW_OPEN) {
        flow->source_failed = true;
        set_state(flow, FLOW_DRAINING);
    } else if (flow->state == FLOW_DRAINING) {
        flow->source_failed = true;
    }
}

void flow_fail(struct flow *flow, struct flow_supplies *supplies)
{
    if (flow_is_over(flow)) {
        return;
    }
    set_state(flow, FLOW_FAILED);
    if (flow->buffer != NULL) {
        slab_put(&supplies->buffers, flow->buffer);
        flow->buffer = NULL;
    }
    if (flow->pipe != NULL) {
        pipe_pool_return(&supplies->pipes, flow->pipe, flow->pipe_bytes == 0);
        flow->pipe = NULL;
    }
    /* pipe_bytes and the buffer's positions stay: they now count what was not delivered. */
}
