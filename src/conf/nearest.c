/* Edit distance over the names of the schema, with one row of the usual table. */
#include "conf/nearest.h"

#include "base/macros.h"
#include "conf/schema.h"

#include <limits.h>
#include <string.h>

enum {
    NAME_LEN_MAX = 63,
    DISTANCE_MAX = 3 /* beyond that, or beyond half of the name, a suggestion only confuses */
};

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned smaller = a < b ? a : b;

    return smaller < c ? smaller : c;
}

unsigned nearest_distance(const char *a, const char *b)
{
    unsigned row[NAME_LEN_MAX + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);

    if (a_len > NAME_LEN_MAX || b_len > NAME_LEN_MAX) {
        return UINT_MAX;
    }
    for (size_t k = 0; k <= b_len; k++) {
        row[k] = (unsigned)k;
    }
    for (size_t i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (size_t k = 1; k <= b_len; k++) {
            unsigned above = row[k];

            row[k] = min3(above + 1, row[k - 1] + 1, diagonal + (a[i - 1] != b[k - 1]));
            diagonal = above;
        }
    }
    return row[b_len];
}

const char *nearest_setting(const char *name)
{
    unsigned best = (unsigned)min_size(DISTANCE_MAX, (strlen(name) + 1) / 2) + 1;
    const char *found = NULL;
    size_t len;
    const struct setting *rows = schema_settings(&len);

    for (size_t i = 0; i < len; i++) {
        unsigned distance = nearest_distance(name, rows[i].name);

        if (distance < best) {
            best = distance;
            found = rows[i].name;
        }
    }
    return found;
}
