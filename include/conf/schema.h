/* Layer: conf. The table of settings: one row gives the parser, the range check, the help, the
 * printed configuration and the table in the README. */
#ifndef CONF_SCHEMA_H
#define CONF_SCHEMA_H

#include "conf/config.h"

#include <stdbool.h>

enum setting_type {
    SETTING_DURATION, /* number and unit; nanoseconds */
    SETTING_SIZE,     /* bytes, with k m g */
    SETTING_COUNT,    /* a whole number */
    SETTING_CHOICE,   /* one of `words` */
    SETTING_ADDRESS,  /* an IP address without port, text */
    SETTING_NAME      /* a short name, text */
};

struct setting {
    const char *name; /* in the file; `--name` on the command line */
    enum setting_type type;
    size_t offset; /* in struct settings */
    uint64_t min;
    uint64_t max;
    const char *words;    /* choices, separated by |; or the one word that means 0; or NULL */
    const char *fallback; /* the default, as it would be written; "" for an empty text */
    const char *help;     /* one clause */
};

enum { SCHEMA_EXPECTED_BYTES = 160 };

/** All rows, in the order of the help. */
const struct setting *schema_settings(size_t *ret_len);

/** The row of that name, NULL if there is none. */
const struct setting *schema_find(const char *name);

/** Parses `value` into its place in `settings`. False: nothing was changed, and `expected` says
 *  what would have been right, with an example. */
MUST_CHECK bool schema_parse(const struct setting *setting, const char *value,
                             struct settings *settings, char expected[SCHEMA_EXPECTED_BYTES]);

/** Writes the present value as it would be written in a file; empty for an unset text. */
void schema_format(const struct setting *setting, const struct settings *settings,
                   char text[ADDR_TEXT_BYTES]);

/** What a value looks like, for the help: DURATION, SIZE, NUMBER|auto, auto|always|never ... */
void schema_placeholder(const struct setting *setting, char text[64]);

#endif
