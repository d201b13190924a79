/* The first error stays; after it nothing is read any more. */
#include "support/json.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static void expect_char(struct json *json, char wanted)
{
    if (json->error == NULL && *json->next++ != wanted) {
        json->error = "a bracket, comma, colon or quote is missing";
    }
}

static int read_escape(struct json *json)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    char letter = *json->next++;
    const char *name = letter != '\0' ? strchr(names, letter) : NULL;
    char digits[5] = "";
    unsigned long code;
    char *end;

    if (name != NULL) {
        return (unsigned char)values[name - names];
    }
    /* Copied, because sscanf(3) and others would look at all the rest of the log each time. */
    memcpy(digits, json->next, strnlen(json->next, 4));
    code = strtoul(digits, &end, 16);
    if (letter != 'u' || end != digits + 4 || digits[0] != '0' || code > 0xff) {
        json->error = "an escape is wrong";
        return 0;
    }
    json->next += 4;
    return (int)code;
}

static void read_string(struct json *json, char *text, size_t text_bytes)
{
    size_t len = 0;

    expect_char(json, '"');
    while (json->error == NULL && *json->next != '"') {
        unsigned char byte = (unsigned char)*json->next++;

        if (byte < ' ' || byte > '~') {
            json->error = "a byte should have been escaped";
        } else if (len + 1 == text_bytes) {
            json->error = "a string is too long for this test";
        } else {
            text[len++] = byte == '\\' ? (char)read_escape(json) : (char)byte;
        }
    }
    text[len] = '\0';
    expect_char(json, '"');
}

static void read_word(struct json *json, struct json_field *field)
{
    size_t len = strcspn(json->next, ",}\n");
    char *end;

    if (len >= JSON_VALUE_BYTES) {
        json->error = "a value is too long for this test";
        return;
    }
    memcpy(field->value, json->next, len);
    field->value[len] = '\0';
    json->next += len;
    (void)strtod(field->value, &end);
    if (strcmp(field->value, "null") == 0) {
        field->kind = '0';
    } else if (strcmp(field->value, "true") == 0 || strcmp(field->value, "false") == 0) {
        field->kind = 'b';
    } else if (len > 0 && *end == '\0' && strspn(field->value, "0123456789.") == len) {
        field->kind = 'n';
    } else {
        json->error = "a value is none";
    }
}

static void read_field(struct json *json)
{
    struct json_field *field = &json->fields[json->fields_len];

    read_string(json, field->key, sizeof(field->key));
    expect_char(json, ':');
    if (json->error == NULL && *json->next == '"') {
        field->kind = 's';
        read_string(json, field->value, JSON_VALUE_BYTES);
    } else if (json->error == NULL) {
        read_word(json, field);
    }
    for (size_t i = 0; i < json->fields_len && json->error == NULL; i++) {
        if (strcmp(json->fields[i].key, field->key) == 0) {
            json->error = "a key comes twice, and most readers keep only the last";
        }
    }
    if (++json->fields_len == JSON_FIELDS_MAX) {
        json->error = "there are more fields than this test has room for";
    }
}

const char *json_read(const char *line, struct json *json)
{
    json->next = line;
    json->fields_len = 0;
    json->error = NULL;
    expect_char(json, '{');
    read_field(json);
    while (json->error == NULL && *json->next == ',') {
        json->next++;
        read_field(json);
    }
    expect_char(json, '}');
    expect_char(json, '\n');
    cr_assert(json->error == NULL, "%s in: %.*s", json->error, (int)strcspn(line, "\n"), line);
    return json->next;
}

void json_expect(const struct json *json, const char *key, char kind, const char *value)
{
    for (size_t i = 0; i < json->fields_len; i++) {
        const struct json_field *field = &json->fields[i];

        if (strcmp(field->key, key) == 0) {
            cr_assert(field->kind == kind && (value == NULL || strcmp(field->value, value) == 0),
                      "%s is %c %s", key, field->kind, field->value);
            return;
        }
    }
    cr_assert_fail("there is no \"%s\"", key);
}
