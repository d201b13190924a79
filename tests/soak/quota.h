/* Soak: what only the user of sluice's workers may do to them, or with them: taking that user's
 * quota of pipe pages, and setting a worker's limit of descriptors. (A root without
 * CAP_SYS_RESOURCE may not do the latter to others.) */
#ifndef SOAK_QUOTA_H
#define SOAK_QUOTA_H

/** `hold-pipes UID GID`: becomes that user (UID 0: stays who it is), takes what pipe pages it gets,
 *  prints how many, keeps them until stdin ends.
 *  `limit UID GID PID DESCRIPTORS`: likewise, sets the soft limit of that process and prints the
 *  one before.
 *  Returns the exit status, or -1 if these arguments are for somebody else. */
int quota_run(int argc, char **argv);

#endif
