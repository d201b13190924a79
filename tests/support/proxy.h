/* Test support: a running sluice, its log, and the questions that every integration test asks at its
 * end (contract of design: nothing leaked, nobody spins, one record per connection).
 *
 * Each test gets addresses of its own, 127.x.y.z made from its process id, so tests run in parallel. */
#ifndef SUPPORT_PROXY_H
#define SUPPORT_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PROXY_PORT = 8080, ORIGIN_PORT = 9000, PROXY_WORKERS_MAX = 8, PROXY_FIELD_BYTES = 160 };

struct proxy {
    pid_t pid;
    char ip[16];  /* this test's own address */
    char arg[64]; /* "IP:8080=IP:9000", the usual argument */
    int log_fd;   /* reading end of its stderr */
    char *log;    /* all that came so far, 0-terminated */
    size_t log_len;
    size_t workers;
    size_t sockets_before; /* of all workers, when nothing was connected yet */
    bool running;
    void (*in_child)(void); /* optional: runs in the new process before it becomes sluice */
};

/** Chooses the addresses; nothing is started yet. */
void proxy_init(struct proxy *proxy);

/** Starts SLUICE_BIN (default build/debug/sluice) with the arguments, a list that ends with NULL, and
 *  waits for its start line. `--workers` may be among them; else the caller gets one worker. */
void proxy_start(struct proxy *proxy, const char *const arguments[]);
/** The usual: one listener proxy->ip:8080 in front of proxy->ip:9000, plus options. */
void proxy_start_simple(struct proxy *proxy, const char *const options[]);

/** Runs SLUICE_BIN to its end and returns the exit status; its stderr is left in proxy->log, at most
 *  `wait_s` seconds. */
int proxy_run_to_end(struct proxy *proxy, const char *const arguments[]);

/** For a start that may fail: starts it and waits for nothing. Then, in turn: reads what has come of
 *  the log, waiting at most `wait` milliseconds, false at its end; and, when it ends or has been
 *  told to, the exit status. */
void proxy_launch(struct proxy *proxy, const char *const arguments[]);
bool proxy_read_log(struct proxy *proxy, int wait);
int proxy_wait_for_end(struct proxy *proxy);

/** The worker processes now (those named sluice-worker), at most PROXY_WORKERS_MAX. */
size_t proxy_worker_pids(const struct proxy *proxy, pid_t pids[PROXY_WORKERS_MAX]);
/** Every process of this sluice but the master. */
size_t proxy_child_pids(const struct proxy *proxy, pid_t pids[PROXY_WORKERS_MAX + 1]);

/** Waits until the log holds at least `count` lines of this event ("close", "drain" ...). */
void proxy_wait_event(struct proxy *proxy, const char *event, size_t count);
/** Lines of that event so far (reads what has come, does not wait). */
size_t proxy_count_event(struct proxy *proxy, const char *event);
/** Copies a field of the index-th line (from 0) of that event, "" if the field is not there. */
void proxy_field(const struct proxy *proxy, const char *event, size_t index, const char *key,
                 char value[PROXY_FIELD_BYTES]);
/** The same as a number. */
uint64_t proxy_number(const struct proxy *proxy, const char *event, size_t index, const char *key);
/** Fails the test unless the field has this value. */
void proxy_expect_field(const struct proxy *proxy, const char *event, size_t index, const char *key,
                        const char *value);

/** CPU time of all its processes so far, in milliseconds. */
uint64_t proxy_cpu_ms(const struct proxy *proxy);
/** Memory of all workers: the sum of their PSS in KiB. */
uint64_t proxy_pss_kib(const struct proxy *proxy);

/** Sends a signal to the master, and waits for its end: the exit status (128 + N if killed). */
int proxy_stop(struct proxy *proxy, int signal_number);

/** The end of nearly every test: waits for `connections` close records and no more, checks that the
 *  workers hold no socket and no CPU that they did not hold at the start, that no socket of this test
 *  is in CLOSE_WAIT, then stops sluice with TERM, expects status 0, and balances the end line. */
void proxy_finish(struct proxy *proxy, size_t connections);

#endif
