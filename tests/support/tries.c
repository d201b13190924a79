/* Servers that are tried one after the other, and clients that get none.
 *
 * A client that is going to be reset may be so before a blocking connect(2) has returned, and would
 * then fail in the wrong place; so it connects without blocking and waits for the outcome. */
#include "support/tries.h"

#include "support/ends.h"
#include "support/peer.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { ARGUMENT_BYTES = 256 };

void start_with_targets(struct proxy *proxy, const char *targets, const char *const options[])
{
    char pair[ARGUMENT_BYTES];
    const char *arguments[16] = {pair};
    size_t len = (size_t)snprintf(pair, sizeof(pair), "%s:%d=", proxy->ip, PROXY_PORT);

    while (*targets != '\0') {
        bool is_place = strncmp(targets, "@@", 2) == 0;

        len += (size_t)snprintf(pair + len, sizeof(pair) - len, "%.*s", is_place ? 20 : 1,
                                is_place ? proxy->ip : targets);
        cr_assert(len < sizeof(pair));
        targets += is_place ? 2 : 1;
    }
    for (size_t i = 0; options != NULL && options[i] != NULL; i++) {
        arguments[i + 1] = options[i];
    }
    proxy_start(proxy, arguments);
}

int connect_doomed(const char *ip, uint16_t port)
{
    struct timeval wait = {.tv_sec = PEER_WAIT_S};
    int fd = peer_connect_later(ip, port);
    struct pollfd poller = {.fd = fd, .events = POLLOUT};

    cr_assert(poll(&poller, 1, PEER_WAIT_S * 1000) == 1);
    cr_assert(fcntl(fd, F_SETFL, 0) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0);
    return fd;
}

void expect_refusal(const char *ip, uint16_t port)
{
    int fd = connect_doomed(ip, port);

    peer_expect_end(fd, PEER_RESET);
    peer_close(fd);
}

void expect_failure(struct proxy *proxy, size_t index, const char *reason, const char *closed_by,
                    const char *how, const char *error, uint64_t retries)
{
    struct expected_end end = {reason, closed_by, how, error, 0, 0, 0};

    expect_end(proxy, index, &end);
    proxy_expect_field(proxy, "close", index, "connect_s", "");
    cr_assert(proxy_number(proxy, "close", index, "retries") == retries);
}

void expect_server(const struct proxy *proxy, size_t index, uint16_t port, uint64_t retries)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "%s:%u", proxy->ip, port);
    proxy_expect_field(proxy, "close", index, "server", name);
    cr_assert(proxy_number(proxy, "close", index, "retries") == retries, "retries: %llu",
              (unsigned long long)proxy_number(proxy, "close", index, "retries"));
}
