/* Test support: a byte stream that proves itself. Each byte is computed from a key and its offset, so a
 * receiver that knows the key finds any byte that is lost, doubled, moved or foreign. */
#ifndef SUPPORT_STREAM_H
#define SUPPORT_STREAM_H

#include <stddef.h>
#include <stdint.h>

/** Fills `bytes` with the stream of `key` from `offset` on. */
void stream_fill(uint64_t key, uint64_t offset, unsigned char *bytes, size_t len);

/** The index of the first byte that is not the stream's, or `len` if all are. */
size_t stream_mismatch(uint64_t key, uint64_t offset, const unsigned char *bytes, size_t len);

/** A small seeded generator for tests: same seed, same numbers. */
uint64_t random_next(uint64_t *state);
/** A number from 0 to bound - 1. */
uint64_t random_below(uint64_t *state, uint64_t bound);

#endif
