/* Three questions to the kernel that change nothing: poll(2) with a time-out of 0 tells what is
 * ready, whatever edges were told or lost; FIONREAD and SIOCOUTQ count bytes. */
#include "net/look.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>

static int count(int fd, unsigned long request)
{
    int bytes = 0;

    return ioctl(fd, request, &bytes) == 0 ? bytes : -1;
}

void look_at(int fd, struct look *ret_look)
{
    struct pollfd question = {.fd = fd, .events = POLLIN | POLLOUT};
    int answers = poll(&question, 1, 0);

    ret_look->events = answers == 1 ? (uint32_t)(uint16_t)question.revents : 0;
    ret_look->readable_bytes = count(fd, FIONREAD);
    ret_look->unacked_bytes = count(fd, SIOCOUTQ);
}
