/* Layer: relay. A listening socket in a worker: accepts in batches, admits what can be served. */
#ifndef RELAY_LISTENER_H
#define RELAY_LISTENER_H

#include "relay/relay.h"

struct listener {
    struct task task;
    struct list_node node; /* in relay.listeners */
    struct timer retry;    /* while paused by a shortage */
    struct io io;
    struct relay *relay;   /* borrowed */
    struct addr local;     /* our end of what it accepts; len 0: the wildcard, each has its own */
    const char *name;      /* borrowed, as configured */
    const char *pool_name; /* borrowed, as configured */
    pick_fn *pick;
    void *pool;         /* borrowed: for `pick` */
    sa_family_t family; /* most likely family of the servers */
    bool paused;        /* short of something; a freed session or the timer goes on */
};

/** Starts accepting from the listening socket `fd`, which the listener owns from here on. The
 *  strings and the pool must outlive it. 0 or a negative errno (then `fd` is closed). */
MUST_CHECK int listener_start(struct listener *listener, struct relay *relay, int fd);

/** Accepts what still waits in the queue, as far as there is room, and closes the socket. */
void listener_drain(struct listener *listener);

/** Closes the socket at once. Accepts a listener that was drained before. */
void listener_close(struct listener *listener);

/** Lets paused listeners try again: called when a session has given back its descriptors. */
void listeners_resume(struct relay *relay);

#endif
