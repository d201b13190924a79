/* Test support: the seam under the relay. Every function of net/sys.h is wrapped at link time;
 * unless a fault is armed the wrapper only takes notes and calls the real one.
 *
 * What may be injected under edge-triggered epoll: short counts, which really
 * move that many bytes; resource and hard errors. -EAGAIN is a lie, after which no edge would come,
 * so a test that tells it must set the ready bit again itself (lane.h does).
 *
 * Faults and notes are state of the test's own process. */
#ifndef SUPPORT_UNIT_FAULT_H
#define SUPPORT_UNIT_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/** The functions of net/sys.h. sys_splice is two: into a pipe and out of it. */
enum call {
    CALL_SOCKET,
    CALL_ACCEPT,
    CALL_CONNECT,
    CALL_BIND,
    CALL_LISTEN,
    CALL_SET_OPTION,
    CALL_GET_OPTION, /* of SO_ERROR */
    CALL_TCP_INFO,   /* of anything else: the data plane asks for nothing but TCP_INFO */
    CALL_LOCAL_ADDRESS,
    CALL_RECV,
    CALL_SEND,
    CALL_SPLICE_IN, /* its fd is the socket, as for all others */
    CALL_SPLICE_OUT,
    CALL_READ,
    CALL_SHUTDOWN_WRITE,
    CALL_CLOSE,
    CALL_PIPE,
    CALL_PIPE_RESIZE,
    CALL_PIPE_SIZE,
    CALL_UNACKNOWLEDGED,
    CALL_READABLE_BYTES,
    CALL_EPOLL_CREATE,
    CALL_EPOLL_ADD, /* its fd is the one added, its len the events asked for */
    CALL_EPOLL_REMOVE,
    CALL_EPOLL_WAIT, /* its len is the time-out in ms; shortened, it fetches fewer events */
    CALLS
};

enum { ANY_FD = -1 };
#define ALWAYS UINT32_MAX

/** A call that was made since fault_clear(). */
struct call_note {
    enum call call;
    int fd;      /* -1 for those that make one */
    int64_t len; /* asked for, where that means something; for an option its name */
    int64_t result;
    bool injected; /* the result was made up, or the length shortened */
};

/** Forgets all faults and notes; the clock stays where it is. */
void fault_clear(void);
/** Forgets the faults only. */
void fault_disarm(void);

/* A fault applies to calls of this kind on `fd` (ANY_FD: on any), counted from the moment it is
 * armed: to the nth (from 1) and those behind it, `times` in all. Of several, the one armed first
 * wins. */

/** The call is not made; it fails with errno `error`. */
void fault_fail(enum call call, int fd, uint32_t nth, uint32_t times, int error);
/** The call is not made; it returns `result`. */
void fault_return(enum call call, int fd, uint32_t nth, uint32_t times, int64_t result);
/** The call is made, and its result replaced, unless it failed: for outcomes that another
 *  kernel, or another moment, could have given. A connect that is said to be done must be done. */
void fault_replace(enum call call, int fd, uint32_t nth, uint32_t times, int64_t result);
/** The call is made with no more than `len` bytes. */
void fault_shorten(enum call call, int fd, uint32_t nth, uint32_t times, size_t len);
/** Before the call, `hook` runs: to let a peer act at this very moment. */
typedef void fault_hook_fn(void *context);
void fault_hook(enum call call, int fd, uint32_t nth, uint32_t times, fault_hook_fn *hook,
                void *context);
/** The nth question for SO_ERROR of `fd` is answered with `error`; the real one is lost. */
void fault_socket_error(int fd, uint32_t nth, int error);
/** The next epoll_wait returns these events and asks nobody. `events` is copied; at most 64. */
void fault_events(const struct epoll_event *events, int events_len);

/** How often a fault (not a hook) has changed a call since fault_clear(). */
size_t fault_fired(void);
/** Watches the fault or hook that is armed next, until fault_clear(): `told` is called right
 *  behind each call that this fault has changed (a short count only when the kernel gave all of
 *  what was still asked), and fault_reached() says whether there was a call for it, changed or
 *  not. */
typedef void fault_told_fn(void *context, const struct call_note *note);
void fault_watch(fault_told_fn *told, void *context);
bool fault_reached(void);

/** Calls of this kind on `fd` (ANY_FD: on any) since fault_clear(). */
size_t fault_count(enum call call, int fd);
/** Of those, the ones that did not fail. */
size_t fault_count_good(enum call call, int fd);
/** Calls of all kinds. */
size_t fault_notes_len(void);
/** Forgets the notes, and nothing else: for tests that make very many calls. */
void fault_forget_notes(void);
/** Note number `index`, in the order of the calls. */
const struct call_note *fault_note(size_t index);
/** The last call of this kind on `fd`; fails the test if there is none. */
const struct call_note *fault_last(enum call call, int fd);
/** The name of a call, for messages. */
const char *call_name(enum call call);

/** Ends this test's process after a minute, with SIGABRT: a relay that hangs or spins makes its
 *  test fail and does not stop the suite. Later calls change nothing. */
void bound_test_time(void);

/** Lets the monotonic clock jump ahead. The next epoll_wait does not wait: its time has passed. */
void fault_clock_advance(uint64_t duration_ns);

#endif
