/* Preloaded into sluice: CLOCK_REALTIME is off by as many seconds as the file CLOCK_JUMPS_FILE holds
 * (one int64_t, read anew at each call). All other clocks are as they are. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset_s;

__attribute__((constructor)) static void map_offset(void)
{
    const char *path = getenv("CLOCK_JUMPS_FILE");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *memory =
        fd >= 0 ? mmap(NULL, sizeof(*offset_s), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

    if (fd >= 0) {
        (void)close(fd);
    }
    offset_s = memory != MAP_FAILED ? memory : NULL;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    long result = syscall(SYS_clock_gettime, clock, time);

    if (result == 0 && clock == CLOCK_REALTIME && offset_s != NULL) {
        time->tv_sec += *offset_s;
    }
    return (int)result;
}
