/* Layer: relay. What the end of a session means: who broke it, why, what is still missing, and what
 * the close record says. Part of session.c's work that decides and moves nothing. */
#ifndef RELAY_VERDICT_H
#define RELAY_VERDICT_H

#include "relay/session.h"

/** The errno of the side that broke (with errors on both, the one that showed its end first); 0 if
 *  neither did. */
int verdict_error(const struct session *session);

/** The close reason that follows from that errno. One side must have an error. */
enum reason verdict_broken_reason(const struct session *session);

/** Bytes that a peer has not acknowledged; asks the kernel (SIOCOUTQ). */
uint32_t verdict_client_unacked(const struct session *session);
uint32_t verdict_server_unacked(const struct session *session);

/** Fills the close record. The descriptors must still be open, and the flows be over. */
void verdict_record(const struct session *session, enum reason reason, int error,
                    struct record *ret_record);

#endif
