/* Gathering log lines and handing them to the monitor.
 *
 * A write(2) of up to PIPE_BUF bytes to a pipe is all or nothing, also when it is non-blocking
 * (pipe(7)). So a batch of whole lines of at most that size either arrives, unmixed with those of
 * other processes, or is refused with EAGAIN; then it is dropped and counted, and the next batch
 * that gets through begins with a line that says how many lines are missing. A reader of the log
 * can trust that: no line is silently gone.
 *
 * A process that ends has no next batch. So its last one waits for room, for at most a second.
 *
 * One write for up to ten records: a record costs less than the accept of its connection. */
#include "ops/log.h"

#include "base/clock.h"
#include "base/digits.h"
#include "base/macros.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* How long the last lines wait for a reader that has paused. */
#define FINISH_PATIENCE_NS NS_PER_S

void log_init(struct log *log, int fd, enum line_format format, bool records,
              struct metrics *metrics)
{
    log->fd = fd;
    log->format = format;
    log->records = records;
    log->metrics = metrics;
    log->batch_len = 0;
    log->batch_lines = 0;
    log->dropped = 0;
}

static bool write_all(int fd, const char *bytes, size_t len)
{
    ssize_t written;

    do {
        written = write(fd, bytes, len);
    } while (written < 0 && errno == EINTR);
    return written == (ssize_t)len;
}

static void drop(struct log *log, uint64_t lines)
{
    log->dropped += lines;
    metric_add(&log->metrics->log_dropped, lines);
}

/* Says in the log itself that lines are missing. False: still no room. */
static bool report_dropped(struct log *log)
{
    struct line line;

    line_begin(&line, log->format, clock_realtime_ns(), "log-dropped");
    line_u64(&line, "pid", (uint64_t)getpid());
    line_u64(&line, "lines", log->dropped);
    line_end(&line);
    if (!write_all(log->fd, line.text, line.len)) {
        return false;
    }
    log->dropped = 0;
    return true;
}

static void empty_batch(struct log *log)
{
    log->batch_len = 0;
    log->batch_lines = 0;
}

/* True when nothing waits any more; else errno says why not. */
static bool write_pending(struct log *log)
{
    if ((log->dropped > 0 && !report_dropped(log)) ||
        (log->batch_len > 0 && !write_all(log->fd, log->batch, log->batch_len))) {
        return false;
    }
    empty_batch(log);
    return true;
}

void log_flush(struct log *log)
{
    if (!write_pending(log)) {
        drop(log, log->batch_lines);
        empty_batch(log);
    }
}

void log_finish(struct log *log)
{
    struct pollfd room = {.fd = log->fd, .events = POLLOUT};
    uint64_t deadline_ns = clock_monotonic_ns() + FINISH_PATIENCE_NS;
    uint64_t now_ns = clock_monotonic_ns();

    /* A pipe without a reader says EPIPE: there it is in vain to wait. */
    while (!write_pending(log) && errno == EAGAIN && now_ns < deadline_ns) {
        /* Interrupted or not: the next write finds out. */
        (void)poll(&room, 1, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1);
        now_ns = clock_monotonic_ns();
    }
    log_flush(log); /* counts what is left */
}

void log_event_begin(struct log *log, const char *event)
{
    line_begin(&log->line, log->format, clock_realtime_ns(), event);
}

void log_event_end(struct log *log)
{
    line_end(&log->line);
    if (log->batch_len + log->line.len > LOG_BATCH_BYTES) {
        log_flush(log);
    }
    memcpy(log->batch + log->batch_len, log->line.text, log->line.len);
    log->batch_len += log->line.len;
    log->batch_lines++;
}

static void add_addr(struct line *line, const char *key, const struct addr_compact *addr)
{
    char text[ADDR_TEXT_BYTES];

    addr_compact_format(addr, text);
    line_string(line, key, addr->family == AF_UNSPEC ? NULL : text);
}

static void add_time(struct line *line, const char *key, uint64_t duration_ns)
{
    if (duration_ns == RECORD_NO_TIME) {
        line_string(line, key, NULL);
    } else {
        line_seconds(line, key, duration_ns);
    }
}

static void add_parties(struct line *line, const struct record *record)
{
    char text[ADDR_TEXT_BYTES];

    *digits_hexadecimal(text, record->id, 16) = '\0';
    line_string(line, "id", text);
    line_string(line, "listener", record->listener);
    add_addr(line, "client", &record->client);
    addr_format(&record->client_local, text);
    line_string(line, "client_local", record->client_local.len == 0 ? NULL : text);
    line_string(line, "pool", record->pool);
    line_string(line, "server", record->server);
    add_addr(line, "server_local", &record->server_local);
}

void log_record(struct log *log, const struct record *record)
{
    struct line *line = &log->line;

    if (!log->records) {
        return;
    }
    log_event_begin(log, "close");
    add_parties(line, record);
    line_u64(line, "bytes_up", record->bytes_up);
    line_u64(line, "bytes_down", record->bytes_down);
    line_seconds(line, "duration_s", record->duration_ns);
    add_time(line, "connect_s", record->connect_ns);
    add_time(line, "first_byte_s", record->first_byte_ns);
    line_u64(line, "retries", record->retries);
    line_string(line, "closed_by", closed_by_text(record->closed_by));
    line_string(line, "how", how_text(reason_how(record->reason)));
    line_string(line, "reason", reason_text(record->reason));
    line_string(line, "errno", record->error != 0 ? strerrorname_np(record->error) : NULL);
    line_u64(line, "undelivered_bytes", record->undelivered_bytes);
    line_u64(line, "rtt_us", record->rtt_us);
    line_u64(line, "spliced_bytes", record->spliced_bytes);
    log_event_end(log);
}
