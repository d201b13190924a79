/* Layer: relay. What is known of a connection when it ends: the source of its close record. */
#ifndef RELAY_RECORD_H
#define RELAY_RECORD_H

#include "base/reason.h"
#include "net/addr.h"

#include <stdint.h>

/** Plain data, valid only during the callback that gets it. A time that never came is
 *  RECORD_NO_TIME. */
struct record {
    uint64_t
        id; /* unique over all workers of a master: worker start number and connection number */
    const char *listener; /* as configured */
    const char *pool;     /* as configured */
    const char *server;   /* the one last tried or used; NULL: none */
    struct addr_compact client;
    struct addr client_local; /* our end of the client's leg; len 0: not known */
    struct addr_compact server_local;
    uint64_t bytes_up;          /* from the client, taken by the server's socket */
    uint64_t bytes_down;        /* from the server, taken by the client's socket */
    uint64_t spliced_bytes;     /* of both: through a pipe */
    uint64_t undelivered_bytes; /* received, but dropped or never acknowledged by the other side */
    uint64_t duration_ns;
    uint64_t connect_ns;    /* from accept to the established server connection */
    uint64_t first_byte_ns; /* from accept to the server's first byte */
    uint32_t retries;       /* servers tried beyond the first */
    uint32_t rtt_us;        /* smoothed, of the client's leg */
    enum reason reason;
    enum closed_by closed_by; /* whose FIN, reset or error came first */
    int error;                /* the errno behind it, 0: none */
};

#define RECORD_NO_TIME UINT64_MAX

#endif
