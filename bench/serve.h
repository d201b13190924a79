/*
 * serve: one worker of the origin, which serves all services until it is told to stop.
 *
 * Layer: above http.h and raw.h, below the processes (origin.c).
 */
#ifndef BENCH_SERVE_H
#define BENCH_SERVE_H

#include <signal.h>

enum service { SERVICE_HTTP, SERVICE_ECHO, SERVICE_SINK, SERVICE_SOURCE };

#define SERVICE_COUNT 4

/* Serves until one of `stop_signals`, which the caller has blocked. `listen_fds` (borrowed) are
 * non-blocking listening sockets by service, -1 where there is none. Returns an exit status; the
 * caller's process should end then, which closes the connections. */
int serve(const int listen_fds[SERVICE_COUNT], const sigset_t *stop_signals);

#endif
