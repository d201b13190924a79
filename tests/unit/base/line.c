/* Tests of the log line. Two small strict readers (line_reader.c) turn a line back into fields:
 * what they accept is what a consumer of the log may rely on, and what they give back must be what
 * was put in. The JSON reader knows RFC 8259 for one flat object and nothing more. */
#include "base/macros.h"
#include "support/stream.h"
#include "unit/base/line_reader.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* 2026-11-22T17:00:00Z, the instant that the header's example shows. */
#define EXAMPLE_NS (UINT64_C(1795366800) * NS_PER_S)
#define EXAMPLE_TS "2026-11-22T17:00:00.000000Z"

static const enum line_format formats[] = {LINE_TEXT, LINE_JSON};

static const char *format_name(enum line_format format)
{
    return format == LINE_JSON ? "json" : "text";
}

/* --- helpers --- */

/* What every finished line owes, whatever was put in: it is valid, not too long, and one line of
 * printable ASCII; `context` says where a failure comes from. */
PRINTF_LIKE(3, 4)
static void assert_valid(const struct line *line, struct parsed *parsed, const char *context, ...)
{
    char where[128];
    va_list values;

    va_start(values, context);
    (void)vsnprintf(where, sizeof(where), context, values);
    va_end(values);
    cr_assert(line->len > 0 && line->len <= LINE_BYTES_MAX, "%s: %zu bytes", where, line->len);
    for (size_t i = 0; i + 1 < line->len; i++) {
        cr_assert(line->text[i] >= ' ' && line->text[i] <= '~', "%s: byte %zu is %#x", where, i,
                  (unsigned char)line->text[i]);
    }
    cr_assert(line->text[line->len - 1] == '\n', "%s", where);
    cr_assert(line_parse(line, parsed), "%s: invalid %s: %.*s", where, format_name(line->format),
              (int)line->len, line->text);
}

/* True when the last field says that something was left out; and it says so iff the line knows. */
static bool says_truncated(const struct line *line, const struct parsed *parsed)
{
    const struct field *last = &parsed->fields[parsed->count - 1];
    bool says = strcmp(last->key, "truncated") == 0 && strcmp(last->value, "true") == 0 &&
                last->kind == (line->format == LINE_JSON ? KIND_TRUE : KIND_STRING);

    cr_assert(says == line->truncated);
    return says;
}

static void assert_line_is(const struct line *line, const char *expected)
{
    cr_assert(line->len == strlen(expected) && memcmp(line->text, expected, line->len) == 0,
              "expected: %sgot: %.*s", expected, (int)line->len, line->text);
}

/* A finished line with one string in it. */
static void make_line(struct line *line, enum line_format format, const char *value)
{
    line_begin(line, format, EXAMPLE_NS, "close");
    line_string(line, "key", value);
    line_end(line);
}

/* --- promises --- */

/* A line without a field is complete in both formats: byte by byte. */
Test(line, without_fields_has_time_and_event)
{
    struct line line;

    line_begin(&line, LINE_TEXT, EXAMPLE_NS, "open");
    line_end(&line);
    assert_line_is(&line, EXAMPLE_TS " open\n");
    line_begin(&line, LINE_JSON, EXAMPLE_NS, "open");
    line_end(&line);
    assert_line_is(&line, "{\"ts\":\"" EXAMPLE_TS "\",\"event\":\"open\"}\n");
}

enum call { CALL_STRING, CALL_U64, CALL_SECONDS };

/* Each call writes exactly this, in text and in JSON: one field a line, compared byte by byte. */
Test(line, writes_each_field_exactly)
{
    static const struct {
        enum call call;
        const char *string;
        uint64_t number;
        const char *text; /* behind `event` */
        const char *json; /* between event and the closing brace */
    } cases[] = {
        {CALL_STRING, "127.0.0.1:50000", 0, " key=127.0.0.1:50000", ",\"key\":\"127.0.0.1:50000\""},
        {CALL_STRING, "[::1]:80", 0, " key=[::1]:80", ",\"key\":\"[::1]:80\""},
        {CALL_STRING, "", 0, " key=\"\"", ",\"key\":\"\""},
        {CALL_STRING, NULL, 0, "", ",\"key\":null"},
        {CALL_STRING, "two words", 0, " key=\"two words\"", ",\"key\":\"two words\""},
        {CALL_STRING, "a=b", 0, " key=\"a=b\"", ",\"key\":\"a=b\""},
        {CALL_STRING, "say \"hi\"", 0, " key=\"say \\\"hi\\\"\"", ",\"key\":\"say \\\"hi\\\"\""},
        {CALL_STRING, "c:\\", 0, " key=\"c:\\\\\"", ",\"key\":\"c:\\\\\""},
        {CALL_STRING, "\n\r\t", 0, " key=\"\\n\\r\\t\"", ",\"key\":\"\\n\\r\\t\""},
        {CALL_STRING, "\x1b[2J", 0, " key=\"\\x1b[2J\"", ",\"key\":\"\\u001b[2J\""},
        {CALL_STRING, "\x01\x7f\xff", 0, " key=\"\\x01\\x7f\\xff\"",
         ",\"key\":\"\\u0001\\u007f\\u00ff\""},
        {CALL_STRING, "null", 0, " key=null", ",\"key\":\"null\""},
        {CALL_STRING, "%s%n", 0, " key=%s%n", ",\"key\":\"%s%n\""},
        {CALL_U64, NULL, 0, " key=0", ",\"key\":0"},
        {CALL_U64, NULL, 1234567, " key=1234567", ",\"key\":1234567"},
        {CALL_U64, NULL, UINT64_MAX, " key=18446744073709551615", ",\"key\":18446744073709551615"},
        {CALL_SECONDS, NULL, 0, " key=0.000000", ",\"key\":0.000000"},
        {CALL_SECONDS, NULL, 999, " key=0.000000", ",\"key\":0.000000"},
        {CALL_SECONDS, NULL, 1000, " key=0.000001", ",\"key\":0.000001"},
        {CALL_SECONDS, NULL, 999999999, " key=0.999999", ",\"key\":0.999999"},
        {CALL_SECONDS, NULL, 61000000000, " key=61.000000", ",\"key\":61.000000"},
        {CALL_SECONDS, NULL, UINT64_MAX, " key=18446744073.709551", ",\"key\":18446744073.709551"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(formats); i++) {
        enum line_format format = formats[i % ARRAY_LEN(formats)];
        size_t row = i / ARRAY_LEN(formats);
        char expected[256];
        struct line line;

        line_begin(&line, format, EXAMPLE_NS, "close");
        switch (cases[row].call) {
        case CALL_STRING:
            line_string(&line, "key", cases[row].string);
            break;
        case CALL_U64:
            line_u64(&line, "key", cases[row].number);
            break;
        case CALL_SECONDS:
            line_seconds(&line, "key", cases[row].number);
            break;
        }
        line_end(&line);
        if (format == LINE_JSON) {
            (void)snprintf(expected, sizeof(expected),
                           "{\"ts\":\"" EXAMPLE_TS "\",\"event\":\"close\"%s}\n", cases[row].json);
        } else {
            (void)snprintf(expected, sizeof(expected), EXAMPLE_TS " close%s\n", cases[row].text);
        }
        assert_line_is(&line, expected);
    }
}

/* Fields stand in the order of the calls, separated alike: the record of the header's example. */
Test(line, keeps_the_order_of_its_fields)
{
    static const char *const expected[] = {
        EXAMPLE_TS " close id=0000000100000001 client=127.0.0.1:50000 bytes_up=17 "
                   "duration_s=1.500000 reason=client-fin\n",
        "{\"ts\":\"" EXAMPLE_TS "\",\"event\":\"close\",\"id\":\"0000000100000001\","
        "\"client\":\"127.0.0.1:50000\",\"server\":null,\"bytes_up\":17,\"duration_s\":1.500000,"
        "\"reason\":\"client-fin\"}\n",
    };

    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct line line;

        line_begin(&line, formats[i], EXAMPLE_NS, "close");
        line_string(&line, "id", "0000000100000001");
        line_string(&line, "client", "127.0.0.1:50000");
        line_string(&line, "server", NULL);
        line_u64(&line, "bytes_up", 17);
        line_seconds(&line, "duration_s", 1500 * NS_PER_MS);
        line_string(&line, "reason", "client-fin");
        line_end(&line);
        assert_line_is(&line, expected[i]);
    }
}

/* A line object is used again and again: line_begin() forgets all that was before, a truncation and
 * the other format included. */
Test(line, begin_forgets_the_line_before)
{
    static char huge[2 * LINE_BYTES_MAX];
    struct line line;

    memset(huge, 'x', sizeof(huge) - 1);
    make_line(&line, LINE_JSON, huge);
    cr_assert(line.truncated);
    make_line(&line, LINE_TEXT, "short");
    cr_assert(!line.truncated);
    assert_line_is(&line, EXAMPLE_TS " close key=short\n");
}

/* Time stamps are RFC 3339 in UTC with microseconds, cut and not rounded, for instants whose date
 * is known (date -u -d @SECONDS), in whatever zone the process runs. */
Test(line, stamps_known_instants_in_utc)
{
    static const struct {
        uint64_t seconds;
        uint64_t ns;
        const char *ts;
    } cases[] = {
        {0, 0, "1970-01-01T00:00:00.000000Z"},
        {0, 999, "1970-01-01T00:00:00.000000Z"},
        {0, 1000, "1970-01-01T00:00:00.000001Z"},
        {0, 999999999, "1970-01-01T00:00:00.999999Z"},
        {951782399, 123456789, "2000-02-28T23:59:59.123456Z"},
        {951782400, 0, "2000-02-29T00:00:00.000000Z"},
        {1709164800, 50000, "2024-02-29T00:00:00.000050Z"},
        {1735689599, 999999999, "2024-12-31T23:59:59.999999Z"},
        {1735689600, 0, "2025-01-01T00:00:00.000000Z"},
        {1795366800, 0, "2026-11-22T17:00:00.000000Z"},
        {2147483648, 0, "2038-01-19T03:14:08.000000Z"},
        {4102444800, 0, "2100-01-01T00:00:00.000000Z"},
        {4107542400, 0, "2100-03-01T00:00:00.000000Z"},
        {18446744073, 709551615, "2554-07-21T23:34:33.709551Z"},
    };
    static const char *const zones[] = {"UTC0", "CET-1CEST", "XYZ+11:30"};

    for (size_t i = 0; i < ARRAY_LEN(cases) * ARRAY_LEN(zones); i++) {
        size_t row = i % ARRAY_LEN(cases);
        char expected[64];
        struct line line;

        cr_assert(setenv("TZ", zones[i / ARRAY_LEN(cases)], 1) == 0);
        tzset();
        line_begin(&line, LINE_TEXT, cases[row].seconds * NS_PER_S + cases[row].ns, "e");
        line_end(&line);
        (void)snprintf(expected, sizeof(expected), "%s e\n", cases[row].ts);
        assert_line_is(&line, expected);
    }
}

/* Any byte that a value can have comes back as it went in: each of 1 to 255, alone and between
 * others, through the strict readers. */
Test(line, gives_every_byte_back)
{
    static struct parsed parsed;

    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        for (int byte = 1; byte <= 255; byte++) {
            const char values[2][4] = {{(char)byte}, {'a', (char)byte, 'b'}};

            for (size_t j = 0; j < 2; j++) {
                struct line line;

                make_line(&line, formats[i], values[j]);
                assert_valid(&line, &parsed, "byte %d", byte);
                cr_assert(parsed.count == 3, "byte %d", byte);
                cr_assert(parsed.fields[2].kind == KIND_STRING, "byte %d", byte);
                cr_assert_str_eq(parsed.fields[2].value, values[j], "byte %d", byte);
            }
        }
    }
}

/* All bytes in one value: 255 of them come back in order. */
Test(line, gives_all_bytes_back_in_one_value)
{
    static struct parsed parsed;
    char value[256];

    for (int byte = 1; byte <= 255; byte++) {
        value[byte - 1] = (char)byte;
    }
    value[255] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct line line;

        make_line(&line, formats[i], value);
        assert_valid(&line, &parsed, "all bytes");
        cr_assert(!line.truncated);
        cr_assert(parsed.count == 3);
        cr_assert_str_eq(parsed.fields[2].value, value);
    }
}

/* Nothing that a peer or a path contains makes a second line, a second field or a terminal's
 * command: attempts at each stay one field with the very same value. */
Test(line, is_not_fooled_by_what_a_value_contains)
{
    static const char *const attempts[] = {
        "x\n" EXAMPLE_TS " close reason=admin",
        "x\r\nforged",
        "x reason=admin",
        "x\" reason=\"admin",
        "x\\",
        "x\\\" reason=admin",
        "\",\"reason\":\"admin",
        "\"}\n{\"ts\":\"0\",\"event\":\"forged\"}",
        "\\u0022,",
        "\x1b]0;title\x07",
        "\x1b[31mred",
        "\x9b\x32J",
        "\xe2\x80\xa8line separator",
        "\xc0\xaf\xff\xfe",
        " truncated=true",
        "=",
        "\"",
    };
    static struct parsed parsed;

    for (size_t i = 0; i < ARRAY_LEN(attempts) * ARRAY_LEN(formats); i++) {
        const char *attempt = attempts[i / ARRAY_LEN(formats)];
        struct line line;

        make_line(&line, formats[i % ARRAY_LEN(formats)], attempt);
        assert_valid(&line, &parsed, "attempt %zu", i / ARRAY_LEN(formats));
        cr_assert(parsed.count == 3, "attempt %zu", i / ARRAY_LEN(formats));
        cr_assert_str_eq(parsed.fields[1].value, "close");
        cr_assert_str_eq(parsed.fields[2].value, attempt);
    }
}

/* A value is there whole or not at all, and the line is valid and says which: values of every
 * length around the limit, of bytes that take 1, 2, 4 and 6 bytes escaped. */
Test(line, leaves_out_a_value_that_does_not_fit)
{
    static const struct {
        char byte;
        size_t escaped_bytes[2]; /* by format */
    } cases[] = {{'x', {1, 1}}, {'"', {2, 2}}, {'\x01', {4, 6}}, {'\xff', {4, 6}}};
    static struct parsed parsed;
    static char value[LINE_BYTES_MAX + 200];

    for (size_t i = 0; i < ARRAY_LEN(formats) * ARRAY_LEN(cases); i++) {
        enum line_format format = formats[i % ARRAY_LEN(formats)];
        size_t row = i / ARRAY_LEN(formats);
        size_t fills_line = LINE_BYTES_MAX / cases[row].escaped_bytes[format];
        size_t longest = 0;
        bool truncated_before = false;

        for (size_t len = fills_line - 140; len < fills_line + 10; len++) {
            struct line line;

            memset(value, cases[row].byte, len);
            value[len] = '\0';
            line_begin(&line, format, EXAMPLE_NS, "close");
            line_u64(&line, "before", 1);
            line_string(&line, "key", value);
            line_end(&line);
            assert_valid(&line, &parsed, "%s, byte %#x, %zu times", format_name(format),
                         (unsigned char)cases[row].byte, len);
            cr_assert_str_eq(parsed.fields[2].key, "before");
            cr_assert(parsed.count == 4);
            if (!says_truncated(&line, &parsed)) {
                cr_assert_str_eq(parsed.fields[3].value, value);
                cr_assert(!truncated_before, "a longer value fits where a shorter one does not");
                longest = line.len;
            }
            truncated_before = line.truncated;
        }
        cr_assert(truncated_before);
        /* The room is used: no more is kept free than the longest end and one escape. */
        cr_assert(longest > LINE_BYTES_MAX - 32, "only %zu bytes", longest);
    }
}

/* A key counts as well as its value: one that does not fit is left out with it, in every call. */
Test(line, leaves_out_a_key_that_does_not_fit)
{
    static struct parsed parsed;
    static char key[LINE_BYTES_MAX + 1];

    memset(key, 'k', sizeof(key) - 1);
    for (size_t i = 0; i < ARRAY_LEN(formats) * 3; i++) {
        struct line line;

        line_begin(&line, formats[i % ARRAY_LEN(formats)], EXAMPLE_NS, "close");
        switch ((enum call)(i / ARRAY_LEN(formats))) {
        case CALL_STRING:
            line_string(&line, key, "v");
            break;
        case CALL_U64:
            line_u64(&line, key, 1);
            break;
        case CALL_SECONDS:
            line_seconds(&line, key, 1);
            break;
        }
        line_end(&line);
        assert_valid(&line, &parsed, "row %zu", i);
        cr_assert(parsed.count == 3);
        cr_assert(says_truncated(&line, &parsed));
    }
}

/* The first values are the ones that stay: 2000 fields are offered, and those in the line are the
 * first ones without a gap, up to the limit. */
Test(line, keeps_the_first_of_too_many_fields)
{
    static struct parsed parsed;

    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        struct line line;

        line_begin(&line, formats[i], EXAMPLE_NS, "close");
        for (uint64_t n = 0; n < 2000; n++) {
            char key[16];

            (void)snprintf(key, sizeof(key), "k%" PRIu64, n);
            line_u64(&line, key, n);
        }
        line_end(&line);
        assert_valid(&line, &parsed, "2000 fields");
        cr_assert(says_truncated(&line, &parsed));
        cr_assert(line.len > LINE_BYTES_MAX - 48);
        for (size_t n = 0; n + 3 < parsed.count; n++) {
            char key[16];

            (void)snprintf(key, sizeof(key), "k%zu", n);
            cr_assert_str_eq(parsed.fields[n + 2].key, key);
            cr_assert_str_eq(parsed.fields[n + 2].value, key + 1);
        }
    }
}

/* --- random lines --- */

enum { GIVEN_MAX = 40, VALUE_BYTES_MAX = 5000, RANDOM_LINES = 6000 };

/* What was put into a line, in the words of the readers. */
struct given {
    size_t count;
    struct field fields[GIVEN_MAX];
    char keys[GIVEN_MAX][16];
    char numbers[GIVEN_MAX][32];
    char strings[GIVEN_MAX][VALUE_BYTES_MAX + 1];
};

/* Mostly short, now and then longer than a line; bytes of all kinds or only printable ones. */
static void random_string(uint64_t *random, char *string)
{
    uint64_t choice = random_next(random);
    size_t len = choice % 16 == 0 ? (choice >> 8) % VALUE_BYTES_MAX : (choice >> 8) % 20;
    bool printable = (choice >> 40) % 2 == 0;

    for (size_t i = 0; i < len; i++) {
        uint64_t byte = random_next(random);

        string[i] = (char)(printable ? ' ' + byte % 95 : 1 + byte % 255);
    }
    string[len] = '\0';
}

static void put_random_field(uint64_t *random, struct line *line, struct given *given)
{
    size_t index = given->count;
    struct field *field = &given->fields[index];
    uint64_t number = random_next(random) >> random_next(random) % 64;
    bool json = line->format == LINE_JSON;

    (void)snprintf(given->keys[index], sizeof(given->keys[index]), "key_%zu", index);
    *field = (struct field){given->keys[index], given->numbers[index], KIND_NUMBER};
    given->count++;
    switch (random_next(random) % 8) {
    case 0:
        (void)snprintf(given->numbers[index], sizeof(given->numbers[index]), "%" PRIu64, number);
        line_u64(line, field->key, number);
        break;
    case 1:
        (void)snprintf(given->numbers[index], sizeof(given->numbers[index]), "%" PRIu64 ".%06u",
                       number / NS_PER_S, (unsigned)(number % NS_PER_S / 1000));
        line_seconds(line, field->key, number);
        break;
    case 2:
        line_string(line, field->key, NULL);
        *field = (struct field){field->key, "", KIND_NULL};
        given->count -= json ? 0 : 1; /* left out of text */
        break;
    default:
        random_string(random, given->strings[index]);
        line_string(line, field->key, given->strings[index]);
        *field = (struct field){field->key, given->strings[index], KIND_STRING};
        break;
    }
}

/* The bytes that a field takes in a line, key and separators included, by the rules of line.h. */
static size_t encoded_bytes(const struct field *field, bool json)
{
    size_t bytes = strlen(field->key) + (json ? strlen(",\"\":") : strlen(" ="));
    size_t value_bytes = 0;
    bool quoted = json || field->value[0] == '\0';

    if (field->kind != KIND_STRING) {
        return bytes + (field->kind == KIND_NULL ? strlen("null") : strlen(field->value));
    }
    for (const char *at = field->value; *at != '\0'; at++) {
        if (strchr("\"\\\n\r\t", *at) != NULL) {
            value_bytes += 2;
        } else if (*at < ' ' || *at > '~') {
            value_bytes += json ? 6 : 4;
        } else {
            value_bytes += 1;
        }
        quoted = quoted || strchr(PLAIN_BYTES, *at) == NULL;
    }
    return bytes + value_bytes + (quoted ? 2 : 0);
}

/* The fields found are the first ones given, and one is missing only when it would not have fit. */
static void assert_same_fields(const struct line *line, const struct parsed *parsed,
                               const struct given *given, uint64_t seed)
{
    bool truncated = says_truncated(line, parsed);
    size_t found = parsed->count - 2 - (truncated ? 1 : 0);
    bool json = line->format == LINE_JSON;

    cr_assert(truncated ? found < given->count : found == given->count, "seed %" PRIu64, seed);
    for (size_t i = 0; i < found; i++) {
        const struct field *is = &parsed->fields[i + 2];
        const struct field *expected = &given->fields[i];

        cr_assert_str_eq(is->key, expected->key, "seed %" PRIu64, seed);
        cr_assert_str_eq(is->value, expected->value, "seed %" PRIu64, seed);
        cr_assert(!json || is->kind == expected->kind, "seed %" PRIu64, seed);
    }
    if (truncated) {
        cr_assert(line->len + encoded_bytes(&given->fields[found], json) > LINE_BYTES_MAX - 8,
                  "seed %" PRIu64 ": field %zu was left out although it fits", seed, found);
    }
}

/* Whatever is put in comes out, or is left out from the end and said to be: random lines of up to
 * 40 fields of all types, read back by the strict readers; each line has its own seed. */
Test(line, gives_random_fields_back_or_says_that_it_does_not)
{
    static struct parsed parsed;
    static struct given given;
    size_t truncated = 0;

    for (uint64_t seed = 1; seed <= RANDOM_LINES; seed++) {
        uint64_t random = seed;
        size_t fields = random_next(&random) % (GIVEN_MAX + 1);
        struct line line;

        given.count = 0;
        line_begin(&line, formats[seed % ARRAY_LEN(formats)], EXAMPLE_NS, "close");
        for (size_t i = 0; i < fields; i++) {
            put_random_field(&random, &line, &given);
        }
        line_end(&line);
        assert_valid(&line, &parsed, "seed %" PRIu64, seed);
        assert_same_fields(&line, &parsed, &given, seed);
        truncated += line.truncated ? 1 : 0;
    }
    /* Both kinds were met. */
    cr_assert(truncated > RANDOM_LINES / 20 && truncated < RANDOM_LINES / 20 * 19);
}
