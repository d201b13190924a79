/* load_bulk: streams of bytes. Layer: a mode. Part of the program load. */
#ifndef BENCH_LOAD_BULK_H
#define BENCH_LOAD_BULK_H

#include "load_options.h"

/** Runs the mode, prints its line, returns the exit status. */
int load_bulk_run(const struct load_options *options);

#endif
