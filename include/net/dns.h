/* Layer: net. Host names to addresses, with the libc resolver (hosts file, DNS, whatever nsswitch
 * says). Blocks: only for start-up, never in a worker. */
#ifndef NET_DNS_H
#define NET_DNS_H

#include "net/addr.h"

enum { DNS_ADDRS_MAX = 64 }; /* further addresses of one name are ignored */

/** Looks up `host` for TCP and stores up to DNS_ADDRS_MAX distinct addresses, each with `port`.
 *  Returns how many (>= 1), or a negative EAI_ code of getaddrinfo(3); dns_error() explains it. */
MUST_CHECK int dns_lookup(const char *host, uint16_t port, struct addr addrs[DNS_ADDRS_MAX]);

/** A sentence for what dns_lookup() returned. Static. */
const char *dns_error(int result);

/** True when another try may succeed: the name server did not answer, or memory was short. */
bool dns_error_is_temporary(int result);

#endif
