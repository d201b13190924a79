/* Namespaces without `ip netns`: that would leave names in /run/netns behind when a test dies. Here
 * a namespace is only a descriptor, and the kernel frees it with the last process or descriptor in
 * it. */
#include "support/netns.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
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
    netns_run("ip address add " NETNS_NEAR_IP "/24 dev near && ip link set near up && "
              "ip address add " NETNS_NEAR_IP6 "/64 dev near nodad");
    netns_go_far();
    netns_run("ip address add " NETNS_FAR_IP "/24 dev far && ip link set far up && "
              "ip address add " NETNS_FAR_IP6 "/64 dev far nodad");
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

/* At the input: dropped at the output, connect(2) itself would be told. */
static void make_table(void)
{
    if (system("nft add table inet sluice 2>/dev/null") != 0) {
        cr_skip_test("nft does not work here");
    }
    netns_run("nft add counter inet sluice hits && "
              "nft add chain inet sluice in '{ type filter hook input priority 0; }'");
}

void netns_rule(const char *format, ...)
{
    char rule[COMMAND_BYTES];
    va_list values;
    int len;

    va_start(values, format);
    len = vsnprintf(rule, sizeof(rule), format, values);
    va_end(values);
    cr_assert(len > 0 && len < COMMAND_BYTES);
    make_table();
    /* The verdict comes last in a rule, and the counter before it. */
    for (const char *const *verdict = (const char *const[]){" drop", " reject", NULL};
         *verdict != NULL; verdict++) {
        char *place = strstr(rule, *verdict);

        if (place != NULL) {
            netns_run("nft 'add rule inet sluice in %.*s counter name \"hits\"%s'",
                      (int)(place - rule), rule, place);
            return;
        }
    }
    cr_assert(false, "a rule without a verdict: %s", rule);
}

uint64_t netns_hits(void)
{
    unsigned long long hits = 0;
    char line[128];
    bool found = false;
    FILE *said = popen("nft list counter inet sluice hits", "re");

    cr_assert(said != NULL);
    while (fgets(line, sizeof(line), said) != NULL) {
        found |= sscanf(line, " packets %llu", &hits) == 1;
    }
    cr_assert(pclose(said) == 0 && found, "nft tells no counter");
    return hits;
}

void netns_clear(void)
{
    netns_run("nft flush chain inet sluice in");
}

void netns_drop_syn(unsigned port)
{
    netns_rule("tcp dport %u tcp flags & (syn|ack) == syn drop", port);
}

/* Goes there, and returns the name of the cable's end. */
static const char *go_to_end(int end)
{
    go(end == 0 ? near_fd : far_fd);
    return end == 0 ? "near" : "far";
}

void netns_set_mtu(unsigned bytes)
{
    for (int end = 0; end < 2; end++) {
        netns_run("ip link set %s mtu %u", go_to_end(end), bytes);
    }
    netns_go_near();
}

void netns_one_segment_a_packet(void)
{
    skip_without("ethtool");
    for (int end = 0; end < 2; end++) {
        netns_run("ethtool -K %s tso off gso off gro off >/dev/null", go_to_end(end));
    }
    netns_go_near();
}

void netns_set_rate(unsigned megabits)
{
    skip_without("tc");
    for (int end = 0; end < 2; end++) {
        const char *device = go_to_end(end);
        char command[COMMAND_BYTES];

        (void)snprintf(command, sizeof(command),
                       "tc qdisc replace dev %s root tbf rate %umbit burst 64k latency 20ms",
                       device, megabits);
        if (system(command) != 0) {
            netns_go_near();
            cr_skip_test("this kernel has no tbf");
        }
    }
    netns_go_near();
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

/* Lines come in pairs: the names, then the values. */
static bool find_counter(const char *path, const char *name, uint64_t *ret_value)
{
    FILE *file = fopen(path, "re");
    char names[8192];
    char values[8192];
    bool found = false;

    cr_assert(file != NULL, "%s: %s", path, strerror(errno));
    while (!found && fgets(names, sizeof(names), file) != NULL &&
           fgets(values, sizeof(values), file) != NULL) {
        char *name_state;
        char *value_state;
        char *word = strtok_r(names, " \n", &name_state);
        char *text = strtok_r(values, " \n", &value_state);

        while (!found && word != NULL && text != NULL) {
            found = strcmp(word, name) == 0;
            *ret_value = found ? strtoull(text, NULL, 10) : 0;
            word = strtok_r(NULL, " \n", &name_state);
            text = strtok_r(NULL, " \n", &value_state);
        }
    }
    (void)fclose(file);
    return found;
}

uint64_t netns_counter(const char *name)
{
    uint64_t value = 0;

    cr_assert(find_counter("/proc/thread-self/net/netstat", name, &value) ||
                  find_counter("/proc/thread-self/net/snmp", name, &value),
              "this kernel has no counter %s", name);
    return value;
}
