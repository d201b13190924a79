/* Namespaces without `ip netns`: that would leave names in /run/netns behind when a test dies. Here
 * a namespace is only a descriptor, and the kernel frees it with the last process or descriptor in
 * it. */
#include "support/netns.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COMMAND_BYTES = 512 };

static int near_fd = -1;
static int far_fd = -1;

static int open_own(void)
{
    char path[64];
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%ld/ns/net", syscall(SYS_gettid));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
    return fd;
}

static void go(int fd)
{
    cr_assert(fd >= 0, "no such namespace was made");
    cr_assert(setns(fd, CLONE_NEWNET) == 0, "setns: %s", strerror(errno));
}

void netns_run(const char *format, ...)
{
    char command[COMMAND_BYTES];
    va_list values;
    int len;
    int status;

    va_start(values, format);
    len = vsnprintf(command, sizeof(command), format, values);
    va_end(values);
    cr_assert(len > 0 && len < COMMAND_BYTES);
    status = system(command);
    cr_assert(status == 0, "status %d of: %s", status, command);
}

static void skip_without(const char *tool)
{
    char command[COMMAND_BYTES];

    (void)snprintf(command, sizeof(command), "command -v %s >/dev/null 2>&1", tool);
    if (system(command) != 0) {
        cr_skip_test("needs the tool %s", tool);
    }
}

void netns_enter(void)
{
    if (geteuid() != 0) {
        cr_skip_test("needs root, for a network namespace");
    }
    skip_without("ip");
    skip_without("nft");
    if (unshare(CLONE_NEWNET) < 0) {
        cr_skip_test("no network namespace to be had: %s", strerror(errno));
    }
    near_fd = open_own();
    netns_run("ip link set lo up");
}

void netns_add_far(void)
{
    cr_assert(near_fd >= 0, "netns_enter() comes first");
    cr_assert(unshare(CLONE_NEWNET) == 0, "unshare: %s", strerror(errno));
    far_fd = open_own();
    netns_run("ip link set lo up");
    netns_go_near();
    netns_run("ip link add near type veth peer name far netns /proc/%d/fd/%d", (int)getpid(),
              far_fd);
    netns_run("ip address add " NETNS_NEAR_IP "/24 dev near && ip link set near up");
    netns_go_far();
    netns_run("ip address add " NETNS_FAR_IP "/24 dev far && ip link set far up");
    netns_go_near();
}

void netns_go_far(void)
{
    go(far_fd);
}

void netns_go_near(void)
{
    go(near_fd);
}

void netns_unplug(void)
{
    netns_go_far();
    netns_run("ip link set far down");
    netns_go_near();
}

void netns_drop_syn(unsigned port)
{
    /* At the input: dropped at the output, connect(2) itself would be told. */
    if (system("nft add table inet sluice 2>/dev/null") != 0) {
        cr_skip_test("nft does not work here");
    }
    netns_run("nft add chain inet sluice in '{ type filter hook input priority 0; }' && "
              "nft add rule inet sluice in tcp dport %u tcp flags \\& '(syn|ack)' == syn drop",
              port);
}

void netns_set(const char *name, const char *value)
{
    char path[128];
    int fd;

    (void)snprintf(path, sizeof(path), "/proc/sys/net/ipv4/%s", name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        cr_skip_test("%s: %s", path, strerror(errno));
    }
    cr_assert(write(fd, value, strlen(value)) == (ssize_t)strlen(value), "%s = %s: %s", path, value,
              strerror(errno));
    cr_assert(close(fd) == 0);
}
