/*
 * load_options: what load is told to do. Layer: above load_target. Part of the program load.
 */
#ifndef BENCH_LOAD_OPTIONS_H
#define BENCH_LOAD_OPTIONS_H

#include "load_target.h"

#define LOAD_CONNECTIONS_MAX 100000
#define LOAD_BYTES_MAX       65536
#define LOAD_RATE_MAX        1000000
#define LOAD_SECONDS_MAX     3600

enum load_mode { LOAD_BULK, LOAD_PINGPONG, LOAD_IDLE, LOAD_CHURN, LOAD_MODES };

enum load_direction { LOAD_UP, LOAD_DOWN, LOAD_BOTH };

struct load_options {
    enum load_mode mode;
    enum load_direction direction;
    uint32_t connections;
    uint32_t bytes; /* of a message */
    uint32_t rate;  /* messages a second on all connections together */
    int64_t duration_ns;
    struct load_targets targets;
};

/** Reads the arguments. 0: they are right. Otherwise the exit status to end with, plus one, after
 *  the help on stdout or a complaint on stderr. */
int load_options_parse(int argc, char **argv, struct load_options *ret_options);

/** The word for it on the command line. */
const char *load_direction_name(enum load_direction direction);

#endif
