/* Two small strict readers, one per format, that turn a log line back into fields. */
#ifndef UNIT_BASE_LINE_READER_H
#define UNIT_BASE_LINE_READER_H

#include "base/line.h"

/* Printable, without space, quote, backslash and '='. */
#define PLAIN_BYTES                                                                                \
    "!#$%&'()*+,-./0123456789:;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{|}~"

enum kind { KIND_STRING, KIND_NUMBER, KIND_TRUE, KIND_NULL };

struct field {
    const char *key;
    const char *value; /* decoded; of numbers the digits as written */
    enum kind kind;    /* text has no kinds: always KIND_STRING */
};

enum { FIELDS_MAX = 1200 };

/* The fields of a line in order; in both formats the first two are ts and event. */
struct parsed {
    size_t count;
    struct field fields[FIELDS_MAX];
    size_t used;
    char storage[2 * LINE_BYTES_MAX]; /* keys and values: decoded no longer than read */
};

/** False unless `line` is exactly one valid line, its newline included. */
bool line_parse(const struct line *line, struct parsed *parsed);

#endif
