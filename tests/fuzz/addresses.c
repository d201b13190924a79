/* Fuzzes the parser of addresses, net/addr.c: any text at all as LISTEN or TARGET.
 *
 * Oracles
 *   A1 A refusal is a sentence, and leaves the caller's endpoint alone; an address has the length
 *      that the kernel wants.
 *   A2 An IPv4 address is what four decimal numbers say, worked out here a second time.
 *   A3 What is printed parses to an equal address, and is printed the same again.
 *   A4 An address is in its canonical form, and making it canonical changes nothing.
 *   A5 A host name is none that the resolver would take for a number: 0x7f.1 is an address to
 *      getaddrinfo(3), and whoever reads it in a configuration sees another one. */
#include "fuzz/common/input.h"
#include "net/addr.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A printed address in memory of exactly the size that is promised to suffice. */
static char *printed(const struct addr *addr)
{
    char *text = malloc(ADDR_TEXT_BYTES);

    memset(text, '#', ADDR_TEXT_BYTES);
    addr_format(addr, text);
    EXPECT(memchr(text, '\0', ADDR_TEXT_BYTES) != NULL, "the text has no end");
    return text;
}

/* Reads "a.b.c.d:port" by the book. False: it is not of that form. */
static bool read_v4(const char *text, uint32_t *ret_address, uint32_t *ret_port)
{
    static const char separators[] = "...:";
    uint32_t numbers[5];

    for (size_t i = 0; i < 5; i++) {
        size_t digits = strspn(text, "0123456789");

        if (digits == 0 || digits > 5 || (digits > 1 && text[0] == '0') ||
            text[digits] != separators[i]) {
            return false;
        }
        numbers[i] = (uint32_t)strtoul(text, NULL, 10);
        if (numbers[i] > (i < 4 ? 255u : 65535u)) {
            return false;
        }
        text += digits + 1;
    }
    *ret_address = numbers[0] << 24 | numbers[1] << 16 | numbers[2] << 8 | numbers[3];
    *ret_port = numbers[4];
    return numbers[4] > 0;
}

static void check_printing(const struct addr *addr, const char *text)
{
    char *once = printed(addr);
    char *twice;
    struct endpoint again;
    const char *expected = endpoint_parse(once, &again);

    EXPECT(expected == NULL, "A3: \"%s\" is printed as \"%s\": %s", text, once, expected);
    EXPECT(again.kind == ENDPOINT_ADDR, "A3: \"%s\" is printed as \"%s\"", text, once);
    EXPECT(addr_equal(addr, &again.addr), "A3: \"%s\" is printed as \"%s\"", text, once);
    EXPECT(memcmp(addr, &again.addr, sizeof(*addr)) == 0, "A3: hidden bytes of \"%s\"", once);
    twice = printed(&again.addr);
    EXPECT(strcmp(once, twice) == 0, "A3: \"%s\" is printed again as \"%s\"", once, twice);
    free(once);
    free(twice);
}

/* A1: what bind(2) and connect(2) take. */
static void check_length(const struct addr *addr, const char *text)
{
    const struct sockaddr_un *local = &addr->u.local;
    size_t name_len;

    switch (addr->u.any.sa_family) {
    case AF_INET:
        EXPECT(addr->len == sizeof(addr->u.v4), "A1: \"%s\" has %u bytes", text, addr->len);
        return;
    case AF_INET6:
        EXPECT(addr->len == sizeof(addr->u.v6), "A1: \"%s\" has %u bytes", text, addr->len);
        return;
    default:
        EXPECT(addr->u.any.sa_family == AF_UNIX, "A1: the family of \"%s\"", text);
        EXPECT(addr->len <= sizeof(*local), "A1: \"%s\" has %u bytes", text, addr->len);
        name_len = addr->len - offsetof(struct sockaddr_un, sun_path);
        EXPECT(local->sun_path[0] == '\0' || local->sun_path[name_len - 1] == '\0',
               "A1: the path \"%s\" has no end", text);
    }
}

static void check_addr(const struct endpoint *endpoint, const char *text)
{
    struct addr addr = endpoint->addr;
    struct addr_compact compact = addr_compact(&addr);
    char short_text[ADDR_TEXT_BYTES];
    uint32_t address;
    uint32_t port;

    check_length(&addr, text);
    EXPECT(addr_port(&addr) == endpoint->port, "the port of \"%s\"", text);
    addr_canonicalise(&addr);
    EXPECT(memcmp(&addr, &endpoint->addr, sizeof(addr)) == 0, "A4: \"%s\"", text);
    check_printing(&addr, text);
    if (addr.u.any.sa_family != AF_UNIX) {
        char *full = printed(&addr);

        addr_compact_format(&compact, short_text);
        EXPECT(strcmp(full, short_text) == 0, "A4: \"%s\" and \"%s\"", full, short_text);
        free(full);
    }
    if (read_v4(text, &address, &port)) {
        EXPECT(addr.u.any.sa_family == AF_INET && ntohl(addr.u.v4.sin_addr.s_addr) == address &&
                   endpoint->port == port,
               "A2: \"%s\"", text);
    }
}

static void check_name(const struct endpoint *endpoint, const char *text)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *found = NULL;
    size_t len = strlen(endpoint->host);

    EXPECT(len > 0 && len < HOST_BYTES, "\"%s\" is a name of %zu bytes", text, len);
    EXPECT(strncmp(text, endpoint->host, len) == 0 && text[len] == ':', "\"%s\"", text);
    EXPECT(getaddrinfo(endpoint->host, NULL, &hints, &found) != 0,
           "A5: \"%s\" is a number to the resolver", text);
}

static void check_accepted(const struct endpoint *endpoint, const char *text)
{
    uint32_t address;
    uint32_t port;

    if (read_v4(text, &address, &port)) {
        EXPECT(endpoint->kind == ENDPOINT_ADDR, "A2: \"%s\"", text);
    }
    switch (endpoint->kind) {
    case ENDPOINT_ANY:
        EXPECT(endpoint->port > 0, "\"%s\"", text);
        EXPECT(strchr(text, '.') == NULL && strchr(text, '/') == NULL, "\"%s\" is any", text);
        return;
    case ENDPOINT_ADDR:
        check_addr(endpoint, text);
        return;
    case ENDPOINT_NAME:
        EXPECT(endpoint->port > 0, "\"%s\"", text);
        check_name(endpoint, text);
        return;
    }
    EXPECT(false, "\"%s\" is of no kind", text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct input input = {bytes, len};
    char *text = input_text(&input, len);
    struct endpoint endpoint;
    struct endpoint untouched;
    const char *expected;
    uint32_t address;
    uint32_t port;

    memset(&endpoint, '#', sizeof(endpoint));
    untouched = endpoint;
    expected = endpoint_parse(text, &endpoint);
    if (expected == NULL) {
        check_accepted(&endpoint, text);
    } else {
        EXPECT(strncmp(expected, "expected ", 9) == 0, "A1: \"%s\"", expected);
        EXPECT(memcmp(&endpoint, &untouched, sizeof(endpoint)) == 0, "A1: \"%s\"", text);
        EXPECT(!read_v4(text, &address, &port), "A2: \"%s\" is refused: %s", text, expected);
    }
    free(text);
    return 0;
}
