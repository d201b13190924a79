/* The end of the line for a broken invariant.
 *
 * The message is put together on the stack and leaves with one write(2): the heap and stdio may be
 * what is broken, and one call keeps the lines of several dying workers apart. */
#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void *need_memory(void *memory)
{
    static const char text[] = "sluice: can't get memory\n";

    if (memory == NULL) {
        ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);
        (void)ignored;
        exit(EXIT_FAILURE);
    }
    return memory;
}

void *need_room(void *array, size_t len, size_t element_bytes)
{
    return need_memory(reallocarray(array, len + 1, element_bytes));
}

void check_failed(const char *condition, const char *file, int line, const char *function)
{
    char text[512];
    /* Cut in its parts, so that place and newline are there whatever the condition's length. */
    int len = snprintf(text, sizeof(text),
                       "sluice: internal error: CHECK(%.200s) failed in %.64s (%.160s:%d)\n",
                       condition, function, file, line);

    if (len > (int)sizeof(text) - 1) {
        len = (int)sizeof(text) - 1;
    }
    if (len > 0) {
        /* Nothing is left to do when even this fails. */
        ssize_t ignored = write(STDERR_FILENO, text, (size_t)len);
        (void)ignored;
    }
    abort();
}
