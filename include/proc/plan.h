/* Layer: proc. The configuration made concrete: names looked up, every address known, every
 * listening socket open. Made by the master before it forks; workers only read it. */
#ifndef PROC_PLAN_H
#define PROC_PLAN_H

#include "conf/config.h"
#include "net/sock.h"
#include "relay/relay.h"

#include <stdio.h>
#include <sys/types.h>

struct plan_pool {
    const char *name;       /* borrowed from the configuration */
    struct target *targets; /* owned */
    uint32_t targets_len;
};

/** One address listened on; `:8080` or a name may give several for one configured listener. */
struct plan_listener {
    const char *name; /* borrowed from the configuration */
    size_t pool;      /* index into plan.pools */
    struct addr addr;
    int *fds;     /* owned: one per worker (a unix socket: one for all, fds[0]); -1: not open */
    dev_t device; /* of a unix socket's file, so that only our own is removed */
    ino_t inode;
};

struct plan {
    struct plan_pool *pools; /* owned */
    size_t pools_len;
    struct plan_listener *listeners; /* owned */
    size_t listeners_len;
    size_t workers;
};

/** Looks up every name and checks that no target is one of the listeners. 0, or the exit status
 *  after all problems were reported on `errors`. plan_fini() frees it in either case. */
MUST_CHECK int plan_make(const struct config *config, struct plan *plan, FILE *errors);

/** Opens all listening sockets for `workers` workers, or none: 0, or an exit status with the
 *  reasons on `errors`. */
MUST_CHECK int plan_listen(struct plan *plan, const struct sock_tuning *tuning, size_t workers,
                           FILE *errors);

/** The descriptor from which worker `worker` accepts for `listener`. */
int plan_listener_fd(const struct plan_listener *listener, size_t worker);

/** Closes this process's listening sockets, all but those of worker `keep` (SIZE_MAX: keep
 *  none). */
void plan_close(struct plan *plan, size_t keep);

/** Removes the files of our unix sockets: by the master, when nobody is to connect any more. */
void plan_unlink(const struct plan *plan);

/** Closes and frees everything; the plan may be half-made. */
void plan_fini(struct plan *plan);

#endif
