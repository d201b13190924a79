/* Layer: ops. The writing end of the log: events go into a pipe, from which the monitor process
 * takes them to stderr. The data plane never waits: what the pipe does not take is counted and
 * reported. */
#ifndef OPS_LOG_H
#define OPS_LOG_H

#include "base/line.h"
#include "base/metrics.h"
#include "relay/record.h"

#include <stdbool.h>

/** Lines are gathered up to this many bytes and written with one write(2), which is then atomic. */
enum { LOG_BATCH_BYTES = LINE_BYTES_MAX };

struct log {
    int fd; /* borrowed: non-blocking writing end of the pipe */
    enum line_format format;
    bool records;            /* write close records, not only process events */
    struct metrics *metrics; /* borrowed: log_dropped */
    /* private */
    struct line line;
    char batch[LOG_BATCH_BYTES];
    size_t batch_len;
    uint64_t batch_lines;
    uint64_t dropped; /* lines lost and not yet reported in the log itself */
};

void log_init(struct log *log, int fd, enum line_format format, bool records,
              struct metrics *metrics);

/** Adds the close record of a connection. */
void log_record(struct log *log, const struct record *record);

/** Starts a process event; add values to log->line, then call log_event_end(). */
void log_event_begin(struct log *log, const char *event);
void log_event_end(struct log *log);

/** Writes what was gathered. Call it before waiting. */
void log_flush(struct log *log);

/** The last call of a process that ends: like log_flush(), but waits up to a second for room, since
 *  nothing is held up any more and there is no later line that could tell what is missing. */
void log_finish(struct log *log);

#endif
