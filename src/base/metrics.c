/* The shared mapping behind the counters.
 *
 * It lies on a memfd and not on anonymous memory so that it has a name: /proc/PID/maps tells an
 * operator what these pages are. */
#include "base/metrics.h"

#include <sys/mman.h>
#include <unistd.h>

uint64_t metrics_closed(const struct metrics *shard)
{
    uint64_t sum = 0;

    for (size_t reason = 0; reason < REASON_COUNT; reason++) {
        sum += metric_get(&shard->closed[reason]);
    }
    return sum;
}

struct metrics *metrics_map(size_t shards)
{
    size_t bytes = shards * sizeof(struct metrics);
    void *memory = MAP_FAILED;
    int fd = memfd_create("sluice-metrics", MFD_CLOEXEC);

    if (fd < 0) {
        return NULL;
    }
    if (ftruncate(fd, (off_t)bytes) == 0) {
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    /* The mapping keeps the memory; closing a memfd that is mapped loses nothing. */
    (void)close(fd);
    return memory == MAP_FAILED ? NULL : memory;
}
