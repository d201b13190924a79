/* Tests of giving up root: in forked children, since there is no way back. Only root can run most of
 * them. */
#include "proc/privileges.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A scenario returns NULL or what is wrong. */
typedef const char *scenario_fn(void);

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            return #condition;                                                                     \
        }                                                                                          \
    } while (0)

static void run_in_child(scenario_fn *scenario)
{
    char text[256] = "";
    int fds[2];
    int status;
    ssize_t len;
    pid_t child;

    if (geteuid() != 0) {
        cr_skip_test("only root has something to give up");
    }
    cr_assert(pipe(fds) == 0);
    child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        const char *problem = scenario();

        if (problem != NULL) {
            (void)!write(fds[1], problem, strlen(problem));
        }
        _exit(0);
    }
    (void)close(fds[1]);
    len = read(fds[0], text, sizeof(text) - 1);
    (void)close(fds[0]);
    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status), "wait status %#x", (unsigned)status);
    cr_assert(len == 0, "not so: %s", text);
}

/* An account that no machine needs to have. */
static const struct identity ordinary = {.uid = 4711, .gid = 4712};

static bool become(const struct identity *identity)
{
    return identity_become(identity) == 0;
}

/* A field of /proc/self/status in hexadecimal. */
static unsigned long long status_field(const char *name)
{
    FILE *file = fopen("/proc/self/status", "re");
    unsigned long long value = ~0ULL;
    char line[256];

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            value = strtoull(line + strlen(name), NULL, 16);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return value;
}

static const char *all_ids_change(void)
{
    static const gid_t groups[] = {0, 1, 2};
    uid_t uids[3];
    gid_t gids[3];

    REQUIRE(setgroups(3, groups) == 0);
    REQUIRE(become(&ordinary));
    REQUIRE(getresuid(&uids[0], &uids[1], &uids[2]) == 0);
    REQUIRE(getresgid(&gids[0], &gids[1], &gids[2]) == 0);
    for (int i = 0; i < 3; i++) {
        REQUIRE(uids[i] == ordinary.uid);
        REQUIRE(gids[i] == ordinary.gid);
    }
    REQUIRE(getgroups(0, NULL) == 0);
    return NULL;
}

static const char *no_way_back(void)
{
    REQUIRE(become(&ordinary));
    REQUIRE(setuid(0) < 0);
    REQUIRE(seteuid(0) < 0);
    REQUIRE(setreuid(0, 0) < 0);
    REQUIRE(setresuid((uid_t)-1, (uid_t)-1, 0) < 0);
    REQUIRE(setgid(0) < 0);
    REQUIRE(setegid(0) < 0);
    REQUIRE(setgroups(1, &(gid_t){0}) < 0);
    REQUIRE(status_field("CapPrm:") == 0);
    REQUIRE(status_field("CapEff:") == 0);
    return NULL;
}

static char root_file[64];

static void make_root_file(void)
{
    int fd;

    (void)snprintf(root_file, sizeof(root_file), "/tmp/sluice-privileges-XXXXXX");
    fd = mkstemp(root_file); /* with mode 600 */
    cr_assert(fd >= 0);
    (void)close(fd);
}

static void remove_root_file(void)
{
    (void)unlink(root_file);
}

static const char *root_files_are_out_of_reach(void)
{
    int fd = open(root_file, O_RDONLY | O_CLOEXEC);

    REQUIRE(fd >= 0);
    REQUIRE(become(&ordinary));
    REQUIRE(open(root_file, O_RDONLY | O_CLOEXEC) < 0);
    REQUIRE(errno == EACCES);
    return NULL;
}

static const char *becomes_nobody(void)
{
    struct identity identity;

    if (getpwnam("nobody") == NULL) {
        return NULL;
    }
    REQUIRE(identity_find("nobody", &identity) == 0);
    REQUIRE(become(&identity));
    REQUIRE(getuid() == identity.uid);
    REQUIRE(setuid(0) < 0);
    return NULL;
}

static const char *twice_is_fine(void)
{
    static const struct identity other = {.uid = 4713, .gid = 4712};

    REQUIRE(identity_is_possible(&ordinary));
    REQUIRE(identity_is_possible(&other));
    REQUIRE(become(&ordinary));
    REQUIRE(identity_is_possible(&ordinary));
    REQUIRE(become(&ordinary));
    REQUIRE(!identity_is_possible(&other));
    REQUIRE(identity_become(&other) == -EPERM);
    REQUIRE(getuid() == ordinary.uid);
    return NULL;
}

static const char *group_alone_is_not_enough(void)
{
    static const struct identity root_user = {.uid = 0, .gid = 4712};

    REQUIRE(identity_become(&root_user) == 0);
    REQUIRE(getuid() == 0);
    REQUIRE(getgid() == 4712);
    REQUIRE(getgroups(0, NULL) == 0);
    return NULL;
}

/* Real, effective and saved user and group change, and no group of root's is kept. */
Test(privileges, every_id_changes_and_no_group_stays)
{
    run_in_child(all_ids_change);
}

/* None of the ways to become root again works, and no capability is left. */
Test(privileges, there_is_no_way_back)
{
    run_in_child(no_way_back);
}

/* What only root may read stays closed: a file that was open to root a moment ago. */
Test(privileges, files_of_root_are_out_of_reach, .init = make_root_file, .fini = remove_root_file)
{
    run_in_child(root_files_are_out_of_reach);
}

/* The usual case, `--user nobody`. */
Test(privileges, nobody_can_be_found_and_become)
{
    run_in_child(becomes_nobody);
}

/* Being that user already is fine; becoming another one then is refused and changes nothing. What is
 * possible is known beforehand. */
Test(privileges, may_be_given_up_twice)
{
    run_in_child(twice_is_fine);
}

/* `--user root` is the operator's choice: no check stands in its way, and the groups go all the same. */
Test(privileges, root_may_stay_root)
{
    run_in_child(group_alone_is_not_enough);
}

/* Users are found by name, with their group; an unknown one is told from an error. */
Test(privileges, users_are_found_by_name)
{
    const struct passwd *entry = getpwuid(0);
    struct identity identity = {.uid = 4711, .gid = 4712};

    cr_assert(identity_find("no-such-user-here", &identity) == -ENOENT);
    cr_assert(identity_find("", &identity) == -ENOENT);
    cr_assert(identity.uid == 4711, "nothing is stored");
    if (entry == NULL) {
        cr_skip_test("root has no account here");
    }
    cr_assert(identity_find(entry->pw_name, &identity) == 0);
    cr_assert(identity.uid == 0);
    cr_assert(identity.gid == getpwuid(0)->pw_gid);
}
