/* Addresses: the strict parser of what a user writes, and the one way to print and compare them.
 *
 * inet_pton(3) does the numeric work: unlike inet_aton it takes no octal, no hex and no `127.1`.
 * A text of digits and dots that is not an address is an error and not a host name, so that a
 * typing slip such as 10.0.0.256 is not sent to a name server. Nor is a text that only the resolver
 * would take for a number, such as 0x7f.1: getaddrinfo(3) connects that to 127.0.0.1.
 *
 * Canonical form: v4-mapped IPv6 (RFC 4291 2.5.5.2) becomes IPv4 in addr_compact(), and every
 * comparison goes through it. */
#include "net/addr.h"

#include "base/check.h"
#include "base/digits.h"

#include <arpa/inet.h>
#include <assert.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

static_assert(sizeof(struct addr_compact) == 24, "sessions keep two of these");

static const char expected_port[] = "expected a port from 1 to 65535";
static const char expected_form[] = "expected HOST:PORT, [IPV6]:PORT, unix:/PATH or unix:@NAME";

static bool parse_port(const char *text, uint16_t *ret_port)
{
    uint32_t port = 0;
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 5 || text[digits] != '\0' || text[0] == '0') {
        return false;
    }
    for (const char *digit = text; *digit != '\0'; digit++) {
        port = port * 10 + (uint32_t)(*digit - '0');
    }
    if (port > UINT16_MAX) {
        return false;
    }
    *ret_port = (uint16_t)port;
    return true;
}

static const char *parse_unix(const char *name, struct endpoint *endpoint)
{
    struct sockaddr_un *local = &endpoint->addr.u.local;
    size_t len = strlen(name);

    if (name[0] != '/' && name[0] != '@') {
        return "expected an absolute path (unix:/PATH) or an abstract name (unix:@NAME)";
    }
    if (name[0] == '@' && len == 1) {
        return "expected a name after unix:@";
    }
    if (len > sizeof(local->sun_path) - 1) {
        return "expected a unix path or name of at most 107 bytes";
    }
    memset(&endpoint->addr, 0, sizeof(endpoint->addr));
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, name, len);
    if (name[0] == '@') {
        /* Abstract names begin with a 0 byte and end where the length says: unix(7). */
        local->sun_path[0] = '\0';
        endpoint->addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    } else {
        endpoint->addr.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
    }
    endpoint->kind = ENDPOINT_ADDR;
    endpoint->port = 0;
    return NULL;
}

static bool parse_v4(const char *host, uint16_t port, struct addr *ret_addr)
{
    struct in_addr address;

    if (inet_pton(AF_INET, host, &address) != 1) {
        return false;
    }
    memset(ret_addr, 0, sizeof(*ret_addr));
    ret_addr->len = sizeof(ret_addr->u.v4);
    ret_addr->u.v4.sin_family = AF_INET;
    ret_addr->u.v4.sin_port = htons(port);
    ret_addr->u.v4.sin_addr = address;
    return true;
}

static bool parse_v6(const char *host, uint16_t port, struct addr *ret_addr)
{
    char digits[INET6_ADDRSTRLEN];
    const char *percent = strchr(host, '%');
    size_t len = percent != NULL ? (size_t)(percent - host) : strlen(host);
    struct in6_addr address;
    uint32_t scope_id = 0;

    if (len >= sizeof(digits)) {
        return false;
    }
    memcpy(digits, host, len);
    digits[len] = '\0';
    if (inet_pton(AF_INET6, digits, &address) != 1) {
        return false;
    }
    if (percent != NULL) {
        scope_id = if_nametoindex(percent + 1);
        if (scope_id == 0) {
            return false;
        }
    }
    memset(ret_addr, 0, sizeof(*ret_addr));
    ret_addr->len = sizeof(ret_addr->u.v6);
    ret_addr->u.v6.sin6_family = AF_INET6;
    ret_addr->u.v6.sin6_port = htons(port);
    ret_addr->u.v6.sin6_addr = address;
    ret_addr->u.v6.sin6_scope_id = scope_id;
    addr_canonicalise(ret_addr);
    return true;
}

static bool is_host_name(const char *host)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz"
                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

    return host[0] != '\0' && host[0] != '-' && host[0] != '.' &&
           host[strspn(host, allowed)] == '\0';
}

static const char *parse_host(const char *host, bool bracketed, struct endpoint *endpoint)
{
    struct in_addr ignored;

    endpoint->kind = ENDPOINT_ADDR;
    if (bracketed) {
        return parse_v6(host, endpoint->port, &endpoint->addr)
                   ? NULL
                   : "expected an IPv6 address between the brackets";
    }
    if (strcmp(host, "*") == 0) {
        endpoint->kind = ENDPOINT_ANY;
        return NULL;
    }
    if (parse_v4(host, endpoint->port, &endpoint->addr)) {
        return NULL;
    }
    if (host[strspn(host, "0123456789.")] == '\0') {
        return "expected an IPv4 address of four numbers from 0 to 255";
    }
    if (!is_host_name(host)) {
        return strchr(host, ':') != NULL ? "expected an IPv6 address in brackets: [V6]:PORT"
                                         : "expected a host name of letters, digits, - . and _";
    }
    if (inet_aton(host, &ignored) != 0) {
        return "expected an IPv4 address of four decimal numbers, or a name that is no number";
    }
    endpoint->kind = ENDPOINT_NAME;
    return NULL;
}

const char *endpoint_parse(const char *text, struct endpoint *ret_endpoint)
{
    struct endpoint endpoint = {0};
    const char *colon = strrchr(text, ':');
    const char *host = text;
    bool bracketed = text[0] == '[';
    const char *expected;
    size_t len;

    if (strncmp(text, "unix:", 5) == 0) {
        expected = parse_unix(text + 5, &endpoint);
        goto done;
    }
    if (parse_port(colon == text ? text + 1 : text, &endpoint.port)) {
        endpoint.kind = ENDPOINT_ANY;
        expected = NULL;
        goto done;
    }
    if (colon == NULL) {
        bool is_number = text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';

        return is_number ? expected_port : expected_form;
    }
    if (!parse_port(colon + 1, &endpoint.port)) {
        return expected_port;
    }
    len = (size_t)(colon - host);
    if (bracketed) {
        host++;
        len = len >= 2 ? len - 2 : 0;
        if (colon[-1] != ']') {
            return "expected ] and :PORT after the IPv6 address";
        }
    }
    if (len >= sizeof(endpoint.host)) {
        return "expected a host name of at most 253 bytes";
    }
    memcpy(endpoint.host, host, len);
    endpoint.host[len] = '\0';
    expected = parse_host(endpoint.host, bracketed, &endpoint);
done:
    if (expected == NULL) {
        *ret_endpoint = endpoint;
    }
    return expected;
}

void addr_canonicalise(struct addr *addr)
{
    struct sockaddr_in6 v6 = addr->u.v6;

    if (addr->u.any.sa_family != AF_INET6) {
        return;
    }
    if (!IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
        /* Another address's scope would make equal addresses differ. */
        addr->u.v6.sin6_scope_id = IN6_IS_ADDR_LINKLOCAL(&v6.sin6_addr) ? v6.sin6_scope_id : 0;
        return;
    }
    memset(addr, 0, sizeof(*addr));
    addr->len = sizeof(addr->u.v4);
    addr->u.v4.sin_family = AF_INET;
    addr->u.v4.sin_port = v6.sin6_port;
    memcpy(&addr->u.v4.sin_addr, &v6.sin6_addr.s6_addr[12], sizeof(addr->u.v4.sin_addr));
}

struct addr_compact addr_compact(const struct addr *addr)
{
    struct addr_compact compact = {.family = addr->u.any.sa_family};

    switch (compact.family) {
    case AF_INET:
        compact.port = ntohs(addr->u.v4.sin_port);
        compact.u.v4 = addr->u.v4.sin_addr;
        break;
    case AF_INET6:
        compact.port = ntohs(addr->u.v6.sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&addr->u.v6.sin6_addr)) {
            compact.family = AF_INET;
            memcpy(&compact.u.v4, &addr->u.v6.sin6_addr.s6_addr[12], sizeof(compact.u.v4));
        } else {
            compact.u.v6 = addr->u.v6.sin6_addr;
            compact.scope_id = addr->u.v6.sin6_scope_id;
        }
        break;
    default:
        break;
    }
    return compact;
}

static void format_v6(const struct addr_compact *compact, char text[ADDR_TEXT_BYTES])
{
    char host[INET6_ADDRSTRLEN];
    char scope[IF_NAMESIZE + 1] = "";

    CHECK(inet_ntop(AF_INET6, &compact->u.v6, host, sizeof(host)) != NULL);
    if (compact->scope_id != 0) {
        scope[0] = '%';
        if (if_indextoname(compact->scope_id, scope + 1) == NULL) {
            (void)snprintf(scope + 1, sizeof(scope) - 1, "%u", compact->scope_id);
        }
    }
    (void)snprintf(text, ADDR_TEXT_BYTES, "[%s%s]:%u", host, scope, compact->port);
}

static void format_v4(const struct addr_compact *compact, char text[ADDR_TEXT_BYTES])
{
    uint32_t host = ntohl(compact->u.v4.s_addr);

    for (int shift = 24; shift >= 0; shift -= 8) {
        text = digits_decimal(text, host >> shift & 0xff);
        *text++ = shift > 0 ? '.' : ':';
    }
    *digits_decimal(text, compact->port) = '\0';
}

void addr_compact_format(const struct addr_compact *compact, char text[ADDR_TEXT_BYTES])
{
    switch (compact->family) {
    case AF_INET:
        format_v4(compact, text);
        return;
    case AF_INET6:
        format_v6(compact, text);
        return;
    case AF_UNIX:
        (void)snprintf(text, ADDR_TEXT_BYTES, "unix:");
        return;
    default:
        (void)snprintf(text, ADDR_TEXT_BYTES, "-");
    }
}

/* The bytes of the name in a unix address; abstract names may hold any byte. */
static size_t unix_name_len(const struct addr *addr)
{
    size_t offset = offsetof(struct sockaddr_un, sun_path);

    return addr->len > offset ? addr->len - offset : 0;
}

void addr_format(const struct addr *addr, char text[ADDR_TEXT_BYTES])
{
    struct addr_compact compact;
    size_t len;

    if (addr->u.any.sa_family != AF_UNIX) {
        compact = addr_compact(addr);
        addr_compact_format(&compact, text);
        return;
    }
    len = min_size(unix_name_len(addr), sizeof(addr->u.local.sun_path));
    if (len == 0) {
        (void)snprintf(text, ADDR_TEXT_BYTES, "unix:");
    } else if (addr->u.local.sun_path[0] == '\0') {
        (void)snprintf(text, ADDR_TEXT_BYTES, "unix:@%.*s", (int)len - 1,
                       addr->u.local.sun_path + 1);
    } else {
        (void)snprintf(text, ADDR_TEXT_BYTES, "unix:%.*s", (int)len, addr->u.local.sun_path);
    }
}

struct addr addr_any(sa_family_t family, uint16_t port)
{
    struct addr addr = {0};

    CHECK(family == AF_INET || family == AF_INET6);
    if (family == AF_INET) {
        addr.len = sizeof(addr.u.v4);
        addr.u.v4.sin_port = htons(port);
    } else {
        addr.len = sizeof(addr.u.v6);
        addr.dual_stack = true;
        addr.u.v6.sin6_port = htons(port);
    }
    addr.u.any.sa_family = family;
    return addr;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
    struct addr_compact left = addr_compact(a);
    struct addr_compact right = addr_compact(b);

    if (left.family != right.family || left.port != right.port) {
        return false;
    }
    switch (left.family) {
    case AF_INET:
        return left.u.v4.s_addr == right.u.v4.s_addr;
    case AF_INET6:
        return left.scope_id == right.scope_id && IN6_ARE_ADDR_EQUAL(&left.u.v6, &right.u.v6);
    case AF_UNIX:
        return unix_name_len(a) == unix_name_len(b) && unix_name_len(a) > 0 &&
               memcmp(a->u.local.sun_path, b->u.local.sun_path, unix_name_len(a)) == 0;
    default:
        return false;
    }
}

bool addr_is_wildcard(const struct addr *addr)
{
    struct addr_compact compact = addr_compact(addr);

    if (compact.family == AF_INET) {
        return compact.u.v4.s_addr == htonl(INADDR_ANY);
    }
    return compact.family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&compact.u.v6);
}

bool addr_is_loopback(const struct addr *addr)
{
    struct addr_compact compact = addr_compact(addr);

    if (compact.family == AF_INET) {
        return ntohl(compact.u.v4.s_addr) >> 24 == IN_LOOPBACKNET;
    }
    return compact.family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&compact.u.v6);
}

uint16_t addr_port(const struct addr *addr)
{
    return addr_compact(addr).port;
}

void addr_set_port(struct addr *addr, uint16_t port)
{
    CHECK(addr->u.any.sa_family == AF_INET || addr->u.any.sa_family == AF_INET6);
    if (addr->u.any.sa_family == AF_INET) {
        addr->u.v4.sin_port = htons(port);
    } else {
        addr->u.v6.sin6_port = htons(port);
    }
}
