/*
 * pattern: one period of the text in memory; whatever is sent of it is sent from there.
 *
 * A period is about 256 KiB on purpose: one system call carries that much, which makes calls rare
 * for bulk, and it still fits a second-level cache, so that the copy into the kernel reads from
 * there and not from memory.
 */
#include "pattern.h"

#include "check.h"

#include <stdalign.h>
#include <stdio.h>
#include <string.h>

static alignas(4096) char pattern[PATTERN_BYTES];

void pattern_init(void)
{
    char line[PATTERN_LINE_BYTES + 1];

    for (size_t at = 0; at < PATTERN_BYTES; at += PATTERN_LINE_BYTES) {
        (void)snprintf(line, sizeof(line), "%015u\n", (unsigned)at);
        memcpy(pattern + at, line, PATTERN_LINE_BYTES);
    }
}

void pattern_parts(size_t at, size_t len, struct iovec ret_parts[2])
{
    size_t tail = PATTERN_BYTES - at;

    CHECK(at < PATTERN_BYTES && len <= PATTERN_BYTES);
    tail = tail < len ? tail : len;
    ret_parts[0] = (struct iovec){pattern + at, tail};
    ret_parts[1] = (struct iovec){pattern, len - tail};
}
