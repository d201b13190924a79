/*
 * histogram: how long things took, in buckets that are at most 1/128 of their value wide.
 *
 * A run of a minute at 100,000 messages a second has six million latencies, and the interesting
 * ones are the few largest. Keeping them all to sort them would make the load compete for the cache
 * with what it measures; steps of equal width would be too coarse for 20 us or too many for 60 s.
 * So the width doubles with the value:
 *
 *   value, ns          buckets   width, ns
 *   0 .. 127           128       1
 *   128 .. 255         128       1
 *   256 .. 511         128       2
 *   ...                ...       ...
 *   2^35 .. 2^36 - 1   128       2^28
 *
 * The number of a bucket is what is left of the value when all but its top 8 bits are shifted out,
 * plus 128 for each bit shifted: one count-leading-zeros, one shift, one addition.
 *
 * Invariants:
 *   I1  The buckets' sum is `count`.
 *   I2  A quantile is at least the true one, at most 1/128 above it, and never above the maximum.
 *
 * What it does not do: values above 68.7 s (they are in the last bucket; mean and maximum are still
 * right), merging, threads.
 */
#include "histogram.h"

static uint32_t bucket_of(uint64_t value_ns)
{
    uint32_t shift = 0;

    if (value_ns > HISTOGRAM_VALUE_MAX) {
        value_ns = HISTOGRAM_VALUE_MAX;
    }
    if (value_ns >> HISTOGRAM_STEP_BITS != 0) {
        shift = (uint32_t)(63 - __builtin_clzll(value_ns)) - HISTOGRAM_STEP_BITS;
    }
    return (shift << HISTOGRAM_STEP_BITS) + (uint32_t)(value_ns >> shift);
}

/* The largest value that is counted in this bucket. */
static uint64_t bucket_top_ns(uint32_t bucket)
{
    uint32_t shift = 0;

    if (bucket >> HISTOGRAM_STEP_BITS != 0) {
        shift = (bucket >> HISTOGRAM_STEP_BITS) - 1;
    }
    return ((((uint64_t)bucket - ((uint64_t)shift << HISTOGRAM_STEP_BITS)) + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, int64_t value_ns)
{
    uint64_t value = value_ns < 0 ? 0 : (uint64_t)value_ns;

    histogram->buckets[bucket_of(value)]++;
    histogram->count++;
    histogram->sum_ns += value;
    if (value > histogram->max_ns) {
        histogram->max_ns = value;
    }
}

uint64_t histogram_quantile_ns(const struct histogram *histogram, uint32_t per_100_000)
{
    /* Rounded up: the median of three is the second. Counts here are far below 2^47. */
    uint64_t rank = (histogram->count * per_100_000 + 99999) / 100000;
    uint64_t seen = 0;

    for (uint32_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= rank && seen > 0) {
            uint64_t top_ns = bucket_top_ns(bucket);
            return top_ns < histogram->max_ns && bucket < HISTOGRAM_BUCKETS - 1 ? top_ns
                                                                                : histogram->max_ns;
        }
    }
    return 0;
}

static void print_us(FILE *to, const struct histogram *histogram, const char *name, double value_ns)
{
    if (histogram->count == 0) {
        fprintf(to, ",\"%s\":null", name);
    } else {
        fprintf(to, ",\"%s\":%.1f", name, value_ns / 1000);
    }
}

void histogram_print_quantile_us(FILE *to, const struct histogram *histogram, const char *name,
                                 uint32_t per_100_000)
{
    print_us(to, histogram, name, (double)histogram_quantile_ns(histogram, per_100_000));
}

void histogram_print_mean_us(FILE *to, const struct histogram *histogram, const char *name)
{
    double count = histogram->count == 0 ? 1 : (double)histogram->count;

    print_us(to, histogram, name, (double)histogram->sum_ns / count);
}

void histogram_print_max_us(FILE *to, const struct histogram *histogram, const char *name)
{
    print_us(to, histogram, name, (double)histogram->max_ns);
}
