/* Tests of what happens rarely below the relay: a shortage while a left-over socket file is looked
 * at, a listening socket that can't listen, a signal in the middle of an accept. See
 * support/unit/fault.h. */
#include "net/sock.h"
#include "net/sys.h"
#include "support/unit/fault.h"
#include "support/unit/lane.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static char directory[64];

static void make_directory(void)
{
    (void)snprintf(directory, sizeof(directory), "/tmp/sluice-corner-XXXXXX");
    cr_assert(mkdtemp(directory) != NULL, "%s", strerror(errno));
}

static struct addr path_in_directory(void)
{
    struct addr addr = {.len = sizeof(addr.u.local)};

    addr.u.local.sun_family = AF_UNIX;
    (void)snprintf(addr.u.local.sun_path, sizeof(addr.u.local.sun_path), "%s/socket", directory);
    return addr;
}

static void remove_directory(void)
{
    struct addr addr = path_in_directory();

    (void)chmod(directory, 0700);
    (void)unlink(addr.u.local.sun_path);
    cr_assert(rmdir(directory) == 0);
}

static bool file_is_there(const struct addr *addr)
{
    struct stat status;

    return lstat(addr->u.local.sun_path, &status) == 0;
}

/* What a killed process leaves: a socket file with nobody behind it. */
static void leave_stale_file(const struct addr *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0);
    cr_assert(bind(fd, &addr->u.any, addr->len) == 0, "%s", strerror(errno));
    (void)close(fd);
    cr_assert(chmod(addr->u.local.sun_path, 0777) == 0);
}

/* Without a descriptor nobody can tell if a server lives behind the path: then it is left alone. */
Test(sock, leaves_a_path_alone_that_it_can_not_examine, .init = make_directory,
     .fini = remove_directory)
{
    struct addr addr = path_in_directory();

    leave_stale_file(&addr);
    fault_fail(CALL_SOCKET, ANY_FD, 1, 1, EMFILE);
    cr_assert(sock_listen_unix(&addr) == -EADDRINUSE);
    cr_assert(fault_fired() == 1);
    cr_assert(file_is_there(&addr));
}

/* A stale file in a directory that is not ours: said by its errno, and no descriptor is left. */
Test(sock, reports_a_stale_path_that_it_may_not_remove, .init = make_directory,
     .fini = remove_directory)
{
    struct addr addr = path_in_directory();
    size_t before;
    int result;

    leave_stale_file(&addr);
    cr_assert(chmod(directory, 0555) == 0);
    if (geteuid() == 0) {
        cr_assert(seteuid(65534) == 0);
    }
    before = count_open_fds();
    result = sock_listen_unix(&addr);
    if (getuid() == 0) {
        cr_assert(seteuid(0) == 0);
    }
    cr_assert(result == -EACCES, "%s", strerror(-result));
    cr_assert(count_open_fds() == before);
    cr_assert(file_is_there(&addr));
}

/* bind(2) makes the file; when listen(2) then fails, nobody else would remove it. An abstract name
 * has none. */
Test(sock, leaves_no_file_when_it_can_not_listen, .init = make_directory, .fini = remove_directory)
{
    struct addr addr = path_in_directory();
    struct addr abstract = {.len = offsetof(struct sockaddr_un, sun_path) + 8};
    size_t before = count_open_fds();

    abstract.u.local.sun_family = AF_UNIX;
    (void)snprintf(abstract.u.local.sun_path + 1, 8, "%u", (unsigned)getpid());
    fault_fail(CALL_LISTEN, ANY_FD, 1, 2, ENOBUFS);
    cr_assert(sock_listen_unix(&addr) == -ENOBUFS);
    cr_assert(sock_listen_unix(&abstract) == -ENOBUFS);
    cr_assert(fault_fired() == 2);
    cr_assert(!file_is_there(&addr));
    cr_assert(count_open_fds() == before);
}

/* Each of the options of a socket that starts from --source may be refused, IP_BIND_ADDRESS_NO_PORT
 * among them: the errno comes back, the descriptor is closed. */
Test(sock, reports_each_option_that_a_source_is_refused)
{
    struct addr source = {.len = sizeof(source.u.v4)};
    size_t before = count_open_fds();
    size_t options;
    int fd;

    source.u.v4.sin_family = AF_INET;
    source.u.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = sock_new(AF_INET, &source);
    cr_assert(fd >= 0, "%s", strerror(-fd));
    (void)close(fd);
    options = fault_count(CALL_SET_OPTION, ANY_FD);
    cr_assert(options >= 4, "%zu", options);
    for (size_t nth = 1; nth <= options; nth++) {
        fault_clear();
        fault_fail(CALL_SET_OPTION, ANY_FD, (uint32_t)nth, 1, ENOMEM);
        cr_assert(sock_new(AF_INET, &source) == -ENOMEM, "option %zu", nth);
        cr_assert(fault_fired() == 1);
    }
    cr_assert(count_open_fds() == before);
}

/* --- an interrupted accept --- */

static volatile sig_atomic_t ticks;
static int client_fd;
static struct addr listening;

/* connect(2) is among the calls that a signal handler may make. */
static void connect_at_the_fifth_tick(int number)
{
    (void)number;
    ticks++;
    if (ticks == 5) {
        (void)!connect(client_fd, &listening.u.any, listening.len);
    }
}

/* Signals meet an accept that waits: it goes on until there is a client. */
Test(sys, interrupted_accept_goes_on)
{
    struct sigaction action = {.sa_handler = connect_at_the_fifth_tick}; /* without SA_RESTART */
    struct itimerval timer = {.it_interval.tv_usec = 1000, .it_value.tv_usec = 1000};
    const struct itimerval stopped = {0};
    struct addr from = {.len = sizeof(from.u)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int accepted;

    listening.u.v4.sin_family = AF_INET;
    listening.u.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listening.len = sizeof(listening.u.v4);
    client_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(listener >= 0 && client_fd >= 0);
    cr_assert(bind(listener, &listening.u.any, listening.len) == 0);
    cr_assert(getsockname(listener, &listening.u.any, &listening.len) == 0);
    cr_assert(listen(listener, 1) == 0);
    cr_assert(sigaction(SIGALRM, &action, NULL) == 0);
    cr_assert(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    accepted = sys_accept(listener, &from.u.any, &from.len);
    cr_assert(setitimer(ITIMER_REAL, &stopped, NULL) == 0);
    cr_assert(accepted >= 0, "%s", strerror(-accepted));
    cr_assert(ticks >= 5);
    sys_close(accepted);
    (void)close(client_fd);
    (void)close(listener);
}
