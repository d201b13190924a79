/* The account of the matrix: no cell is forgotten, and no reason is a false excuse. No cell is run
 * here. */
#include "matrix/cell.h"
#include "matrix/expect.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct cell cells[CELLS];
static unsigned obstacles[CELLS];

static void look_at_all(void)
{
    for (size_t i = 0; i < CELLS; i++) {
        cells[i] = cell_at(i);
        obstacles[i] = cell_obstacles(&cells[i]);
    }
}

/* The lowest reason counts, so that each cell counts once. */
static void print_account(size_t feasible, const size_t counts[REASONS])
{
    printf("close matrix: %d cells, %zu are run; %zu can't be:\n", CELLS, feasible,
           CELLS - feasible);
    for (unsigned reason = 0; reason < REASONS; reason++) {
        printf("  %5zu  %s\n", counts[reason], obstacle_text(reason));
    }
    (void)fflush(stdout);
}

TestSuite(matrix_account, .init = look_at_all);

/* Goal: the numbers add up. Method: count; cells that can be are run by matrix.c, in the plan that
 * cell_plan() gives them. */
Test(matrix_account, every_cell_is_run_or_has_a_reason)
{
    size_t counts[REASONS] = {0};
    size_t feasible = 0;
    size_t sum;

    for (size_t i = 0; i < CELLS; i++) {
        if (obstacles[i] == 0) {
            feasible++;
            cr_assert(cell_plan(&cells[i]) < PLANS);
        } else {
            counts[__builtin_ctz(obstacles[i])]++;
        }
    }
    print_account(feasible, counts);
    sum = feasible;
    for (unsigned reason = 0; reason < REASONS; reason++) {
        cr_assert(counts[reason] > 0, "never the case: %s", obstacle_text(reason));
        sum += counts[reason];
    }
    cr_assert(sum == CELLS);
    cr_assert(feasible > CELLS / 3);
}

/* Goal: the enumeration gives each combination once. Method: seven values out of seven ranges, all
 * different by their names, and as many as the product. */
Test(matrix_account, enumerates_each_combination_once)
{
    size_t product = 1;

    for (int axis = 0; axis < AXES; axis++) {
        product *= (size_t)axis_size((enum axis)axis);
    }
    cr_assert(product == CELLS);
    for (size_t i = 1; i < CELLS; i++) {
        int axis = 0;

        while (cells[i].at[axis] == cells[i - 1].at[axis]) {
            axis++;
            cr_assert(axis < AXES, "%s comes twice", cell_name(&cells[i]));
        }
        /* In order: so what comes later is greater than everything before. */
        cr_assert(cells[i].at[axis] == cells[i - 1].at[axis] + 1);
        cr_assert(cells[i].at[axis] < axis_size((enum axis)axis));
    }
}

static bool differs_only_in(const struct cell *a, const struct cell *b, unsigned axes)
{
    for (int axis = 0; axis < AXES; axis++) {
        if (a->at[axis] != b->at[axis] && (axes & 1U << axis) == 0) {
            return false;
        }
    }
    return true;
}

/* Goal: a reason depends on what it speaks of and on nothing else. Method: change any other axis; it
 * must still apply, or still not. */
Test(matrix_account, a_reason_depends_only_on_the_axes_that_it_names)
{
    for (size_t i = 0; i < CELLS; i++) {
        for (int axis = 0; axis < AXES; axis++) {
            for (int value = 0; value < axis_size((enum axis)axis); value++) {
                struct cell other = cells[i];
                unsigned changed;

                other.at[axis] = value;
                changed = cell_obstacles(&other) ^ obstacles[i];
                for (unsigned reason = 0; reason < REASONS; reason++) {
                    cr_assert((changed & 1U << reason) == 0 ||
                                  (obstacle_axes(reason) & 1U << axis) != 0,
                              "%s and %s: \"%s\"", cell_name(&cells[i]), cell_name(&other),
                              obstacle_text(reason));
                }
            }
        }
    }
}

/* Goal: no reason is idle, and none hides behind the others. Method: each is the only one for some
 * cell. */
Test(matrix_account, each_reason_is_the_only_one_somewhere)
{
    for (unsigned reason = 0; reason < REASONS; reason++) {
        size_t i = 0;

        while (i < CELLS && obstacles[i] != 1U << reason) {
            i++;
        }
        cr_assert(i < CELLS, "never alone: %s", obstacle_text(reason));
    }
}

/* Goal: no cell is excused by axes that have nothing to do with it. Method: with other values of the
 * axes that its reasons name, and only of those, there is a feasible cell. */
Test(matrix_account, what_can_t_be_can_be_with_other_values_of_what_the_reasons_name)
{
    for (size_t i = 0; i < CELLS; i++) {
        unsigned axes = 0;
        size_t j = 0;

        for (unsigned reason = 0; reason < REASONS; reason++) {
            axes |= (obstacles[i] & 1U << reason) != 0 ? obstacle_axes(reason) : 0;
        }
        while (j < CELLS && (obstacles[j] != 0 || !differs_only_in(&cells[i], &cells[j], axes))) {
            j++;
        }
        cr_assert(j < CELLS, "%s has reasons that do not explain it", cell_name(&cells[i]));
    }
}

/* Goal: what is not a combination of reasons is not excused: each value of each axis is run, with
 * each value of every other axis, unless one reason alone speaks of both. */
Test(matrix_account, any_two_values_meet_in_a_cell_that_is_run_or_are_named_by_one_reason)
{
    for (size_t i = 0; i < CELLS; i++) {
        for (int a = 0; a < AXES && obstacles[i] != 0; a++) {
            for (int b = 0; b < a; b++) {
                unsigned both = 1U << a | 1U << b;
                bool is_explained = false;
                size_t j = 0;

                for (unsigned reason = 0; reason < REASONS; reason++) {
                    is_explained = is_explained || ((obstacles[i] & 1U << reason) != 0 &&
                                                    (obstacle_axes(reason) & both) == both);
                }
                while (!is_explained && j < CELLS &&
                       (obstacles[j] != 0 || cells[j].at[a] != cells[i].at[a] ||
                        cells[j].at[b] != cells[i].at[b])) {
                    j++;
                }
                cr_assert(j < CELLS, "%s: two values that are never run together",
                          cell_name(&cells[i]));
            }
        }
    }
}

/* Goal: what a failure prints can be given back. Method: every name is parsed into its cell; with
 * CELL set, that one must be the name of a cell that is run. */
Test(matrix_account, a_cell_can_be_named)
{
    static const char *const wrong[] = {
        "",
        "client",
        "client:fin:idle:reading:empty:copy:v5",
        "client:fin:idle:reading:empty:copy",
        "client:fin:idle:reading:empty:copy:v4:",
        "clien:fin:idle:reading:empty:copy:v4",
    };
    const char *named = getenv("CELL");
    const char *problem;
    struct cell cell;

    for (size_t i = 0; i < CELLS; i++) {
        cr_assert(cell_parse(cell_name(&cells[i]), &cell, &problem));
        cr_assert(memcmp(&cell, &cells[i], sizeof(cell)) == 0);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_assert(!cell_parse(wrong[i], &cell, &problem), "\"%s\" is taken for a cell", wrong[i]);
    }
    if (named != NULL && *named != '\0') {
        cr_assert(cell_parse(named, &cell, &problem), "CELL=%s: %s", named, problem);
        cr_assert(cell_obstacles(&cell) == 0, "CELL=%s can't be: %s", named,
                  obstacle_text((unsigned)__builtin_ctz(cell_obstacles(&cell))));
    }
}
