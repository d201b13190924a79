/* A duration without a unit is an error and not a guess: half of the proxies count seconds, the
 * other half milliseconds, and their users find out in production. */
#include "conf/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *text;
    uint64_t factor;
};

/* Largest first: the format functions take the first unit that divides the value. */
static const struct unit duration_units[] = {
    {"d", UINT64_C(24) * 3600 * NS_PER_S},
    {"h", 3600 * NS_PER_S},
    {"m", 60 * NS_PER_S},
    {"s", NS_PER_S},
    {"ms", NS_PER_MS},
};
static const struct unit size_units[] = {
    {"g", UINT64_C(1) << 30}, {"m", UINT64_C(1) << 20}, {"k", UINT64_C(1) << 10}, {"", 1}};
static const struct unit count_units[] = {{"", 1}};

static bool parse(const char *text, const struct unit *units, size_t units_len, uint64_t *ret_value)
{
    const char *unit = text + strspn(text, "0123456789");
    uint64_t number = 0;

    if (unit == text) {
        return false;
    }
    for (const char *digit = text; digit < unit; digit++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*digit - '0'), &number)) {
            return false;
        }
    }
    for (size_t i = 0; i < units_len; i++) {
        if (strcmp(unit, units[i].text) == 0) {
            uint64_t value;

            if (__builtin_mul_overflow(number, units[i].factor, &value)) {
                return false;
            }
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static void format(uint64_t value, const struct unit *units, size_t units_len,
                   char text[UNITS_TEXT_BYTES])
{
    size_t i = 0;

    while (i + 1 < units_len && (value == 0 || value % units[i].factor != 0)) {
        i++;
    }
    (void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64 "%s", value / units[i].factor, units[i].text);
}

bool duration_parse(const char *text, uint64_t *ret_ns)
{
    return parse(text, duration_units, ARRAY_LEN(duration_units), ret_ns);
}

void duration_format(uint64_t ns, char text[UNITS_TEXT_BYTES])
{
    format(ns, duration_units, ARRAY_LEN(duration_units), text);
}

bool size_parse(const char *text, uint64_t *ret_bytes)
{
    return parse(text, size_units, ARRAY_LEN(size_units), ret_bytes);
}

void size_format(uint64_t bytes, char text[UNITS_TEXT_BYTES])
{
    format(bytes, size_units, ARRAY_LEN(size_units), text);
}

bool count_parse(const char *text, uint64_t *ret_count)
{
    return parse(text, count_units, ARRAY_LEN(count_units), ret_count);
}
