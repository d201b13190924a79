/* Strict on purpose: what these readers accept, any reader of the log accepts. */
#include "unit/base/line_reader.h"

#include "base/macros.h"

#include <criterion/criterion.h>
#include <string.h>

struct reader {
    const char *at;
    const char *end;
    struct parsed *parsed;
};

static int peek(const struct reader *reader)
{
    return reader->at < reader->end ? (unsigned char)*reader->at : -1;
}

static bool take(struct reader *reader, char byte)
{
    if (peek(reader) != (unsigned char)byte) {
        return false;
    }
    reader->at++;
    return true;
}

static bool take_word(struct reader *reader, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(reader->end - reader->at) < len || memcmp(reader->at, word, len) != 0) {
        return false;
    }
    reader->at += len;
    return true;
}

static void store(struct reader *reader, int byte)
{
    struct parsed *parsed = reader->parsed;

    cr_assert(parsed->used < sizeof(parsed->storage));
    parsed->storage[parsed->used++] = (char)byte;
}

static const char *stored_from(const struct reader *reader)
{
    return reader->parsed->storage + reader->parsed->used;
}

/* `digits` lower-case hexadecimal digits of a byte that is not 0; -1 when there are none such. */
static int take_hex_byte(struct reader *reader, size_t digits)
{
    static const char hex[] = "0123456789abcdef";
    unsigned value = 0;

    for (size_t i = 0; i < digits; i++) {
        const char *digit = peek(reader) > 0 ? strchr(hex, peek(reader)) : NULL;

        if (digit == NULL) {
            return -1;
        }
        value = value * 16 + (unsigned)(digit - hex);
        reader->at++;
    }
    return value > 0 && value <= 0xff ? (int)value : -1;
}

/* What stands behind a backslash; -1 when the format knows no such escape. */
static int take_escape(struct reader *reader, enum line_format format)
{
    if (take(reader, '"')) {
        return '"';
    }
    if (take(reader, '\\')) {
        return '\\';
    }
    if (take(reader, 'n')) {
        return '\n';
    }
    if (take(reader, 'r')) {
        return '\r';
    }
    if (take(reader, 't')) {
        return '\t';
    }
    if (take(reader, format == LINE_JSON ? 'u' : 'x')) {
        return take_hex_byte(reader, format == LINE_JSON ? 4 : 2);
    }
    return -1;
}

/* A string in double quotes; NULL when it isn't one, or has a byte that had to be escaped. */
static const char *take_quoted(struct reader *reader, enum line_format format)
{
    const char *string = stored_from(reader);

    if (!take(reader, '"')) {
        return NULL;
    }
    while (!take(reader, '"')) {
        int byte = peek(reader);

        if (byte < ' ' || byte > '~') {
            return NULL;
        }
        reader->at++;
        if (byte == '\\') {
            byte = take_escape(reader, format);
            if (byte < 0) {
                return NULL;
            }
        }
        store(reader, byte);
    }
    store(reader, '\0');
    return string;
}

/* A run of bytes out of `allowed`; NULL when there is none. */
static const char *take_run(struct reader *reader, const char *allowed)
{
    const char *run = stored_from(reader);

    if (peek(reader) <= 0 || strchr(allowed, peek(reader)) == NULL) {
        return NULL;
    }
    while (peek(reader) > 0 && strchr(allowed, peek(reader)) != NULL) {
        store(reader, *reader->at++);
    }
    store(reader, '\0');
    return run;
}

/* number = int [ "." 1*DIGIT ]; int without a leading zero; sign and exponent are never used. */
static const char *take_number(struct reader *reader)
{
    const char *number = take_run(reader, "0123456789.");
    const char *dot;

    if (number == NULL || number[0] == '.' ||
        (number[0] == '0' && strchr(".", number[1]) == NULL)) {
        return NULL;
    }
    dot = strchr(number, '.');
    if (dot != NULL && (dot[1] == '\0' || strchr(dot + 1, '.') != NULL)) {
        return NULL;
    }
    return number;
}

static const char *take_json_value(struct reader *reader, struct field *field)
{
    if (take_word(reader, "null")) {
        field->kind = KIND_NULL;
        return "";
    }
    if (take_word(reader, "true")) {
        field->kind = KIND_TRUE;
        return "true";
    }
    if (peek(reader) == '"') {
        field->kind = KIND_STRING;
        return take_quoted(reader, LINE_JSON);
    }
    field->kind = KIND_NUMBER;
    return take_number(reader);
}

static bool add_field(struct parsed *parsed, struct field field)
{
    if (field.key == NULL || field.value == NULL || parsed->count == FIELDS_MAX) {
        return false;
    }
    parsed->fields[parsed->count++] = field;
    return true;
}

static bool read_json(struct reader *reader)
{
    if (!take(reader, '{')) {
        return false;
    }
    do {
        struct field field = {0};

        field.key = take_quoted(reader, LINE_JSON);
        if (!take(reader, ':')) {
            return false;
        }
        field.value = take_json_value(reader, &field);
        if (!add_field(reader->parsed, field)) {
            return false;
        }
    } while (take(reader, ','));
    return take(reader, '}');
}

#define KEY_BYTES "abcdefghijklmnopqrstuvwxyz_0123456789"

static bool read_text(struct reader *reader)
{
    struct field ts = {"ts", take_run(reader, PLAIN_BYTES), KIND_STRING};
    struct field event = {"event", take(reader, ' ') ? take_run(reader, KEY_BYTES) : NULL,
                          KIND_STRING};

    if (!add_field(reader->parsed, ts) || !add_field(reader->parsed, event)) {
        return false;
    }
    while (take(reader, ' ')) {
        struct field field = {take_run(reader, KEY_BYTES), NULL, KIND_STRING};

        if (!take(reader, '=')) {
            return false;
        }
        field.value =
            peek(reader) == '"' ? take_quoted(reader, LINE_TEXT) : take_run(reader, PLAIN_BYTES);
        if (!add_field(reader->parsed, field)) {
            return false;
        }
    }
    return true;
}

bool line_parse(const struct line *line, struct parsed *parsed)
{
    struct reader reader = {line->text, line->text + line->len, parsed};

    parsed->count = 0;
    parsed->used = 0;
    if (!(line->format == LINE_JSON ? read_json(&reader) : read_text(&reader))) {
        return false;
    }
    return take(&reader, '\n') && reader.at == reader.end;
}

/* The readers are strict, or the tests below would prove little: a table of what they refuse. */
Test(line, readers_of_the_tests_refuse_what_is_invalid)
{
    static const struct {
        enum line_format format;
        bool valid;
        const char *text;
    } cases[] = {
        {LINE_JSON, true, "{\"a\":\"b\",\"c\":10.5,\"d\":null,\"e\":0.25,\"f\":\"\\u001b\"}\n"},
        {LINE_JSON, false, "{\"a\":\"b\"}"},
        {LINE_JSON, false, "{\"a\":\"b\"}\n\n"},
        {LINE_JSON, false, "{\"a\":\"b\"}\n{\"a\":\"b\"}\n"},
        {LINE_JSON, false, "{}\n"},
        {LINE_JSON, false, "{\"a\":\"b\",}\n"},
        {LINE_JSON, false, "{\"a\":\"b\"\"c\":1}\n"},
        {LINE_JSON, false, "{\"a\":b}\n"},
        {LINE_JSON, false, "{a:\"b\"}\n"},
        {LINE_JSON, false, "{\"a\":01}\n"},
        {LINE_JSON, false, "{\"a\":1.}\n"},
        {LINE_JSON, false, "{\"a\":.5}\n"},
        {LINE_JSON, false, "{\"a\":1.2.3}\n"},
        {LINE_JSON, false, "{\"a\":}\n"},
        {LINE_JSON, false, "{\"a\":\"\\x1b\"}\n"},
        {LINE_JSON, false, "{\"a\":\"\\u01b\"}\n"},
        {LINE_JSON, false, "{\"a\":\"\x1b\"}\n"},
        {LINE_JSON, false, "{\"a\":\"\xff\"}\n"},
        {LINE_JSON, false, "{\"a\":\"b\n\"}\n"},
        {LINE_JSON, false, "{\"a\":\"b}\n"},
        {LINE_TEXT, true, "ts event a=b c=\"d \\\"e\\\" \\x1b\"\n"},
        {LINE_TEXT, false, "ts event a=b c\n"},
        {LINE_TEXT, false, "ts event a=b=c\n"},
        {LINE_TEXT, false, "ts event a=\n"},
        {LINE_TEXT, false, "ts event  a=b\n"},
        {LINE_TEXT, false, "ts event a=\"b\n"},
        {LINE_TEXT, false, "ts event a=\"b\"c\n"},
        {LINE_TEXT, false, "ts event a=b\nts event a=b\n"},
        {LINE_TEXT, false, "ts event a=\x1b\n"},
        {LINE_TEXT, false, "ts event a=b"},
    };
    static struct parsed parsed;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct line line = {.format = cases[i].format, .len = strlen(cases[i].text)};

        memcpy(line.text, cases[i].text, line.len);
        cr_assert(line_parse(&line, &parsed) == cases[i].valid, "case %zu: %s", i, cases[i].text);
    }
}
