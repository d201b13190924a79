/* Tests of the first and the last line of the log. */
#include "proc/announce.h"

#include "conf/options.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct log the_log;
static int fds[2];

static void start_log(void)
{
    cr_assert(pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0, "%s", strerror(errno));
    log_init(&the_log, fds[1], LINE_TEXT, true, NULL);
}

/* What was written since the last call, from the first blank on: without the time stamp. */
static const char *written(void)
{
    static char bytes[2 * LINE_BYTES_MAX];
    ssize_t len = read(fds[0], bytes, sizeof(bytes) - 1);

    cr_assert(len > 0, "nothing was written");
    bytes[len] = '\0';
    return strchr(bytes, ' ') + 1;
}

static void parse(struct options *options, const char *first, const char *second)
{
    char *argv[] = {(char *)(uintptr_t) "sluice", (char *)(uintptr_t)first,
                    (char *)(uintptr_t)second, NULL};

    cr_assert(options_parse(3, argv, options, stderr) == 0);
}

/* The first line says what is served and within which limits, and is there at once. */
Test(announce, start_says_what_is_served, .init = start_log)
{
    static const struct limits limits = {
        .descriptors = 1024, .workers = 2, .connections_max = 798, .pipes_max = 100};
    struct options options;
    char expected[512];

    parse(&options, ":80=192.0.2.1:1,192.0.2.2:1", "unix:/x=unix:@y");
    announce_start(&the_log, &options.config, &limits);
    (void)snprintf(expected, sizeof(expected),
                   "start pid=%d workers=2 max_connections=798 pipes_per_worker=100 "
                   "descriptors=1024 listen=\":80 to 192.0.2.1:1, 192.0.2.2:1; unix:/x to "
                   "unix:@y\"\n",
                   (int)getpid());
    cr_assert_str_eq(written(), expected);
    options_fini(&options);
}

/* However many servers there are, the line fits and shows that some are missing. */
Test(announce, start_cuts_a_long_list_visibly, .init = start_log)
{
    static const struct limits limits = {.workers = 1};
    static char pair[64 * 1024] = ":80=192.0.2.1:1";
    size_t len = strlen(pair);
    struct options options;
    const char *line;

    for (size_t i = 0; i < 1000; i++) {
        len += (size_t)snprintf(pair + len, sizeof(pair) - len, ",192.0.2.%zu:%zu", i % 250, i + 1);
    }
    parse(&options, pair, ":81=192.0.2.1:1");
    announce_start(&the_log, &options.config, &limits);
    line = written();
    cr_assert(strlen(line) < LINE_BYTES_MAX);
    cr_assert(strlen(line) > 3000);
    cr_assert_str_eq(line + strlen(line) - 5, "...\"\n");
    cr_assert(strstr(line, "truncated") == NULL);
    options_fini(&options);
}

/* The last line has the sums over all workers, with the lines that the master itself lost. */
Test(announce, end_sums_all_workers, .init = start_log)
{
    static struct metrics shards[3];

    for (size_t i = 0; i < ARRAY_LEN(shards); i++) {
        metric_add(&shards[i].accepted, 1);
        metric_add(&shards[i].closed[REASON_CLIENT_FIN], 10);
        metric_add(&shards[i].closed[REASON_INTERNAL], 10);
        metric_add(&shards[i].bytes_up, 100);
        metric_add(&shards[i].bytes_down, 1000);
        metric_add(&shards[i].spliced_bytes, 10000);
        metric_add(&shards[i].log_dropped, 100000);
        metric_add(&shards[i].accept_errors, 1000000);
        metric_add(&shards[i].pipes_degraded, 10000000);
    }
    announce_end(&the_log, shards, ARRAY_LEN(shards));
    cr_assert_str_eq(written(), "end connections_accepted=3 connections_closed=60 bytes_up=300 "
                                "bytes_down=3000 spliced_bytes=30000 accept_errors=3000000 "
                                "pipes_degraded=30000000 log_lines_dropped=300000\n");
}
