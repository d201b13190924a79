/* The log: complete records in both formats, whole lines whatever happens, and a data plane that
 * never waits for a reader. Unit tests of the line itself are in tests/unit/base/line.c. */
#include "support/ends.h"
#include "support/json.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BACKLOG = 1024, UP_BYTES = 3000, DOWN_BYTES = 70000 };

/* --- reading JSON logs --- */

/* Reads the whole log; the last close record is left in `json`. The number of lines. */
static size_t read_all_json(const struct proxy *proxy, struct json *json)
{
    static struct json other;
    const char *line = proxy->log;
    size_t lines = 0;

    while (*line != '\0') {
        line = json_read(line, &other);
        lines++;
        if (strcmp(other.fields[1].value, "close") == 0) {
            *json = other;
        }
    }
    return lines;
}

/* --- records --- */

/* Every field of a close record, in its order (design, 7). */
static const char *const record_keys[] = {
    "ts",           "event",        "id",        "listener",     "client",
    "client_local", "pool",         "server",    "server_local", "bytes_up",
    "bytes_down",   "duration_s",   "connect_s", "first_byte_s", "retries",
    "closed_by",    "how",          "reason",    "errno",        "undelivered_bytes",
    "rtt_us",       "spliced_bytes"};
enum { RECORD_KEYS = sizeof(record_keys) / sizeof(record_keys[0]) };

static void address_text(int fd, bool peer, char text[64])
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    char ip[INET_ADDRSTRLEN];

    cr_assert((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&address, &len) == 0);
    cr_assert(inet_ntop(AF_INET, &address.sin_addr, ip, sizeof(ip)) != NULL);
    (void)snprintf(text, 64, "%s:%u", ip, ntohs(address.sin_port));
}

/* What a record must say about one connection that the client ended first. */
struct facts {
    char listener[64];
    char client[64];
    char server[64];
    char server_local[64];
};

static void run_one_connection(const struct proxy *proxy, int origin, struct facts *facts)
{
    struct pair pair = pair_open(proxy, origin);

    (void)snprintf(facts->listener, sizeof(facts->listener), "%s:%d", proxy->ip, PROXY_PORT);
    (void)snprintf(facts->server, sizeof(facts->server), "%s:%d", proxy->ip, ORIGIN_PORT);
    address_text(pair.client, false, facts->client);
    address_text(pair.server, true, facts->server_local);
    peer_send(pair.client, 1, 0, UP_BYTES);
    peer_expect(pair.server, 1, 0, UP_BYTES);
    peer_send(pair.server, 2, 0, DOWN_BYTES);
    peer_expect(pair.client, 2, 0, DOWN_BYTES);
    pair_end(&pair);
}

static bool is_timestamp(const char *text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.ddddddZ";

    for (size_t i = 0; i < sizeof(form) - 1; i++) {
        bool fits = form[i] == 'd' ? text[i] >= '0' && text[i] <= '9' : text[i] == form[i];

        if (!fits) {
            return false;
        }
    }
    return true;
}

/* The parts of a record that both formats show alike; proxy_field() reads either. */
static void expect_facts(struct proxy *proxy, const struct facts *facts)
{
    double connect_ms = record_ms(proxy, 0, "connect_s");
    double first_byte_ms = record_ms(proxy, 0, "first_byte_s");
    double duration_ms = record_ms(proxy, 0, "duration_s");

    proxy_expect_field(proxy, "close", 0, "id", "0000010000000001");
    proxy_expect_field(proxy, "close", 0, "listener", facts->listener);
    proxy_expect_field(proxy, "close", 0, "client", facts->client);
    proxy_expect_field(proxy, "close", 0, "client_local", facts->listener);
    proxy_expect_field(proxy, "close", 0, "pool", facts->listener);
    proxy_expect_field(proxy, "close", 0, "server", facts->server);
    proxy_expect_field(proxy, "close", 0, "server_local", facts->server_local);
    cr_assert(proxy_number(proxy, "close", 0, "bytes_up") == UP_BYTES);
    cr_assert(proxy_number(proxy, "close", 0, "bytes_down") == DOWN_BYTES);
    proxy_expect_field(proxy, "close", 0, "retries", "0");
    proxy_expect_field(proxy, "close", 0, "closed_by", "client");
    proxy_expect_field(proxy, "close", 0, "how", "fin");
    proxy_expect_field(proxy, "close", 0, "reason", "server-fin");
    proxy_expect_field(proxy, "close", 0, "undelivered_bytes", "0");
    cr_assert(proxy_number(proxy, "close", 0, "rtt_us") > 0);
    proxy_expect_field(proxy, "close", 0, "spliced_bytes", "0");
    cr_assert(connect_ms >= 0 && first_byte_ms >= connect_ms && duration_ms >= first_byte_ms,
              "%g, %g, %g ms", connect_ms, first_byte_ms, duration_ms);
}

/* A text record has every field, in its order, and each says what the peers know. A value that
 * there is none of (the errno of a clean end) is left out. */
Test(log, a_text_record_has_every_field)
{
    struct facts facts;
    struct proxy proxy;
    const char *place;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--splice", "never", NULL});
    run_one_connection(&proxy, origin, &facts);
    proxy_wait_event(&proxy, "close", 1);
    expect_facts(&proxy, &facts);
    proxy_expect_field(&proxy, "close", 0, "errno", "");
    place = strchr(proxy.log, '\n') + 1;
    cr_assert(is_timestamp(place), "%s", place);
    place = strstr(place, " close ");
    for (size_t i = 2; i < RECORD_KEYS; i++) {
        char pattern[32];

        if (strcmp(record_keys[i], "errno") != 0) {
            (void)snprintf(pattern, sizeof(pattern), " %s=", record_keys[i]);
            place = strstr(place, pattern);
            cr_assert(place != NULL, "no%s or not in its place:\n%s", pattern, proxy.log);
        }
    }
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* A JSON record is one object with exactly these keys; numbers are numbers, and what there is none
 * of is null. Start and end are objects as well. */
Test(log, a_json_record_has_every_field)
{
    static struct json json;
    struct facts facts;
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--splice", "never", "--log", "json", NULL});
    run_one_connection(&proxy, origin, &facts);
    proxy_wait_event(&proxy, "close", 1);
    expect_facts(&proxy, &facts);
    peer_close(origin);
    cr_assert(proxy_stop(&proxy, SIGTERM) == 0);
    cr_assert(read_all_json(&proxy, &json) == 4, "start, close, drain, end:\n%s", proxy.log);
    cr_assert(json.fields_len == RECORD_KEYS, "%zu fields", json.fields_len);
    for (size_t i = 0; i < RECORD_KEYS; i++) {
        static const char numbers[] = " bytes_up bytes_down duration_s connect_s first_byte_s "
                                      "retries undelivered_bytes rtt_us spliced_bytes ";
        char word[40];
        char kind;

        (void)snprintf(word, sizeof(word), " %s ", record_keys[i]);
        kind = strstr(numbers, word) != NULL ? 'n' : 's';
        cr_assert(strcmp(json.fields[i].key, record_keys[i]) == 0, "%s", json.fields[i].key);
        json_expect(&json, record_keys[i], strcmp(record_keys[i], "errno") == 0 ? '0' : kind, NULL);
    }
    cr_assert(is_timestamp(json.fields[0].value), "%s", json.fields[0].value);
    free(proxy.log);
}

/* A connection that never reached a server: the record has the errno, and no time or address of
 * what did not happen. */
Test(log, a_record_invents_nothing)
{
    static const char *const nulls[] = {"connect_s", "first_byte_s", "server_local"};
    static struct json json;
    struct proxy proxy;
    int client;

    proxy_init(&proxy);
    proxy_start_simple(&proxy, (const char *const[]){"--log", "json", NULL});
    client = peer_connect(proxy.ip, PROXY_PORT);
    peer_expect_end(client, PEER_RESET);
    peer_close(client);
    proxy_wait_event(&proxy, "close", 1);
    (void)read_all_json(&proxy, &json);
    json_expect(&json, "errno", 's', "ECONNREFUSED");
    json_expect(&json, "reason", 's', "connect-refused");
    json_expect(&json, "how", 's', "error");
    for (size_t i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++) {
        json_expect(&json, nulls[i], '0', NULL);
    }
    proxy_finish(&proxy, 1);
}

/* A name may hold any byte: quotes, a space, a backslash, an escape sequence, UTF-8. One event
 * stays one line, a terminal is not steered by it, and JSON gives the bytes back. */
Test(log, escapes_names_in_both_formats)
{
    static const char *const formats[] = {"text", "json"};
    static struct json json;
    char escaped[160];
    char path[64];
    char pair[160];

    (void)snprintf(path, sizeof(path), "/tmp/sluice-%d-\"a b\\c\x1b[31m\xc3\xa9", (int)getpid());
    (void)snprintf(escaped, sizeof(escaped),
                   " listener=\"unix:/tmp/sluice-%d-\\\"a b\\\\c\\x1b[31m\\xc3\\xa9\" ",
                   (int)getpid());
    for (size_t i = 0; i < 2; i++) {
        struct proxy proxy;
        int client;

        proxy_init(&proxy);
        (void)snprintf(pair, sizeof(pair), "unix:%s=%s:%d", path, proxy.ip, ORIGIN_PORT);
        proxy_start(&proxy, (const char *const[]){pair, "--log", formats[i], NULL});
        client = peer_connect_unix(path);
        (void)peer_readable(client, PEER_WAIT_S * 1000);
        peer_close(client);
        proxy_wait_event(&proxy, "close", 1);
        if (i == 0) {
            cr_assert(strstr(proxy.log, escaped) != NULL, "%s", proxy.log);
        } else {
            char listener[80];

            (void)snprintf(listener, sizeof(listener), "unix:%s", path);
            (void)read_all_json(&proxy, &json);
            json_expect(&json, "listener", 's', listener);
            json_expect(&json, "client_local", 's', listener);
        }
        proxy_finish(&proxy, 1);
    }
}

/* --- events --- */

/* The start says every listener with all of its targets, and the number of workers. */
Test(log, the_start_says_what_is_served)
{
    struct proxy proxy;
    char arguments[2][200];
    char names[6][64];

    proxy_init(&proxy);
    (void)snprintf(names[0], 64, "%s:7001", proxy.ip);
    (void)snprintf(names[1], 64, "unix:@sluice-start-%d", (int)getpid());
    (void)snprintf(names[2], 64, "%s:1", proxy.ip);
    (void)snprintf(names[3], 64, "[::1]:2");
    (void)snprintf(names[4], 64, "unix:@three");
    (void)snprintf(names[5], 64, "localhost:4");
    (void)snprintf(arguments[0], 200, "%s=%s,%s", names[0], names[2], names[3]);
    (void)snprintf(arguments[1], 200, "%s=%s,%s", names[1], names[4], names[5]);
    proxy_start(&proxy, (const char *const[]){arguments[0], arguments[1], "--workers", "3", NULL});
    cr_assert(proxy_number(&proxy, "start", 0, "workers") == 3);
    cr_assert(proxy_number(&proxy, "start", 0, "pid") == (uint64_t)proxy.pid);
    cr_assert(proxy_number(&proxy, "start", 0, "max_connections") > 0);
    cr_assert(proxy_number(&proxy, "start", 0, "descriptors") > 0);
    for (size_t i = 0; i < 6; i++) {
        cr_assert(strstr(proxy.log, names[i]) != NULL, "no %s in:\n%s", names[i], proxy.log);
    }
    proxy_finish(&proxy, 0);
}

/* The same in JSON, where a reader must find both listeners: one key can't stand for two. */
Test(log, the_start_is_json_with_several_listeners)
{
    static struct json json;
    struct proxy proxy;
    char second[64];

    proxy_init(&proxy);
    (void)snprintf(second, sizeof(second), "%s:8081=%s:%d", proxy.ip, proxy.ip, ORIGIN_PORT);
    proxy_start(&proxy, (const char *const[]){proxy.arg, second, "--log", "json", NULL});
    (void)read_all_json(&proxy, &json);
    proxy_finish(&proxy, 0);
}

/* With more listeners than a line can hold the line is cut, visibly, and the numbers are there. */
Test(log, the_start_marks_what_it_leaves_out)
{
    enum { LISTENERS = 24, TARGETS = 4 };
    static char arguments[LISTENERS][512];
    const char *list[LISTENERS + 1] = {NULL};
    char listen[64];
    struct proxy proxy;

    proxy_init(&proxy);
    for (size_t i = 0; i < LISTENERS; i++) {
        (void)snprintf(listen, sizeof(listen), "unix:/run/a-rather-long-name/app-%zu.sock", i);
        (void)snprintf(arguments[i], sizeof(arguments[i]), "%s:%zu=%s,%s,%s,%s", proxy.ip, 7000 + i,
                       listen, listen, listen, listen);
        list[i] = arguments[i];
    }
    proxy_start(&proxy, list);
    cr_assert(proxy_number(&proxy, "start", 0, "workers") == 1, "%s", proxy.log);
    cr_assert(proxy_number(&proxy, "start", 0, "max_connections") > 0, "%s", proxy.log);
    cr_assert(strstr(proxy.log, "app-0.sock") != NULL, "%s", proxy.log);
    cr_assert(strstr(proxy.log, "app-23.sock") != NULL || strstr(proxy.log, "...\"\n") != NULL,
              "%s", proxy.log);
    proxy_finish(&proxy, 0);
}

/* Every event there is, in JSON: each line one object, beginning with time and event. */
Test(log, every_event_is_json)
{
    static const char *const events[] = {"start", "accept-paused", "worker-died", "close",
                                         "drain", "stop",          "end"};
    static struct json json;
    struct proxy proxy;
    struct pair pair;
    pid_t workers[PROXY_WORKERS_MAX];
    pid_t worker;
    int waiting;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy,
                       (const char *const[]){"--log", "json", "--max-connections", "1", NULL});
    worker = only_worker(&proxy);
    pair = pair_open(&proxy, origin);
    waiting = peer_connect(proxy.ip, PROXY_PORT);
    proxy_wait_event(&proxy, "accept-paused", 1);
    cr_assert(kill(worker, SIGKILL) == 0);
    pair_expect_reset(&pair);
    pair_close(&pair);
    pair.client = waiting;
    pair.server = peer_accept(origin);
    pair_end(&pair);
    proxy_wait_event(&proxy, "close", 1);
    wait_for_workers(&proxy, worker, workers);
    pair = pair_open(&proxy, origin);
    cr_assert(kill(proxy.pid, SIGTERM) == 0);
    proxy_wait_event(&proxy, "drain", 1);
    cr_assert(proxy_stop(&proxy, SIGTERM) == 0);
    pair_close(&pair);
    peer_close(origin);
    (void)read_all_json(&proxy, &json);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
        cr_assert(proxy_count_event(&proxy, events[i]) > 0, "no %s in:\n%s", events[i], proxy.log);
    }
    free(proxy.log);
}

/* `--log none` leaves the records out, and only those: what happens to processes is still told, and
 * the counters of the end line are complete. */
Test(log, none_writes_process_events_only)
{
    enum { PAIRS = 5 };
    pid_t workers[PROXY_WORKERS_MAX];
    struct proxy proxy;
    pid_t victim;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--log", "none", NULL});
    for (size_t i = 0; i < PAIRS; i++) {
        struct pair pair = pair_open(&proxy, origin);

        pair_exchange(&pair, i);
        pair_end(&pair);
    }
    victim = only_worker(&proxy);
    cr_assert(kill(victim, SIGKILL) == 0);
    proxy_wait_event(&proxy, "worker-died", 1);
    wait_for_workers(&proxy, victim, workers);
    peer_close(origin);
    cr_assert(proxy_stop(&proxy, SIGTERM) == 0);
    cr_assert(proxy_count_event(&proxy, "drain") == 1);
    cr_assert(proxy_number(&proxy, "end", 0, "connections_accepted") == PAIRS);
    expect_stopped(&proxy, 0, PAIRS);
}

/* --- readers that do not read --- */

/* A unix listener and a unix server with names that escape to a multiple of their length: each
 * record is about 2 KiB, so that the log's pipe is full after some hundred connections. */
struct wordy {
    char listener[100];
    char server[100];
    char pair[220];
    int origin;
};

static void wordy_listen(struct wordy *wordy)
{
    enum { FILLING = 80 };
    char filling[FILLING + 1];

    memset(filling, 1, FILLING);
    filling[FILLING] = '\0';
    (void)snprintf(wordy->listener, sizeof(wordy->listener), "@l%d%s", (int)getpid(), filling);
    (void)snprintf(wordy->server, sizeof(wordy->server), "@s%d%s", (int)getpid(), filling);
    (void)snprintf(wordy->pair, sizeof(wordy->pair), "unix:%s=unix:%s", wordy->listener,
                   wordy->server);
    wordy->origin = peer_listen_unix(wordy->server);
}

enum { BURST = 100, TOO_MANY = 6 * BURST };

static struct pair wordy_open(const struct wordy *wordy)
{
    struct pair pair = {.client = peer_connect_unix(wordy->listener)};

    pair.server = peer_accept(wordy->origin);
    return pair;
}

static void wordy_connect(const struct wordy *wordy, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct pair pair = wordy_open(wordy);

        pair_exchange(&pair, i);
        pair_end(&pair);
    }
}

/* Ends many connections within one turn of the worker: their records are written in batches. */
static void wordy_burst(const struct wordy *wordy, pid_t worker)
{
    struct pair pairs[BURST];

    for (size_t i = 0; i < BURST; i++) {
        pairs[i] = wordy_open(wordy);
        pair_exchange(&pairs[i], i);
    }
    freeze(worker);
    for (size_t i = 0; i < BURST; i++) {
        pair_close(&pairs[i]);
    }
    thaw(worker);
}

/* Starts sluice with a stderr that takes one page, and fills everything up to there: the log's pipe
 * (1 MiB), the monitor's hands, and the page. */
static void start_and_fill(struct proxy *proxy, struct wordy *wordy)
{
    wordy_listen(wordy);
    proxy_init(proxy);
    proxy_start(proxy, (const char *const[]){wordy->pair, "--log", "json", NULL});
    cr_assert(fcntl(proxy->log_fd, F_SETPIPE_SZ, 4096) == 4096, "%s", strerror(errno));
    for (int i = 0; i < TOO_MANY / BURST; i++) {
        wordy_burst(wordy, only_worker(proxy));
    }
}

static uint64_t sum_dropped(struct proxy *proxy)
{
    size_t count = proxy_count_event(proxy, "log-dropped");
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++) {
        sum += proxy_number(proxy, "log-dropped", i, "lines");
    }
    return sum;
}

/* Reads what has gathered, and makes connections until the log says that lines are missing; how
 * many connections that took. */
static size_t resume_reading(struct proxy *proxy, const struct wordy *wordy)
{
    size_t connections = 0;

    while (proxy_count_event(proxy, "log-dropped") == 0) {
        cr_assert(connections < 5000, "nothing was dropped, or nobody says so");
        wordy_connect(wordy, 1);
        connections++;
    }
    return connections;
}

/* Nobody reads stderr: traffic goes on, lines that find no room are counted, and when reading
 * resumes, the log itself says how many are missing. Written and missing lines make the whole, and
 * each written one is whole: where room ran out, no half line stays. */
Test(log, a_reader_that_stops_holds_up_nobody)
{
    static struct wordy wordy;
    static struct json json;
    struct proxy proxy;
    size_t connections;
    uint64_t dropped;

    start_and_fill(&proxy, &wordy);
    connections = TOO_MANY + resume_reading(&proxy, &wordy);
    wordy_connect(&wordy, 3);
    connections += 3;
    peer_close(wordy.origin);
    cr_assert(proxy_stop(&proxy, SIGTERM) == 0);
    (void)read_all_json(&proxy, &json);
    dropped = sum_dropped(&proxy);
    cr_assert(dropped > 0);
    cr_assert(proxy_number(&proxy, "end", 0, "log_lines_dropped") == dropped);
    cr_assert(proxy_count_event(&proxy, "close") + dropped == connections,
              "%zu records and %llu dropped of %zu", proxy_count_event(&proxy, "close"),
              (unsigned long long)dropped, connections);
    cr_assert(proxy_number(&proxy, "end", 0, "connections_closed") == connections);
    free(proxy.log);
}

/* The reader pauses until sluice has been told to stop, and no later line could bring the word on missing
 * ones along: it comes all the same, and the end line. (The line "drain" is one of them.) */
Test(log, a_reader_that_pauses_at_the_end_misses_nothing_untold)
{
    static struct wordy wordy;
    struct proxy proxy;
    uint64_t lines;

    start_and_fill(&proxy, &wordy);
    peer_close(wordy.origin);
    cr_assert(kill(proxy.pid, SIGTERM) == 0);
    pause_ms(300); /* one that does not wait is gone by now; sooner, and the test would be weaker */
    cr_assert(proxy_wait_for_end(&proxy) == 0);
    lines = proxy_count_event(&proxy, "close") + proxy_count_event(&proxy, "drain");
    cr_assert(lines + sum_dropped(&proxy) == TOO_MANY + 1 && sum_dropped(&proxy) > 0);
    cr_assert(proxy_count_event(&proxy, "end") == 1);
    free(proxy.log);
}

/* Lines of the master count like any others: a worker dies while there is no room to say so, and
 * the end line knows of that lost line, and of those that the worker could not report any more. The
 * pair that is open at that time shows that all records before it have been counted. */
Test(log, lost_lines_of_every_process_are_counted)
{
    static struct wordy wordy;
    pid_t workers[PROXY_WORKERS_MAX];
    struct proxy proxy;
    struct pair pair;
    size_t lines = TOO_MANY + 1;
    size_t written;
    uint64_t dropped;
    pid_t victim;

    start_and_fill(&proxy, &wordy);
    pair = wordy_open(&wordy);
    pair_exchange(&pair, 1);
    victim = only_worker(&proxy);
    cr_assert(kill(victim, SIGKILL) == 0);
    wait_for_workers(&proxy, victim, workers);
    pair_close(&pair);
    lines += resume_reading(&proxy, &wordy);
    peer_close(wordy.origin);
    cr_assert(proxy_stop(&proxy, SIGTERM) == 0);
    written = proxy_count_event(&proxy, "close") + proxy_count_event(&proxy, "worker-died");
    dropped = proxy_number(&proxy, "end", 0, "log_lines_dropped");
    cr_assert(written + dropped == lines, "%zu written, %llu dropped: not %zu in all", written,
              (unsigned long long)dropped, lines);
    free(proxy.log);
}

/* Sends TERM and waits for the end without reading the log. */
static void expect_end_unread(struct proxy *proxy)
{
    enum { SOON_MS = 5000 };
    uint64_t deadline = monotonic_ms() + SOON_MS;
    pid_t children[PROXY_WORKERS_MAX + 1];
    size_t count = proxy_child_pids(proxy, children);
    int status = -1;

    cr_assert(kill(proxy->pid, SIGTERM) == 0);
    while (waitpid(proxy->pid, &status, WNOHANG) == 0) {
        cr_assert(monotonic_ms() < deadline, "sluice does not end");
        pause_ms(1);
    }
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    for (size_t i = 0; i < count; i++) {
        while (!is_gone(children[i])) {
            cr_assert(monotonic_ms() < deadline, "process %d is left", children[i]);
            pause_ms(1);
        }
    }
}

/* A stuck reader does not keep sluice from ending: whoever restarts it must not wait for a
 * terminal. */
Test(log, a_reader_that_stops_does_not_keep_it_alive)
{
    static struct wordy wordy;
    struct proxy proxy;

    start_and_fill(&proxy, &wordy);
    expect_end_unread(&proxy);
    peer_close(proxy.log_fd);
    peer_close(wordy.origin);
    free(proxy.log);
}

/* A reader that has gone (a pipe without reader gives EPIPE and SIGPIPE) changes nothing either. */
Test(log, a_reader_that_goes_away_changes_nothing)
{
    struct proxy proxy;
    pid_t worker;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, NULL);
    worker = only_worker(&proxy);
    peer_close(proxy.log_fd);
    for (size_t i = 0; i < 20; i++) {
        struct pair pair = pair_open(&proxy, origin);

        pair_exchange(&pair, i);
        pair_end(&pair);
    }
    cr_assert(only_worker(&proxy) == worker, "the worker was replaced");
    expect_end_unread(&proxy);
    peer_close(origin);
    free(proxy.log);
}

/* --- started without stderr --- */

/* Starts sluice with descriptors `first` to 2 closed. There is no log to wait for, so the port
 * is. */
static void start_without(struct proxy *proxy, int first, const char *workers)
{
    const char *binary = getenv("SLUICE_BIN");

    if (binary == NULL) {
        binary = "build/debug/sluice";
    }
    proxy_init(proxy);
    proxy->pid = fork();
    cr_assert(proxy->pid >= 0);
    if (proxy->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int fd = first; fd <= 2; fd++) {
            (void)close(fd);
        }
        execl(binary, "sluice", "--workers", workers, proxy->arg, NULL);
        _exit(127);
    }
    wait_until_open(proxy);
}

/* `2>&-`: sluice serves and ends as usual. */
Test(log, works_with_stderr_closed)
{
    struct proxy proxy;
    int origin;

    start_without(&proxy, 2, "2");
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    for (size_t i = 0; i < 20; i++) {
        struct pair pair = pair_open(&proxy, origin);

        pair_exchange(&pair, i);
        pair_end(&pair);
    }
    expect_end_unread(&proxy);
    peer_close(origin);
}

/* Whatever is closed at the start, no socket and no pipe of sluice ever becomes descriptor 0, 1 or
 * 2: a message meant for stderr would go to a client. */
Test(log, no_socket_takes_the_place_of_stderr)
{
    enum { PAIRS = 8 };
    pid_t pids[PROXY_WORKERS_MAX + 2];
    struct pair pairs[PAIRS];
    struct proxy proxy;
    size_t count;
    int origin;

    for (int first = 0; first <= 2; first++) {
        start_without(&proxy, first, "2");
        origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
        for (size_t i = 0; i < PAIRS; i++) {
            pairs[i] = pair_open(&proxy, origin);
        }
        count = proxy_child_pids(&proxy, pids);
        pids[count++] = proxy.pid;
        for (size_t i = 0; i < count; i++) {
            for (int fd = first; fd <= 2; fd++) {
                char path[64];
                char target[64] = "";

                (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", pids[i], fd);
                (void)!readlink(path, target, sizeof(target) - 1);
                cr_assert(target[0] == '\0' || strcmp(target, "/dev/null") == 0,
                          "closed from %d on: %s is %s", first, path, target);
            }
        }
        for (size_t i = 0; i < PAIRS; i++) {
            pair_close(&pairs[i]);
        }
        expect_end_unread(&proxy);
        peer_close(origin);
    }
}

/* --- several writers --- */

/* Two workers write records of 2.5 KiB at the same time, in batches, while 300 connections end at
 * once, again and again: every line is one whole JSON object with all fields, and none is
 * missing. */
Test(log, lines_of_two_workers_never_mix)
{
    enum { PAIRS = 100, ROUNDS = 3 };
    static struct wordy wordy;
    static struct json json;
    static struct pair pairs[PAIRS];
    struct proxy proxy;
    const char *line;
    size_t records = 0;

    wordy_listen(&wordy);
    proxy_init(&proxy);
    proxy_start(&proxy, (const char *const[]){wordy.pair, "--workers", "2", "--log", "json", NULL});
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < PAIRS; i++) {
            pairs[i] = wordy_open(&wordy);
        }
        for (size_t i = 0; i < PAIRS; i++) {
            pair_close(&pairs[i]);
        }
    }
    proxy_wait_event(&proxy, "close", ROUNDS * PAIRS);
    for (line = proxy.log; *line != '\0';) {
        line = json_read(line, &json);
        if (strcmp(json.fields[1].value, "close") == 0) {
            cr_assert(json.fields_len == RECORD_KEYS);
            cr_assert(strcmp(json.fields[RECORD_KEYS - 1].key, "spliced_bytes") == 0);
            records++;
        }
    }
    cr_assert(records == ROUNDS * PAIRS);
    peer_close(wordy.origin);
    proxy_finish(&proxy, ROUNDS * PAIRS);
}

static int compare_ids(const void *left, const void *right)
{
    return strcmp(left, right);
}

/* OB-02: an id names one connection only, over both workers and the ones that follow them. */
Test(log, ids_are_unique_across_workers_and_respawns)
{
    enum { PAIRS = 40, ROUNDS = 3 };
    static char ids[ROUNDS * PAIRS][PROXY_FIELD_BYTES];
    pid_t workers[PROXY_WORKERS_MAX];
    struct proxy proxy;
    int origin;

    proxy_init(&proxy);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, BACKLOG);
    proxy_start_simple(&proxy, (const char *const[]){"--workers", "2", NULL});
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < PAIRS; i++) {
            struct pair pair = pair_open(&proxy, origin);

            pair_end(&pair);
        }
        proxy_wait_event(&proxy, "close", (round + 1) * PAIRS);
        cr_assert(proxy_worker_pids(&proxy, workers) == 2);
        cr_assert(kill(workers[0], SIGKILL) == 0 && kill(workers[1], SIGKILL) == 0);
        proxy_wait_event(&proxy, "worker-died", 2 * (round + 1));
        wait_for_workers(&proxy, 0, workers);
    }
    for (size_t i = 0; i < ROUNDS * PAIRS; i++) {
        proxy_field(&proxy, "close", i, "id", ids[i]);
        cr_assert(strspn(ids[i], "0123456789abcdef") == 16, "id %s", ids[i]);
    }
    qsort(ids, ROUNDS * PAIRS, sizeof(ids[0]), compare_ids);
    for (size_t i = 1; i < ROUNDS * PAIRS; i++) {
        cr_assert(strcmp(ids[i - 1], ids[i]) != 0, "id %s twice", ids[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, ROUNDS * PAIRS);
}
