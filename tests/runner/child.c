/* Shown to the test runner: the test passes, but a process that it forked writes past its memory,
 * and nobody looks at its exit status. See tools/test.sh --self-test. */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Volatile, so that the compiler neither sees, and refuses, what is done here nor removes it. */
static void write_past_the_end(void)
{
    volatile size_t index = 100;
    volatile char *memory = malloc(100);

    cr_assert_not_null((void *)memory);
    memory[index] = 1;
    free((void *)memory);
}

Test(runner, child)
{
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        write_past_the_end();
        _exit(0);
    }
    cr_assert_eq(waitpid(child, NULL, 0), child);
}
