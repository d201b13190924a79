/* Layer: net. What the kernel itself says of a descriptor, for the audit of debug builds: apart from
 * sys.h, because it is no part of the data plane and faults scripted there must not reach it. */
#ifndef NET_LOOK_H
#define NET_LOOK_H

#include <stdint.h>

struct look {
    uint32_t events;    /* poll(2): POLLIN, POLLOUT, POLLERR, POLLHUP */
    int readable_bytes; /* FIONREAD; -1 where the kernel does not say */
    int unacked_bytes;  /* SIOCOUTQ: sent and not acknowledged; -1 where the kernel does not say */
};

/** Asks the kernel, and changes nothing: takes no error, reads no byte. */
void look_at(int fd, struct look *ret_look);

#endif
