/*
 * pattern: the endless text that the origin sends, from any place in it, without composing any.
 *
 * It repeats every 262096 bytes: 16381 lines of 16 bytes, each the decimal offset of the line, 15
 * digits and a newline. 16381 is prime, so a block lost, repeated or moved shows unless its length
 * is a multiple of the period.
 */
#ifndef BENCH_PATTERN_H
#define BENCH_PATTERN_H

#include <stddef.h>
#include <sys/uio.h>

#define PATTERN_LINE_BYTES 16
#define PATTERN_BYTES      (16381 * PATTERN_LINE_BYTES)

/* Once in a program, before anything is sent. */
void pattern_init(void);

/* Names the `len` bytes from offset `at`: two pieces, of which the second may be empty. The caller
 * guarantees at < PATTERN_BYTES and len <= PATTERN_BYTES. The bytes stay where they are. */
void pattern_parts(size_t at, size_t len, struct iovec ret_parts[2]);

#endif
