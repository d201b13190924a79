/*
 * bare: the smallest edge-triggered TCP relay that works, the floor that sluice is compared with.
 *
 *     bare 127.0.0.1:8080 127.0.0.1:9000         prints "bare: listening on ..." when it is ready
 *
 * The problem. What a forwarder costs for a request says little while nobody knows what the kernel
 * alone takes: accept, connect, recv, send, epoll_wait and the loopback in between. So this program
 * makes the calls that a relay cannot do without, and no other. What sluice costs more is the price
 * of its promises (times, records, counters, several servers); what both cost is the kernel's.
 *
 * The model. A connection is two ends; an end has a descriptor, and the direction from it to its
 * peer. epoll says once what became ready; `ready` keeps it until a system call takes it away.
 *
 *     end.fd --recv--> scratch --send--> peer.fd     what was not taken moves to `held`
 *     end.fd --splice--> pipe --splice--> peer.fd    after a read that filled the scratch buffer
 *
 * Calls that are left out, and why that is right:
 *   - recv after a short one: all there was has been read, and the next byte makes an edge
 *     (epoll(7), question 9). Not so before an urgent byte, where recv stops early: EPOLLPRI.
 *   - recv for the 0 of a FIN that was reported (EPOLLRDHUP) before a short read: all bytes before
 *     a FIN are in the queue when the FIN is.
 *   - send after a short one: the kernel has noted that somebody waits for space.
 *   - getsockopt(SO_ERROR) after connect: an end without EPOLLOUT is not written to, and a connect
 *     that failed has EPOLLERR.
 *   - shutdown for the second FIN: close sends it.
 *   - a segment for the first FIN: it goes along with the last bytes (MSG_MORE), if they are read
 *     when it is known.
 *   - accept4 until EAGAIN: that one costs 4.2 us, as it makes a socket and a file and throws them
 *     away, while epoll_wait with one more event costs 0.3 us (Linux 6.18, 2026-11-22). So the
 *     listening socket is level-triggered, and each of its events means one client.
 *
 * Invariants:
 *   I1  A direction takes only when it holds nothing and its target is writable. So it holds at
 *       most one read or one pipe, and EAGAIN of a splice speaks of the source: the pipe is empty.
 *   I2  A FIN is passed on when nothing is held; an error is passed on as a reset, at once.
 *   I3  A turn moves about TURN_BYTES in each direction; what could go on is queued.
 *   I4  A connection is freed only after the batch of events in which it ended.
 *
 * What it does not do: times, logs, limits, IPv6, several processes, and to deliver what a peer had
 * sent before it reset. When descriptors or memory run out it exits: a floor with holes is none.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SCRATCH_BYTES   (64 * 1024)
#define PIPE_BYTES      (1024 * 1024)
#define TURN_BYTES      (512 * 1024)
#define EVENTS_PER_TURN 256

struct pipe {
    struct pipe *next; /* on `idle_pipes` */
    int fds[2];        /* owned; to read from, to write to */
};

struct end {
    struct conn *conn;
    int fd;           /* owned */
    uint32_t ready;   /* EPOLL... bits that were reported and are not used up */
    bool ended;       /* the source sent FIN, and all before it was taken */
    bool finished;    /* and was given to the peer, and so was the FIN */
    bool splicing;    /* the last reads were bulk */
    size_t run_bytes; /* taken since the source was last empty */
    size_t held_bytes;
    size_t held_offset;
    struct pipe *pipe;   /* owned while it holds bytes; if there is none, they are in */
    unsigned char *held; /* owned; from held_offset on */
};

struct conn {
    struct conn *next; /* on `queue` */
    bool queued;
    bool over;
    struct end client;
    struct end server;
};

enum outcome { RESTS, HAS_MORE, BROKEN };

static unsigned char scratch[SCRATCH_BYTES];
static int epoll_fd;
static int listen_fd;
static struct sockaddr_in target;
static struct conn
    *queue; /* those with something to do without an event, and those that are over */
static struct pipe *idle_pipes;
static bool pipes_refused; /* no descriptor, or the user has all the pages that one may have */

static void die(const char *what, const char *then)
{
    fprintf(stderr, "bare: %s: %s; %s\n", what, strerror(errno), then);
    exit(1);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);

    if (memory == NULL) {
        die("no memory", "try with fewer connections");
    }
    return memory;
}

/* --- one direction --- */

static void pipe_return(struct pipe *pipe)
{
    pipe->next = idle_pipes;
    idle_pipes = pipe;
}

static struct pipe *pipe_lend(void)
{
    struct pipe *pipe = idle_pipes;
    int fds[2];

    if (pipe != NULL) {
        idle_pipes = pipe->next;
    } else if (!pipes_refused && pipe2(fds, O_NONBLOCK | O_CLOEXEC) == 0) {
        if (fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES) {
            pipe = allocate(sizeof(*pipe));
            *pipe = (struct pipe){.fds = {fds[0], fds[1]}};
            return pipe;
        }
        close(fds[0]);
        close(fds[1]);
    }
    pipes_refused = pipes_refused || pipe == NULL;
    return pipe;
}

static void source_is_empty(struct end *from)
{
    from->ready &= ~(uint32_t)(EPOLLIN | EPOLLPRI);
    from->splicing = from->splicing && from->run_bytes >= SCRATCH_BYTES;
    from->run_bytes = 0;
}

/* The next three return the number of bytes that moved, -1 if the connection is broken. */

static ssize_t move_by_copy(struct end *from, struct end *to)
{
    ssize_t taken = recv(from->fd, scratch, sizeof(scratch), 0);
    ssize_t given;

    if (taken <= 0) {
        from->ended = taken == 0;
        if (taken < 0 && errno == EAGAIN) {
            source_is_empty(from);
            return 0;
        }
        return taken;
    }
    from->run_bytes += (size_t)taken;
    if (taken == SCRATCH_BYTES) {
        from->splicing = true;
    } else if ((from->ready & EPOLLPRI) == 0) {
        from->ended = (from->ready & EPOLLRDHUP) != 0;
        source_is_empty(from);
    }
    given = send(to->fd, scratch, (size_t)taken, from->ended ? MSG_MORE : 0);
    if (given < 0 && errno != EAGAIN) {
        return -1;
    }
    if (given < taken) {
        given = given < 0 ? 0 : given;
        to->ready &= ~(uint32_t)EPOLLOUT;
        from->held_bytes = (size_t)(taken - given);
        from->held_offset = 0;
        from->held = memcpy(allocate(from->held_bytes), scratch + given, from->held_bytes);
    }
    return taken;
}

static ssize_t take_by_splice(struct end *from)
{
    struct pipe *pipe = pipe_lend();
    ssize_t taken;

    if (pipe == NULL) {
        from->splicing = false;
        return 0;
    }
    taken = splice(from->fd, NULL, pipe->fds[1], NULL, PIPE_BYTES, SPLICE_F_NONBLOCK);
    if (taken > 0) {
        from->pipe = pipe;
        from->held_bytes = (size_t)taken;
        from->run_bytes += (size_t)taken;
        return taken;
    }
    pipe_return(pipe);
    if (taken == 0) {
        from->splicing = false; /* FIN or an urgent byte: recv knows which */
    } else if (errno == EAGAIN) {
        source_is_empty(from); /* I1 */
        return 0;
    }
    return taken;
}

static ssize_t give_held(struct end *from, struct end *to)
{
    ssize_t given;

    if (from->pipe != NULL) {
        given = splice(from->pipe->fds[0], NULL, to->fd, NULL, from->held_bytes, SPLICE_F_NONBLOCK);
    } else {
        given = send(to->fd, from->held + from->held_offset, from->held_bytes, 0);
    }
    if (given == 0 || (given < 0 && errno != EAGAIN)) {
        return -1; /* a pipe that holds bytes never gives 0 */
    }
    given = given < 0 ? 0 : given;
    from->held_offset += (size_t)given;
    from->held_bytes -= (size_t)given;
    if (from->held_bytes > 0) {
        to->ready &= ~(uint32_t)EPOLLOUT;
    } else if (from->pipe != NULL) {
        pipe_return(from->pipe);
        from->pipe = NULL;
    } else {
        free(from->held);
        from->held = NULL;
    }
    return given;
}

static enum outcome pump(struct end *from, struct end *to)
{
    ssize_t left = TURN_BYTES;
    ssize_t moved;

    while (!from->finished && (to->ready & EPOLLOUT) != 0) {
        if (from->held_bytes > 0) {
            moved = give_held(from, to);
        } else if (from->ended) {
            from->finished = true;
            moved = to->finished ? 0 : shutdown(to->fd, SHUT_WR);
        } else if ((from->ready & EPOLLIN) == 0) {
            return RESTS;
        } else if (left <= 0) {
            return HAS_MORE; /* I3 */
        } else {
            moved = from->splicing ? take_by_splice(from) : move_by_copy(from, to);
        }
        if (moved < 0) {
            return BROKEN;
        }
        left -= moved;
    }
    return RESTS;
}

/* --- a connection --- */

static void enqueue(struct conn *conn)
{
    if (!conn->queued) {
        conn->queued = true;
        conn->next = queue;
        queue = conn;
    }
}

static void end_close(struct end *end, bool reset)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    if (reset) {
        (void)setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    }
    close(end->fd);
    free(end->held);
    if (end->pipe != NULL) {
        close(end->pipe->fds[0]);
        close(end->pipe->fds[1]);
        free(end->pipe);
    }
}

static void conn_close(struct conn *conn, bool reset)
{
    end_close(&conn->client, reset);
    end_close(&conn->server, reset);
    conn->over = true;
    enqueue(conn); /* to be freed: I4 */
}

static void conn_run(struct conn *conn)
{
    enum outcome up = pump(&conn->client, &conn->server);
    enum outcome down = pump(&conn->server, &conn->client);

    if (up == BROKEN || down == BROKEN) {
        conn_close(conn, true);
    } else if (conn->client.finished && conn->server.finished) {
        conn_close(conn, false);
    } else if (up == HAS_MORE || down == HAS_MORE) {
        enqueue(conn);
    }
}

static void watch(int fd, struct end *end, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = end};

    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        die("cannot watch a descriptor", "look at fs.epoll.max_user_watches");
    }
}

static void conn_start(int client_fd)
{
    const uint32_t events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
    struct conn *conn = allocate(sizeof(*conn));
    int server_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (server_fd < 0) {
        die("no socket for one more connection", "raise ulimit -n");
    }
    *conn = (struct conn){.client = {.conn = conn, .fd = client_fd},
                          .server = {.conn = conn, .fd = server_fd}};
    (void)setsockopt(server_fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (connect(server_fd, (struct sockaddr *)&target, sizeof(target)) < 0 &&
        errno != EINPROGRESS) {
        conn_close(conn, true);
        return;
    }
    watch(server_fd, &conn->server, events); /* first: writable before the client's bytes come */
    watch(client_fd, &conn->client, events);
}

/* --- the loop --- */

static void accept_client(void)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0) {
        conn_start(fd);
    } else if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
        die("cannot accept", "raise ulimit -n");
    }
}

/* One turn for each connection that is queued now. */
static void run_queue(void)
{
    struct conn *conn = queue;
    struct conn *next;

    for (queue = NULL; conn != NULL; conn = next) {
        next = conn->next;
        conn->queued = false;
        if (conn->over) {
            free(conn);
        } else {
            conn_run(conn);
        }
    }
}

static void turn(int timeout_ms)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int count = epoll_wait(epoll_fd, events, EVENTS_PER_TURN, timeout_ms);

    for (int i = 0; i < count; i++) {
        struct end *end = events[i].data.ptr;

        if (end == NULL) {
            accept_client();
        } else if (!end->conn->over && (events[i].events & EPOLLERR) != 0) {
            conn_close(end->conn, true);
        } else if (!end->conn->over) {
            end->ready |= events[i].events;
            conn_run(end->conn);
        }
    }
    run_queue();
}

static struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[16];
    uint16_t port;

    if (sscanf(text, "%15[0-9.]:%hu", host, &port) != 2 || port == 0 ||
        inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        fprintf(stderr, "bare: '%s' is no IPv4 address and port like 127.0.0.1:8080\n", text);
        exit(2);
    }
    address.sin_port = htons(port);
    return address;
}

int main(int argc, char **argv)
{
    struct rlimit descriptors;
    struct sockaddr_in local;

    if (argc != 3) {
        fprintf(stderr, "usage: bare LISTEN_ADDRESS:PORT TARGET_ADDRESS:PORT\n");
        return 2;
    }
    local = parse_address(argv[1]);
    target = parse_address(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
        descriptors.rlim_cur = descriptors.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &descriptors);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    (void)setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    (void)setsockopt(listen_fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)); /* inherited */
    if (bind(listen_fd, (struct sockaddr *)&local, sizeof(local)) < 0 ||
        listen(listen_fd, 4096) < 0) {
        die("cannot listen", "is the address of this machine, and free?");
    }
    watch(listen_fd, NULL, EPOLLIN);
    printf("bare: listening on %s\n", argv[1]);
    fflush(stdout);
    for (;;) {
        turn(queue == NULL ? -1 : 0);
    }
}
