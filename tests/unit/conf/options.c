/* Tests of the command line: what it makes of the configuration, and what it says about mistakes, text
 * for text. */
#include "conf/options.h"

#include "base/macros.h"
#include "conf/schema.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { ARGS_MAX = 16 };

/* A command line (without the program's name) and what came of it. */
struct run {
    struct options options;
    int mistakes;
    char *errors; /* owned */
};

static void start(struct run *run, const char *const *args)
{
    char *argv[ARGS_MAX + 2] = {(char *)(uintptr_t) "sluice"};
    int argc = 1;
    size_t len;
    FILE *errors = open_memstream(&run->errors, &len);

    cr_assert(errors != NULL);
    for (; *args != NULL; args++) {
        cr_assert(argc <= ARGS_MAX);
        argv[argc++] = (char *)(uintptr_t)*args;
    }
    memset(&run->options, 0x5a, sizeof(run->options));
    run->mistakes = options_parse(argc, argv, &run->options, errors);
    cr_assert(fclose(errors) == 0);
}

static void end(struct run *run)
{
    options_fini(&run->options);
    free(run->errors);
}

/* Parses what has no mistake. */
static void start_valid(struct run *run, const char *const *args)
{
    start(run, args);
    cr_assert(run->mistakes == 0, "%s", run->errors);
    cr_assert_str_eq(run->errors, "");
}

static void assert_mistakes(const char *const *args, int mistakes, const char *errors)
{
    struct run run;

    start(&run, args);
    cr_assert_str_eq(run.errors, errors, "said:\n%s\nexpected:\n%s", run.errors, errors);
    cr_assert(run.mistakes == mistakes, "%d mistakes, not %d:\n%s", run.mistakes, mistakes, errors);
    end(&run);
}

static void assert_server(const struct config *config, size_t pool, size_t index, const char *text)
{
    const struct config_server *server = &config->pools[pool].servers[index];

    cr_assert(index < config->pools[pool].servers_len);
    cr_assert_str_eq(server->text, text);
}

/* --- LISTEN=TARGET --- */

/* Each pair is a listener with a pool of its own; targets stay in their order, and may repeat. */
Test(options, pairs_become_listeners_with_pools)
{
    static const char *const args[] = {":8080=127.0.0.1:9000",
                                       "127.0.0.1:5432=db1:5432,db2:5433,db1:5432",
                                       "[::]:443=unix:/run/app.sock",
                                       "unix:/run/in.sock=[::1]:80,unix:@abstract",
                                       "unix:@in=localhost:80",
                                       "9090=127.0.0.1:1",
                                       NULL};
    static const char *const names[] = {
        ":8080", "127.0.0.1:5432", "[::]:443", "unix:/run/in.sock", "unix:@in", "9090"};
    const struct config *config;
    struct run run;

    start_valid(&run, args);
    config = &run.options.config;
    cr_assert(run.options.action == OPTIONS_RUN);
    cr_assert(config->listeners_len == ARRAY_LEN(names));
    cr_assert(config->pools_len == ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        cr_assert_str_eq(config->listeners[i].name, names[i]);
        cr_assert(config->listeners[i].pool == i);
        cr_assert_str_eq(config->pools[i].name, names[i]);
    }
    cr_assert(config->listeners[0].bind.kind == ENDPOINT_ANY);
    cr_assert(config->listeners[0].bind.port == 8080);
    cr_assert(config->listeners[2].bind.kind == ENDPOINT_ADDR);
    cr_assert(config->listeners[3].bind.addr.u.any.sa_family == AF_UNIX);
    cr_assert(config->pools[1].servers_len == 3);
    assert_server(config, 1, 0, "db1:5432");
    assert_server(config, 1, 1, "db2:5433");
    assert_server(config, 1, 2, "db1:5432");
    cr_assert(config->pools[1].servers[1].target.kind == ENDPOINT_NAME);
    cr_assert(config->pools[1].servers[1].target.port == 5433);
    assert_server(config, 2, 0, "unix:/run/app.sock");
    assert_server(config, 3, 1, "unix:@abstract");
    end(&run);
}

/* What is wrong with a pair is said with the argument's number and text, for each mistake in it. */
Test(options, mistakes_in_pairs_are_named)
{
    static const struct {
        const char *argument;
        int mistakes;
        const char *errors;
    } cases[] = {
        {":8080", 1,
         "sluice: argument 1, \":8080\": expected LISTEN=TARGET, such as :8080=127.0.0.1:9000\n"},
        {"", 1, "sluice: argument 1, \"\": expected LISTEN=TARGET, such as :8080=127.0.0.1:9000\n"},
        {"=a:1", 1,
         "sluice: argument 1, \"=a:1\": found listen address \"\", expected HOST:PORT, "
         "[IPV6]:PORT, unix:/PATH or unix:@NAME\n"},
        {":0=a:1", 1,
         "sluice: argument 1, \":0=a:1\": found listen address \":0\", expected a port from 1 to "
         "65535\n"},
        {":80=", 1,
         "sluice: argument 1, \":80=\": found target \"\", expected HOST:PORT, [IPV6]:PORT, "
         "unix:/PATH or unix:@NAME\n"},
        {":80=a:1,", 1,
         "sluice: argument 1, \":80=a:1,\": found target \"\", expected HOST:PORT, [IPV6]:PORT, "
         "unix:/PATH or unix:@NAME\n"},
        {":80=81", 1,
         "sluice: argument 1, \":80=81\": found target \"81\", expected a host before the port\n"},
        {":80=:81", 1,
         "sluice: argument 1, \":80=:81\": found target \":81\", expected a host before the "
         "port\n"},
        {":80=a:1=b:2", 1,
         "sluice: argument 1, \":80=a:1=b:2\": found target \"a:1=b:2\", expected an IPv6 address "
         "in brackets: [V6]:PORT\n"},
        {":80= a:1", 1,
         "sluice: argument 1, \":80= a:1\": found target \" a:1\", expected a host name of "
         "letters, digits, - . and _\n"},
        {"1.2.3:80=a,10.0.0.256:1,b:2,unix:x", 4,
         "sluice: argument 1, \"1.2.3:80=a,10.0.0.256:1,b:2,unix:x\": found listen address "
         "\"1.2.3:80\", expected an IPv4 address of four numbers from 0 to 255\n"
         "sluice: argument 1, \"1.2.3:80=a,10.0.0.256:1,b:2,unix:x\": found target \"a\", "
         "expected HOST:PORT, [IPV6]:PORT, unix:/PATH or unix:@NAME\n"
         "sluice: argument 1, \"1.2.3:80=a,10.0.0.256:1,b:2,unix:x\": found target "
         "\"10.0.0.256:1\", expected an IPv4 address of four numbers from 0 to 255\n"
         "sluice: argument 1, \"1.2.3:80=a,10.0.0.256:1,b:2,unix:x\": found target \"unix:x\", "
         "expected an absolute path (unix:/PATH) or an abstract name (unix:@NAME)\n"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *const args[] = {cases[i].argument, NULL};

        assert_mistakes(args, cases[i].mistakes, cases[i].errors);
    }
}

/* What a user wrote is quoted in a message, but it neither ends the message's line nor steers the
 * terminal that shows it. */
Test(options, mistakes_quote_control_bytes_visibly)
{
    static const char *const pair[] = {"a\nsluice: \x1b[2J", NULL};
    static const char *const option[] = {"--log=\r\t\x7f\xc3\xbc", ":80=a:1", NULL};

    assert_mistakes(pair, 1,
                    "sluice: argument 1, \"a\\nsluice: \\x1b[2J\": expected LISTEN=TARGET, such as "
                    ":8080=127.0.0.1:9000\n");
    assert_mistakes(option, 1,
                    "sluice: argument 1, \"--log=\\r\\t\\x7f\\xc3\\xbc\": found "
                    "\"\\r\\t\\x7f\\xc3\\xbc\", expected one of text|json|none\n");
}

/* The same address twice is a mistake, in whatever spelling; what only looks alike is none. */
Test(options, each_listen_address_comes_once)
{
    static const struct {
        const char *first;
        const char *second;
        bool same;
    } cases[] = {
        {":80", ":80", true},
        {":80", "80", true},
        {"127.0.0.1:80", "127.0.0.1:80", true},
        {"127.0.0.1:80", "[::ffff:127.0.0.1]:80", true},
        {"[::1]:80", "[0::1]:80", true},
        {"localhost:80", "LocalHost:80", true},
        {"unix:/run/x", "unix:/run/x", true},
        {"unix:@x", "unix:@x", true},
        {":80", ":81", false},
        {":80", "127.0.0.1:80", false},
        {"127.0.0.1:80", "127.0.0.2:80", false},
        {"127.0.0.1:80", "localhost:80", false},
        {"a:80", "a:81", false},
        {"a:80", "b:80", false},
        {"unix:/run/x", "unix:@/run/x", false},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char first[64];
        char second[64];
        char errors[256] = "";
        const char *const args[] = {first, second, NULL};

        (void)snprintf(first, sizeof(first), "%s=a:1", cases[i].first);
        (void)snprintf(second, sizeof(second), "%s=b:2", cases[i].second);
        if (cases[i].same) {
            (void)snprintf(errors, sizeof(errors),
                           "sluice: argument 2, \"%s\": found \"%s\" a second time, expected each "
                           "address once\n",
                           second, cases[i].second);
        }
        assert_mistakes(args, cases[i].same ? 1 : 0, errors);
    }
}

/* --- options --- */

/* A setting takes its value from the same argument or from the next; the last one counts. */
Test(options, settings_take_values_both_ways)
{
    static const char *const args[] = {"--workers=3",
                                       "--idle-timeout",
                                       "5m",
                                       ":80=a:1",
                                       "--log",
                                       "json",
                                       "--source=::1",
                                       "--user",
                                       "-",
                                       "--max-connections=auto",
                                       "--workers",
                                       "4",
                                       NULL};
    struct run run;

    start_valid(&run, args);
    cr_assert(run.options.config.settings.workers == 4);
    cr_assert(run.options.config.settings.idle_timeout_ns == 300 * NS_PER_S);
    cr_assert(run.options.config.settings.log == CONFIG_LOG_JSON);
    cr_assert(run.options.config.settings.max_connections == 0);
    cr_assert_str_eq(run.options.config.settings.source, "::1");
    cr_assert_str_eq(run.options.config.settings.user, "-");
    cr_assert(run.options.config.listeners_len == 1);
    cr_assert(run.options.config.settings.connect_timeout_ns == 5 * NS_PER_S);
    end(&run);
}

/* Every setting of the schema is an option of that name. */
Test(options, every_setting_is_an_option)
{
    size_t len;
    const struct setting *rows = schema_settings(&len);

    for (size_t i = 0; i < len; i++) {
        const char *value = rows[i].fallback[0] != '\0' ? rows[i].fallback : "127.0.0.1";
        char name[80];
        char joined[160];
        const char *const apart_args[] = {name, value, ":80=a:1", NULL};
        const char *const joined_args[] = {joined, ":80=a:1", NULL};
        struct run run;

        (void)snprintf(name, sizeof(name), "--%s", rows[i].name);
        (void)snprintf(joined, sizeof(joined), "--%s=%s", rows[i].name, value);
        start_valid(&run, apart_args);
        end(&run);
        start_valid(&run, joined_args);
        end(&run);
    }
}

/* What is wrong with an option is said with what was found and what was expected. */
Test(options, mistakes_in_options_are_named)
{
    static const struct {
        const char *args[5];
        int mistakes;
        const char *errors;
    } cases[] = {
        {{":80=a:1", "--idle-timeout", "5"},
         1,
         "sluice: argument 2, \"--idle-timeout\": found \"5\", expected a duration with its unit "
         "(ms s m h d) from 1ms to 365d, or off, such as 1h\n"},
        {{":80=a:1", "--idle-timeout="},
         1,
         "sluice: argument 2, \"--idle-timeout=\": found \"\", expected a duration with its unit "
         "(ms s m h d) from 1ms to 365d, or off, such as 1h\n"},
        {{"--workers=0", ":80=a:1"},
         1,
         "sluice: argument 1, \"--workers=0\": found \"0\", expected a number from 1 to 1024, or "
         "auto, such as auto\n"},
        {{"--pipe-size", "1g", ":80=a:1"},
         1,
         "sluice: argument 1, \"--pipe-size\": found \"1g\", expected a size in bytes, or with k m "
         "g, from 64k to 1m, such as 1m\n"},
        {{"--log=xml=1", ":80=a:1"},
         1,
         "sluice: argument 1, \"--log=xml=1\": found \"xml=1\", expected one of text|json|none\n"},
        {{"--log", "--workers", "4"}, /* the value is consumed, and not read as an option */
         2,
         "sluice: argument 1, \"--log\": found \"--workers\", expected one of text|json|none\n"
         "sluice: argument 3, \"4\": expected LISTEN=TARGET, such as :8080=127.0.0.1:9000\n"},
        {{":80=a:1", "--log"},
         1,
         "sluice: argument 2, \"--log\": found the end of the line, expected a value after it\n"},
        {{":80=a:1", "--idle-timout", "--log=json"},
         1,
         "sluice: argument 2, \"--idle-timout\": unknown option; did you mean --idle-timeout?\n"},
        {{":80=a:1", "--idle-timout=5s"},
         1,
         "sluice: argument 2, \"--idle-timout=5s\": unknown option; did you mean --idle-timeout?\n"},
        {{":80=a:1", "-workers=3"},
         1,
         "sluice: argument 2, \"-workers=3\": unknown option; did you mean --workers?\n"},
        {{":80=a:1", "--no-such-thing=1"},
         1,
         "sluice: argument 2, \"--no-such-thing=1\": unknown option; sluice -h lists all of "
         "them\n"},
        {{":80=a:1", "--Log=json"},
         1,
         "sluice: argument 2, \"--Log=json\": unknown option; did you mean --log?\n"},
        {{":80=a:1", "--log.json"},
         1,
         "sluice: argument 2, \"--log.json\": unknown option; sluice -h lists all of them\n"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_mistakes(cases[i].args, cases[i].mistakes, cases[i].errors);
    }
}

/* An option that is not there gets a suggestion only if that resembles it. */
Test(options, unrelated_options_get_no_suggestion)
{
    static const char *const unknown[] = {"-", "--", "-x", "-c", "-tT", "-v"};

    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        const char *const args[] = {":80=a:1", unknown[i], NULL};
        char errors[128];

        (void)snprintf(errors, sizeof(errors),
                       "sluice: argument 2, \"%s\": unknown option; sluice -h lists all of them\n",
                       unknown[i]);
        assert_mistakes(args, 1, errors);
    }
}

/* A name longer than any setting is unknown, even if it begins like one. */
Test(options, overlong_names_are_unknown)
{
    char name[400] = "--workers";
    const char *const args[] = {":80=a:1", name, NULL};
    struct run run;

    memset(name + strlen("--workers"), 'x', 300);
    start(&run, args);
    cr_assert(run.mistakes == 1);
    cr_assert(strstr(run.errors, "unknown option; sluice -h lists all of them\n") != NULL);
    end(&run);
}

/* One run shows everything that is wrong, in the order of the arguments; what is right is taken. */
Test(options, all_mistakes_come_in_one_run)
{
    static const char *const args[] = {"--workers=none", ":80=a:1",    ":80=b:1", "--loq", ":81=b",
                                       "nonsense",       "--log=json", "--user",  NULL};
    struct run run;

    assert_mistakes(
        args, 6,
        "sluice: argument 1, \"--workers=none\": found \"none\", expected a number from 1 to 1024, "
        "or auto, such as auto\n"
        "sluice: argument 3, \":80=b:1\": found \":80\" a second time, expected each address once\n"
        "sluice: argument 4, \"--loq\": unknown option; did you mean --log?\n"
        "sluice: argument 5, \":81=b\": found target \"b\", expected HOST:PORT, [IPV6]:PORT, "
        "unix:/PATH or unix:@NAME\n"
        "sluice: argument 6, \"nonsense\": expected LISTEN=TARGET, such as :8080=127.0.0.1:9000\n"
        "sluice: argument 8, \"--user\": found the end of the line, expected a value after it\n");
    start(&run, args);
    cr_assert(run.options.config.settings.log == CONFIG_LOG_JSON);
    cr_assert(run.options.config.settings.workers == 0, "the default stays");
    end(&run);
}

/* Without a pair there is nothing to do, and that is said, unless something else was. */
Test(options, nothing_to_do_is_a_mistake)
{
    static const char nothing[] =
        "sluice: nothing to do: expected LISTEN=TARGET, such as :8080=127.0.0.1:9000; sluice -h "
        "explains\n";
    static const char *const none[] = {NULL};
    static const char *const only_setting[] = {"--workers=3", NULL};
    static const char *const check[] = {"-t", NULL};
    static const char *const print[] = {"-T", NULL};
    static const char *const wrong[] = {"--workers=x", NULL};

    assert_mistakes(none, 1, nothing);
    assert_mistakes(only_setting, 1, nothing);
    assert_mistakes(check, 1, nothing);
    assert_mistakes(print, 1, nothing);
    assert_mistakes(wrong, 1,
                    "sluice: argument 1, \"--workers=x\": found \"x\", expected a number from 1 to "
                    "1024, or auto, such as auto\n");
}

/* A program started without even a name of its own does not read past its arguments. */
Test(options, empty_argument_vector_is_nothing_to_do)
{
    char *const argv[] = {NULL};
    struct options options;
    char *errors = NULL;
    size_t len;
    FILE *out = open_memstream(&errors, &len);

    cr_assert(options_parse(0, argv, &options, out) == 1);
    (void)fclose(out);
    cr_assert(strncmp(errors, "sluice: nothing to do", 21) == 0);
    options_fini(&options);
    free(errors);
}

/* The short options choose what to do; help and version need no pair. */
Test(options, short_options_choose_the_action)
{
    static const struct {
        const char *args[4];
        enum options_action action;
    } cases[] = {
        {{":80=a:1"}, OPTIONS_RUN},
        {{"-t", ":80=a:1"}, OPTIONS_CHECK},
        {{":80=a:1", "-T"}, OPTIONS_PRINT},
        {{"-V"}, OPTIONS_VERSION},
        {{"--version"}, OPTIONS_VERSION},
        {{"-h"}, OPTIONS_HELP},
        {{"--help"}, OPTIONS_HELP},
        {{":80=a:1", "-h", "--log=none"}, OPTIONS_HELP},
        {{"-t", "-T", ":80=a:1"}, OPTIONS_PRINT},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct run run;

        start_valid(&run, cases[i].args);
        cr_assert(run.options.action == cases[i].action, "row %zu", i);
        end(&run);
    }
}

/* --- help --- */

/* The help shows every setting as an option with its kind of value, its text and its default, and how
 * to write what is not an option; no line is wider than 120 columns. */
Test(options, help_lists_every_setting)
{
    static const char *const parts[] = {"usage: sluice [OPTIONS] LISTEN=TARGET",
                                        "LISTEN  PORT",
                                        "TARGET  HOST:PORT",
                                        "  -t ",
                                        "  -T ",
                                        "  -V ",
                                        "  -h ",
                                        "ms s m h d",
                                        "k m g",
                                        "TERM",
                                        "QUIT",
                                        "78"};
    size_t len;
    const struct setting *rows = schema_settings(&len);
    char *help = NULL;
    size_t help_len;
    FILE *out = open_memstream(&help, &help_len);

    options_help(out);
    cr_assert(fclose(out) == 0);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        cr_assert(strstr(help, parts[i]) != NULL, "\"%s\" is missing", parts[i]);
    }
    for (size_t i = 0; i < len; i++) {
        char placeholder[64];
        char option[160];
        char *line;

        schema_placeholder(&rows[i], placeholder);
        (void)snprintf(option, sizeof(option), "\n  --%s %s ", rows[i].name, placeholder);
        line = strstr(help, option);
        cr_assert(line != NULL, "--%s is missing", rows[i].name);
        (void)snprintf(option, sizeof(option), "%s%s%s%s\n", rows[i].help,
                       rows[i].fallback[0] != '\0' ? " [" : "", rows[i].fallback,
                       rows[i].fallback[0] != '\0' ? "]" : "");
        line = strstr(line + 1, option);
        cr_assert(line != NULL, "--%s is not explained", rows[i].name);
    }
    for (const char *line = help; *line != '\0'; line += strcspn(line, "\n") + 1) {
        cr_assert(strcspn(line, "\n") <= 120, "%.*s", (int)strcspn(line, "\n"), line);
    }
    free(help);
}
