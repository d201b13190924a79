/* Reading the command line by hand: getopt_long(3) stops being helpful where a good message begins
 * (it accepts abbreviations, and can't say what was expected).
 *
 * Every argument is looked at even after a mistake, so that one run shows all of them. A line is
 *
 *     sluice: argument 2, "--idle-timeout": found "5", expected a duration with its unit ...
 */
#include "conf/options.h"

#include "base/check.h"
#include "base/message.h"
#include "conf/nearest.h"
#include "conf/schema.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { SETTING_NAME_BYTES = 64 };

struct reader {
    int argc;
    char *const *argv;
    int next; /* the argument to read next */
    struct options *options;
    FILE *errors;
    int mistakes;
};

PRINTF_LIKE(3, 4)
static void mistake(struct reader *reader, int argument, const char *format, ...)
{
    char *text;
    va_list values;
    int len;

    reader->mistakes++;
    va_start(values, format);
    len = vasprintf(&text, format, values);
    va_end(values);
    (void)need_memory(len < 0 ? NULL : text);
    message_line(reader->errors, "sluice: argument %d, \"%s\": %s", argument,
                 reader->argv[argument], text);
    free(text);
}

static void unknown_option(struct reader *reader, int argument, const char *name)
{
    const char *nearest = nearest_setting(name);

    if (nearest != NULL) {
        mistake(reader, argument, "unknown option; did you mean --%s?", nearest);
    } else {
        mistake(reader, argument, "unknown option; sluice -h lists all of them");
    }
}

/* What follows an unknown option is most likely its value, and no second mistake. */
static void skip_value(struct reader *reader, bool has_value)
{
    const char *next = reader->next < reader->argc ? reader->argv[reader->next] : "-";

    if (!has_value && next[0] != '-' && strchr(next, '=') == NULL) {
        reader->next++;
    }
}

static void read_long_option(struct reader *reader, int argument)
{
    const char *text = reader->argv[argument] + 2;
    const char *equals = strchr(text, '=');
    char name[SETTING_NAME_BYTES];
    char expected[SCHEMA_EXPECTED_BYTES];
    const struct setting *setting;
    const char *value;
    size_t name_len;

    name_len = min_size(equals != NULL ? (size_t)(equals - text) : strlen(text), sizeof(name) - 1);
    (void)snprintf(name, sizeof(name), "%.*s", (int)name_len, text);
    setting = schema_find(name);
    if (setting == NULL) {
        unknown_option(reader, argument, name);
        skip_value(reader, equals != NULL);
        return;
    }
    if (equals != NULL) {
        value = equals + 1;
    } else if (reader->next < reader->argc) {
        value = reader->argv[reader->next++];
    } else {
        mistake(reader, argument, "found the end of the line, expected a value after it");
        return;
    }
    if (!schema_parse(setting, value, &reader->options->config.settings, expected)) {
        mistake(reader, argument, "found \"%s\", expected %s", value, expected);
    }
}

static void read_target(struct reader *reader, int argument, size_t pool, const char *text)
{
    struct endpoint target;
    const char *expected = endpoint_parse(text, &target);

    if (expected == NULL && target.kind == ENDPOINT_ANY) {
        expected = "expected a host before the port";
    }
    if (expected != NULL) {
        mistake(reader, argument, "found target \"%s\", %s", text, expected);
        return;
    }
    config_add_server(&reader->options->config, pool, text, &target);
}

static bool is_same_endpoint(const struct endpoint *a, const struct endpoint *b)
{
    if (a->kind != b->kind || a->port != b->port) {
        return false;
    }
    switch (a->kind) {
    case ENDPOINT_ANY:
        return true;
    case ENDPOINT_ADDR:
        return addr_equal(&a->addr, &b->addr);
    case ENDPOINT_NAME:
        return strcasecmp(a->host, b->host) == 0;
    }
    return false;
}

static bool is_taken(const struct config *config, const struct endpoint *bind)
{
    for (size_t i = 0; i < config->listeners_len; i++) {
        if (is_same_endpoint(&config->listeners[i].bind, bind)) {
            return true;
        }
    }
    return false;
}

static void read_listen(struct reader *reader, int argument, const char *listen, char *targets)
{
    struct config *config = &reader->options->config;
    struct endpoint bind;
    const char *expected = endpoint_parse(listen, &bind);
    size_t pool;
    char *target;

    if (expected != NULL) {
        mistake(reader, argument, "found listen address \"%s\", %s", listen, expected);
    } else if (is_taken(config, &bind)) {
        mistake(reader, argument, "found \"%s\" a second time, expected each address once", listen);
    }
    pool = config_add_pool(config, listen);
    while ((target = strsep(&targets, ",")) != NULL) {
        read_target(reader, argument, pool, target);
    }
    if (expected == NULL) {
        config_add_listener(config, listen, &bind, pool);
    }
}

static void read_pair(struct reader *reader, int argument)
{
    char *text = need_memory(strdup(reader->argv[argument]));
    char *equals;

    equals = strchr(text, '=');
    if (equals == NULL) {
        mistake(reader, argument, "expected LISTEN=TARGET, such as :8080=127.0.0.1:9000");
    } else {
        *equals = '\0';
        read_listen(reader, argument, text, equals + 1);
    }
    free(text);
}

static void read_short_option(struct reader *reader, int argument)
{
    static const struct {
        const char *text;
        enum options_action action;
    } shorts[] = {
        {"-t", OPTIONS_CHECK}, {"-T", OPTIONS_PRINT},    {"-V", OPTIONS_VERSION},
        {"-h", OPTIONS_HELP},  {"--help", OPTIONS_HELP}, {"--version", OPTIONS_VERSION},
    };
    const char *text = reader->argv[argument];

    for (size_t i = 0; i < ARRAY_LEN(shorts); i++) {
        if (strcmp(text, shorts[i].text) == 0) {
            reader->options->action = shorts[i].action;
            return;
        }
    }
    if (text[1] == '-') {
        read_long_option(reader, argument);
    } else {
        unknown_option(reader, argument, text + 1);
        skip_value(reader, false);
    }
}

int options_parse(int argc, char *const argv[], struct options *options, FILE *errors)
{
    struct reader reader = {
        .argc = argc, .argv = argv, .next = 1, .options = options, .errors = errors};

    options->action = OPTIONS_RUN;
    config_init(&options->config);
    while (reader.next < argc) {
        int argument = reader.next++;

        if (argv[argument][0] == '-') {
            read_short_option(&reader, argument);
        } else {
            read_pair(&reader, argument);
        }
    }
    if (options->action == OPTIONS_HELP || options->action == OPTIONS_VERSION) {
        return reader.mistakes;
    }
    if (options->config.listeners_len == 0 && reader.mistakes == 0) {
        reader.mistakes++;
        (void)fputs("sluice: nothing to do: expected LISTEN=TARGET, such as :8080=127.0.0.1:9000; "
                    "sluice -h explains\n",
                    errors);
    }
    return reader.mistakes;
}

void options_fini(struct options *options)
{
    config_fini(&options->config);
}

static void help_setting(const struct setting *setting, FILE *out)
{
    char placeholder[64];
    char option[128];

    schema_placeholder(setting, placeholder);
    (void)snprintf(option, sizeof(option), "--%s %s", setting->name, placeholder);
    (void)fprintf(out, "  %-36s %s%s%s%s\n", option, setting->help,
                  setting->fallback[0] != '\0' ? " [" : "", setting->fallback,
                  setting->fallback[0] != '\0' ? "]" : "");
}

void options_help(FILE *out)
{
    size_t len;
    const struct setting *rows = schema_settings(&len);

    (void)fputs(
        "usage: sluice [OPTIONS] LISTEN=TARGET[,TARGET...] [LISTEN=TARGET...]\n"
        "\n"
        "Forwards TCP connections made to LISTEN to a TARGET; several targets take turns.\n"
        "\n"
        "  sluice :8080=127.0.0.1:9000\n"
        "  sluice 127.0.0.1:5432=db1:5432,db2:5432 [::]:443=unix:/run/app.sock\n"
        "\n"
        "LISTEN  PORT or :PORT (every address), HOST:PORT, [IPV6]:PORT, unix:/PATH, unix:@NAME\n"
        "TARGET  HOST:PORT, [IPV6]:PORT, unix:/PATH, unix:@NAME\n"
        "\n"
        "  -t                                   check the arguments and exit\n"
        "  -T                                   print the effective configuration and exit\n"
        "  -V                                   print the version and exit\n"
        "  -h                                   print this and exit\n",
        out);
    for (size_t i = 0; i < len; i++) {
        help_setting(&rows[i], out);
    }
    (void)fputs(
        "\n"
        "Durations carry a unit (ms s m h d); sizes take k m g. [default]\n"
        "Signals: TERM, INT drain for drain-timeout, a second one stops at once; QUIT drains\n"
        "without a deadline. Exit status: 0 stopped, 1 failed, 2 usage, 78 configuration.\n",
        out);
}
