/* Tests of looking up names. The answers come from a name server of the test's own, on a loopback
 * address: nothing depends on what the machine or its network knows, and failures come at once. */
#include "net/dns.h"

#include "base/macros.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netdb.h>
#include <nss.h>
#include <pthread.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- a name server --- */

enum { TYPE_A = 1, TYPE_AAAA = 28, RCODE_OK = 0, RCODE_SERVFAIL = 2, RCODE_NXDOMAIN = 3 };

/* What the server knows; addresses are in text, separated by spaces. */
static const struct {
    const char *name;
    unsigned rcode;
    const char *v4;
    const char *v6;
    unsigned more_v4; /* so many further ones: 127.77.0.1, 127.77.0.2 ... */
} zone[] = {
    {"one.test", RCODE_OK, "192.0.2.7", "", 0},
    {"six.test", RCODE_OK, "", "2001:db8::7", 0},
    {"both.test", RCODE_OK, "192.0.2.7 192.0.2.8", "2001:db8::7 2001:db8::8", 0},
    {"twice.test", RCODE_OK, "192.0.2.7 192.0.2.8 192.0.2.7 192.0.2.7", "2001:db8::7 2001:db8::7",
     0},
    {"mapped.test", RCODE_OK, "192.0.2.7", "::ffff:192.0.2.7", 0},
    {"wrapped.test", RCODE_OK, "", "::ffff:192.0.2.7", 0},
    {"most.test", RCODE_OK, "", "", DNS_ADDRS_MAX},
    {"many.test", RCODE_OK, "", "", DNS_ADDRS_MAX + 6},
    {"empty.test", RCODE_OK, "", "", 0},
    {"broken.test", RCODE_SERVFAIL, "", "", 0},
};

struct message {
    size_t len;
    unsigned char bytes[8192];
};

static void put(struct message *message, const void *bytes, size_t len)
{
    memcpy(message->bytes + message->len, bytes, len);
    message->len += len;
}

/* One resource record for the name asked for (RFC 1035 4.1.3). */
static void put_address(struct message *answer, int family, const char *text)
{
    unsigned char head[] = {0xc0, 12, 0, TYPE_A, 0, 1, 0, 0, 0, 60, 0, 4};
    unsigned char address[16];

    if (inet_pton(family, text, address) != 1) {
        return;
    }
    if (family == AF_INET6) {
        head[3] = TYPE_AAAA;
        head[11] = 16;
    }
    put(answer, head, sizeof(head));
    put(answer, address, head[11]);
    answer->bytes[7]++;
}

static void put_addresses(struct message *answer, int family, const char *texts)
{
    char copy[256];
    char *rest = copy;
    char *text;

    (void)snprintf(copy, sizeof(copy), "%s", texts);
    while ((text = strsep(&rest, " ")) != NULL) {
        put_address(answer, family, text);
    }
}

/* The name of a question as text, and where the type stands behind it. */
static size_t read_name(const struct message *question, char name[256])
{
    size_t at = 12;
    size_t len = 0;

    while (at < question->len && question->bytes[at] != 0) {
        size_t label = question->bytes[at];

        (void)snprintf(name + len, 256 - len, "%s%.*s", len > 0 ? "." : "", (int)label,
                       (const char *)question->bytes + at + 1);
        len = strlen(name);
        at += 1 + label;
    }
    return at + 1;
}

static void answer_question(const struct message *question, struct message *answer)
{
    char name[256] = "";
    size_t type_at = read_name(question, name);
    unsigned type = question->bytes[type_at + 1];
    unsigned rcode = RCODE_NXDOMAIN;

    answer->len = 0;
    put(answer, question->bytes, type_at + 4);
    memset(answer->bytes + 6, 0, 6);
    for (size_t i = 0; i < ARRAY_LEN(zone); i++) {
        if (strcasecmp(zone[i].name, name) != 0) {
            continue;
        }
        rcode = zone[i].rcode;
        put_addresses(answer, AF_INET, type == TYPE_A ? zone[i].v4 : "");
        put_addresses(answer, AF_INET6, type == TYPE_AAAA ? zone[i].v6 : "");
        for (unsigned k = 1; type == TYPE_A && k <= zone[i].more_v4; k++) {
            char text[32];

            (void)snprintf(text, sizeof(text), "127.77.0.%u", k);
            put_address(answer, AF_INET, text);
        }
    }
    answer->bytes[2] = 0x85; /* an answer, authoritative */
    answer->bytes[3] = (unsigned char)(0x80 | rcode);
}

static void *serve(void *argument)
{
    int fd = *(int *)argument;

    for (;;) {
        static struct message question;
        static struct message answer;
        struct sockaddr_in from;
        socklen_t from_len = sizeof(from);
        ssize_t len = recvfrom(fd, question.bytes, sizeof(question.bytes), 0,
                               (struct sockaddr *)&from, &from_len);

        if (len > 16) {
            question.len = (size_t)len;
            answer_question(&question, &answer);
            (void)sendto(fd, answer.bytes, answer.len, 0, (struct sockaddr *)&from, from_len);
        }
    }
    return NULL;
}

/* Makes the resolver of this process ask a server at an address of this process alone. Nobody is there
 * unless start_server() says so: the kernel then refuses at once. */
static int use_own_server(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(0x7f010000 + ((uint32_t)getpid() & 0x3fffff));
    cr_assert(fd >= 0);
    cr_assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    cr_assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    cr_assert(__nss_configure_lookup("hosts", "files dns") == 0);
    cr_assert(res_init() == 0);
    _res.nscount = 1;
    _res.nsaddr_list[0] = address;
    _res.options = RES_INIT | RES_RECURSE;
    _res.retrans = 1;
    _res.retry = 1;
    return fd;
}

static void start_server(void)
{
    static int fd;
    pthread_t thread;

    fd = use_own_server();
    cr_assert(pthread_create(&thread, NULL, serve, &fd) == 0);
    cr_assert(pthread_detach(thread) == 0);
}

/* --- tests --- */

/* True when exactly the addresses of `texts`, separated by spaces, were found, in any order. */
static void assert_found(const struct addr *addrs, int count, const char *texts)
{
    char copy[512];
    char *rest = copy;
    char *text;
    int expected = 0;

    (void)snprintf(copy, sizeof(copy), "%s", texts);
    while ((text = strsep(&rest, " ")) != NULL) {
        bool found = false;

        expected++;
        for (int i = 0; i < count; i++) {
            char printed[ADDR_TEXT_BYTES];

            addr_format(&addrs[i], printed);
            found = found || strcmp(printed, text) == 0;
        }
        cr_assert(found, "%s is missing", text);
    }
    cr_assert(count == expected, "%d addresses, not %d", count, expected);
}

/* A name becomes all its addresses of both families, each with the port, each once. */
Test(dns, finds_every_address_of_a_name_once, .init = start_server)
{
    static const struct {
        const char *name;
        const char *found;
    } cases[] = {
        {"one.test", "192.0.2.7:5432"},
        {"ONE.Test", "192.0.2.7:5432"},
        {"one.test.", "192.0.2.7:5432"},
        {"six.test", "[2001:db8::7]:5432"},
        {"both.test", "192.0.2.7:5432 192.0.2.8:5432 [2001:db8::7]:5432 [2001:db8::8]:5432"},
        {"twice.test", "192.0.2.7:5432 192.0.2.8:5432 [2001:db8::7]:5432"},
        {"mapped.test", "192.0.2.7:5432"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct addr addrs[DNS_ADDRS_MAX];
        int count = dns_lookup(cases[i].name, 5432, addrs);

        cr_assert(count > 0, "%s: %s", cases[i].name, dns_error(count));
        assert_found(addrs, count, cases[i].found);
    }
}

/* What is found can be given to the kernel: its length and family fit. */
Test(dns, addresses_are_ready_for_the_kernel, .init = start_server)
{
    struct addr addrs[DNS_ADDRS_MAX];
    int count = dns_lookup("both.test", 65535, addrs);

    cr_assert(count == 4);
    for (int i = 0; i < count; i++) {
        bool v4 = addrs[i].u.any.sa_family == AF_INET;

        cr_assert(addrs[i].len == (v4 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)));
        cr_assert(addr_port(&addrs[i]) == 65535);
        cr_assert(!addrs[i].dual_stack);
    }
}

/* A name server that wraps an IPv4 address in IPv6 names that IPv4 address: it is the one form in which
 * loops are looked for and a source is bound (net/addr.h). */
Test(dns, mapped_answers_become_v4, .init = start_server)
{
    static const char *const names[] = {"wrapped.test", "::ffff:192.0.2.7"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct addr addrs[DNS_ADDRS_MAX];

        cr_assert(dns_lookup(names[i], 80, addrs) == 1, "%s", names[i]);
        assert_found(addrs, 1, "192.0.2.7:80");
        cr_assert(addrs[0].u.any.sa_family == AF_INET, "%s", names[i]);
        cr_assert(addrs[0].len == sizeof(struct sockaddr_in), "%s", names[i]);
    }
}

/* The array is never overrun: of 64 addresses all are found, of 70 the first 64. */
Test(dns, finds_64_addresses_at_most, .init = start_server)
{
    static const char *const names[] = {"most.test", "many.test"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct addr addrs[DNS_ADDRS_MAX + 1];
        struct addr untouched;
        int count;

        memset(&addrs[DNS_ADDRS_MAX], 0x5a, sizeof(addrs[0]));
        untouched = addrs[DNS_ADDRS_MAX];
        count = dns_lookup(names[i], 80, addrs);
        cr_assert(count == DNS_ADDRS_MAX, "%s: %d", names[i], count);
        cr_assert(memcmp(&addrs[DNS_ADDRS_MAX], &untouched, sizeof(untouched)) == 0);
        for (int k = 0; k < count * count; k++) {
            int a = k / count;
            int b = k % count;

            cr_assert(a == b || !addr_equal(&addrs[a], &addrs[b]), "%s", names[i]);
        }
    }
}

/* What can't be found is a negative number with a sentence of its own, and tells whether it is worth
 * trying again. */
Test(dns, failures_have_a_text_and_say_if_they_may_pass, .init = start_server)
{
    static const struct {
        const char *name;
        bool temporary;
    } cases[] = {
        {"does-not-exist.invalid", false},
        {"nobody.test", false},
        {"empty.test", false},
        {"broken.test", true},
        {"a..test", false},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct addr addrs[DNS_ADDRS_MAX];
        int result = dns_lookup(cases[i].name, 80, addrs);

        cr_assert(result < 0, "%s: %d", cases[i].name, result);
        cr_assert(dns_error_is_temporary(result) == cases[i].temporary, "%s: %s", cases[i].name,
                  dns_error(result));
        cr_assert(strlen(dns_error(result)) > 5, "%s", cases[i].name);
        cr_assert(strcmp(dns_error(result), dns_error(-12345)) != 0, "%s has no text of its own",
                  cases[i].name);
    }
}

/* Without a name server the answer may come later: that is worth another try. */
Test(dns, silence_is_temporary)
{
    struct addr addrs[DNS_ADDRS_MAX];
    int result;

    (void)close(use_own_server());
    result = dns_lookup("one.test", 80, addrs);
    cr_assert(result < 0);
    cr_assert(dns_error_is_temporary(result), "%s", dns_error(result));
}

/* Numbers are addresses already, and the hosts file comes before the network: no server is there. */
Test(dns, numbers_and_localhost_need_no_server)
{
    struct addr addrs[DNS_ADDRS_MAX];
    int count;

    (void)close(use_own_server());
    count = dns_lookup("192.0.2.7", 80, addrs);
    assert_found(addrs, count, "192.0.2.7:80");
    count = dns_lookup("2001:db8::7", 80, addrs);
    assert_found(addrs, count, "[2001:db8::7]:80");
    count = dns_lookup("::ffff:192.0.2.7", 80, addrs);
    assert_found(addrs, count, "192.0.2.7:80");
    count = dns_lookup("localhost", 80, addrs);
    cr_assert(count > 0, "%s", dns_error(count));
    for (int i = 0; i < count; i++) {
        cr_assert(addr_is_loopback(&addrs[i]));
    }
}
