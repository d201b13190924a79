/* Layer: base. What a person reads on a terminal or in a journal: messages that quote a user's
 * words. */
#ifndef BASE_MESSAGE_H
#define BASE_MESSAGE_H

#include "base/macros.h"

#include <stdio.h>

/** Writes one line: the formatted text, in which every byte that is not printable ASCII becomes \n,
 *  \r, \t or \xNN, then a newline. So a path with a line feed is not two messages, and one with an
 *  escape sequence does not steer a terminal. Aborts without memory: for start-up only. */
PRINTF_LIKE(2, 3) void message_line(FILE *out, const char *format, ...);

#endif
