/* The same short story, told to two kernels: the model and Linux. Where their answers differ, the
 * model is wrong, and the simulation proves less than it says.
 *
 * A trace is a line of words, each one operation by us (a socket as sluice holds it) or by its peer:
 *
 *     connect add wait=OUT psend:5 wait=IN|OUT recv:3=3 pfin wait preset recv:9=2 recv:9=0 error=EPIPE
 *
 * After each word the network comes to rest; then the answer is noted: a count, an errno, the bits of
 * epoll. Two texts come of it, and they must be equal. Where a word has an answer with it, that must
 * be both kernels' answer.
 *
 *   we        arrive accept | connect | refused | socket     how the connection comes about
 *             add addl wait look                             epoll for the socket, the listener; poll(2)
 *             recv:N send:N fill shut linger:0|1 close       the socket; fill: send until EAGAIN
 *             in:N out:N read:N slots:N held                 splice, and the pipe between
 *             error unacked readable                         SO_ERROR, SIOCOUTQ, FIONREAD
 *   the peer  psend:N ptake pfin preset pclose               ptake: all there is; pclose: without linger
 *             purge plost                                    an urgent byte; our kernel gives it up
 */
#ifndef SIM_TRACE_H
#define SIM_TRACE_H

#include "net/look.h"
#include "net/sys.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TRACE_TEXT_MAX = 8192,
    TRACE_WORDS_MAX = 64,
    KEY_OURS = 11, /* the stream we send; stream.h */
    KEY_PEERS = 12
};

struct traced;

/** The functions of net/sys.h, of one kernel or the other. */
struct trace_calls {
    int (*socket)(int family);
    int (*accept)(int fd, struct sockaddr *address, socklen_t *address_len);
    int (*connect)(int fd, const struct sockaddr *address, socklen_t address_len);
    int (*set_option)(int fd, int level, int name, const void *value, socklen_t value_len);
    int (*get_option)(int fd, int level, int name, void *value, socklen_t *value_len);
    ssize_t (*recv)(int fd, void *bytes, size_t len);
    ssize_t (*send)(int fd, const void *bytes, size_t len, bool fin_follows);
    ssize_t (*splice)(int from_fd, int to_fd, size_t len);
    ssize_t (*read)(int fd, void *bytes, size_t len);
    int (*shutdown_write)(int fd);
    void (*close)(int fd);
    int (*pipe)(int fds[2]);
    int (*unacknowledged)(int fd);
    int (*readable_bytes)(int fd);
    int (*epoll_create)(void);
    int (*epoll_add)(int epoll_fd, int fd, uint32_t events, void *data);
    int (*epoll_wait)(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms);
    void (*look)(int fd, struct look *ret_look);
};

/* clang-format off */
#define TRACE_CALLS                                                                                \
    {                                                                                              \
        .socket = sys_socket, .accept = sys_accept, .connect = sys_connect,                        \
        .set_option = sys_set_option, .get_option = sys_get_option, .recv = sys_recv,              \
        .send = sys_send, .splice = sys_splice, .read = sys_read,                                  \
        .shutdown_write = sys_shutdown_write, .close = sys_close, .pipe = sys_pipe,                \
        .unacknowledged = sys_unacknowledged, .readable_bytes = sys_readable_bytes,                \
        .epoll_create = sys_epoll_create, .epoll_add = sys_epoll_add,                              \
        .epoll_wait = sys_epoll_wait, .look = look_at                                              \
    }
/* clang-format on */

/** A kernel under test: our system calls, and the peer, who is no part of what is compared. */
struct trace_kernel {
    const char *name;
    struct trace_calls calls;
    /** Makes t->listener_fd, and the peer's own listener. */
    void (*begin)(struct traced *t);
    /** Closes what the peer holds. */
    void (*end)(struct traced *t);
    /** A peer connects to our listener. */
    long (*arrive)(struct traced *t);
    /** Where to connect to: a port where the peer listens, or one where nobody does. */
    struct sockaddr_in (*target)(struct traced *t, bool listening);
    /** Our connect was begun: lets the peer accept it, if it listens. */
    void (*connecting)(struct traced *t, bool listening);
    long (*send)(struct traced *t, size_t len);
    /** One byte, urgent. */
    long (*send_urgent)(struct traced *t);
    /** Our kernel gives the peer up: it has not taken, for too long, what `fill` left for it. */
    void (*lose)(struct traced *t);
    /** The peer reads until nothing is left: bytes, and what then came: 0 for FIN, -EAGAIN, or an
     *  error. */
    long (*take)(struct traced *t, int *ret_end);
    long (*fin)(struct traced *t);
    long (*reset)(struct traced *t);
    long (*close)(struct traced *t);
    /** Makes our pipe one of so many slots. */
    long (*slots)(struct traced *t, int slots);
    /** Until everything that is on its way has arrived. */
    void (*settle)(struct traced *t);
};

/** One trace on one kernel. */
struct traced {
    const struct trace_kernel *kernel;
    int epoll_fd;
    int listener_fd;
    int fd; /* our socket, -1: none */
    int extra_fds[TRACE_WORDS_MAX];
    size_t extra_len;
    int pipe[2];
    bool connected; /* or refused */
    bool has_peer;
    bool filled; /* the peer is behind: bytes of ours wait for it to read */
    bool linger; /* how our sockets begin */
    uint64_t sent;
    uint64_t received;
    uint64_t peer_sent;
    unsigned surprises; /* words whose answer the trace has wrong */
    char text[TRACE_TEXT_MAX];
    size_t text_len;
};

extern const struct trace_kernel trace_model;
extern const struct trace_kernel trace_real;

/** Plays `trace` on a kernel; t->text is the result. */
void trace_play(struct traced *t, const struct trace_kernel *kernel, const char *trace);

/** Known corners, with the answers as measured: what sluice takes for granted of Linux. */
struct trace_corner {
    const char *title;
    const char *trace;
};
extern const struct trace_corner trace_corners[];
extern const size_t trace_corners_len;

/** Writes the trace of this seed. */
void trace_generate(uint64_t seed, char *trace, size_t size);

#endif
