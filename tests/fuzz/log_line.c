/* Fuzzes the writer of log lines, base/line.c: any bytes as values, any number of them, both
 * formats.
 *
 * The line is read back by two small strict readers, written from the rules that line.c states and
 * not from its code.
 *
 * Oracles
 *   L1 A line is printable ASCII, ends with its only newline, and fits into LINE_BYTES_MAX.
 *   L2 What is read back are the values that were added, byte for byte, in their order.
 *   L3 Only the last values are missing, and then the line says so; nothing is left out that would
 *      fit. */
#include "base/line.h"
#include "base/macros.h"
#include "fuzz/common/input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VALUES_MAX = 16, DECODED_MAX = LINE_BYTES_MAX, TAIL_BYTES = 24 };

enum kind { KIND_STRING, KIND_NULL, KIND_NUMBER, KIND_SECONDS };

struct value {
    const char *key;
    enum kind kind;
    char *text;      /* owned; of a string */
    uint64_t number; /* of a number or of nanoseconds */
};

static const char *const keys[] = {"id", "client", "server_local", "how", "bytes_up", "a"};

/* What is left of a line that is being read. */
struct reader {
    const char *next;
    const char *end;
    bool json;
};

static bool starts_with(const struct reader *reader, const char *text)
{
    size_t len = strlen(text);

    return (size_t)(reader->end - reader->next) >= len && memcmp(reader->next, text, len) == 0;
}

static void read_exactly(struct reader *reader, const char *text)
{
    EXPECT(starts_with(reader, text), "L2: \"%s\" is missing before: %.*s", text,
           (int)(reader->end - reader->next), reader->next);
    reader->next += strlen(text);
}

static char read_char(struct reader *reader)
{
    EXPECT(reader->next < reader->end, "L2: the line ends too early");
    return *reader->next++;
}

static char read_hex(struct reader *reader, unsigned digits)
{
    static const char hex[] = "0123456789abcdef";
    unsigned value = 0;

    for (unsigned i = 0; i < digits; i++) {
        const char *digit = strchr(hex, read_char(reader));

        EXPECT(digit != NULL && *digit != '\0', "L2: no hex digit");
        value = value * 16 + (unsigned)(digit - hex);
    }
    EXPECT(value <= 0xff, "L2: more than a byte");
    return (char)value;
}

static char read_escape(struct reader *reader)
{
    char letter = read_char(reader);

    switch (letter) {
    case '"':
    case '\\':
        return letter;
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        EXPECT(letter == (reader->json ? 'u' : 'x'), "L2: the escape \\%c", letter);
        return read_hex(reader, reader->json ? 4 : 2);
    }
}

/* A string of either format into `text`. */
static void read_string(struct reader *reader, char text[DECODED_MAX])
{
    size_t len = 0;

    if (!starts_with(reader, "\"")) {
        EXPECT(!reader->json, "L2: a string without quotes");
        while (*reader->next != ' ' && *reader->next != '\n') {
            text[len++] = read_char(reader);
            EXPECT(strchr("\"\\=", text[len - 1]) == NULL, "L2: a plain %c", text[len - 1]);
        }
        EXPECT(len > 0, "L2: a plain value that is empty");
    } else {
        read_exactly(reader, "\"");
        while (!starts_with(reader, "\"")) {
            char next = read_char(reader);

            text[len++] = next == '\\' ? read_escape(reader) : next;
        }
        read_exactly(reader, "\"");
    }
    text[len] = '\0';
}

static void print_number(const struct value *value, char text[64])
{
    if (value->kind == KIND_NUMBER) {
        (void)snprintf(text, 64, "%llu", (unsigned long long)value->number);
    } else {
        (void)snprintf(text, 64, "%llu.%06llu", (unsigned long long)(value->number / NS_PER_S),
                       (unsigned long long)(value->number % NS_PER_S / NS_PER_US));
    }
}

/* Reads the next value, which must be this one. */
static void expect_value(struct reader *reader, const struct value *value)
{
    char text[DECODED_MAX];
    char key[64];

    (void)snprintf(key, sizeof(key), reader->json ? ",\"%s\":" : " %s=", value->key);
    read_exactly(reader, key);
    switch (value->kind) {
    case KIND_STRING:
        read_string(reader, text);
        EXPECT(strcmp(text, value->text) == 0, "L2: \"%s\" became \"%s\"", value->text, text);
        return;
    case KIND_NULL:
        read_exactly(reader, "null");
        return;
    case KIND_NUMBER:
    case KIND_SECONDS:
        print_number(value, text);
        read_exactly(reader, text);
        return;
    }
}

static size_t escaped_bytes(const struct value *value, bool json)
{
    bool plain = value->text[0] != '\0' && !json;
    size_t len = 0;

    for (const char *next = value->text; *next != '\0'; next++) {
        unsigned char byte = (unsigned char)*next;

        plain = plain && byte > ' ' && byte <= '~' && strchr("\"\\=", byte) == NULL;
        if (strchr("\"\\\n\r\t", byte) != NULL) {
            len += 2;
        } else if (byte < ' ' || byte > '~') {
            len += json ? 6 : 4;
        } else {
            len += 1;
        }
    }
    return plain ? len : len + 2;
}

/* What this value takes of a line, key and all. */
static size_t size_of(const struct value *value, bool json)
{
    size_t len = strlen(value->key) + (json ? 4 : 2);
    char text[64];

    switch (value->kind) {
    case KIND_STRING:
        return len + escaped_bytes(value, json);
    case KIND_NULL:
        return json ? len + 4 : 0;
    case KIND_NUMBER:
    case KIND_SECONDS:
        print_number(value, text);
        return len + strlen(text);
    }
    return 0;
}

static void expect_start(struct reader *reader, uint64_t realtime_ns)
{
    time_t seconds = (time_t)(realtime_ns / NS_PER_S);
    char stamp[32];
    char start[64];
    struct tm utc;

    (void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", gmtime_r(&seconds, &utc));
    (void)snprintf(start, sizeof(start),
                   reader->json ? "{\"ts\":\"%s.%06uZ\",\"event\":\"close\"" : "%s.%06uZ close",
                   stamp, (unsigned)(realtime_ns % NS_PER_S / NS_PER_US));
    read_exactly(reader, start);
}

static void check_line(const struct line *line, uint64_t realtime_ns, const struct value *values,
                       size_t values_len)
{
    struct reader reader = {line->text, line->text + line->len, line->format == LINE_JSON};
    const char *truncated = reader.json ? ",\"truncated\":true}\n" : " truncated=true\n";
    size_t i;

    EXPECT(line->len <= LINE_BYTES_MAX, "L1: %zu bytes", line->len);
    for (i = 0; i + 1 < line->len; i++) {
        EXPECT(line->text[i] >= ' ' && line->text[i] <= '~', "L1: byte %02x", line->text[i]);
    }
    expect_start(&reader, realtime_ns);
    for (i = 0; i < values_len && !starts_with(&reader, truncated); i++) {
        if (values[i].kind != KIND_NULL || reader.json) {
            expect_value(&reader, &values[i]);
        }
    }
    if (starts_with(&reader, truncated)) {
        size_t len = (size_t)(reader.next - line->text);

        while (i < values_len && values[i].kind == KIND_NULL && !reader.json) {
            i++; /* takes no place in text */
        }
        EXPECT(i < values_len, "L3: says truncated, and nothing is missing");
        EXPECT(len + size_of(&values[i], reader.json) > LINE_BYTES_MAX - TAIL_BYTES,
               "L3: a value is missing that would fit");
        read_exactly(&reader, truncated);
    } else {
        read_exactly(&reader, reader.json ? "}\n" : "\n");
    }
    EXPECT(reader.next == reader.end, "L1: something follows the line's end");
}

static uint64_t read_u64(struct input *input)
{
    return input_below(input, UINT64_MAX);
}

/* One byte many times, so that a short input can fill a line. */
static char *repeated(struct input *input)
{
    size_t len = input_below(input, DECODED_MAX);
    char *text = malloc(len + 1);

    memset(text, 1 + (int)input_below(input, 255), len);
    text[len] = '\0';
    return text;
}

/* Reads one value from the input and adds it to the line. */
static void add(struct input *input, struct line *line, struct value *value)
{
    uint8_t choice = input_byte(input);

    value->key = keys[choice / 4 % ARRAY_LEN(keys)];
    value->kind = (enum kind)(choice % 4);
    switch (value->kind) {
    case KIND_STRING:
        value->text = choice >= 128 ? repeated(input) : input_word(input, 0);
        line_string(line, value->key, value->text);
        return;
    case KIND_NULL:
        line_string(line, value->key, NULL);
        return;
    case KIND_NUMBER:
        value->number = read_u64(input);
        line_u64(line, value->key, value->number);
        return;
    case KIND_SECONDS:
        value->number = read_u64(input);
        line_seconds(line, value->key, value->number);
        return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct input input = {bytes, len};
    struct line *line = malloc(sizeof(*line));
    struct value values[VALUES_MAX] = {0};
    enum line_format format = (enum line_format)(input_byte(&input) % 2);
    uint64_t realtime_ns = read_u64(&input);
    size_t values_len = 0;

    line_begin(line, format, realtime_ns, "close");
    while (input.left > 0 && values_len < VALUES_MAX) {
        add(&input, line, &values[values_len++]);
    }
    line_end(line);
    check_line(line, realtime_ns, values, values_len);
    for (size_t i = 0; i < values_len; i++) {
        free(values[i].text);
    }
    free(line);
    return 0;
}
