/* Layer: relay. The abnormal end of a session: what was received is delivered, then the peers are
 * reset. Part of session.c's work, kept apart because it is a story of its own. */
#ifndef RELAY_ENDING_H
#define RELAY_ENDING_H

#include "relay/session.h"

/** Nothing more is taken from either side. `briefly`: sluice itself wants to end, so peers have a
 *  second, whatever progress they make; else fin-timeout from their last progress. The phase is
 *  the caller's to set; ending_run() goes on. */
void ending_begin(struct session *session, enum reason reason, bool briefly);

/** From now on as if begun briefly; the session's timer brings ending_run(). */
void ending_hurry(struct session *session);

/** Delivers what it can. True when the session is to be closed now, with session.reason and
 *  session.end_error; false when an event or the session's timer will go on. */
MUST_CHECK bool ending_run(struct session *session);

#endif
