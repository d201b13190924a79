/* setuid(2) and its kin, in the only order that works: groups while still root, the user last;
 * then a check that there is no way back (a saved id that was forgotten is a root shell for an
 * attacker). */
#include "proc/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

int identity_find(const char *name, struct identity *ret_identity)
{
    const struct passwd *entry;

    errno = 0;
    entry = getpwnam(name);
    if (entry == NULL) {
        return errno != 0 ? -errno : -ENOENT;
    }
    *ret_identity = (struct identity){.uid = entry->pw_uid, .gid = entry->pw_gid};
    return 0;
}

bool identity_is_possible(const struct identity *identity)
{
    return geteuid() == 0 || getuid() == identity->uid;
}

int identity_become(const struct identity *identity)
{
    if (geteuid() != 0 && getuid() == identity->uid) {
        return 0;
    }
    if (setgroups(0, NULL) < 0 || setresgid(identity->gid, identity->gid, identity->gid) < 0 ||
        setresuid(identity->uid, identity->uid, identity->uid) < 0) {
        return -errno;
    }
    if (identity->uid != 0 && setuid(0) == 0) {
        return -EPERM;
    }
    return 0;
}
