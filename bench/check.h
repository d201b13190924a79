/*
 * check: what the origin does about its own bugs. Anything else that goes wrong (a kernel that
 * refuses, a peer that misbehaves) is an outcome, and has its place in the code.
 */
#ifndef BENCH_CHECK_H
#define BENCH_CHECK_H

#include <stdio.h>
#include <stdlib.h>

/* For bugs only, and always compiled in. */
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "origin: %s:%d: bug: %s\n", __FILE__, __LINE__, #condition);           \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
