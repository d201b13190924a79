/* One way through sluice: a listener of sluice, and the origin's listening socket behind it. */
#ifndef MATRIX_ROUTE_H
#define MATRIX_ROUTE_H

#include "matrix/cell.h"

#include <stdint.h>

enum { ROUTE_TEXT_BYTES = 64 };

enum route_size {
    ROUTE_PLAIN,
    ROUTE_TIGHT, /* small buffers and segments at both peers: full soon */
    ROUTE_FLOOD  /* the same with large send buffers: senders are always ahead */
};

struct route {
    int family; /* enum family */
    enum route_size size;
    char listen[ROUTE_TEXT_BYTES]; /* as in the log: what sluice listens on */
    char argument[2 * ROUTE_TEXT_BYTES];
    char ip[16];
    uint16_t port;
    int holder; /* keeps the port of an IPv6 listener for sluice, -1: none */
    int origin;
    int filler; /* while the origin's backlog is full, -1 otherwise */
    size_t opened;
};

/** Opens the origin and writes the argument for sluice; `index` is unique in this process. */
void route_init(struct route *route, int family, enum route_size size, const char *ip,
                unsigned index);
void route_close(struct route *route);

/** A client that is connected to sluice. */
int route_connect(struct route *route);
/** The next connection from sluice; waits for it. */
int route_accept(const struct route *route);

/** From here on sluice's connects wait, until the way is opened again. */
void route_block(struct route *route);
void route_unblock(struct route *route);

#endif
