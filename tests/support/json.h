/* Test support: a strict reader of JSON lines (RFC 8259), as far as a log needs it: one flat object
 * a line, no key twice, nothing but printable ASCII. */
#ifndef SUPPORT_JSON_H
#define SUPPORT_JSON_H

#include <stddef.h>

enum { JSON_FIELDS_MAX = 64, JSON_VALUE_BYTES = 1024 };

struct json_field {
    char key[32];
    char value
        [JSON_VALUE_BYTES]; /* of a string: decoded, one byte for each character up to U+00FF */
    char kind;              /* 's'tring, 'n'umber, '0' for null, 'b'oolean */
};

struct json {
    struct json_field fields[JSON_FIELDS_MAX];
    size_t fields_len;
    /* private */
    const char *next;
    const char *error; /* NULL: none yet */
};

/** Reads one line, which must be exactly one object; the start of the next line is returned. The
 *  test fails on anything else. */
const char *json_read(const char *line, struct json *json);

/** There must be such a field, of this kind, and with this value unless that is NULL. */
void json_expect(const struct json *json, const char *key, char kind, const char *value);

#endif
