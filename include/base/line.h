/* Layer: base. Puts together one log line, as text or as JSON, from the same calls.
 *
 *   text   2026-11-22T17:00:00.000000Z close id=0000000100000001 client=127.0.0.1:50000 ...
 *   json   {"ts":"2026-11-22T17:00:00.000000Z","event":"close","id":"0000000100000001", ...}
 *
 * Every string is escaped, so that one event is always one line, whatever a peer or a path
 * contains. A value that does not fit is left out whole and the line says truncated=true. */
#ifndef BASE_LINE_H
#define BASE_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum line_format { LINE_TEXT, LINE_JSON };

/** PIPE_BUF: a write(2) to a pipe of up to this size is atomic (pipe(7)), so lines of several
 *  processes never mix. */
enum { LINE_BYTES_MAX = 4096 };

struct line {
    enum line_format format;
    size_t len; /* bytes of `text` in use; no terminating 0 */
    bool truncated;
    char text[LINE_BYTES_MAX];
};

/** Starts a line: time stamp (UTC, microseconds) and the event's name (a plain identifier). */
void line_begin(struct line *line, enum line_format format, uint64_t realtime_ns,
                const char *event);

/** Adds a string; NULL is left out of text and is null in JSON. `key` is a plain identifier. */
void line_string(struct line *line, const char *key, const char *value);

/** Adds a whole number. */
void line_u64(struct line *line, const char *key, uint64_t value);

/** Adds a duration in seconds with six decimals. */
void line_seconds(struct line *line, const char *key, uint64_t duration_ns);

/** Ends the line with a newline. Nothing may be added afterwards. */
void line_end(struct line *line);

#endif
