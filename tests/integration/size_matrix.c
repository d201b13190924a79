/* Each size of a transfer that is known to have broken a proxy, through every way that bytes can
 * take.
 *
 * The problem: proxies break at edges. An empty stream has an end and nothing else; 1448 bytes are
 * one full segment of an Ethernet; 4096 one page and one slot of a pipe; 65536 one buffer of the
 * copying engine; 1 MiB + 1 several turns; 64 MiB many of them, with every buffer on the way full.
 *
 * The model: the matrix is generated, no cell is written by hand.
 *
 *     splice mode   auto, always, never
 *   x address       v4, v6, v4-mapped, v6 by a listener for both families, unix
 *   x workers       1, 2
 *   x order         client first, server first, both at once
 *   x size          0 .. 64 MiB
 *
 * One test is one mode, address and number of workers: one sluice that all orders and sizes go
 * through, 36 connections. In each cell both peers send so many bytes and FIN. Every byte is
 * compared, FIN must stand right behind the last one, and the close record must count both
 * directions exactly. Splicing and copying are held to the same expectations, so they are equal to
 * each other. */
#include "support/ends.h"
#include "support/exchange.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum { KIB = 1024, MIB = 1024 * KIB, LARGE = 64 * MIB };

/* ADDRESS_MAPPED: an IPv4 client of a listener for both families, who appears as ::ffff:a.b.c.d,
 * and a target that is written so. */
enum address {
    ADDRESS_V4,
    ADDRESS_V6,
    ADDRESS_MAPPED,
    ADDRESS_V6_OF_BOTH,
    ADDRESS_UNIX,
    ADDRESSES
};

struct way_through {
    int mode; /* index of splice_names */
    enum address address;
    int workers;
};

/* How sluice is reached, and what is behind it. */
struct route {
    enum address address;
    char argument[160];
    char ip[48];
    uint16_t port;
    char listener_name[64]; /* of unix sockets */
    char origin_name[64];
    int listen_fd;
    char client[16]; /* how the canonical address of a client begins */
};

/* A port that is free on every address, outside the range that the kernel gives to connections. */
static uint16_t free_port(void)
{
    static unsigned tried;

    for (;;) {
        uint16_t port = (uint16_t)(10000 + ((unsigned)getpid() * 8 + tried++) % 20000);
        struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool free_now;

        cr_assert(fd >= 0 && tried < 20000);
        free_now = bind(fd, (const struct sockaddr *)&any, sizeof(any)) == 0;
        (void)close(fd);
        if (free_now) {
            return port;
        }
    }
}

static void make_unix_route(struct route *route)
{
    (void)snprintf(route->listener_name, sizeof(route->listener_name), "@sluice-size-listener-%d",
                   (int)getpid());
    (void)snprintf(route->origin_name, sizeof(route->origin_name), "@sluice-size-origin-%d",
                   (int)getpid());
    (void)snprintf(route->argument, sizeof(route->argument), "unix:%s=unix:%s",
                   route->listener_name, route->origin_name);
    (void)snprintf(route->client, sizeof(route->client), "unix");
    route->listen_fd = peer_listen_unix(route->origin_name);
}

static void make_route(const struct proxy *proxy, enum address address, struct route *route)
{
    bool v6 = address == ADDRESS_V6 || address == ADDRESS_V6_OF_BOTH;
    bool of_both = address == ADDRESS_MAPPED || address == ADDRESS_V6_OF_BOTH;
    const char *ip = v6 ? "::1" : proxy->ip;
    uint16_t origin_port = free_port();
    char host[64];

    route->address = address;
    if (address == ADDRESS_UNIX) {
        make_unix_route(route);
        return;
    }
    route->port = free_port();
    (void)snprintf(route->ip, sizeof(route->ip), "%s", ip);
    (void)snprintf(route->client, sizeof(route->client), v6 ? "[::1]:" : "127.");
    (void)snprintf(host, sizeof(host), v6 ? "[%s]" : "%s", ip);
    (void)snprintf(route->argument, sizeof(route->argument), "%s:%u=%s%s%s:%u", of_both ? "" : host,
                   route->port, address == ADDRESS_MAPPED ? "[::ffff:" : "", host,
                   address == ADDRESS_MAPPED ? "]" : "", origin_port);
    route->listen_fd = peer_listen(ip, origin_port, 8);
}

static void run_cell(struct proxy *proxy, const struct route *route, const struct way_through *with,
                     size_t index, enum order order, uint64_t len)
{
    struct pair pair;
    char client[PROXY_FIELD_BYTES];

    pair.client = route->address == ADDRESS_UNIX ? peer_connect_unix(route->listener_name)
                                                 : peer_connect(route->ip, route->port);
    pair.server = peer_accept(route->listen_fd);
    exchange(&pair, order, 2 * index, len);
    pair_close(&pair);
    expect_exchanged(proxy, index, order, len);
    proxy_field(proxy, "close", index, "client", client);
    cr_assert(strncmp(client, route->client, strlen(route->client)) == 0,
              "client %s: not canonical", client);
    if (strcmp(splice_names[with->mode], "never") == 0) {
        cr_assert(proxy_number(proxy, "close", index, "spliced_bytes") == 0);
    }
}

ParameterizedTestParameters(size_matrix, every_cell_is_delivered_to_the_byte)
{
    static struct way_through ways[SPLICE_MODES * ADDRESSES * 2];

    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        ways[i] = (struct way_through){.mode = (int)(i % SPLICE_MODES),
                                       .address = (enum address)(i / SPLICE_MODES % ADDRESSES),
                                       .workers = i < COUNT_OF(ways) / 2 ? 1 : 2};
    }
    return cr_make_param_array(struct way_through, ways, COUNT_OF(ways));
}

/* DI-01. Goal: whatever the splice mode, the addresses, the workers, the order and the size, each
 * side gets exactly what the other one sent, FIN behind the last byte, and the record says so. */
ParameterizedTest(struct way_through *with, size_matrix, every_cell_is_delivered_to_the_byte)
{
    static const uint64_t sizes[] = {0,    1,     1447,  1448,  4095,    4096,
                                     4097, 65535, 65536, 65537, MIB + 1, LARGE};
    struct route route = {0};
    struct proxy proxy;
    size_t count = 0;

    proxy_init(&proxy);
    make_route(&proxy, with->address, &route);
    proxy_start(&proxy,
                (const char *const[]){"--splice", splice_names[with->mode], "--workers",
                                      with->workers == 1 ? "1" : "2", route.argument, NULL});
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (enum order order = 0; order < ORDERS; order++) {
            run_cell(&proxy, &route, with, count++, order, sizes[i]);
        }
    }
    peer_close(route.listen_fd);
    proxy_finish(&proxy, count);
}
