/* Fuzzes durations, sizes and counts, conf/units.c: any text to be read, any number to be printed.
 *
 * Oracles
 *   U1 What is read is what arithmetic with twice the width says; what does not fit is refused.
 *   U2 A refusal leaves the caller's number alone.
 *   U3 What is printed reads back as the same (a duration: in whole milliseconds).
 *   U4 No other unit would be shorter. */
#include "conf/units.h"
#include "fuzz/common/input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned __int128 wide;

struct unit {
    const char *text;
    uint64_t factor;
};

static const struct unit durations[] = {{"ms", 1000000},
                                        {"s", 1000000000},
                                        {"m", UINT64_C(60000000000)},
                                        {"h", UINT64_C(3600000000000)},
                                        {"d", UINT64_C(86400000000000)}};
static const struct unit sizes[] = {{"", 1}, {"k", 1024}, {"m", 1048576}, {"g", 1073741824}};
static const struct unit counts[] = {{"", 1}};

/* Digits, then a unit. False: not of that form, or more than 64 bits. */
static bool evaluate(const char *text, const struct unit *units, size_t units_len, uint64_t *ret)
{
    const wide limit = (wide)1 << 64;
    wide number = 0;
    bool any = false;

    for (; *text >= '0' && *text <= '9'; text++) {
        any = true;
        number = number * 10 + (wide)(*text - '0');
        if (number >= limit) {
            number = limit; /* stays too large */
        }
    }
    for (size_t i = 0; any && i < units_len; i++) {
        if (strcmp(text, units[i].text) == 0 && number * units[i].factor < limit) {
            *ret = (uint64_t)(number * units[i].factor);
            return true;
        }
    }
    return false;
}

static void check_reading(const char *text, bool (*parse)(const char *, uint64_t *),
                          const struct unit *units, size_t units_len)
{
    uint64_t right = 0;
    uint64_t got = 4711;
    bool valid = evaluate(text, units, units_len, &right);

    EXPECT(parse(text, &got) == valid, "U1: \"%s\" should be %s", text, valid ? "read" : "refused");
    if (valid) {
        EXPECT(got == right, "U1: \"%s\" is %llu, read as %llu", text, (unsigned long long)right,
               (unsigned long long)got);
    } else {
        EXPECT(got == 4711, "U2: \"%s\" is refused and stored", text);
    }
}

static void check_printing(uint64_t number, bool (*parse)(const char *, uint64_t *),
                           void (*print)(uint64_t, char *), const struct unit *units,
                           size_t units_len)
{
    char *text = malloc(UNITS_TEXT_BYTES);
    uint64_t again = 0;

    print(number, text);
    number -= number % units[0].factor;
    EXPECT(parse(text, &again) && again == number, "U3: %llu is printed as %s",
           (unsigned long long)number, text);
    print(number, text);
    for (size_t i = 0; i < units_len && number > 0; i++) {
        char other[64];

        (void)snprintf(other, sizeof(other), "%llu%s",
                       (unsigned long long)(number / units[i].factor), units[i].text);
        EXPECT(number % units[i].factor != 0 || strlen(text) <= strlen(other),
               "U4: %s is printed as %s", other, text);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct input input = {bytes, len};
    uint64_t number = 0;
    char *text;

    for (size_t i = 0; i < sizeof(number) && i < len; i++) {
        number = number << 8 | bytes[i];
    }
    text = input_text(&input, len);
    check_reading(text, duration_parse, durations, ARRAY_LEN(durations));
    check_reading(text, size_parse, sizes, ARRAY_LEN(sizes));
    check_reading(text, count_parse, counts, ARRAY_LEN(counts));
    check_printing(number, duration_parse, duration_format, durations, ARRAY_LEN(durations));
    check_printing(number, size_parse, size_format, sizes, ARRAY_LEN(sizes));
    /* Numbers as people write them have many factors. */
    check_printing(number % 1000 * durations[number % ARRAY_LEN(durations)].factor, duration_parse,
                   duration_format, durations, ARRAY_LEN(durations));
    free(text);
    return 0;
}
