/* Layer: base. Numbers as text, for what is written once for each connection. */
#ifndef BASE_DIGITS_H
#define BASE_DIGITS_H

#include <stddef.h>
#include <stdint.h>

/** The most that a 64-bit number takes in decimal; no terminating 0. */
enum { DIGITS_MAX = 20 };

/** Writes `value` in decimal to `to`, which has room for DIGITS_MAX. Returns the end of it. */
char *digits_decimal(char *to, uint64_t value);

/** Writes the last `count` decimal digits of `value`, zeros in front included. Returns the end. */
char *digits_padded(char *to, uint64_t value, size_t count);

/** Writes the last `count` hexadecimal digits of `value`, in lower case. Returns the end. */
char *digits_hexadecimal(char *to, uint64_t value, size_t count);

#endif
