/* Shown to the test runner: Criterion counts this test as passing, though its process leaks.
 * See tools/test.sh --self-test. */
#include <criterion/criterion.h>

#include <stdlib.h>

/* Writing through a volatile pointer keeps the compiler from removing the allocation. */
static void allocate_and_forget(void)
{
    volatile char *memory = malloc(100);

    cr_assert_not_null((void *)memory);
    memory[0] = 1;
}

Test(runner, leak)
{
    allocate_and_forget();
}
