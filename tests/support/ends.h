/* Test support: how a connection ended, from three sources that must agree: the peers, the close
 * record, and the kernel's own table of TCP connections.
 *
 * The kernel's table is what makes exact numbers possible. When nothing moves any more, each byte
 * that a sender's kernel took is in one of five places, and four of them can be read from outside:
 *
 *    sender's send queue | sluice's receive queue | held by sluice | sluice's send queue | receiver
 *                                                   ^^^^^^^^^^^^^^ what is left
 */
#ifndef SUPPORT_ENDS_H
#define SUPPORT_ENDS_H

#include "support/proxy.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** What `--splice` can be: the parameter of tests that must hold for both engines. */
enum { SPLICE_MODES = 3 };
extern const char *const splice_names[SPLICE_MODES];

/** What a close record must say. Texts that are NULL must be absent. */
struct expected_end {
    const char *reason;
    const char *closed_by;
    const char *how;
    const char *error;
    uint64_t bytes_up;
    uint64_t bytes_down;
    uint64_t undelivered_bytes;
};
/** Waits for the index-th close record and compares. */
void expect_end(struct proxy *proxy, size_t index, const struct expected_end *expected);
/** The parts of it that do not count bytes. */
void expect_reason(struct proxy *proxy, size_t index, const char *reason, const char *closed_by,
                   const char *how, const char *error);
/** A field in seconds, as milliseconds. */
double record_ms(const struct proxy *proxy, size_t index, const char *key);

/** The end of tests that stop sluice in another way than proxy_finish() does: TERM has been sent
 *  (or is sent here if sluice runs), so many records are there and the counters balance. */
void expect_stopped(struct proxy *proxy, size_t records, size_t connections);

/** TCP states, as the kernel numbers them (include/net/tcp_states.h). */
enum tcp_place {
    TCP_PLACE_ESTABLISHED = 1,
    TCP_PLACE_SYN_SENT = 2,
    TCP_PLACE_FIN_WAIT1 = 4,
    TCP_PLACE_FIN_WAIT2 = 5,
    TCP_PLACE_CLOSE_WAIT = 8,
    TCP_PLACE_LAST_ACK = 9,
    TCP_PLACE_CLOSING = 11
};
/** Waits until `count` sockets whose own or remote address is IP:PORT are in that state. */
void wait_tcp_count(const char *ip, uint16_t port, enum tcp_place state, size_t count);
/** The sockets of either end at this IPv4 address that are neither listening nor in TIME_WAIT. */
size_t count_tcp(const char *ip);

/** Waits until the peer's kernel has acknowledged everything that was sent on `fd`, its FIN too. */
void wait_acknowledged(int fd);

/** One direction of a proxied connection, of which both legs are IPv4 on this machine. */
struct way {
    int sender;
    int receiver;
    uint64_t key;
    bool is_up;    /* from client to server */
    uint64_t sent; /* what the sender's kernel took */
    uint64_t read; /* what the receiver has read */
    /* Where the rest was when block() returned. */
    uint64_t unsent;   /* in the sender's kernel */
    uint64_t untaken;  /* in sluice's receive queue: it has not read them */
    uint64_t unacked;  /* in sluice's send queue */
    uint64_t received; /* in the receiver's receive queue */
};

/** Sends on each way, whose receiver does not read, until no more is taken and nothing moves. */
void block(struct way ways[], size_t count);
/** Of a blocked way: bytes that reached sluice's kernel; that sluice took; that its socket to the
 *  receiver took; that would be lost if the receiver vanished. */
uint64_t way_arrived(const struct way *way);
uint64_t way_taken(const struct way *way);
uint64_t way_passed_on(const struct way *way);
uint64_t way_undelivered(const struct way *way);

/** Waits until this end has been reset. For those who have seen FIN before: recv(2) says 0 for
 *  ever. */
void expect_broken(int fd);

/** The only worker. */
pid_t only_worker(const struct proxy *proxy);
/** Stops a worker between two turns of its loop: what happens until thaw() makes one batch. */
void freeze(pid_t pid);
void thaw(pid_t pid);

/** A full backlog: from now on a SYN for this listening socket is dropped without a word. Returns
 *  the connection that fills it; accept and close that one to open the way again. */
int fill_backlog(int listen_fd, const char *ip, uint16_t port);
void free_backlog(int listen_fd, int filler);

uint64_t monotonic_ms(void);
void pause_ms(long ms);

#endif
