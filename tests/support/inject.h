/* Test support: makes a system call of the real, running sluice fail.
 *
 * The unit tests have a seam at net/sys.h; what master, monitor and workers ask of the kernel beside
 * that (fork, setresuid, memfd_create ...) has none. Here the kernel itself hands each call of the
 * chosen kinds over to the test before it is made (seccomp(2), user notification), from every process
 * that descends from the master, and the test says: go on, or fail with this errno. No tracer is in
 * the way (so LeakSanitizer works), no other build of sluice is needed, and no right but that of
 * starting it.
 *
 *    inject_watch(&proxy, calls, n);  before proxy_start(): which calls are handed over
 *    inject_arm(&fault);              from now on: the N-th such call fails, or each N-th
 *    inject_hits()                    how many have failed
 *    inject_disarm();                 every call is made again
 *    inject_wait_for_end();           no process that had the filter is left
 *
 * Nothing is counted before main() of sluice has begun: what the dynamic loader meets is not
 * sluice's affair. An injected call is never made; so close(2), which frees its descriptor whatever
 * it returns, must not be among the faults. */
#ifndef SUPPORT_INJECT_H
#define SUPPORT_INJECT_H

#include "support/proxy.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { INJECT_CALLS_MAX = 16, INJECT_ANY = -1 };

/** Whose calls are counted, and how. */
enum inject_whose {
    INJECT_ALL,       /* all processes together: exactly one call is the N-th */
    INJECT_MASTER,    /* only those of the first process */
    INJECT_CHILDREN,  /* all others, together */
    INJECT_EACH_CHILD /* each of the others for itself: each one's N-th fails, successors' too */
};

struct inject_fault {
    int call;  /* __NR_bind */
    int error; /* errno */
    enum inject_whose whose;
    unsigned nth;   /* the first that fails, from 1 */
    unsigned every; /* 0: no other; n: each n-th after it as well */
    /* Only calls with this argument count, such as EPOLL_CTL_ADD; -1: all do. */
    int argument_index;
    uint64_t argument;
};

/** From the next start on, these calls of `proxy` are handed over. Skips the test where the kernel
 *  has no user notification. */
void inject_watch(struct proxy *proxy, const int calls[], size_t count);
void inject_arm(const struct inject_fault *fault);
void inject_disarm(void);
/** Calls that have failed, and that were counted, since the last inject_arm(). */
unsigned inject_hits(void);
unsigned inject_seen(void);
/** The process whose call failed last, 0: none yet. */
pid_t inject_victim(void);
/** Waits until the last process with the filter is gone, and makes ready for the next start. */
void inject_wait_for_end(void);

#endif
