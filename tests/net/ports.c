/* Local ports: each is used once for each server, nobody is told otherwise than by name when none
 * is left, and a port that happens to be the server's own is no server. The catalogue's B25, B26.
 *
 * A namespace of the test's own has as few ports as the test likes. */
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"
#include "support/tries.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { UP = 1, ARGUMENT_BYTES = 256 };

/* A socket with a local port of its own: it needs none of the few that sluice is left with. */
static int new_client(uint16_t port)
{
    struct timeval wait = {.tv_sec = PEER_WAIT_S};
    struct sockaddr_in local = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0);
    local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    cr_assert(bind(fd, (struct sockaddr *)&local, sizeof(local)) == 0, "%s", strerror(errno));
    return fd;
}

static int connect_from(uint16_t local_port, const char *ip, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = new_client(local_port);

    address.sin_addr.s_addr = inet_addr(ip);
    /* A reset may come before this returns; the next call on the socket will then tell. */
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        cr_assert(errno == ECONNRESET, "connect: %s", strerror(errno));
    }
    return fd;
}

/* True when a connection to this port, on which nobody listens, meets itself. */
static bool meets_itself(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool met;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    met = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    peer_reset(fd);
    return met;
}

/* Goal: a connect to a loopback port of the ephemeral range, on which nobody listens, may pick that
 * very port and succeed with itself; the client must not be relayed to its own echo. Method: the
 * range is narrowed to that port, so that every attempt meets itself; every spelling of the
 * loopback address. */
Test(ports, never_takes_itself_for_the_server)
{
    static const char *const hosts[] = {"127.0.0.1", "0.0.0.0", "[::1]", "[::]",
                                        "[::ffff:127.0.0.1]"};
    enum { HOSTS = sizeof(hosts) / sizeof(hosts[0]), PORT = 40000, TRIES = 10 };
    char texts[HOSTS][ARGUMENT_BYTES];
    const char *arguments[HOSTS + 1] = {NULL};
    char echo[4];
    struct proxy proxy;
    size_t done = 0;

    proxy_init(&proxy);
    netns_enter();
    netns_set("ip_local_port_range", "40000 40000");
    cr_assert(meets_itself(PORT), "this kernel does not do it: the test shows nothing");
    for (int i = 0; i < HOSTS; i++) {
        (void)snprintf(texts[i], ARGUMENT_BYTES, "%s:%d=%s:%d", proxy.ip, PROXY_PORT + i, hosts[i],
                       PORT);
        arguments[i] = texts[i];
    }
    proxy_start(&proxy, arguments);
    for (int i = 0; i < HOSTS * TRIES; i++) {
        int client =
            connect_from((uint16_t)(20000 + i), proxy.ip, (uint16_t)(PROXY_PORT + i % HOSTS));

        (void)send(client, "echo", 4, MSG_NOSIGNAL);
        cr_assert(recv(client, echo, sizeof(echo), 0) <= 0, "an echo by way of %s",
                  hosts[i % HOSTS]);
        expect_failure(&proxy, done, "connect-refused", "server", "error", "ECONNREFUSED", 0);
        done++;
        peer_reset(client);
    }
    proxy_finish(&proxy, done);
}

/* Goal: when local ports run out, the client that gets none is told at once and by name, the others
 * do not notice, and the first port that is free again serves. Method: four ports. */
Test(ports, says_so_when_no_local_port_is_left)
{
    enum { PORTS = 4 };
    struct proxy proxy;
    struct pair pairs[PORTS];
    int origin;
    int client;

    proxy_init(&proxy);
    netns_enter();
    netns_set("ip_local_port_range", "40000 40003");
    proxy_start_simple(&proxy, NULL);
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    for (uint16_t i = 0; i < PORTS; i++) {
        pairs[i].client = connect_from((uint16_t)(20000 + i), proxy.ip, PROXY_PORT);
        pairs[i].server = peer_accept(origin);
    }
    client = connect_from(20010, proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "no-port", "proxy", "error", "EADDRNOTAVAIL", 0);
    peer_close(client);
    for (int i = 0; i < PORTS; i++) {
        pair_exchange(&pairs[i], UP);
    }
    /* Ended by reset: a port in TIME_WAIT would be taken for a minute. */
    peer_reset(pairs[0].client);
    peer_expect_end(pairs[0].server, PEER_RESET);
    peer_close(pairs[0].server);
    proxy_wait_event(&proxy, "close", 2);
    pairs[0].client = connect_from(20011, proxy.ip, PROXY_PORT);
    pairs[0].server = peer_accept(origin);
    pair_exchange(&pairs[0], UP);
    for (int i = 0; i < PORTS; i++) {
        pair_end(&pairs[i]);
    }
    peer_close(origin);
    proxy_finish(&proxy, PORTS + 2);
}

/* CF-07. Goal: a port that is taken for one server is still there for another one. Method: ten
 * ports, all taken by connections to the first server; an eleventh client of that server alone gets
 * none, one that may also go to the second server is served there. */
Test(ports, that_are_taken_for_one_server_are_there_for_the_next)
{
    enum { PORTS = 10, BOTH_PORT = 8081 };
    char arguments[2][ARGUMENT_BYTES];
    struct pair pairs[PORTS + 2];
    struct proxy proxy;
    int origins[2];
    int client;

    proxy_init(&proxy);
    netns_enter();
    netns_set("ip_local_port_range", "40000 40009");
    (void)snprintf(arguments[0], ARGUMENT_BYTES, "%s", proxy.arg);
    (void)snprintf(arguments[1], ARGUMENT_BYTES, "%s:%d=%s:9000,%s:9001", proxy.ip, BOTH_PORT,
                   proxy.ip, proxy.ip);
    proxy_start(&proxy, (const char *const[]){arguments[0], arguments[1], NULL});
    for (uint16_t i = 0; i < 2; i++) {
        origins[i] = peer_listen(proxy.ip, (uint16_t)(ORIGIN_PORT + i), 16);
    }
    for (uint16_t i = 0; i < PORTS + 2; i++) {
        bool second = i >= PORTS;

        pairs[i].client =
            connect_from((uint16_t)(20000 + i), proxy.ip, second ? BOTH_PORT : PROXY_PORT);
        pairs[i].server = peer_accept(origins[second]);
        pair_exchange(&pairs[i], UP);
    }
    client = connect_from(20100, proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "no-port", "proxy", "error", "EADDRNOTAVAIL", 0);
    peer_close(client);
    for (size_t i = 0; i < PORTS + 2; i++) {
        pair_exchange(&pairs[i], UP);
        pair_end(&pairs[i]);
        proxy_wait_event(&proxy, "close", i + 2);
        /* Of the two clients with a choice, the first one's turn was that of the full server. */
        expect_server(&proxy, i + 1, i < PORTS ? ORIGIN_PORT : ORIGIN_PORT + 1, i == PORTS);
    }
    peer_close(origins[0]);
    peer_close(origins[1]);
    proxy_finish(&proxy, PORTS + 3);
}

ParameterizedTestParameters(ports, are_used_once_for_each_server)
{
    static bool cases[] = {false, true};

    return cr_make_param_array(bool, cases, 2);
}

/* CF-07. Goal: a port is taken for one server only, also when `--source` binds the local address
 * (IP_BIND_ADDRESS_NO_PORT). Method: ten ports and ten servers make a hundred connections; the next
 * one tries every server and gets no port. */
ParameterizedTest(bool *bound, ports, are_used_once_for_each_server)
{
    enum { PORTS = 10, SERVERS = 10, PAIRS = PORTS * SERVERS };
    const char *const options[] = {*bound ? "--source" : NULL, "127.0.0.9", NULL};
    struct proxy proxy;
    struct pair pairs[PAIRS];
    int origins[SERVERS];
    int client;

    proxy_init(&proxy);
    netns_enter();
    netns_set("ip_local_port_range", "40000 40009");
    start_with_targets(&proxy,
                       "@@:9000,@@:9001,@@:9002,@@:9003,@@:9004,@@:9005,@@:9006,@@:9007,@@:9008,"
                       "@@:9009",
                       options);
    for (uint16_t i = 0; i < SERVERS; i++) {
        origins[i] = peer_listen(proxy.ip, (uint16_t)(ORIGIN_PORT + i), 16);
    }
    for (uint16_t i = 0; i < PAIRS; i++) {
        pairs[i].client = connect_from((uint16_t)(20000 + i), proxy.ip, PROXY_PORT);
        pairs[i].server = peer_accept(origins[i % SERVERS]);
        pair_exchange(&pairs[i], UP);
    }
    client = connect_from(20200, proxy.ip, PROXY_PORT);
    expect_failure(&proxy, 0, "no-port", "proxy", "error", "EADDRNOTAVAIL", SERVERS - 1);
    peer_close(client);
    for (size_t i = 0; i < PAIRS; i++) {
        char local[PROXY_FIELD_BYTES];

        pair_exchange(&pairs[i], UP);
        pair_end(&pairs[i]);
        proxy_wait_event(&proxy, "close", i + 2);
        proxy_field(&proxy, "close", i + 1, "server_local", local);
        cr_assert(strncmp(local, "127.0.0.9:", 10) == 0 || !*bound, "%s", local);
    }
    for (size_t i = 0; i < SERVERS; i++) {
        peer_close(origins[i]);
    }
    proxy_finish(&proxy, PAIRS + 1);
}
