/* The simulation proves what it proves only if its kernel behaves as Linux does. Here short stories are
 * told to both, and their answers compared: see trace.h.
 *
 *   make sim FILTER='model/?*'     both tests
 *   make sim TRACE=4711            one generated trace again; shows what both answer
 *   make sim TRACES=100000         a long run
 */
#include "sim/kernel.h"
#include "sim/number.h"
#include "sim/trace.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PARTS = 2, TRACES_DEFAULT = 2000 };

static struct traced model;
static struct traced real;

static bool agree(const char *trace)
{
    trace_play(&model, &trace_model, trace);
    trace_play(&real, &trace_real, trace);
    return strcmp(model.text, real.text) == 0;
}

/* Leaves out, one by one, the words without which the two still differ. */
static void shorten(char *trace)
{
    char shorter[TRACE_TEXT_MAX];
    size_t start = 0;

    while (trace[start] != '\0') {
        size_t next = start + strcspn(trace + start, " ");

        next += strspn(trace + next, " ");
        (void)snprintf(shorter, sizeof(shorter), "%.*s%s", (int)start, trace, trace + next);
        if (!agree(shorter)) {
            memcpy(trace, shorter, strlen(shorter) + 1);
            start = 0;
        } else {
            start = next;
        }
    }
    (void)agree(trace);
}

static const char *side_by_side(void)
{
    static char both[2 * TRACE_TEXT_MAX + 4096];
    const char *left = model.text;
    const char *right = real.text;
    size_t len = 0;

    while (*left != '\0' || *right != '\0') {
        size_t left_len = strcspn(left, "\n");
        size_t right_len = strcspn(right, "\n");
        bool same = left_len == right_len && strncmp(left, right, left_len) == 0;

        len += (size_t)snprintf(both + len, sizeof(both) - len, "  %-40.*s %s %.*s\n",
                                (int)left_len, left, same ? " " : "#", (int)right_len, right);
        left += left_len + (left[left_len] == '\n');
        right += right_len + (right[right_len] == '\n');
        if (len >= sizeof(both) - 256) {
            break;
        }
    }
    return both;
}

/* --- hand-written --- */

ParameterizedTestParameters(model, behaves_like_the_kernel_for_hand_written_traces)
{
    static size_t indexes[256];

    for (size_t i = 0; i < trace_corners_len; i++) {
        indexes[i] = i;
    }
    return cr_make_param_array(size_t, indexes, trace_corners_len);
}

/* Each corner of trace_corners.c: both kernels give the answers that stand there, and to words without
 * an answer the same one. */
ParameterizedTest(size_t *index, model, behaves_like_the_kernel_for_hand_written_traces)
{
    const struct trace_corner *corner = &trace_corners[*index];
    bool same = agree(corner->trace);

    cr_assert(same && model.surprises == 0 && real.surprises == 0,
              "%s\n  %s\nmodel, and the kernel of this machine:\n%s", corner->title, corner->trace,
              side_by_side());
}

/* --- generated --- */

ParameterizedTestParameters(model, behaves_like_the_kernel_for_generated_traces)
{
    static int parts[PARTS];

    for (int i = 0; i < PARTS; i++) {
        parts[i] = i;
    }
    return cr_make_param_array(int, parts, PARTS);
}

static void compare(uint64_t seed)
{
    char trace[TRACE_TEXT_MAX];

    trace_generate(seed, trace, sizeof(trace));
    if (agree(trace)) {
        return;
    }
    shorten(trace);
    cr_assert_fail("trace %" PRIu64 ", shortened:\n  %s\nmodel, and the kernel of this machine:\n%s"
                   "replay: make sim TRACE=%" PRIu64,
                   seed, trace, side_by_side(), seed);
}

/* For every seed the same answers: counts, errors, the bits of epoll, and in which order. */
ParameterizedTest(int *part, model, behaves_like_the_kernel_for_generated_traces)
{
    uint64_t only = number_from("TRACE", 0);
    uint64_t traces = (number_from("TRACES", TRACES_DEFAULT) + PARTS - 1) / PARTS;
    uint64_t first = 1 + (uint64_t)*part * traces;

    if (only != 0) {
        char trace[TRACE_TEXT_MAX];

        if (*part != 0) {
            return;
        }
        trace_generate(only, trace, sizeof(trace));
        (void)agree(trace);
        (void)fprintf(stderr, "trace %" PRIu64 ": %s\n%s\n", only, trace, side_by_side());
        compare(only);
        return;
    }
    for (uint64_t seed = first; seed < first + traces; seed++) {
        compare(seed);
    }
}
