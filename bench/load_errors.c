/*
 * load_errors: what went wrong with connections of the load: how often of each kind, and the first.
 *
 * A run with 10,000 connections can fail 10,000 times for one reason. So the kinds are counted, and
 * only the first error is told in words; the others are nearly always its consequence.
 *
 * Invariants:
 *   I1  A connection is counted at most once for each time it is opened: it is closed then.
 *   I2  `total` is the sum of `counts`.
 *
 * What it does not do: decide what an error is, or whether the run goes on.
 */
#include "load_errors.h"

#include <inttypes.h>
#include <string.h>

static const char *const kind_names[LOAD_ERROR_KINDS] = {
    [LOAD_ERROR_CONNECT] = "connect",         [LOAD_ERROR_BROKEN] = "broken",
    [LOAD_ERROR_EARLY_END] = "early_end",     [LOAD_ERROR_SILENT] = "silent",
    [LOAD_ERROR_WRONG_BYTES] = "wrong_bytes",
};

void load_errors_note(struct load_errors *errors, enum load_error_kind kind, const char *what,
                      const char *where, int error_number)
{
    errors->counts[kind]++;
    if (errors->total++ == 0) {
        (void)snprintf(errors->first, sizeof(errors->first), "%s, %s%s%s", where, what,
                       error_number != 0 ? ": " : "",
                       error_number != 0 ? strerror(error_number) : "");
    }
}

void load_errors_print(FILE *to, const struct load_errors *errors)
{
    fprintf(to, ",\"errors\":%" PRIu64 ",\"error_kinds\":{", errors->total);
    for (int kind = 0; kind < LOAD_ERROR_KINDS; kind++) {
        fprintf(to, "%s\"%s\":%" PRIu64, kind > 0 ? "," : "", kind_names[kind],
                errors->counts[kind]);
    }
    if (errors->total > 0) {
        fprintf(to, "},\"first_error\":\"%s\"", errors->first);
    } else {
        fputs("},\"first_error\":null", to);
    }
}

int load_errors_conclude(const struct load_errors *errors)
{
    if (errors->total == 0) {
        return 0;
    }
    fprintf(stderr, "load: %" PRIu64 " connections failed:", errors->total);
    for (int kind = 0; kind < LOAD_ERROR_KINDS; kind++) {
        if (errors->counts[kind] > 0) {
            fprintf(stderr, " %s %" PRIu64, kind_names[kind], errors->counts[kind]);
        }
    }
    fprintf(stderr, "; the first: %s\n", errors->first);
    return 1;
}
