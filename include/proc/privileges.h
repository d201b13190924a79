/* Layer: proc. Becoming an ordinary user for good. */
#ifndef PROC_PRIVILEGES_H
#define PROC_PRIVILEGES_H

#include "base/macros.h"

#include <stdbool.h>
#include <sys/types.h>

struct identity {
    uid_t uid;
    gid_t gid;
};

/** Looks up a user by name. 0, -ENOENT when there is none, or another negative errno. */
MUST_CHECK int identity_find(const char *name, struct identity *ret_identity);

/** True when identity_become() may succeed: for root, and for that user already. */
bool identity_is_possible(const struct identity *identity);

/** Gives up every privilege: supplementary groups, group and user ids, with no way back. 0 or a
 *  negative errno; after a failure the process must end. Being that user already is fine. */
MUST_CHECK int identity_become(const struct identity *identity);

#endif
