/* Tests of the flow: bytes, end of stream, park rule, both engines and the change between them.
 * What happens when system calls fail is in flow_faults.c.
 *
 * A lane (support/unit/lane.h) is a flow between two socket pairs; it checks conservation, the park
 * rule, FIN and lost wake-ups after every step, so the tests here say only what is special. */
#include "base/macros.h"
#include "support/stream.h"
#include "support/unit/fault.h"
#include "support/unit/lane.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const enum splice_mode modes[] = {SPLICE_NEVER, SPLICE_ALWAYS, SPLICE_AUTO};

static size_t queued(int fd)
{
    int bytes = 0;

    cr_assert(ioctl(fd, FIONREAD, &bytes) == 0);
    return (size_t)bytes;
}

/* Sizes: often tiny, often around a page or a buffer, sometimes large. */
static size_t random_chunk(uint64_t *seed)
{
    static const size_t magnitudes[] = {2, 100, 4097, 65537, 200000};

    return 1 + (size_t)random_below(seed, magnitudes[random_below(seed, ARRAY_LEN(magnitudes))]);
}

/* Writer, flow and reader take turns at random until `total` bytes and FIN are through. */
static void transfer(struct lane *lane, size_t total, uint64_t *seed)
{
    while (lane->written < total) {
        switch (random_below(seed, 3)) {
        case 0:
            (void)lane_write(lane, min_size(random_chunk(seed), total - lane->written));
            break;
        case 1:
            (void)lane_step(lane);
            break;
        default:
            (void)lane_read(lane, random_chunk(seed));
            break;
        }
    }
    lane_shut(lane);
    lane_finish(lane);
}

/* The first contract: every size around a page and a buffer, every engine, both kinds of sockets,
 * with three random rhythms of writer, flow and reader each. */
Test(flow, passes_on_every_byte_in_order)
{
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 65535, 65536, 65537, (1 << 20) + 1};

    for (size_t i = 0; i < ARRAY_LEN(sizes) * ARRAY_LEN(modes) * LANE_KINDS * 3; i++) {
        size_t total = sizes[i / 3 / LANE_KINDS / ARRAY_LEN(modes)];
        enum splice_mode mode = modes[i / 3 / LANE_KINDS % ARRAY_LEN(modes)];
        enum lane_kind kind = (enum lane_kind)(i / 3 % LANE_KINDS);
        uint64_t seed = i;
        struct lane lane;

        cr_log_info("%zu bytes, mode %d, kind %d, seed %zu", total, mode, kind, i);
        lane_init(&lane, kind, mode);
        transfer(&lane, total, &seed);
        lane_expect_complete(&lane);
        cr_assert(lane.flow.bytes_in == total);
        lane_fini(&lane);
    }
}

/* FIN behind held bytes: the reader does not read while the writer writes more and shuts. The flow
 * drains, but FIN leaves only when the last byte has left the channel. */
Test(flow, passes_fin_on_only_after_the_channel_is_empty)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * LANE_KINDS; i++) {
        struct lane lane;

        lane_init(&lane, (enum lane_kind)(i % LANE_KINDS), modes[i / LANE_KINDS]);
        lane_stall(&lane);
        lane_write_all(&lane, 10000);
        lane_shut(&lane);
        cr_assert(lane_pump(&lane) == FLOW_RESTS, "case %zu", i);
        cr_assert(flow_held_bytes(&lane.flow) > 0, "case %zu", i);
        cr_assert(fault_count(CALL_SHUTDOWN_WRITE, ANY_FD) == 0, "case %zu", i);
        while (!flow_is_over(&lane.flow)) {
            cr_assert(fault_count(CALL_SHUTDOWN_WRITE, ANY_FD) == 0, "case %zu", i);
            (void)lane_read(&lane, 5000);
            lane.target.ready |= IO_WRITABLE;
            (void)lane_step(&lane);
        }
        cr_assert(fault_note(fault_notes_len() - 1)->call == CALL_SHUTDOWN_WRITE, "case %zu", i);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* A stream that ends at once is an empty stream with an end: FIN alone is passed on. */
Test(flow, passes_on_fin_alone)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * LANE_KINDS; i++) {
        struct lane lane;

        lane_init(&lane, (enum lane_kind)(i % LANE_KINDS), modes[i / LANE_KINDS]);
        cr_assert(lane_pump(&lane) == FLOW_RESTS);
        lane_shut(&lane);
        cr_assert(lane_step(&lane) == FLOW_RESTS);
        cr_assert(lane.flow.state == FLOW_FINISHED, "case %zu", i);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* A flow that is over stays so: with all ready bits set it makes no system call and says rest. */
Test(flow, does_nothing_any_more_when_it_is_over)
{
    for (int failed = 0; failed < 2; failed++) {
        struct lane lane;

        lane_init(&lane, LANE_UNIX, SPLICE_AUTO);
        lane_write_all(&lane, 100);
        lane_shut(&lane);
        if (failed == 1) {
            flow_fail(&lane.flow, &lane.supplies);
        } else {
            lane_finish(&lane);
        }
        lane.source.ready = IO_READABLE | IO_WRITABLE;
        lane.target.ready = IO_READABLE | IO_WRITABLE;
        fault_clear();
        cr_assert(flow_step(&lane.flow, &lane.source, &lane.target, &lane.supplies) == FLOW_RESTS);
        flow_stop(&lane.flow);
        flow_fail(&lane.flow, &lane.supplies);
        cr_assert(fault_notes_len() == 0);
        cr_assert(lane.flow.state == (failed == 1 ? FLOW_FAILED : FLOW_FINISHED));
        lane_fini(&lane);
    }
}

/* Parked means free of charge: a flow with nothing to do, or stuck with held bytes, makes no
 * call. */
Test(flow, parked_makes_no_system_call)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * 2; i++) {
        struct lane lane;

        lane_init(&lane, LANE_UNIX, modes[i / 2]);
        cr_assert(lane_pump(&lane) == FLOW_RESTS);
        if (i % 2 == 1) {
            lane_stall(&lane);
            cr_assert(flow_held_bytes(&lane.flow) > 0);
        }
        /* Another pump, as an empty pipe only shows that it is by one more try. */
        cr_assert(lane_pump(&lane) == FLOW_RESTS);
        fault_clear();
        for (int again = 0; again < 3; again++) {
            cr_assert(lane_step(&lane) == FLOW_RESTS);
        }
        cr_assert(fault_notes_len() == 0, "case %zu: %s", i, call_name(fault_note(0)->call));
        lane_fini(&lane);
    }
}

/* One byte a segment, each into a slot of its own: the pipe is full after 16 or so bytes. The
 * source must stay readable then, because no edge will come for what it already holds. */
Test(flow, keeps_the_source_readable_when_the_pipe_has_no_slot_left)
{
    for (int kind = 0; kind < LANE_KINDS; kind++) {
        struct lane lane;
        uint64_t in_before;

        lane_init(&lane, (enum lane_kind)kind, SPLICE_ALWAYS);
        lane_stall(&lane);
        in_before = lane.flow.bytes_in;
        for (int i = 0; i < 200; i++) {
            lane_write_all(&lane, 1);
            cr_assert(lane_step(&lane) == FLOW_RESTS);
        }
        cr_assert(lane.flow.bytes_in < in_before + 200, "the pipe has more slots than expected");
        cr_assert(lane.flow.pipe_blocked);
        cr_assert((lane.source.ready & IO_READABLE) != 0, "an edge was thrown away");
        cr_assert(queued(lane.source.fd) > 0);
        lane_shut(&lane);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* A blocked pipe is tried again as soon as one byte has left it, within the same step. */
Test(flow, fills_again_after_one_drained_byte)
{
    struct lane lane;
    size_t notes;

    lane_init(&lane, LANE_UNIX, SPLICE_ALWAYS);
    lane_stall(&lane);
    while (!lane.flow.pipe_blocked) {
        lane_write_all(&lane, 1);
        (void)lane_step(&lane);
    }
    lane_write_all(&lane, 1);
    (void)lane_read_all(&lane);
    fault_shorten(CALL_SPLICE_OUT, lane.target.fd, 1, 1, 1);
    fault_fail(CALL_SPLICE_OUT, lane.target.fd, 2, 1, EAGAIN);
    notes = fault_notes_len();
    (void)lane_step(&lane);
    cr_assert(fault_note(notes)->call == CALL_SPLICE_OUT);
    cr_assert(fault_note(notes)->result == 1);
    cr_assert(fault_note(notes + 1)->call == CALL_SPLICE_IN, "no try to fill after the byte");
    lane_shut(&lane);
    lane_finish(&lane);
    lane_expect_complete(&lane);
    lane_fini(&lane);
}

/* "Pipe full" said of a pipe that is not: the flow can't tell, keeps the source readable, and loses
 * nothing once the pipe has drained. */
Test(flow, takes_eagain_of_a_pipe_that_holds_bytes_for_no_statement_about_the_source)
{
    struct lane lane;

    lane_init(&lane, LANE_UNIX, SPLICE_ALWAYS);
    lane_stall(&lane);
    cr_assert(lane.flow.pipe_blocked, "the last try met an empty source");
    cr_assert((lane.source.ready & IO_READABLE) != 0);
    cr_assert(lane.outcome == FLOW_RESTS);
    (void)lane_read_all(&lane);
    (void)lane_pump(&lane);
    cr_assert(flow_held_bytes(&lane.flow) == 0);
    cr_assert((lane.source.ready & IO_READABLE) == 0,
              "an empty pipe tells that the source is empty");
    cr_assert(!lane.flow.pipe_blocked);
    cr_assert(lane.supplies.pipes.pipes_kept == 1);
    lane_fini(&lane);
}

/* Many small segments with the reader paused, so that slots run out long before bytes; then the
 * reader goes on and gets everything. */
Test(flow, loses_nothing_when_small_segments_use_up_the_slots)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        uint64_t seed = i;
        struct lane lane;

        lane_init(&lane, LANE_TCP, modes[i]);
        lane_stall(&lane);
        for (int writes = 0; writes < 2000; writes++) {
            lane_write_all(&lane, 1 + (size_t)random_below(&seed, 3));
            if (random_below(&seed, 4) == 0) {
                (void)lane_step(&lane);
            }
        }
        lane_shut(&lane);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* --- the budget --- */

/* Peers without end: whenever the flow turns to one of them, it is ready. */
static void refill(void *context)
{
    (void)lane_write(context, 1 << 20);
}

static void empty(void *context)
{
    (void)lane_read_all(context);
}

static void make_endless(struct lane *lane)
{
    static const enum call takes[] = {CALL_RECV, CALL_SPLICE_IN};
    static const enum call gives[] = {CALL_SEND, CALL_SPLICE_OUT};

    for (size_t i = 0; i < 2; i++) {
        fault_hook(takes[i], lane->source.fd, 1, ALWAYS, refill, lane);
        fault_hook(gives[i], lane->target.fd, 1, ALWAYS, empty, lane);
    }
}

/* With a writer that never runs dry and a reader that takes all, one step still ends after about
 * half a MiB, and asks for another turn. */
Test(flow, returns_has_more_when_its_budget_is_spent)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;

        lane_init(&lane, LANE_UNIX, modes[i]);
        make_endless(&lane);
        for (int steps = 0; steps < 5; steps++) {
            uint64_t before = flow_bytes_out(&lane.flow);
            uint64_t moved;

            cr_assert(lane_step(&lane) == FLOW_HAS_MORE, "mode %d", modes[i]);
            moved = flow_bytes_out(&lane.flow) - before;
            cr_assert(moved > 0);
            cr_assert(moved <= 512 * 1024 + (1 << 20), "%" PRIu64 " bytes in one step", moved);
        }
        fault_clear();
        lane_shut(&lane);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* Byte by byte the budget counts calls instead: no more than a few dozen a step. */
Test(flow, returns_has_more_after_a_bounded_number_of_calls)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;
        size_t calls;

        lane_init(&lane, LANE_UNIX, modes[i]);
        make_endless(&lane);
        fault_shorten(CALL_RECV, ANY_FD, 1, ALWAYS, 1);
        fault_shorten(CALL_SPLICE_IN, ANY_FD, 1, ALWAYS, 1);
        for (int steps = 0; steps < 5; steps++) {
            calls = fault_notes_len();
            cr_assert(lane_step(&lane) == FLOW_HAS_MORE, "mode %d", modes[i]);
            calls = fault_notes_len() - calls;
            cr_assert(calls <= 100, "%zu calls in one step", calls);
        }
        fault_clear();
        lane_shut(&lane);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* --- memory between steps --- */

/* An idle flow owns neither a buffer nor a pipe, in any mode and whatever it did before. */
Test(flow, holds_nothing_when_it_holds_no_bytes)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;

        lane_init(&lane, LANE_UNIX, modes[i]);
        for (int round = 0; round < 3; round++) {
            lane_write_all(&lane, 100000);
            (void)lane_pump(&lane);
            (void)lane_read_all(&lane);
            (void)lane_pump(&lane);
            cr_assert(flow_held_bytes(&lane.flow) == 0);
            cr_assert(lane.flow.buffer == NULL && lane.flow.pipe == NULL);
            cr_assert(lane.supplies.buffers.objects_in_use == 0);
            cr_assert(lane.supplies.pipes.pipes_lent == 0);
        }
        lane_fini(&lane);
    }
}

/* However much the writer has, a stuck flow holds one buffer or one pipe, never both full. */
Test(flow, holds_a_bounded_number_of_bytes)
{
    for (size_t i = 0; i < ARRAY_LEN(modes) * LANE_KINDS; i++) {
        struct lane lane;

        lane_init(&lane, (enum lane_kind)(i % LANE_KINDS), modes[i / LANE_KINDS]);
        for (int rounds = 0; rounds < 200; rounds++) {
            (void)lane_write(&lane, 1 << 20);
            cr_assert(lane_pump(&lane) == FLOW_RESTS);
        }
        cr_assert((lane.target.ready & IO_WRITABLE) == 0);
        if (modes[i / LANE_KINDS] == SPLICE_NEVER) {
            cr_assert(flow_held_bytes(&lane.flow) <= FLOW_BUFFER_BYTES);
        } else {
            /* 16 slots, each at most one large segment. */
            cr_assert(flow_held_bytes(&lane.flow) <= 16 * 65536);
        }
        lane_fini(&lane);
    }
}

/* --- giving up --- */

/* flow_stop(): what the channel holds is passed on, what the source still has is not read, and the
 * flow fails without FIN. */
Test(flow, stopped_delivers_what_it_holds_and_passes_on_no_fin)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;
        uint64_t taken;

        lane_init(&lane, LANE_UNIX, modes[i]);
        lane_stall(&lane);
        taken = lane.flow.bytes_in;
        lane_write_all(&lane, 5000);
        lane_shut(&lane);
        flow_stop(&lane.flow);
        lane_finish(&lane);
        cr_assert(lane.flow.state == FLOW_FAILED, "mode %d", modes[i]);
        cr_assert(fault_count(CALL_SHUTDOWN_WRITE, ANY_FD) == 0);
        cr_assert(lane.flow.bytes_in == taken, "mode %d: it went on reading", modes[i]);
        cr_assert(lane.received == taken, "mode %d", modes[i]);
        lane_fini(&lane);
    }
}

/* flow_stop() on a flow that already drains behind a FIN: FIN must not follow the bytes any more.
 * No engine gets there by itself, as both meet the end with an empty channel only; the state is set
 * by hand. */
Test(flow, stopped_while_draining_passes_on_no_fin)
{
    struct lane lane;

    lane_init(&lane, LANE_UNIX, SPLICE_NEVER);
    fault_shorten(CALL_SEND, ANY_FD, 1, 1, 100);
    fault_fail(CALL_SEND, ANY_FD, 2, 1, EAGAIN);
    lane_write_all(&lane, 1000);
    (void)lane_step(&lane);
    cr_assert(flow_held_bytes(&lane.flow) == 900);
    lane.flow.state = FLOW_DRAINING;
    flow_stop(&lane.flow);
    flow_stop(&lane.flow);
    cr_assert(lane.flow.state == FLOW_DRAINING, "stopping twice is stopping once");
    lane_finish(&lane);
    cr_assert(lane.flow.state == FLOW_FAILED);
    cr_assert(lane.received == 1000);
    cr_assert(fault_count(CALL_SHUTDOWN_WRITE, ANY_FD) == 0);
    lane_fini(&lane);
}

/* flow_fail(): buffer and pipe go back at once, and the flow still says how much was dropped. */
Test(flow, failed_counts_what_was_dropped_and_returns_what_it_borrowed)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;
        uint64_t held;

        lane_init(&lane, LANE_UNIX, modes[i]);
        lane_stall(&lane);
        held = flow_held_bytes(&lane.flow);
        cr_assert(held > 0);
        flow_fail(&lane.flow, &lane.supplies);
        cr_assert(lane.flow.state == FLOW_FAILED);
        cr_assert(flow_held_bytes(&lane.flow) == held);
        cr_assert(lane.supplies.buffers.objects_in_use == 0);
        cr_assert(lane.supplies.pipes.pipes_lent == 0);
        (void)lane_read_all(&lane);
        cr_assert(lane.received == flow_bytes_out(&lane.flow));
        cr_assert(lane.received + held == lane.flow.bytes_in);
        lane_fini(&lane);
    }
}

/* A pipe with bytes in it belongs to its connection: it is closed, never lent to another flow. */
Test(flow, never_gives_a_dirty_pipe_back_to_the_pool)
{
    struct lane lane;
    int read_fd;
    int write_fd;

    lane_init(&lane, LANE_UNIX, SPLICE_ALWAYS);
    lane_stall(&lane);
    cr_assert(lane.flow.pipe != NULL && lane.flow.pipe_bytes > 0);
    read_fd = lane.flow.pipe->read_fd;
    write_fd = lane.flow.pipe->write_fd;
    fault_clear();
    flow_fail(&lane.flow, &lane.supplies);
    cr_assert(lane.supplies.pipes.pipes_kept == 0);
    cr_assert(fault_count(CALL_CLOSE, read_fd) == 1);
    cr_assert(fault_count(CALL_CLOSE, write_fd) == 1);
    lane_fini(&lane);
}

/* --- urgent bytes, engines, counters --- */

static void write_urgent_byte(struct lane *lane)
{
    unsigned char byte;

    stream_fill(lane->key, lane->written, &byte, 1);
    cr_assert(send(lane->writer, &byte, 1, MSG_OOB) == 1);
    lane->written++;
}

/* Steps and reads until all that was written is through; the stream goes on. */
static void expect_all_delivered(struct lane *lane)
{
    for (int steps = 0; lane->received < lane->written; steps++) {
        cr_assert(steps < 10000, "stuck at %" PRIu64 " of %" PRIu64, lane->received, lane->written);
        (void)lane_step(lane);
        (void)lane_read_all(lane);
        lane->target.ready |= IO_WRITABLE;
    }
}

/* An urgent byte inside the stream, where splice stops and says "empty": marked by IO_URGENT, the
 * flow copies, and the byte arrives in its place, without waiting for the end of the stream. */
Test(flow, delivers_an_urgent_byte_in_its_place)
{
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;

        lane_init(&lane, LANE_TCP, modes[i]);
        lane_write_all(&lane, 70000);
        (void)lane_step(&lane);
        write_urgent_byte(&lane);
        lane.source.ready |= IO_READABLE | IO_URGENT; /* EPOLLIN | EPOLLPRI */
        expect_all_delivered(&lane);
        lane_write_all(&lane, 70000);
        expect_all_delivered(&lane);
        lane_shut(&lane);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        lane_fini(&lane);
    }
}

/* The urgent byte that comes while splice is at work: splice takes the source for empty, but the
 * byte's own edge sets both bits, and that is enough. */
Test(flow, goes_on_after_splice_has_stopped_before_an_urgent_byte)
{
    struct lane lane;

    lane_init(&lane, LANE_TCP, SPLICE_ALWAYS);
    lane_write_all(&lane, 1000);
    (void)lane_pump(&lane);
    write_urgent_byte(&lane);
    for (int waits = 0; queued(lane.source.fd) == 0; waits++) {
        cr_assert(waits < 10000, "loopback delivers at once, unless the machine is busy");
        (void)usleep(1000);
    }
    lane.source.ready |= IO_READABLE;
    /* Not lane_step(): this is the moment of error that it would report. */
    cr_assert(flow_step(&lane.flow, &lane.source, &lane.target, &lane.supplies) == FLOW_RESTS);
    cr_assert((lane.source.ready & IO_READABLE) == 0, "this kernel splices urgent bytes");
    lane.source.ready |= IO_READABLE | IO_URGENT;
    expect_all_delivered(&lane);
    lane_shut(&lane);
    lane_finish(&lane);
    lane_expect_complete(&lane);
    lane_fini(&lane);
}

/* `auto` copies small messages, splices once a read filled the whole buffer, and goes back to copy
 * when only a little comes between two moments of an empty source. */
Test(flow, changes_to_splice_for_bulk_and_back_for_messages)
{
    struct lane lane;

    lane_init(&lane, LANE_UNIX, SPLICE_AUTO);
    for (int i = 0; i < 5; i++) {
        lane_write_all(&lane, 1000);
        (void)lane_pump(&lane);
        (void)lane_read_all(&lane);
    }
    cr_assert(fault_count(CALL_SPLICE_IN, ANY_FD) == 0, "small messages are copied");
    lane_write_all(&lane, 150000);
    (void)lane_pump(&lane);
    cr_assert(fault_count(CALL_SPLICE_IN, ANY_FD) > 0, "bulk is spliced");
    (void)lane_read_all(&lane);
    (void)lane_pump(&lane);
    cr_assert(lane.flow.bytes_spliced > 0);
    lane_write_all(&lane, 1000); /* the first small one shows that bulk is over */
    (void)lane_pump(&lane);
    fault_clear();
    lane_write_all(&lane, 1000);
    (void)lane_pump(&lane);
    cr_assert(fault_count(CALL_SPLICE_IN, ANY_FD) == 0, "back to copy");
    cr_assert(fault_count(CALL_RECV, ANY_FD) > 0);
    lane_shut(&lane);
    lane_finish(&lane);
    lane_expect_complete(&lane);
    lane_fini(&lane);
}

/* Each engine does what the setting says: `never` makes no splice call, `always` sends nothing by
 * copy but asks recv once, for the end of the stream. */
Test(flow, uses_the_engine_it_was_told_to_use)
{
    struct lane lane;

    lane_init(&lane, LANE_UNIX, SPLICE_NEVER);
    lane_write_all(&lane, 200000);
    lane_shut(&lane);
    lane_finish(&lane);
    lane_expect_complete(&lane);
    cr_assert(fault_count(CALL_SPLICE_IN, ANY_FD) == 0 && fault_count(CALL_PIPE, ANY_FD) == 0);
    cr_assert(lane.flow.bytes_spliced == 0);
    lane_fini(&lane);

    lane_init(&lane, LANE_UNIX, SPLICE_ALWAYS);
    lane_write_all(&lane, 200000);
    lane_shut(&lane);
    lane_finish(&lane);
    lane_expect_complete(&lane);
    cr_assert(fault_count(CALL_SEND, ANY_FD) == 0);
    cr_assert(fault_count(CALL_RECV, ANY_FD) == 1);
    cr_assert(lane.flow.bytes_spliced == 200000);
    lane_fini(&lane);
}

/* Beyond 4 GiB every counter goes on: set near 2^32 by hand, then bytes are moved across it. */
Test(flow, counts_beyond_four_gigabytes)
{
    const uint64_t start = UINT32_MAX - 1000;

    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        struct lane lane;

        lane_init(&lane, LANE_UNIX, modes[i]);
        lane.flow.bytes_in = start;
        lane.flow.bytes_spliced = start;
        lane.flow.fill_run_bytes = UINT32_MAX - 1000;
        lane.written = start;
        lane.received = start;
        lane_write_all(&lane, 150000);
        lane_shut(&lane);
        lane_finish(&lane);
        lane_expect_complete(&lane);
        cr_assert(lane.flow.bytes_in == start + 150000);
        cr_assert(flow_bytes_out(&lane.flow) == start + 150000);
        if (modes[i] == SPLICE_ALWAYS) {
            cr_assert(lane.flow.bytes_spliced == start + 150000);
        }
        lane_fini(&lane);
    }
}
