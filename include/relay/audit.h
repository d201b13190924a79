/* Layer: relay. The lost-wake-up detector of debug builds: before a worker sleeps, is there really
 * nothing left to do? */
#ifndef RELAY_AUDIT_H
#define RELAY_AUDIT_H

#include "relay/relay.h"

/** For loop.audit, with the relay as owner: looks over all its sessions and listeners and aborts
 *  when one of them would sleep for ever. Returns for how many milliseconds the loop may wait at
 *  most: a short time while the kernel and our bits disagree, -1 for no limit. */
int audit_before_wait(void *relay);

#endif
