/* Layer: proc. The monitor process: takes log lines from the pipe and writes them to stderr, so
 * that nobody else ever waits for a slow terminal, disk or journal. */
#ifndef PROC_MONITOR_H
#define PROC_MONITOR_H

#include "base/macros.h"
#include "proc/privileges.h"

/** Copies `log_fd` (blocking reading end) to stderr until every writing end is closed. `identity`
 *  may be NULL. Returns the exit status. */
MUST_CHECK int monitor_run(int log_fd, const struct identity *identity);

#endif
