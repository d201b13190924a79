/* Tests of durations, sizes and counts: tables of what is read and written, and the way back. */
#include "conf/units.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KIB       (UINT64_C(1) << 10)
#define MIB       (UINT64_C(1) << 20)
#define GIB       (UINT64_C(1) << 30)
#define MINUTE_NS (60 * NS_PER_S)
#define HOUR_NS   (60 * MINUTE_NS)
#define DAY_NS    (24 * HOUR_NS)

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

typedef bool parse_fn(const char *text, uint64_t *ret_value);

struct readable {
    const char *text;
    uint64_t value;
};

static void assert_reads(parse_fn *parse, const struct readable *cases, size_t cases_len)
{
    for (size_t i = 0; i < cases_len; i++) {
        uint64_t value = 0;

        cr_assert(parse(cases[i].text, &value), "\"%s\" is refused", cases[i].text);
        cr_assert(value == cases[i].value, "\"%s\" is %" PRIu64, cases[i].text, value);
    }
}

/* Refused, and the result is left as it was. */
static void assert_refuses(parse_fn *parse, const char *const *texts, size_t texts_len)
{
    for (size_t i = 0; i < texts_len; i++) {
        uint64_t value = 4711;

        cr_assert(!parse(texts[i], &value), "\"%s\" is %" PRIu64, texts[i], value);
        cr_assert(value == 4711, "\"%s\"", texts[i]);
    }
}

/* Each unit has its factor, up to the largest number of nanoseconds. */
Test(units, durations_are_read_as_nanoseconds)
{
    static const struct readable cases[] = {
        {"0ms", 0},
        {"0s", 0},
        {"1ms", NS_PER_MS},
        {"250ms", 250 * NS_PER_MS},
        {"1s", NS_PER_S},
        {"5s", 5 * NS_PER_S},
        {"1m", MINUTE_NS},
        {"90m", 90 * MINUTE_NS},
        {"1h", HOUR_NS},
        {"7d", 7 * DAY_NS},
        {"365d", 365 * DAY_NS},
        {"18446744073709ms", UINT64_C(18446744073709) * NS_PER_MS},
        {"18446744073s", UINT64_C(18446744073) * NS_PER_S},
        {"307445734m", 307445734 * MINUTE_NS},
        {"5124095h", 5124095 * HOUR_NS},
        {"213503d", 213503 * DAY_NS},
    };

    assert_reads(duration_parse, cases, ARRAY_LEN(cases));
}

/* No unit is an error, not a guess; neither is anything else guessed, nor does a number wrap round:
 * the last ones are one more than fits. */
Test(units, durations_that_are_not_exact_are_refused)
{
    static const char *const texts[] = {
        "",
        "5",
        "0",
        "s",
        "ms",
        "5 s",
        " 5s",
        "5s ",
        "-5s",
        "+5s",
        "1.5s",
        "1,5s",
        "5S",
        "5MS",
        "5sec",
        "5us",
        "5ns",
        "5w",
        "5y",
        "1h30m",
        "5ms5",
        "5sm",
        "5mss",
        "0x5s",
        "5k",
        "5s\n",
        "\n5s",
        "5e3ms",
        "five s",
        "off",
        "5\xc2\xb5s",
        "18446744073710ms",
        "18446744074s",
        "307445735m",
        "5124096h",
        "213504d",
        "99999999999999999999s",
        "18446744073709551616ms",
        "1844674407370955161600000000000000000d",
    };

    assert_refuses(duration_parse, texts, ARRAY_LEN(texts));
}

/* KiB, MiB, GiB or bytes, up to the largest number. */
Test(units, sizes_are_read_as_bytes)
{
    static const struct readable cases[] = {
        {"0", 0},
        {"1", 1},
        {"65536", 65536},
        {"0k", 0},
        {"64k", 64 * KIB},
        {"1m", MIB},
        {"2g", 2 * GIB},
        {"18446744073709551615", UINT64_MAX},
        {"18014398509481983k", UINT64_C(18014398509481983) * KIB},
        {"17592186044415m", UINT64_C(17592186044415) * MIB},
        {"17179869183g", UINT64_C(17179869183) * GIB},
    };

    assert_reads(size_parse, cases, ARRAY_LEN(cases));
}

/* Strict like the durations; the last ones are one more than fits. */
Test(units, sizes_that_are_not_exact_are_refused)
{
    static const char *const texts[] = {
        "",
        "k",
        "64K",
        "64kb",
        "64ki",
        "64KiB",
        "1t",
        "1b",
        "1.5m",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1 k",
        "0x10",
        "1kk",
        "1k1",
        "1s",
        "1\n",
        "auto",
        "18446744073709551616",
        "18014398509481984k",
        "17592186044416m",
        "17179869184g",
        "99999999999999999999",
        "18446744073709551615k",
    };

    assert_refuses(size_parse, texts, ARRAY_LEN(texts));
}

/* A count is digits and nothing else. */
Test(units, counts_are_whole_numbers)
{
    static const struct readable cases[] = {
        {"0", 0}, {"1", 1}, {"100000000", 100000000}, {"18446744073709551615", UINT64_MAX}};
    static const char *const texts[] = {"",
                                        "1k",
                                        "1m",
                                        "1s",
                                        "-1",
                                        "+1",
                                        " 1",
                                        "1 ",
                                        "1.0",
                                        "1,0",
                                        "0x1",
                                        "1e3",
                                        "auto",
                                        "\n1",
                                        "18446744073709551616",
                                        "99999999999999999999"};

    assert_reads(count_parse, cases, ARRAY_LEN(cases));
    assert_refuses(count_parse, texts, ARRAY_LEN(texts));
}

/* The largest unit that needs no fraction; what is less than a millisecond is left out. */
Test(units, durations_are_written_with_the_largest_unit)
{
    static const struct readable cases[] = {
        {"0ms", 0},
        {"0ms", 1},
        {"0ms", NS_PER_MS - 1},
        {"1ms", NS_PER_MS},
        {"1ms", 2 * NS_PER_MS - 1},
        {"999ms", 999 * NS_PER_MS},
        {"1s", NS_PER_S},
        {"1500ms", 1500 * NS_PER_MS},
        {"59s", 59 * NS_PER_S},
        {"1m", MINUTE_NS},
        {"90s", 90 * NS_PER_S},
        {"1h", HOUR_NS},
        {"90m", 90 * MINUTE_NS},
        {"1d", DAY_NS},
        {"36h", 36 * HOUR_NS},
        {"7d", 7 * DAY_NS},
        {"365d", 365 * DAY_NS},
        {"18446744073709ms", UINT64_MAX},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[UNITS_TEXT_BYTES];

        duration_format(cases[i].value, text);
        cr_assert_str_eq(text, cases[i].text);
    }
}

/* The same for sizes, down to the byte. */
Test(units, sizes_are_written_with_the_largest_unit)
{
    static const struct readable cases[] = {
        {"0", 0},
        {"1", 1},
        {"1023", 1023},
        {"1k", KIB},
        {"1025", KIB + 1},
        {"1536", KIB + KIB / 2},
        {"64k", 64 * KIB},
        {"1m", MIB},
        {"1025k", MIB + KIB},
        {"1g", GIB},
        {"1024g", 1024 * GIB},
        {"18446744073709551615", UINT64_MAX},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[UNITS_TEXT_BYTES];

        size_format(cases[i].value, text);
        cr_assert_str_eq(text, cases[i].text);
    }
}

/* Random numbers from 1 on, most of them multiples of units: what is written is read back as the same,
 * and there is no shorter way to write it. */
Test(units, what_is_written_is_read_back_and_shortest)
{
    static const uint64_t factors[] = {1,      NS_PER_MS, NS_PER_S, MINUTE_NS, HOUR_NS,
                                       DAY_NS, KIB,       MIB,      GIB};
    static const char *const duration_units[] = {"ms", "s", "m", "h", "d"};
    static const char *const size_units[] = {"", "k", "m", "g"};
    uint64_t random = 1;

    for (size_t i = 0; i < 20000; i++) {
        uint64_t factor = factors[next_random(&random) % ARRAY_LEN(factors)];
        uint64_t value = (next_random(&random) >> next_random(&random) % 64) / factor * factor;
        char text[UNITS_TEXT_BYTES] = "";
        char other[2 * UNITS_TEXT_BYTES];
        uint64_t again = 0;

        size_format(value, text);
        cr_assert(size_parse(text, &again), "%s", text);
        cr_assert(again == value, "%" PRIu64 " became %s", value, text);
        for (size_t k = 0; k < ARRAY_LEN(size_units); k++) {
            (void)snprintf(other, sizeof(other), "%" PRIu64 "%s", value >> 10 * k, size_units[k]);
            cr_assert(!size_parse(other, &again) || again != value || strlen(other) >= strlen(text),
                      "%s is shorter than %s", other, text);
        }
        value = value < NS_PER_MS ? NS_PER_MS : value / NS_PER_MS * NS_PER_MS;
        duration_format(value, text);
        cr_assert(duration_parse(text, &again), "%s", text);
        cr_assert(again == value, "%" PRIu64 " became %s", value, text);
        for (size_t k = 0; k < ARRAY_LEN(duration_units); k++) {
            (void)snprintf(other, sizeof(other), "%" PRIu64 "%s", value / factors[1 + k],
                           duration_units[k]);
            cr_assert(!duration_parse(other, &again) || again != value ||
                          strlen(other) >= strlen(text),
                      "%s is shorter than %s", other, text);
        }
    }
}
