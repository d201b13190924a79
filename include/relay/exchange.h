/* Layer: relay. One step of a session: both of its flows, and what an error of one side means for
 * the other. Part of session.c's work, the same while relaying and while ending. */
#ifndef RELAY_EXCHANGE_H
#define RELAY_EXCHANGE_H

#include "relay/session.h"

/** Takes a pending error off a socket, if an event told of one, and keeps it in `io`: before a send
 *  or recv can consume it and leave an end that looks like FIN. A step does it by itself. */
void exchange_notice_error(struct io *io);

/** What a step has done. */
struct exchange {
    uint64_t moved; /* bytes in and out, and 1 for an end; 0: nothing did */
    bool has_more;  /* another step at once would do something */
    bool starves;   /* the kernel is short of memory: nothing but time will help */
};

/** Steps both flows, each at most by its budget. The server must be connected. Afterwards a flow
 *  whose target has an error is over, and task.is_bulk says whether the next step is bulk. */
MUST_CHECK struct exchange exchange_step(struct session *session);

#endif
