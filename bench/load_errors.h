/*
 * load_errors: what went wrong with connections of the load: how often of each kind, and the first.
 *
 * Layer: only prints. Part of the program load.
 */
#ifndef BENCH_LOAD_ERRORS_H
#define BENCH_LOAD_ERRORS_H

#include <stdint.h>
#include <stdio.h>

enum load_error_kind {
    LOAD_ERROR_CONNECT,     /* it could not be opened */
    LOAD_ERROR_BROKEN,      /* a send or a receive failed: a reset, mostly */
    LOAD_ERROR_EARLY_END,   /* the peer ended it while the load still needed it */
    LOAD_ERROR_SILENT,      /* nothing moved for 10 s though the load was waiting for it */
    LOAD_ERROR_WRONG_BYTES, /* an echo that is not what was sent */
    LOAD_ERROR_KINDS        /* how many there are */
};

/* All zero is none. */
struct load_errors {
    uint64_t counts[LOAD_ERROR_KINDS];
    uint64_t total;
    char first[160]; /* has neither quotes nor backslashes, so that it can stand in JSON */
};

/** Counts one; `what` says what the load did, `where` to whom, error_number is 0 or an errno. */
void load_errors_note(struct load_errors *errors, enum load_error_kind kind, const char *what,
                      const char *where, int error_number);

/** Prints `,"errors":3,"error_kinds":{...},"first_error":"..."`, null for the last if there is
 *  none. */
void load_errors_print(FILE *to, const struct load_errors *errors);

/** One line for a person on stderr, if there were errors. Returns the exit status: 0 or 1. */
int load_errors_conclude(const struct load_errors *errors);

#endif
