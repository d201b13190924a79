/* Shown to the test runner: a suite with nothing wrong. See tools/test.sh --self-test. */
#include <criterion/criterion.h>

#include <stdlib.h>

Test(runner, clean)
{
    void *memory = malloc(100);

    cr_assert_not_null(memory);
    free(memory);
}
