/*
 * load_target: where the load connects to, and from which addresses.
 *
 * Layer: sockets that are not connected yet. Part of the program load.
 */
#ifndef BENCH_LOAD_TARGET_H
#define BENCH_LOAD_TARGET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define LOAD_TARGETS_MAX 64
#define LOAD_SOURCES_MAX 253 /* 127.0.0.2 .. 127.0.0.254 */

union load_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

struct load_target {
    union load_address address;
    char text[64]; /* as given */
};

struct load_targets {
    struct load_target list[LOAD_TARGETS_MAX];
    uint32_t count;
    uint32_t sources; /* 0: the kernel chooses the address to connect from */
};

/** Reads ADDR:PORT or [V6]:PORT, several with commas between. False if it is not that. */
bool load_targets_parse(const char *text, struct load_targets *ret_targets);

/** The target of the connection with this number: they take turns. */
const struct load_target *load_targets_of(const struct load_targets *targets, uint32_t number);

/** Begins to connect the connection with this number. Returns a non-blocking socket, owned by the
 *  caller, that becomes writable when it is connected; or a negative errno, with the step in
 *  words. */
int load_targets_connect(const struct load_targets *targets, uint32_t number, bool no_delay,
                         const char **ret_failed_step);

#endif
