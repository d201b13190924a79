/* From what the user wrote to what can be served, before anything is started.
 *
 * Two rules shape this file. Everything that can be found wrong is found before the first socket is
 * opened, and all of it is reported in one run. And it is all or nothing: when one address can't be
 * had, those already open are closed again, and no unix socket file of ours stays behind. */
#include "proc/plan.h"

#include "base/check.h"
#include "base/message.h"
#include "net/dns.h"
#include "net/sys.h"
#include "proc/exits.h"

#include <errno.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of two exit statuses the one that lasts: what is wrong for good outweighs what may pass. */
static int worse(int status, int other)
{
    return status > other ? status : other;
}

/* --- looking up names --- */

/* The addresses of an endpoint that names one: `ret_status` is an exit status when there is
 * none. */
static int look_up(const struct endpoint *endpoint, const char *text,
                   struct addr addrs[DNS_ADDRS_MAX], FILE *errors, int *ret_status)
{
    int count;

    if (endpoint->kind == ENDPOINT_ADDR) {
        addrs[0] = endpoint->addr;
        return 1;
    }
    count = dns_lookup(endpoint->host, endpoint->port, addrs);
    if (count < 0) {
        message_line(errors, "sluice: \"%s\": the name \"%s\" does not resolve: %s", text,
                     endpoint->host, dns_error(count));
        *ret_status = worse(*ret_status, dns_error_is_temporary(count) ? EXIT_STATUS_FAILURE
                                                                       : EXIT_STATUS_CONFIG);
        return 0;
    }
    return count;
}

static int make_pool(const struct config_pool *from, struct plan_pool *pool, FILE *errors)
{
    int status = 0;

    pool->name = from->name;
    for (size_t i = 0; i < from->servers_len; i++) {
        const struct config_server *server = &from->servers[i];
        struct addr addrs[DNS_ADDRS_MAX];
        int count = look_up(&server->target, server->text, addrs, errors, &status);

        for (int k = 0; k < count; k++) {
            pool->targets = need_room(pool->targets, pool->targets_len, sizeof(*pool->targets));
            pool->targets[pool->targets_len++] =
                (struct target){.addr = addrs[k], .name = server->text};
        }
    }
    return status;
}

static void add_listener(struct plan *plan, const struct config_listener *from,
                         const struct addr *addr)
{
    plan->listeners = need_room(plan->listeners, plan->listeners_len, sizeof(*plan->listeners));
    plan->listeners[plan->listeners_len++] =
        (struct plan_listener){.name = from->name, .pool = from->pool, .addr = *addr};
}

/* `:PORT` is one IPv6 socket that takes IPv4 too, or an IPv4 one where the kernel has no IPv6. */
static struct addr any_address(uint16_t port)
{
    int fd = sys_socket(AF_INET6);

    if (fd == -EAFNOSUPPORT) {
        return addr_any(AF_INET, port);
    }
    if (fd >= 0) {
        sys_close(fd); /* a shortage is no answer: who listens will meet it, or not */
    }
    return addr_any(AF_INET6, port);
}

static int make_listener(struct plan *plan, const struct config_listener *from, FILE *errors)
{
    struct addr addrs[DNS_ADDRS_MAX];
    int status = 0;
    int count = 1;

    if (from->bind.kind == ENDPOINT_ANY) {
        addrs[0] = any_address(from->bind.port);
    } else {
        count = look_up(&from->bind, from->name, addrs, errors, &status);
    }
    for (int i = 0; i < count; i++) {
        add_listener(plan, from, &addrs[i]);
    }
    return status;
}

/* --- no target may be a listener --- */

/* True when `addr` is an address of this machine, so that connecting to it stays here. */
static bool is_local(const struct addr *addr)
{
    struct ifaddrs *interfaces = NULL;
    bool found = false;

    if (addr_is_loopback(addr) || addr_is_wildcard(addr)) {
        return true;
    }
    if (getifaddrs(&interfaces) < 0) {
        return false;
    }
    for (struct ifaddrs *entry = interfaces; entry != NULL && !found; entry = entry->ifa_next) {
        struct addr local = {0};

        if (entry->ifa_addr == NULL || entry->ifa_addr->sa_family != addr->u.any.sa_family) {
            continue;
        }
        local = *addr; /* same port and scope: only the address is compared */
        if (addr->u.any.sa_family == AF_INET) {
            memcpy(&local.u.v4.sin_addr, &((struct sockaddr_in *)(void *)entry->ifa_addr)->sin_addr,
                   sizeof(local.u.v4.sin_addr));
        } else if (addr->u.any.sa_family == AF_INET6) {
            memcpy(&local.u.v6.sin6_addr,
                   &((struct sockaddr_in6 *)(void *)entry->ifa_addr)->sin6_addr,
                   sizeof(local.u.v6.sin6_addr));
        }
        found = addr_equal(&local, addr);
    }
    freeifaddrs(interfaces);
    return found;
}

/* True when a wildcard listener takes connections of the target's family. */
static bool wildcard_covers(const struct addr *listener, const struct addr *target)
{
    struct addr_compact to = addr_compact(target);

    return addr_is_wildcard(listener) &&
           (listener->dual_stack || addr_compact(listener).family == to.family);
}

static bool leads_back(const struct addr *listener, const struct addr *target)
{
    if (target->u.any.sa_family == AF_UNIX || listener->u.any.sa_family == AF_UNIX) {
        return addr_equal(listener, target);
    }
    if (addr_port(listener) != addr_port(target)) {
        return false;
    }
    if (wildcard_covers(listener, target)) {
        return is_local(target);
    }
    /* Connecting to 0.0.0.0 or :: means the loopback address. */
    return addr_equal(listener, target) || (addr_is_wildcard(target) && addr_is_loopback(listener));
}

static int check_loops(const struct plan *plan, FILE *errors)
{
    int status = 0;

    for (size_t p = 0; p < plan->pools_len; p++) {
        for (size_t t = 0; t < plan->pools[p].targets_len; t++) {
            for (size_t l = 0; l < plan->listeners_len; l++) {
                const struct target *target = &plan->pools[p].targets[t];

                if (leads_back(&plan->listeners[l].addr, &target->addr)) {
                    message_line(errors,
                                 "sluice: target \"%s\" of \"%s\" is sluice's own listener \"%s\": "
                                 "each connection would come back for ever",
                                 target->name, plan->pools[p].name, plan->listeners[l].name);
                    status = EXIT_STATUS_CONFIG;
                }
            }
        }
    }
    return status;
}

int plan_make(const struct config *config, struct plan *plan, FILE *errors)
{
    int status = 0;

    memset(plan, 0, sizeof(*plan));
    plan->pools = need_memory(calloc(config->pools_len, sizeof(*plan->pools)));
    plan->pools_len = config->pools_len;
    for (size_t i = 0; i < config->pools_len; i++) {
        status = worse(status, make_pool(&config->pools[i], &plan->pools[i], errors));
    }
    for (size_t i = 0; i < config->listeners_len; i++) {
        status = worse(status, make_listener(plan, &config->listeners[i], errors));
    }
    return worse(status, check_loops(plan, errors));
}

/* --- listening --- */

static const char *advice(const struct addr *addr, int error)
{
    switch (error) {
    case EADDRINUSE:
        return addr->u.any.sa_family == AF_UNIX
                   ? ": somebody listens there already"
                   : ": somebody listens there, or a connection has it as its own port";
    case EACCES:
        return addr->u.any.sa_family == AF_UNIX
                   ? ": the directory must be writable"
                   : ": ports below net.ipv4.ip_unprivileged_port_start need root or "
                     "CAP_NET_BIND_SERVICE";
    case EADDRNOTAVAIL:
        return ": no interface has this address";
    case ENOTSOCK:
        return ": the file there is not a socket, and is left alone";
    case ENOENT:
        return ": the directory does not exist";
    default:
        return "";
    }
}

static void report(const struct plan_listener *listener, int error, FILE *errors)
{
    char text[ADDR_TEXT_BYTES];
    /* EADDRINUSE of a path and ENOTSOCK are our own findings; their usual texts would mislead. */
    const char *what = error == ENOTSOCK ? "Path is taken" : strerror(error);

    addr_format(&listener->addr, text);
    message_line(errors, "sluice: can't listen on \"%s\" (%s): %s%s", listener->name, text, what,
                 advice(&listener->addr, error));
}

/* Notes which file bind(2) has made, so that at the end that one is removed and no other. */
static int remember_file(struct plan_listener *listener)
{
    const char *path = listener->addr.u.local.sun_path;
    struct stat status;

    if (path[0] == '\0') {
        return 0;
    }
    if (lstat(path, &status) < 0) {
        int result = -errno;

        (void)unlink(path); /* the only moment in which it is known to be ours */
        return result;
    }
    listener->device = status.st_dev;
    listener->inode = status.st_ino;
    return 0;
}

static int open_listener(struct plan_listener *listener, const struct sock_tuning *tuning,
                         size_t workers)
{
    if (listener->addr.u.any.sa_family == AF_UNIX) {
        listener->fds[0] = sock_listen_unix(&listener->addr);
        return listener->fds[0] < 0 ? listener->fds[0] : remember_file(listener);
    }
    for (size_t w = 0; w < workers; w++) {
        listener->fds[w] = sock_listen_tcp(&listener->addr, tuning, w == 0);
        if (listener->fds[w] < 0) {
            return listener->fds[w];
        }
    }
    return 0;
}

int plan_listen(struct plan *plan, const struct sock_tuning *tuning, size_t workers, FILE *errors)
{
    int status = 0;

    plan->workers = workers;
    for (size_t i = 0; i < plan->listeners_len; i++) {
        struct plan_listener *listener = &plan->listeners[i];

        listener->fds = need_memory(malloc(workers * sizeof(*listener->fds)));
        for (size_t w = 0; w < workers; w++) {
            listener->fds[w] = -1;
        }
    }
    for (size_t i = 0; i < plan->listeners_len; i++) {
        int result = open_listener(&plan->listeners[i], tuning, workers);

        if (result < 0) {
            report(&plan->listeners[i], -result, errors);
            status = EXIT_STATUS_FAILURE;
        }
    }
    if (status != 0) {
        plan_unlink(plan);
        plan_close(plan, SIZE_MAX);
    }
    return status;
}

static bool is_shared(const struct plan_listener *listener)
{
    return listener->addr.u.any.sa_family == AF_UNIX;
}

int plan_listener_fd(const struct plan_listener *listener, size_t worker)
{
    return listener->fds[is_shared(listener) ? 0 : worker];
}

void plan_close(struct plan *plan, size_t keep)
{
    for (size_t i = 0; i < plan->listeners_len; i++) {
        struct plan_listener *listener = &plan->listeners[i];

        for (size_t w = 0; listener->fds != NULL && w < plan->workers; w++) {
            bool kept = w == keep || (is_shared(listener) && keep != SIZE_MAX);

            if (!kept && listener->fds[w] >= 0) {
                sys_close(listener->fds[w]);
                listener->fds[w] = -1;
            }
        }
    }
}

void plan_unlink(const struct plan *plan)
{
    for (size_t i = 0; i < plan->listeners_len; i++) {
        const struct plan_listener *listener = &plan->listeners[i];
        struct stat status;

        if (listener->inode != 0 && lstat(listener->addr.u.local.sun_path, &status) == 0 &&
            status.st_dev == listener->device && status.st_ino == listener->inode) {
            /* Gone already is as good. */
            (void)unlink(listener->addr.u.local.sun_path);
        }
    }
}

void plan_fini(struct plan *plan)
{
    plan_close(plan, SIZE_MAX);
    for (size_t i = 0; i < plan->pools_len; i++) {
        free(plan->pools[i].targets);
    }
    for (size_t i = 0; i < plan->listeners_len; i++) {
        free(plan->listeners[i].fds);
    }
    free(plan->pools);
    free(plan->listeners);
    memset(plan, 0, sizeof(*plan));
}
