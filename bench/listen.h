/*
 * listen: the addresses of the origin, and the listening sockets there.
 *
 * Layer: sockets only. Names are not looked up: an address is "A.B.C.D:PORT", "[V6]:PORT" or
 * "unix:/PATH".
 */
#ifndef BENCH_LISTEN_H
#define BENCH_LISTEN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#define LISTEN_TEXT_MAX (sizeof(struct sockaddr_un) + 8) /* of an address, with its end */

union listen_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

/* False, and nothing written, if `text` is no address. */
bool listen_parse(const char *text, union listen_address *ret_address);

void listen_format(const union listen_address *address, char *ret_text, size_t size);

/* Opens `count` non-blocking listening sockets at one address (the same one `count` times for a
 * unix socket), which the caller then owns, and writes the port that the kernel chose to `address`.
 * Returns 0, or a negative errno; then what was opened stays open until the process ends. */
int listen_open(union listen_address *address, int count, int *ret_fds);

/* After listen_open(): removes the file of a unix socket. */
void listen_remove(const union listen_address *address);

#endif
