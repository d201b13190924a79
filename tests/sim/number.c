/* See number.h. */
#include "sim/number.h"

#include <criterion/criterion.h>
#include <stdlib.h>

uint64_t number_from(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    char *end;
    uint64_t number;

    if (text == NULL || text[0] == '\0') {
        return fallback;
    }
    number = strtoull(text, &end, 10);
    cr_assert(*end == '\0' && number > 0, "%s=%s is no number above 0", name, text);
    return number;
}
