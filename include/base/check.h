/* Layer: base. Assertions: for bugs of this program only, never for what a kernel or a peer
 * decides.
 *
 * A failed CHECK writes one line to stderr and aborts: a worker that no longer knows its own state
 * must not go on moving bytes. The master replaces it, and only its own connections are lost. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stddef.h>

/** Always compiled in: cheap conditions whose breach would lose or invent bytes. */
#define CHECK(condition)                                                                           \
    ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__, __func__))

/** Only in debug, sanitizer and coverage builds: conditions that cost something to evaluate. */
#ifdef SLUICE_DEBUG
#define DCHECK(condition) CHECK(condition)
#else
#define DCHECK(condition) ((void)sizeof(condition))
#endif

/** For allocations before anything is served or opened: returns `memory`; if that is NULL, says so on
 *  stderr and ends the process with status 1. */
void *need_memory(void *memory);

/** The same for an array of `len` elements that is to have one more: returns where it is now. */
void *need_room(void *array, size_t len, size_t element_bytes);

/** Writes the failed condition and its place to stderr, then aborts. */
_Noreturn void check_failed(const char *condition, const char *file, int line,
                            const char *function);

#endif
