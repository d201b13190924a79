/* The master: privileged, tiny, without network input.
 *
 *      master ---- fork ----> monitor             log pipe -> stderr
 *         \------- fork ----> worker 0 .. N-1     control pipe each, one log pipe for all
 *
 * It keeps its own copy of every listening socket, so a connection that waits in a dead worker's
 * queue is served by that worker's successor. It also keeps both ends of the log pipe, so that no
 * line is lost while a monitor is replaced.
 *
 * The whole program is one loop around sigtimedwait(2): signals are blocked and fetched, so there
 * are no handlers, no races, and nothing to make async-signal-safe.
 *
 *   TERM, INT   drain, cut after drain-timeout; during such a drain: stop at once
 *   QUIT        drain without a deadline; during any drain: stop at once
 *   CHLD        reap; replace a worker or monitor that is not meant to be gone
 *   HUP, USR1   ignored
 *
 * When a child is started again, child.c decides. Read next: worker.c. */
#include "proc/master.h"

#include "base/check.h"
#include "base/clock.h"
#include "net/sys.h"
#include "ops/log.h"
#include "proc/announce.h"
#include "proc/child.h"
#include "proc/exits.h"
#include "proc/limits.h"
#include "proc/monitor.h"
#include "proc/translate.h"
#include "proc/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* After drain-timeout and the second that sessions have to deliver: a worker still there is
 * stuck. */
#define DRAIN_GRACE_NS (5 * NS_PER_S)
#define STOP_GRACE_NS  (2 * NS_PER_S)
#define RETELL_NS      (10 * NS_PER_MS)

enum { LOG_PIPE_BYTES = 1 << 20 };

/** How far the master is in stopping; only ever grows. */
enum stopping { SERVING, DRAINING, DRAINING_DEADLINE, STOPPING };

struct master {
    struct plan *plan; /* borrowed */
    struct limits limits;
    struct identity identity;
    bool has_identity;
    struct addr source;
    bool has_source;
    struct worker_start start; /* what all workers are told; index and pipes are set for each */
    struct child *workers;     /* owned: limits.workers of them */
    struct child monitor;
    struct metrics *metrics; /* one shard per worker, and the master's own */
    struct log log;
    int log_pipe[2];
    sigset_t signals;
    sigset_t signals_before;
    enum stopping stopping;
    uint64_t retell_ns; /* when to tell again what a control pipe did not take */
    uint64_t kill_ns;   /* when workers that are still there are killed; TIMER_NEVER: not yet */
};

/* --- children --- */

static void ignore_signals(void)
{
    static const int ignored[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGPIPE};

    for (size_t i = 0; i < ARRAY_LEN(ignored); i++) {
        (void)signal(ignored[i], SIG_IGN);
    }
}

/* In the child: drops what belongs to the master or to other workers. A control pipe whose writing
 * end lived on in a sibling would not end when the master does. */
static void become_child(struct master *master, size_t keep)
{
    ignore_signals();
    (void)sigprocmask(SIG_SETMASK, &master->signals_before, NULL);
    for (size_t i = 0; i < master->limits.workers; i++) {
        if (master->workers[i].control_fd >= 0) {
            sys_close(master->workers[i].control_fd);
        }
    }
    plan_close(master->plan, keep);
}

static void worker_not_started(struct master *master, size_t index, int error)
{
    child_not_started(&master->workers[index], clock_monotonic_ns());
    log_event_begin(&master->log, "worker-not-started");
    line_u64(&master->log.line, "worker", index);
    line_string(&master->log.line, "error", strerror(error));
    log_event_end(&master->log);
}

static void start_worker(struct master *master, size_t index)
{
    struct child *worker = &master->workers[index];
    int control[2];
    int result = sys_pipe(control);
    pid_t pid;

    if (result < 0) {
        worker_not_started(master, index, -result);
        return;
    }
    master->start.start_number++;
    pid = fork();
    if (pid == 0) {
        struct worker_start start = master->start;

        sys_close(control[1]);
        sys_close(master->log_pipe[0]);
        become_child(master, index);
        start.index = index;
        start.control_fd = control[0];
        start.settings.sessions_max = limits_share(&master->limits, index);
        start.metrics = &master->metrics[index];
        exit(worker_run(&start));
    }
    result = pid < 0 ? errno : 0; /* close(2) may change errno */
    sys_close(control[0]);
    if (pid < 0) {
        sys_close(control[1]);
        worker_not_started(master, index, result);
        return;
    }
    child_started(worker, pid, control[1], clock_monotonic_ns());
}

static int start_monitor(struct master *master)
{
    pid_t pid = fork();

    if (pid == 0) {
        sys_close(master->log_pipe[1]);
        become_child(master, SIZE_MAX);
        exit(monitor_run(master->log_pipe[0], master->has_identity ? &master->identity : NULL));
    }
    if (pid < 0) {
        int error = errno;

        child_not_started(&master->monitor, clock_monotonic_ns());
        return -error;
    }
    child_started(&master->monitor, pid, -1, clock_monotonic_ns());
    return 0;
}

static void describe_death(struct log *log, int status)
{
    if (WIFSIGNALED(status)) {
        line_string(&log->line, "signal", sigabbrev_np(WTERMSIG(status)));
    } else {
        line_u64(&log->line, "exit_status", (uint64_t)WEXITSTATUS(status));
    }
}

static uint64_t active_connections(const struct metrics *shard)
{
    return metric_get(&shard->accepted) - metrics_closed(shard);
}

static void worker_died(struct master *master, size_t index, int status)
{
    struct child *worker = &master->workers[index];
    struct metrics *shard = &master->metrics[index];
    uint64_t lost = active_connections(shard);
    pid_t pid = worker->pid;

    child_died(worker, clock_monotonic_ns());
    /* The shard has no writer now: book what died with the worker, so that the counters balance. */
    metric_add(&shard->closed[REASON_INTERNAL], lost);
    if (master->stopping != SERVING && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_STATUS_OK) {
        return;
    }
    log_event_begin(&master->log, "worker-died");
    line_u64(&master->log.line, "worker", index);
    line_u64(&master->log.line, "pid", (uint64_t)pid);
    describe_death(&master->log, status);
    line_u64(&master->log.line, "connections_lost", lost);
    if (master->stopping == SERVING) {
        line_seconds(&master->log.line, "restart_in_s",
                     worker->due_ns - min_u64(worker->due_ns, clock_monotonic_ns()));
        line_u64(&master->log.line, "quick_deaths", worker->quick_deaths);
    }
    log_event_end(&master->log);
}

static void reap(struct master *master)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == master->monitor.pid) {
            child_died(&master->monitor, clock_monotonic_ns());
        }
        for (size_t i = 0; i < master->limits.workers; i++) {
            if (pid == master->workers[i].pid) {
                worker_died(master, i, status);
            }
        }
    }
}

static size_t workers_alive(const struct master *master)
{
    size_t count = 0;

    for (size_t i = 0; i < master->limits.workers; i++) {
        count += master->workers[i].pid != 0;
    }
    return count;
}

static void start_due(struct master *master, uint64_t now_ns)
{
    if (master->monitor.pid == 0 && master->monitor.due_ns <= now_ns) {
        (void)start_monitor(master); /* if not now, then when it is due again */
    }
    for (size_t i = 0; i < master->limits.workers && master->stopping == SERVING; i++) {
        if (master->workers[i].pid == 0 && master->workers[i].due_ns <= now_ns) {
            start_worker(master, i);
        }
    }
}

static void kill_workers(struct master *master)
{
    for (size_t i = 0; i < master->limits.workers; i++) {
        if (master->workers[i].pid != 0) {
            (void)kill(master->workers[i].pid, SIGKILL);
        }
    }
    master->kill_ns = TIMER_NEVER;
}

/* --- stopping --- */

static void tell_worker(struct child *worker, unsigned char command)
{
    ssize_t written = write(worker->control_fd, &command, 1);

    /* EPIPE: it is gone already, and reap() will find that out. For want of memory it is told
     * again: one that never hears of the end would serve for ever. */
    worker->untold = written < 0 && errno != EPIPE ? command : 0;
}

static void tell_workers(struct master *master, enum control command)
{
    for (size_t i = 0; i < master->limits.workers; i++) {
        if (master->workers[i].control_fd >= 0) {
            tell_worker(&master->workers[i], (unsigned char)command);
        }
    }
}

/* Tells those who could not be told; true if there still are some. */
static bool tell_untold(struct master *master)
{
    bool some = false;

    for (size_t i = 0; i < master->limits.workers; i++) {
        struct child *worker = &master->workers[i];

        if (worker->control_fd >= 0 && worker->untold != 0) {
            tell_worker(worker, worker->untold);
            some = some || worker->untold != 0;
        }
    }
    return some;
}

static void log_stopping(struct master *master, const char *event)
{
    log_event_begin(&master->log, event);
    line_u64(&master->log.line, "workers", workers_alive(master));
    log_event_end(&master->log);
}

static void stop(struct master *master, enum stopping level)
{
    uint64_t now_ns = clock_monotonic_ns();

    if (master->stopping == STOPPING) {
        return; /* it can't be more urgent, and kill_ns must not move */
    }
    if (master->stopping == SERVING) {
        /* Nobody new from here on; what waits in the queues is the workers' to accept. */
        plan_unlink(master->plan);
        plan_close(master->plan, SIZE_MAX);
    }
    master->stopping = level;
    switch (level) {
    case DRAINING:
        log_stopping(master, "drain");
        tell_workers(master, CONTROL_DRAIN);
        return;
    case DRAINING_DEADLINE:
        log_stopping(master, "drain");
        tell_workers(master, CONTROL_DRAIN_DEADLINE);
        master->kill_ns = now_ns + master->start.drain_timeout_ns + DRAIN_GRACE_NS;
        return;
    case STOPPING:
        log_stopping(master, "stop");
        tell_workers(master, CONTROL_STOP);
        master->kill_ns = now_ns + STOP_GRACE_NS;
        return;
    case SERVING:
        CHECK(!"stopping goes one way");
    }
}

static void on_signal(struct master *master, int number)
{
    if (number == SIGCHLD) {
        reap(master);
    } else if (number == SIGQUIT) {
        stop(master, master->stopping == SERVING ? DRAINING : STOPPING);
    } else {
        stop(master, master->stopping < DRAINING_DEADLINE ? DRAINING_DEADLINE : STOPPING);
    }
}

/* --- the loop --- */

static uint64_t next_due_ns(const struct master *master)
{
    uint64_t due_ns = min_u64(master->kill_ns, master->retell_ns);

    if (master->monitor.pid == 0) {
        due_ns = min_u64(due_ns, master->monitor.due_ns);
    }
    for (size_t i = 0; i < master->limits.workers && master->stopping == SERVING; i++) {
        if (master->workers[i].pid == 0) {
            due_ns = min_u64(due_ns, master->workers[i].due_ns);
        }
    }
    return due_ns;
}

/* Waits for a signal or the next due time; the signal's number, or 0. */
static int wait_for_signal(const struct master *master)
{
    uint64_t due_ns = next_due_ns(master);
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t wait_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    struct timespec timeout = {.tv_sec = (time_t)(wait_ns / NS_PER_S),
                               .tv_nsec = (long)(wait_ns % NS_PER_S)};
    int number = due_ns == TIMER_NEVER ? sigwaitinfo(&master->signals, NULL)
                                       : sigtimedwait(&master->signals, NULL, &timeout);

    return number > 0 ? number : 0;
}

static void serve(struct master *master)
{
    while (master->stopping == SERVING || workers_alive(master) > 0) {
        int number = wait_for_signal(master);
        uint64_t now_ns;

        if (number != 0) {
            on_signal(master, number);
        }
        now_ns = clock_monotonic_ns();
        if (master->kill_ns <= now_ns) {
            kill_workers(master);
        }
        start_due(master, now_ns);
        master->retell_ns = tell_untold(master) ? now_ns + RETELL_NS : TIMER_NEVER;
        log_flush(&master->log);
    }
}

/* --- start and end --- */

/* What all workers are told; index, pipes and shares are added for each. */
static void prepare_start(struct master *master, const struct settings *settings)
{
    master->start = (struct worker_start){
        .plan = master->plan,
        .log_fd = master->log_pipe[1],
        .log_format = settings->log == CONFIG_LOG_JSON ? LINE_JSON : LINE_TEXT,
        .log_records = settings->log != CONFIG_LOG_NONE,
        .drain_timeout_ns = settings->drain_timeout_ns,
        .busy_poll_ns = settings->busy_poll_ns,
        .identity = master->has_identity ? &master->identity : NULL,
        .settings = translate_relay(settings, master->has_source ? &master->source : NULL,
                                    master->limits.pipes_max),
    };
}

static int open_log_pipe(struct master *master)
{
    int result = sys_pipe(master->log_pipe);
    int ignored;

    if (result < 0) {
        return result;
    }
    /* Larger is only better: more lines fit while stderr is slow. The quota may forbid it. */
    ignored = sys_pipe_resize(master->log_pipe[1], LOG_PIPE_BYTES);
    (void)ignored;
    /* The monitor blocks in read(2); the two ends of a pipe have flags of their own. */
    return fcntl(master->log_pipe[0], F_SETFL, 0) < 0 ? -errno : 0;
}

static int fail(const char *what, int error)
{
    (void)fprintf(stderr, "sluice: %s: %s\n", what, strerror(error));
    return EXIT_STATUS_FAILURE;
}

/* An address that is not ours would be found out by every single connection. */
static int check_source(const struct master *master)
{
    char text[ADDR_TEXT_BYTES];
    int fd;

    if (!master->has_source) {
        return EXIT_STATUS_OK;
    }
    fd = sock_new(master->source.u.any.sa_family, &master->source);
    if (fd >= 0) {
        sys_close(fd);
        return EXIT_STATUS_OK;
    }
    addr_format(&master->source, text);
    (void)fprintf(stderr, "sluice: --source: can't connect from %s: %s\n", text, strerror(-fd));
    return EXIT_STATUS_FAILURE;
}

/* Limits, user, and listening sockets: what can be refused, with a message on stderr. */
static int prepare(struct master *master, const struct config *config)
{
    const struct settings *settings = &config->settings;
    struct sock_tuning tuning = translate_tuning(settings);
    const char *impossible =
        limits_compute(limits_raise_descriptors(), settings->workers, settings->max_connections,
                       master->plan->listeners_len, &master->limits);
    int status;

    if (impossible != NULL) {
        (void)fprintf(stderr, "sluice: %s\n", impossible);
        return EXIT_STATUS_CONFIG;
    }
    status = translate_user(settings, &master->identity, stderr);
    if (status != EXIT_STATUS_OK) {
        return status;
    }
    master->has_identity = settings->user[0] != '\0';
    if (master->has_identity && !identity_is_possible(&master->identity)) {
        (void)fprintf(stderr, "sluice: --user: only root can run as \"%s\"\n", settings->user);
        return EXIT_STATUS_FAILURE;
    }
    master->has_source = translate_source(settings, &master->source);
    status = check_source(master);
    if (status != EXIT_STATUS_OK) {
        return status;
    }
    return plan_listen(master->plan, &tuning, master->limits.workers, stderr);
}

static int start_all(struct master *master, const struct config *config)
{
    int result = open_log_pipe(master);

    if (result < 0) {
        return fail("can't make the log pipe", -result);
    }
    master->workers = calloc(master->limits.workers, sizeof(*master->workers));
    if (master->workers == NULL) {
        return fail("can't get memory", ENOMEM);
    }
    master->metrics = metrics_map(master->limits.workers + 1);
    if (master->metrics == NULL) {
        return fail("can't map the counters", errno);
    }
    for (size_t i = 0; i < master->limits.workers; i++) {
        child_init(&master->workers[i]);
    }
    child_init(&master->monitor);
    prepare_start(master, &config->settings);
    log_init(&master->log, master->log_pipe[1], master->start.log_format, true,
             &master->metrics[master->limits.workers]);
    result = start_monitor(master);
    if (result < 0) {
        return fail("can't start the log process", -result); /* without it all else is silent */
    }
    for (size_t i = 0; i < master->limits.workers; i++) {
        start_worker(master, i);
    }
    announce_start(&master->log, config, &master->limits);
    return EXIT_STATUS_OK;
}

/* Lets the monitor write what is left, but not for ever: stderr may be stuck. */
static void finish_log(struct master *master)
{
    const struct timespec patience = {.tv_sec = 1};
    int status;

    announce_end(&master->log, master->metrics, master->limits.workers + 1);
    if (master->monitor.pid == 0) {
        (void)start_monitor(master); /* it has died, and was to be back a little later */
    }
    sys_close(master->log_pipe[0]);
    sys_close(master->log_pipe[1]);
    if (master->monitor.pid == 0) {
        return;
    }
    while (waitpid(master->monitor.pid, &status, WNOHANG) == 0) {
        if (sigtimedwait(&master->signals, NULL, &patience) < 0 && errno == EAGAIN) {
            (void)kill(master->monitor.pid, SIGKILL);
            (void)waitpid(master->monitor.pid, &status, 0);
            return;
        }
    }
}

static void block_signals(struct master *master)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGQUIT, SIGCHLD};

    (void)sigemptyset(&master->signals);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        (void)sigaddset(&master->signals, numbers[i]);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    /* Inherited as ignored it would never be queued, and no death be noticed. */
    (void)signal(SIGCHLD, SIG_DFL);
    (void)signal(SIGHUP, SIG_IGN);
    (void)signal(SIGUSR1, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &master->signals, &master->signals_before);
}

int master_run(const struct config *config, struct plan *plan)
{
    static struct master master;
    int status;

    memset(&master, 0, sizeof(master));
    master.plan = plan;
    master.kill_ns = TIMER_NEVER;
    master.retell_ns = TIMER_NEVER;
    block_signals(&master);
    status = prepare(&master, config);
    if (status == EXIT_STATUS_OK) {
        status = start_all(&master, config);
    }
    if (status != EXIT_STATUS_OK) {
        plan_unlink(plan);
        return status;
    }
    serve(&master);
    finish_log(&master);
    free(master.workers);
    return EXIT_STATUS_OK;
}
