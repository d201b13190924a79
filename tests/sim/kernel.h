/* A model of the kernel behind net/sys.h, for the simulation: sockets as two queues, pipes with slots,
 * edges as epoll gives them. It defines every sys_ function and both clocks, so a program linked with
 * it runs the real loop, flow, session and listener code without a kernel.
 *
 * No byte is stored. A stream is (key, offset); what is received is computed, what is sent is compared
 * with what must come next, so a lost, doubled, moved or foreign byte is found where it happens. */
#ifndef SIM_KERNEL_H
#define SIM_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KERNEL_FDS = 128, KERNEL_SEGMENTS = 64, KEY_NONE = 0 };

enum kernel_kind {
    KIND_FREE,
    KIND_SOCKET,
    KIND_LISTENER,
    KIND_PIPE_READ,
    KIND_PIPE_WRITE,
    KIND_EPOLL
};
enum kernel_state { STATE_NEW, STATE_CONNECTING, STATE_ESTABLISHED, STATE_CLOSED };

/** What arrived in one packet, or lies in one slot of a pipe. */
struct segment {
    uint64_t key;
    uint64_t offset;
    uint32_t len;
};

struct segments {
    struct segment item[KERNEL_SEGMENTS];
    size_t first;
    size_t count;
};

/** One end of a connection that sluice holds; the peer is an actor of world.c. */
struct ksocket {
    enum kernel_kind kind;
    enum kernel_state state;
    int peer; /* index of the actor's side, -1: none yet */
    /* receiving: from the peer */
    struct segments rx;
    uint32_t rx_bytes;
    bool urgent;        /* an urgent byte is in the stream, not read past yet: TCP_URG_VALID */
    uint64_t urgent_at; /* so many bytes come before it */
    uint64_t rx_taken;  /* by recv and splice so far */
    uint32_t rcvbuf;
    bool fin_received;
    /* sending: to the peer */
    uint64_t tx_key;    /* KEY_NONE: what is sent is not compared */
    uint64_t tx_offset; /* taken by this socket so far */
    uint32_t tx_queued; /* not acknowledged yet */
    uint32_t sndbuf;
    bool nospace;    /* SOCK_NOSPACE: the next room is told by an edge */
    bool fin_is_due; /* what was sent last waits for the FIN that sluice has announced */
    bool shut_write;
    bool fin_sent;       /* and acknowledged: the peer has seen it */
    bool syn_unanswered; /* its connect failed: SIOCOUTQ counts the SYN for ever */
    int error;           /* SO_ERROR */
    bool linger_reset;   /* close(2) resets */
    bool orphan;         /* closed by sluice; the kernel still delivers what is in flight */
    /* epoll */
    bool registered;
    bool on_ready_list;
    void *data;
    uint32_t connect_port;
    int other_end; /* of a pipe */
    struct segments slots;
    size_t slots_max;
};

/** How the model may misbehave, each a legal outcome; probabilities in 1/1000. */
struct kernel_faults {
    uint32_t short_count;    /* send and splice move fewer bytes than they could */
    uint32_t no_memory;      /* send, recv, splice: ENOMEM */
    uint32_t no_descriptor;  /* socket, accept4, pipe2: EMFILE */
    uint32_t accept_aborted; /* accept4: ECONNABORTED, of a connection that is gone again */
    uint32_t epoll_refused;  /* epoll_ctl: ENOSPC */
    uint32_t splice_refused; /* from some call on: EINVAL */
    uint32_t spurious;       /* an event without cause, an interrupted wait */
    uint32_t interleave;     /* the network acts between two system calls */
};

/** What the model asks of the network and the peers behind it. */
struct kernel_network {
    /** The network may act, or sluice waits: lets something happen; false if nothing can. */
    bool (*step)(void);
    /** When it will next be able to do something that it cannot do now; UINT64_MAX: never. */
    uint64_t (*next_ns)(void);
    /** What connect(2) says: -EINPROGRESS, and the outcome will come by kernel_connected(),
     *  kernel_receive_reset() or kernel_receive_error(); or it fails at once. */
    int (*connecting)(int fd, uint32_t port);
    /** Sluice has closed the socket of this peer, and nothing is in flight; `reset`: RST was
     *  sent. */
    void (*closed)(int peer, bool reset);
    /** Sluice closed a socket that was still being connected. */
    void (*gave_up)(int fd);
};

struct kernel {
    const struct kernel_network *network;
    uint64_t random;
    uint64_t now_ns;
    bool sluice_waits; /* in epoll_wait(2): time may pass */
    struct kernel_faults faults;
    bool splice_is_refused;
    bool buffers_are_tiny; /* sockets of some bytes: every count is short */
    bool buffers_are_huge; /* whole budgets fit */
    bool is_sparing; /* only the wake-ups that epoll(7) promises, none that Linux gives besides */
    bool pipes_are_small; /* the quota is used up: F_SETPIPE_SZ fails, pipes have 2 slots */
    bool hit_fatal_fault; /* an injected fault that may end a connection happened */
    struct ksocket fds[KERNEL_FDS];
    int accept_queue[KERNEL_FDS]; /* fds-to-be: prepared sockets */
    size_t accept_count;
    char failure[256]; /* the first oracle that was violated; empty: none */
    uint64_t system_calls;
};

extern struct kernel kernel;

/** Where choices come from; NULL: from the seed. Set by the fuzzer, whose input chooses. */
extern uint64_t (*kernel_choose)(uint64_t bound);

/** Starts anew with this seed. */
void kernel_reset(uint64_t seed, const struct kernel_network *network);

/** Notes the first violation. */
void kernel_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** A number below `bound`, from the seed. */
uint64_t kernel_below(uint64_t bound);
/** True with a probability of `per_mille` / 1000. */
bool kernel_chance(uint32_t per_mille);

/** Wakes whoever waits on `fd`, as a socket's wake-up function does: an edge. */
void kernel_wake(int fd);

/** Gives an unused descriptor number of this kind, -1 if there is none. */
int kernel_new(enum kernel_kind kind);

/** A connection arrives at the listener: its socket, not yet accepted. */
int kernel_arrive(int peer);

/** What the network does to a socket. */
void kernel_receive(int fd, uint64_t key, uint64_t offset, uint32_t len);
/** One byte, urgent. */
void kernel_receive_urgent(int fd, uint64_t key, uint64_t offset);
void kernel_receive_fin(int fd);
void kernel_receive_reset(int fd);
/** TCP gives up: nobody answers (ETIMEDOUT), or what ICMP said meanwhile; also of a connect. */
void kernel_receive_error(int fd, int error);
/** The peer takes `len` of the bytes in flight; returns the new number of those not taken. */
void kernel_acknowledge(int fd, uint32_t len);
/** The peer has everything, and our FIN. */
void kernel_acknowledge_fin(int fd);

void kernel_connected(int fd, int peer);

#endif
