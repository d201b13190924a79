/* Numbers as text, held against printf(3). */
#include "base/digits.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>

static const uint64_t edges[] = {
    0,
    1,
    9,
    10,
    99,
    100,
    65535,
    1000000,
    UINT32_MAX,
    UINT64_C(9999999999),
    INT64_MAX,
    UINT64_C(10000000000000000000),
    UINT64_C(9999999999999999999),
    UINT64_MAX,
};

enum { EDGES = sizeof(edges) / sizeof(edges[0]) };

Test(digits, writes_what_printf_writes)
{
    for (size_t i = 0; i < EDGES; i++) {
        char expected[32];
        char text[32];

        *digits_decimal(text, edges[i]) = '\0';
        (void)snprintf(expected, sizeof(expected), "%" PRIu64, edges[i]);
        cr_assert_str_eq(text, expected);
        *digits_padded(text, edges[i], DIGITS_MAX) = '\0';
        (void)snprintf(expected, sizeof(expected), "%020" PRIu64, edges[i]);
        cr_assert_str_eq(text, expected);
        *digits_hexadecimal(text, edges[i], 16) = '\0';
        (void)snprintf(expected, sizeof(expected), "%016" PRIx64, edges[i]);
        cr_assert_str_eq(text, expected);
    }
}

Test(digits, keeps_the_last_digits_where_there_is_no_room_for_more)
{
    char text[8] = {0};

    *digits_padded(text, 1234567, 3) = '\0';
    cr_assert_str_eq(text, "567");
    *digits_hexadecimal(text, 0xabcdef, 2) = '\0';
    cr_assert_str_eq(text, "ef");
}
