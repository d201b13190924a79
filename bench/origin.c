/*
 * origin: a small server to stand behind the forwarder, in demonstrations and benchmarks.
 *
 * A benchmark of a forwarder measures the slowest of three programs, so the origin has to cost
 * less than what is measured, and has to be right about the corners (half-close, reset, slow
 * reader) that a forwarder must carry. It uses libc only, nothing of the library it helps to
 * measure.
 *
 * HTTP/1.1, at the address of --listen:
 *   GET, HEAD  /          one line of text
 *   GET, HEAD  /bytes/N   N bytes (0 .. 2^63-1) of the pattern
 *   POST, PUT  /discard   reads the body, answers with the number of bytes in it
 *
 * Without a protocol, each at an address of its own:
 *   --echo     sends back every byte; after the peer's FIN and the last byte, FIN
 *   --sink     drops every byte; after the peer's FIN, FIN
 *   --source   sends the pattern for ever, drops every byte; after the peer's FIN, FIN
 *
 * The pattern (pattern.h) repeats every 262096 bytes. To check a download of one period:
 *   seq -f %015.0f 0 16 262080 | cmp - <(curl -s localhost:9000/bytes/262096)
 *
 * Each worker is one process, forked after all the listening sockets are open, and serves all the
 * services. One worker needs no fork. A worker that dies ends the origin: a benchmark with less
 * behind it than was asked for would only be misread.
 *
 * With --counters, what was done so far can be read from a file at any moment (tally.h).
 *
 * What it does not do: TLS, names instead of addresses, limits on idle or stalled clients, logging.
 * Read next: serve.c, one worker; then http.c and raw.c, one connection; listen.c, addresses.
 */
#include "check.h"
#include "listen.h"
#include "pattern.h"
#include "serve.h"
#include "tally.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS_MAX 256

/* By service: the option that asks for it, and what is said when it is there. */
static const char *const option_names[SERVICE_COUNT] = {"listen", "echo", "sink", "source"};
static const char *const announcements[SERVICE_COUNT] = {"listening", "echo", "sink", "source"};

struct options {
    const char *texts[SERVICE_COUNT]; /* borrowed; NULL for a service that is not wanted */
    union listen_address addresses[SERVICE_COUNT];
    const char *workers_text;  /* borrowed */
    const char *counters_path; /* borrowed; may be NULL */
    int workers;
};

static void announce(const struct options *options)
{
    char text[LISTEN_TEXT_MAX];

    for (int i = 0; i < SERVICE_COUNT; i++) {
        if (options->texts[i] != NULL) {
            listen_format(&options->addresses[i], text, sizeof(text));
            printf("origin: %s on %s\n", announcements[i], text);
        }
    }
    (void)fflush(stdout); /* nobody may be reading it, which is no reason to stop */
}

static int worker_main(int worker, const int listen_fds[SERVICE_COUNT],
                       const sigset_t *stop_signals)
{
    tally_select(worker);
    return serve(listen_fds, stop_signals);
}

static pid_t worker_fork(int worker, const int listen_fds[SERVICE_COUNT],
                         const sigset_t *stop_signals)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid != 0) {
        return pid;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        exit(0); /* it died before the line above */
    }
    exit(worker_main(worker, listen_fds, stop_signals));
}

/* Sends the workers home and returns the exit status: 0 if all of them ended well. */
static int workers_stop(const pid_t *pids, int count)
{
    int result = 0;

    for (int i = 0; i < count; i++) {
        (void)kill(pids[i], SIGTERM); /* not reaped yet, so the number is still its own */
    }
    for (int i = 0; i < count; i++) {
        int status = 0;
        if (waitpid(pids[i], &status, 0) != pids[i] || status != 0) {
            fprintf(stderr, "origin: worker %d ended badly\n", (int)pids[i]);
            result = 1;
        }
    }
    return result;
}

static void listeners_close(int listen_fds[SERVICE_COUNT])
{
    for (int i = 0; i < SERVICE_COUNT; i++) {
        if (listen_fds[i] >= 0) {
            (void)close(listen_fds[i]);
        }
    }
}

/* Runs the worker processes until a signal or until one of them ends. */
static int workers_run(const struct options *options, int (*listen_fds)[SERVICE_COUNT],
                       const sigset_t *stop_signals)
{
    pid_t pids[WORKERS_MAX];
    sigset_t awaited = *stop_signals;

    (void)signal(SIGCHLD, SIG_DFL); /* ignored, it would never be pending */
    (void)sigaddset(&awaited, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &awaited, NULL);
    for (int i = 0; i < options->workers; i++) {
        pids[i] = worker_fork(i, listen_fds[i], stop_signals);
        if (pids[i] < 0) {
            fprintf(stderr, "origin: fork: %s\n", strerror(errno));
            (void)workers_stop(pids, i);
            return 1;
        }
    }
    for (int i = 0; i < options->workers; i++) {
        listeners_close(listen_fds[i]); /* or a dead worker's port would still take connections */
    }
    announce(options);
    while (sigwaitinfo(&awaited, NULL) < 0) {
        CHECK(errno == EINTR);
    }
    return workers_stop(pids, options->workers);
}

/* Every connection is a descriptor: take what the administrator lets us have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* without it there are fewer connections */
    }
}

static void usage(FILE *to)
{
    fputs(
        "Usage: origin [--listen ADDRESS] [--echo ADDRESS] [--sink ADDRESS]\n"
        "              [--source ADDRESS] [--counters FILE] [--workers N]\n"
        "A small server to measure and to try a forwarder with.\n"
        "\n"
        "  --listen ADDRESS  HTTP, at ADDR:PORT, [V6]:PORT or unix:/PATH (default 127.0.0.1:9000)\n"
        "  --echo ADDRESS    sends back what it receives\n"
        "  --sink ADDRESS    drops what it receives\n"
        "  --source ADDRESS  sends without end, drops what it receives\n"
        "  --counters FILE   count in this file, 8 native 64-bit numbers for each worker: HTTP\n"
        "                    replies, connections accepted, closed, raw bytes received, sent, bytes\n"
        "                    of HTTP bodies, 0, 0\n"
        "  --workers N       processes, 1 to 256 (default 1)\n"
        "  --help            this text\n"
        "\n"
        "  GET  /            a line of text\n"
        "  GET  /bytes/N     N bytes of a fixed pattern\n"
        "  POST /discard     reads the body and answers with its size\n",
        to);
}

/* Takes the words of the command line; false if getopt_long has refused one and said why. */
static bool options_collect(int argc, char **argv, struct options *options)
{
    static const struct option known[] = {{"listen", required_argument, NULL, SERVICE_HTTP},
                                          {"echo", required_argument, NULL, SERVICE_ECHO},
                                          {"sink", required_argument, NULL, SERVICE_SINK},
                                          {"source", required_argument, NULL, SERVICE_SOURCE},
                                          {"counters", required_argument, NULL, 'c'},
                                          {"workers", required_argument, NULL, 'w'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int name;

    options->texts[SERVICE_HTTP] = "127.0.0.1:9000";
    options->workers_text = "1";
    while ((name = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (name < SERVICE_COUNT) {
            options->texts[name] = optarg;
        } else if (name == 'c') {
            options->counters_path = optarg;
        } else if (name == 'w') {
            options->workers_text = optarg;
        } else if (name == 'h') {
            usage(stdout);
            exit(0);
        } else {
            return false;
        }
    }
    return true;
}

static bool options_parse_addresses(struct options *options)
{
    for (int i = 0; i < SERVICE_COUNT; i++) {
        const char *text = options->texts[i];
        if (text != NULL && !listen_parse(text, &options->addresses[i])) {
            fprintf(stderr, "origin: --%s takes ADDR:PORT, [V6]:PORT or unix:/PATH, not '%s'\n",
                    option_names[i], text);
            return false;
        }
    }
    return true;
}

/* Returns false, after a line on stderr, for options that make no sense. */
static bool options_parse(int argc, char **argv, struct options *options)
{
    char *end;
    long workers;

    if (!options_collect(argc, argv, options)) {
        return false;
    }
    if (optind < argc) {
        fprintf(stderr, "origin: unexpected argument '%s'\n", argv[optind]);
        return false;
    }
    workers = strtol(options->workers_text, &end, 10);
    if (end == options->workers_text || *end != '\0' || workers < 1 || workers > WORKERS_MAX) {
        fprintf(stderr, "origin: --workers takes 1 to %d, not '%s'\n", WORKERS_MAX,
                options->workers_text);
        return false;
    }
    options->workers = (int)workers;
    return options_parse_addresses(options);
}

static void remove_paths(const struct options *options, int services)
{
    for (int i = 0; i < services; i++) {
        if (options->texts[i] != NULL) {
            listen_remove(&options->addresses[i]);
        }
    }
}

/* Opens what all workers listen on. False, after a line on stderr, if something can't be had. */
static bool listeners_open(struct options *options, int (*ret_fds)[SERVICE_COUNT])
{
    for (int service = 0; service < SERVICE_COUNT; service++) {
        union listen_address *address = &options->addresses[service];
        int fds[WORKERS_MAX];
        int result = 0;

        for (int i = 0; i < options->workers; i++) {
            fds[i] = -1;
        }
        if (options->texts[service] != NULL) {
            result = listen_open(address, options->workers, fds);
        }
        if (result < 0) {
            char text[LISTEN_TEXT_MAX];
            listen_format(address, text, sizeof(text));
            fprintf(stderr, "origin: cannot listen on %s: %s\n", text, strerror(-result));
            remove_paths(options, service);
            return false;
        }
        for (int i = 0; i < options->workers; i++) {
            ret_fds[i][service] = fds[i];
        }
    }
    return true;
}

static bool counters_open(const struct options *options)
{
    int result = 0;

    if (options->counters_path != NULL) {
        result = tally_open(options->counters_path, options->workers);
    }
    if (result < 0) {
        fprintf(stderr, "origin: cannot make %s for --counters: %s\n", options->counters_path,
                strerror(-result));
    }
    return result == 0;
}

int main(int argc, char **argv)
{
    static int listen_fds[WORKERS_MAX][SERVICE_COUNT]; /* -1 where a service is not wanted */
    struct options options = {0};
    sigset_t stop_signals;
    int result;

    if (!options_parse(argc, argv, &options)) {
        fputs("Try: origin --help\n", stderr);
        return 2;
    }
    (void)sigemptyset(&stop_signals);
    (void)sigaddset(&stop_signals, SIGTERM);
    (void)sigaddset(&stop_signals, SIGINT);
    (void)sigprocmask(SIG_BLOCK, &stop_signals, NULL);
    raise_descriptor_limit();
    pattern_init();
    if (!listeners_open(&options, listen_fds)) {
        return 1;
    }
    /* After the addresses: if an origin has them already, its counters stay as they are. */
    if (!counters_open(&options)) {
        result = 1;
    } else if (options.workers > 1) {
        result = workers_run(&options, listen_fds, &stop_signals);
    } else {
        announce(&options);
        result = worker_main(0, listen_fds[0], &stop_signals);
    }
    remove_paths(&options, SERVICE_COUNT);
    return result;
}
