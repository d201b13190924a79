/* Fuzz support: an input as a row of choices, and the way to say that an oracle was violated.
 *
 * A target reads what it needs from the front. An input that is used up goes on as zeros, so every
 * target gives 0 the meaning "nothing special", and every input ends. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct input {
    const uint8_t *next; /* borrowed */
    size_t left;
};

/** The next byte; 0 when there is none. */
uint8_t input_byte(struct input *input);

/** A number below `bound` (> 0), from as many bytes as it takes. */
uint64_t input_below(struct input *input, uint64_t bound);

/** The next `len` bytes, or all that are left, up to a 0 byte among them; as a string in memory of
 *  exactly its size, so that a sanitizer sees whoever reads beyond it. Owned by the caller:
 *  free(). */
char *input_text(struct input *input, size_t len);

/** The same up to the next byte `separator`, which is skipped. */
char *input_word(struct input *input, uint8_t separator);

/** Stops the run with a sentence when `condition` does not hold: libFuzzer keeps the input. */
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            input_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                               \
        }                                                                                          \
    } while (0)

_Noreturn void input_fail(const char *file, int line, const char *condition, const char *format,
                          ...) __attribute__((format(printf, 4, 5)));

/** What libFuzzer calls for each input. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

#endif
