/* Fuzzes the command line, conf/options.c, and what is made of it: the schema, the printed
 * configuration, and the settings that the layers below are given, proc/translate.c, proc/limits.c.
 *
 * The input is cut at 0 bytes into arguments, each in memory of exactly its size. A byte from 1 on
 * at the front of one stands for the name of a setting, so that inputs with many valid options are
 * easily found.
 *
 * Oracles
 *   C1 Either there are mistakes, and each is one line of printable ASCII that begins with "sluice:
 *      "; or every value is within the range that the schema states.
 *   C2 The same arguments give the same messages and the same configuration, and are left as they
 *      were.
 *   C3 A setting that is printed can be read back as the same.
 *   C4 Listeners differ from each other, and each leads to a pool of servers that can be connected
 *      to.
 *   C5 What was accepted can be translated, and limits are kept by what is shared out. */
#include "conf/options.h"
#include "conf/schema.h"
#include "fuzz/common/input.h"
#include "proc/limits.h"
#include "proc/translate.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENTS_MAX = 24 };

/* Everything that one reading of the arguments gives. */
struct reading {
    struct options options;
    int mistakes;
    char *errors;  /* owned */
    char *printed; /* owned */
};

static void read_all(int argc, char **argv, struct reading *reading)
{
    size_t len;
    FILE *errors = open_memstream(&reading->errors, &len);
    FILE *printed = open_memstream(&reading->printed, &len);

    reading->mistakes = options_parse(argc, argv, &reading->options, errors);
    config_print(&reading->options.config, printed);
    (void)fclose(errors);
    (void)fclose(printed);
}

static void free_reading(struct reading *reading)
{
    options_fini(&reading->options);
    free(reading->errors);
    free(reading->printed);
}

/* C1 */
static void check_messages(const struct reading *reading)
{
    const char *line = reading->errors;
    int lines = 0;

    for (; *line != '\0'; lines++) {
        size_t len = strcspn(line, "\n");

        EXPECT(strncmp(line, "sluice: ", 8) == 0, "C1: a message begins with \"%.20s\"", line);
        EXPECT(line[len] == '\n', "C1: a message has no end");
        for (size_t i = 0; i < len; i++) {
            EXPECT(line[i] >= ' ' && line[i] <= '~', "C1: byte %02x in a message",
                   (unsigned char)line[i]);
        }
        line += len + 1;
    }
    EXPECT(lines == reading->mistakes, "C1: %d mistakes, %d messages:\n%s", reading->mistakes,
           lines, reading->errors);
}

static void check_number(const struct setting *row, uint64_t number)
{
    if (row->type == SETTING_CHOICE) {
        uint64_t words = 1;

        for (const char *at = row->words; *at != '\0'; at++) {
            words += *at == '|';
        }
        EXPECT(number < words, "C1: %s is choice %llu", row->name, (unsigned long long)number);
    } else if (number != 0 || row->words == NULL) {
        EXPECT(number >= row->min && number <= row->max, "C1: %s is %llu", row->name,
               (unsigned long long)number);
    }
}

static void check_setting(const struct setting *row, const struct settings *values)
{
    const char *place = (const char *)values + row->offset;
    char expected[SCHEMA_EXPECTED_BYTES];
    struct settings again;
    char text[ADDR_TEXT_BYTES];
    uint64_t number;

    memset(&again, 0, sizeof(again));
    schema_format(row, values, text);
    if (row->type == SETTING_ADDRESS) {
        struct in6_addr ignored;

        EXPECT(text[0] == '\0' || inet_pton(AF_INET, text, &ignored) == 1 ||
                   inet_pton(AF_INET6, text, &ignored) == 1,
               "C1: %s is \"%s\"", row->name, text);
    } else if (row->type == SETTING_NAME) {
        EXPECT(strlen(text) <= row->max, "C1: %s is \"%s\"", row->name, text);
    } else {
        memcpy(&number, place, sizeof(number));
        check_number(row, number);
    }
    if (text[0] == '\0') {
        return;
    }
    EXPECT(schema_parse(row, text, &again, expected), "C3: %s is printed as \"%s\"", row->name,
           text);
    if (row->type == SETTING_ADDRESS || row->type == SETTING_NAME) {
        EXPECT(strcmp((const char *)&again + row->offset, place) == 0, "C3: %s", row->name);
    } else {
        EXPECT(memcmp((const char *)&again + row->offset, place, 8) == 0, "C3: %s is read as %s",
               row->name, text);
    }
}

/* C1 at its edges, which mutation seldom meets: a number in the smallest unit, near a limit or not. */
static void check_edge(struct input *input)
{
    size_t len;
    const struct setting *rows = schema_settings(&len);
    const struct setting *row = &rows[input_below(input, len)];
    uint64_t unit = row->type == SETTING_DURATION ? NS_PER_MS : 1;
    uint64_t near[] = {row->min, row->max,
                       input_below(input, UINT64_MAX) >> input_byte(input) % 64};
    uint64_t number = near[input_below(input, ARRAY_LEN(near))] / unit + input_below(input, 3) - 1;
    char expected[SCHEMA_EXPECTED_BYTES];
    struct settings values;
    char text[64];
    uint64_t got;
    bool right;

    if (row->max == 0 || row->type == SETTING_NAME) {
        return;
    }
    memset(&values, 0, sizeof(values));
    (void)snprintf(text, sizeof(text), "%" PRIu64 "%s", number, unit == 1 ? "" : "ms");
    right = number >= row->min / unit && number <= row->max / unit;
    EXPECT(schema_parse(row, text, &values, expected) == right, "C1: %s %s should be %s", row->name,
           text, right ? "taken" : "refused");
    memcpy(&got, (const char *)&values + row->offset, sizeof(got));
    EXPECT(got == (right ? number * unit : 0), "C1: %s %s is stored as %" PRIu64, row->name, text,
           got);
}

static bool is_same(const struct endpoint *a, const struct endpoint *b)
{
    if (a->kind != b->kind || a->port != b->port) {
        return false;
    }
    return a->kind == ENDPOINT_ANY ||
           (a->kind == ENDPOINT_ADDR && addr_equal(&a->addr, &b->addr)) ||
           (a->kind == ENDPOINT_NAME && strcasecmp(a->host, b->host) == 0);
}

/* C4 */
static void check_listeners(const struct config *config)
{
    for (size_t i = 0; i < config->listeners_len; i++) {
        const struct config_listener *listener = &config->listeners[i];
        const struct config_pool *pool = &config->pools[listener->pool];

        EXPECT(listener->pool < config->pools_len, "C4: pool %zu", listener->pool);
        EXPECT(pool->servers_len > 0, "C4: \"%s\" leads nowhere", listener->name);
        for (size_t k = 0; k < i; k++) {
            EXPECT(!is_same(&listener->bind, &config->listeners[k].bind), "C4: \"%s\" twice",
                   listener->name);
        }
        for (size_t k = 0; k < pool->servers_len; k++) {
            EXPECT(pool->servers[k].target.kind != ENDPOINT_ANY, "C4: \"%s\" is no server",
                   pool->servers[k].text);
        }
    }
}

/* C5 */
static void check_translation(const struct config *config, uint64_t descriptors)
{
    const struct settings *settings = &config->settings;
    struct relay_settings relay = translate_relay(settings, NULL, 1);
    struct sock_tuning tuning = translate_tuning(settings);
    struct addr source;
    struct limits limits;

    EXPECT(relay.pipe_bytes >= PIPE_BYTES_MIN && relay.pipe_bytes <= PIPE_BYTES_MAX, "C5: a pipe");
    EXPECT(relay.splice <= SPLICE_NEVER, "C5: splice %d", (int)relay.splice);
    EXPECT(tuning.keepalive_idle_s <= 32767 && tuning.keepalive_interval_s <= 32767 &&
               tuning.keepalive_interval_s > 0 && tuning.user_timeout_ms <= INT32_MAX,
           "C5: more than TCP takes");
    if (translate_source(settings, &source)) {
        EXPECT(addr_port(&source) == 0 && source.u.any.sa_family != AF_UNIX, "C5: \"%s\"",
               settings->source);
    }
    if (limits_compute(descriptors, settings->workers, settings->max_connections,
                       config->listeners_len, &limits) == NULL) {
        size_t sum = 0;

        for (size_t i = 0; i < limits.workers; i++) {
            size_t share = limits_share(&limits, i);

            sum += share;
            EXPECT(share > 0, "C5: worker %zu of %zu has nothing to do", i, limits.workers);
            EXPECT((unsigned __int128)share * 2 + limits.pipes_max * 2 + config->listeners_len <=
                       descriptors,
                   "C5: more descriptors than there are");
        }
        EXPECT(sum == limits.connections_max, "C5: %zu connections, shared out %zu",
               limits.connections_max, sum);
        EXPECT(settings->max_connections == 0 || sum == settings->max_connections, "C5: %zu", sum);
    }
}

static void check_accepted(const struct options *options, uint64_t descriptors)
{
    size_t len;
    const struct setting *rows = schema_settings(&len);

    for (size_t i = 0; i < len; i++) {
        check_setting(&rows[i], &options->config.settings);
    }
    check_listeners(&options->config);
    check_translation(&options->config, descriptors);
    EXPECT(options->config.listeners_len > 0 || options->action == OPTIONS_HELP ||
               options->action == OPTIONS_VERSION,
           "C4: nothing to do, and no mistake");
}

/* The next argument. Owned by the caller. */
static char *read_argument(struct input *input)
{
    char *word = input_word(input, 0);
    size_t len;
    const struct setting *rows = schema_settings(&len);
    char *argument;

    if (word[0] < 1 || (size_t)word[0] > len) {
        return word;
    }
    EXPECT(asprintf(&argument, "--%s=%s", rows[word[0] - 1].name, word + 1) > 0, "no memory");
    free(word);
    return argument;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct input input = {bytes, len};
    uint64_t descriptors = 1 + input_below(&input, 1 << 20);
    char *argv[ARGUMENTS_MAX + 2] = {NULL};
    char *before[ARGUMENTS_MAX + 2] = {NULL};
    struct reading first;
    struct reading second;
    int argc = 0;

    check_edge(&input);
    argv[argc++] = strdup("sluice");
    while (input.left > 0 && argc <= ARGUMENTS_MAX) {
        argv[argc++] = read_argument(&input);
    }
    for (int i = 0; i < argc; i++) {
        before[i] = strdup(argv[i]);
    }
    read_all(argc, argv, &first);
    read_all(argc, argv, &second);
    check_messages(&first);
    EXPECT(first.mistakes == second.mistakes && strcmp(first.errors, second.errors) == 0 &&
               strcmp(first.printed, second.printed) == 0 &&
               first.options.action == second.options.action,
           "C2: two readings differ");
    for (int i = 0; i < argc; i++) {
        EXPECT(strcmp(argv[i], before[i]) == 0, "C2: argument %d has changed", i);
        free(argv[i]);
        free(before[i]);
    }
    if (first.mistakes == 0) {
        check_accepted(&first.options, descriptors);
    }
    free_reading(&first);
    free_reading(&second);
    return 0;
}
