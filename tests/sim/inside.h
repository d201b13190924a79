/* What kernel.c and calls.c, the two halves of the model, know of each other. */
#ifndef SIM_INSIDE_H
#define SIM_INSIDE_H

#include "sim/kernel.h"

/** Appends a segment; false when the queue has `max` already. */
bool segments_push(struct segments *queue, struct segment segment, size_t max);
/** Takes up to `len` bytes of the first segment. */
struct segment segments_take(struct segments *queue, uint32_t len);

/** Called at the start of every system call: the network is not waiting for sluice. */
void kernel_interleave(void);
/** The descriptor's object; notes a violation when it is not open. */
struct ksocket *kernel_socket_at(int fd, const char *call);
/** What poll(2) says of it, all bits. Like tcp_poll(), asks for an edge when it is not writable. */
uint32_t kernel_poll_mask(struct ksocket *socket);
/** A wake-up that Linux gives today and nobody promises: it tells of nothing new. */
void kernel_wake_besides(int fd);
/** SIOCOUTQ: bytes not acknowledged, a FIN or SYN counts one. */
int kernel_unacknowledged(const struct ksocket *socket);
void kernel_size_buffers(struct ksocket *socket);

#endif
