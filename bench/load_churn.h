/* load_churn: connections that come and go. Layer: a mode. Part of the program load. */
#ifndef BENCH_LOAD_CHURN_H
#define BENCH_LOAD_CHURN_H

#include "load_options.h"

/** Runs the mode, prints its line, returns the exit status. */
int load_churn_run(const struct load_options *options);

#endif
