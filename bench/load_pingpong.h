/* load_pingpong: messages by a timetable. Layer: a mode. Part of the program load. */
#ifndef BENCH_LOAD_PINGPONG_H
#define BENCH_LOAD_PINGPONG_H

#include "load_options.h"

/** Runs the mode, prints its line, returns the exit status. */
int load_pingpong_run(const struct load_options *options);

#endif
