/* Coverage of what ends by abort(3).
 *
 * A build with --coverage writes its counts at exit, so a test that shows an assertion failing would count for nothing.
 * Here the counts are written on SIGABRT, before the default action ends the process. In all other builds there is no
 * __gcov_dump(), and nothing is done: MODE=cov alone asks the linker for it. */
#include <signal.h>
#include <stddef.h>

extern void __gcov_dump(void) __attribute__((weak));

static void write_counts(int number)
{
    (void)number;
    __gcov_dump(); /* abort(3) goes on when a handler returns */
}

__attribute__((constructor)) static void write_counts_on_abort(void)
{
    if (__gcov_dump != NULL) {
        (void)signal(SIGABRT, write_counts);
    }
}
