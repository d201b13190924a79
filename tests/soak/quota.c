/* The quota (pipe-user-pages-soft, pipe(7)) is the sum over all processes of a user. Beyond it a
 * new pipe has two pages and can't be made larger, which the last pipe taken here shows. */
#include "soak/quota.h"

#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PIPES_MAX = 2000, LARGE_BYTES = 1 << 20, SMALL_BYTES = 64 * 1024, PAGE_BYTES = 4096 };

static int become(const char *user, const char *group)
{
    uid_t uid = (uid_t)strtoul(user, NULL, 10);
    gid_t gid = (gid_t)strtoul(group, NULL, 10);

    if (uid != 0 && (setgroups(0, NULL) < 0 || setgid(gid) < 0 || setuid(uid) < 0)) {
        perror("soak: becoming the workers' user");
        return 1;
    }
    return 0;
}

static int hold_pipes(void)
{
    long bytes = 0;
    char word;

    for (int i = 0; i < PIPES_MAX; i++) {
        int fds[2];
        int size;

        if (pipe(fds) < 0) {
            break;
        }
        size = fcntl(fds[1], F_SETPIPE_SZ, LARGE_BYTES);
        if (size < 0) {
            size = fcntl(fds[1], F_GETPIPE_SZ);
        }
        bytes += size;
        if (size < SMALL_BYTES) {
            break;
        }
    }
    (void)printf("%ld\n", bytes / PAGE_BYTES);
    (void)fflush(stdout);
    while (read(STDIN_FILENO, &word, 1) > 0) {}
    return 0;
}

static int set_limit(pid_t pid, rlim_t descriptors)
{
    struct rlimit before;
    struct rlimit after;

    if (prlimit(pid, RLIMIT_NOFILE, NULL, &before) == 0) {
        after = (struct rlimit){.rlim_cur = descriptors, .rlim_max = before.rlim_max};
        if (prlimit(pid, RLIMIT_NOFILE, &after, NULL) == 0) {
            (void)printf("%lu\n", (unsigned long)before.rlim_cur);
            return 0;
        }
    }
    perror("soak: prlimit");
    return 1;
}

int quota_run(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "hold-pipes") == 0) {
        return become(argv[2], argv[3]) != 0 ? 1 : hold_pipes();
    }
    if (argc == 6 && strcmp(argv[1], "limit") == 0) {
        return become(argv[2], argv[3]) != 0
                   ? 1
                   : set_limit((pid_t)strtol(argv[4], NULL, 10), strtoul(argv[5], NULL, 10));
    }
    return -1;
}
