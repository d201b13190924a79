/* Test support: sluice at this end of a cable, its client and its server at the far end, so that
 * every byte of both legs crosses a network whose packets, losses and silences the test decides. */
#ifndef SUPPORT_CABLE_H
#define SUPPORT_CABLE_H

#include "support/pair.h"
#include "support/proxy.h"

/** Lays the cable: proxy_init(), a namespace here and one at the far end. */
void cable_lay(struct proxy *proxy);

/** Starts sluice here, for a server at the far end; returns the server's listening socket. Whatever
 *  the sockets are to inherit (sysctls, routes) has been set before. */
int cable_start(struct proxy *proxy, const char *const options[]);

/** Connects from the far end; the connection goes through sluice and back to the far end. */
struct pair cable_open(const struct proxy *proxy, int origin);

#endif
