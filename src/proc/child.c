/* Restarting: at once when a process dies once, ever more slowly when it can't live.
 *
 * A worker that crashed on one connection must be back within a second. One that crashes at its start
 * must not turn the machine into a fork bomb, nor its log into one line repeated. */
#include "proc/child.h"

#include "base/macros.h"
#include "net/sys.h"

#define QUICK_DEATH_NS NS_PER_S
#define DELAY_MIN_NS   (100 * NS_PER_MS)
#define DELAY_MAX_NS   (10 * NS_PER_S)

enum { DOUBLINGS_MAX = 16 }; /* past DELAY_MAX_NS, and far from overflow */

void child_init(struct child *child)
{
    *child = (struct child){.control_fd = -1};
}

void child_started(struct child *child, pid_t pid, int control_fd, uint64_t now_ns)
{
    child->pid = pid;
    child->control_fd = control_fd;
    child->untold = 0;
    child->start_ns = now_ns;
}

/* After one more death or failed start without a second of life in between. */
static uint64_t next_delay_ns(struct child *child)
{
    unsigned doublings = child->quick_deaths < DOUBLINGS_MAX ? child->quick_deaths : DOUBLINGS_MAX;

    child->quick_deaths++;
    return min_u64(DELAY_MIN_NS << doublings, DELAY_MAX_NS);
}

void child_not_started(struct child *child, uint64_t now_ns)
{
    child->due_ns = now_ns + next_delay_ns(child);
}

void child_died(struct child *child, uint64_t now_ns)
{
    child->due_ns = now_ns;
    if (now_ns - child->start_ns >= QUICK_DEATH_NS) {
        child->quick_deaths = 0;
    } else {
        child->due_ns += next_delay_ns(child);
    }
    child->pid = 0;
    if (child->control_fd >= 0) {
        sys_close(child->control_fd);
        child->control_fd = -1;
    }
}
