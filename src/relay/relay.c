/* The shared part of a worker's sessions: supplies sized from the settings, and the list of all. */
#include "relay/relay.h"

#include "base/check.h"
#include "net/sys.h"
#include "relay/audit.h"
#include "relay/session.h"

#include <string.h>

int relay_init(struct relay *relay, struct loop *loop, const struct relay_settings *settings,
               uint64_t first_id, struct metrics *metrics)
{
    CHECK(settings->sessions_max > 0);
    CHECK(settings->connect_timeout_ns > 0);
    memset(relay, 0, sizeof(*relay));
    relay->loop = loop;
    relay->settings = *settings;
    relay->metrics = metrics;
    relay->next_id = first_id;
    relay->spare_fd = -1;
    list_init(&relay->live);
    list_init(&relay->listeners);
#ifdef SLUICE_DEBUG
    loop->audit = audit_before_wait;
    loop->audit_owner = relay;
#endif
    slab_init(&relay->sessions, sizeof(struct session), settings->sessions_max + 1); /* the spare */
    /* Each flow of each session may hold one; the one in hand during a step is among them. */
    slab_init(&relay->supplies.buffers, FLOW_BUFFER_BYTES, 2 * settings->sessions_max);
    relay->supplies.splice = settings->splice;
    return pipe_pool_init(&relay->supplies.pipes, settings->pipes_max, settings->pipe_bytes,
                          metrics);
}

void relay_fini(struct relay *relay)
{
    CHECK(list_is_empty(&relay->live));
    CHECK(list_is_empty(&relay->listeners));
    relay->loop->audit = NULL;
    if (relay->spare_fd >= 0) {
        sys_close(relay->spare_fd);
        relay->spare_fd = -1;
    }
    slab_put(&relay->sessions, relay->spare_session);
    relay->spare_session = NULL;
    pipe_pool_fini(&relay->supplies.pipes);
    slab_fini(&relay->supplies.buffers);
    slab_fini(&relay->sessions);
}

void relay_end_all(struct relay *relay, enum reason reason, bool deliver)
{
    struct list_node *node = relay->live.next;

    while (node != &relay->live) {
        /* session_end() may take this one off the list, never another. */
        struct list_node *next = node->next;

        session_end(CONTAINER_OF(node, struct session, live), reason, deliver);
        node = next;
    }
}
