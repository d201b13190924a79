/* The rules. They know the contract (README, "What it promises", and the table of reasons) and what
 * the kernel makes of each kind of end; they do not know how sluice works inside.
 *
 *   1. FIN is passed on behind the last byte; then the other direction goes on until its own FIN.
 *      Two FINs are a clean end, whose reason names the one that came last.
 *   2. A reset is passed on behind what came before it. A stream that had its FIN before the reset
 *      ends with that FIN; the reset follows.
 *   3. A dead process that had read everything sent FIN. Whoever sends to it is told by RST.
 *   4. Bytes that nobody takes keep the connection open. Nothing moves then, so idle-timeout ends
 *      it; fin-timeout, if one direction has ended, be it by FIN or by reset.
 *   5. What sluice ends by itself is a reset to both sides.
 *   6. Before a server is met: a client's reset is client-abort, its FIN changes nothing, a server
 *      that does not come is connect-timeout.
 *
 * errno: EPIPE is the kernel's word for a reset behind FIN, and for sending to a unix socket whose
 * other end is gone; ECONNRESET for every other reset. */
#include "matrix/expect.h"

static enum side closer(const struct cell *cell)
{
    return (enum side)cell->at[FIRST];
}

static bool was_reset(const struct cell *cell)
{
    return cell->at[KIND] == KIND_RST || cell->at[KIND] == KIND_RST_AFTER_FIN ||
           cell->at[KIND] == KIND_KILL_UNREAD;
}

static const char *reset_error(const struct cell *cell)
{
    return cell->at[KIND] == KIND_RST || cell->at[KIND] == KIND_KILL_UNREAD ? "ECONNRESET"
                                                                            : "EPIPE";
}

static const char *side_text(enum side side)
{
    return side == CLIENT ? "client" : "server";
}

const char *view_name(enum view view)
{
    static const char *const names[VIEWS] = {"nothing", "FIN", "a reset", "FIN, then a reset"};

    return names[view];
}

static bool never_meets_server(const struct cell *cell)
{
    return cell->at[MOMENT] == MOMENT_CONNECT && closer(cell) == CLIENT &&
           cell->at[SINK] == SINK_NEVER;
}

/* Rule 3: bytes are on their way to a process that is dead. */
static bool meets_dead_process(const struct cell *cell)
{
    return cell->at[KIND] == KIND_KILL && cell_moves(cell, other_side(closer(cell)));
}

static bool is_stuck(const struct cell *cell)
{
    return cell->at[SINK] == SINK_NEVER && cell_is_held(cell, closer(cell));
}

static struct expected timed_out(const char *reason, const char *error)
{
    return (struct expected){
        .reason = reason, .closed_by = "proxy", .how = "timeout", .error = error};
}

/* Rule 6, for those who never meet a server. */
static struct expected expect_unmet(const struct cell *cell)
{
    struct expected expected = timed_out("connect-timeout", "ETIMEDOUT");

    if (was_reset(cell)) {
        return (struct expected){.reason = "client-abort",
                                 .closed_by = "client",
                                 .how = "rst",
                                 .error = reset_error(cell)};
    }
    expected.closer = cell->at[KIND] == KIND_FIN ? VIEW_RESET : VIEW_NONE;
    return expected;
}

/* Rules 4 and 5. */
static struct expected expect_waiting_for_ever(const struct cell *cell)
{
    bool stuck = is_stuck(cell);
    struct expected expected = timed_out(stuck && !was_reset(cell) ? "idle-timeout" : "fin-timeout",
                                         was_reset(cell) ? reset_error(cell) : NULL);

    expected.stuck = stuck;
    expected.closer = cell->at[KIND] == KIND_FIN ? VIEW_RESET : VIEW_NONE;
    expected.other = stuck ? VIEW_RESET : VIEW_FIN_RESET;
    return expected;
}

/* Rules 2 and 3. */
static struct expected expect_reset(const struct cell *cell)
{
    bool had_fin = cell->at[KIND] == KIND_RST_AFTER_FIN || cell->at[KIND] == KIND_KILL;

    return (struct expected){
        .reason = closer(cell) == CLIENT ? "client-reset" : "server-reset",
        .closed_by = side_text(closer(cell)),
        .how = "rst",
        .error = reset_error(cell),
        .other = had_fin ? VIEW_FIN_RESET : VIEW_RESET,
    };
}

bool cell_is_clean(const struct cell *cell)
{
    return !was_reset(cell) && !meets_dead_process(cell) && cell->at[SINK] != SINK_NEVER;
}

struct expected expect_cell(const struct cell *cell)
{
    if (never_meets_server(cell)) {
        return expect_unmet(cell);
    }
    if (cell_is_clean(cell)) {
        return (struct expected){
            .reason = closer(cell) == CLIENT ? "server-fin" : "client-fin",
            .closed_by = side_text(closer(cell)),
            .how = "fin",
            .closer = cell->at[KIND] == KIND_FIN ? VIEW_FIN : VIEW_NONE,
            .other = VIEW_FIN,
        };
    }
    if (is_stuck(cell) || !(was_reset(cell) || meets_dead_process(cell))) {
        return expect_waiting_for_ever(cell);
    }
    return expect_reset(cell);
}

enum plan cell_plan(const struct cell *cell)
{
    bool late = cell->at[MOMENT] == MOMENT_CONNECT;

    if (cell->at[SINK] != SINK_NEVER) {
        return late ? PLAN_LATE : PLAN_PATIENT;
    }
    if (never_meets_server(cell)) {
        return PLAN_CONNECT_LIMIT;
    }
    if (is_stuck(cell) && !was_reset(cell)) {
        return PLAN_IDLE_LIMIT;
    }
    return late ? PLAN_LATE_FIN : PLAN_FIN_LIMIT;
}
