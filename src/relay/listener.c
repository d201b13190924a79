/* Accepting connections.
 *
 * Two things are easy to get wrong here. (1) The edge. With edge-triggered epoll a listening socket
 * tells once that connections wait; if accept4(2) then fails for want of a descriptor, no event
 * ever comes again, and the queue is stuck although descriptors are free a moment later. So
 * IO_READABLE stays set, and accepting goes on when a session has ended or a timer says so. (2)
 * The second descriptor. A client accepted with the last one can't be served and would have to be
 * dropped; so the server leg's socket and the session's record are got first, and kept for the
 * next client if nobody waits. What can't be served stays in the backlog, where it costs nothing.
 *
 *   run:  reserve (limit? record? socket?) --> accept4 --> session_start      at most ACCEPT_BATCH,
 *              | no                              | EAGAIN: queue is empty       then others' turn
 *              v                                 v
 *            pause: until a session ends, or ACCEPT_RETRY_MS
 */
#include "relay/listener.h"

#include "base/check.h"
#include "net/sys.h"
#include "relay/session.h"

#include <errno.h>

enum {
    ACCEPT_BATCH = 64, /* connections accepted in one turn: bounds the wait of established ones */
    ACCEPT_RETRY_MS = 100 /* after a shortage that ends without telling us */
};

/* Errors that belong to one connection that is gone again (accept(2), "Error handling"): the next
 * one in the queue is not affected. */
static bool is_transient(int error)
{
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPERM: /* refused by a firewall */
    case ENETDOWN:
    case EPROTO:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

static void pause_accepting(struct listener *listener, int error)
{
    struct relay *relay = listener->relay;

    listener->paused = true;
    if (error != 0) {
        timer_set(&relay->loop->timers, &listener->retry,
                  relay->loop->now_ns + ACCEPT_RETRY_MS * NS_PER_MS);
    }
    if (relay->on_paused != NULL &&
        (error != 0 || relay->live_count >= relay->settings.sessions_max)) {
        relay->on_paused(relay->owner, listener->name, error);
    }
}

static bool is_shortage(int result)
{
    return result == -EMFILE || result == -ENFILE || result == -ENOMEM || result == -ENOBUFS;
}

/* Those that ended in this turn count until they are released at its end; that also resumes us. */
static size_t sessions_in_memory(const struct relay *relay)
{
    return relay->sessions.objects_in_use - (relay->spare_session != NULL);
}

/* Gets all that the next client needs. 0, or the positive errno of what is missing. */
static int reserve(struct relay *relay, sa_family_t family)
{
    if (relay->spare_session == NULL) {
        relay->spare_session = slab_get(&relay->sessions);
        if (relay->spare_session == NULL) {
            return ENOMEM;
        }
    }
    if (relay->spare_fd >= 0 && relay->spare_family != family) {
        /* Another listener's. Changed now: once the client is accepted it would be too late, for a
         * descriptor that was closed need not come back (the limit has been lowered below it, or
         * other processes wait for it at the system's limit). */
        sys_close(relay->spare_fd);
        relay->spare_fd = -1;
    }
    if (relay->spare_fd < 0) {
        int fd = sock_new(family, relay->settings.source);

        if (fd < 0) {
            /* A shortage concerns every client; anything else is this server's affair, and the
             * session will meet it when it connects. */
            return is_shortage(fd) ? -fd : 0;
        }
        relay->spare_fd = fd;
        relay->spare_family = family;
    }
    return 0;
}

enum accepted { ACCEPTED, ACCEPT_SKIPPED, ACCEPT_QUEUE_EMPTY, ACCEPT_PAUSED };

static enum accepted accept_one(struct listener *listener)
{
    struct relay *relay = listener->relay;
    struct addr addr = {.len = sizeof(addr.u)};
    struct addr_compact client;
    int error;
    int fd;

    if (sessions_in_memory(relay) >= relay->settings.sessions_max) {
        pause_accepting(listener, 0);
        return ACCEPT_PAUSED;
    }
    error = reserve(relay, listener->family);
    if (error != 0) {
        metric_add(&relay->metrics->accept_errors, 1);
        pause_accepting(listener, error);
        return ACCEPT_PAUSED;
    }
    fd = sys_accept(listener->io.fd, &addr.u.any, &addr.len);
    if (fd == -EAGAIN) {
        listener->io.ready &= (uint8_t)~IO_READABLE;
        return ACCEPT_QUEUE_EMPTY;
    }
    if (fd < 0) {
        metric_add(&relay->metrics->accept_errors, 1);
        if (is_transient(-fd)) {
            return ACCEPT_SKIPPED;
        }
        pause_accepting(listener, -fd);
        return ACCEPT_PAUSED;
    }
    client = addr_compact(&addr);
    if (client.family == AF_UNIX) {
        sock_keep_urgent_inline(fd); /* unix sockets inherit nothing from their listener */
    }
    session_start(relay, listener, fd, &client);
    return ACCEPTED;
}

static void listener_run(struct task *task)
{
    struct listener *listener = CONTAINER_OF(task, struct listener, task);
    int skipped = 0;

    if (listener->paused || (listener->io.ready & IO_READABLE) == 0) {
        return;
    }
    for (int count = 0; count < ACCEPT_BATCH; count++) {
        enum accepted accepted = accept_one(listener);

        if (accepted == ACCEPT_QUEUE_EMPTY || accepted == ACCEPT_PAUSED) {
            return;
        }
        skipped += accepted == ACCEPT_SKIPPED;
    }
    if (skipped == ACCEPT_BATCH) {
        /* Not one connection's fault: something refuses the call itself (a security module). */
        pause_accepting(listener, EPERM);
        return;
    }
    loop_queue(listener->relay->loop, &listener->task);
}

static void resume(struct listener *listener)
{
    listener->paused = false;
    timer_cancel(&listener->relay->loop->timers, &listener->retry);
    loop_queue(listener->relay->loop, &listener->task);
}

static void on_retry(struct timer *timer, uint64_t now_ns)
{
    (void)now_ns;
    resume(CONTAINER_OF(timer, struct listener, retry));
}

void listeners_resume(struct relay *relay)
{
    for (struct list_node *node = relay->listeners.next; node != &relay->listeners;
         node = node->next) {
        struct listener *listener = CONTAINER_OF(node, struct listener, node);

        if (listener->paused) {
            resume(listener);
        }
    }
}

int listener_start(struct listener *listener, struct relay *relay, int fd)
{
    int result;

    CHECK(listener->pick != NULL);
    listener->relay = relay;
    listener->paused = false;
    task_init(&listener->task, listener_run);
    timer_init(&listener->retry, on_retry);
    list_init(&listener->node);
    io_init(&listener->io, &listener->task);
    result = loop_add(relay->loop, &listener->io, fd);
    if (result < 0) {
        sys_close(fd);
        return result;
    }
    if (sock_local_address(fd, &listener->local) < 0 || addr_is_wildcard(&listener->local)) {
        listener->local.len = 0;
    }
    list_push_back(&relay->listeners, &listener->node);
    return 0;
}

void listener_drain(struct listener *listener)
{
    size_t room = listener->relay->settings.sessions_max;

    /* Bounded by the number of sessions, so that a flood can't keep a worker from stopping. */
    while (listener->io.fd >= 0 && room-- > 0) {
        enum accepted accepted = accept_one(listener);

        if (accepted == ACCEPT_QUEUE_EMPTY || accepted == ACCEPT_PAUSED) {
            break;
        }
    }
    listener_close(listener);
}

void listener_close(struct listener *listener)
{
    if (listener->io.fd < 0) {
        return;
    }
    timer_cancel(&listener->relay->loop->timers, &listener->retry);
    list_remove(&listener->node);
    sys_close(loop_remove(listener->relay->loop, &listener->io));
}
