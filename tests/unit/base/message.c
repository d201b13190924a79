/* Tests of messages: one message is one line of printable ASCII, whatever it quotes. */
#include "base/message.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* What message_line() writes when it quotes `word`. Owned by the caller. */
static char *message_with(const char *word)
{
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    message_line(out, "found \"%s\"", word);
    cr_assert(fclose(out) == 0);
    return text;
}

Test(message, is_one_line_with_its_end)
{
    char *text = message_with("plain \"word\" \\ ~");

    cr_assert_str_eq(text, "found \"plain \"word\" \\ ~\"\n");
    free(text);
}

/* Every byte but 0, alone: it appears as itself, or as an escape that names it. */
Test(message, shows_every_byte_in_printable_ascii)
{
    for (int byte = 1; byte < 256; byte++) {
        char word[2] = {(char)byte, '\0'};
        char *text = message_with(word);
        char expected[32];

        if (byte == '\n' || byte == '\r' || byte == '\t') {
            const char *letter = byte == '\n' ? "n" : byte == '\r' ? "r" : "t";

            (void)snprintf(expected, sizeof(expected), "found \"\\%s\"\n", letter);
        } else if (byte < ' ' || byte > '~') {
            (void)snprintf(expected, sizeof(expected), "found \"\\x%02x\"\n", byte);
        } else {
            (void)snprintf(expected, sizeof(expected), "found \"%c\"\n", byte);
        }
        cr_assert_str_eq(text, expected, "byte %02x: %s", byte, text);
        free(text);
    }
}

/* Its length has no limit: arguments have none. */
Test(message, takes_a_long_text)
{
    static char word[100000];
    char *text;

    memset(word, 'x', sizeof(word) - 1);
    text = message_with(word);
    cr_assert(strlen(text) == strlen("found \"\"\n") + sizeof(word) - 1);
    cr_assert_str_eq(text + strlen(text) - 4, "xx\"\n");
    free(text);
}
