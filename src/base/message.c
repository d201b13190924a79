/* Messages about what a user wrote, in the manner of the log (line.c): one message, one line,
 * nothing in it but printable ASCII. Quotes and backslashes stay as they are, because nobody reads
 * these back. */
#include "base/message.h"

#include "base/check.h"

#include <stdarg.h>
#include <stdlib.h>

static void put_byte(FILE *out, unsigned char byte)
{
    switch (byte) {
    case '\n':
        (void)fputs("\\n", out);
        return;
    case '\r':
        (void)fputs("\\r", out);
        return;
    case '\t':
        (void)fputs("\\t", out);
        return;
    default:
        if (byte < ' ' || byte > '~') {
            (void)fprintf(out, "\\x%02x", byte);
        } else {
            (void)fputc(byte, out);
        }
    }
}

void message_line(FILE *out, const char *format, ...)
{
    char *text;
    va_list values;
    int len;

    va_start(values, format);
    len = vasprintf(&text, format, values);
    va_end(values);
    (void)need_memory(len < 0 ? NULL : text);
    for (const char *next = text; *next != '\0'; next++) {
        put_byte(out, (unsigned char)*next);
    }
    (void)fputc('\n', out);
    free(text);
}
