/* Descriptors, shared out.
 *
 *   a worker:  reserve | listeners | 2 per connection | 2 per pipe
 *
 * Every connection may use two pipes, which would be six descriptors each, and a budget that
 * forgets the pipes fails first. But pipes are lent only while bytes are in flight, and a
 * flow without one copies; so pipes get a quarter of the connections' number, and no promise is
 * broken when they run out: 2.5 descriptors per connection. */
#include "proc/limits.h"

#include <sched.h>
#include <sys/resource.h>

enum {
    RESERVE = 24, /* stdio, epoll, control and log pipes, the spare socket, and slack */
    PIPES_PER_CONNECTIONS = 4, /* one pipe for so many connections */
    PIPES_MAX = 4096,          /* records are made beforehand, and the page quota ends far below */
    PIPES_MIN = 8              /* below that splice is not worth having */
};

uint64_t limits_raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) {
        return 0;
    }
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};

        if (setrlimit(RLIMIT_NOFILE, &raised) == 0) {
            return raised.rlim_cur;
        }
    }
    return limit.rlim_cur;
}

size_t limits_processors(void)
{
    cpu_set_t set;
    int count = 0;

    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        count = CPU_COUNT(&set);
    }
    return count > 0 ? (size_t)count : 1;
}

static size_t divide_up(size_t total, size_t parts)
{
    return (total + parts - 1) / parts;
}

const char *limits_compute(uint64_t descriptors, uint64_t workers, uint64_t max_connections,
                           size_t listeners, struct limits *ret_limits)
{
    struct limits limits = {.descriptors = descriptors,
                            .workers = workers > 0 ? (size_t)workers : limits_processors(),
                            .connections_max = (size_t)max_connections};
    uint64_t fixed = RESERVE + listeners;
    uint64_t free_descriptors = descriptors > fixed ? descriptors - fixed : 0;
    size_t share;

    if (max_connections > 0 && limits.workers > max_connections) {
        limits.workers = (size_t)max_connections;
    }
    if (max_connections == 0) {
        share =
            (size_t)(free_descriptors * PIPES_PER_CONNECTIONS / (2 * PIPES_PER_CONNECTIONS + 2));
        limits.connections_max = share * limits.workers;
    } else {
        share = divide_up((size_t)max_connections, limits.workers);
    }
    if (share == 0) {
        return "the descriptor limit (ulimit -n) leaves no room for a single connection";
    }
    if (2 * share > free_descriptors) {
        return "max-connections needs two descriptors for each connection of a worker, more than the "
               "descriptor limit (ulimit -n) has: raise that, use more workers, or lower it";
    }
    if (RESERVE + limits.workers * (listeners + 1) > descriptors) {
        return "the master needs a descriptor for each listener of each worker, and one for each "
               "worker, more than the descriptor limit (ulimit -n) has: raise that, or use fewer "
               "workers";
    }
    limits.pipes_max = (size_t)min_u64((free_descriptors - 2 * share) / 2,
                                       share / PIPES_PER_CONNECTIONS + PIPES_MIN);
    limits.pipes_max = min_size(limits.pipes_max, PIPES_MAX);
    *ret_limits = limits;
    return NULL;
}

size_t limits_share(const struct limits *limits, size_t index)
{
    return limits->connections_max / limits->workers +
           (index < limits->connections_max % limits->workers);
}
