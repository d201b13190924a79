/* Layer: conf. Durations, sizes and counts as people write them. Strict: no sign, no space, no
 * fraction, no missing unit, no overflow. */
#ifndef CONF_UNITS_H
#define CONF_UNITS_H

#include "base/macros.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Longest text that the format functions write, terminating 0 included. */
enum { UNITS_TEXT_BYTES = 32 };

/** `5s`, `250ms`, `1h`, `7d`: a whole number and one of ms s m h d. Nanoseconds on success. */
MUST_CHECK bool duration_parse(const char *text, uint64_t *ret_ns);

/** The shortest text that duration_parse() reads back as the same number of milliseconds. */
void duration_format(uint64_t ns, char text[UNITS_TEXT_BYTES]);

/** `65536`, `64k`, `1m`, `2g`: a whole number of bytes, KiB, MiB or GiB. */
MUST_CHECK bool size_parse(const char *text, uint64_t *ret_bytes);

/** The shortest text that size_parse() reads back as the same. */
void size_format(uint64_t bytes, char text[UNITS_TEXT_BYTES]);

/** A whole number without a unit. */
MUST_CHECK bool count_parse(const char *text, uint64_t *ret_count);

#endif
