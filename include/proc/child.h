/* Layer: proc. A child process the master keeps running, and when to start it again. */
#ifndef PROC_CHILD_H
#define PROC_CHILD_H

#include <stdint.h>
#include <sys/types.h>

struct child {
    pid_t pid;             /* 0: none now */
    int control_fd;        /* writing end, owned; -1: none (the monitor never has one) */
    unsigned char untold;  /* a command that its control pipe would not take yet, 0: none */
    uint64_t start_ns;     /* when it was started last */
    uint64_t due_ns;       /* pid 0: when to start it again */
    unsigned quick_deaths; /* in a row, failed starts among them */
};

/** Not running, to be started at once. */
void child_init(struct child *child);

/** The child has started: its process and the writing end of its control pipe (-1: none). */
void child_started(struct child *child, pid_t pid, int control_fd, uint64_t now_ns);

/** It could not be started (no process, no descriptor), which counts as a quick death: such a shortage
 *  may be over in a moment, and may last. */
void child_not_started(struct child *child, uint64_t now_ns);

/** It has died: closes its control pipe and computes when to start it again. At once, if it lived for
 *  a second; after a delay that doubles from 100 ms to 10 s, if it keeps dying sooner. */
void child_died(struct child *child, uint64_t now_ns);

#endif
