/* A worker: the data plane in one single-threaded process.
 *
 * It takes no signals (the master's are ignored, so that a signal to the whole process group does
 * not count twice): the master speaks through the control pipe, and the end of that pipe is the
 * end of the master, after which no worker stays behind.
 *
 *   running --- 'd' or 'D' ---> draining --- no session left ---> exit 0
 *      |                           | 'D': drain-timeout has passed: sessions end with reason drain,
 *      |                           |      what was received delivered first, for at most a second
 *      +------- 's', or end of pipe +---> all sessions reset, exit 0
 *
 * The order inside a turn: the loop (events, tasks, timers), then the log is flushed, then the next
 * wait. Nothing here runs on the byte path. */
#include "proc/worker.h"

#include "base/check.h"
#include "base/clock.h"
#include "net/sys.h"
#include "ops/log.h"
#include "pool/pool.h"
#include "proc/exits.h"
#include "relay/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

enum {
    PAUSE_LOG_INTERVAL_S = 10, /* one line about a shortage tells as much as a thousand */
    WORKER_ID_SHIFT = 40       /* ids: a worker's start number, and 2^40 connections of it */
};

struct worker {
    const struct worker_start *start;
    struct loop loop;
    struct relay relay;
    struct log log;
    struct pool *pools;         /* owned */
    struct listener *listeners; /* owned */
    size_t listeners_started;
    struct task control_task;
    struct io control;
    struct timer drain_timer;
    bool draining;
    uint64_t next_pause_log_ns;
};

static void on_ended(void *owner, const struct record *record)
{
    struct worker *worker = owner;

    log_record(&worker->log, record);
}

static void on_paused(void *owner, const char *listener, int error)
{
    struct worker *worker = owner;

    if (worker->loop.now_ns < worker->next_pause_log_ns) {
        return;
    }
    worker->next_pause_log_ns = worker->loop.now_ns + PAUSE_LOG_INTERVAL_S * NS_PER_S;
    log_event_begin(&worker->log, "accept-paused");
    line_u64(&worker->log.line, "worker", worker->start->index);
    line_string(&worker->log.line, "listener", listener);
    line_string(&worker->log.line, "cause", error == 0 ? "max-connections" : strerror(error));
    line_u64(&worker->log.line, "connections", worker->relay.live_count);
    log_event_end(&worker->log);
}

static void stop_now(struct worker *worker)
{
    for (size_t i = 0; i < worker->listeners_started; i++) {
        listener_close(&worker->listeners[i]);
    }
    worker->draining = true;
    timer_cancel(&worker->loop.timers, &worker->drain_timer);
    relay_end_all(&worker->relay, REASON_DRAIN, false);
}

static void drain(struct worker *worker, bool deadline)
{
    if (!worker->draining) {
        worker->draining = true;
        for (size_t i = 0; i < worker->listeners_started; i++) {
            listener_drain(&worker->listeners[i]);
        }
    }
    if (deadline) {
        timer_set(&worker->loop.timers, &worker->drain_timer,
                  worker->loop.now_ns + worker->start->drain_timeout_ns);
    }
}

static void on_drain_deadline(struct timer *timer, uint64_t now_ns)
{
    struct worker *worker = CONTAINER_OF(timer, struct worker, drain_timer);

    (void)now_ns;
    relay_end_all(&worker->relay, REASON_DRAIN, true);
}

static void obey(struct worker *worker, unsigned char command)
{
    switch (command) {
    case CONTROL_DRAIN:
        drain(worker, false);
        return;
    case CONTROL_DRAIN_DEADLINE:
        drain(worker, true);
        return;
    case CONTROL_STOP:
        stop_now(worker);
        return;
    default:
        CHECK(!"an unknown control byte");
    }
}

static void control_run(struct task *task)
{
    struct worker *worker = CONTAINER_OF(task, struct worker, control_task);
    unsigned char commands[16];
    ssize_t len = sys_read(worker->control.fd, commands, sizeof(commands));

    if (len == -EAGAIN) {
        worker->control.ready = 0;
        return;
    }
    if (len <= 0) {
        stop_now(worker); /* the master is gone */
        return;
    }
    for (ssize_t i = 0; i < len; i++) {
        obey(worker, commands[i]);
    }
    loop_queue(&worker->loop, task);
}

static int start_listener(struct worker *worker, size_t i)
{
    const struct plan_listener *from = &worker->start->plan->listeners[i];
    const struct plan_pool *pool = &worker->start->plan->pools[from->pool];
    struct listener *listener = &worker->listeners[i];
    int result;

    listener->name = from->name;
    listener->pool_name = pool->name;
    listener->pick = pool_pick_round_robin;
    listener->pool = &worker->pools[from->pool];
    listener->family = pool->targets[0].addr.u.any.sa_family;
    result = listener_start(listener, &worker->relay, plan_listener_fd(from, worker->start->index));
    if (result == 0) {
        worker->listeners_started = i + 1;
    }
    return result;
}

static int start_listeners(struct worker *worker)
{
    const struct plan *plan = worker->start->plan;

    worker->pools = calloc(plan->pools_len, sizeof(*worker->pools));
    worker->listeners = calloc(plan->listeners_len, sizeof(*worker->listeners));
    if (worker->pools == NULL || worker->listeners == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < plan->pools_len; i++) {
        pool_init(&worker->pools[i], plan->pools[i].targets, plan->pools[i].targets_len,
                  (uint32_t)worker->start->index);
    }
    for (size_t i = 0; i < plan->listeners_len; i++) {
        int result = start_listener(worker, i);

        if (result < 0) {
            return result;
        }
    }
    return 0;
}

static int start(struct worker *worker)
{
    const struct worker_start *from = worker->start;
    int result = 0;

    if (from->identity != NULL) {
        result = identity_become(from->identity);
    }
    if (result == 0) {
        result = loop_init(&worker->loop);
        worker->loop.busy_poll_ns = from->busy_poll_ns;
    }
    if (result == 0) {
        result = relay_init(&worker->relay, &worker->loop, &from->settings,
                            ((uint64_t)from->start_number << WORKER_ID_SHIFT) + 1, from->metrics);
    }
    if (result < 0) {
        return result;
    }
    worker->relay.on_ended = on_ended;
    worker->relay.on_paused = on_paused;
    worker->relay.owner = worker;
    task_init(&worker->control_task, control_run);
    timer_init(&worker->drain_timer, on_drain_deadline);
    io_init(&worker->control, &worker->control_task);
    result = loop_add(&worker->loop, &worker->control, from->control_fd);
    return result < 0 ? result : start_listeners(worker);
}

static int report_failure(struct worker *worker, const char *event, int error)
{
    log_event_begin(&worker->log, event);
    line_u64(&worker->log.line, "worker", worker->start->index);
    line_string(&worker->log.line, "error", strerror(error));
    log_event_end(&worker->log);
    log_finish(&worker->log);
    return EXIT_STATUS_FAILURE;
}

static void finish(struct worker *worker)
{
    timer_cancel(&worker->loop.timers, &worker->drain_timer);
    relay_fini(&worker->relay);
    loop_fini(&worker->loop);
    free(worker->listeners);
    free(worker->pools);
    log_finish(&worker->log);
}

int worker_run(const struct worker_start *start_data)
{
    static struct worker worker; /* static: too large for a small stack */
    int result;

    memset(&worker, 0, sizeof(worker));
    worker.start = start_data;
    /* Only a name for ps(1). */
    (void)prctl(PR_SET_NAME, "sluice-worker", 0, 0, 0);
    log_init(&worker.log, start_data->log_fd, start_data->log_format, start_data->log_records,
             start_data->metrics);
    result = start(&worker);
    if (result < 0) {
        return report_failure(&worker, "worker-start-failed", -result);
    }
    while (!worker.draining || worker.relay.live_count > 0) {
        result = loop_turn(&worker.loop);
        if (result < 0) {
            return report_failure(&worker, "worker-failed", -result);
        }
        log_flush(&worker.log);
    }
    finish(&worker);
    return EXIT_STATUS_OK;
}
