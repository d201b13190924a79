/* An operator who sees only these two lines knows what sluice did: hence the totals at the end. */
#include "proc/announce.h"

#include <stdio.h>
#include <unistd.h>

/* What all listeners and targets may take of the line: more of them are cut, marked by "...". */
enum { LISTEN_BYTES_MAX = 3072 };

/* Text that is gathered until its room is used up. */
struct gathered {
    char text[LISTEN_BYTES_MAX];
    size_t len;
};

static void gather(struct gathered *gathered, const char *between, const char *word)
{
    size_t room = sizeof(gathered->text) - gathered->len;
    int len = snprintf(gathered->text + gathered->len, room, "%s%s", between, word);

    gathered->len = min_size(gathered->len + (size_t)len, sizeof(gathered->text) - 1);
}

static void gather_listeners(struct gathered *gathered, const struct config *config)
{
    gathered->len = 0;
    gathered->text[0] = '\0';
    for (size_t i = 0; i < config->listeners_len; i++) {
        const struct config_listener *listener = &config->listeners[i];
        const struct config_pool *pool = &config->pools[listener->pool];

        gather(gathered, i > 0 ? "; " : "", listener->name);
        for (size_t k = 0; k < pool->servers_len; k++) {
            gather(gathered, k > 0 ? ", " : " to ", pool->servers[k].text);
        }
    }
    if (gathered->len == sizeof(gathered->text) - 1) {
        (void)snprintf(gathered->text + gathered->len - 3, 4, "...");
    }
}

void announce_start(struct log *log, const struct config *config, const struct limits *limits)
{
    struct gathered listeners;

    gather_listeners(&listeners, config);
    log_event_begin(log, "start");
    line_u64(&log->line, "pid", (uint64_t)getpid());
    line_u64(&log->line, "workers", limits->workers);
    line_u64(&log->line, "max_connections", limits->connections_max);
    line_u64(&log->line, "pipes_per_worker", limits->pipes_max);
    line_u64(&log->line, "descriptors", limits->descriptors);
    line_string(&log->line, "listen", listeners.text);
    log_event_end(log);
    log_flush(log);
}

void announce_end(struct log *log, const struct metrics *shards, size_t shards_len)
{
    struct {
        uint64_t accepted, closed, bytes_up, bytes_down, spliced, accept_errors, degraded, dropped;
    } sum = {0};

    for (size_t i = 0; i < shards_len; i++) {
        sum.accepted += metric_get(&shards[i].accepted);
        sum.closed += metrics_closed(&shards[i]);
        sum.bytes_up += metric_get(&shards[i].bytes_up);
        sum.bytes_down += metric_get(&shards[i].bytes_down);
        sum.spliced += metric_get(&shards[i].spliced_bytes);
        sum.accept_errors += metric_get(&shards[i].accept_errors);
        sum.degraded += metric_get(&shards[i].pipes_degraded);
        sum.dropped += metric_get(&shards[i].log_dropped);
    }
    log_event_begin(log, "end");
    line_u64(&log->line, "connections_accepted", sum.accepted);
    line_u64(&log->line, "connections_closed", sum.closed);
    line_u64(&log->line, "bytes_up", sum.bytes_up);
    line_u64(&log->line, "bytes_down", sum.bytes_down);
    line_u64(&log->line, "spliced_bytes", sum.spliced);
    line_u64(&log->line, "accept_errors", sum.accept_errors);
    line_u64(&log->line, "pipes_degraded", sum.degraded);
    line_u64(&log->line, "log_lines_dropped", sum.dropped);
    log_event_end(log);
    log_finish(log);
}
