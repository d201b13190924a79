/* splitmix64 over (key, offset / 8): cheap enough that the check is never the bottleneck. */
#include "support/stream.h"

#include <string.h>

static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void stream_fill(uint64_t key, uint64_t offset, unsigned char *bytes, size_t len)
{
    size_t i = 0;

    while (i < len) {
        uint64_t word = mix(key * UINT64_C(0x100000001b3) + (offset + i) / 8);
        unsigned char cell[8];
        size_t start = (size_t)((offset + i) % 8);
        size_t count = 8 - start < len - i ? 8 - start : len - i;

        memcpy(cell, &word, sizeof(cell));
        memcpy(bytes + i, cell + start, count);
        i += count;
    }
}

size_t stream_mismatch(uint64_t key, uint64_t offset, const unsigned char *bytes, size_t len)
{
    unsigned char expected[4096];
    size_t i = 0;

    while (i < len) {
        size_t count = len - i < sizeof(expected) ? len - i : sizeof(expected);

        stream_fill(key, offset + i, expected, count);
        if (memcmp(expected, bytes + i, count) != 0) {
            while (bytes[i] == expected[0]) {
                i++;
                stream_fill(key, offset + i, expected, 1);
            }
            return i;
        }
        i += count;
    }
    return len;
}

uint64_t random_next(uint64_t *state)
{
    return mix((*state)++);
}

uint64_t random_below(uint64_t *state, uint64_t bound)
{
    return random_next(state) % bound;
}
