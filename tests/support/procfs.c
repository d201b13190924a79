/* Reading /proc. A process may go away between two lines of this file: then it has no state, no
 * descriptors, and no name. */
#include "support/procfs.h"

#include "support/ends.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { WAIT_MS = 30000 };

char process_state(pid_t pid)
{
    char path[64];
    char state = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1) {
            state = 0;
        }
        (void)fclose(file);
    }
    return state;
}

bool is_gone(pid_t pid)
{
    char state = process_state(pid);

    return state == 0 || state == 'Z' || state == 'X';
}

void wait_for_state(pid_t pid, char state)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;

    while (process_state(pid) != state) {
        cr_assert(monotonic_ms() < deadline, "process %d is in state %c", pid, process_state(pid));
        pause_ms(1);
    }
}

void read_status(pid_t pid, const char *key, char value[PROCFS_VALUE_BYTES])
{
    size_t len = strlen(key);
    char path[64];
    char line[PROCFS_VALUE_BYTES];
    FILE *file;

    value[0] = '\0';
    (void)snprintf(path, sizeof(path), "/proc/%d/status", pid);
    file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, key, len) == 0 && line[len] == ':') {
            const char *text = line + len + 1;

            text += strspn(text, " \t");
            (void)snprintf(value, PROCFS_VALUE_BYTES, "%s", text);
            value[strcspn(value, "\n")] = '\0';
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

size_t read_targets(pid_t pid, char targets[PROCFS_TARGETS_MAX][PROCFS_TARGET_BYTES])
{
    char path[320];
    size_t count = 0;
    struct dirent *entry;
    DIR *directory;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    directory = opendir(path);
    cr_assert(directory != NULL, "process %d is gone", pid);
    while ((entry = readdir(directory)) != NULL) {
        cr_assert(count < PROCFS_TARGETS_MAX);
        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, entry->d_name);
        memset(targets[count], 0, PROCFS_TARGET_BYTES);
        count += readlink(path, targets[count], PROCFS_TARGET_BYTES - 1) > 0;
    }
    (void)closedir(directory);
    return count;
}

size_t count_targets(pid_t pid, const char *prefix)
{
    size_t count = 0;

    for (int fd = highest_descriptor(pid); fd >= 0; fd--) {
        char path[64];
        char target[PROCFS_TARGET_BYTES] = "";

        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
        count += readlink(path, target, sizeof(target) - 1) > 0 &&
                 strncmp(target, prefix, strlen(prefix)) == 0;
    }
    return count;
}

int highest_descriptor(pid_t pid)
{
    char path[64];
    int highest = -1;
    struct dirent *entry;
    DIR *directory;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    directory = opendir(path);
    cr_assert(directory != NULL, "process %d is gone", pid);
    while ((entry = readdir(directory)) != NULL) {
        int fd = (int)strtol(entry->d_name, NULL, 10);

        highest = fd > highest ? fd : highest;
    }
    (void)closedir(directory);
    return highest;
}

pid_t monitor_pid(const struct proxy *proxy)
{
    pid_t pids[PROXY_WORKERS_MAX + 1];
    size_t count = proxy_child_pids(proxy, pids);

    for (size_t i = 0; i < count; i++) {
        char name[PROCFS_VALUE_BYTES];

        read_status(pids[i], "Name", name);
        if (strcmp(name, "sluice-log") == 0 && !is_gone(pids[i])) {
            return pids[i];
        }
    }
    return 0;
}

pid_t wait_for_monitor(const struct proxy *proxy, pid_t not_this)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;
    pid_t pid;

    while ((pid = monitor_pid(proxy)) == 0 || pid == not_this) {
        cr_assert(monotonic_ms() < deadline, "there is no monitor");
        pause_ms(1);
    }
    return pid;
}

static bool are_complete(const struct proxy *proxy, pid_t not_this, pid_t pids[PROXY_WORKERS_MAX])
{
    size_t count = proxy_worker_pids(proxy, pids);

    for (size_t i = 0; i < count; i++) {
        if (pids[i] == not_this || is_gone(pids[i])) {
            return false;
        }
    }
    return count == proxy->workers;
}

void wait_for_workers(const struct proxy *proxy, pid_t not_this, pid_t pids[PROXY_WORKERS_MAX])
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;

    while (!are_complete(proxy, not_this, pids)) {
        cr_assert(monotonic_ms() < deadline, "workers are missing:\n%s", proxy->log);
        pause_ms(1);
    }
}

/* True while some socket listens on the proxy's port (state 0A in /proc/net/tcp). */
static bool is_listening(const struct proxy *proxy)
{
    unsigned bytes[4];
    char wanted[32];
    char line[256];
    bool found = false;
    FILE *file = fopen("/proc/net/tcp", "re");

    cr_assert(file != NULL);
    cr_assert(sscanf(proxy->ip, "%u.%u.%u.%u", &bytes[0], &bytes[1], &bytes[2], &bytes[3]) == 4);
    (void)snprintf(wanted, sizeof(wanted), "%02X%02X%02X%02X:%04X", bytes[3], bytes[2], bytes[1],
                   bytes[0], PROXY_PORT);
    while (fgets(line, sizeof(line), file) != NULL) {
        char local[32];
        unsigned state;

        if (sscanf(line, "%*d: %31s %*s %x", local, &state) == 2 && state == 0x0a) {
            found = found || strcmp(local, wanted) == 0;
        }
    }
    (void)fclose(file);
    return found;
}

static void wait_until_listening(const struct proxy *proxy, bool listening)
{
    uint64_t deadline = monotonic_ms() + WAIT_MS;

    while (is_listening(proxy) != listening) {
        cr_assert(monotonic_ms() < deadline, "the port is still %s", listening ? "closed" : "open");
        pause_ms(1);
    }
}

void wait_until_open(const struct proxy *proxy)
{
    wait_until_listening(proxy, true);
}

void wait_until_closed(const struct proxy *proxy)
{
    wait_until_listening(proxy, false);
}

long read_number(const char *path)
{
    FILE *file = fopen(path, "re");
    long number = -1;

    if (file != NULL) {
        if (fscanf(file, "%ld", &number) != 1) {
            number = -1;
        }
        (void)fclose(file);
    }
    return number;
}

void need_descriptors(unsigned count)
{
    struct rlimit limit;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_max < count) {
        cr_skip_test("needs %u descriptors (ulimit -Hn)", count);
    }
    limit.rlim_cur = limit.rlim_max;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

void need_root(void)
{
    if (geteuid() != 0) {
        cr_skip_test("needs root to become another user");
    }
}

void become_nobody(void)
{
    if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
        setresuid(NOBODY, NOBODY, NOBODY) < 0) {
        _exit(126);
    }
}
