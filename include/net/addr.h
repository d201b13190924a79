/* Layer: net. Socket addresses: parse, format, compare, and their one canonical form.
 *
 * An IPv4 client of a dual-stack socket appears as ::ffff:a.b.c.d. Everything here turns that into
 * plain IPv4 first, so that records, comparisons and (later) access rules see one form only. */
#ifndef NET_ADDR_H
#define NET_ADDR_H

#include "base/macros.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/** Any address sluice can listen on or connect to, ready to be given to the kernel. */
struct addr {
    socklen_t len;
    bool dual_stack; /* listening on [::] for `:PORT`: IPv4 clients too */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } u;
};

/** An address in 24 bytes, canonical: what a session keeps. Of unix sockets only the family
 *  stays. */
struct addr_compact {
    sa_family_t family; /* AF_UNSPEC: not known */
    uint16_t port;      /* host byte order */
    uint32_t scope_id;  /* IPv6 link-local */
    union {
        struct in_addr v4;
        struct in6_addr v6;
    } u;
};

/** Longest text of an address: "unix:" and a full path, terminating 0 included. */
enum { ADDR_TEXT_BYTES = 128 };

/** What a LISTEN or TARGET argument may be. */
enum endpoint_kind {
    ENDPOINT_ANY,  /* `PORT` or `:PORT`: every local address; only the port is set */
    ENDPOINT_ADDR, /* a numeric or unix address: `addr` is complete */
    ENDPOINT_NAME  /* a host name: `host` and `port`, to be looked up */
};

enum { HOST_BYTES = 254 }; /* 253 is the longest name DNS allows (RFC 1035), and the 0 */

struct endpoint {
    enum endpoint_kind kind;
    uint16_t port;
    struct addr addr;
    char host[HOST_BYTES];
};

/** Parses `text`: PORT, :PORT, HOST:PORT, [V6]:PORT, unix:/PATH or unix:@NAME. Strict: no spaces,
 *  no leading zeros in ports, ports 1 to 65535. Returns NULL and fills `ret_endpoint`, or a static
 *  sentence that says what was expected. */
MUST_CHECK const char *endpoint_parse(const char *text, struct endpoint *ret_endpoint);

/** Writes `addr` as an endpoint would be written: 127.0.0.1:80, [::1]:80, unix:/run/x, unix:@x. An
 *  unnamed unix address is "unix:". */
void addr_format(const struct addr *addr, char text[ADDR_TEXT_BYTES]);

/** The same for a compact address; AF_UNSPEC gives "-". */
void addr_compact_format(const struct addr_compact *compact, char text[ADDR_TEXT_BYTES]);

/** Gives `addr` its one form: IPv4 where IPv6 only wraps it, a scope for link-local addresses only. */
void addr_canonicalise(struct addr *addr);

/** The canonical short form of `addr`. */
struct addr_compact addr_compact(const struct addr *addr);

/** The IPv4 or IPv6 wildcard with `port` (host byte order); the latter takes IPv4 clients too. */
struct addr addr_any(sa_family_t family, uint16_t port);

/** True when both name the same socket; v4-mapped IPv6 equals its IPv4. */
bool addr_equal(const struct addr *a, const struct addr *b);

/** True for 0.0.0.0, :: and ::ffff:0.0.0.0, whatever the port. */
bool addr_is_wildcard(const struct addr *addr);

/** True for 127.0.0.0/8, ::1, and the mapped form of the former. */
bool addr_is_loopback(const struct addr *addr);

/** Sets the port (host byte order) of an IPv4 or IPv6 address. */
void addr_set_port(struct addr *addr, uint16_t port);

/** The port in host byte order; 0 for unix addresses. */
uint16_t addr_port(const struct addr *addr);

#endif
