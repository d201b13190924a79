/* Building and printing the configuration. */
#include "conf/config.h"

#include "base/check.h"
#include "conf/schema.h"

#include <stdlib.h>
#include <string.h>

void config_init(struct config *config)
{
    size_t len;
    const struct setting *rows = schema_settings(&len);

    memset(config, 0, sizeof(*config));
    for (size_t i = 0; i < len; i++) {
        char expected[SCHEMA_EXPECTED_BYTES];

        if (rows[i].fallback[0] != '\0') {
            CHECK(schema_parse(&rows[i], rows[i].fallback, &config->settings, expected));
        }
    }
}

void config_fini(struct config *config)
{
    for (size_t i = 0; i < config->pools_len; i++) {
        struct config_pool *pool = &config->pools[i];

        for (size_t k = 0; k < pool->servers_len; k++) {
            free(pool->servers[k].text);
        }
        free(pool->servers);
        free(pool->name);
    }
    for (size_t i = 0; i < config->listeners_len; i++) {
        free(config->listeners[i].name);
    }
    free(config->pools);
    free(config->listeners);
    memset(config, 0, sizeof(*config));
}

static char *copy(const char *text)
{
    return need_memory(strdup(text));
}

size_t config_add_pool(struct config *config, const char *name)
{
    config->pools = need_room(config->pools, config->pools_len, sizeof(*config->pools));
    config->pools[config->pools_len] = (struct config_pool){.name = copy(name)};
    return config->pools_len++;
}

void config_add_server(struct config *config, size_t pool_index, const char *text,
                       const struct endpoint *target)
{
    struct config_pool *pool = &config->pools[pool_index];
    struct config_server *server;

    CHECK(pool_index < config->pools_len);
    pool->servers = need_room(pool->servers, pool->servers_len, sizeof(*pool->servers));
    server = &pool->servers[pool->servers_len++];
    server->text = copy(text);
    server->target = *target;
}

void config_add_listener(struct config *config, const char *name, const struct endpoint *bind,
                         size_t pool)
{
    CHECK(pool < config->pools_len);
    config->listeners =
        need_room(config->listeners, config->listeners_len, sizeof(*config->listeners));
    config->listeners[config->listeners_len++] =
        (struct config_listener){.name = copy(name), .bind = *bind, .pool = pool};
}

/* Quotes what would otherwise be read as something else, or end the line. */
static void print_word(FILE *out, const char *word)
{
    bool plain = word[0] != '\0' && word[strcspn(word, " \t\r\n\"\\{}#$")] == '\0';

    if (plain) {
        (void)fputs(word, out);
        return;
    }
    (void)fputc('"', out);
    for (; *word != '\0'; word++) {
        if (*word == '\n' || *word == '\r') {
            (void)fputs(*word == '\n' ? "\\n" : "\\r", out);
            continue;
        }
        if (*word == '"' || *word == '\\' || *word == '$') {
            (void)fputc('\\', out);
        }
        (void)fputc(*word, out);
    }
    (void)fputc('"', out);
}

static void print_settings(const struct settings *values, FILE *out)
{
    size_t len;
    const struct setting *rows = schema_settings(&len);

    for (size_t i = 0; i < len; i++) {
        char text[ADDR_TEXT_BYTES];

        schema_format(&rows[i], values, text);
        if (text[0] != '\0') {
            (void)fprintf(out, "%s ", rows[i].name);
            print_word(out, text);
            (void)fputc('\n', out);
        }
    }
}

/* One `keyword word` or `keyword word word` line of a block. */
static void print_line(FILE *out, const char *keyword, const char *first, const char *second)
{
    (void)fprintf(out, "    %s ", keyword);
    print_word(out, first);
    if (second != NULL) {
        (void)fputc(' ', out);
        print_word(out, second);
    }
    (void)fputc('\n', out);
}

static void print_block_start(FILE *out, const char *keyword, const char *name)
{
    (void)fprintf(out, "\n%s ", keyword);
    print_word(out, name);
    (void)fputs(" {\n", out);
}

void config_print(const struct config *config, FILE *out)
{
    print_settings(&config->settings, out);
    for (size_t i = 0; i < config->listeners_len; i++) {
        const struct config_listener *listener = &config->listeners[i];

        print_block_start(out, "listen", listener->name);
        print_line(out, "bind", listener->name, NULL);
        print_line(out, "to", config->pools[listener->pool].name, NULL);
        (void)fputs("}\n", out);
    }
    for (size_t i = 0; i < config->pools_len; i++) {
        const struct config_pool *pool = &config->pools[i];

        print_block_start(out, "pool", pool->name);
        for (size_t k = 0; k < pool->servers_len; k++) {
            print_line(out, "server", pool->servers[k].text, pool->servers[k].text);
        }
        (void)fputs("}\n", out);
    }
}
