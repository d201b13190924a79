/* The close matrix: every way in which a connection through sluice can end, generated.
 *
 * The problem. What goes wrong at the end of a connection goes wrong in a corner: a reset that meets
 * a blocked direction on a unix socket, a FIN that comes before the server is there. Nobody writes
 * down all corners by hand, and who writes down some leaves out the one that matters.
 *
 * The model. Seven axes (cell.h) give 6750 cells. For each, cell_obstacles() says why it can't be,
 * or it is run: against the real program, with real sockets (batch.c). What it must look like follows
 * from the contract (expect.c), and the byte counts from where the bytes were when the end came
 * (judge.c). Hundreds of cells run at once, in step; all of them wait together.
 *
 *    make test-matrix                                                   all cells
 *    make test-matrix CELL=client:rst:mid-up:paused:pipe:splice:v6      one of them
 *
 * Read cell.h and expect.c first; then batch.c, ending.c, judge.c. How bytes are made to wait in a
 * pipe or a buffer is in fill.c. */
#include "matrix/run.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALL_ENGINES = (1 << ENGINES) - 1, TWO_ENGINES = 1 << ENGINE_COPY | 1 << ENGINE_SPLICE };

enum {
    V4 = 1 << FAMILY_V4,
    V6 = 1 << FAMILY_V6,
    UNIX = 1 << FAMILY_UNIX,
    MIXED = 1 << FAMILY_V4_UNIX | 1 << FAMILY_UNIX_V4,
    ALL_FAMILIES = (1 << FAMILIES) - 1
};

/* Cells that run together in one process: as many as take some seconds. */
struct share {
    enum plan plan;
    int families;
};

static struct share shares[] = {
    {PLAN_PATIENT, V4},
    {PLAN_PATIENT, V6},
    {PLAN_PATIENT, UNIX},
    {PLAN_PATIENT, 1 << FAMILY_V4_UNIX},
    {PLAN_PATIENT, 1 << FAMILY_UNIX_V4},
    {PLAN_FIN_LIMIT, V4},
    {PLAN_FIN_LIMIT, V6},
    {PLAN_FIN_LIMIT, UNIX | MIXED},
    {PLAN_IDLE_LIMIT, ALL_FAMILIES},
    {PLAN_LATE, ALL_FAMILIES},
    {PLAN_LATE_FIN, ALL_FAMILIES},
    {PLAN_CONNECT_LIMIT, ALL_FAMILIES},
};

/* The same for two engines of three. */
static struct share twin_shares[] = {
    {PLAN_PATIENT, V4 | V6},
    {PLAN_PATIENT, UNIX | MIXED},
    {PLAN_FIN_LIMIT, ALL_FAMILIES},
    {PLAN_IDLE_LIMIT, ALL_FAMILIES},
    {PLAN_LATE, ALL_FAMILIES},
    {PLAN_LATE_FIN, ALL_FAMILIES},
    {PLAN_CONNECT_LIMIT, ALL_FAMILIES},
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static bool is_in(const struct share *share, const struct cell *cell)
{
    return cell_plan(cell) == share->plan && (share->families & 1 << cell->at[FAMILY]) != 0;
}

/* Goal: the shares together are the matrix. Method: count in how many each cell is. */
Test(matrix, every_feasible_cell_is_in_one_share)
{
    for (size_t i = 0; i < CELLS; i++) {
        struct cell cell = cell_at(i);
        size_t count = 0;
        size_t twin_count = 0;

        for (size_t j = 0; j < COUNT_OF(shares); j++) {
            count += is_in(&shares[j], &cell);
        }
        for (size_t j = 0; j < COUNT_OF(twin_shares); j++) {
            twin_count += is_in(&twin_shares[j], &cell);
        }
        cr_assert(cell_obstacles(&cell) != 0 || (count == 1 && twin_count == 1), "%s",
                  cell_name(&cell));
    }
}

/* CELL, if the user has named one. */
static const char *only_cell(void)
{
    const char *name = getenv("CELL");

    return name != NULL && *name != '\0' ? name : NULL;
}

static bool is_wanted(const struct cell *cell)
{
    return only_cell() == NULL || strcmp(only_cell(), cell_name(cell)) == 0;
}

static struct batch *new_batch(const struct share *share, int engines)
{
    struct batch *batch = calloc(1, sizeof(*batch));

    cr_assert(batch != NULL);
    batch->plan = share->plan;
    for (size_t i = 0; i < CELLS; i++) {
        struct cell cell = cell_at(i);

        if (cell_obstacles(&cell) == 0 && is_in(share, &cell) && is_wanted(&cell) &&
            (engines & 1 << cell.at[ENGINE]) != 0) {
            cr_assert(batch->count < RUNS_MAX);
            batch->runs[batch->count++].cell = cell;
        }
    }
    return batch;
}

ParameterizedTestParameters(matrix, every_cell_ends_as_the_contract_says)
{
    return cr_make_param_array(struct share, shares, COUNT_OF(shares));
}

/* DI-01, HC-01 to HC-04, HC-06, HC-10, HC-11, HC-15, HC-16, B28 to B36. Goal: whoever ends a
 * connection, how, when, and whatever is on the way: both peers see what the contract says, there is
 * one record that fits, and nothing is left. Method: batch.c. */
ParameterizedTest(struct share *share, matrix, every_cell_ends_as_the_contract_says)
{
    struct batch *batch = new_batch(share, ALL_ENGINES);

    if (batch->count > 0) {
        batch_run(batch);
    }
    free(batch);
}

/* --- both engines --- */

/* The cell with the other engine; false if there is none. */
static bool find_twin(const struct cell *copy, struct cell *ret_splice)
{
    *ret_splice = *copy;
    ret_splice->at[ENGINE] = ENGINE_SPLICE;
    if (copy->at[RESIDUE] == RESIDUE_BUFFER) {
        ret_splice->at[RESIDUE] = RESIDUE_PIPE; /* what is held is held where the engine holds it */
    }
    return cell_obstacles(ret_splice) == 0;
}

static const struct run *find_run(const struct batch *batch, const struct cell *cell)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (memcmp(&batch->runs[i].cell, cell, sizeof(*cell)) == 0) {
            return &batch->runs[i];
        }
    }
    return NULL;
}

/* How much of what had reached sluice came through, in words that both engines share. */
static const char *share_text(const struct lane *lane)
{
    uint64_t arrived = lane->fact_sent - lane->fact.unsent;

    return lane->read == 0 ? "nothing" : lane->read < arrived ? "a part" : "all";
}

static void compare_lanes(const struct run *copy, const struct run *splice, enum side from)
{
    const struct lane *a = &copy->lane[from];
    const struct lane *b = &splice->lane[from];

    if (a->view != b->view) {
        complain(&copy->cell, "with copy the receiver of the %s saw %s, with splice %s",
                 from == CLIENT ? "client" : "server", view_name(a->view), view_name(b->view));
    }
    if (strcmp(share_text(a), share_text(b)) != 0) {
        complain(&copy->cell, "from the %s, with copy %s came through, with splice %s",
                 from == CLIENT ? "client" : "server", share_text(a), share_text(b));
    }
    /* How much a pipe holds and how much a buffer is not the same, so neither is how much had to be
     * sent until they did; where nothing is held, every count is the same. */
    if (copy->cell.at[RESIDUE] == RESIDUE_EMPTY && a->read != b->read) {
        complain(&copy->cell, "from the %s, with copy %llu bytes came through, with splice %llu",
                 from == CLIENT ? "client" : "server", (unsigned long long)a->read,
                 (unsigned long long)b->read);
    }
}

static void compare_records(const struct run *copy, const struct run *splice)
{
    const char *pairs[][3] = {
        {"reason", copy->record.reason, splice->record.reason},
        {"closed_by", copy->record.closed_by, splice->record.closed_by},
        {"how", copy->record.how, splice->record.how},
        {"errno", copy->record.error, splice->record.error},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (strcmp(pairs[i][1], pairs[i][2]) != 0) {
            complain(&copy->cell, "%s with copy is \"%s\", with splice \"%s\"", pairs[i][0],
                     pairs[i][1], pairs[i][2]);
        }
    }
}

ParameterizedTestParameters(matrix, splice_and_copy_give_the_same_observable_result)
{
    return cr_make_param_array(struct share, twin_shares, COUNT_OF(twin_shares));
}

/* Goal: nobody can tell from outside which engine moved the bytes. Method: each cell that is feasible
 * in both is run with both, and what the peers saw and the record says is compared. May differ:
 * spliced_bytes, which is there to tell; ids, ports and times; where a channel holds bytes, how many
 * (see above); and of what is on its way to a process that is dead, how much the kernel still took
 * before it said RST (bytes_up or bytes_down, and undelivered_bytes). */
ParameterizedTest(struct share *share, matrix, splice_and_copy_give_the_same_observable_result)
{
    struct batch *batch = new_batch(share, TWO_ENGINES);
    size_t compared = 0;

    if (only_cell() != NULL) {
        free(batch);
        return;
    }
    batch_run(batch);
    for (size_t i = 0; i < batch->count; i++) {
        const struct run *copy = &batch->runs[i];
        struct cell cell;

        if (copy->cell.at[ENGINE] == ENGINE_COPY && find_twin(&copy->cell, &cell)) {
            const struct run *splice = find_run(batch, &cell);

            cr_assert(splice != NULL);
            compare_lanes(copy, splice, CLIENT);
            compare_lanes(copy, splice, SERVER);
            compare_records(copy, splice);
            compared++;
        }
    }
    cr_assert(2 * compared == batch->count, "%zu pairs of %zu cells", compared, batch->count);
    expect_no_complaint();
    free(batch);
}
