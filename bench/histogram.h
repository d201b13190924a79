/*
 * histogram: how long things took, in buckets that are at most 1/128 of their value wide.
 *
 * Layer: the lowest of the bench; no clock, no allocation.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_STEP_BITS  7  /* 128 buckets for each power of two */
#define HISTOGRAM_VALUE_BITS 36 /* 2^36 ns are 68.7 s */
#define HISTOGRAM_VALUE_MAX  ((UINT64_C(1) << HISTOGRAM_VALUE_BITS) - 1)
#define HISTOGRAM_BUCKETS    ((HISTOGRAM_VALUE_BITS - HISTOGRAM_STEP_BITS + 1) << HISTOGRAM_STEP_BITS)

/* All zero is an empty one. */
struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS];
    uint64_t count;
    uint64_t sum_ns; /* exact, of the values as given: overflows after 584 years */
    uint64_t max_ns; /* exact */
};

/** Counts one value. A negative one counts as 0; one above HISTOGRAM_VALUE_MAX in the last
 *  bucket. */
void histogram_add(struct histogram *histogram, int64_t value_ns);

/** The value that per_100_000 of each 100,000 do not exceed: the top of its bucket, so up to 0.79 %
 *  too large and never too small; 0 if nothing was counted. */
uint64_t histogram_quantile_ns(const struct histogram *histogram, uint32_t per_100_000);

/** Prints `,"NAME":12.3` in microseconds for that quantile, null if nothing was counted. */
void histogram_print_quantile_us(FILE *to, const struct histogram *histogram, const char *name,
                                 uint32_t per_100_000);

/** The same for the mean and the largest value, both exact. */
void histogram_print_mean_us(FILE *to, const struct histogram *histogram, const char *name);
void histogram_print_max_us(FILE *to, const struct histogram *histogram, const char *name);

#endif
