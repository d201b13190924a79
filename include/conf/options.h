/* Layer: conf. The command line: options and LISTEN=TARGET arguments into a configuration. */
#ifndef CONF_OPTIONS_H
#define CONF_OPTIONS_H

#include "conf/config.h"

enum options_action {
    OPTIONS_RUN,
    OPTIONS_CHECK,   /* -t */
    OPTIONS_PRINT,   /* -T */
    OPTIONS_VERSION, /* -V */
    OPTIONS_HELP     /* -h */
};

struct options {
    enum options_action action;
    struct config config;
};

/** Parses all arguments. Every mistake is reported on `errors`, one line each, naming the argument,
 *  what was found and what was expected. Returns the number of mistakes. `options` is initialised
 *  whatever is returned; options_fini() frees it. */
MUST_CHECK int options_parse(int argc, char *const argv[], struct options *options, FILE *errors);

void options_fini(struct options *options);

/** Prints the usage: synopsis, what LISTEN and TARGET may be, and every setting with its
 *  default. */
void options_help(FILE *out);

#endif
