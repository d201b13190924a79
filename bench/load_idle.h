/* load_idle: connections that stand. Layer: a mode. Part of the program load. */
#ifndef BENCH_LOAD_IDLE_H
#define BENCH_LOAD_IDLE_H

#include "load_options.h"

/** Runs the mode, prints its lines, returns the exit status. */
int load_idle_run(const struct load_options *options);

#endif
