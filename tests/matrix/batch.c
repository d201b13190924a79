/* Many cells at once, in step:
 *
 *   open        every connection, one after the other, so that the n-th record of a listener is that
 *               of the n-th connection
 *   warm up     some bytes each way; with --splice auto enough of them for a change to splice
 *   prepare     what the receiver leaves unread, and what sluice is to hold (fill.c)
 *   freeze      the workers stop; more bytes arrive in their kernel; everything is measured
 *   end         every closer ends
 *   thaw        each worker finds all of it in one batch of events
 *   aftermath   readers read on, paused ones after PAUSE_MS; who has seen FIN answers with FIN
 *   records     one for each connection; only then those who never read look at what they got
 *
 * A cell that waits costs nothing, so a few hundred of them take hardly longer than one. */
#include "matrix/run.h"

#include "base/macros.h"
#include "support/ends.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

enum {
    KIB = 1024,
    BUFFER_BYTES = 64 * KIB, /* sluice's */
    WARM_BYTES = 100,
    UNREAD_BYTES = 10,
    BURST_BYTES = 1024 * KIB, /* makes a direction change to splice */
    BEFORE_BYTES = 10000,     /* on their way before the worker is frozen ... */
    FROZEN_BYTES = 20000,     /* ... and after */
    EARLY_BYTES = 1000,       /* sent before the connect is done */
    IDLE_LONG_MS = 600 * 1000,
    IDLE_MIN_MS = 1500,
    IDLE_MAX_MS = 12000 /* it takes at most twice that, in a test of at most a minute */
};

static const char *const splice_values[ENGINES] = {"never", "always", "auto"};

static bool is_late(const struct run *run)
{
    return run->cell.at[MOMENT] == MOMENT_CONNECT;
}

static enum side run_other(const struct run *run)
{
    return other_side(run_closer(run));
}

/* --- starting --- */

static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static struct route *add_route(struct batch *batch, const struct cell *cell, enum route_size size,
                               bool own)
{
    struct stand *stand = &batch->stands[cell->at[ENGINE]];
    unsigned index = (unsigned)(cell->at[ENGINE] * ROUTES_MAX) + (unsigned)stand->route_count;

    for (size_t i = 0; i < stand->route_count && !own; i++) {
        if (stand->routes[i].family == cell->at[FAMILY] && stand->routes[i].size == size) {
            return &stand->routes[i];
        }
    }
    cr_assert(stand->route_count < ROUTES_MAX);
    route_init(&stand->routes[stand->route_count], cell->at[FAMILY], size, stand->proxy.ip, index);
    return &stand->routes[stand->route_count++];
}

static void init_run(struct batch *batch, size_t index)
{
    struct run *run = &batch->runs[index];
    enum route_size size = ROUTE_PLAIN;

    if (run->cell.at[RESIDUE] != RESIDUE_EMPTY) {
        size = run->cell.at[ENGINE] == ENGINE_SWITCH && run->cell.at[RESIDUE] == RESIDUE_PIPE
                   ? ROUTE_FLOOD
                   : ROUTE_TIGHT;
    }

    run->expected = expect_cell(&run->cell);
    /* Late ones have a route each: which connection belongs to which client can't be told yet when
     * the server must act. */
    run->route = add_route(batch, &run->cell, size, is_late(run));
    for (int side = 0; side < SIDES; side++) {
        run->fd[side] = -1;
        run->lane[side].key = 1 + 2 * index + (size_t)side;
        run->lane[side].wrong_at = NO_OFFSET;
    }
}

static void start_stand(struct stand *stand, const struct batch *batch, int engine)
{
    enum plan plan = batch->plan;
    char idle_limit[32];
    const char *options[] = {
        "--splice",          splice_values[engine],
        "--pipe-size",       "64k",
        "--fin-timeout",     plan == PLAN_FIN_LIMIT || plan == PLAN_LATE_FIN ? "1s" : "1m",
        "--idle-timeout",    idle_limit,
        "--connect-timeout", plan == PLAN_CONNECT_LIMIT ? "3s" : "30s",
    };
    enum { OPTIONS = sizeof(options) / sizeof(options[0]) };
    const char *arguments[ROUTES_MAX + OPTIONS + 1] = {NULL};
    size_t count = 0;

    (void)snprintf(idle_limit, sizeof(idle_limit), "%llums",
                   (unsigned long long)batch->idle_limit_ms);
    for (size_t i = 0; i < OPTIONS; i++) {
        arguments[count++] = options[i];
    }
    for (size_t i = 0; i < stand->route_count; i++) {
        arguments[count++] = stand->routes[i].argument;
    }
    proxy_start(&stand->proxy, arguments);
    stand->worker = only_worker(&stand->proxy);
}

static void start_all(struct batch *batch)
{
    for (int engine = 0; engine < ENGINES; engine++) {
        proxy_init(&batch->stands[engine].proxy);
    }
    for (size_t i = 0; i < batch->count; i++) {
        init_run(batch, i);
    }
    for (int engine = 0; engine < ENGINES; engine++) {
        if (batch->stands[engine].route_count > 0) {
            start_stand(&batch->stands[engine], batch, engine);
        }
    }
}

static uint16_t own_port(int fd)
{
    struct sockaddr_in6 own = {0};
    socklen_t len = sizeof(own);

    cr_assert(getsockname(fd, (struct sockaddr *)&own, &len) == 0);
    return own.sin6_family == AF_UNIX ? 0 : ntohs(own.sin6_port);
}

static void open_all(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        if (is_late(run)) {
            route_block(run->route);
        }
        run->ordinal = run->route->opened;
        run->fd[CLIENT] = route_connect(run->route);
        run->client_port = own_port(run->fd[CLIENT]);
        if (!is_late(run)) {
            run->fd[SERVER] = route_accept(run->route);
        }
        batch->stands[run->cell.at[ENGINE]].connections++;
    }
}

/* --- before the end --- */

static bool is_all_read(struct run *run)
{
    for (int from = 0; from < SIDES; from++) {
        if (run->lane[from].read < run->lane[from].goal) {
            return false;
        }
    }
    return true;
}

/* What is sent is read, or is in the kernel of the receiver that does not. */
static bool has_arrived(struct run *run)
{
    for (int from = 0; from < SIDES; from++) {
        struct lane *lane = &run->lane[from];
        int receiver = run->fd[other_side((enum side)from)];

        if (receiver >= 0 && lane->read + place_unread(receiver) < lane->goal) {
            return false;
        }
    }
    return true;
}

static bool has_left(struct run *run)
{
    for (int from = 0; from < SIDES; from++) {
        const struct lane *lane = &run->lane[from];

        if (run->fd[from] >= 0 && !cell_is_held(&run->cell, (enum side)from) &&
            (lane->sent < lane->goal || !is_acknowledged(run, (enum side)from))) {
            return false;
        }
    }
    return true;
}

static void warm_up(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        for (int from = 0; from < SIDES; from++) {
            struct lane *lane = &run->lane[from];
            bool busy = cell_moves(&run->cell, (enum side)from) ||
                        (run->cell.at[MOMENT] == MOMENT_IDLE && run_closer(run) == (enum side)from);

            busy = busy && run->cell.at[RESIDUE] != RESIDUE_PIPE; /* the flood does it */

            lane->goal = WARM_BYTES;
            lane->goal += busy && run->cell.at[ENGINE] == ENGINE_SWITCH ? BURST_BYTES : 0;
            lane->may_read = NO_LIMIT;
        }
    }
    pump_until(batch, is_all_read, "the first bytes");
}

static void prepare(struct run *run)
{
    struct lane *own = run_own(run);
    struct lane *back = run_back(run);
    bool leaves_unread =
        run->cell.at[KIND] == KIND_KILL_UNREAD || cell_is_held(&run->cell, run_other(run));

    own->may_read = run->cell.at[SINK] == SINK_READING ? NO_LIMIT : own->read;
    back->may_read = leaves_unread ? back->read : NO_LIMIT;
    for (int from = 0; from < SIDES; from++) {
        if (cell_moves(&run->cell, (enum side)from) && run->cell.at[RESIDUE] == RESIDUE_EMPTY) {
            run->lane[from].goal += BEFORE_BYTES;
        }
    }
    if (run->cell.at[KIND] == KIND_KILL_UNREAD && !cell_moves(&run->cell, run_other(run))) {
        back->goal += UNREAD_BYTES;
    }
}

static void set_up_moving(struct batch *batch)
{
    warm_up(batch);
    for (size_t i = 0; i < batch->count; i++) {
        prepare(&batch->runs[i]);
    }
    pump_until(batch, has_arrived, "what comes before the end");
    fill(batch);
}

/* A worker that sleeps has accepted everybody and begun to connect, so freeze() is all there is to wait
 * for. */
static void set_up_late(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        if (run_closer(run) == CLIENT) {
            run->lane[CLIENT].goal = EARLY_BYTES;
        }
    }
    pump_until(batch, has_left, "the first bytes of a client");
}

/* --- frozen --- */

static void for_workers(struct batch *batch, void (*act)(pid_t pid))
{
    for (int engine = 0; engine < ENGINES; engine++) {
        if (batch->stands[engine].connections > 0) {
            act(batch->stands[engine].worker);
        }
    }
}

/* The handshake is done by the kernel, behind the back of a worker that is stopped. */
static void accept_unseen(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        if (is_late(run) && run_closer(run) == SERVER) {
            route_unblock(run->route);
        }
    }
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        if (is_late(run) && run_closer(run) == SERVER) {
            run->fd[SERVER] = route_accept(run->route);
            run->lane[SERVER].goal = EARLY_BYTES;
        }
    }
}

static void send_frozen(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        for (int from = 0; from < SIDES; from++) {
            if (cell_moves(&run->cell, (enum side)from) && run->cell.at[RESIDUE] == RESIDUE_EMPTY) {
                run->lane[from].goal += FROZEN_BYTES;
            }
        }
    }
    pump_until(batch, has_left, "the bytes for a frozen worker");
}

static void check_fact(struct run *run, enum side from)
{
    const struct lane *lane = &run->lane[from];
    int64_t held = held_bytes(lane);

    if (!cell_is_held(&run->cell, from)) {
        if (held != 0) {
            complain(&run->cell, "sluice holds %lld bytes when it should hold none",
                     (long long)held);
        }
        if (cell_moves(&run->cell, from) && lane->place.untaken != FROZEN_BYTES) {
            complain(&run->cell, "%llu bytes are on their way, not %d",
                     (unsigned long long)lane->place.untaken, FROZEN_BYTES);
        }
        return;
    }
    if (held <= 0 || (run->cell.at[RESIDUE] == RESIDUE_BUFFER && held > BUFFER_BYTES)) {
        complain(&run->cell, "sluice holds %lld bytes", (long long)held);
    }
}

/* All that is held is in pipes, or none of it, as the cells say: so it is true of each. */
static void check_pipes(struct batch *batch, int engine)
{
    struct pipes pipes = place_pipes(batch->stands[engine].worker);
    uint64_t bytes = 0;
    size_t count = 0;

    for (size_t i = 0; i < batch->count; i++) {
        const struct run *run = &batch->runs[i];

        for (int from = 0; from < SIDES; from++) {
            if (run->cell.at[ENGINE] == engine && run->cell.at[RESIDUE] == RESIDUE_PIPE &&
                cell_is_held(&run->cell, (enum side)from)) {
                bytes += (uint64_t)held_bytes(&run->lane[from]);
                count++;
            }
        }
    }
    cr_assert(pipes.count == count && pipes.bytes == bytes,
              "%zu pipes hold %llu bytes; it should be %zu with %llu", pipes.count,
              (unsigned long long)pipes.bytes, count, (unsigned long long)bytes);
}

static void take_facts(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct run *run = &batch->runs[i];

        for (int from = 0; from < SIDES; from++) {
            struct lane *lane = &run->lane[from];

            if (!is_late(run)) {
                look(run, (enum side)from);
                check_fact(run, (enum side)from);
            }
            lane->fact = lane->place;
            lane->fact_read = lane->read;
            lane->fact_sent = lane->sent;
        }
    }
    for (int engine = 0; engine < ENGINES; engine++) {
        if (batch->stands[engine].connections > 0) {
            check_pipes(batch, engine);
        }
    }
    expect_no_complaint();
}

static void set_up(struct batch *batch)
{
    start_all(batch);
    open_all(batch);
    if (batch->plan >= PLAN_LATE) {
        set_up_late(batch);
    } else {
        set_up_moving(batch);
    }
    for_workers(batch, freeze);
    accept_unseen(batch);
    send_frozen(batch);
    take_facts(batch);
}

/* Sets everything up, takes it down again, and returns how long that took. */
static uint64_t rehearse(struct batch *batch)
{
    uint64_t start_ms = monotonic_ms();

    set_up(batch);
    for_workers(batch, thaw);
    abandon_all(batch);
    memset(batch->stands, 0, sizeof(batch->stands));
    for (size_t i = 0; i < batch->count; i++) {
        batch->runs[i] = (struct run){.cell = batch->runs[i].cell};
    }
    return monotonic_ms() - start_ms;
}

void batch_run(struct batch *batch)
{
    raise_descriptor_limit();
    batch->idle_limit_ms = IDLE_LONG_MS;
    if (batch->plan == PLAN_IDLE_LIMIT) {
        /* What is set up must not be taken for idle meanwhile, however busy this machine is. */
        batch->idle_limit_ms = min_u64(IDLE_MIN_MS + 2 * rehearse(batch), IDLE_MAX_MS);
    }
    set_up(batch);
    end_all(batch);
    for_workers(batch, thaw);
    follow_to_the_end(batch);
    for (size_t i = 0; i < batch->count; i++) {
        judge(&batch->runs[i], &batch->stands[batch->runs[i].cell.at[ENGINE]]);
    }
    expect_no_complaint();
    close_all(batch);
}
