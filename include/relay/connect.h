/* Layer: relay. The server leg of a session: from the first server tried to an established
 * connection or to the end of the list. Part of session.c's work, kept apart because it is a story
 * of its own. */
#ifndef RELAY_CONNECT_H
#define RELAY_CONNECT_H

#include "relay/session.h"

enum connect_outcome {
    CONNECT_WAITS, /* an event or the session's timer will tell */
    CONNECT_DONE,  /* session.server is connected */
    CONNECT_FAILED /* no server is left to try; session.connect_error is the last errno */
};

/** Tries the next server, and the one after if that fails at once. */
MUST_CHECK enum connect_outcome connect_next(struct session *session);

/** Looks what an event on the server's descriptor means; goes on to the next server if it
 *  failed. */
MUST_CHECK enum connect_outcome connect_on_event(struct session *session);

/** The session's timer came due: repeats an attempt that a full backlog put off, or gives up on
 *  this server and goes on to the next. */
MUST_CHECK enum connect_outcome connect_on_timer(struct session *session);

/** Sets keepalive and user timeout on the connected server's leg, once; when that fails, the next
 *  call tries again. */
void connect_watch(struct session *session);

/** The close reason for the errno with which connecting failed; 0 means no server was there. */
enum reason connect_reason(int error);

#endif
