/* Numbers that whoever runs the simulation gives it: SEED, SEEDS, TRACE, TRACES. */
#ifndef SIM_NUMBER_H
#define SIM_NUMBER_H

#include <stdint.h>

/** The value of environment variable `name`, `fallback` if it is not set or empty. Fails the test for
 *  anything but a number above 0: a slip must not look like a run. */
uint64_t number_from(const char *name, uint64_t fallback);

#endif
