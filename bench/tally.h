/*
 * tally: what the origin has done so far, in a file that others may read while it runs.
 *
 * The file has a row of TALLY_SLOTS unsigned 64-bit numbers, in this machine's byte order, for each
 * worker, mapped shared. Each row has one writer. A reader may take the sums at any moment: every
 * number only grows, and is exact as of some moment just now; two numbers need not be of the same.
 */
#ifndef BENCH_TALLY_H
#define BENCH_TALLY_H

#include <stdint.h>

/* The order is the layout of the file. */
enum tally {
    TALLY_REQUESTS,      /* HTTP: replies that the kernel has taken completely, refusals too */
    TALLY_ACCEPTED,      /* connections of all services */
    TALLY_CLOSED,        /* of those; the end of the process closes more, which nobody counts */
    TALLY_RAW_RECEIVED,  /* bytes, echo, sink and source */
    TALLY_RAW_SENT,      /* bytes taken by the kernel, echo and source */
    TALLY_HTTP_BODY_SENT /* bytes of bodies taken by the kernel */
};

#define TALLY_SLOTS 8 /* a row is 64 bytes, one cache line: workers do not disturb each other */

/* The row that this process writes (borrowed): before tally_select() one that nobody reads. */
extern uint64_t *tally_row;

/* Makes `path` a file of `workers` rows of zeros, before any worker is forked. Returns 0, or a
 * negative errno. */
int tally_open(const char *path, int workers);

/* In the worker itself: from now on it counts in row `worker`. Nothing without a tally_open(). */
void tally_select(int worker);

/* A plain load and store, as there is one writer; atomic so that no reader sees half a number. */
static inline void tally_add(enum tally which, uint64_t count)
{
    __atomic_store_n(&tally_row[which], tally_row[which] + count, __ATOMIC_RELAXED);
}

#endif
