/* Layer: relay. The reactor: one epoll instance, edge-triggered; a run queue; timers.
 *
 * It only records what is ready, and lets each task that was touched run once a turn. It knows
 * nothing of sessions or listeners. */
#ifndef RELAY_LOOP_H
#define RELAY_LOOP_H

#include "base/list.h"
#include "base/macros.h"
#include "base/timer.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct task;
typedef void task_fn(struct task *task);

/** Something that runs when its descriptors or its own wish ask for it; embedded in its owner. */
struct task {
    /* private */
    struct list_node node; /* in a run queue or in the list of the dead */
    task_fn *run;
    /* set by the owner: it moves bulk, and gives way to those that do not */
    bool is_bulk;
};

/** What is known of a descriptor since the kernel last told. Bits are set by the loop, and cleared
 *  only by the owner when a call has proved them wrong. */
enum io_ready {
    IO_READABLE = 1, /* a read may yield bytes, the end or an error */
    IO_WRITABLE = 2, /* a write may be taken */
    IO_ERROR = 4,    /* an error is pending at the socket (SO_ERROR) */
    IO_URGENT = 8,   /* an urgent byte is or was in the stream: reading may stop before it */
    IO_ENDING = 16   /* the peer's end or an error was told, once: reading must go on to it */
};

/** A descriptor in the loop; embedded in its owner. */
struct io {
    int fd;            /* owned by whoever embeds the io; -1: none */
    uint8_t ready;     /* set of enum io_ready */
    bool is_tcp;       /* set by the owner: a short read can prove that nothing is left */
    uint16_t error;    /* the first errno this descriptor met, 0 while it is sound */
    struct task *task; /* borrowed: runs when something was recorded */
};

enum {
    /* Events fetched at once. More are fetched next turn, after those that wait have run: a batch
     * bounds how long the last of it waits. */
    LOOP_EVENTS_MAX = 256
};

/** Called in debug builds before a wait that may block. Returns for how many milliseconds it may
 *  block at most, -1: no limit. */
typedef int loop_audit_fn(void *owner);

struct loop {
    uint64_t now_ns; /* monotonic time at the start of this turn */
    struct timer_wheel timers;
    uint64_t moved_bytes;  /* tasks add what they moved, in and out: the work of a turn of bulk */
    uint64_t busy_poll_ns; /* set by the owner: after events, ask for more so long before a wait */
    loop_audit_fn *audit;  /* NULL: none */
    void *audit_owner;
    /* private */
    int epoll_fd;
    uint64_t busy_until_ns;
    struct list_node run_queue;
    struct list_node bulk_queue;
    struct list_node dead;
    struct epoll_event events[LOOP_EVENTS_MAX]; /* here, not on the stack: hardening zeroes that */
};

/** Opens the epoll instance. 0 or a negative errno. */
MUST_CHECK int loop_init(struct loop *loop);

/** Frees what is dead and closes the epoll instance. Accepts a loop whose init failed. */
void loop_fini(struct loop *loop);

/** Prepares a task that calls `run`. */
void task_init(struct task *task, task_fn *run);

/** Makes `io` stand for no descriptor. */
void io_init(struct io *io, struct task *task);

/** Remembers the first errno that `io` met: it tells what happened, later ones only follow. (EPIPE
 *  says least, and gives way to any other.) What came before it can still be read, and reading must
 *  find the end; hence readable. */
void io_set_error(struct io *io, int error);

/** Registers `fd` for both directions, once, edge-triggered; the kernel reports at once what is
 *  ready already. Afterwards the io holds the descriptor. 0, or -ENOMEM, -ENOSPC (epoll_ctl(2)). */
MUST_CHECK int loop_add(struct loop *loop, struct io *io, int fd);

/** Ends the registration of `io`, for a descriptor whose open file another process holds too
 *  (closing ours would leave it in place), and makes it stand for none. Returns the descriptor. */
MUST_CHECK int loop_remove(struct loop *loop, struct io *io);

/** Lets `task` run once more, in a later turn if it is running now. The loop does not wait before it
 *  has. */
void loop_queue(struct loop *loop, struct task *task);

/** Takes `task` out of the run queue and calls `release` with it after the turn, when no event and
 *  no caller can hold it any more. Its descriptors must be closed, its timers unset. */
void loop_release(struct loop *loop, struct task *task, task_fn *release);

/** One turn: waits for events (not if a task is queued; never longer than the next timer), records
 *  them, runs the queued tasks once each, and of those that move bulk a few, fires timers. 0 or a
 *  negative errno of epoll_wait. */
MUST_CHECK int loop_turn(struct loop *loop);

#endif
