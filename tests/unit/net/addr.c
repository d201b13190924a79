/* Tests of addresses: what the parser takes and what it refuses with which sentence, and that printing
 * and comparing see one canonical form. */
#include "net/addr.h"

#include "base/macros.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <net/if.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EXPECTED_PORT "expected a port from 1 to 65535"
#define EXPECTED_FORM "expected HOST:PORT, [IPV6]:PORT, unix:/PATH or unix:@NAME"
#define EXPECTED_V4   "expected an IPv4 address of four numbers from 0 to 255"
#define EXPECTED_DECIMAL                                                                           \
    "expected an IPv4 address of four decimal numbers, or a name that is no number"
#define EXPECTED_V6         "expected an IPv6 address between the brackets"
#define EXPECTED_BRACKETS   "expected an IPv6 address in brackets: [V6]:PORT"
#define EXPECTED_CLOSING    "expected ] and :PORT after the IPv6 address"
#define EXPECTED_NAME       "expected a host name of letters, digits, - . and _"
#define EXPECTED_SHORT_NAME "expected a host name of at most 253 bytes"
#define EXPECTED_UNIX       "expected an absolute path (unix:/PATH) or an abstract name (unix:@NAME)"
#define EXPECTED_ABSTRACT   "expected a name after unix:@"
#define EXPECTED_SHORT_UNIX "expected a unix path or name of at most 107 bytes"

#define X10  "xxxxxxxxxx"
#define X50  X10 X10 X10 X10 X10
#define X100 X50 X50

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static struct endpoint parsed(const char *text)
{
    struct endpoint endpoint;
    const char *expected = endpoint_parse(text, &endpoint);

    cr_assert_null(expected, "\"%s\": %s", text, expected);
    return endpoint;
}

static struct addr parsed_addr(const char *text)
{
    struct endpoint endpoint = parsed(text);

    cr_assert(endpoint.kind == ENDPOINT_ADDR, "\"%s\" is no address", text);
    return endpoint.addr;
}

static struct addr v4_addr(uint32_t address, uint16_t port)
{
    struct addr addr = {.len = sizeof(addr.u.v4)};

    addr.u.v4.sin_family = AF_INET;
    addr.u.v4.sin_port = htons(port);
    addr.u.v4.sin_addr.s_addr = htonl(address);
    return addr;
}

static struct addr v6_addr(const char *address, uint16_t port, uint32_t scope_id)
{
    struct addr addr = {.len = sizeof(addr.u.v6)};

    addr.u.v6.sin6_family = AF_INET6;
    addr.u.v6.sin6_port = htons(port);
    addr.u.v6.sin6_scope_id = scope_id;
    cr_assert(inet_pton(AF_INET6, address, &addr.u.v6.sin6_addr) == 1, "%s", address);
    return addr;
}

/* A unix address whose path holds exactly these bytes. */
static struct addr unix_addr(const char *bytes, size_t len)
{
    struct addr addr = {.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)};

    addr.u.local.sun_family = AF_UNIX;
    memcpy(addr.u.local.sun_path, bytes, len);
    return addr;
}

static void assert_formats_as(const struct addr *addr, const char *expected)
{
    char text[ADDR_TEXT_BYTES];

    memset(text, '#', sizeof(text));
    addr_format(addr, text);
    cr_assert(memchr(text, '\0', sizeof(text)) != NULL, "no end within the buffer: %s", expected);
    cr_assert_str_eq(text, expected);
}

/* --- parsing --- */

/* Every address that may be written is understood: its family (as it counts, in the canonical form),
 * its port, and how it is printed again (which for the longer spellings is the short one). */
Test(addr, parses_every_form_of_address)
{
    static const struct {
        const char *text;
        sa_family_t family;
        uint16_t port;
        const char *printed; /* NULL: as written */
    } cases[] = {
        {"127.0.0.1:80", AF_INET, 80, NULL},
        {"0.0.0.0:1", AF_INET, 1, NULL},
        {"255.255.255.255:65535", AF_INET, 65535, NULL},
        {"[::1]:80", AF_INET6, 80, NULL},
        {"[::]:443", AF_INET6, 443, NULL},
        {"[fe80::1]:80", AF_INET6, 80, NULL},
        {"[fe80::1%lo]:80", AF_INET6, 80, NULL},
        {"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", AF_INET6, 65535, NULL},
        {"[0:0:0:0:0:0:0:1]:80", AF_INET6, 80, "[::1]:80"},
        {"[2001:0DB8::00aB]:80", AF_INET6, 80, "[2001:db8::ab]:80"},
        {"[::ffff:127.0.0.1]:80", AF_INET, 80, "127.0.0.1:80"},
        {"[::FFFF:7f00:1]:80", AF_INET, 80, "127.0.0.1:80"},
        {"[::127.0.0.1]:80", AF_INET6, 80, NULL},
        {"unix:/run/app.sock", AF_UNIX, 0, NULL},
        {"unix:/", AF_UNIX, 0, NULL},
        {"unix:/run/a b:80", AF_UNIX, 0, NULL},
        {"unix:@x", AF_UNIX, 0, NULL},
        {"unix:@/@ :80", AF_UNIX, 0, NULL},
        {"unix:/" X100 "xxxxxx", AF_UNIX, 0, NULL}, /* 107 bytes */
        {"unix:@" X100 "xxxxxx", AF_UNIX, 0, NULL},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct endpoint endpoint = parsed(cases[i].text);
        const char *printed = cases[i].printed != NULL ? cases[i].printed : cases[i].text;

        cr_assert(endpoint.kind == ENDPOINT_ADDR, "%s", cases[i].text);
        cr_assert(endpoint.port == cases[i].port, "%s", cases[i].text);
        cr_assert(addr_compact(&endpoint.addr).family == cases[i].family, "%s", cases[i].text);
        cr_assert(addr_port(&endpoint.addr) == cases[i].port, "%s", cases[i].text);
        cr_assert(!endpoint.addr.dual_stack, "%s: only `:PORT` means both", cases[i].text);
        assert_formats_as(&endpoint.addr, printed);
    }
}

/* A port alone means every address: it is all that is set. */
Test(addr, parses_a_port_alone)
{
    static const struct {
        const char *text;
        uint16_t port;
    } cases[] = {{"1", 1}, {":1", 1},        {"80", 80},       {":80", 80},
                 {"9", 9}, {"10000", 10000}, {"65535", 65535}, {":65535", 65535}};

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct endpoint endpoint = parsed(cases[i].text);

        cr_assert(endpoint.kind == ENDPOINT_ANY, "%s", cases[i].text);
        cr_assert(endpoint.port == cases[i].port, "%s", cases[i].text);
        cr_assert(endpoint.addr.len == 0, "%s", cases[i].text);
        cr_assert_str_eq(endpoint.host, "", "%s", cases[i].text);
    }
}

/* What is neither a number nor a bracket is a name to be looked up, kept as it was written. */
Test(addr, parses_a_host_name)
{
    static const char name_253[] = X100 X100 X50 "xxx";
    static const char *const hosts[] = {"localhost",
                                        "db1",
                                        "a",
                                        "A-b_c.Example.",
                                        "1.example",
                                        "1and1",
                                        "xn--bcher-kva.example",
                                        "_srv.x",
                                        "0xcafe.example",
                                        "0x7f.0.0.1.example",
                                        "0x",
                                        name_253,
                                        "unixes"};

    cr_assert(strlen(name_253) == HOST_BYTES - 1);
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        char text[HOST_BYTES + 8];
        struct endpoint endpoint;

        (void)snprintf(text, sizeof(text), "%s:5432", hosts[i]);
        endpoint = parsed(text);
        cr_assert(endpoint.kind == ENDPOINT_NAME, "%s", text);
        cr_assert(endpoint.port == 5432, "%s", text);
        cr_assert_str_eq(endpoint.host, hosts[i]);
    }
}

static const struct {
    const char *text;
    const char *expected;
} refused[] = {
    /* ports */
    {"", EXPECTED_FORM},
    {":", EXPECTED_PORT},
    {"0", EXPECTED_PORT},
    {":0", EXPECTED_PORT},
    {"65536", EXPECTED_PORT},
    {"99999", EXPECTED_PORT},
    {"100000", EXPECTED_PORT},
    {"4294967376", EXPECTED_PORT}, /* 80 + 2^32 */
    {"18446744073709551696", EXPECTED_PORT},
    {"00080", EXPECTED_PORT},
    {":080", EXPECTED_PORT},
    {":+80", EXPECTED_PORT},
    {":-80", EXPECTED_PORT},
    {": 80", EXPECTED_PORT},
    {":80 ", EXPECTED_PORT},
    {":0x50", EXPECTED_PORT},
    {"127.0.0.1:", EXPECTED_PORT},
    {"127.0.0.1:0", EXPECTED_PORT},
    {"127.0.0.1:65536", EXPECTED_PORT},
    {"127.0.0.1:http", EXPECTED_PORT},
    {"[::1]", EXPECTED_PORT},
    {"[::1]80", EXPECTED_PORT},
    {"[::1]:", EXPECTED_PORT},
    {"[::1]:0", EXPECTED_PORT},
    /* forms */
    {" 80", EXPECTED_FORM},
    {"80 ", EXPECTED_FORM},
    {"-1", EXPECTED_FORM},
    {"127.0.0.1", EXPECTED_FORM},
    {"localhost", EXPECTED_FORM},
    {"[", EXPECTED_FORM},
    {"unix", EXPECTED_FORM},
    {"/run/app.sock", EXPECTED_FORM},
    /* IPv4 */
    {"10.0.0.256:80", EXPECTED_V4},
    {"1.2.3:80", EXPECTED_V4},
    {"127.1:80", EXPECTED_V4},
    {"1.2.3.4.5:80", EXPECTED_V4},
    {"1.2.3.04:80", EXPECTED_V4},
    {"0177.0.0.1:80", EXPECTED_V4},
    {"2130706433:80", EXPECTED_V4},
    {"1.2.3.:80", EXPECTED_V4},
    {".:80", EXPECTED_V4},
    /* numbers to the resolver, which would connect to 127.0.0.1 */
    {"0x7f.1:80", EXPECTED_DECIMAL},
    {"0x7f000001:80", EXPECTED_DECIMAL},
    {"0X7F.0.0.1:80", EXPECTED_DECIMAL},
    {"127.0x1:80", EXPECTED_DECIMAL},
    {"127.0.0.0x01:80", EXPECTED_DECIMAL},
    /* IPv6 */
    {"::1:80", EXPECTED_BRACKETS},
    {"fe80::1:80", EXPECTED_BRACKETS},
    {"a:b:80", EXPECTED_BRACKETS},
    {"::80", EXPECTED_BRACKETS},
    {"[::1:80", EXPECTED_CLOSING},
    {"[:80", EXPECTED_CLOSING},
    {"[::1] :80", EXPECTED_CLOSING},
    {"[::1]x:80", EXPECTED_CLOSING},
    {"[]:80", EXPECTED_V6},
    {"[127.0.0.1]:80", EXPECTED_V6},
    {"[localhost]:80", EXPECTED_V6},
    {"[:::]:80", EXPECTED_V6},
    {"[::1]]:80", EXPECTED_V6},
    {"[[::1]]:80", EXPECTED_V6},
    {"[ ::1]:80", EXPECTED_V6},
    {"[1:2:3:4:5:6:7:8:9]:80", EXPECTED_V6},
    {"[12345::]:80", EXPECTED_V6},
    {"[::ffff:10.0.0.256]:80", EXPECTED_V6},
    {"[fe80::1%]:80", EXPECTED_V6},
    {"[fe80::1%no-such-if]:80", EXPECTED_V6},
    {"[fe80::1%lo%lo]:80", EXPECTED_V6},
    {"[%lo]:80", EXPECTED_V6},
    {"[" X50 "%lo]:80", EXPECTED_V6},
    /* names */
    {"-a:80", EXPECTED_NAME},
    {".a:80", EXPECTED_NAME},
    {"a b:80", EXPECTED_NAME},
    {" a:80", EXPECTED_NAME},
    {"a/b:80", EXPECTED_NAME},
    {"a\n:80", EXPECTED_NAME},
    {"b\xc3\xbc"
     "cher:80",
     EXPECTED_NAME},
    {"user@host:80", EXPECTED_NAME},
    {"**:80", EXPECTED_NAME},
    {X100 X100 X50 "xxxx:80", EXPECTED_SHORT_NAME}, /* 254 bytes */
    {X100 X100 X100 X100 ":80", EXPECTED_SHORT_NAME},
    /* unix */
    {"unix:", EXPECTED_UNIX},
    {"unix:rel", EXPECTED_UNIX},
    {"unix:./rel", EXPECTED_UNIX},
    {"unix: /x", EXPECTED_UNIX},
    {"unix:80", EXPECTED_UNIX},
    {"unix:@", EXPECTED_ABSTRACT},
    {"unix:/" X100 "xxxxxxx", EXPECTED_SHORT_UNIX}, /* 108 bytes */
    {"unix:@" X100 "xxxxxxx", EXPECTED_SHORT_UNIX},
    {"unix:/" X100 X100 X100, EXPECTED_SHORT_UNIX},
};

/* Every mistake gets the sentence that helps, and the result is not touched. */
Test(addr, refuses_what_is_wrong_and_says_what_was_expected)
{
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct endpoint endpoint;
        struct endpoint before;
        const char *expected;

        memset(&endpoint, 0x5a, sizeof(endpoint));
        memset(&before, 0x5a, sizeof(before));
        expected = endpoint_parse(refused[i].text, &endpoint);
        cr_assert_not_null(expected, "\"%s\" was accepted", refused[i].text);
        cr_assert_str_eq(expected, refused[i].expected, "\"%s\": %s", refused[i].text, expected);
        cr_assert(memcmp(&endpoint, &before, sizeof(endpoint)) == 0, "\"%s\"", refused[i].text);
    }
}

/* The number of an interface goes to the kernel with the address. */
Test(addr, keeps_the_scope_of_a_link_local_address)
{
    struct addr addr = parsed_addr("[fe80::1%lo]:80");

    cr_assert(addr.u.v6.sin6_scope_id == if_nametoindex("lo"));
    cr_assert(addr.u.v6.sin6_scope_id != 0);
    cr_assert(parsed_addr("[fe80::1]:80").u.v6.sin6_scope_id == 0);
}

/* What the kernel gets is as long as the kernel wants it: a path with its 0, an abstract name
 * without, as unix(7) counts. */
Test(addr, gives_unix_addresses_the_length_the_kernel_expects)
{
    size_t offset = offsetof(struct sockaddr_un, sun_path);
    struct addr path = parsed_addr("unix:/run/x");
    struct addr abstract = parsed_addr("unix:@x");

    cr_assert(path.len == offset + sizeof("/run/x"));
    cr_assert_str_eq(path.u.local.sun_path, "/run/x");
    cr_assert(abstract.len == offset + 2);
    cr_assert(memcmp(abstract.u.local.sun_path, "\0x", 2) == 0);
    cr_assert(parsed_addr("127.0.0.1:80").len == sizeof(struct sockaddr_in));
    cr_assert(parsed_addr("[::1]:80").len == sizeof(struct sockaddr_in6));
}

/* --- printing --- */

/* Addresses as the kernel hands them out, which no parser has seen: mapped, with a scope, unnamed,
 * without a terminating 0, of an unknown family. */
Test(addr, formats_what_the_kernel_returns)
{
    static const char path_108[] = "/" X100 "xxxxxxx";
    struct addr v4 = v4_addr(0xc0000207, 443);
    struct addr mapped = v6_addr("::ffff:192.0.2.7", 443, 0);
    struct addr mapped_scoped = v6_addr("::ffff:192.0.2.7", 443, 1);
    struct addr v6 = v6_addr("2001:db8::1", 65535, 0);
    struct addr scoped = v6_addr("fe80::1", 80, if_nametoindex("lo"));
    struct addr lost_interface = v6_addr("fe80::1", 80, 4000000000);
    struct addr no_port = v4_addr(INADDR_LOOPBACK, 0);
    struct addr unnamed = unix_addr("", 0);
    struct addr empty_unix = {.len = 0, .u.any.sa_family = AF_UNIX};
    struct addr whole_path = unix_addr(path_108, 108);
    struct addr whole_name = unix_addr("\0" X100 "xxxxxxx", 108);
    struct addr short_name = unix_addr("\0xyz", 4);
    struct addr short_path = unix_addr("/xyz", 4);
    struct addr padded_path = unix_addr("/x\0\0\0", 5);
    struct addr overlong = unix_addr(path_108, 108);
    struct addr unknown = {0};

    short_name.len -= 2; /* what stands behind the end is not part of it */
    short_path.len -= 2;
    overlong.len = 111; /* getsockname(2) may report more than it stores: unix(7), BUGS */
    assert_formats_as(&v4, "192.0.2.7:443");
    assert_formats_as(&mapped, "192.0.2.7:443");
    assert_formats_as(&mapped_scoped, "192.0.2.7:443");
    assert_formats_as(&v6, "[2001:db8::1]:65535");
    assert_formats_as(&scoped, "[fe80::1%lo]:80");
    assert_formats_as(&lost_interface, "[fe80::1%4000000000]:80");
    assert_formats_as(&no_port, "127.0.0.1:0");
    assert_formats_as(&unnamed, "unix:");
    assert_formats_as(&empty_unix, "unix:");
    assert_formats_as(&whole_path, "unix:/" X100 "xxxxxxx");
    assert_formats_as(&whole_name, "unix:@" X100 "xxxxxxx");
    assert_formats_as(&short_name, "unix:@x");
    assert_formats_as(&short_path, "unix:/x");
    assert_formats_as(&padded_path, "unix:/x");
    assert_formats_as(&overlong, "unix:/" X100 "xxxxxxx");
    assert_formats_as(&unknown, "-");
}

/* The short form keeps what a record shows, prints the same, and of a unix address only says that it
 * is one. */
Test(addr, compact_form_is_canonical_and_prints_the_same)
{
    static const struct {
        const char *text;
        sa_family_t family;
        uint16_t port;
        const char *printed;
    } cases[] = {
        {"192.0.2.7:443", AF_INET, 443, "192.0.2.7:443"},
        {"[::ffff:192.0.2.7]:443", AF_INET, 443, "192.0.2.7:443"},
        {"[2001:db8::1]:1", AF_INET6, 1, "[2001:db8::1]:1"},
        {"[fe80::1%lo]:80", AF_INET6, 80, "[fe80::1%lo]:80"},
        {"unix:/run/x", AF_UNIX, 0, "unix:"},
        {"unix:@x", AF_UNIX, 0, "unix:"},
    };
    struct addr_compact unknown = {.family = AF_UNSPEC};
    char text[ADDR_TEXT_BYTES];

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct addr addr = parsed_addr(cases[i].text);
        struct addr_compact compact = addr_compact(&addr);

        cr_assert(compact.family == cases[i].family, "%s", cases[i].text);
        cr_assert(compact.port == cases[i].port, "%s", cases[i].text);
        addr_compact_format(&compact, text);
        cr_assert_str_eq(text, cases[i].printed);
    }
    addr_compact_format(&unknown, text);
    cr_assert_str_eq(text, "-");
}

/* --- comparing --- */

/* Equal is what is the same socket to a peer, whatever the spelling; both ways round. */
Test(addr, equal_means_the_same_socket)
{
    static const struct {
        const char *a;
        const char *b;
        bool equal;
    } cases[] = {
        {"127.0.0.1:80", "127.0.0.1:80", true},
        {"127.0.0.1:80", "127.0.0.1:81", false},
        {"127.0.0.1:80", "127.0.0.2:80", false},
        {"127.0.0.1:80", "[::ffff:127.0.0.1]:80", true},
        {"[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", true},
        {"[::ffff:127.0.0.1]:80", "127.0.0.1:81", false},
        {"[::127.0.0.1]:80", "127.0.0.1:80", false},
        {"[::1]:80", "[0:0::1]:80", true},
        {"[::1]:80", "[::1]:81", false},
        {"[::1]:80", "[::2]:80", false},
        {"[::1]:80", "127.0.0.1:80", false},
        {"[::]:80", "0.0.0.0:80", false},
        {"[fe80::1%lo]:80", "[fe80::1%lo]:80", true},
        {"[fe80::1%lo]:80", "[fe80::1]:80", false},
        {"unix:/run/x", "unix:/run/x", true},
        {"unix:/run/x", "unix:/run/y", false},
        {"unix:/run/x", "unix:/run/xx", false},
        {"unix:@x", "unix:@x", true},
        {"unix:@x", "unix:@y", false},
        {"unix:@x", "unix:@xx", false},
        {"unix:@/x", "unix:/x", false},
        {"unix:@x", "127.0.0.1:80", false},
        {"unix:/run/x", "[::1]:80", false},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct addr a = parsed_addr(cases[i].a);
        struct addr b = parsed_addr(cases[i].b);

        cr_assert(addr_equal(&a, &b) == cases[i].equal, "%s %s", cases[i].a, cases[i].b);
        cr_assert(addr_equal(&b, &a) == cases[i].equal, "%s %s", cases[i].b, cases[i].a);
        cr_assert(addr_equal(&a, &a), "%s", cases[i].a);
    }
}

/* Nobody can say that two unnamed unix sockets, or two unknown addresses, are the same. */
Test(addr, unnamed_and_unknown_addresses_equal_nothing)
{
    struct addr unnamed = unix_addr("", 0);
    struct addr named = parsed_addr("unix:@x");
    struct addr unknown = {0};

    cr_assert(!addr_equal(&unnamed, &unnamed));
    cr_assert(!addr_equal(&unnamed, &named));
    cr_assert(!addr_equal(&unknown, &unknown));
    cr_assert(!addr_equal(&unknown, &unnamed));
}

/* A unix address that was parsed equals the one that the kernel gives back for it. */
Test(addr, parsed_unix_address_equals_what_getsockname_returns)
{
    char name[64];
    struct addr parsed_name;
    struct addr bound = {.len = sizeof(bound.u)};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(name, sizeof(name), "unix:@sluice-addr-%d", (int)getpid());
    parsed_name = parsed_addr(name);
    cr_assert(fd >= 0);
    cr_assert(bind(fd, &parsed_name.u.any, parsed_name.len) == 0);
    cr_assert(getsockname(fd, &bound.u.any, &bound.len) == 0);
    cr_assert(addr_equal(&bound, &parsed_name));
    assert_formats_as(&bound, name);
    (void)close(fd);
}

/* Wildcards and loopback addresses are told in all three spellings, whatever the port. */
Test(addr, knows_wildcard_and_loopback)
{
    static const struct {
        const char *text;
        bool wildcard;
        bool loopback;
    } cases[] = {
        {"0.0.0.0:80", true, false},
        {"0.0.0.0:65535", true, false},
        {"[::]:80", true, false},
        {"[::ffff:0.0.0.0]:80", true, false},
        {"0.0.0.1:80", false, false},
        {"127.0.0.1:80", false, true},
        {"127.0.0.0:80", false, true},
        {"127.255.255.255:80", false, true},
        {"[::ffff:127.0.0.1]:80", false, true},
        {"[::ffff:127.9.9.9]:80", false, true},
        {"[::1]:80", false, true},
        {"126.255.255.255:80", false, false},
        {"128.0.0.0:80", false, false},
        {"[::2]:80", false, false},
        {"[::127.0.0.1]:80", false, false},
        {"[::ffff:128.0.0.1]:80", false, false},
        {"[fe80::1%lo]:80", false, false},
        {"unix:/run/x", false, false},
        {"unix:@x", false, false},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct addr addr = parsed_addr(cases[i].text);

        cr_assert(addr_is_wildcard(&addr) == cases[i].wildcard, "%s", cases[i].text);
        cr_assert(addr_is_loopback(&addr) == cases[i].loopback, "%s", cases[i].text);
    }
}

/* The kernel hands out IPv4 peers of a dual-stack socket in mapped form: they are the IPv4 addresses. */
Test(addr, mapped_addresses_count_as_v4)
{
    static const struct {
        const char *mapped;
        const char *v4;
    } cases[] = {{"::ffff:127.0.0.1", "127.0.0.1:80"},
                 {"::ffff:0.0.0.0", "0.0.0.0:80"},
                 {"::ffff:192.0.2.7", "192.0.2.7:80"}};

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct addr mapped = v6_addr(cases[i].mapped, 80, 0);
        struct addr scoped = v6_addr(cases[i].mapped, 80, 1);
        struct addr v4 = parsed_addr(cases[i].v4);

        cr_assert(addr_equal(&mapped, &v4));
        cr_assert(addr_equal(&v4, &mapped));
        cr_assert(addr_equal(&scoped, &mapped));
        cr_assert(addr_compact(&mapped).family == AF_INET);
        cr_assert(addr_is_wildcard(&mapped) == addr_is_wildcard(&v4));
        cr_assert(addr_is_loopback(&mapped) == addr_is_loopback(&v4));
        addr_set_port(&mapped, 258);
        cr_assert(addr_port(&mapped) == 258);
        cr_assert(!addr_equal(&mapped, &v4));
        assert_formats_as(&scoped, cases[i].v4);
    }
}

/* The wildcard that `:PORT` stands for takes both families, and is a wildcard. */
Test(addr, any_is_the_wildcard_of_its_family)
{
    struct addr v4 = addr_any(AF_INET, 8080);
    struct addr v6 = addr_any(AF_INET6, 8080);

    cr_assert(addr_is_wildcard(&v4));
    cr_assert(addr_is_wildcard(&v6));
    cr_assert(!v4.dual_stack);
    cr_assert(v6.dual_stack);
    cr_assert(v4.len == sizeof(struct sockaddr_in));
    cr_assert(v6.len == sizeof(struct sockaddr_in6));
    assert_formats_as(&v4, "0.0.0.0:8080");
    assert_formats_as(&v6, "[::]:8080");
}

/* A port that is set is the port that is read, in host byte order, and nothing else changes. */
Test(addr, set_port_changes_the_port_only)
{
    struct addr v4 = parsed_addr("127.0.0.1:80");
    struct addr v6 = parsed_addr("[fe80::1%lo]:80");
    struct addr mapped = parsed_addr("[::ffff:127.0.0.1]:80");

    addr_set_port(&v4, 258);
    addr_set_port(&v6, 0);
    addr_set_port(&mapped, 65535);
    assert_formats_as(&v4, "127.0.0.1:258");
    assert_formats_as(&v6, "[fe80::1%lo]:0");
    assert_formats_as(&mapped, "127.0.0.1:65535");
    cr_assert(addr_port(&v4) == 258);
    cr_assert(v4.u.v4.sin_port == htons(258));
    cr_assert(addr_port(&mapped) == 65535);
}

/* A unix address has no port: setting one is a bug of the caller. */
Test(addr, set_port_aborts_on_a_unix_address, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct addr addr = parsed_addr("unix:@x");

    addr_set_port(&addr, 80);
}

/* There is a wildcard of IPv4 and IPv6 only. */
Test(addr, any_aborts_on_another_family, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    (void)addr_any(AF_UNIX, 80);
}

/* --- properties --- */

/* Random numeric addresses, with many zeros and with the mapped prefix among them. */
static struct addr random_addr(uint64_t *random)
{
    struct addr addr = v6_addr("::", (uint16_t)(1 + next_random(random) % 65535), 0);
    uint64_t kind = next_random(random) % 4;

    if (kind == 0) {
        return v4_addr((uint32_t)next_random(random), ntohs(addr.u.v6.sin6_port));
    }
    for (size_t i = 0; i < 16; i++) {
        if (next_random(random) % 2 == 0) {
            addr.u.v6.sin6_addr.s6_addr[i] = (uint8_t)next_random(random);
        }
    }
    if (kind == 1) {
        memcpy(&addr.u.v6.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    }
    return addr;
}

/* What is printed is read back as the same socket and printed the same again. */
Test(addr, printed_addresses_are_read_back)
{
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        uint64_t random = seed;
        struct addr addr = random_addr(&random);
        char text[ADDR_TEXT_BYTES];
        struct addr again;

        addr_format(&addr, text);
        again = parsed_addr(text);
        cr_assert(addr_equal(&addr, &again), "seed %llu: %s", (unsigned long long)seed, text);
        assert_formats_as(&again, text);
    }
}

/* Whatever a user types is either refused or means something that can be printed and read back: texts
 * put together at random from the pieces that addresses are made of. */
Test(addr, any_text_is_refused_or_has_a_round_trip)
{
    static const char *const pieces[] = {"[",     "]",     ":",  "::",      ".",   "%",
                                         "lo",    "unix:", "/",  "@",       "a",   "-",
                                         "0",     "1",     "80", "127",     "255", "256",
                                         "ff",    "fe80:", "*",  " ",       "_",   "65535",
                                         "[::1]", ":80",   ":9", "1.2.3.4", "\n",  "\xff"};
    size_t accepted = 0;

    for (uint64_t seed = 1; seed <= 60000; seed++) {
        uint64_t random = seed;
        char text[256] = "";
        char printed[ADDR_TEXT_BYTES];
        struct endpoint endpoint;

        for (uint64_t left = 1 + next_random(&random) % 7; left > 0; left--) {
            (void)strcat(text, pieces[next_random(&random) % ARRAY_LEN(pieces)]);
        }
        if (endpoint_parse(text, &endpoint) != NULL) {
            continue;
        }
        accepted++;
        if (endpoint.kind == ENDPOINT_ADDR) {
            struct addr again;

            addr_format(&endpoint.addr, printed);
            again = parsed_addr(printed);
            cr_assert(addr_equal(&again, &endpoint.addr), "\"%s\" \"%s\"", text, printed);
        } else {
            cr_assert(endpoint.port > 0, "\"%s\"", text);
        }
    }
    cr_assert(accepted > 1000, "only %zu texts were taken", accepted);
}
