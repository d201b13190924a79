/* Values below 64 have a bucket each; above, each doubling is cut into 32. */
#include "soak/latency.h"

#include <stddef.h>
#include <string.h>

static size_t bucket_of(uint64_t value)
{
    unsigned shift = 0;

    while (value >> shift >= (2 << LATENCY_STEP_BITS)) {
        shift++;
    }
    return ((size_t)shift << LATENCY_STEP_BITS) + (size_t)(value >> shift);
}

static uint64_t bucket_value(size_t bucket)
{
    size_t shift = bucket < (2 << LATENCY_STEP_BITS) ? 0 : (bucket >> LATENCY_STEP_BITS) - 1;

    return (uint64_t)(bucket - (shift << LATENCY_STEP_BITS)) << shift;
}

void latency_add(struct latency *latency, uint64_t us)
{
    size_t bucket = bucket_of(us);

    latency->buckets[bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1]++;
    latency->count++;
    if (us > latency->max_us) {
        latency->max_us = us;
    }
}

uint64_t latency_quantile(const struct latency *latency, unsigned percent)
{
    uint64_t seen = 0;

    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (seen > 0 && seen * 100 >= latency->count * percent) {
            return bucket_value(i);
        }
    }
    return 0;
}

void latency_clear(struct latency *latency)
{
    memset(latency, 0, sizeof(*latency));
}
