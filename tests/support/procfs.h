/* Test support: what the kernel says of a process (proc(5)), and becoming an ordinary user. */
#ifndef SUPPORT_PROCFS_H
#define SUPPORT_PROCFS_H

#include "support/proxy.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { PROCFS_TARGETS_MAX = 512, PROCFS_TARGET_BYTES = 48, PROCFS_VALUE_BYTES = 256 };

/** Nobody's user and group id on every Linux. */
enum { NOBODY = 65534 };

/** The state letter of a process, 0 when there is none of that id. */
char process_state(pid_t pid);
/** Gone, or a zombie that its parent has not fetched yet. */
bool is_gone(pid_t pid);
/** Waits for the state, 0: until there is no such process. */
void wait_for_state(pid_t pid, char state);

/** A line of /proc/PID/status, such as "Uid", without its key; "" if there is none. */
void read_status(pid_t pid, const char *key, char value[PROCFS_VALUE_BYTES]);

/** What the descriptors of a process lead to, such as "socket:[1234]". */
size_t read_targets(pid_t pid, char targets[PROCFS_TARGETS_MAX][PROCFS_TARGET_BYTES]);
/** How many of them begin with `prefix`. */
size_t count_targets(pid_t pid, const char *prefix);
/** The largest descriptor of a process. */
int highest_descriptor(pid_t pid);

/** The monitor of this sluice, 0: none now. */
pid_t monitor_pid(const struct proxy *proxy);
/** Waits until there is one that is not `not_this`. */
pid_t wait_for_monitor(const struct proxy *proxy, pid_t not_this);
/** Waits until all workers are there and alive, none of them `not_this`. */
void wait_for_workers(const struct proxy *proxy, pid_t not_this, pid_t pids[PROXY_WORKERS_MAX]);

/** Waits until somebody listens on the proxy's address, or until nobody does any more. */
void wait_until_open(const struct proxy *proxy);
void wait_until_closed(const struct proxy *proxy);

/** The number in a file such as /proc/sys/fs/nr_open, -1 if there is none. */
long read_number(const char *path);

/** Raises the limit on open descriptors to the hard one; skips the test where that is too low. */
void need_descriptors(unsigned count);

/** Skips the test unless it runs as root. */
void need_root(void);
/** For proxy.in_child: nobody, with no privilege and no group. */
void become_nobody(void);

#endif
