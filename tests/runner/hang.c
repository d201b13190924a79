/* Shown to the test runner: a test that never ends and states no time limit.
 * See tools/test.sh --self-test. */
#include <criterion/criterion.h>

#include <unistd.h>

Test(runner, hang)
{
    for (;;) {
        (void)pause();
    }
}
