/* Tests of the configuration as data: its defaults, its growth, and how it is printed, byte for byte. */
#include "conf/config.h"

#include "base/macros.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULTS                                                                                   \
    "workers auto\n"                                                                               \
    "max-connections auto\n"                                                                       \
    "connect-timeout 5s\n"                                                                         \
    "idle-timeout 1h\n"                                                                            \
    "fin-timeout 1h\n"                                                                             \
    "drain-timeout 30s\n"                                                                          \
    "keepalive-idle 1m\n"                                                                          \
    "keepalive-interval 15s\n"                                                                     \
    "user-timeout 15m\n"                                                                           \
    "splice auto\n"                                                                                \
    "pipe-size 1m\n"                                                                               \
    "busy-poll off\n"                                                                              \
    "log text\n"

static struct endpoint endpoint_of(const char *text)
{
    struct endpoint endpoint;

    cr_assert_null(endpoint_parse(text, &endpoint), "%s", text);
    return endpoint;
}

static void add_server(struct config *config, size_t pool, const char *text)
{
    struct endpoint target = endpoint_of("127.0.0.1:9000");

    config_add_server(config, pool, text, &target);
}

static void add_listener(struct config *config, const char *name, size_t pool)
{
    struct endpoint bind = endpoint_of(":8080");

    config_add_listener(config, name, &bind, pool);
}

/* What config_print() writes; to be freed. */
static char *printed(const struct config *config)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    cr_assert(out != NULL);
    config_print(config, out);
    cr_assert(fclose(out) == 0);
    return text;
}

static void assert_prints(const struct config *config, const char *expected)
{
    char *text = printed(config);

    cr_assert_str_eq(text, expected, "printed:\n%s\nexpected:\n%s", text, expected);
    free(text);
}

/* Without a word from the user all values are the documented ones, and there is nothing to serve. */
Test(config, starts_with_the_defaults)
{
    struct config config;

    memset(&config, 0x5a, sizeof(config));
    config_init(&config);
    cr_assert(config.listeners_len == 0);
    cr_assert(config.pools_len == 0);
    cr_assert(config.settings.workers == 0);
    cr_assert(config.settings.max_connections == 0);
    cr_assert(config.settings.connect_timeout_ns == 5 * NS_PER_S);
    cr_assert(config.settings.idle_timeout_ns == 3600 * NS_PER_S);
    cr_assert(config.settings.fin_timeout_ns == 3600 * NS_PER_S);
    cr_assert(config.settings.drain_timeout_ns == 30 * NS_PER_S);
    cr_assert(config.settings.keepalive_idle_ns == 60 * NS_PER_S);
    cr_assert(config.settings.keepalive_interval_ns == 15 * NS_PER_S);
    cr_assert(config.settings.user_timeout_ns == 900 * NS_PER_S);
    cr_assert(config.settings.splice == CONFIG_SPLICE_AUTO);
    cr_assert(config.settings.pipe_size_bytes == 1024 * 1024);
    cr_assert(config.settings.log == CONFIG_LOG_TEXT);
    cr_assert_str_eq(config.settings.source, "");
    cr_assert_str_eq(config.settings.user, "");
    assert_prints(&config, DEFAULTS);
    config_fini(&config);
}

/* What is added is copied: the caller's texts may go. Everything stays in the order it came. */
Test(config, keeps_copies_in_order)
{
    enum { POOLS = 40, SERVERS = 30 };
    struct config config;
    char text[32];

    config_init(&config);
    for (size_t i = 0; i < POOLS; i++) {
        (void)snprintf(text, sizeof(text), "pool%zu", i);
        cr_assert(config_add_pool(&config, text) == i);
        (void)snprintf(text, sizeof(text), "listen%zu", i);
        add_listener(&config, text, i);
    }
    for (size_t i = 0; i < (size_t)POOLS * SERVERS; i++) {
        (void)snprintf(text, sizeof(text), "server%zu", i);
        add_server(&config, i % POOLS, text);
    }
    memset(text, '#', sizeof(text));
    cr_assert(config.pools_len == POOLS);
    cr_assert(config.listeners_len == POOLS);
    for (size_t i = 0; i < POOLS; i++) {
        (void)snprintf(text, sizeof(text), "pool%zu", i);
        cr_assert_str_eq(config.pools[i].name, text);
        (void)snprintf(text, sizeof(text), "listen%zu", i);
        cr_assert_str_eq(config.listeners[i].name, text);
        cr_assert(config.listeners[i].pool == i);
        cr_assert(config.listeners[i].bind.kind == ENDPOINT_ANY);
        cr_assert(config.listeners[i].bind.port == 8080);
        cr_assert(config.pools[i].servers_len == SERVERS);
        for (size_t k = 0; k < SERVERS; k++) {
            (void)snprintf(text, sizeof(text), "server%zu", k * POOLS + i);
            cr_assert_str_eq(config.pools[i].servers[k].text, text);
            cr_assert(config.pools[i].servers[k].target.port == 9000);
        }
    }
    config_fini(&config);
}

/* Freeing takes a configuration in any state, and may be repeated. */
Test(config, fini_takes_any_state)
{
    struct config config;

    config_init(&config);
    config_fini(&config);
    config_fini(&config);
    config_init(&config);
    (void)config_add_pool(&config, "without servers");
    config_fini(&config);
    cr_assert(config.pools == NULL);
    cr_assert(config.listeners == NULL);
    cr_assert(config.pools_len == 0);
}

/* A listener whose pool is not there yet would be served by nobody. */
Test(config, add_listener_aborts_without_its_pool, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct config config;

    config_init(&config);
    add_listener(&config, ":8080", 0);
}

/* The same for a server. */
Test(config, add_server_aborts_without_its_pool, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    struct config config;

    config_init(&config);
    (void)config_add_pool(&config, "one");
    add_server(&config, 1, "b");
}

/* A whole configuration is printed as the file that would say the same. */
Test(config, prints_itself_as_a_file)
{
    struct config config;

    config_init(&config);
    config.settings.workers = 4;
    config.settings.max_connections = 20000;
    config.settings.connect_timeout_ns = 1500 * NS_PER_MS;
    config.settings.idle_timeout_ns = 0;
    config.settings.splice = CONFIG_SPLICE_NEVER;
    config.settings.log = CONFIG_LOG_JSON;
    (void)strcpy(config.settings.source, "192.0.2.7");
    (void)strcpy(config.settings.user, "nobody");
    (void)config_add_pool(&config, ":8080");
    add_server(&config, 0, "127.0.0.1:9000");
    add_server(&config, 0, "db1:5432");
    (void)config_add_pool(&config, "[::]:443");
    add_server(&config, 1, "unix:/run/app.sock");
    add_listener(&config, ":8080", 0);
    add_listener(&config, "[::]:443", 1);
    assert_prints(&config, "workers 4\n"
                           "max-connections 20000\n"
                           "connect-timeout 1500ms\n"
                           "idle-timeout off\n"
                           "fin-timeout 1h\n"
                           "drain-timeout 30s\n"
                           "keepalive-idle 1m\n"
                           "keepalive-interval 15s\n"
                           "user-timeout 15m\n"
                           "splice never\n"
                           "pipe-size 1m\n"
                           "busy-poll off\n"
                           "source 192.0.2.7\n"
                           "log json\n"
                           "user nobody\n"
                           "\n"
                           "listen :8080 {\n"
                           "    bind :8080\n"
                           "    to :8080\n"
                           "}\n"
                           "\n"
                           "listen [::]:443 {\n"
                           "    bind [::]:443\n"
                           "    to [::]:443\n"
                           "}\n"
                           "\n"
                           "pool :8080 {\n"
                           "    server 127.0.0.1:9000 127.0.0.1:9000\n"
                           "    server db1:5432 db1:5432\n"
                           "}\n"
                           "\n"
                           "pool [::]:443 {\n"
                           "    server unix:/run/app.sock unix:/run/app.sock\n"
                           "}\n");
    config_fini(&config);
}

static const struct {
    const char *name;
    const char *printed;
} odd_names[] = {
    {"plain", "plain"},
    {"unix:/run/a.sock", "unix:/run/a.sock"},
    {"[fe80::1%lo]:80", "[fe80::1%lo]:80"},
    {"", "\"\""},
    {"a b", "\"a b\""},
    {"a\tb", "\"a\tb\""},
    {"a{b", "\"a{b\""},
    {"a}b", "\"a}b\""},
    {"a#b", "\"a#b\""},
    {"${HOME}", "\"\\${HOME}\""},
    {"a\"b", "\"a\\\"b\""},
    {"a\\b", "\"a\\\\b\""},
    {"\"\\$", "\"\\\"\\\\\\$\""},
    {"b\xc3\xbc"
     "cher",
     "b\xc3\xbc"
     "cher"},
};

/* A name with a meaning in the file's syntax stands in quotes, wherever it stands. */
Test(config, quotes_what_would_be_read_as_something_else)
{
    for (size_t i = 0; i < ARRAY_LEN(odd_names); i++) {
        const char *odd = odd_names[i].printed;
        char expected[1024];
        struct config config;

        config_init(&config);
        (void)config_add_pool(&config, odd_names[i].name);
        add_server(&config, 0, odd_names[i].name);
        add_listener(&config, odd_names[i].name, 0);
        (void)snprintf(expected, sizeof(expected),
                       DEFAULTS "\nlisten %s {\n    bind %s\n    to %s\n}\n"
                                "\npool %s {\n    server %s %s\n}\n",
                       odd, odd, odd, odd, odd, odd);
        assert_prints(&config, expected);
        config_fini(&config);
    }
}

/* The same for the texts among the settings. */
Test(config, quotes_texts_of_settings)
{
    struct config config;

    config_init(&config);
    (void)strcpy(config.settings.user, "a \"b\"");
    assert_prints(&config, DEFAULTS "user \"a \\\"b\\\"\"\n");
    config_fini(&config);
}

/* A directive ends at the line's end, so no name may bring one: not even a unix path with a newline in
 * it, which is a valid path. */
Test(config, a_name_never_ends_its_line)
{
    static const char *const names[] = {"unix:/run/a\nworkers 7", "a\rb", "\n"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct config config;
        size_t lines = 0;
        char *text;

        config_init(&config);
        (void)config_add_pool(&config, names[i]);
        text = printed(&config);
        for (const char *at = text + strlen(DEFAULTS); *at != '\0'; at++) {
            cr_assert(*at != '\r', "row %zu", i);
            lines += *at == '\n';
        }
        cr_assert(lines == 3, "row %zu takes %zu lines:\n%s", i, lines, text);
        free(text);
        config_fini(&config);
    }
}
