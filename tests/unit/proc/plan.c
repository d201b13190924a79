/* Tests of the plan: what is refused before a socket is opened, and that listening is all or nothing.
 * Names are in plan_names.c. Sockets are on loopback addresses and paths of this process alone. */
#include "proc/plan.h"

#include "base/macros.h"
#include "conf/options.h"
#include "proc/exits.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARGS_MAX = 8, ARG_BYTES = 256 };

static const struct sock_tuning tuning = {.keepalive_idle_s = 60, .keepalive_interval_s = 15};

/* --- a plan from a command line --- */

struct made {
    struct options options;
    struct plan plan;
    int status;
    char *errors; /* owned: what plan_make() and plan_listen() said */
    size_t errors_len;
    FILE *out;
};

/* `args` are separated by blanks. */
static void make(struct made *made, const char *args)
{
    char words[ARGS_MAX * ARG_BYTES];
    char *argv[ARGS_MAX + 2] = {(char *)(uintptr_t) "sluice"};
    char *rest = words;
    int argc = 1;

    (void)snprintf(words, sizeof(words), "%s", args);
    while ((argv[argc] = strsep(&rest, " ")) != NULL) {
        argc++;
        cr_assert(argc <= ARGS_MAX);
    }
    cr_assert(options_parse(argc, argv, &made->options, stderr) == 0, "%s", args);
    made->out = open_memstream(&made->errors, &made->errors_len);
    cr_assert(made->out != NULL);
    memset(&made->plan, 0x5a, sizeof(made->plan));
    made->status = plan_make(&made->options.config, &made->plan, made->out);
    cr_assert(fflush(made->out) == 0);
}

static void finish(struct made *made)
{
    plan_fini(&made->plan);
    options_fini(&made->options);
    (void)fclose(made->out);
    free(made->errors);
}

static void make_valid(struct made *made, const char *args)
{
    make(made, args);
    cr_assert(made->status == EXIT_STATUS_OK, "%s: %s", args, made->errors);
    cr_assert_str_eq(made->errors, "");
}

static int listen_for(struct made *made, size_t workers)
{
    int status = plan_listen(&made->plan, &tuning, workers, made->out);

    cr_assert(fflush(made->out) == 0);
    return status;
}

/* --- addresses and sockets --- */

/* 127.x.y.z from the process id: tests that run at the same time have different ones. */
static void own_v4(char text[INET_ADDRSTRLEN])
{
    struct in_addr address = {.s_addr = htonl(0x7f010000 + ((uint32_t)getpid() & 0x3fffff))};

    cr_assert(inet_ntop(AF_INET, &address, text, INET_ADDRSTRLEN) != NULL);
}

static struct addr numeric(const char *text)
{
    struct endpoint endpoint;

    cr_assert_null(endpoint_parse(text, &endpoint), "%s", text);
    return endpoint.addr;
}

/* A program that listens on our own address, on a port that the kernel chose, and would share it; IP:PORT
 * is stored. */
static int strangers_listener(char text[ADDR_TEXT_BYTES])
{
    char ip[INET_ADDRSTRLEN];
    char any_port[ADDR_TEXT_BYTES];
    struct addr addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    own_v4(ip);
    (void)snprintf(any_port, sizeof(any_port), "%s:1", ip);
    addr = numeric(any_port);
    addr_set_port(&addr, 0);
    cr_assert(fd >= 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0);
    cr_assert(bind(fd, &addr.u.any, addr.len) == 0, "%s", strerror(errno));
    cr_assert(listen(fd, 1) == 0);
    cr_assert(sock_local_address(fd, &addr) == 0);
    addr_format(&addr, text);
    return fd;
}

/* An IP:PORT that was free a moment ago; nobody else uses the address. */
static void free_address(char text[ADDR_TEXT_BYTES])
{
    (void)close(strangers_listener(text));
}

static bool connects(const char *text)
{
    struct addr addr = numeric(text);
    int fd = socket(addr.u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = connect(fd, &addr.u.any, addr.len) == 0;

    (void)close(fd);
    return connected;
}

/* Containers are often without IPv6. */
static bool has_v6_loopback(void)
{
    struct addr addr = numeric("[::1]:1");
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool bound;

    addr_set_port(&addr, 0);
    bound = fd >= 0 && bind(fd, &addr.u.any, addr.len) == 0;
    (void)close(fd);
    return bound;
}

static size_t count_open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    size_t count = 0;

    cr_assert(dir != NULL);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

static bool is_open(int fd)
{
    return fd >= 0 && fcntl(fd, F_GETFD) >= 0;
}

static bool is_there(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0;
}

/* A path of this process in /tmp; nothing is there. */
static void own_path(char path[64], const char *name)
{
    (void)snprintf(path, 64, "/tmp/sluice-plan-%d-%s", (int)getpid(), name);
    (void)unlink(path);
}

/* --- making --- */

/* Numeric and unix addresses become listeners and targets as they are, in their order; `:PORT` becomes
 * the wildcard of both families. */
Test(plan, takes_addresses_over)
{
    static const char *const listeners[] = {"[::]:8080", "127.0.0.1:81", "[::]:82", "unix:/x"};
    static const char *const targets[] = {"192.0.2.1:1", "unix:@a", "[2001:db8::1]:2"};
    struct made made;
    char text[ADDR_TEXT_BYTES];

    make_valid(&made, ":8080=192.0.2.1:1,unix:@a,[2001:db8::1]:2 127.0.0.1:81=192.0.2.2:1 "
                      "[::]:82=192.0.2.3:1 unix:/x=192.0.2.4:1");
    cr_assert(made.plan.listeners_len == ARRAY_LEN(listeners));
    cr_assert(made.plan.pools_len == ARRAY_LEN(listeners));
    for (size_t i = 0; i < ARRAY_LEN(listeners); i++) {
        addr_format(&made.plan.listeners[i].addr, text);
        if (i > 0 || made.plan.listeners[0].addr.u.any.sa_family == AF_INET6) {
            cr_assert_str_eq(text, listeners[i]);
        }
        cr_assert(made.plan.listeners[i].pool == i);
        cr_assert(made.plan.listeners[i].fds == NULL);
        cr_assert(made.plan.listeners[i].name == made.options.config.listeners[i].name);
        cr_assert(made.plan.pools[i].name == made.options.config.pools[i].name);
    }
    cr_assert(addr_is_wildcard(&made.plan.listeners[0].addr));
    cr_assert(made.plan.listeners[0].addr.dual_stack ||
              made.plan.listeners[0].addr.u.any.sa_family == AF_INET);
    cr_assert(!made.plan.listeners[2].addr.dual_stack);
    cr_assert(made.plan.pools[0].targets_len == ARRAY_LEN(targets));
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        addr_format(&made.plan.pools[0].targets[i].addr, text);
        cr_assert_str_eq(text, targets[i]);
        cr_assert_str_eq(made.plan.pools[0].targets[i].name, targets[i]);
    }
    finish(&made);
}

/* Making a plan opens nothing and leaves nothing open. */
Test(plan, making_opens_nothing)
{
    size_t before = count_open_fds();
    struct made made;

    make_valid(&made, ":8080=192.0.2.1:1 unix:/nowhere/x=192.0.2.4:1");
    cr_assert(count_open_fds() == before);
    finish(&made);
    cr_assert(!is_there("/nowhere/x"));
}

/* --- loops --- */

static void assert_status(const char *args, int status)
{
    struct made made;

    make(&made, args);
    cr_assert(made.status == status, "%s gives %d: %s", args, made.status, made.errors);
    cr_assert((made.errors[0] == '\0') == (status == 0), "%s: %s", args, made.errors);
    finish(&made);
}

/* A target that is a listener of ours is found, however it is written; what only looks like one is
 * left alone. */
Test(plan, refuses_a_target_that_is_a_listener)
{
    static const struct {
        const char *args;
        int status;
    } cases[] = {
        {":80=127.0.0.1:80", EXIT_STATUS_CONFIG},
        {":80=127.9.9.9:80", EXIT_STATUS_CONFIG},
        {":80=0.0.0.0:80", EXIT_STATUS_CONFIG},
        {":80=[::1]:80", EXIT_STATUS_CONFIG},
        {":80=[::]:80", EXIT_STATUS_CONFIG},
        {":80=[::ffff:127.0.0.1]:80", EXIT_STATUS_CONFIG},
        {":80=[::ffff:0.0.0.0]:80", EXIT_STATUS_CONFIG},
        {":80=[::1%lo]:80", EXIT_STATUS_CONFIG},
        {":80=127.0.0.1:81", EXIT_STATUS_OK},
        {":80=[::1]:81", EXIT_STATUS_OK},
        {":80=203.0.113.7:80", EXIT_STATUS_OK},
        {":80=[2001:db8::7]:80", EXIT_STATUS_OK},
        {"0.0.0.0:80=127.0.0.1:80", EXIT_STATUS_CONFIG},
        {"0.0.0.0:80=[::ffff:127.0.0.1]:80", EXIT_STATUS_CONFIG},
        {"0.0.0.0:80=[::1]:80", EXIT_STATUS_OK},
        {"[::]:80=[::1]:80", EXIT_STATUS_CONFIG},
        {"[::]:80=127.0.0.1:80", EXIT_STATUS_OK},
        {"127.0.0.1:80=127.0.0.1:80", EXIT_STATUS_CONFIG},
        {"127.0.0.1:80=[::ffff:127.0.0.1]:80", EXIT_STATUS_CONFIG},
        {"127.0.0.1:80=0.0.0.0:80", EXIT_STATUS_CONFIG},
        {"127.0.0.1:80=127.0.0.2:80", EXIT_STATUS_OK},
        {"127.0.0.1:80=[::1]:80", EXIT_STATUS_OK},
        {"[::1]:80=[::1]:80", EXIT_STATUS_CONFIG},
        {"[::1]:80=[::]:80", EXIT_STATUS_CONFIG},
        {"unix:/x=unix:/x", EXIT_STATUS_CONFIG},
        {"unix:@x=unix:@x", EXIT_STATUS_CONFIG},
        {"unix:/x=unix:@/x", EXIT_STATUS_OK},
        {"unix:/x=unix:/y", EXIT_STATUS_OK},
        {"unix:/x=127.0.0.1:80", EXIT_STATUS_OK},
        {":80=192.0.2.1:1,127.0.0.1:80", EXIT_STATUS_CONFIG},
        {":80=127.0.0.1:81 :81=127.0.0.1:80", EXIT_STATUS_CONFIG},
        {":80=127.0.0.1:82 :81=127.0.0.1:83", EXIT_STATUS_OK},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_status(cases[i].args, cases[i].status);
    }
}

/* All loops are named in one run, with target, pool and listener. */
Test(plan, names_every_loop)
{
    struct made made;

    make(&made, ":80=127.0.0.1:80,192.0.2.1:80,[::1]:81 127.0.0.1:81=unix:@x unix:@x=127.0.0.1:81 "
                ":81=192.0.2.1:81");
    cr_assert(made.status == EXIT_STATUS_CONFIG);
    cr_assert_str_eq(
        made.errors,
        "sluice: target \"127.0.0.1:80\" of \":80\" is sluice's own listener \":80\": each "
        "connection would come back for ever\n"
        "sluice: target \"[::1]:81\" of \":80\" is sluice's own listener \":81\": each "
        "connection would come back for ever\n"
        "sluice: target \"unix:@x\" of \"127.0.0.1:81\" is sluice's own listener \"unix:@x\": each "
        "connection would come back for ever\n"
        "sluice: target \"127.0.0.1:81\" of \"unix:@x\" is sluice's own listener "
        "\"127.0.0.1:81\": each connection would come back for ever\n"
        "sluice: target \"127.0.0.1:81\" of \"unix:@x\" is sluice's own listener \":81\": each "
        "connection would come back for ever\n");
    finish(&made);
}

/* The first address of an interface other than loopback, without brackets; false if there is none. */
static bool interface_address(sa_family_t family, char text[INET6_ADDRSTRLEN])
{
    struct ifaddrs *interfaces;
    bool found = false;

    cr_assert(getifaddrs(&interfaces) == 0);
    for (struct ifaddrs *entry = interfaces; entry != NULL && !found; entry = entry->ifa_next) {
        struct addr addr = {0};

        if (entry->ifa_addr == NULL || entry->ifa_addr->sa_family != family) {
            continue;
        }
        memcpy(&addr.u, entry->ifa_addr, family == AF_INET ? sizeof(addr.u.v4) : sizeof(addr.u.v6));
        if (addr_is_loopback(&addr) ||
            (family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&addr.u.v6.sin6_addr))) {
            continue;
        }
        found = inet_ntop(family,
                          family == AF_INET ? (const void *)&addr.u.v4.sin_addr
                                            : (const void *)&addr.u.v6.sin6_addr,
                          text, INET6_ADDRSTRLEN) != NULL;
    }
    freeifaddrs(interfaces);
    return found;
}

/* The command line is `before`, then the address, then `after`. */
static void assert_status_with(const char *before, const char *address, const char *after,
                               int status)
{
    char args[ARG_BYTES];

    (void)snprintf(args, sizeof(args), "%s%s%s", before, address, after);
    assert_status(args, status);
}

/* This machine's own addresses lead back as much as the loopback address does. */
Test(plan, refuses_its_own_interface_as_a_target)
{
    char v4[INET6_ADDRSTRLEN];
    char v6[INET6_ADDRSTRLEN];

    if (!interface_address(AF_INET, v4)) {
        cr_skip_test("this machine has only the loopback interface");
    }
    assert_status_with(":80=", v4, ":80", EXIT_STATUS_CONFIG);
    assert_status_with("0.0.0.0:80=", v4, ":80", EXIT_STATUS_CONFIG);
    assert_status_with("[::]:80=", v4, ":80", EXIT_STATUS_OK);
    assert_status_with("127.0.0.1:80=", v4, ":80", EXIT_STATUS_OK);
    assert_status_with(":80=", v4, ":81", EXIT_STATUS_OK);
    if (interface_address(AF_INET6, v6)) {
        assert_status_with(":80=[", v6, "]:80", EXIT_STATUS_CONFIG);
        assert_status_with("[::]:80=[", v6, "]:80", EXIT_STATUS_CONFIG);
        assert_status_with("0.0.0.0:80=[", v6, "]:80", EXIT_STATUS_OK);
    }
}

/* And as much when it is written as IPv6. */
Test(plan, refuses_its_own_interface_in_mapped_form)
{
    char v4[INET6_ADDRSTRLEN];

    if (!interface_address(AF_INET, v4)) {
        cr_skip_test("this machine has only the loopback interface");
    }
    assert_status_with(":80=[::ffff:", v4, "]:80", EXIT_STATUS_CONFIG);
    assert_status_with("0.0.0.0:80=[::ffff:", v4, "]:80", EXIT_STATUS_CONFIG);
}

/* The kernel ignores the scope of an address that needs none, so [::1%lo] is [::1] to it. */
Test(plan, refuses_its_own_listener_with_a_needless_scope)
{
    assert_status("[::1]:80=[::1%lo]:80", EXIT_STATUS_CONFIG);
    assert_status("[::1%lo]:80=[::1]:80", EXIT_STATUS_CONFIG);
}

/* --- listening --- */

/* Each worker has a TCP socket of its own for each listener, and all workers share a unix socket. */
Test(plan, opens_a_socket_for_each_worker)
{
    enum { WORKERS = 3 };
    char text[ADDR_TEXT_BYTES];
    char path[64];
    char args[ARG_BYTES];
    size_t before;
    struct made made;

    free_address(text);
    own_path(path, "shared");
    (void)snprintf(args, sizeof(args), "%s=192.0.2.1:1 unix:%s=192.0.2.1:1", text, path);
    before = count_open_fds();
    make_valid(&made, args);
    cr_assert(listen_for(&made, WORKERS) == 0, "%s", made.errors);
    cr_assert(count_open_fds() == before + WORKERS + 1);
    cr_assert(made.plan.workers == WORKERS);
    for (size_t w = 0; w < WORKERS; w++) {
        cr_assert(is_open(plan_listener_fd(&made.plan.listeners[0], w)));
        cr_assert(plan_listener_fd(&made.plan.listeners[1], w) ==
                  plan_listener_fd(&made.plan.listeners[1], 0));
        for (size_t other = 0; other < w; other++) {
            cr_assert(plan_listener_fd(&made.plan.listeners[0], w) !=
                      plan_listener_fd(&made.plan.listeners[0], other));
        }
    }
    cr_assert(connects(text));
    (void)snprintf(args, sizeof(args), "unix:%s", path);
    cr_assert(connects(args));
    plan_unlink(&made.plan);
    cr_assert(!is_there(path));
    finish(&made);
    cr_assert(count_open_fds() == before);
    cr_assert(!connects(text));
}

/* A worker keeps its own TCP sockets and the unix sockets; with SIZE_MAX nothing is kept. */
Test(plan, close_keeps_what_belongs_to_one_worker)
{
    enum { WORKERS = 3 };
    char text[ADDR_TEXT_BYTES];
    char args[ARG_BYTES];

    free_address(text);
    (void)snprintf(args, sizeof(args), "%s=192.0.2.1:1 unix:@sluice-plan-%d=192.0.2.1:1", text,
                   (int)getpid());
    for (size_t keep = 0; keep <= WORKERS; keep++) {
        size_t kept = keep < WORKERS ? keep : SIZE_MAX;
        size_t before = count_open_fds();
        struct made made;

        make_valid(&made, args);
        cr_assert(listen_for(&made, WORKERS) == 0, "%s", made.errors);
        plan_close(&made.plan, kept);
        for (size_t w = 0; w < WORKERS; w++) {
            cr_assert(is_open(plan_listener_fd(&made.plan.listeners[0], w)) == (w == kept));
        }
        cr_assert(is_open(plan_listener_fd(&made.plan.listeners[1], 0)) == (kept != SIZE_MAX));
        plan_close(&made.plan, SIZE_MAX);
        cr_assert(count_open_fds() == before);
        finish(&made);
    }
}

/* When one address can't be had, what was opened before is closed again: the port is free, the file is
 * gone, no descriptor is left; and every problem is named. */
Test(plan, listening_is_all_or_nothing)
{
    char good[ADDR_TEXT_BYTES];
    char taken[ADDR_TEXT_BYTES];
    char path[64];
    char file[64];
    char args[4 * ARG_BYTES];
    char expected[4 * ARG_BYTES];
    int stranger = strangers_listener(taken);
    int fd;
    size_t before;
    struct made made;

    free_address(good);
    own_path(path, "socket");
    own_path(file, "file");
    fd = open(file, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert(fd >= 0);
    (void)close(fd);
    (void)snprintf(args, sizeof(args),
                   "%s=192.0.2.1:1 unix:%s=192.0.2.1:1 %s=192.0.2.1:1 unix:%s=192.0.2.1:1 "
                   "203.0.113.7:80=192.0.2.1:1 unix:/nowhere/x=192.0.2.1:1",
                   good, path, taken, file);
    make_valid(&made, args);
    before = count_open_fds();
    cr_assert(listen_for(&made, 2) == EXIT_STATUS_FAILURE);
    (void)snprintf(expected, sizeof(expected),
                   "sluice: can't listen on \"%s\" (%s): Address already in use: somebody listens "
                   "there, or a connection has it as its own port\n"
                   "sluice: can't listen on \"unix:%s\" (unix:%s): Path is taken: the file there "
                   "is not a socket, and is left alone\n"
                   "sluice: can't listen on \"203.0.113.7:80\" (203.0.113.7:80): Cannot assign "
                   "requested address: no interface has this address\n"
                   "sluice: can't listen on \"unix:/nowhere/x\" (unix:/nowhere/x): No such file "
                   "or directory: the directory does not exist\n",
                   taken, taken, file, file);
    cr_assert_str_eq(made.errors, expected, "\n%s\nexpected:\n%s", made.errors, expected);
    cr_assert(count_open_fds() == before);
    cr_assert(!connects(good));
    cr_assert(!is_there(path));
    cr_assert(is_there(file));
    cr_assert(connects(taken), "the other program is as it was");
    finish(&made);
    (void)unlink(file);
    (void)close(stranger);
}

/* The unix socket of another program is refused and stays, as does a second listener of ours. */
Test(plan, leaves_the_unix_socket_of_another_program)
{
    char path[64];
    char args[ARG_BYTES];
    char listen_text[ADDR_TEXT_BYTES];
    struct made first;
    struct made second;

    own_path(path, "other");
    (void)snprintf(args, sizeof(args), "unix:%s=192.0.2.1:1", path);
    (void)snprintf(listen_text, sizeof(listen_text), "unix:%s", path);
    make_valid(&first, args);
    cr_assert(listen_for(&first, 1) == 0);
    make_valid(&second, args);
    cr_assert(listen_for(&second, 1) == EXIT_STATUS_FAILURE);
    cr_assert(strstr(second.errors, "somebody listens there already") != NULL, "%s", second.errors);
    plan_unlink(&second.plan);
    finish(&second);
    cr_assert(connects(listen_text));
    plan_unlink(&first.plan);
    finish(&first);
    cr_assert(!is_there(path));
}

/* At the end only our own file is removed: what somebody put in its place stays, and what is gone
 * already is no problem. */
Test(plan, unlink_removes_only_our_own_file)
{
    char path[64];
    char moved[64];
    char args[ARG_BYTES];

    own_path(path, "ours");
    own_path(moved, "moved");
    (void)snprintf(args, sizeof(args), "unix:%s=192.0.2.1:1", path);
    for (int replaced = 0; replaced < 3; replaced++) {
        struct made made;
        int fd;

        make_valid(&made, args);
        plan_unlink(&made.plan); /* before anything is open */
        cr_assert(listen_for(&made, 1) == 0, "%s", made.errors);
        if (replaced > 0) {
            cr_assert(rename(path, moved) == 0);
        }
        if (replaced == 2) {
            fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
            cr_assert(fd >= 0);
            (void)close(fd);
        }
        plan_unlink(&made.plan);
        cr_assert(is_there(path) == (replaced == 2));
        plan_unlink(&made.plan);
        finish(&made);
        (void)unlink(path);
        (void)unlink(moved);
    }
}

/* `:PORT` takes both families with one socket for each worker. */
Test(plan, any_address_listens_on_both_families)
{
    char text[ADDR_TEXT_BYTES];
    char args[ARG_BYTES];
    struct made made;

    free_address(text);
    (void)snprintf(args, sizeof(args), "%s=192.0.2.1:1", strrchr(text, ':'));
    make_valid(&made, args);
    if (listen_for(&made, 2) != 0) {
        cr_skip_test("another program has taken the port on another address");
    }
    cr_assert(connects(text));
    if (made.plan.listeners[0].addr.u.any.sa_family == AF_INET6) {
        (void)snprintf(args, sizeof(args), "[::1]%s", strrchr(text, ':'));
        cr_assert(!has_v6_loopback() || connects(args));
    }
    finish(&made);
}

/* An IPv4 address in IPv6 spelling is listened on like the address that it is. */
Test(plan, listens_on_a_mapped_address)
{
    char text[ADDR_TEXT_BYTES];
    char args[ARG_BYTES];
    struct made made;

    free_address(text);
    (void)snprintf(args, sizeof(args), "[::ffff:%.*s]%s=192.0.2.1:1",
                   (int)(strrchr(text, ':') - text), text, strrchr(text, ':'));
    make_valid(&made, args);
    cr_assert(listen_for(&made, 2) == 0, "%s", made.errors);
    cr_assert(connects(text));
    finish(&made);
}

/* A plan may be finished in any state: zeroed, made, listening, finished. */
Test(plan, fini_takes_any_state)
{
    struct plan zeroed = {0};
    struct made made;

    plan_fini(&zeroed);
    plan_unlink(&zeroed);
    plan_close(&zeroed, 0);
    make_valid(&made, "unix:/x=192.0.2.1:1");
    plan_close(&made.plan, SIZE_MAX);
    plan_unlink(&made.plan);
    plan_fini(&made.plan);
    finish(&made);
}
