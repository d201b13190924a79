/* The functions of net/sys.h that a flow has no business with. Defined without their parameters, so
 * this file does not see net/sys.h; that they are defined keeps the real ones in the archive. */
#include "fuzz/common/input.h"

#define NO_CALL(name)                                                                              \
    void name(void);                                                                               \
    void name(void)                                                                                \
    {                                                                                              \
        input_fail(__FILE__, __LINE__, #name, "a flow does not call this");                        \
    }

NO_CALL(sys_socket)
NO_CALL(sys_accept)
NO_CALL(sys_connect)
NO_CALL(sys_bind)
NO_CALL(sys_listen)
NO_CALL(sys_set_option)
NO_CALL(sys_local_address)
NO_CALL(sys_unacknowledged)
NO_CALL(sys_epoll_create)
NO_CALL(sys_epoll_add)
NO_CALL(sys_epoll_remove)
NO_CALL(sys_epoll_wait)
