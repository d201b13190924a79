/* The end of each cell, and what follows from it. */
#include "matrix/run.h"

#include "support/ends.h"
#include "support/peer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ANSWER_BYTES = 3000, /* after the closer's FIN */
    PAUSE_MS = 300,
    END_WAIT_MS = 15000,
    LAST_LOOK_MS = 5000,
    COUNT_MS = 20 /* between two looks at the log */
};

static bool is_late(const struct run *run)
{
    return run->cell.at[MOMENT] == MOMENT_CONNECT;
}

static enum side run_other(const struct run *run)
{
    return other_side(run_closer(run));
}

static bool is_kind(const struct run *run, enum kind kind)
{
    return run->cell.at[KIND] == (int)kind;
}

/* --- ending --- */

/* The only process that has the socket is killed; what the peer sees of it is the kernel's. */
static void kill_process_with(int fd)
{
    pid_t pid = fork();
    int status;

    cr_assert(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            (void)pause();
        }
    }
    cr_assert(close(fd) == 0);
    cr_assert(kill(pid, SIGKILL) == 0);
    cr_assert(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
}

static void half_close(struct run *run)
{
    enum side closer = run_closer(run);

    run->lane[closer].is_shut = true;
    cr_assert(shutdown(run->fd[closer], SHUT_WR) == 0, "%s: shutdown: %s", cell_name(&run->cell),
              strerror(errno));
}

static void leave(struct run *run, void (*how)(int fd))
{
    enum side closer = run_closer(run);

    how(run->fd[closer]);
    run->fd[closer] = -1;
    run->has_ended = true;
}

static void end_at_once(struct run *run)
{
    uint64_t unread = place_unread(run->fd[run_closer(run)]);

    switch ((enum kind)run->cell.at[KIND]) {
    case KIND_FIN:
        half_close(run);
        run->has_ended = true;
        return;
    case KIND_RST:
        leave(run, peer_reset);
        return;
    case KIND_RST_AFTER_FIN:
        half_close(run);
        return;
    case KIND_KILL:
        cr_assert(unread == 0, "%s: %llu bytes unread", cell_name(&run->cell),
                  (unsigned long long)unread);
        leave(run, kill_process_with);
        return;
    case KIND_KILL_UNREAD:
        cr_assert(unread > 0, "%s: nothing unread", cell_name(&run->cell));
        leave(run, kill_process_with);
        return;
    case KINDS:
        cr_assert(false);
    }
}

/* With a reader, the reset comes when FIN has gone through; else both come together. */
static bool resets_later(const struct run *run)
{
    return is_kind(run, KIND_RST_AFTER_FIN) && run->cell.at[SINK] == SINK_READING;
}

static bool fin_is_there(struct run *run)
{
    return !is_kind(run, KIND_RST_AFTER_FIN) || is_acknowledged(run, run_closer(run));
}

void end_all(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        end_at_once(&batch->runs[i]);
    }
    pump_until(batch, fin_is_there, "a FIN that is acknowledged");
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        if (is_kind(run, KIND_RST_AFTER_FIN) && !resets_later(run)) {
            leave(run, peer_reset);
        }
    }
}

/* --- the peers' reactions --- */

static bool is_met_later(const struct run *run)
{
    return is_late(run) && run_closer(run) == CLIENT && run->cell.at[SINK] != SINK_NEVER;
}

static void accept_late_ones(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (is_met_later(&batch->runs[i])) {
            route_unblock(batch->runs[i].route);
        }
    }
    for (size_t i = 0; i < batch->count; i++) {
        if (is_met_later(&batch->runs[i])) {
            batch->runs[i].fd[SERVER] = route_accept(batch->runs[i].route);
        }
    }
}

static void begin_reading(struct batch *batch, enum sink sink)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        if (run->cell.at[SINK] == (int)sink) {
            run_own(run)->may_read = NO_LIMIT;
        }
        if (is_kind(run, KIND_FIN)) {
            run_back(run)->may_read = NO_LIMIT; /* it has only half-closed */
        }
    }
}

/* The direction back rests: all of it has arrived, or sluice holds what the closer does not read. */
static bool back_rests(struct run *run)
{
    struct lane *back = run_back(run);

    look(run, run_other(run));
    return cell_is_held(&run->cell, run_other(run)) ||
           (back->place.untaken == 0 && back->place.unacked == 0 && held_bytes(back) == 0);
}

static void react(struct run *run)
{
    struct lane *back = run_back(run);

    if (run_own(run)->view != VIEW_FIN) {
        return;
    }
    if (cell_is_clean(&run->cell) && !back->shut_after) {
        back->goal += is_kind(run, KIND_FIN) ? ANSWER_BYTES : 0;
        back->shut_after = true;
    }
    if (resets_later(run) && !run->has_ended && back_rests(run)) {
        back->fact = back->place;
        back->fact_read = back->read;
        leave(run, peer_reset);
    }
}

static bool has_seen_all(struct run *run)
{
    enum view other = run->cell.at[SINK] == SINK_NEVER ? VIEW_NONE : run->expected.other;
    enum view seen = run_own(run)->view;
    bool is_unix = cell_is_unix(&run->cell, run_other(run));

    if (run_back(run)->view == VIEW_NONE && run->expected.closer != VIEW_NONE) {
        return false;
    }
    if (run_back(run)->shut_after && !run_back(run)->is_shut) {
        return false;
    }
    return is_unix ? other == VIEW_NONE || seen != VIEW_NONE
                   : other == seen || seen == VIEW_RESET || seen == VIEW_FIN_RESET;
}

/* Pumps and lets everyone react until every run is ready, at most so long. */
static bool advance(struct batch *batch, run_ready_fn *ready, uint64_t wait_ms)
{
    uint64_t deadline = monotonic_ms() + wait_ms;

    for (;;) {
        bool moved = pump(batch);
        bool all_ready = true;

        for (size_t i = 0; i < batch->count; i++) {
            react(&batch->runs[i]);
            all_ready = ready(&batch->runs[i]) && all_ready;
        }
        if (all_ready || monotonic_ms() >= deadline) {
            return all_ready;
        }
        if (!moved) {
            pause_ms(1);
        }
    }
}

/* --- records --- */

static size_t count_records(struct batch *batch, bool early)
{
    size_t sum = 0;

    for (int engine = 0; engine < ENGINES; engine++) {
        struct stand *stand = &batch->stands[engine];

        if (stand->connections > 0) {
            size_t count = proxy_count_event(&stand->proxy, "close");

            sum += count;
            stand->early_records = early ? count : stand->early_records;
        }
    }
    return sum;
}

static void wait_for_records(struct batch *batch)
{
    uint64_t deadline = monotonic_ms() + END_WAIT_MS;

    while (count_records(batch, false) < batch->count && monotonic_ms() < deadline) {
        (void)advance(batch, has_seen_all, COUNT_MS);
        pause_ms(COUNT_MS);
    }
}

static void read_text(const struct proxy *proxy, size_t index, const char *key,
                      char text[RECORD_TEXT_BYTES])
{
    char value[PROXY_FIELD_BYTES];

    proxy_field(proxy, "close", index, key, value);
    (void)snprintf(text, RECORD_TEXT_BYTES, "%.31s", value);
}

static void read_record(const struct proxy *proxy, size_t index, struct run *run)
{
    struct record_seen *record = &run->record;
    char client[PROXY_FIELD_BYTES];
    const char *port;

    if (record->is_there) {
        complain(&run->cell, "a second record");
    }
    record->is_there = true;
    record->index = index;
    read_text(proxy, index, "reason", record->reason);
    read_text(proxy, index, "closed_by", record->closed_by);
    read_text(proxy, index, "how", record->how);
    read_text(proxy, index, "errno", record->error);
    record->bytes[CLIENT] = proxy_number(proxy, "close", index, "bytes_up");
    record->bytes[SERVER] = proxy_number(proxy, "close", index, "bytes_down");
    record->undelivered_bytes = proxy_number(proxy, "close", index, "undelivered_bytes");
    record->spliced_bytes = proxy_number(proxy, "close", index, "spliced_bytes");
    proxy_field(proxy, "close", index, "client", client);
    port = strrchr(client, ':');
    if (run->client_port != 0 &&
        (port == NULL || strtoul(port + 1, NULL, 10) != run->client_port)) {
        complain(&run->cell, "its client has port %u; the record says %s", run->client_port,
                 client);
    }
}

/* What tells the order of a listener's connections: the low 40 bits of the id are a counter. */
struct order {
    uint64_t id;
    size_t index;
    char listener[ROUTE_TEXT_BYTES];
};

static int compare_order(const void *left, const void *right)
{
    uint64_t a = ((const struct order *)left)->id;
    uint64_t b = ((const struct order *)right)->id;

    return a < b ? -1 : a > b;
}

static void match_records(struct batch *batch, struct stand *stand)
{
    size_t count = proxy_count_event(&stand->proxy, "close");
    struct order *orders = calloc(count + 1, sizeof(*orders));

    cr_assert(orders != NULL);
    for (size_t i = 0; i < count; i++) {
        char value[PROXY_FIELD_BYTES];

        proxy_field(&stand->proxy, "close", i, "id", value);
        orders[i].id = strtoull(value, NULL, 16);
        orders[i].index = i;
        proxy_field(&stand->proxy, "close", i, "listener", value);
        (void)snprintf(orders[i].listener, sizeof(orders[i].listener), "%.63s", value);
    }
    qsort(orders, count, sizeof(*orders), compare_order);
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];
        size_t ordinal = run->ordinal;

        for (size_t j = 0; j < count && &batch->stands[run->cell.at[ENGINE]] == stand; j++) {
            if (strcmp(orders[j].listener, run->route->listen) == 0 && ordinal-- == 0) {
                read_record(&stand->proxy, orders[j].index, run);
                break;
            }
        }
    }
    free(orders);
}

/* --- everything after the thaw --- */

static bool is_seen_to_the_end(struct run *run)
{
    return has_seen_all(run) && (run->fd[run_other(run)] < 0 || run->expected.other == VIEW_NONE ||
                                 run_own(run)->view != VIEW_NONE);
}

void follow_to_the_end(struct batch *batch)
{
    uint64_t resume_ms;

    accept_late_ones(batch);
    begin_reading(batch, SINK_READING);
    resume_ms = monotonic_ms() + PAUSE_MS;
    while (monotonic_ms() < resume_ms) {
        (void)advance(batch, has_seen_all, COUNT_MS);
        pause_ms(1);
    }
    (void)count_records(batch, true);
    begin_reading(batch, SINK_PAUSED);
    (void)advance(batch, has_seen_all, END_WAIT_MS);
    wait_for_records(batch);
    /* Now those that never read look at what they have. */
    begin_reading(batch, SINK_NEVER);
    (void)advance(batch, is_seen_to_the_end, LAST_LOOK_MS);
    for (size_t i = 0; i < batch->count; i++) {
        look_for_reset(&batch->runs[i], CLIENT);
        look_for_reset(&batch->runs[i], SERVER);
    }
    for (int engine = 0; engine < ENGINES; engine++) {
        if (batch->stands[engine].connections > 0) {
            match_records(batch, &batch->stands[engine]);
        }
    }
}

static void close_peers(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        for (int side = 0; side < SIDES; side++) {
            if (batch->runs[i].fd[side] >= 0) {
                peer_close(batch->runs[i].fd[side]);
            }
        }
    }
}

static void close_routes(struct batch *batch)
{
    for (int engine = 0; engine < ENGINES; engine++) {
        for (size_t i = 0; i < batch->stands[engine].route_count; i++) {
            route_close(&batch->stands[engine].routes[i]);
        }
    }
}

void close_all(struct batch *batch)
{
    close_peers(batch);
    for (int engine = 0; engine < ENGINES; engine++) {
        struct stand *stand = &batch->stands[engine];

        if (stand->connections > 0) {
            proxy_finish(&stand->proxy, stand->connections);
        }
    }
    close_routes(batch);
}

void abandon_all(struct batch *batch)
{
    close_peers(batch);
    for (int engine = 0; engine < ENGINES; engine++) {
        struct proxy *proxy = &batch->stands[engine].proxy;

        if (proxy->running) {
            cr_assert(proxy_stop(proxy, SIGTERM) == 0, "sluice ended badly:\n%s", proxy->log);
            free(proxy->log);
        }
    }
    close_routes(batch);
}
