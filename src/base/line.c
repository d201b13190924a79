/* One log event, one line: a bounded buffer and the escaping rules of the two formats.
 *
 * Rules for text: a value made of printable ASCII without space, quote, backslash or '=' stands as
 * it is; any other stands in double quotes, with \" \\ \n \r \t and \xNN for the rest, bytes above
 * 0x7e included (a terminal must not be steered by a peer's bytes). Rules for JSON: RFC 8259; bytes
 * above 0x7e become \u00NN, because a path need not be UTF-8 and the line must be.
 *
 * Room for the end of the line is kept free while values are added (L1), so line_end() can't fail:
 * an event is never lost for being long, only its last values are. */
#include "base/line.h"

#include "base/check.h"
#include "base/digits.h"
#include "base/macros.h"

#include <assert.h>
#include <string.h>
#include <time.h>

/* ` truncated=true\n` and `,"truncated":true}\n`: the longest end of a line, L1. */
enum { TAIL_BYTES = 24 };
static_assert(sizeof(",\"truncated\":true}\n") <= TAIL_BYTES, "the tail has room");

static void append(struct line *line, const char *bytes, size_t len)
{
    if (line->truncated) {
        return;
    }
    if (len > LINE_BYTES_MAX - TAIL_BYTES - line->len) {
        line->truncated = true;
        return;
    }
    memcpy(line->text + line->len, bytes, len);
    line->len += len;
}

static void append_text(struct line *line, const char *text)
{
    append(line, text, strlen(text));
}

static void append_number(struct line *line, uint64_t value)
{
    char text[DIGITS_MAX];

    append(line, text, (size_t)(digits_decimal(text, value) - text));
}

static void append_padded(struct line *line, uint64_t value, size_t count)
{
    char text[DIGITS_MAX];

    append(line, text, (size_t)(digits_padded(text, value, count) - text));
}

static bool is_plain(const char *value)
{
    if (*value == '\0') {
        return false;
    }
    for (; *value != '\0'; value++) {
        unsigned char byte = (unsigned char)*value;

        if (byte <= ' ' || byte > '~' || byte == '"' || byte == '\\' || byte == '=') {
            return false;
        }
    }
    return true;
}

static void append_escaped(struct line *line, unsigned char byte)
{
    switch (byte) {
    case '"':
        append_text(line, "\\\"");
        return;
    case '\\':
        append_text(line, "\\\\");
        return;
    case '\n':
        append_text(line, "\\n");
        return;
    case '\r':
        append_text(line, "\\r");
        return;
    case '\t':
        append_text(line, "\\t");
        return;
    default:
        if (byte < ' ' || byte > '~') {
            char text[2];

            append_text(line, line->format == LINE_JSON ? "\\u00" : "\\x");
            append(line, text, (size_t)(digits_hexadecimal(text, byte, 2) - text));
        } else {
            append(line, (const char *)&byte, 1);
        }
    }
}

static void append_quoted(struct line *line, const char *value)
{
    append_text(line, "\"");
    for (; *value != '\0'; value++) {
        append_escaped(line, (unsigned char)*value);
    }
    append_text(line, "\"");
}

static void append_key(struct line *line, const char *key)
{
    if (line->format == LINE_JSON) {
        append_text(line, ",\"");
        append_text(line, key);
        append_text(line, "\":");
    } else {
        append_text(line, " ");
        append_text(line, key);
        append_text(line, "=");
    }
}

/* A value that did not fit takes its key with it: the line is cut back to where it was. */
static void drop_partial(struct line *line, size_t len_before)
{
    if (line->truncated) {
        line->len = min_size(line->len, len_before);
    }
}

/* 2026-11-22T17:00:00.000000Z */
static void append_stamp(struct line *line, const struct tm *utc, unsigned micros)
{
    char text[] = "0000-00-00T00:00:00.000000Z";

    (void)digits_padded(text, (uint64_t)utc->tm_year + 1900, 4);
    (void)digits_padded(text + 5, (uint64_t)utc->tm_mon + 1, 2);
    (void)digits_padded(text + 8, (uint64_t)utc->tm_mday, 2);
    (void)digits_padded(text + 11, (uint64_t)utc->tm_hour, 2);
    (void)digits_padded(text + 14, (uint64_t)utc->tm_min, 2);
    (void)digits_padded(text + 17, (uint64_t)utc->tm_sec, 2);
    (void)digits_padded(text + 20, micros, 6);
    append(line, text, sizeof(text) - 1);
}

void line_begin(struct line *line, enum line_format format, uint64_t realtime_ns, const char *event)
{
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    unsigned micros = (unsigned)(realtime_ns % NS_PER_S / NS_PER_US);
    struct tm utc;

    line->format = format;
    line->len = 0;
    line->truncated = false;
    CHECK(gmtime_r(&seconds, &utc) != NULL);
    append_text(line, format == LINE_JSON ? "{\"ts\":\"" : "");
    append_stamp(line, &utc, micros);
    append_text(line, format == LINE_JSON ? "\",\"event\":\"" : " ");
    append_text(line, event);
    append_text(line, format == LINE_JSON ? "\"" : "");
}

void line_string(struct line *line, const char *key, const char *value)
{
    size_t len_before = line->len;

    if (value == NULL && line->format == LINE_TEXT) {
        return;
    }
    append_key(line, key);
    if (value == NULL) {
        append_text(line, "null");
    } else if (line->format == LINE_TEXT && is_plain(value)) {
        append_text(line, value);
    } else {
        append_quoted(line, value);
    }
    drop_partial(line, len_before);
}

void line_u64(struct line *line, const char *key, uint64_t value)
{
    size_t len_before = line->len;

    append_key(line, key);
    append_number(line, value);
    drop_partial(line, len_before);
}

void line_seconds(struct line *line, const char *key, uint64_t duration_ns)
{
    size_t len_before = line->len;

    append_key(line, key);
    append_number(line, duration_ns / NS_PER_S);
    append_text(line, ".");
    append_padded(line, duration_ns % NS_PER_S / NS_PER_US, 6);
    drop_partial(line, len_before);
}

void line_end(struct line *line)
{
    const char *tail;

    if (line->format == LINE_JSON) {
        tail = line->truncated ? ",\"truncated\":true}\n" : "}\n";
    } else {
        tail = line->truncated ? " truncated=true\n" : "\n";
    }
    CHECK(line->len + strlen(tail) <= LINE_BYTES_MAX); /* L1 */
    memcpy(line->text + line->len, tail, strlen(tail));
    line->len += strlen(tail);
}
