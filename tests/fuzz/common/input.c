/* Reading an input; see input.h. */
#include "fuzz/common/input.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t input_byte(struct input *input)
{
    if (input->left == 0) {
        return 0;
    }
    input->left--;
    return *input->next++;
}

uint64_t input_below(struct input *input, uint64_t bound)
{
    uint64_t number = input_byte(input);

    for (uint64_t reach = bound - 1; reach > UINT8_MAX; reach >>= 8) {
        number = number << 8 | input_byte(input);
    }
    return number % bound;
}

static char *copy(const uint8_t *bytes, size_t len)
{
    const uint8_t *zero = len > 0 ? memchr(bytes, 0, len) : NULL;
    size_t text_len = zero != NULL ? (size_t)(zero - bytes) : len;
    char *text = malloc(text_len + 1);

    if (text == NULL) {
        abort();
    }
    if (text_len > 0) {
        memcpy(text, bytes, text_len);
    }
    text[text_len] = '\0';
    return text;
}

char *input_text(struct input *input, size_t len)
{
    size_t taken = len < input->left ? len : input->left;
    char *text = copy(input->next, taken);

    input->next += taken;
    input->left -= taken;
    return text;
}

char *input_word(struct input *input, uint8_t separator)
{
    const uint8_t *end = input->left > 0 ? memchr(input->next, separator, input->left) : NULL;
    size_t len = end != NULL ? (size_t)(end - input->next) : input->left;
    char *text = input_text(input, len);

    (void)input_byte(input);
    return text;
}

void input_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    va_list values;

    (void)fprintf(stderr, "\n%s:%d: EXPECT(%s) failed: ", file, line, condition);
    va_start(values, format);
    (void)vfprintf(stderr, format, values);
    va_end(values);
    (void)fputc('\n', stderr);
    abort();
}
