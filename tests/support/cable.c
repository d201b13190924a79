/* The test's thread makes the peers' sockets while it is at the far end and uses them from here: a
 * socket stays in the namespace in which it was made. */
#include "support/cable.h"

#include "support/netns.h"
#include "support/peer.h"

#include <stdio.h>

void cable_lay(struct proxy *proxy)
{
    proxy_init(proxy);
    netns_enter();
    netns_add_far();
    (void)snprintf(proxy->ip, sizeof(proxy->ip), NETNS_NEAR_IP);
    (void)snprintf(proxy->arg, sizeof(proxy->arg), NETNS_NEAR_IP ":%d=" NETNS_FAR_IP ":%d",
                   PROXY_PORT, ORIGIN_PORT);
}

int cable_start(struct proxy *proxy, const char *const options[])
{
    int origin;

    proxy_start_simple(proxy, options);
    netns_go_far();
    origin = peer_listen(NETNS_FAR_IP, ORIGIN_PORT, 1024);
    netns_go_near();
    return origin;
}

struct pair cable_open(const struct proxy *proxy, int origin)
{
    struct pair pair;

    netns_go_far();
    pair = pair_open(proxy, origin);
    netns_go_near();
    return pair;
}
