/* Layer: proc. The master process: opens the listening sockets, keeps workers and monitor running,
 * takes the signals. It never touches a connection. */
#ifndef PROC_MASTER_H
#define PROC_MASTER_H

#include "conf/config.h"
#include "proc/plan.h"

/** Serves `config` until told to stop. `plan` was made from it. Returns the exit status. */
MUST_CHECK int master_run(const struct config *config, struct plan *plan);

#endif
