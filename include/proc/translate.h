/* Layer: proc. From the configuration's words to the structs of the layers below. */
#ifndef PROC_TRANSLATE_H
#define PROC_TRANSLATE_H

#include "conf/config.h"
#include "proc/privileges.h"
#include "relay/relay.h"

/** What sockets are told about peers that vanish. */
struct sock_tuning translate_tuning(const struct settings *settings);

/** The relay's settings; sessions_max is left 0, for it differs by worker. `source` is kept. */
struct relay_settings translate_relay(const struct settings *settings, const struct addr *source,
                                      size_t pipes_max);

/** Looks up the user to run as, if one is configured. 0, or the exit status after the problem was
 *  reported on `errors`. */
MUST_CHECK int translate_user(const struct settings *settings, struct identity *ret_identity,
                              FILE *errors);

/** The address to connect from, port 0; false if none is configured. */
bool translate_source(const struct settings *settings, struct addr *ret_source);

#endif
