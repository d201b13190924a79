/* Where the bytes of one direction are, asked of the kernel from outside, for TCP over IPv4 and
 * IPv6 and for unix sockets:
 *
 *    sender ---- unsent | untaken ---- held ---- unacked | received ---- receiver has read the rest
 *              sender's | sluice's    sluice     sluice's | receiver's
 *                kernel | kernel      itself       kernel | kernel
 *
 * Only "held" can't be asked; it is what remains. It must be exact, so nothing may move meanwhile. */
#ifndef MATRIX_PLACE_H
#define MATRIX_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct place {
    uint64_t unsent;
    uint64_t untaken;
    uint64_t unacked;
    uint64_t received;
};
struct place place_ask(int sender, int receiver);
bool place_equal(const struct place *a, const struct place *b);

/** Bytes in the socket's own queues. */
uint64_t place_unacked(int fd);
uint64_t place_unread(int fd);

/** The pipes of a worker that have bytes in them, and how many bytes. */
struct pipes {
    size_t count;
    uint64_t bytes;
};
struct pipes place_pipes(pid_t worker);

#endif
