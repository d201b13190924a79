/* Fuzzes one direction of a connection, relay/flow.c, against a kernel whose every answer is a
 * choice.
 *
 * The problem. A flow is right only if it is right for each order of events and each legal result
 * of each call, and people think of few of them. Here both come from the input, so libFuzzer looks
 * for those that reach new code.
 *
 * The model. Two lanes, each a flow with a source and a target, share the supplies. A source is a
 * number of bytes that have arrived, perhaps FIN, perhaps an error; a target is a number of bytes
 * that it would take. A pipe has slots. No byte is stored: which one comes at an offset follows
 * from a pattern, so a byte that is lost, doubled, moved or of the other lane is known where it is
 * sent. Edges are those of epoll: something that arrives gives one, room gives one only after a
 * call that found none (SOCK_NOSPACE), and the input decides when they are delivered.
 *
 * Oracles
 *   F1 Output is input: in order, once, of that lane, and nothing more is held than taken minus
 *      given.
 *   F2 FIN is passed on once, after the last byte, and for no source that failed or was stopped.
 *   F3 A flow that rests has been told everything: for whatever could move, an edge is still to
 *      come.
 *   F4 A buffer or pipe is borrowed only while it holds bytes; a pipe that is back is empty.
 *   F5 A flow starves only in a shortage, asks for another turn only when it got on, fails for a
 *      cause.
 *   F6 Once everything is ready, each lane ends soon, and what was received before a failure of the
 *      source, or before flow_stop(), is delivered.
 *
 * The kernel is model/calls.c, which defines every function of net/sys.h: the linker leaves the
 * real ones in the archive. */
#include "relay/flow.h"
#include "base/check.h"
#include "fuzz/model/model.h"

#include <errno.h>

/* At worst a buffer or a slot at a time, by the two lanes in turn; a refused pipe or a shortage on
 * top. */
enum { TURNS_MAX = 32 + LANES * SENT_MAX / FLOW_BUFFER_BYTES };

/* --- what happens to a lane --- */

static void arrive(struct lane *lane, uint64_t len)
{
    if (lane->fin || lane->source_broken || lane->sent + len > SENT_MAX) {
        return;
    }
    lane->sent += len;
    lane->source_edge = true;
}

static void make_room(struct lane *lane, uint64_t len)
{
    lane->room += len;
    lane->target_edge = lane->target_edge || lane->nospace;
    lane->nospace = false;
}

static void end_source(struct lane *lane)
{
    lane->fin = lane->fin || !lane->source_broken;
    lane->source_edge = true;
}

/* tcp_reset(): EPIPE behind FIN. */
static void break_source(struct lane *lane, uint8_t choice)
{
    static const int errors[] = {ECONNRESET, ETIMEDOUT, EHOSTUNREACH, EPIPE};

    if (lane->source_broken) {
        return;
    }
    lane->source_broken = true;
    lane->source_error = errors[lane->fin && choice % 2 == 0 ? 3 : choice % 3];
    lane->source_edge = true;
}

static void break_target(struct lane *lane, uint8_t choice)
{
    static const int errors[] = {ECONNRESET, EPIPE, ETIMEDOUT};

    if (!lane->target_broken) {
        lane->target_broken = true;
        lane->target_error = errors[choice % 3];
        lane->target_edge = true;
    }
}

/* ep_send_events(): an edge brings the present state. `notice`: the session takes SO_ERROR
 * first. */
static void deliver_source(struct lane *lane, bool notice)
{
    if (!lane->source_edge) {
        return;
    }
    lane->source_edge = false;
    if (lane->sent > lane->taken || lane->fin || lane->source_broken) {
        lane->source.ready |= IO_READABLE;
    }
    if (lane->urgent_at != NO_OFFSET) {
        lane->source.ready |= IO_URGENT;
    }
    if (notice && lane->source_error != 0) {
        io_set_error(&lane->source, lane->source_error);
        lane->source_error = 0;
    }
}

static void deliver_target(struct lane *lane, bool notice)
{
    if (!lane->target_edge) {
        return;
    }
    lane->target_edge = false;
    if (lane->room > 0 || lane->target_broken) {
        lane->target.ready |= IO_WRITABLE;
    } else {
        lane->nospace = true; /* tcp_poll() */
    }
    if (notice && lane->target_error != 0) {
        io_set_error(&lane->target, lane->target_error);
        lane->target_error = 0;
    }
}

static void hoard_buffers(void)
{
    while (world.hoarded < HOARD_MAX) {
        void *buffer = slab_get(&world.supplies.buffers);

        if (buffer == NULL) {
            return;
        }
        world.hoard[world.hoarded++] = buffer;
    }
}

static void return_hoard(void)
{
    while (world.hoarded > 0) {
        slab_put(&world.supplies.buffers, world.hoard[--world.hoarded]);
    }
}

/* --- the oracles --- */

static void check_lane(const struct lane *lane)
{
    const struct flow *flow = &lane->flow;
    uint64_t held = lane->taken - lane->given;

    EXPECT(flow->bytes_in == lane->taken, "F1: bytes_in %llu, taken %llu",
           (unsigned long long)flow->bytes_in, (unsigned long long)lane->taken);
    EXPECT(flow_held_bytes(flow) == held, "F1: says that it holds %llu, it is %llu",
           (unsigned long long)flow_held_bytes(flow), (unsigned long long)held);
    EXPECT(flow->bytes_spliced <= lane->given, "F1: more bytes spliced than given");
    if (flow->state == FLOW_FINISHED) {
        EXPECT(lane->shut && held == 0, "F2: finished without FIN");
    }
    if (flow->state == FLOW_FAILED) {
        EXPECT(lane->source_broken || lane->target_broken || lane->stopped || lane->failed,
               "F5: fails without a cause");
        EXPECT(!lane->shut, "F2: fails after FIN");
    }
}

static void check_supplies(void)
{
    size_t buffers = world.hoarded;
    size_t pipes = 0;

    for (int i = 0; i < LANES; i++) {
        const struct lane *lane = &world.lanes[i];
        uint64_t piped = model_piped_bytes(i);

        EXPECT(!flow_is_over(&lane->flow) || piped == 0, "F4: lane %d left a full pipe", i);
        if (!flow_is_over(&lane->flow)) {
            buffers += lane->taken - lane->given > piped;
            pipes += piped > 0;
        }
    }
    EXPECT(world.supplies.buffers.objects_in_use == buffers, "F4: %zu buffers lent, %zu hold bytes",
           world.supplies.buffers.objects_in_use, buffers);
    EXPECT(world.supplies.pipes.pipes_lent == pipes, "F4: %zu pipes lent, %zu hold bytes",
           world.supplies.pipes.pipes_lent, pipes);
}

/* F3 */
static void check_rest(const struct lane *lane)
{
    uint64_t held = lane->taken - lane->given;
    bool source_has = lane->sent > lane->taken || lane->fin || lane->source_broken;
    bool target_has = lane->room > 0 || lane->target_broken;

    if (flow_is_over(&lane->flow)) {
        return;
    }
    EXPECT(flow_may_rest(&lane->flow, &lane->source, &lane->target), "F3: its own rule forbids it");
    if (held == 0) {
        EXPECT(lane->flow.state == FLOW_OPEN, "F3: rests with nothing but the end to pass on");
        EXPECT(!source_has || lane->source_edge, "F3: rests while its source has something");
    } else {
        EXPECT(!target_has || lane->target_edge, "F3: rests while its target has room");
        EXPECT(target_has || lane->nospace || lane->target_edge, "F3: will not be told of room");
    }
}

static void step(struct lane *lane)
{
    uint64_t before = lane->taken + lane->given + lane->flow.state;
    const struct slab *buffers = &world.supplies.buffers;
    enum flow_outcome outcome;

    lane->met_shortage = false;
    outcome = flow_step(&lane->flow, &lane->source, &lane->target, &world.supplies);
    EXPECT(!lane->fin_is_due || flow_is_over(&lane->flow), "F2: bytes wait for an announced FIN");
    switch (outcome) {
    case FLOW_RESTS:
        check_rest(lane);
        lane->idle_turns = 0;
        return;
    case FLOW_HAS_MORE:
        lane->idle_turns += lane->taken + lane->given + lane->flow.state == before;
        EXPECT(lane->idle_turns <= 1, "F5: asks for turn after turn and does not get on");
        return;
    case FLOW_STARVES:
        EXPECT(lane->met_shortage || buffers->objects_in_use == buffers->objects_max,
               "F5: starves and nothing is short");
        return;
    }
}

/* --- a run --- */

static void act(struct lane *lane, uint8_t action)
{
    struct input *input = &world.input;

    switch (action & 15) {
    case 0:
        arrive(lane, 1 + input_byte(input));
        return;
    case 1:
        arrive(lane, 1 + 1448 * input_below(input, 64));
        return;
    case 2:
        arrive(lane, 1 + input_below(input, 512 * 1024));
        return;
    case 3:
        make_room(lane, 1 + input_byte(input));
        return;
    case 4:
        make_room(lane, 1 + input_below(input, 1 << 20));
        return;
    case 5:
        deliver_source(lane, (action & 16) != 0);
        return;
    case 6:
        deliver_target(lane, (action & 16) != 0);
        return;
    case 7:
        end_source(lane);
        return;
    case 8:
        break_source(lane, action >> 4);
        return;
    case 9:
        break_target(lane, action >> 4);
        return;
    case 10: /* an event without cause: legal, and harmless */
        lane->source.ready |= IO_READABLE;
        lane->target.ready |= IO_WRITABLE;
        return;
    case 11:
        if ((action & 16) != 0) {
            hoard_buffers();
        } else {
            return_hoard();
        }
        return;
    case 12:
        lane->urgent_at = lane->sent > 0 ? lane->sent - 1 : NO_OFFSET;
        lane->source_edge = true;
        return;
    case 13:
        lane->stopped = lane->stopped || (action & 16) != 0;
        lane->failed = lane->failed || (action & 16) == 0;
        if ((action & 16) != 0) {
            flow_stop(&lane->flow);
        } else {
            flow_fail(&lane->flow, &world.supplies);
        }
        return;
    default:
        step(lane);
    }
}

/* Their pages stay from run to run, which doubles the speed; each run returns all buffers. */
static struct slab slabs[2];

static void prepare(const uint8_t *bytes, size_t len)
{
    static struct metrics metrics;
    struct flow_supplies *supplies = &world.supplies;
    uint8_t choice;

    model_reset(bytes, len);
    choice = input_byte(&world.input);
    supplies->splice = (enum splice_mode)(choice % 3);
    if (slabs[0].object_bytes == 0) {
        slab_init(&slabs[0], FLOW_BUFFER_BYTES, 1);
        slab_init(&slabs[1], FLOW_BUFFER_BYTES, 2);
    }
    supplies->buffers = slabs[(choice >> 2) % 2];
    CHECK(pipe_pool_init(&supplies->pipes, (choice >> 3) % 3, PIPE_BYTES_DEFAULT, &metrics) == 0);
}

static bool both_are_over(void)
{
    return flow_is_over(&world.lanes[0].flow) && flow_is_over(&world.lanes[1].flow);
}

/* F6 */
static void let_end(void)
{
    return_hoard();
    for (int i = 0; i < LANES; i++) {
        make_room(&world.lanes[i], SENT_MAX);
        end_source(&world.lanes[i]);
    }
    for (unsigned turn = 0; turn < TURNS_MAX && !both_are_over(); turn++) {
        for (int i = 0; i < LANES; i++) {
            deliver_source(&world.lanes[i], true);
            deliver_target(&world.lanes[i], true);
            step(&world.lanes[i]);
            check_supplies();
        }
    }
    for (int i = 0; i < LANES; i++) {
        const struct lane *lane = &world.lanes[i];

        check_lane(lane);
        EXPECT(flow_is_over(&lane->flow), "F6: lane %d does not end", i);
        if (lane->target_broken || lane->failed) {
            continue;
        }
        EXPECT(lane->given == lane->taken, "F6: lane %d keeps what it took", i);
        EXPECT(lane->given == lane->sent || lane->stopped, "F6: lane %d leaves bytes behind", i);
        EXPECT(lane->shut || lane->stopped || lane->source_broken, "F6: lane %d lost the FIN", i);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    prepare(bytes, len);
    while (world.input.left > 0) {
        uint8_t action = input_byte(&world.input);
        struct lane *lane = &world.lanes[action >> 7];

        act(lane, action);
        check_lane(lane);
        check_supplies();
    }
    let_end();
    EXPECT(world.supplies.buffers.objects_in_use == 0, "F4: a buffer is still lent");
    slabs[world.supplies.buffers.objects_max - 1] = world.supplies.buffers;
    pipe_pool_fini(&world.supplies.pipes);
    return 0;
}
