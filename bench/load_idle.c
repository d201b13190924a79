/*
 * load_idle: connections that stand and do nothing, until they are told to.
 *
 * What idle connections cost is read by somebody else, in /proc, while they stand: so this mode
 * only opens them, says so, and obeys lines on its standard input:
 *
 *   (start)   every connection is opened and has one byte echoed     "event":"ready"
 *   ping      every connection has one byte echoed                   "event":"ping"
 *   quit      every connection is ended, FIN after FIN               "event":"end"
 *   (end)     the same as quit; so does TERM or INT, or an hour without a command
 *
 * The number of errors is that since the start. A connection that failed stays closed; the others
 * go on, and "connections" says how many they are.
 *
 * While there is nothing to do the process sleeps in ppoll, on its input and on the epoll
 * descriptor, which is readable when a connection has an event. Input is not in that epoll: it may
 * be a file, which epoll refuses, and it must not wake a ping that is going on.
 */
#include "load_idle.h"

#include "histogram.h"
#include "load_exchange.h"
#include "load_pass.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define COMMAND_NS (3600 * LOAD_SECOND_NS)

struct idle {
    struct load_loop loop;
    struct histogram latency; /* of the ping that is going on, or was last */
    char input[64];           /* a line that is not complete yet */
    size_t input_bytes;
    bool quit;
};

static void idle_answered(void *mode, int64_t latency_ns)
{
    struct idle *idle = mode;

    histogram_add(&idle->latency, latency_ns);
}

/* No turn is expected when none has a job; a pass brings its own. */
static enum load_outcome idle_turn(struct load_loop *loop, struct load_conn *conn)
{
    (void)loop;
    (void)conn;
    return LOAD_DONE;
}

static void idle_print(struct idle *idle, const char *event, uint32_t connections, int64_t begin_ns,
                       bool with_latency)
{
    printf("{\"mode\":\"idle\",\"event\":\"%s\",\"connections\":%" PRIu32 ",\"seconds\":%.6f",
           event, connections, (double)(load_now_ns() - begin_ns) / 1e9);
    if (with_latency) {
        histogram_print_quantile_us(stdout, &idle->latency, "p50_us", 50000);
        histogram_print_quantile_us(stdout, &idle->latency, "p99_us", 99000);
        histogram_print_max_us(stdout, &idle->latency, "max_us");
    }
    load_errors_print(stdout, &idle->loop.errors);
    puts("}");
    (void)fflush(stdout); /* somebody waits for it; a stdout that is gone is not our trouble */
}

static void idle_ping(struct idle *idle)
{
    int64_t begin_ns = load_now_ns();

    memset(&idle->latency, 0, sizeof(idle->latency));
    load_pass_ping(&idle->loop, idle_answered);
    idle_print(idle, "ping", idle->loop.open, begin_ns, true);
}

static void idle_obey(struct idle *idle, const char *command)
{
    if (strcmp(command, "ping") == 0) {
        idle_ping(idle);
    } else if (strcmp(command, "quit") == 0) {
        idle->quit = true;
    } else {
        fprintf(stderr, "load: idle: the commands are ping and quit, not '%s'\n", command);
    }
}

/* Obeys each complete line; what is not complete stays. */
static void idle_read_commands(struct idle *idle)
{
    ssize_t count = read(STDIN_FILENO, idle->input + idle->input_bytes,
                         sizeof(idle->input) - 1 - idle->input_bytes);
    char *line = idle->input;
    char *newline;

    if (count <= 0) {
        idle->quit = count == 0 || errno != EAGAIN; /* it may be somebody's non-blocking pipe */
        return;
    }
    idle->input_bytes += (size_t)count;
    idle->input[idle->input_bytes] = '\0';
    while (!idle->quit && idle->loop.stops == 0 && (newline = strchr(line, '\n')) != NULL) {
        *newline = '\0';
        idle_obey(idle, line);
        line = newline + 1;
    }
    idle->input_bytes = strlen(line);
    memmove(idle->input, line, idle->input_bytes + 1);
    if (idle->input_bytes == sizeof(idle->input) - 1) {
        fprintf(stderr, "load: idle: the commands are ping and quit, not a line of %zu bytes\n",
                idle->input_bytes);
        idle->input_bytes = 0;
    }
}

static void idle_serve(struct idle *idle)
{
    struct pollfd waits[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                             {.fd = idle->loop.epoll_fd, .events = POLLIN}};
    int64_t deadline_ns = load_now_ns() + COMMAND_NS;

    while (!idle->quit && idle->loop.stops == 0 && load_now_ns() < deadline_ns) {
        struct timespec timeout = {.tv_sec = COMMAND_NS / LOAD_SECOND_NS};
        if (ppoll(waits, 2, &timeout, NULL) <= 0) {
            continue;
        }
        if (waits[1].revents != 0) {
            load_loop_turn(&idle->loop, 0); /* notes the events */
            load_loop_turn(&idle->loop, 0); /* gives the turns that follow from them */
        }
        if (waits[0].revents != 0) {
            idle_read_commands(idle);
            deadline_ns = load_now_ns() + COMMAND_NS;
        }
    }
}

int load_idle_run(const struct load_options *options)
{
    static struct idle idle; /* a histogram is too much for a stack */
    int64_t begin_ns = load_now_ns();
    uint32_t connections;
    int status;

    load_exchange_init();
    if (!load_loop_init(&idle.loop, options, idle_turn, &idle)) {
        return 1;
    }
    (void)load_pass_open(&idle.loop, 1); /* what failed is in the line */
    if (idle.loop.stops == 0) {
        idle_print(&idle, "ready", idle.loop.open, begin_ns, false);
        idle_serve(&idle);
    }
    begin_ns = load_now_ns();
    connections = idle.loop.open;
    load_pass_close(&idle.loop);
    idle_print(&idle, "end", connections, begin_ns, false);
    status = load_errors_conclude(&idle.loop.errors);
    load_loop_free(&idle.loop);
    return status;
}
