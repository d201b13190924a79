/* Tests of the suggestion for a misspelt name: the distance by definition, and what it is good for. */
#include "conf/nearest.h"

#include "base/macros.h"
#include "conf/schema.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The distance is the number of letters to change, insert or remove. */
Test(nearest, distance_counts_edits)
{
    static const struct {
        const char *a;
        const char *b;
        unsigned distance;
    } cases[] = {
        {"", "", 0},
        {"", "log", 3},
        {"log", "log", 0},
        {"log", "lag", 1},
        {"log", "logs", 1},
        {"log", "og", 1},
        {"log", "lgo", 2},
        {"log", "abc", 3},
        {"kitten", "sitting", 3},
        {"flaw", "lawn", 2},
        {"ab", "ba", 2},
        {"aaaa", "aa", 2},
        {"abcdef", "bcdefg", 2},
        {"intention", "execution", 5},
        {"\xff", "\x7f", 1},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cr_assert(nearest_distance(cases[i].a, cases[i].b) == cases[i].distance, "%s %s",
                  cases[i].a, cases[i].b);
        cr_assert(nearest_distance(cases[i].b, cases[i].a) == cases[i].distance, "%s %s",
                  cases[i].b, cases[i].a);
    }
}

/* Names of 63 bytes are compared; longer ones are as far apart as can be, from anything. */
Test(nearest, distance_ends_at_63_bytes)
{
    char longest[64];
    char too_long[65];

    memset(longest, 'x', sizeof(longest));
    longest[63] = '\0';
    memset(too_long, 'x', sizeof(too_long));
    too_long[64] = '\0';
    cr_assert(nearest_distance(longest, longest) == 0);
    cr_assert(nearest_distance(longest, "") == 63);
    cr_assert(nearest_distance(too_long, longest) == UINT_MAX);
    cr_assert(nearest_distance(longest, too_long) == UINT_MAX);
    cr_assert(nearest_distance(too_long, too_long) == UINT_MAX);
    cr_assert(nearest_setting(too_long) == NULL);
}

/* The distance by its definition, without a table; for short words only. */
static unsigned slow_distance(const char *a, const char *b)
{
    unsigned remove;
    unsigned insert;
    unsigned change;

    if (*a == '\0' || *b == '\0') {
        return (unsigned)(strlen(a) + strlen(b));
    }
    change = slow_distance(a + 1, b + 1) + (*a != *b);
    remove = slow_distance(a + 1, b) + 1;
    insert = slow_distance(a, b + 1) + 1;
    if (remove < change) {
        change = remove;
    }
    return insert < change ? insert : change;
}

/* Random short words over a small alphabet agree with the definition. */
Test(nearest, distance_agrees_with_its_definition)
{
    uint64_t random = 1;

    for (size_t i = 0; i < 2000; i++) {
        char words[2][8] = {"", ""};

        for (size_t k = 0; k < 2; k++) {
            size_t len = next_random(&random) % 7;

            for (size_t at = 0; at < len; at++) {
                words[k][at] = (char)('a' + next_random(&random) % 3);
            }
        }
        cr_assert(nearest_distance(words[0], words[1]) == slow_distance(words[0], words[1]),
                  "%s %s", words[0], words[1]);
    }
}

/* The slips that people make are understood. */
Test(nearest, setting_is_found_for_a_slip)
{
    static const struct {
        const char *typed;
        const char *meant;
    } cases[] = {
        {"workers", "workers"},
        {"worker", "workers"},
        {"wrokers", "workers"},
        {"Workers", "workers"},
        {"conect-timeout", "connect-timeout"},
        {"connect_timeout", "connect-timeout"},
        {"connecttimeout", "connect-timeout"},
        {"connection-timeout", "connect-timeout"},
        {"connecting-timeouts", NULL}, /* four letters are too many */
        {"idle-timout", "idle-timeout"},
        {"max-connection", "max-connections"},
        {"maxconnections", "max-connections"},
        {"keepalive-interva", "keepalive-interval"},
        {"spice", "splice"},
        {"pipesize", "pipe-size"},
        {"sorce", "source"},
        {"logs", "log"},
        {"lgo", "log"},
        {"usr", "user"},
        {"completely-different", NULL},
        {"timeout-for-connecting", NULL},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *found = nearest_setting(cases[i].typed);

        if (cases[i].meant == NULL) {
            cr_assert_null(found, "%s: %s", cases[i].typed, found);
        } else {
            cr_assert_not_null(found, "%s", cases[i].typed);
            cr_assert_str_eq(found, cases[i].meant, "%s: %s", cases[i].typed, found);
        }
    }
}

/* Whatever the setting, a letter left out or doubled does not hide it. */
Test(nearest, setting_is_found_with_one_letter_wrong)
{
    size_t len;
    const struct setting *rows = schema_settings(&len);

    for (size_t i = 0; i < len; i++) {
        size_t name_len = strlen(rows[i].name);

        for (size_t at = 0; at < name_len; at++) {
            char typed[80];
            int at_len = (int)at;

            (void)snprintf(typed, sizeof(typed), "%.*s%s", at_len, rows[i].name,
                           rows[i].name + at + 1);
            cr_assert_str_eq(nearest_setting(typed), rows[i].name, "%s", typed);
            (void)snprintf(typed, sizeof(typed), "%.*s%c%s", at_len, rows[i].name, rows[i].name[at],
                           rows[i].name + at);
            cr_assert_str_eq(nearest_setting(typed), rows[i].name, "%s", typed);
        }
    }
}

/* A suggestion that shares nothing with what was typed confuses: a short name is always within three
 * letters of another short name. */
Test(nearest, short_names_get_no_far_fetched_suggestion)
{
    static const char *const typed[] = {"", "c", "x", "D", "tT", "-", "abc", "port"};

    for (size_t i = 0; i < ARRAY_LEN(typed); i++) {
        const char *found = nearest_setting(typed[i]);

        cr_assert_null(found, "\"%s\": did you mean \"%s\"?", typed[i], found);
    }
}
