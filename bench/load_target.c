/*
 * load_target: where the load connects to, and from which addresses.
 *
 * A TCP connection is named by two addresses and two ports, so from one address to one address and
 * port there are only as many connections as there are ports to choose from, usually 28,232. To
 * have more, the load goes to several ports, or comes from several addresses: all of 127/8 is ours.
 * The source address is bound before connect, and with IP_BIND_ADDRESS_NO_PORT the port is still
 * chosen by connect, which knows the target and so may take a port that is in use towards another
 * one; bind alone would take ports that nobody else has.
 *
 *   number   0   1   2   3   4   5   6 ...      with 2 targets and 2 sources
 *   target   0   1   0   1   0   1   0
 *   source   .2  .2  .3  .3  .2  .2  .3         127.0.0.x
 *
 * What it does not do: names, unix sockets, IPv6 sources.
 */
#include "load_target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Takes the text apart, which is overwritten. */
static bool target_parse(char *text, struct load_target *ret_target)
{
    char *colon = strrchr(text, ':');
    char *end;
    unsigned long port;

    memset(ret_target, 0, sizeof(*ret_target));
    if (colon == NULL || strlen(text) >= sizeof(ret_target->text) || colon[1] < '0' ||
        colon[1] > '9') {
        return false;
    }
    (void)strcpy(ret_target->text, text);
    port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port < 1 || port > 65535) {
        return false;
    }
    *colon = '\0';
    if (text[0] == '[' && colon > text + 1 && colon[-1] == ']') {
        colon[-1] = '\0';
        ret_target->address.v6.sin6_family = AF_INET6;
        ret_target->address.v6.sin6_port = htons((uint16_t)port);
        return inet_pton(AF_INET6, text + 1, &ret_target->address.v6.sin6_addr) == 1;
    }
    ret_target->address.v4.sin_family = AF_INET;
    ret_target->address.v4.sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, text, &ret_target->address.v4.sin_addr) == 1;
}

bool load_targets_parse(const char *text, struct load_targets *ret_targets)
{
    char copy[LOAD_TARGETS_MAX * sizeof(ret_targets->list[0].text)];
    char *rest = copy;
    char *one;

    ret_targets->count = 0;
    if (strlen(text) >= sizeof(copy)) {
        return false;
    }
    (void)strcpy(copy, text);
    while ((one = strsep(&rest, ",")) != NULL) {
        if (ret_targets->count == LOAD_TARGETS_MAX ||
            !target_parse(one, &ret_targets->list[ret_targets->count])) {
            return false;
        }
        ret_targets->count++;
    }
    return true;
}

const struct load_target *load_targets_of(const struct load_targets *targets, uint32_t number)
{
    return &targets->list[number % targets->count];
}

static int bind_source(int fd, uint32_t source)
{
    static const int on = 1;
    union load_address address = {.v4 = {.sin_family = AF_INET}};

    address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + source);
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) != 0) {
        return -1;
    }
    return bind(fd, &address.any, sizeof(address.v4));
}

int load_targets_connect(const struct load_targets *targets, uint32_t number, bool no_delay,
                         const char **ret_failed_step)
{
    static const int on = 1;
    const struct load_target *target = load_targets_of(targets, number);
    bool v4 = target->address.any.sa_family == AF_INET;
    socklen_t size = v4 ? sizeof(target->address.v4) : sizeof(target->address.v6);
    int fd = socket(target->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int result;

    if (fd < 0) {
        *ret_failed_step = "socket (ulimit -n is the limit)";
        return -errno;
    }
    if (no_delay) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* every TCP has it */
    }
    *ret_failed_step = "bind to a source address";
    if (targets->sources == 0 || bind_source(fd, number / targets->count % targets->sources) == 0) {
        *ret_failed_step = "connect";
        if (connect(fd, &target->address.any, size) == 0 || errno == EINPROGRESS) {
            return fd;
        }
        if (errno == EADDRNOTAVAIL) {
            *ret_failed_step = "connect (no local port is left: more --sources, more targets)";
        }
    }
    result = -errno;
    (void)close(fd);
    return result;
}
