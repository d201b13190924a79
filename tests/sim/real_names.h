/* Gives the real system calls of src/net/sys.c and look.c other names, so that they can be linked into
 * the same program as the model, which has theirs. Whoever includes this first means the real ones. */
#ifndef SIM_REAL_NAMES_H
#define SIM_REAL_NAMES_H

#define sys_socket         real_sys_socket
#define sys_accept         real_sys_accept
#define sys_connect        real_sys_connect
#define sys_bind           real_sys_bind
#define sys_listen         real_sys_listen
#define sys_set_option     real_sys_set_option
#define sys_get_option     real_sys_get_option
#define sys_local_address  real_sys_local_address
#define sys_recv           real_sys_recv
#define sys_send           real_sys_send
#define sys_splice         real_sys_splice
#define sys_read           real_sys_read
#define sys_shutdown_write real_sys_shutdown_write
#define sys_close          real_sys_close
#define sys_pipe           real_sys_pipe
#define sys_pipe_resize    real_sys_pipe_resize
#define sys_pipe_size      real_sys_pipe_size
#define sys_unacknowledged real_sys_unacknowledged
#define sys_readable_bytes real_sys_readable_bytes
#define sys_epoll_create   real_sys_epoll_create
#define sys_epoll_add      real_sys_epoll_add
#define sys_epoll_remove   real_sys_epoll_remove
#define sys_epoll_wait     real_sys_epoll_wait
#define look_at            real_look_at

#endif
