/* Tests of the table of settings: promises that hold for every row, whatever rows there will be, and
 * a few tables for what only some have. */
#include "conf/schema.h"

#include "base/macros.h"
#include "conf/units.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct setting *row(size_t index)
{
    size_t len;
    const struct setting *rows = schema_settings(&len);

    return index < len ? &rows[index] : NULL;
}

static const struct setting *find(const char *name)
{
    const struct setting *setting = schema_find(name);

    cr_assert(setting != NULL, "%s", name);
    return setting;
}

static bool is_number(const struct setting *setting)
{
    return setting->type == SETTING_DURATION || setting->type == SETTING_SIZE ||
           setting->type == SETTING_COUNT;
}

static bool is_text(const struct setting *setting)
{
    return setting->type == SETTING_ADDRESS || setting->type == SETTING_NAME;
}

static size_t bytes_of(const struct setting *setting)
{
    if (setting->type == SETTING_ADDRESS) {
        return ADDR_TEXT_BYTES;
    }
    return setting->type == SETTING_NAME ? USER_NAME_BYTES : sizeof(uint64_t);
}

static uint64_t number_in(const struct setting *setting, const struct settings *settings)
{
    uint64_t number;

    memcpy(&number, (const char *)settings + setting->offset, sizeof(number));
    return number;
}

/* A number as a user would write it; durations come in whole milliseconds. */
static void write_number(const struct setting *setting, uint64_t number, char text[64])
{
    if (setting->type == SETTING_DURATION) {
        (void)snprintf(text, 64, "%" PRIu64 "ms", number / NS_PER_MS);
    } else {
        (void)snprintf(text, 64, "%" PRIu64, number);
    }
}

static bool accepts(const struct setting *setting, const char *value, struct settings *settings)
{
    char expected[SCHEMA_EXPECTED_BYTES];

    return schema_parse(setting, value, settings, expected);
}

/* Refused with a text, and every byte of the settings is left as it was. */
static void assert_refused(const struct setting *setting, const char *value,
                           char expected[SCHEMA_EXPECTED_BYTES])
{
    struct settings settings;
    struct settings before;

    memset(&settings, 0x5a, sizeof(settings));
    memset(&before, 0x5a, sizeof(before));
    memset(expected, '#', SCHEMA_EXPECTED_BYTES);
    cr_assert(!schema_parse(setting, value, &settings, expected), "%s takes \"%s\"", setting->name,
              value);
    cr_assert(memcmp(&settings, &before, sizeof(settings)) == 0, "%s", setting->name);
    cr_assert(memchr(expected, '\0', SCHEMA_EXPECTED_BYTES) != NULL, "%s", setting->name);
    cr_assert(strlen(expected) > 10, "%s", setting->name);
    cr_assert(strlen(expected) < SCHEMA_EXPECTED_BYTES - 1, "%s: cut off: %s", setting->name,
              expected);
}

/* --- the table itself --- */

/* Each row has its place in struct settings, no two share a byte, and no member is without a row. */
Test(schema, rows_cover_the_settings_without_overlap)
{
    static char owners[sizeof(struct settings)];
    size_t used = 0;

    for (size_t i = 0; row(i) != NULL; i++) {
        cr_assert(row(i)->offset + bytes_of(row(i)) <= sizeof(struct settings), "%s", row(i)->name);
        for (size_t k = 0; k < bytes_of(row(i)); k++) {
            cr_assert(owners[row(i)->offset + k] == 0, "%s shares its place", row(i)->name);
            owners[row(i)->offset + k] = 1;
        }
        used += bytes_of(row(i));
    }
    cr_assert(used == sizeof(struct settings), "%zu bytes have no row",
              sizeof(struct settings) - used);
}

/* Names can be typed: lower-case words with dashes, short enough for the reader of the options, and
 * none twice; each has a help. */
Test(schema, rows_have_a_name_and_a_help)
{
    for (size_t i = 0; row(i) != NULL; i++) {
        const char *name = row(i)->name;

        cr_assert(name[strspn(name, "abcdefghijklmnopqrstuvwxyz-")] == '\0', "%s", name);
        cr_assert(name[0] != '-', "%s", name);
        cr_assert(strlen(name) >= 3, "%s", name);
        cr_assert(strlen(name) <= 63, "%s", name);
        cr_assert(strlen(row(i)->help) > 5, "%s", name);
        cr_assert(schema_find(name) == row(i), "%s is there twice", name);
    }
}

/* Only whole names are found. */
Test(schema, find_takes_no_other_name)
{
    static const char *const names[] = {"", "work", "workers ", "Workers", "workerss", "--log"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        cr_assert(schema_find(names[i]) == NULL, "\"%s\"", names[i]);
    }
}

/* The words of the file stand in the order of the enums that the program uses. */
Test(schema, choices_have_the_order_of_their_enums)
{
    static const struct {
        const char *name;
        const char *word;
        uint64_t number;
    } cases[] = {
        {"splice", "auto", CONFIG_SPLICE_AUTO},   {"splice", "always", CONFIG_SPLICE_ALWAYS},
        {"splice", "never", CONFIG_SPLICE_NEVER}, {"log", "text", CONFIG_LOG_TEXT},
        {"log", "json", CONFIG_LOG_JSON},         {"log", "none", CONFIG_LOG_NONE},
    };
    size_t words = 0;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct settings settings = {0};
        char text[ADDR_TEXT_BYTES];

        cr_assert(accepts(find(cases[i].name), cases[i].word, &settings), "%s", cases[i].word);
        cr_assert(number_in(find(cases[i].name), &settings) == cases[i].number, "%s",
                  cases[i].word);
        schema_format(find(cases[i].name), &settings, text);
        cr_assert_str_eq(text, cases[i].word);
    }
    for (size_t i = 0; row(i) != NULL; i++) {
        for (const char *at = row(i)->words; row(i)->type == SETTING_CHOICE && at != NULL;) {
            words++;
            at = strchr(at, '|');
            at = at != NULL ? at + 1 : NULL;
        }
    }
    cr_assert(words == ARRAY_LEN(cases), "a word has no row in this test");
}

/* --- values --- */

/* Every default can be written down and is printed as it is written. */
Test(schema, defaults_are_read_and_written_back)
{
    for (size_t i = 0; row(i) != NULL; i++) {
        struct settings settings = {0};
        char text[ADDR_TEXT_BYTES];

        if (row(i)->fallback[0] != '\0') {
            cr_assert(accepts(row(i), row(i)->fallback, &settings), "%s", row(i)->name);
        } else {
            cr_assert(is_text(row(i)), "%s: only a text may be unset", row(i)->name);
        }
        schema_format(row(i), &settings, text);
        cr_assert_str_eq(text, row(i)->fallback, "%s: \"%s\"", row(i)->name, text);
    }
}

/* The limits belong to the range, and one step beyond each does not. */
Test(schema, range_ends_exactly_at_its_limits)
{
    for (size_t i = 0; row(i) != NULL; i++) {
        uint64_t step = row(i)->type == SETTING_DURATION ? NS_PER_MS : 1;
        const uint64_t inside[] = {row(i)->min, row(i)->min + step, row(i)->max - step,
                                   row(i)->max};
        const uint64_t outside[] = {row(i)->min - step, row(i)->max + step, 0};

        if (!is_number(row(i))) {
            continue;
        }
        cr_assert(row(i)->min >= step, "%s: 0 is kept for words", row(i)->name);
        for (size_t k = 0; k < ARRAY_LEN(inside); k++) {
            struct settings settings = {0};
            struct settings again = {0};
            char text[ADDR_TEXT_BYTES];

            write_number(row(i), inside[k], text);
            cr_assert(accepts(row(i), text, &settings), "%s %s", row(i)->name, text);
            cr_assert(number_in(row(i), &settings) == inside[k], "%s %s", row(i)->name, text);
            schema_format(row(i), &settings, text);
            cr_assert(accepts(row(i), text, &again), "%s %s", row(i)->name, text);
            cr_assert(number_in(row(i), &again) == inside[k], "%s %s", row(i)->name, text);
        }
        for (size_t k = 0; k < ARRAY_LEN(outside); k++) {
            char expected[SCHEMA_EXPECTED_BYTES];
            char text[64];

            write_number(row(i), outside[k], text);
            assert_refused(row(i), text, expected);
        }
    }
}

/* A word such as `off` is for those rows that have one, is 0 to the program, and comes back. */
Test(schema, words_stand_for_zero_where_they_are_allowed)
{
    static const char *const words[] = {"auto", "off"};

    for (size_t i = 0; row(i) != NULL; i++) {
        for (size_t k = 0; is_number(row(i)) && k < ARRAY_LEN(words); k++) {
            struct settings settings;
            char text[ADDR_TEXT_BYTES];
            char expected[SCHEMA_EXPECTED_BYTES];

            memset(&settings, 0x5a, sizeof(settings));
            if (row(i)->words == NULL || strcmp(row(i)->words, words[k]) != 0) {
                assert_refused(row(i), words[k], expected);
                continue;
            }
            cr_assert(accepts(row(i), words[k], &settings), "%s %s", row(i)->name, words[k]);
            cr_assert(number_in(row(i), &settings) == 0, "%s %s", row(i)->name, words[k]);
            schema_format(row(i), &settings, text);
            cr_assert_str_eq(text, words[k]);
        }
    }
}

/* Nonsense is refused by every row, and nothing is changed. */
Test(schema, nonsense_is_refused_by_every_row)
{
    static const char *const values[] = {"", "-1", "1.5", "5 s", "auto|always", "|"};

    for (size_t i = 0; row(i) != NULL; i++) {
        for (size_t k = 0; k < ARRAY_LEN(values); k++) {
            char expected[SCHEMA_EXPECTED_BYTES];

            if (row(i)->type != SETTING_NAME || values[k][0] == '\0') {
                assert_refused(row(i), values[k], expected);
            }
        }
    }
}

/* What was expected is said with its unit, its limits, its words and an example. */
Test(schema, refusal_says_what_was_expected)
{
    for (size_t i = 0; row(i) != NULL; i++) {
        char expected[SCHEMA_EXPECTED_BYTES];
        char text[UNITS_TEXT_BYTES];

        assert_refused(row(i), "", expected);
        if (row(i)->type == SETTING_DURATION) {
            cr_assert(strstr(expected, "(ms s m h d)") != NULL, "%s", expected);
            duration_format(row(i)->max, text);
            cr_assert(strstr(expected, text) != NULL, "%s", expected);
        } else if (row(i)->type == SETTING_SIZE) {
            cr_assert(strstr(expected, "k m g") != NULL, "%s", expected);
            size_format(row(i)->max, text);
            cr_assert(strstr(expected, text) != NULL, "%s", expected);
        } else if (row(i)->type == SETTING_COUNT) {
            (void)snprintf(text, sizeof(text), "from %" PRIu64 " to %" PRIu64, row(i)->min,
                           row(i)->max);
            cr_assert(strstr(expected, text) != NULL, "%s", expected);
        }
        if (row(i)->words != NULL) {
            cr_assert(strstr(expected, row(i)->words) != NULL, "%s", expected);
        }
        if (is_number(row(i))) {
            cr_assert(strstr(expected, row(i)->fallback) != NULL, "no example: %s", expected);
        }
    }
}

/* The whole sentence, once for each type. */
Test(schema, refusal_is_one_sentence)
{
    static const struct {
        const char *name;
        const char *expected;
    } cases[] = {
        {"workers", "a number from 1 to 1024, or auto, such as auto"},
        {"connect-timeout", "a duration with its unit (ms s m h d) from 1ms to 1h, such as 5s"},
        {"idle-timeout",
         "a duration with its unit (ms s m h d) from 1ms to 365d, or off, such as 1h"},
        {"pipe-size", "a size in bytes, or with k m g, from 64k to 1m, such as 1m"},
        {"splice", "one of auto|always|never"},
        {"source", "an IPv4 or IPv6 address without port, such as 192.0.2.7"},
        {"user", "a name of 1 to 63 bytes"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char expected[SCHEMA_EXPECTED_BYTES];

        assert_refused(find(cases[i].name), "", expected);
        cr_assert_str_eq(expected, cases[i].expected, "%s: %s", cases[i].name, expected);
    }
}

/* An address to connect from is a plain IP address; it is kept as it was written. */
Test(schema, source_is_an_address_without_port)
{
    static const struct {
        const char *value;
        bool valid;
    } cases[] = {
        {"192.0.2.7", true},    {"127.0.0.1", true},      {"::1", true},
        {"2001:db8::7", true},  {"::ffff:1.2.3.4", true}, {"192.0.2.7:80", false},
        {"[::1]", false},       {"localhost", false},     {"192.0.2", false},
        {"192.0.2.256", false}, {"192.0.2.07", false},    {" 192.0.2.7", false},
        {"::1 ", false},        {"eth0", false},          {"*", false},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct settings settings = {0};
        char expected[SCHEMA_EXPECTED_BYTES];

        if (cases[i].valid) {
            cr_assert(accepts(find("source"), cases[i].value, &settings), "%s", cases[i].value);
            cr_assert_str_eq(settings.source, cases[i].value);
        } else {
            assert_refused(find("source"), cases[i].value, expected);
        }
    }
}

/* A name fills its place with its last byte and goes no further. */
Test(schema, user_name_has_63_bytes_at_most)
{
    char name[USER_NAME_BYTES + 1];
    char expected[SCHEMA_EXPECTED_BYTES];
    struct settings settings = {0};

    memset(name, 'u', sizeof(name));
    name[USER_NAME_BYTES] = '\0';
    assert_refused(find("user"), name, expected);
    name[USER_NAME_BYTES - 1] = '\0';
    cr_assert(accepts(find("user"), name, &settings));
    cr_assert_str_eq(settings.user, name);
    cr_assert(accepts(find("user"), "n", &settings));
    cr_assert_str_eq(settings.user, "n");
}

/* The help shows what a value looks like. */
Test(schema, placeholder_shows_type_and_words)
{
    static const struct {
        const char *name;
        const char *placeholder;
    } cases[] = {
        {"workers", "NUMBER|auto"},
        {"connect-timeout", "DURATION"},
        {"idle-timeout", "DURATION|off"},
        {"pipe-size", "SIZE"},
        {"splice", "auto|always|never"},
        {"log", "text|json|none"},
        {"source", "ADDRESS"},
        {"user", "NAME"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[64];

        schema_placeholder(find(cases[i].name), text);
        cr_assert_str_eq(text, cases[i].placeholder);
    }
}
