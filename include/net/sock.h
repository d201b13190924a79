/* Layer: net. Sockets with the options sluice wants: one way to listen, one way to connect. */
#ifndef NET_SOCK_H
#define NET_SOCK_H

#include "net/addr.h"

/** How both legs of a connection find out that a peer is gone. 0 switches a row off. */
struct sock_tuning {
    uint32_t keepalive_idle_s;     /* TCP_KEEPIDLE: silence before the first probe */
    uint32_t keepalive_interval_s; /* TCP_KEEPINTVL: between probes */
    uint32_t user_timeout_ms;      /* TCP_USER_TIMEOUT: unacknowledged for so long means gone */
};

/** Opens a listening TCP socket on `addr`. `first` is the first socket of this process on that
 *  address: it fails with -EADDRINUSE if anyone listens there, even with SO_REUSEPORT; the others
 *  join it. Accepted connections inherit all options. Returns a descriptor or a negative errno. */
MUST_CHECK int sock_listen_tcp(const struct addr *addr, const struct sock_tuning *tuning,
                               bool first);

/** Opens a listening unix socket. A path left behind by a process that is gone is taken over;
 *  -EADDRINUSE when somebody listens there, -ENOTSOCK when the path is something else. */
MUST_CHECK int sock_listen_unix(const struct addr *addr);

/** A socket ready to connect to an address of `family`, bound to `source` if that is not NULL and
 *  of the same family (the port is chosen at connect, IP_BIND_ADDRESS_NO_PORT, so that ports are
 *  shared between destinations). sock_watch_peer() is left to the caller. Returns a descriptor or a
 *  negative errno. */
MUST_CHECK int sock_new(sa_family_t family, const struct addr *source);

/** Sets what tells that the peer of a TCP socket is gone, for one that was made without. It may be
 *  connected, and may be set again. 0 or a negative errno. */
MUST_CHECK int sock_watch_peer(int fd, const struct sock_tuning *tuning);

/** The local address of a socket. After a TCP connect it may be the peer's: Linux lets a loopback
 *  connect to a port of the ephemeral range succeed against its own socket (simultaneous open,
 *  RFC 9293 3.5). */
MUST_CHECK int sock_local_address(int fd, struct addr *ret_addr);

/** Whether closing `fd` shows the peer a reset (true: the state every socket starts in, so that
 *  even a killed worker never looks like a clean end) or lets what was sent arrive, then FIN
 *  (false). 0, or a negative errno: then it stays as it was. */
int sock_reset_on_close(int fd, bool reset);

/** Keeps urgent bytes in their place in the stream. sock_new() and TCP listeners do it by themselves. */
void sock_keep_urgent_inline(int fd);

/** Takes and clears the pending error of a socket (SO_ERROR): 0, or a positive errno. */
int sock_take_error(int fd);

/** The smoothed round-trip time of a TCP socket in microseconds, 0 if there is none. */
uint32_t sock_rtt_us(int fd);

#endif
