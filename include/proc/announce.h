/* Layer: proc. The first and the last line of the log: what is served, and what was. */
#ifndef PROC_ANNOUNCE_H
#define PROC_ANNOUNCE_H

#include "conf/config.h"
#include "ops/log.h"
#include "proc/limits.h"

/** Logs `start`: what listens where, and the limits. */
void announce_start(struct log *log, const struct config *config, const struct limits *limits);

/** Logs `end`: the sums over all shards, the master's own among them. */
void announce_end(struct log *log, const struct metrics *shards, size_t shards_len);

#endif
