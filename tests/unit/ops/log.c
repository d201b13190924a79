/* Tests of the writing end of the log. The pipe is a real one; with O_DIRECT each write(2) is a packet
 * that one read(2) takes out (pipe(2)), so that writes can be counted. */
#include "ops/log.h"

#include "base/clock.h"
#include "base/macros.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define STAMP_LEN (sizeof("2026-11-22T17:00:00.000000Z") - 1)

static struct metrics metrics;
static struct log the_log;
static int fds[2];

static void start_log(enum line_format format, bool records)
{
    cr_assert(pipe2(fds, O_NONBLOCK | O_CLOEXEC | O_DIRECT) == 0, "%s", strerror(errno));
    log_init(&the_log, fds[1], format, records, &metrics);
}

static void start_text(void)
{
    start_log(LINE_TEXT, true);
}

/* The next write as it came, with a 0 behind it; its length, 0 when there is none. */
static size_t next_write(char bytes[LOG_BATCH_BYTES + 1])
{
    ssize_t len = read(fds[0], bytes, LOG_BATCH_BYTES);

    cr_assert(len > 0 || errno == EAGAIN);
    bytes[len > 0 ? len : 0] = '\0';
    return len > 0 ? (size_t)len : 0;
}

/* The next write must be this, after the time stamps of its lines were replaced by TS. */
static void assert_next_write(const char *expected)
{
    static char bytes[LOG_BATCH_BYTES + 1];
    static char stripped[LOG_BATCH_BYTES + 1];
    size_t at = 0;
    size_t len = 0;
    bool json;

    cr_assert(next_write(bytes) > 0, "nothing was written");
    json = bytes[0] == '{';
    while (bytes[at] != '\0') {
        size_t stamp = at + (json ? strlen("{\"ts\":\"") : 0);
        size_t line_len = strcspn(bytes + at, "\n") + 1;

        cr_assert(bytes[stamp + 4] == '-' && bytes[stamp + 10] == 'T' &&
                      bytes[stamp + STAMP_LEN - 1] == 'Z',
                  "no time stamp: %s", bytes + at);
        len += (size_t)snprintf(
            stripped + len, sizeof(stripped) - len, "%.*sTS%.*s", (int)(stamp - at), bytes + at,
            (int)(at + line_len - stamp - STAMP_LEN), bytes + stamp + STAMP_LEN);
        at += line_len;
    }
    cr_assert_str_eq(stripped, expected, "\n%s\nexpected:\n%s", stripped, expected);
}

static void assert_nothing_written(void)
{
    static char bytes[LOG_BATCH_BYTES + 1];

    cr_assert(next_write(bytes) == 0, "written: %s", bytes);
}

static struct addr numeric(const char *text)
{
    struct endpoint endpoint;

    cr_assert_null(endpoint_parse(text, &endpoint), "%s", text);
    return endpoint.addr;
}

static struct addr_compact compact(const char *text)
{
    struct addr addr = numeric(text);

    return addr_compact(&addr);
}

/* A record with everything known, and one with nothing. */
static struct record full_record(void)
{
    return (struct record){.id = UINT64_C(0x100000002),
                           .listener = ":8080",
                           .pool = "app",
                           .server = "db1:5432",
                           .client = compact("[::ffff:192.0.2.7]:50000"),
                           .client_local = numeric("127.0.0.1:8080"),
                           .server_local = compact("[2001:db8::1]:40000"),
                           .bytes_up = 1,
                           .bytes_down = UINT64_MAX,
                           .spliced_bytes = 65536,
                           .undelivered_bytes = 7,
                           .duration_ns = UINT64_C(3600) * NS_PER_S + 1,
                           .connect_ns = 1500 * NS_PER_US,
                           .first_byte_ns = 0,
                           .retries = 2,
                           .rtt_us = 345,
                           .reason = REASON_SERVER_RESET,
                           .closed_by = CLOSED_BY_SERVER,
                           .error = ECONNRESET};
}

static struct record empty_record(void)
{
    return (struct record){.id = 1,
                           .listener = "unix:@in",
                           .pool = "app",
                           .client.family = AF_UNIX,
                           .connect_ns = RECORD_NO_TIME,
                           .first_byte_ns = RECORD_NO_TIME,
                           .reason = REASON_NO_SERVER,
                           .closed_by = CLOSED_BY_PROXY};
}

/* --- records --- */

/* A record in text: every field in its order, unknown ones left out. */
Test(log, record_is_written_as_text)
{
    struct record full = full_record();
    struct record empty = empty_record();

    start_log(LINE_TEXT, true);
    log_record(&the_log, &full);
    log_flush(&the_log);
    assert_next_write("TS close id=0000000100000002 listener=:8080 client=192.0.2.7:50000 "
                      "client_local=127.0.0.1:8080 pool=app server=db1:5432 "
                      "server_local=[2001:db8::1]:40000 bytes_up=1 "
                      "bytes_down=18446744073709551615 duration_s=3600.000000 "
                      "connect_s=0.001500 first_byte_s=0.000000 retries=2 closed_by=server "
                      "how=rst reason=server-reset errno=ECONNRESET undelivered_bytes=7 rtt_us=345 "
                      "spliced_bytes=65536\n");
    log_record(&the_log, &empty);
    log_flush(&the_log);
    assert_next_write("TS close id=0000000000000001 listener=unix:@in client=unix: pool=app "
                      "bytes_up=0 bytes_down=0 duration_s=0.000000 retries=0 closed_by=proxy "
                      "how=error reason=no-server undelivered_bytes=0 rtt_us=0 "
                      "spliced_bytes=0\n");
    assert_nothing_written();
}

/* The same in JSON: the same fields for every record, unknown ones null. */
Test(log, record_is_written_as_json)
{
    struct record full = full_record();
    struct record empty = empty_record();

    start_log(LINE_JSON, true);
    log_record(&the_log, &full);
    log_flush(&the_log);
    assert_next_write(
        "{\"ts\":\"TS\",\"event\":\"close\",\"id\":\"0000000100000002\",\"listener\":\":8080\","
        "\"client\":\"192.0.2.7:50000\",\"client_local\":\"127.0.0.1:8080\",\"pool\":\"app\","
        "\"server\":\"db1:5432\",\"server_local\":\"[2001:db8::1]:40000\",\"bytes_up\":1,"
        "\"bytes_down\":18446744073709551615,\"duration_s\":3600.000000,\"connect_s\":0.001500,"
        "\"first_byte_s\":0.000000,\"retries\":2,\"closed_by\":\"server\",\"how\":\"rst\","
        "\"reason\":\"server-reset\",\"errno\":\"ECONNRESET\",\"undelivered_bytes\":7,"
        "\"rtt_us\":345,\"spliced_bytes\":65536}\n");
    log_record(&the_log, &empty);
    log_flush(&the_log);
    assert_next_write(
        "{\"ts\":\"TS\",\"event\":\"close\",\"id\":\"0000000000000001\",\"listener\":\"unix:@in\","
        "\"client\":\"unix:\",\"client_local\":null,\"pool\":\"app\",\"server\":null,"
        "\"server_local\":null,\"bytes_up\":0,\"bytes_down\":0,\"duration_s\":0.000000,"
        "\"connect_s\":null,\"first_byte_s\":null,\"retries\":0,\"closed_by\":\"proxy\","
        "\"how\":\"error\",\"reason\":\"no-server\",\"errno\":null,\"undelivered_bytes\":0,"
        "\"rtt_us\":0,\"spliced_bytes\":0}\n");
    assert_nothing_written();
}

/* The stamp of a record is the time it was logged: between two readings of the clock. */
Test(log, record_has_the_time_it_was_logged, .init = start_text)
{
    static char bytes[LOG_BATCH_BYTES + 1];
    struct record record = empty_record();
    uint64_t before_ns = clock_realtime_ns();
    struct tm utc = {0};
    unsigned micros = 0;
    uint64_t stamp_ns;

    log_record(&the_log, &record);
    log_flush(&the_log);
    cr_assert(next_write(bytes) > 0);
    cr_assert(sscanf(bytes, "%d-%d-%dT%d:%d:%d.%uZ close ", &utc.tm_year, &utc.tm_mon, &utc.tm_mday,
                     &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &micros) == 7,
              "%s", bytes);
    utc.tm_year -= 1900;
    utc.tm_mon -= 1;
    stamp_ns = (uint64_t)timegm(&utc) * NS_PER_S + micros * NS_PER_US;
    cr_assert(stamp_ns >= before_ns / NS_PER_US * NS_PER_US);
    cr_assert(stamp_ns <= clock_realtime_ns());
}

/* Without records (`log none`) connections leave no trace, but events of the process do. */
Test(log, without_records_writes_events_only)
{
    struct record record = full_record();

    start_log(LINE_TEXT, false);
    log_record(&the_log, &record);
    log_flush(&the_log);
    assert_nothing_written();
    log_event_begin(&the_log, "accept-paused");
    line_string(&the_log.line, "cause", "EMFILE");
    log_event_end(&the_log);
    log_record(&the_log, &record);
    log_flush(&the_log);
    assert_next_write("TS accept-paused cause=EMFILE\n");
    assert_nothing_written();
    cr_assert(metric_get(&metrics.log_dropped) == 0);
}

/* An error number that has no name is left out and not made up. */
Test(log, unknown_errors_have_no_name, .init = start_text)
{
    static char bytes[LOG_BATCH_BYTES + 1];
    struct record record = full_record();

    record.error = 4000;
    log_record(&the_log, &record);
    log_flush(&the_log);
    cr_assert(next_write(bytes) > 0);
    cr_assert(strstr(bytes, "errno=") == NULL, "%s", bytes);
}

/* Names come from people and paths from file systems: whatever they contain, a record stays one line
 * with the fields it has. */
Test(log, hostile_names_are_escaped)
{
    static const struct {
        const char *name;
        const char *text;
        const char *json;
    } cases[] = {
        {"a b", "\"a b\"", "\"a b\""},
        {"a\nTS close id=2", "\"a\\nTS close id=2\"", "\"a\\nTS close id=2\""},
        {"a\" pool=\"b", "\"a\\\" pool=\\\"b\"", "\"a\\\" pool=\\\"b\""},
        {"a\\", "\"a\\\\\"", "\"a\\\\\""},
        {"a=b", "\"a=b\"", "\"a=b\""},
        {"\x1b[31m\x07", "\"\\x1b[31m\\x07\"", "\"\\u001b[31m\\u0007\""},
        {"\xc3\xbc\x7f", "\"\\xc3\\xbc\\x7f\"", "\"\\u00c3\\u00bc\\u007f\""},
        {"\r\t", "\"\\r\\t\"", "\"\\r\\t\""},
        {"", "\"\"", "\"\""},
    };

    start_log(LINE_TEXT, true);
    for (size_t i = 0; i < ARRAY_LEN(cases) * 2; i++) {
        bool json = i % 2 != 0;
        const char *name = json ? cases[i / 2].json : cases[i / 2].text;
        struct record record = empty_record();
        static char bytes[LOG_BATCH_BYTES + 1];
        char fields[512];

        record.listener = cases[i / 2].name;
        record.pool = cases[i / 2].name;
        record.server = cases[i / 2].name;
        the_log.format = json ? LINE_JSON : LINE_TEXT;
        log_record(&the_log, &record);
        log_flush(&the_log);
        cr_assert(next_write(bytes) > 0);
        (void)snprintf(fields, sizeof(fields),
                       json ? "\"listener\":%s,\"client\":\"unix:\",\"client_local\":null,"
                              "\"pool\":%s,\"server\":%s,\"server_local\":null,\"bytes_up\":0"
                            : " listener=%s client=unix: pool=%s server=%s bytes_up=0",
                       name, name, name);
        cr_assert(strstr(bytes, fields) != NULL, "%s\nnot in\n%s", fields, bytes);
        cr_assert(strchr(bytes, '\n') == bytes + strlen(bytes) - 1, "%s", bytes);
        cr_assert(strstr(bytes, "spliced_bytes") != NULL);
    }
}

/* So is the path of our own end. */
Test(log, hostile_paths_are_escaped, .init = start_text)
{
    static char bytes[LOG_BATCH_BYTES + 1];
    struct record record = empty_record();

    record.client_local = numeric("unix:/run/a\nb");
    log_record(&the_log, &record);
    log_flush(&the_log);
    cr_assert(next_write(bytes) > 0);
    cr_assert(strstr(bytes, " client_local=\"unix:/run/a\\nb\" ") != NULL, "%s", bytes);
}

/* --- batches --- */

/* Nothing is written before it has to be; then all lines go out in one write, in their order. */
Test(log, lines_are_gathered_into_one_write, .init = start_text)
{
    for (uint64_t i = 0; i < 3; i++) {
        log_event_begin(&the_log, "event");
        line_u64(&the_log.line, "number", i);
        log_event_end(&the_log);
        assert_nothing_written();
    }
    log_flush(&the_log);
    assert_next_write("TS event number=0\nTS event number=1\nTS event number=2\n");
    assert_nothing_written();
    log_flush(&the_log);
    assert_nothing_written();
}

/* A write is never larger than what a pipe takes at once, and never ends in the middle of a line:
 * lines of many lengths, none lost, in order. */
Test(log, writes_are_whole_lines_of_at_most_4096_bytes, .init = start_text)
{
    static char value[LINE_BYTES_MAX];
    static char bytes[LOG_BATCH_BYTES + 1];
    uint64_t next = 0;
    size_t writes = 0;

    for (uint64_t i = 0; i < 2000; i++) {
        size_t len = (size_t)(i * i * 31 % (i % 10 == 0 ? 3900 : 300));

        memset(value, 'v', len);
        value[len] = '\0';
        log_event_begin(&the_log, "event");
        line_u64(&the_log.line, "number", i);
        line_string(&the_log.line, "value", value);
        log_event_end(&the_log);
        if (i % 97 == 0 || i == 1999) {
            log_flush(&the_log);
        }
        while ((len = next_write(bytes)) > 0) {
            writes++;
            cr_assert(len <= LOG_BATCH_BYTES);
            cr_assert(bytes[len - 1] == '\n');
            for (char *line = bytes; *line != '\0'; line += strcspn(line, "\n") + 1) {
                cr_assert(strtoull(strstr(line, " number=") + 8, NULL, 10) == next);
                next++;
            }
        }
    }
    cr_assert(next == 2000, "%" PRIu64 " lines", next);
    cr_assert(writes < 500, "%zu writes are no batches", writes);
    cr_assert(metric_get(&metrics.log_dropped) == 0);
}

/* A batch may be filled to its last byte: two lines that are 4096 bytes together are one write. */
Test(log, batch_is_filled_to_the_last_byte, .init = start_text)
{
    static char value[LINE_BYTES_MAX];
    static char bytes[LOG_BATCH_BYTES + 1];
    size_t head_len = STAMP_LEN + strlen(" e v=\n");

    for (size_t extra = 0; extra < 2; extra++) {
        for (size_t i = 0; i < 2; i++) {
            size_t len = LOG_BATCH_BYTES / 2 - head_len + (i == 1 ? extra : 0);

            memset(value, 'v', len);
            value[len] = '\0';
            log_event_begin(&the_log, "e");
            line_string(&the_log.line, "v", value);
            log_event_end(&the_log);
        }
        log_flush(&the_log);
        cr_assert(next_write(bytes) == LOG_BATCH_BYTES - (extra == 0 ? 0 : LOG_BATCH_BYTES / 2));
        cr_assert(next_write(bytes) == (extra == 0 ? 0 : LOG_BATCH_BYTES / 2 + 1));
    }
}

/* A record with names of any length is one write of at most 4096 bytes, and says that it is cut. */
Test(log, overlong_record_is_cut_and_says_so)
{
    static char name[3 * LINE_BYTES_MAX];
    static char bytes[LOG_BATCH_BYTES + 1];
    struct record record = empty_record();

    memset(name, 'n', sizeof(name) - 1);
    record.pool = name;
    for (int json = 0; json < 2; json++) {
        const char *end = json != 0 ? ",\"truncated\":true}\n" : " truncated=true\n";
        size_t len;

        start_log(json != 0 ? LINE_JSON : LINE_TEXT, true);
        log_record(&the_log, &record);
        log_flush(&the_log);
        len = next_write(bytes);
        cr_assert(len > 0);
        cr_assert(len <= LINE_BYTES_MAX);
        cr_assert(strcmp(bytes + len - strlen(end), end) == 0, "%s", bytes);
        cr_assert(strstr(bytes, "0000000000000001") != NULL, "%s", bytes);
        assert_nothing_written();
        (void)close(fds[0]);
        (void)close(fds[1]);
    }
}

/* --- when nobody reads --- */

/* Fills the pipe, but for `left` writes. */
static void fill_pipe(size_t left)
{
    size_t filled = 0;

    while (write(fds[1], "filler\n", 7) == 7) {
        filled++;
    }
    cr_assert(errno == EAGAIN);
    cr_assert(filled > left);
    for (; left > 0; left--) {
        static char bytes[LOG_BATCH_BYTES + 1];

        cr_assert(next_write(bytes) == 7);
    }
}

static void empty_pipe(void)
{
    static char bytes[LOG_BATCH_BYTES + 1];

    do {
    } while (next_write(bytes) > 0);
}

static void log_numbers(uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        log_event_begin(&the_log, "event");
        line_u64(&the_log.line, "number", first + i);
        log_event_end(&the_log);
    }
    log_flush(&the_log);
}

/* A full pipe never makes the caller wait: the lines are dropped and counted, and as soon as there is
 * room, the log itself says how many are missing, before what follows. */
Test(log, full_pipe_drops_counts_and_reports)
{
    char expected[256];

    for (int json = 0; json < 2; json++) {
        uint64_t before = metric_get(&metrics.log_dropped);

        start_log(json != 0 ? LINE_JSON : LINE_TEXT, true);
        fill_pipe(0);
        log_numbers(1, 3);
        cr_assert(metric_get(&metrics.log_dropped) == before + 3);
        log_numbers(4, 2);
        cr_assert(metric_get(&metrics.log_dropped) == before + 5);
        empty_pipe();
        log_numbers(6, 1);
        (void)snprintf(expected, sizeof(expected),
                       json != 0 ? "{\"ts\":\"TS\",\"event\":\"log-dropped\",\"pid\":%d,"
                                   "\"lines\":5}\n"
                                 : "TS log-dropped pid=%d lines=5\n",
                       (int)getpid());
        assert_next_write(expected);
        assert_next_write(json != 0 ? "{\"ts\":\"TS\",\"event\":\"event\",\"number\":6}\n"
                                    : "TS event number=6\n");
        assert_nothing_written();
        log_numbers(7, 1);
        assert_next_write(json != 0 ? "{\"ts\":\"TS\",\"event\":\"event\",\"number\":7}\n"
                                    : "TS event number=7\n");
        cr_assert(metric_get(&metrics.log_dropped) == before + 5);
        (void)close(fds[0]);
        (void)close(fds[1]);
    }
}

/* With room for the report only, the lines behind it are counted anew: none is reported twice, none is
 * forgotten. */
Test(log, room_for_the_report_only_loses_no_count, .init = start_text)
{
    char expected[128];

    fill_pipe(0);
    log_numbers(1, 3);
    empty_pipe();
    fill_pipe(1);
    log_numbers(4, 2);
    for (size_t i = 0; i < 2; i++) {
        bool last = i == 1;
        static char bytes[LOG_BATCH_BYTES + 1];

        while (next_write(bytes) == 7) {
            /* filler */
        }
        (void)snprintf(expected, sizeof(expected), " log-dropped pid=%d lines=%d\n", (int)getpid(),
                       last ? 2 : 3);
        cr_assert_str_eq(bytes + STAMP_LEN, expected);
        if (!last) {
            assert_nothing_written();
            log_numbers(6, 1);
        }
    }
    assert_next_write("TS event number=6\n");
    cr_assert(metric_get(&metrics.log_dropped) == 5);
}

/* A reader of the log can trust that no line is silently gone (log.c): when nothing follows the lost
 * lines, the next flush reports them all the same. */
Test(log, dropped_lines_are_reported_without_a_further_line, .init = start_text)
{
    char expected[128];

    fill_pipe(0);
    log_numbers(1, 3);
    empty_pipe();
    log_flush(&the_log);
    (void)snprintf(expected, sizeof(expected), "TS log-dropped pid=%d lines=3\n", (int)getpid());
    assert_next_write(expected);
    log_flush(&the_log);
    assert_nothing_written();
}

/* A log whose reader is gone loses its lines, and nothing else happens. */
Test(log, without_a_reader_drops, .init = start_text)
{
    cr_assert(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    (void)close(fds[0]);
    log_numbers(1, 3);
    log_numbers(4, 1);
    cr_assert(metric_get(&metrics.log_dropped) == 4);
}

/* --- the last lines --- */

static void assert_next_write_begins(const char *event)
{
    static char bytes[LOG_BATCH_BYTES + 1];

    cr_assert(next_write(bytes) > STAMP_LEN);
    cr_assert(strncmp(bytes + STAMP_LEN + 1, event, strlen(event)) == 0, "%s", bytes);
}

static void drain_pipe(int number)
{
    char bytes[LOG_BATCH_BYTES];

    (void)number;
    while (read(fds[0], bytes, sizeof(bytes)) > 0) {}
}

static void take_all_room(void)
{
    while (write(fds[1], "x", 1) == 1) {}
    cr_assert(errno == EAGAIN);
}

/* A reader that has paused reads on while the process ends: the last lines wait for it, and with them
 * the word on those that were dropped before. */
Test(log, last_lines_wait_for_a_reader_that_has_paused, .init = start_text)
{
    struct itimerval soon = {.it_value.tv_usec = 100000};

    take_all_room();
    log_event_begin(&the_log, "lost");
    log_event_end(&the_log);
    log_flush(&the_log);
    cr_assert(metric_get(&metrics.log_dropped) == 1);
    log_event_begin(&the_log, "last");
    log_event_end(&the_log);
    cr_assert(signal(SIGALRM, drain_pipe) != SIG_ERR && setitimer(ITIMER_REAL, &soon, NULL) == 0);
    log_finish(&the_log);
    cr_assert(metric_get(&metrics.log_dropped) == 1, "the last line did not wait");
    assert_next_write_begins("log-dropped");
    assert_next_write_begins("last");
}

/* One that has gone, or that never reads on, holds the end up for a second at most. */
Test(log, last_lines_do_not_wait_for_ever, .init = start_text)
{
    uint64_t start_ns = clock_monotonic_ns();

    take_all_room();
    log_event_begin(&the_log, "last");
    log_event_end(&the_log);
    log_finish(&the_log);
    cr_assert(metric_get(&metrics.log_dropped) == 1);
    cr_assert(clock_monotonic_ns() - start_ns >= NS_PER_S);
    cr_assert(signal(SIGPIPE, SIG_IGN) != SIG_ERR && close(fds[0]) == 0);
    log_event_begin(&the_log, "last");
    log_event_end(&the_log);
    log_finish(&the_log);
    cr_assert(metric_get(&metrics.log_dropped) == 2);
}
