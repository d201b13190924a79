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
#include "base/macros.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
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

PRINTF_LIKE(2, 3) static void append_format(struct line *line, const char *format, ...)
{
    char text[64];
    va_list values;
    int len;

    va_start(values, format);
    len = vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    CHECK(len >= 0 && len < (int)sizeof(text));
    append(line, text, (size_t)len);
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
            append_format(line, line->format == LINE_JSON ? "\\u%04x" : "\\x%02x", byte);
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

void line_begin(struct line *line, enum line_format format, uint64_t realtime_ns, const char *event)
{
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    unsigned micros = (unsigned)(realtime_ns % NS_PER_S / NS_PER_US);
    char stamp[64];
    struct tm utc;
    size_t len;

    line->format = format;
    line->len = 0;
    line->truncated = false;
    CHECK(gmtime_r(&seconds, &utc) != NULL);
    len = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    CHECK(len > 0);
    append_text(line, format == LINE_JSON ? "{\"ts\":\"" : "");
    append(line, stamp, len);
    append_format(line, ".%06uZ", micros);
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
    append_format(line, "%" PRIu64, value);
    drop_partial(line, len_before);
}

void line_seconds(struct line *line, const char *key, uint64_t duration_ns)
{
    size_t len_before = line->len;

    append_key(line, key);
    append_format(line, "%" PRIu64 ".%06" PRIu64, duration_ns / NS_PER_S,
                  duration_ns % NS_PER_S / NS_PER_US);
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
