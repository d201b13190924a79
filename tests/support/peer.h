/* Test support: clients and servers around the proxy, as blocking sockets with a bound on every wait.
 *
 * All functions fail the test (cr_assert) on anything unexpected, with a message that says what. */
#ifndef SUPPORT_PEER_H
#define SUPPORT_PEER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/** True with LONG=1 in the environment: the few tests with a longer form then use that. Give them
 *  the time: LONG=1 TIMEOUT=600 make test-net FILTER='...'. */
bool is_long_run(void);

/** No wait in a test is longer than this: a hang is a failure, not a time-out of the runner. */
enum { PEER_WAIT_S = 30 };

/** How a stream ended for the one who reads it. */
enum peer_end { PEER_FIN, PEER_RESET, PEER_NO_END };

/** Listens on IP:PORT (IPv4 or IPv6 text), or on "unix:/path", "unix:@name". */
int peer_listen(const char *ip, uint16_t port, int backlog);
int peer_listen_unix(const char *name);

/** Connects; the socket has TCP_NODELAY and a receive and send time-out of PEER_WAIT_S. */
int peer_connect(const char *ip, uint16_t port);
int peer_connect_unix(const char *name);
/** Starts to connect and returns at once. */
int peer_connect_later(const char *ip, uint16_t port);
/** Connects with small kernel buffers, so that backpressure comes early. */
int peer_connect_small(const char *ip, uint16_t port, int receive_bytes, int send_bytes);

/** Accepts one connection, waiting at most PEER_WAIT_S. */
int peer_accept(int listen_fd);
/** True if a connection waits within `wait_ms`. */
bool peer_readable(int fd, int wait_ms);

/** Sends all bytes of the stream of `key` from `offset` to `offset + len`. */
void peer_send(int fd, uint64_t key, uint64_t offset, uint64_t len);
/** The same until the connection ends; returns how many bytes the kernel took. */
uint64_t peer_send_until_error(int fd, uint64_t key, uint64_t len);
/** Receives exactly `len` bytes and checks each. */
void peer_expect(int fd, uint64_t key, uint64_t offset, uint64_t len);
/** Receives to the end, checks each byte, returns how many came and how it ended. */
uint64_t peer_drain(int fd, uint64_t key, uint64_t offset, enum peer_end *ret_end);
/** The next thing must be the end of that kind, without another byte. */
void peer_expect_end(int fd, enum peer_end end);

/** Sends FIN (half-close). */
void peer_shut(int fd);
/** Closes at once with RST. */
void peer_reset(int fd);
void peer_close(int fd);

/** The same sending and receiving in threads, for both directions at once. Start, then join. */
struct peer_task {
    pthread_t thread;
    int fd;
    uint64_t key;
    uint64_t offset;
    uint64_t len;
    size_t chunk_max;     /* 0: large; else writes or reads of 1 .. chunk_max bytes */
    uint64_t seed;        /* for chunk sizes */
    unsigned pause_us;    /* after each chunk; 0: none */
    bool shut_after;      /* sending: half-close behind the last byte */
    bool to_end;          /* receiving: to the end of the stream, `len` is then what came */
    enum peer_end end;    /* result of receiving */
    uint64_t mismatch_at; /* result: offset of the first wrong byte, UINT64_MAX: none */
    int error;            /* result: errno of a failed call, 0: none */
};
void peer_start_sending(struct peer_task *task);
void peer_start_receiving(struct peer_task *task);
/** Waits for the thread; fails the test on an error or a wrong byte. */
void peer_join(struct peer_task *task);

#endif
