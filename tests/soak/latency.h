/* Soak: how long small requests took. */
#ifndef SOAK_LATENCY_H
#define SOAK_LATENCY_H

#include <stdint.h>

enum { LATENCY_STEP_BITS = 5, LATENCY_BUCKETS = 64 << LATENCY_STEP_BITS };

/** A histogram with steps of 1/32 of the value. */
struct latency {
    uint64_t buckets[LATENCY_BUCKETS];
    uint64_t count;
    uint64_t max_us;
};

void latency_add(struct latency *latency, uint64_t us);
/** A value that `percent` of those added do not exceed, but for a step; 0 if there are none. */
uint64_t latency_quantile(const struct latency *latency, unsigned percent);
void latency_clear(struct latency *latency);

#endif
