/* Preloaded into sluice: the N-th allocation fails, and all behind it if MALLOC_FAILS_ON is set.
 *
 *    MALLOC_FAILS_AT=N      counted from 1, from the start of the program; children go on counting
 *    MALLOC_FAILS_MARK=PATH a file that is made when one has failed
 *
 * It stands on the names under which glibc offers its own functions to those who replace them. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);

static unsigned long fails_at; /* 0: before main(), or not asked for */
static unsigned long count;
static int fails_on;
static const char *mark;

__attribute__((constructor)) static void read_environment(void)
{
    const char *number = getenv("MALLOC_FAILS_AT");

    mark = getenv("MALLOC_FAILS_MARK");
    fails_on = getenv("MALLOC_FAILS_ON") != NULL;
    fails_at = number != NULL ? strtoul(number, NULL, 10) : 0;
}

static int is_to_fail(void)
{
    int fd;

    if (fails_at == 0) {
        return 0;
    }
    count++;
    if (count != fails_at && !(fails_on && count > fails_at)) {
        return 0;
    }
    fd = mark != NULL ? open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return is_to_fail() ? NULL : __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
    return is_to_fail() ? NULL : __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size)
{
    return is_to_fail() ? NULL : __libc_realloc(memory, size);
}

/* In glibc these go past a replaced realloc(). */
void *reallocarray(void *memory, size_t number, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(number, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(memory, bytes);
}
