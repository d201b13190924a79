/* Tests of the flow when system calls fail: short counts, shortages, refusals, errors, each at
 * every place where it can happen. See flow.c for the lane, and support/unit/fault.h for what is
 * legal. */
#include "base/macros.h"
#include "support/stream.h"
#include "support/unit/fault.h"
#include "support/unit/lane.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

static const enum splice_mode modes[] = {SPLICE_NEVER, SPLICE_ALWAYS, SPLICE_AUTO};

/* Messages and bulk, then FIN, as far as the flow lives. */
static void scenario(struct lane *lane)
{
    static const size_t pieces[] = {10, 70000, 3000, 66000};

    for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
        size_t left = pieces[i];

        while (left > 0 && !flow_is_over(&lane->flow)) {
            left -= lane_write(lane, left);
            (void)lane_step(lane);
            (void)lane_read_all(lane);
        }
    }
    if (!flow_is_over(&lane->flow)) {
        lane_shut(lane);
    }
    lane_finish(lane);
}

/* --- the N-th call, for every N --- */

/* Counts, lies and shortages change nothing for the peers: the scenario is run with the first call
 * hit, then the second, and so on until there is no N-th call any more. */
Test(flow, survives_short_counts_lies_and_shortages_at_every_call)
{
    static const struct {
        enum call call;
        int error; /* 0: a short count */
    } cases[] = {
        {CALL_RECV, 0},
        {CALL_SEND, 0},
        {CALL_SPLICE_IN, 0},
        {CALL_SPLICE_OUT, 0},
        {CALL_RECV, EAGAIN},
        {CALL_SEND, EAGAIN},
        {CALL_SPLICE_IN, EAGAIN},
        {CALL_SPLICE_OUT, EAGAIN},
        {CALL_RECV, ENOMEM},
        {CALL_SEND, ENOMEM},
        {CALL_SPLICE_IN, ENOMEM},
        {CALL_SPLICE_OUT, ENOMEM},
        {CALL_SEND, ENOBUFS},
        {CALL_PIPE, EMFILE},
        {CALL_PIPE_RESIZE, EPERM},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(modes) * LANE_KINDS; i++) {
        enum splice_mode mode = modes[i / ARRAY_LEN(cases) % ARRAY_LEN(modes)];
        enum lane_kind kind = (enum lane_kind)(i / ARRAY_LEN(cases) / ARRAY_LEN(modes));
        enum call call = cases[i % ARRAY_LEN(cases)].call;
        int error = cases[i % ARRAY_LEN(cases)].error;
        bool fired = true;

        for (uint32_t nth = 1; fired; nth++) {
            struct lane lane;

            cr_log_info("%s %s, number %u, mode %d, kind %d", call_name(call), strerror(error), nth,
                        mode, kind);
            lane_init(&lane, kind, mode);
            if (error == 0) {
                fault_shorten(call, ANY_FD, nth, 1, nth % 2 == 0 ? 1 : 777);
            } else {
                fault_fail(call, ANY_FD, nth, 1, error);
            }
            scenario(&lane);
            fired = fault_fired() > 0;
            lane_expect_complete(&lane);
            lane_fini(&lane);
        }
    }
}

/* Splice that the kernel refuses, once or from the N-th call on, on the way in or out: the bytes
 * that sit in the pipe are taken out again, and copy does the rest. */
Test(flow, goes_on_by_copy_wherever_splice_is_refused)
{
    static const enum call calls[] = {CALL_SPLICE_IN, CALL_SPLICE_OUT};
    static const int errors[] = {EINVAL, ENOSYS, EPERM, EOPNOTSUPP};
    static const uint32_t times[] = {1, ALWAYS};

    for (size_t i = 0; i < 2 * ARRAY_LEN(calls) * ARRAY_LEN(errors) * ARRAY_LEN(times); i++) {
        enum splice_mode mode = i % 2 == 0 ? SPLICE_ALWAYS : SPLICE_AUTO;
        enum call call = calls[i / 2 % ARRAY_LEN(calls)];
        int error = errors[i / 4 % ARRAY_LEN(errors)];
        bool fired = true;

        for (uint32_t nth = 1; fired; nth++) {
            struct lane lane;

            cr_log_info("%s %s, number %u, mode %d", call_name(call), strerror(error), nth, mode);
            lane_init(&lane, LANE_UNIX, mode);
            fault_fail(call, ANY_FD, nth, times[i / 16], error);
            scenario(&lane);
            fired = fault_fired() > 0;
            cr_assert(!fired || lane.flow.splice_refused);
            cr_assert(fault_fired() <= 1, "asked again after a refusal");
            lane_expect_complete(&lane);
            lane_fini(&lane);
        }
    }
}

/* Hard errors at every place: the flow fails, the reader gets a prefix and no FIN, the error is
 * kept with the side that it came from. */
Test(flow, fails_without_fin_on_a_hard_error_at_every_call)
{
    static const struct {
        enum call call;
        bool at_source;
    } cases[] = {{CALL_RECV, true},
                 {CALL_SPLICE_IN, true},
                 {CALL_SEND, false},
                 {CALL_SPLICE_OUT, false},
                 {CALL_SHUTDOWN_WRITE, false}};
    static const int errors[] = {ECONNRESET, ETIMEDOUT, EHOSTUNREACH, EIO, ENOTCONN, EPIPE};

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(errors) * ARRAY_LEN(modes); i++) {
        enum call call = cases[i % ARRAY_LEN(cases)].call;
        bool at_source = cases[i % ARRAY_LEN(cases)].at_source;
        int error = errors[i / ARRAY_LEN(cases) % ARRAY_LEN(errors)];
        enum splice_mode mode = modes[i / ARRAY_LEN(cases) / ARRAY_LEN(errors)];
        bool fired = true;

        for (uint32_t nth = 1; fired; nth++) {
            struct lane lane;

            cr_log_info("%s %s, number %u, mode %d", call_name(call), strerror(error), nth, mode);
            lane_init(&lane, LANE_UNIX, mode);
            fault_fail(call, ANY_FD, nth, 1, error);
            scenario(&lane);
            fired = fault_fired() > 0;
            if (fired) {
                cr_assert(lane.flow.state == FLOW_FAILED);
                cr_assert(lane.end == LANE_NO_END && lane.shutdowns == 0);
                cr_assert((at_source ? lane.source.error : lane.target.error) == error);
                cr_assert((at_source ? lane.target.error : lane.source.error) == 0);
                cr_assert(lane.received == flow_bytes_out(&lane.flow));
                cr_assert(!at_source || flow_held_bytes(&lane.flow) == 0, "held, not delivered");
            } else {
                lane_expect_complete(&lane);
            }
            lane_fini(&lane);
        }
    }
}

/* --- random faults --- */

static void arm_at_random(uint64_t *seed)
{
    static const enum call calls[] = {CALL_RECV, CALL_SEND, CALL_SPLICE_IN, CALL_SPLICE_OUT};
    enum call call = calls[random_below(seed, ARRAY_LEN(calls))];
    uint32_t nth = 1 + (uint32_t)random_below(seed, 3);
    uint32_t times = 1 + (uint32_t)random_below(seed, 3);

    fault_disarm();
    switch (random_below(seed, 12)) {
    case 0:
        fault_fail(CALL_PIPE, ANY_FD, nth, times, EMFILE);
        break;
    case 1:
        fault_fail(call, ANY_FD, nth, times, random_below(seed, 2) == 0 ? ENOMEM : ENOBUFS);
        break;
    case 2:
    case 3:
        fault_fail(call, ANY_FD, nth, times, EAGAIN);
        break;
    case 4:
        if (random_below(seed, 20) == 0) {
            fault_fail(random_below(seed, 2) == 0 ? CALL_SPLICE_IN : CALL_SPLICE_OUT, ANY_FD, nth,
                       times, EINVAL);
        }
        break;
    case 5:
        fault_shorten(CALL_READ, ANY_FD, nth, times, 1 + (size_t)random_below(seed, 5000));
        break;
    default:
        fault_shorten(call, ANY_FD, nth, times, 1 + (size_t)random_below(seed, 5000));
        break;
    }
}

/* The property: after every step of any history, the flow rests iff it may, and nothing is lost
 * (lane_step() checks); in the end everything has arrived. Histories of writes, reads, steps and
 * faults from 400 seeds. */
Test(flow, keeps_its_promises_in_random_histories)
{
    enum { SEEDS = 400, OPERATIONS = 200 };

    for (uint64_t first_seed = 0; first_seed < SEEDS; first_seed++) {
        uint64_t seed = first_seed << 32;
        struct lane lane;

        cr_log_info("seed %u", (unsigned)first_seed);
        lane_init_pipes(&lane, first_seed % 4 == 3 ? LANE_TCP : LANE_UNIX,
                        modes[first_seed % ARRAY_LEN(modes)], first_seed % 5,
                        PIPE_BYTES_MIN << random_below(&seed, 3));
        for (int i = 0; i < OPERATIONS; i++) {
            switch (random_below(&seed, 5)) {
            case 0:
                arm_at_random(&seed);
                break;
            case 1:
                (void)lane_write(&lane, 1 + (size_t)random_below(&seed, 100000));
                break;
            case 2:
                (void)lane_write(&lane, 1 + (size_t)random_below(&seed, 10));
                break;
            case 3:
                (void)lane_read(&lane, 1 + (size_t)random_below(&seed, 100000));
                break;
            default:
                (void)lane_step(&lane);
                break;
            }
        }
        lane_shut(&lane);
        fault_disarm();
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* --- shortages --- */

/* Without a buffer nothing can be read, and no edge will tell when there is one: the flow says that
 * it starves, keeps the bit, and goes on when a buffer is back. */
Test(flow, starves_without_a_buffer_and_goes_on_with_one)
{
    struct lane lane;

    lane_init(&lane, LANE_UNIX, SPLICE_AUTO);
    lane_write_all(&lane, 1000);
    lane.supplies.buffers.objects_max = 0;
    for (int i = 0; i < 3; i++) {
        cr_assert(lane_step(&lane) == FLOW_STARVES);
        cr_assert((lane.source.ready & IO_READABLE) != 0);
    }
    cr_assert(fault_count(CALL_RECV, ANY_FD) == 0);
    lane.supplies.buffers.objects_max = LANE_BUFFERS_MAX;
    lane_shut(&lane);
    lane_finish(&lane);
    lane_expect_complete(&lane);
    lane_fini(&lane);
}

/* A kernel short of memory, for as long as it lasts: each step makes one more try, not a
 * thousand. */
Test(flow, starves_without_spinning_while_the_kernel_has_no_memory)
{
    static const enum call calls[] = {CALL_RECV, CALL_SEND, CALL_SPLICE_IN, CALL_SPLICE_OUT};

    for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
        bool copies = calls[i] == CALL_RECV || calls[i] == CALL_SEND;
        struct lane lane;

        lane_init(&lane, LANE_UNIX, copies ? SPLICE_NEVER : SPLICE_ALWAYS);
        lane_write_all(&lane, 1000);
        fault_fail(calls[i], ANY_FD, 1, ALWAYS, ENOBUFS);
        for (size_t steps = 1; steps <= 5; steps++) {
            cr_assert(lane_step(&lane) == FLOW_STARVES, "%s", call_name(calls[i]));
            cr_assert(fault_count(calls[i], ANY_FD) <= 2 * steps, "%s", call_name(calls[i]));
        }
        fault_disarm();
        lane_shut(&lane);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* No pipe to be had: a pool of none, a refusing kernel, a pipe born too small. The flow copies. */
Test(flow, copies_when_there_is_no_pipe)
{
    for (int i = 0; i < 5; i++) {
        struct lane lane;

        lane_init_pipes(&lane, LANE_UNIX, SPLICE_ALWAYS, i == 0 ? 0 : 1, PIPE_BYTES_DEFAULT);
        if (i == 1) {
            fault_fail(CALL_PIPE, ANY_FD, 1, ALWAYS, EMFILE);
        } else if (i == 2) {
            fault_fail(CALL_PIPE_RESIZE, ANY_FD, 1, ALWAYS, EPERM);
            fault_return(CALL_PIPE_SIZE, ANY_FD, 1, ALWAYS, 8192);
        } else if (i == 3) {
            fault_fail(CALL_PIPE_RESIZE, ANY_FD, 1, ALWAYS, EPERM);
            fault_fail(CALL_PIPE_SIZE, ANY_FD, 1, ALWAYS, EBADF);
        } else if (i == 4) {
            fault_return(CALL_PIPE_RESIZE, ANY_FD, 1, ALWAYS, 4096);
        }
        scenario(&lane);
        lane_expect_complete(&lane);
        cr_assert(lane.flow.bytes_spliced == 0, "case %d", i);
        cr_assert(fault_count(CALL_SPLICE_IN, ANY_FD) == 0, "case %d", i);
        cr_assert(metric_get(&lane.metrics.pipes_degraded) == (i == 0 ? 0 : 1), "case %d", i);
        lane_fini(&lane);
    }
}

/* A pipe smaller than asked, but no smaller than the least useful one, is used. */
Test(flow, splices_through_a_pipe_that_the_kernel_would_not_enlarge)
{
    struct lane lane;

    lane_init_pipes(&lane, LANE_UNIX, SPLICE_ALWAYS, 1, PIPE_BYTES_MAX);
    fault_fail(CALL_PIPE_RESIZE, ANY_FD, 1, ALWAYS, EPERM);
    scenario(&lane);
    lane_expect_complete(&lane);
    cr_assert(lane.flow.bytes_spliced == lane.written);
    cr_assert(metric_get(&lane.metrics.pipes_degraded) > 0);
    lane_fini(&lane);
}

/* --- splice refused with bytes in the pipe --- */

enum { PIPED_BYTES = 150000 };

/* The pipe holds several buffers' worth when the target turns out to refuse splice. */
static void init_with_full_pipe(struct lane *lane)
{
    lane_init_pipes(lane, LANE_UNIX, SPLICE_ALWAYS, 1, PIPE_BYTES_DEFAULT);
    lane_write_all(lane, PIPED_BYTES);
    fault_fail(CALL_SPLICE_OUT, ANY_FD, 1, 1, EAGAIN);
    (void)lane_pump(lane);
    cr_assert(lane->flow.pipe_bytes == PIPED_BYTES);
    fault_disarm();
    fault_fail(CALL_SPLICE_OUT, ANY_FD, 1, ALWAYS, EINVAL);
}

/* The pipe is emptied buffer by buffer, in order, with short reads and short sends in between. */
Test(flow, takes_bytes_out_of_the_pipe_again_in_order)
{
    struct lane lane;

    init_with_full_pipe(&lane);
    fault_shorten(CALL_READ, ANY_FD, 2, 1, 100);
    fault_shorten(CALL_SEND, ANY_FD, 1, 3, 1000);
    lane_write_all(&lane, 5000);
    lane_shut(&lane);
    lane_finish(&lane);
    lane_expect_complete(&lane);
    cr_assert(fault_count(CALL_READ, ANY_FD) >= 4);
    cr_assert(fault_count(CALL_SPLICE_OUT, ANY_FD) >= 1);
    lane_fini(&lane);
}

/* Taking bytes out needs a buffer; without one the flow starves and the bytes stay in the pipe. */
Test(flow, starves_when_the_pipes_bytes_have_no_buffer_to_go_to)
{
    struct lane lane;
    uint64_t held;

    init_with_full_pipe(&lane);
    held = lane.flow.pipe_bytes;
    lane.supplies.buffers.objects_max = 0;
    cr_assert(lane_pump(&lane) == FLOW_STARVES);
    cr_assert(lane_pump(&lane) == FLOW_STARVES);
    cr_assert(lane.flow.pipe_bytes >= held);
    lane.supplies.buffers.objects_max = LANE_BUFFERS_MAX;
    lane_shut(&lane);
    lane_finish(&lane);
    lane_expect_complete(&lane);
    lane_fini(&lane);
}

/* A pipe that can't be read though it holds bytes: nothing sound is left to do; the flow fails and
 * says how much was dropped, and the pipe is closed. */
Test(flow, fails_when_the_pipes_bytes_can_not_be_read)
{
    static const int errors[] = {EAGAIN, EIO, EBADF};

    for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
        struct lane lane;
        uint64_t held;

        init_with_full_pipe(&lane);
        held = lane.flow.pipe_bytes;
        fault_fail(CALL_READ, ANY_FD, 1, ALWAYS, errors[i]);
        cr_assert(flow_step(&lane.flow, &lane.source, &lane.target, &lane.supplies) == FLOW_RESTS);
        cr_assert(lane.flow.state == FLOW_FAILED);
        cr_assert(flow_held_bytes(&lane.flow) >= held);
        cr_assert(lane.supplies.pipes.pipes_kept == 0);
        cr_assert(fault_count(CALL_SHUTDOWN_WRITE, ANY_FD) == 0);
        lane_fini(&lane);
    }
}

/* splice(2) out of a full pipe that moves nothing is undocumented; going on could never end. */
Test(flow, fails_when_splice_moves_nothing_out_of_a_full_pipe)
{
    struct lane lane;

    lane_init(&lane, LANE_UNIX, SPLICE_ALWAYS);
    lane_write_all(&lane, 1000);
    fault_return(CALL_SPLICE_OUT, ANY_FD, 1, ALWAYS, 0);
    cr_assert(lane_step(&lane) == FLOW_RESTS);
    cr_assert(lane.flow.state == FLOW_FAILED);
    cr_assert(lane.target.error == EIO);
    cr_assert(flow_held_bytes(&lane.flow) == 1000);
    lane_fini(&lane);
}

/* --- errors and the end of the stream --- */

/* recv(2) says 0 after the other direction took the socket's error: no FIN then. EPIPE is the
 * exception, since the kernel keeps it for a reset that came after FIN. */
Test(flow, takes_an_end_after_an_error_for_no_fin)
{
    static const struct {
        int latched;
        enum flow_state state;
    } cases[] = {{0, FLOW_FINISHED},       {EPIPE, FLOW_FINISHED},      {ECONNRESET, FLOW_FAILED},
                 {ETIMEDOUT, FLOW_FAILED}, {ECONNABORTED, FLOW_FAILED}, {EHOSTUNREACH, FLOW_FAILED},
                 {EIO, FLOW_FAILED}};

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(modes); i++) {
        size_t row = i % ARRAY_LEN(cases);
        struct lane lane;

        lane_init(&lane, LANE_UNIX, modes[i / ARRAY_LEN(cases)]);
        lane_write_all(&lane, 100000);
        lane.source.error = (uint16_t)cases[row].latched;
        lane_shut(&lane);
        lane_finish(&lane);
        cr_assert(lane.flow.state == cases[row].state, "%s", strerror(cases[row].latched));
        cr_assert(lane.received == 100000, "what came before the error was not delivered");
        cr_assert(lane.source.error == cases[row].latched, "the first error stays");
        lane_fini(&lane);
    }
}

/* EPIPE was latched when a send met a peer that had closed; but reading then ends by an error and
 * not by 0 (unix sockets: the peer closed with our bytes unread). That is no FIN. */
Test(flow, takes_a_reading_error_after_epipe_for_no_fin)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;

        lane_init(&lane, LANE_UNIX, modes[i]);
        lane_write_all(&lane, 1000);
        lane.source.error = EPIPE;
        cr_assert(lane_pump(&lane) == FLOW_RESTS);
        fault_fail(CALL_RECV, ANY_FD, 1, 1, ECONNRESET);
        fault_fail(CALL_SPLICE_IN, ANY_FD, 1, 1, ECONNRESET);
        lane.source.ready |= IO_READABLE;
        lane_finish(&lane);
        cr_assert(lane.received == 1000);
        cr_assert(lane.flow.state == FLOW_FAILED, "a reset was shown as FIN, mode %d", modes[i]);
        cr_assert(lane.source.error == ECONNRESET);
        lane_fini(&lane);
    }
}

/* The kernel's own resets: everything received before is delivered, then the flow has failed. */
Test(flow, delivers_what_was_received_before_a_reset)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;

        lane_init(&lane, LANE_TCP, modes[i]);
        lane_write_all(&lane, 100000);
        lane_reset_writer(&lane);
        lane_finish(&lane);
        cr_assert(lane.flow.state == FLOW_FAILED);
        cr_assert(lane.source.error == ECONNRESET);
        cr_assert(lane.received == 100000);
        cr_assert(fault_count(CALL_SHUTDOWN_WRITE, ANY_FD) == 0);
        lane_fini(&lane);
    }
}

/* A reader that resets: the flow fails at once, latches the error at the target, makes it readable
 * for the other direction to find the end, and counts what was dropped. */
Test(flow, fails_at_once_when_the_target_is_reset)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * LANE_KINDS; i++) {
        struct lane lane;

        lane_init(&lane, (enum lane_kind)(i % LANE_KINDS), modes[i / LANE_KINDS]);
        lane_stall(&lane);
        lane.target.ready = 0;
        lane_reset_reader(&lane);
        lane.target.ready = IO_WRITABLE;
        lane_write_all(&lane, 1000);
        cr_assert(lane_step(&lane) == FLOW_RESTS);
        cr_assert(lane.flow.state == FLOW_FAILED, "case %zu", i);
        cr_assert(lane.target.error == ECONNRESET || lane.target.error == EPIPE);
        cr_assert((lane.target.ready & IO_READABLE) != 0);
        cr_assert(flow_held_bytes(&lane.flow) > 0);
        lane_fini(&lane);
    }
}

/* A target whose error the other direction has met: the flow fails before it touches a socket. */
Test(flow, fails_without_a_call_when_its_target_is_broken)
{
    struct lane lane;

    lane_init(&lane, LANE_UNIX, SPLICE_AUTO);
    lane_write_all(&lane, 1000);
    lane.target.error = ECONNRESET;
    fault_clear();
    cr_assert(lane_step(&lane) == FLOW_RESTS);
    cr_assert(lane.flow.state == FLOW_FAILED);
    cr_assert(fault_notes_len() == 0);
    lane_fini(&lane);
}

/* Only the first error of a descriptor tells what happened. */
Test(flow, keeps_the_first_error)
{
    struct lane lane;

    lane_init(&lane, LANE_UNIX, SPLICE_NEVER);
    lane.source.error = ETIMEDOUT;
    fault_fail(CALL_RECV, ANY_FD, 1, 1, ECONNRESET);
    (void)lane_pump(&lane);
    cr_assert(lane.flow.state == FLOW_FAILED);
    cr_assert(lane.source.error == ETIMEDOUT);
    lane_fini(&lane);
}
