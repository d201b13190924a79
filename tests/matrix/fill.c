/* How a channel of sluice comes to hold bytes, in the pipe or in the buffer as the cell wants.
 *
 * A receiver that does not read makes sluice's socket to it full, and then what sluice takes stays in
 * its channel. There are two ways to get there:
 *
 *   messages   small ones, each taken before the next is sent. With --splice never and auto they end
 *              up in the buffer, because a direction with little to carry copies, and with always in
 *              the pipe.
 *   flood      all of it is there at once, since the worker is frozen meanwhile; the receiver reads
 *              the first part. This is for the pipe with --splice auto: a direction that always finds
 *              more has changed to splice when the receiver stops. Holding more than fits in a buffer
 *              is how we know; if it is less, the receiver reads everything and it is tried again.
 *
 * check_pipes() in batch.c then proves for all cells at once that the bytes are where they should be. */
#include "matrix/run.h"

#include "support/ends.h"
#include "support/procfs.h"

#include <criterion/criterion.h>

enum {
    KIB = 1024,
    BUFFER_BYTES = 64 * KIB,  /* sluice's */
    MESSAGE_BYTES = 24 * KIB, /* two of them don't fill a buffer */
    FLOOD_BYTES = 2048 * KIB,
    SHORT_FLOOD_BYTES = 1280 * KIB, /* when nothing may be left in the sender's kernel */
    FLOOD_READ_BYTES = 128 * KIB,
    MORE_BYTES = 256 * KIB, /* enough for the sender's own kernel to hold some */
    TRIM_BYTES = 8 * KIB,
    TRIM_EXTRA_STEPS = 6,
    TAKEN_WAIT_MS = 20,
    QUIET_MS = 40,
    /* TCP probes a closed window after 200 ms, 400 ms ... The answer may be reason enough to fill a
     * window that is small, or to enlarge the sender's buffer, which it does once. */
    SETTLED_MS = 700,
    WAIT_MS = 20000,
    TRIES_MAX = 12,
    MESSAGES_MAX = 2000,
    TRIM_STEPS_MAX = 4000
};

/* Calls `act` for each direction that is to be filled. */
typedef void lane_fn(struct run *run, enum side from);

static void for_held(struct batch *batch, lane_fn *act)
{
    for (size_t i = 0; i < batch->count; i++) {
        for (int from = 0; from < SIDES; from++) {
            if (cell_is_held(&batch->runs[i].cell, (enum side)from)) {
                act(&batch->runs[i], (enum side)from);
            }
        }
    }
}

static size_t counted;

static bool wants_flood(const struct run *run)
{
    return run->cell.at[RESIDUE] == RESIDUE_PIPE && run->cell.at[ENGINE] == ENGINE_SWITCH;
}

/* A FIN that is to be there before the reset can't stay behind unsent bytes. */
static bool needs_all_sent(const struct run *run, enum side from)
{
    return run->cell.at[KIND] == KIND_RST_AFTER_FIN && run->cell.at[FIRST] == (int)from;
}

/* --- until nothing moves --- */

static void look_again(struct run *run, enum side from)
{
    struct place before = run->lane[from].place;

    look(run, from);
    counted += !place_equal(&before, &run->lane[from].place);
}

static void settle(struct batch *batch, uint64_t quiet_ms)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    uint64_t moved_ms = monotonic_ms();

    while (monotonic_ms() - moved_ms < quiet_ms) {
        counted = 0;
        for_held(batch, look_again);
        if (pump(batch) || counted > 0) {
            moved_ms = monotonic_ms();
        } else {
            pause_ms(5);
        }
        cr_assert(monotonic_ms() < deadline, "the ways never fill up");
    }
}

/* --- message by message --- */

static void add_message(struct run *run, enum side from)
{
    if (!wants_flood(run) && !run->lane[from].is_full) {
        run->lane[from].goal += MESSAGE_BYTES;
        counted++;
    }
}

static bool is_taken(struct run *run)
{
    for (int from = 0; from < SIDES; from++) {
        struct lane *lane = &run->lane[from];

        if (!wants_flood(run) && cell_is_held(&run->cell, (enum side)from) && !lane->is_full) {
            look(run, (enum side)from);
            if (lane->sent < lane->goal || lane->place.unsent > 0 || lane->place.untaken > 0) {
                return false;
            }
        }
    }
    return true;
}

static void note_full(struct run *run, enum side from)
{
    struct lane *lane = &run->lane[from];

    if (!wants_flood(run)) {
        look(run, from);
        lane->is_full = lane->place.untaken > 0 && held_bytes(lane) > 0;
    }
}

/* A worker that sleeps has found every source empty or every channel full, and with auto that is what
 * makes a direction copy: the next message must not come before it. */
static void wait_for_rest(const struct batch *batch)
{
    for (int engine = 0; engine < ENGINES; engine++) {
        if (batch->stands[engine].connections > 0) {
            wait_for_state(batch->stands[engine].worker, 'S');
        }
    }
}

static void fill_by_messages(struct batch *batch)
{
    for (int i = 0; i < MESSAGES_MAX; i++) {
        counted = 0;
        for_held(batch, add_message);
        if (counted == 0) {
            return;
        }
        if (!pump_for(batch, is_taken, TAKEN_WAIT_MS)) {
            settle(batch, QUIET_MS);
            for_held(batch, note_full);
        }
        wait_for_rest(batch);
    }
}

/* --- a flood --- */

static void start_flood(struct run *run, enum side from)
{
    struct lane *lane = &run->lane[from];

    if (wants_flood(run) && !lane->is_full) {
        lane->goal = lane->sent + (needs_all_sent(run, from) ? SHORT_FLOOD_BYTES : FLOOD_BYTES);
        counted++;
    }
}

static void read_first_part(struct run *run, enum side from)
{
    struct lane *lane = &run->lane[from];

    if (wants_flood(run) && !lane->is_full) {
        lane->may_read = lane->read + FLOOD_READ_BYTES;
    }
}

static void flood(struct batch *batch)
{
    const struct stand *stand = &batch->stands[ENGINE_SWITCH];

    if (stand->connections > 0) {
        freeze(stand->worker);
        settle(batch, QUIET_MS);
        for_held(batch, read_first_part);
        thaw(stand->worker);
    }
    settle(batch, QUIET_MS);
}

static void stop_flood(struct run *run, enum side from)
{
    struct lane *lane = &run->lane[from];

    if (wants_flood(run) && !lane->is_full) {
        lane->goal = lane->sent;
        lane->is_full = lane->place.untaken > 0 && held_bytes(lane) > BUFFER_BYTES;
        lane->may_read = lane->is_full ? lane->read : NO_LIMIT;
    }
}

static bool is_full_or_read(struct run *run)
{
    for (int from = 0; from < SIDES; from++) {
        struct lane *lane = &run->lane[from];

        if (cell_is_held(&run->cell, (enum side)from) && !lane->is_full &&
            lane->read < lane->sent) {
            return false;
        }
    }
    return true;
}

static void stop_reading(struct run *run, enum side from)
{
    run->lane[from].may_read = run->lane[from].read;
}

static void fill_by_flood(struct batch *batch)
{
    for (int i = 0; i < TRIES_MAX; i++) {
        counted = 0;
        for_held(batch, start_flood);
        if (counted == 0) {
            return;
        }
        flood(batch);
        for_held(batch, stop_flood);
        pump_until(batch, is_full_or_read, "the end of a flood");
        for_held(batch, stop_reading);
    }
}

/* --- what the sender's own kernel holds --- */

static void send_more(struct run *run, enum side from)
{
    if (!wants_flood(run) && !needs_all_sent(run, from)) {
        run->lane[from].goal += MORE_BYTES;
    }
}

static void stop_sending(struct run *run, enum side from)
{
    run->lane[from].goal = run->lane[from].sent;
}

/* Lets the receiver read until the sender's kernel is rid of its bytes, and has a window again. */
static void trim(struct run *run, enum side from)
{
    struct lane *lane = &run->lane[from];

    if (!needs_all_sent(run, from) || !wants_flood(run) || lane->trim_steps > TRIM_EXTRA_STEPS) {
        return;
    }
    look(run, from);
    if (lane->place.unsent == 0) {
        lane->trim_steps++;
    }
    lane->may_read = lane->read + TRIM_BYTES;
    counted++;
}

static void trim_floods(struct batch *batch)
{
    for (int i = 0; i < TRIM_STEPS_MAX; i++) {
        counted = 0;
        for_held(batch, trim);
        if (counted == 0) {
            break;
        }
        if (!pump(batch)) {
            pause_ms(1);
        }
    }
    for_held(batch, stop_reading);
}

/* --- and whether it worked --- */

static bool is_as_wanted(struct run *run, enum side from)
{
    look(run, from);
    return held_bytes(&run->lane[from]) > 0 && run->lane[from].place.untaken > 0 &&
           (!needs_all_sent(run, from) || run->lane[from].place.unsent == 0);
}

static void begin_again(struct run *run, enum side from)
{
    struct lane *lane = &run->lane[from];

    if (!is_as_wanted(run, from)) {
        lane->is_full = false;
        lane->trim_steps = 0;
        lane->may_read = NO_LIMIT;
        counted++;
    }
}

static void expect_as_wanted(struct run *run, enum side from)
{
    if (!is_as_wanted(run, from)) {
        complain(&run->cell, "could not be set up: sluice holds %lld bytes, %llu are not sent",
                 (long long)held_bytes(&run->lane[from]),
                 (unsigned long long)run->lane[from].place.unsent);
    }
}

void fill(struct batch *batch)
{
    for (int i = 0; i < TRIES_MAX; i++) {
        fill_by_messages(batch);
        fill_by_flood(batch);
        for_held(batch, send_more);
        settle(batch, QUIET_MS);
        for_held(batch, stop_sending);
        trim_floods(batch);
        settle(batch, SETTLED_MS);
        counted = 0;
        for_held(batch, begin_again);
        if (counted == 0) {
            return;
        }
        pump_until(batch, is_full_or_read, "an end of what could not be held");
        for_held(batch, stop_reading);
    }
    for_held(batch, expect_as_wanted);
    expect_no_complaint();
}
