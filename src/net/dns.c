/* getaddrinfo(3), reduced to a list of distinct TCP addresses in the order libc prefers (RFC 6724).
 *
 * EAI_ codes are negative on glibc and musl, which is why they can share the result with a
 * count. */
#include "net/dns.h"

#include <assert.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

static_assert(EAI_NONAME < 0 && EAI_AGAIN < 0, "error codes can be told from counts");

static bool is_known(const struct addr *addr, const struct addr *addrs, int count)
{
    for (int i = 0; i < count; i++) {
        if (addr_equal(addr, &addrs[i])) {
            return true;
        }
    }
    return false;
}

int dns_lookup(const char *host, uint16_t port, struct addr addrs[DNS_ADDRS_MAX])
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char service[8];
    int count = 0;
    int result;

    (void)snprintf(service, sizeof(service), "%u", port);
    result = getaddrinfo(host, service, &hints, &found);
    if (result != 0) {
        return result < 0 ? result : EAI_FAIL;
    }
    for (struct addrinfo *entry = found; entry != NULL && count < DNS_ADDRS_MAX;
         entry = entry->ai_next) {
        struct addr addr = {.len = entry->ai_addrlen};

        if (entry->ai_addrlen <= sizeof(addr.u)) {
            memcpy(&addr.u, entry->ai_addr, entry->ai_addrlen);
            addr_canonicalise(&addr);
            if (!is_known(&addr, addrs, count)) {
                addrs[count++] = addr;
            }
        }
    }
    freeaddrinfo(found);
    return count > 0 ? count : EAI_NONAME;
}

const char *dns_error(int result)
{
    return gai_strerror(result);
}

bool dns_error_is_temporary(int result)
{
    return result == EAI_AGAIN || result == EAI_MEMORY || result == EAI_SYSTEM;
}
