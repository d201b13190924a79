/*
 * tally: the shared file behind the counters. See tally.h for its layout.
 *
 * Without a file the numbers go to a row that nobody reads, so that counting needs no condition on
 * the byte path. The file gets its blocks before it is mapped: a full disk is an error at the start
 * and not a SIGBUS in the middle of a measurement. Put it on a tmpfs if the disk is slow.
 */
#include "tally.h"

#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

static alignas(64) uint64_t unread_row[TALLY_SLOTS];
static uint64_t *rows; /* owned until the end of the process; NULL without a file */

uint64_t *tally_row = unread_row;

int tally_open(const char *path, int workers)
{
    const size_t size = sizeof(uint64_t) * TALLY_SLOTS * (size_t)workers;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    void *memory = MAP_FAILED;
    int error;

    if (fd < 0) {
        return -errno;
    }
    error = posix_fallocate(fd, 0, (off_t)size);
    if (error == 0) {
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        error = memory == MAP_FAILED ? errno : 0;
    }
    (void)close(fd); /* the mapping keeps the file */
    if (error == 0) {
        rows = memory;
    }
    return -error;
}

void tally_select(int worker)
{
    if (rows != NULL) {
        tally_row = rows + (size_t)worker * TALLY_SLOTS;
    }
}
