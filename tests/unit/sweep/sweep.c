/* Every system call, every N.
 *
 * For each scenario and each legal outcome of each call (inventory.c): play the scenario with
 * the first such call given that outcome, then the second, the third ... until it ends without
 * the N-th call being reached. The real loop, listener, sessions and flows run in this process,
 * over real sockets; only the one answer is made up. After each run judge() holds what both
 * peers, the record, the counters and the pools say to the promises, and the outcome to its row:
 * not noticed by anybody, or the end of that session, named.
 *
 * What was reached is counted by call, outcome and state of the session or flow. A row that was
 * never reached in some state is a hole: it stands in inventory.c with a reason, or the test
 * fails; and so does a reason for a hole that is none.
 *
 * One test for some calls each, so that two run at once. To play one run again:
 *
 *     SWEEP='bulk-copy recv ECONNRESET 3' make test-unit        scenario, call, outcome, N
 *
 * An EAGAIN that is not true is legal only when its edge comes again (edge-triggered epoll): it
 * does, through the seam, after none, one or two turns. */
#include "base/macros.h"
#include "support/unit/fault.h"
#include "unit/sweep/inventory.h"
#include "unit/sweep/judge.h"
#include "unit/sweep/scenario.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_MAX = 2000, OUTCOMES_MAX = 256, SPURIOUS_MAX = 32, PLACE_BYTES = 160, LIES_MAX = 16 };

/* Reached, by row and state; only those of the calls that this test sweeps. */
static uint32_t reached[OUTCOMES_MAX][STATES];

/* --- the run that is being played --- */

static struct {
    const struct outcome *outcome;
    uint32_t nth;
    bool hooked;     /* the outcome is one of those that a hook gives, and it ran */
    unsigned states; /* in which the outcome was given */
    uint64_t id;     /* of the session that met it, 0: none */
    /* Lies that are to be made good, one for each descriptor. */
    struct lie {
        bool is_due;
        int turns; /* until the edge */
        int fd;
        uint64_t id; /* 0: the listener's */
        uint32_t events;
    } lies[LIES_MAX];
} run;

static char place[PLACE_BYTES]; /* what is being played, for a message when it fails */

/* --- whose call it is --- */

static struct session *session_with(int fd)
{
    for (struct list_node *node = sweep_world.relay.live.next; node != &sweep_world.relay.live;
         node = node->next) {
        struct session *session = CONTAINER_OF(node, struct session, live);

        if (fd >= 0 && (session->client.fd == fd || session->server.fd == fd)) {
            return session;
        }
    }
    return NULL;
}

static bool has_pipe(const struct flow *flow, int fd)
{
    return flow->pipe != NULL && (flow->pipe->read_fd == fd || flow->pipe->write_fd == fd);
}

/* The session that makes a call on a descriptor that is not (yet) one of its own: the one whose
 * pipe it is, or that asks for a pipe, or that is making a server's socket. A session that waits
 * for a full backlog has a timer set and has doubled its waiting time, so it is told from one
 * that is making a socket now. */
static struct session *session_behind(enum call call, int fd)
{
    for (struct list_node *node = sweep_world.relay.live.next; node != &sweep_world.relay.live;
         node = node->next) {
        struct session *session = CONTAINER_OF(node, struct session, live);
        bool waits = timer_is_set(&session->timer) && session->wait_ms > 10;

        if (call == CALL_PIPE || call == CALL_PIPE_RESIZE || call == CALL_PIPE_SIZE) {
            cr_assert(sweep_world.relay.live_count == 1,
                      "pipes are told apart by their only session");
            return session;
        }
        if (call == CALL_READ && (has_pipe(&session->up, fd) || has_pipe(&session->down, fd))) {
            return session;
        }
        if (call != CALL_READ && call != CALL_ACCEPT && call != CALL_EPOLL_REMOVE &&
            session->phase == SESSION_CONNECTING && session->server.fd < 0 && !waits) {
            return session;
        }
    }
    return NULL;
}

/* The flow that a call on `fd` belongs to; NULL for the calls of a session. */
static const struct flow *flow_of(const struct session *session, enum call call, int fd)
{
    bool on_client = fd == session->client.fd;

    if (call == CALL_RECV || call == CALL_SPLICE_IN) {
        return on_client ? &session->up : &session->down;
    }
    if (call == CALL_SEND || call == CALL_SPLICE_OUT || call == CALL_SHUTDOWN_WRITE) {
        return on_client ? &session->down : &session->up;
    }
    if (call == CALL_READ) {
        return has_pipe(&session->up, fd) ? &session->up : &session->down;
    }
    return NULL;
}

static enum state state_of(const struct session *session, enum call call, int fd)
{
    const struct flow *flow;

    if (session == NULL) {
        return call == CALL_EPOLL_WAIT ? STATE_LOOP : STATE_ACCEPTING;
    }
    switch ((enum session_phase)session->phase) {
    case SESSION_CONNECTING:
        return STATE_CONNECTING;
    case SESSION_RELAYING:
        flow = flow_of(session, call, fd);
        if (flow != NULL && flow->state != FLOW_OPEN) {
            return STATE_DRAINING;
        }
        return flow_is_over(&session->up) || flow_is_over(&session->down) ? STATE_HALF_CLOSED
                                                                          : STATE_RELAYING;
    case SESSION_ENDING:
        return STATE_ENDING;
    case SESSION_CLOSED:
    case SESSION_PHASES:
        break;
    }
    return STATE_CLOSING;
}

/* --- giving the outcome --- */

static void count(enum state state)
{
    run.states |= 1u << state;
    reached[run.outcome - outcomes][state]++;
}

/* EAGAIN was a lie, or a short read of TCP, which says the same: which edge is owed? None by a splice
 * into a pipe that holds bytes, because it may be the pipe that is full; none by a connect, which
 * has a timer. */
static void owe_edge(const struct session *session, enum call call, int fd)
{
    const struct flow *flow = session != NULL ? flow_of(session, call, fd) : NULL;
    bool writes = call == CALL_SEND || call == CALL_SPLICE_OUT;
    struct lie *lie = run.lies;

    if (call == CALL_SPLICE_IN && flow->pipe_bytes > 0) {
        return;
    }
    while (lie->is_due && lie->fd != fd) {
        lie++;
        cr_assert(lie < run.lies + LIES_MAX);
    }
    lie->is_due = true;
    lie->turns = run.outcome->manner == LIES ? (int)(run.nth % 3) : 0;
    lie->fd = fd;
    lie->id = session != NULL ? session->id : 0;
    lie->events = writes ? EPOLLOUT : EPOLLIN;
}

static void on_told(void *context, const struct call_note *note)
{
    const struct session *session = session_with(note->fd);

    (void)context;
    if (session == NULL && note->call != CALL_EPOLL_WAIT) {
        session = session_behind(note->call, note->fd);
    }
    run.id = session != NULL ? session->id : 0;
    count(state_of(session, note->call, note->fd));
    if (run.outcome->manner == LIES ||
        (run.outcome->manner == SHORTENS && note->call == CALL_RECV)) {
        owe_edge(session, note->call, note->fd);
    }
}

/* Whose edge it is, if its descriptor is still the same. */
static struct io *owed_to(const struct lie *lie)
{
    struct session *session = session_with(lie->fd);

    if (lie->id == 0 && sweep_world.listener.io.fd == lie->fd) {
        return &sweep_world.listener.io;
    }
    if (session != NULL && session->id == lie->id) {
        return session->client.fd == lie->fd ? &session->client : &session->server;
    }
    return NULL;
}

/* Makes lies good whose turn has come. */
static void after_turn(void)
{
    struct epoll_event events[LIES_MAX];
    int len = 0;

    for (struct lie *lie = run.lies; lie < run.lies + LIES_MAX; lie++) {
        if (lie->is_due && lie->turns-- == 0) {
            struct io *io = owed_to(lie);

            lie->is_due = false;
            if (io != NULL) {
                events[len++] = (struct epoll_event){.events = lie->events, .data.ptr = io};
            }
        }
    }
    if (len > 0) {
        fault_events(events, len);
    }
}

/* The kernel gives up a connection between two turns: epoll says so, and SO_ERROR why. */
static void tell_broken_connection(void *context)
{
    struct epoll_event event = {.events = EPOLLERR | EPOLLHUP | EPOLLIN | EPOLLOUT};

    (void)context;
    run.hooked = true;
    for (struct list_node *node = sweep_world.relay.live.next; node != &sweep_world.relay.live;
         node = node->next) {
        struct session *session = CONTAINER_OF(node, struct session, live);
        struct io *io = run.outcome->manner == BREAKS_CLIENT ? &session->client : &session->server;

        if (session->phase != SESSION_CONNECTING) {
            run.id = session->id;
            count(state_of(session, CALL_EPOLL_WAIT, io->fd));
            event.data.ptr = io;
            fault_events(&event, 1);
            fault_socket_error(io->fd, 1, (int)run.outcome->value);
            return;
        }
    }
}

/* epoll says that everything is ready that has been registered and connected. */
static void tell_spurious_events(void *context)
{
    struct epoll_event events[SPURIOUS_MAX];
    int len = 0;

    (void)context;
    for (struct list_node *node = sweep_world.relay.live.next; node != &sweep_world.relay.live;
         node = node->next) {
        struct session *session = CONTAINER_OF(node, struct session, live);

        if (session->phase != SESSION_CONNECTING) {
            events[len++] =
                (struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.ptr = &session->client};
            events[len++] =
                (struct epoll_event){.events = EPOLLIN | EPOLLOUT, .data.ptr = &session->server};
        }
    }
    if (sweep_world.listener.io.fd >= 0) {
        events[len++] =
            (struct epoll_event){.events = EPOLLIN, .data.ptr = &sweep_world.listener.io};
    }
    fault_events(events, len);
    run.hooked = true;
    count(STATE_LOOP);
}

static void arm(const struct outcome *outcome, uint32_t nth)
{
    fault_watch(on_told, NULL);
    switch (outcome->manner) {
    case FAILS:
    case LIES:
        fault_fail(outcome->call, ANY_FD, nth, outcome->times, (int)outcome->value);
        return;
    case ANSWERS:
        fault_return(outcome->call, ANY_FD, nth, outcome->times, outcome->value);
        return;
    case SHORTENS:
        fault_shorten(outcome->call, ANY_FD, nth, outcome->times, (size_t)outcome->value);
        return;
    case REPLACES:
        fault_replace(outcome->call, ANY_FD, nth, outcome->times, outcome->value);
        return;
    case PENDING:
        fault_socket_error(ANY_FD, nth, (int)outcome->value);
        return;
    case SPURIOUS:
        fault_hook(outcome->call, ANY_FD, nth, outcome->times, tell_spurious_events, NULL);
        return;
    case BREAKS_CLIENT:
    case BREAKS_SERVER:
        fault_hook(outcome->call, ANY_FD, nth, outcome->times, tell_broken_connection, NULL);
        return;
    }
}

/* --- a run --- */

static enum expectation expectation(const struct outcome *outcome)
{
    if ((run.states & ~outcome->unseen) == 0) {
        return EXPECT_NOTHING_SEEN;
    }
    return (run.states & ~outcome->breaks) == 0 && run.id != 0 ? EXPECT_BROKEN : EXPECT_ANY_END;
}

/* Plays `scenario` with its N-th call hit; false when there was no N-th. */
static bool play(const struct scenario *scenario, const struct outcome *outcome, uint32_t nth)
{
    bool was_reached;

    (void)snprintf(place, sizeof(place), "SWEEP='%s %s %s %u'", scenario->name,
                   call_name(outcome->call), outcome->name, nth);
    memset(&run, 0, sizeof(run));
    run.outcome = outcome;
    run.nth = nth;
    scenario_open(scenario);
    arm(outcome, nth);
    scenario_play(scenario, after_turn);
    was_reached = run.hooked || fault_reached();
    judge(scenario, expectation(outcome), run.id, (int)outcome->value);
    scenario_close();
    return was_reached;
}

static bool is_wanted(const struct scenario *scenario, const struct outcome *outcome,
                      uint32_t *ret_nth)
{
    const char *only = getenv("SWEEP");
    int len;

    *ret_nth = 0;
    if (only == NULL) {
        return true;
    }
    len = snprintf(place, sizeof(place), "%s %s %s", scenario->name, call_name(outcome->call),
                   outcome->name);
    *ret_nth = strncmp(only, place, (size_t)len) == 0 ? (uint32_t)strtoul(only + len, NULL, 10) : 0;
    return strncmp(only, place, strlen(only)) == 0 || *ret_nth > 0;
}

/* EPIPE of a unix socket says that its peer has given up reading, and may go on writing: a peer
 * that has not would wait with sluice for the time-out. The scenario "gives-up-reading" has one
 * that has. */
static bool is_legal(const struct scenario *scenario, const struct outcome *outcome)
{
    bool has_unix = scenario->unix_front || scenario->servers[0] == UNIX_SERVER ||
                    scenario->servers[1] == UNIX_SERVER || scenario->servers[0] == FULL_SERVER;

    for (size_t i = 0; i < SCENARIO_BASES_MAX; i++) {
        if (scenario->bases[i].error != 0 && scenario->bases[i].call == outcome->call) {
            return false; /* that call has its outcome already */
        }
    }
    return !has_unix || outcome->value != EPIPE || outcome->manner != FAILS;
}

/* A slip in SWEEP= must not look like a mistake that is gone. */
static void expect_wanted_ones(void)
{
    size_t wanted = 0;
    uint32_t nth;

    for (size_t i = 0; i < outcomes_len * scenarios_len; i++) {
        const struct scenario *scenario = &scenarios[i % scenarios_len];
        const struct outcome *outcome = &outcomes[i / scenarios_len];

        wanted += is_legal(scenario, outcome) && is_wanted(scenario, outcome, &nth);
    }
    cr_assert(wanted > 0, "SWEEP='%s' names no scenario, call and outcome", getenv("SWEEP"));
}

static void sweep_scenario(const struct scenario *scenario, const struct outcome *outcome)
{
    uint32_t only_nth;

    if (!is_legal(scenario, outcome) || !is_wanted(scenario, outcome, &only_nth)) {
        return;
    }
    if (only_nth > 0) {
        cr_assert(play(scenario, outcome, only_nth), "there is no such call number %u", only_nth);
        return;
    }
    for (uint32_t nth = 1; play(scenario, outcome, nth); nth++) {
        cr_assert(nth < N_MAX, "the scenario never gets by without such a call");
    }
}

/* --- the table --- */

static const struct hole *explained(const struct outcome *outcome, enum state state)
{
    for (size_t i = 0; i < holes_len; i++) {
        if (holes[i].call == outcome->call && (holes[i].states & (1u << state)) != 0 &&
            (holes[i].outcome == NULL || strcmp(holes[i].outcome, outcome->name) == 0)) {
            return &holes[i];
        }
    }
    return NULL;
}

static bool is_reached(size_t row)
{
    uint32_t sum = 0;

    for (unsigned state = 0; state < STATES; state++) {
        sum += reached[row][state];
    }
    return sum > 0;
}

/* One line for a call: the states that it was reached in, then each outcome with its counts in
 * that order. */
static void print_call(enum call call)
{
    unsigned states = 0;

    for (size_t i = 0; i < outcomes_len; i++) {
        for (unsigned state = 0; outcomes[i].call == call && state < STATES; state++) {
            states |= reached[i][state] > 0 ? 1u << state : 0;
        }
    }
    if (states == 0) {
        return;
    }
    printf("%s (", call_name(call));
    for (unsigned state = 0; state < STATES; state++) {
        if ((states & (1u << state)) != 0) {
            printf("%s%s", state_names[state], states >> (state + 1) != 0 ? " " : ")");
        }
    }
    for (size_t i = 0; i < outcomes_len; i++) {
        const char *between = " ";

        if (outcomes[i].call != call || !is_reached(i)) {
            continue;
        }
        printf(" | %s:", outcomes[i].name);
        for (unsigned state = 0; state < STATES; state++) {
            if ((states & (1u << state)) != 0) {
                printf("%s%u", between, reached[i][state]);
            }
        }
    }
    printf("\n");
}

static size_t count_faults_of_table(size_t row)
{
    const struct outcome *outcome = &outcomes[row];
    size_t faults = 0;

    for (unsigned state = 0; state < STATES; state++) {
        const struct hole *hole = explained(outcome, (enum state)state);

        if (reached[row][state] == 0 && hole == NULL) {
            printf("HOLE: %s, %s, %s was never reached\n", call_name(outcome->call), outcome->name,
                   state_names[state]);
            faults++;
        }
        if (reached[row][state] > 0 && hole != NULL) {
            printf("STALE: %s, %s, %s was reached, though: %s\n", call_name(outcome->call),
                   outcome->name, state_names[state], hole->reason);
            faults++;
        }
    }
    return faults;
}

static void on_abort(int signal_number)
{
    static const char text[] = "\nthe run that was being played: ";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);

    ignored = write(STDERR_FILENO, place, strlen(place));
    ignored = write(STDERR_FILENO, "\n", 1);
    (void)ignored;
    (void)signal(signal_number, SIG_DFL);
    (void)raise(signal_number);
}

/* Of each test, failed or not. */
static void say_place(void)
{
    if (place[0] != '\0') {
        printf("the run that was being played: %s\n", place);
    }
}

/* --- the tests --- */

#define BREAKING ((1u << BREAKS_CLIENT) | (1u << BREAKS_SERVER))
#define CALLING  (~BREAKING)

/* What one test sweeps: all rows of some calls that are brought about in some manners. */
struct part {
    enum call calls[8];
    size_t calls_len;
    unsigned manners;
};

static const struct part copying = {
    {CALL_RECV, CALL_SEND, CALL_READ, CALL_SHUTDOWN_WRITE}, 4, CALLING};
static const struct part splicing = {
    {CALL_SPLICE_IN, CALL_SPLICE_OUT, CALL_PIPE, CALL_PIPE_RESIZE, CALL_PIPE_SIZE}, 5, CALLING};
static const struct part connecting = {{CALL_SOCKET, CALL_CONNECT, CALL_BIND, CALL_SET_OPTION,
                                        CALL_EPOLL_ADD, CALL_GET_OPTION, CALL_LOCAL_ADDRESS},
                                       7,
                                       CALLING};
static const struct part accepting = {
    {CALL_ACCEPT, CALL_EPOLL_REMOVE, CALL_TCP_INFO, CALL_UNACKNOWLEDGED}, 4, CALLING};
static const struct part waiting = {{CALL_EPOLL_WAIT}, 1, CALLING};
static const struct part client_breaks = {{CALL_EPOLL_WAIT}, 1, 1u << BREAKS_CLIENT};
static const struct part server_breaks = {{CALL_EPOLL_WAIT}, 1, 1u << BREAKS_SERVER};

static bool is_part(const struct part *part, const struct outcome *outcome)
{
    bool has_call = false;

    for (size_t i = 0; i < part->calls_len; i++) {
        has_call = has_call || part->calls[i] == outcome->call;
    }
    return has_call && (part->manners & (1u << outcome->manner)) != 0;
}

static void sweep(const struct part *part)
{
    size_t faults = 0;

    (void)signal(SIGABRT, on_abort);
    expect_wanted_ones();
    for (size_t i = 0; i < outcomes_len * scenarios_len; i++) {
        if (is_part(part, &outcomes[i / scenarios_len])) {
            sweep_scenario(&scenarios[i % scenarios_len], &outcomes[i / scenarios_len]);
        }
    }
    place[0] = '\0';
    for (size_t i = 0; i < part->calls_len; i++) {
        print_call(part->calls[i]);
    }
    for (size_t row = 0; row < outcomes_len && getenv("SWEEP") == NULL; row++) {
        faults += is_part(part, &outcomes[row]) ? count_faults_of_table(row) : 0;
    }
    (void)fflush(stdout);
    cr_assert(faults == 0, "%zu holes without a reason, or reasons without a hole", faults);
}

Test(sweep, holds_every_promise_whichever_call_of_copying_fails, .fini = say_place)
{
    sweep(&copying);
}

Test(sweep, holds_every_promise_whichever_call_of_splicing_fails, .fini = say_place)
{
    sweep(&splicing);
}

Test(sweep, holds_every_promise_whichever_call_of_connecting_fails, .fini = say_place)
{
    sweep(&connecting);
}

Test(sweep, holds_every_promise_whichever_call_of_accepting_fails, .fini = say_place)
{
    sweep(&accepting);
}

Test(sweep, holds_every_promise_however_epoll_splits_or_repeats_events, .fini = say_place)
{
    sweep(&waiting);
}

Test(sweep, holds_every_promise_whenever_the_client_is_lost, .fini = say_place)
{
    sweep(&client_breaks);
}

Test(sweep, holds_every_promise_whenever_the_server_is_lost, .fini = say_place)
{
    sweep(&server_breaks);
}

/* Every call of net/sys.h has rows, each of which is swept by one test, or is left out with a
 * reason. */
Test(sweep, knows_every_call_of_the_seam)
{
    static const struct part *const parts[] = {&copying, &splicing,      &connecting,   &accepting,
                                               &waiting, &client_breaks, &server_breaks};
    bool is_known[CALLS] = {false};

    cr_assert(outcomes_len <= OUTCOMES_MAX);
    for (size_t row = 0; row < outcomes_len; row++) {
        size_t tests = 0;

        for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
            tests += is_part(parts[i], &outcomes[row]);
        }
        cr_assert(tests == 1, "%s, %s is swept by %zu tests", call_name(outcomes[row].call),
                  outcomes[row].name, tests);
        is_known[outcomes[row].call] = true;
    }
    for (size_t i = 0; i < left_outs_len; i++) {
        cr_assert(!is_known[left_outs[i].call], "%s is not left out", call_name(left_outs[i].call));
        is_known[left_outs[i].call] = true;
    }
    for (unsigned call = 0; call < CALLS; call++) {
        cr_assert(is_known[call], "%s has neither rows nor a reason", call_name((enum call)call));
    }
}
