/* Choosing a server. The state of a choice in progress is two numbers inside the session, so a
 * session stays plain data and any number of them can be in the middle of their list at once. */
#include "pool/pool.h"

#include "base/check.h"

void pool_init(struct pool *pool, const struct target *targets, uint32_t targets_len,
               uint32_t start)
{
    pool->targets = targets;
    pool->targets_len = targets_len;
    pool->next = targets_len > 0 ? start % targets_len : 0;
}

const struct target *pool_pick_round_robin(void *context, struct tries *tries)
{
    struct pool *pool = context;
    uint32_t index;

    CHECK(tries->made <= pool->targets_len);
    if (tries->made == pool->targets_len) {
        return NULL;
    }
    if (tries->made == 0) {
        tries->first = pool->next;
        pool->next = (pool->next + 1) % pool->targets_len;
    }
    index = (tries->first + tries->made) % pool->targets_len;
    tries->made++;
    return &pool->targets[index];
}
