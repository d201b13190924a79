/* The settings, each in one row. Adding one means adding a row here and a member in struct
 * settings; parser, range check, help and printed configuration follow.
 *
 * Defaults are safe and finite: every connection whose peers have vanished ends within a time that
 * these rows say. Why these numbers:
 *   user-timeout 15m    what Linux does without it (tcp_retries2: about 924 s), but also for idle
 *                       connections (with keepalive) and for a peer whose window stays closed.
 *                       Shorter would cut a reader that pauses, such as a tape or a stopped video
 *   keepalive-idle 1m   below the idle limits of the usual NAT and cloud balancers (350 s)
 *   idle-timeout 1h     longer than people's pauses; long-lived quiet protocols set it higher or
 *   off
 */
#include "conf/schema.h"

#include "base/check.h"
#include "conf/units.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HOUR_NS (UINT64_C(3600) * NS_PER_S)
#define DAY_NS  (24 * HOUR_NS)
#define KIB     UINT64_C(1024)

static const struct setting settings[] = {
    {"workers", SETTING_COUNT, offsetof(struct settings, workers), 1, 1024, "auto", "auto",
     "processes that move bytes; auto: one per usable processor"},
    {"max-connections", SETTING_COUNT, offsetof(struct settings, max_connections), 1, 100000000,
     "auto", "auto", "at once, shared out to the workers; auto: what the descriptor limit allows"},
    {"connect-timeout", SETTING_DURATION, offsetof(struct settings, connect_timeout_ns), NS_PER_MS,
     HOUR_NS, NULL, "5s", "for a server to accept, before the next one is tried"},
    {"idle-timeout", SETTING_DURATION, offsetof(struct settings, idle_timeout_ns), NS_PER_MS,
     365 * DAY_NS, "off", "1h", "ends a connection on which nothing moved for so long"},
    {"fin-timeout", SETTING_DURATION, offsetof(struct settings, fin_timeout_ns), NS_PER_MS,
     365 * DAY_NS, NULL, "1h", "the same for one whose one side has ended"},
    {"drain-timeout", SETTING_DURATION, offsetof(struct settings, drain_timeout_ns), NS_PER_MS,
     365 * DAY_NS, NULL, "30s", "after TERM: until connections that remain are cut"},
    {"keepalive-idle", SETTING_DURATION, offsetof(struct settings, keepalive_idle_ns), NS_PER_S,
     32767 * NS_PER_S, "off", "1m", "silence before TCP asks whether the peer is there"},
    {"keepalive-interval", SETTING_DURATION, offsetof(struct settings, keepalive_interval_ns),
     NS_PER_S, 32767 * NS_PER_S, NULL, "15s", "between such questions"},
    {"user-timeout", SETTING_DURATION, offsetof(struct settings, user_timeout_ns), NS_PER_MS,
     24 * DAY_NS, "off", "15m", "a peer that acknowledges nothing for so long is gone"},
    {"splice", SETTING_CHOICE, offsetof(struct settings, splice), 0, 0, "auto|always|never", "auto",
     "move bulk through pipes, without copying"},
    {"pipe-size", SETTING_SIZE, offsetof(struct settings, pipe_size_bytes), 64 * KIB, 1024 * KIB,
     NULL, "1m", "size of those pipes; 256k at most for more than 16 MiB of them at once"},
    {"busy-poll", SETTING_DURATION, offsetof(struct settings, busy_poll_ns), NS_PER_MS, NS_PER_S,
     "off", "off", "asks for events this long before it sleeps: less latency, a busy processor"},
    {"source", SETTING_ADDRESS, offsetof(struct settings, source), 0, 0, NULL, "",
     "local IP address to connect from, to servers of its family"},
    {"log", SETTING_CHOICE, offsetof(struct settings, log), 0, 0, "text|json|none", "text",
     "a record of each connection, on stderr"},
    {"user", SETTING_NAME, offsetof(struct settings, user), 0, USER_NAME_BYTES - 1, NULL, "",
     "the user that workers run as, when started as root"},
};

const struct setting *schema_settings(size_t *ret_len)
{
    *ret_len = ARRAY_LEN(settings);
    return settings;
}

const struct setting *schema_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        if (strcmp(settings[i].name, name) == 0) {
            return &settings[i];
        }
    }
    return NULL;
}

/* Settings are found by offset; this is the one place that does the cast. */
static void *place_of(const struct setting *setting, const struct settings *values)
{
    return (char *)(uintptr_t)values + setting->offset;
}

static uint64_t number_of(const struct setting *setting, const struct settings *values)
{
    uint64_t number;

    memcpy(&number, place_of(setting, values), sizeof(number));
    return number;
}

static bool parse_choice(const char *words, const char *value, uint64_t *ret_index)
{
    size_t len = strlen(value);

    for (uint64_t index = 0;; index++) {
        size_t word_len = strcspn(words, "|");

        if (len == word_len && strncmp(words, value, len) == 0) {
            *ret_index = index;
            return true;
        }
        if (words[word_len] == '\0') {
            return false;
        }
        words += word_len + 1;
    }
}

static bool parse_number(const struct setting *setting, const char *value, uint64_t *ret_number)
{
    uint64_t number = 0;
    bool parsed = false;

    if (setting->type == SETTING_CHOICE) {
        return parse_choice(setting->words, value, ret_number);
    }
    if (setting->words != NULL && strcmp(value, setting->words) == 0) {
        *ret_number = 0;
        return true;
    }
    if (setting->type == SETTING_DURATION) {
        parsed = duration_parse(value, &number);
    } else if (setting->type == SETTING_SIZE) {
        parsed = size_parse(value, &number);
    } else if (setting->type == SETTING_COUNT) {
        parsed = count_parse(value, &number);
    }
    if (!parsed || number < setting->min || number > setting->max) {
        return false;
    }
    *ret_number = number;
    return true;
}

static void format_number(enum setting_type type, uint64_t number, char text[UNITS_TEXT_BYTES])
{
    if (type == SETTING_DURATION) {
        duration_format(number, text);
    } else if (type == SETTING_SIZE) {
        size_format(number, text);
    } else {
        (void)snprintf(text, UNITS_TEXT_BYTES, "%" PRIu64, number);
    }
}

static void explain(const struct setting *setting, char expected[SCHEMA_EXPECTED_BYTES])
{
    char min[UNITS_TEXT_BYTES];
    char max[UNITS_TEXT_BYTES];
    const char *what = "a number";

    switch (setting->type) {
    case SETTING_CHOICE:
        (void)snprintf(expected, SCHEMA_EXPECTED_BYTES, "one of %s", setting->words);
        return;
    case SETTING_ADDRESS:
        (void)snprintf(expected, SCHEMA_EXPECTED_BYTES,
                       "an IPv4 or IPv6 address without port, such as 192.0.2.7");
        return;
    case SETTING_NAME:
        (void)snprintf(expected, SCHEMA_EXPECTED_BYTES, "a name of 1 to %" PRIu64 " bytes",
                       setting->max);
        return;
    case SETTING_DURATION:
        what = "a duration with its unit (ms s m h d)";
        break;
    case SETTING_SIZE:
        what = "a size in bytes, or with k m g,";
        break;
    case SETTING_COUNT:
        break;
    }
    format_number(setting->type, setting->min, min);
    format_number(setting->type, setting->max, max);
    (void)snprintf(expected, SCHEMA_EXPECTED_BYTES, "%s from %s to %s%s%s, such as %s", what, min,
                   max, setting->words != NULL ? ", or " : "",
                   setting->words != NULL ? setting->words : "", setting->fallback);
}

static bool is_ip_address(const char *value)
{
    struct in6_addr ignored;

    return inet_pton(AF_INET, value, &ignored) == 1 || inet_pton(AF_INET6, value, &ignored) == 1;
}

bool schema_parse(const struct setting *setting, const char *value, struct settings *values,
                  char expected[SCHEMA_EXPECTED_BYTES])
{
    uint64_t number;
    size_t len = strlen(value);
    bool valid = false;

    switch (setting->type) {
    case SETTING_ADDRESS:
        valid = is_ip_address(value);
        break;
    case SETTING_NAME:
        valid = len >= 1 && len <= setting->max;
        break;
    case SETTING_DURATION:
    case SETTING_SIZE:
    case SETTING_COUNT:
    case SETTING_CHOICE:
        valid = parse_number(setting, value, &number);
        if (valid) {
            memcpy(place_of(setting, values), &number, sizeof(number));
            return true;
        }
        break;
    }
    if (!valid) {
        explain(setting, expected);
        return false;
    }
    memcpy(place_of(setting, values), value, len + 1);
    return true;
}

static void format_choice(const char *words, uint64_t index, char text[ADDR_TEXT_BYTES])
{
    for (; index > 0; index--) {
        words += strcspn(words, "|") + 1;
    }
    (void)snprintf(text, ADDR_TEXT_BYTES, "%.*s", (int)strcspn(words, "|"), words);
}

void schema_format(const struct setting *setting, const struct settings *values,
                   char text[ADDR_TEXT_BYTES])
{
    if (setting->type == SETTING_ADDRESS || setting->type == SETTING_NAME) {
        (void)snprintf(text, ADDR_TEXT_BYTES, "%s", (const char *)place_of(setting, values));
    } else if (setting->type == SETTING_CHOICE) {
        format_choice(setting->words, number_of(setting, values), text);
    } else if (setting->words != NULL && number_of(setting, values) == 0) {
        (void)snprintf(text, ADDR_TEXT_BYTES, "%s", setting->words);
    } else {
        format_number(setting->type, number_of(setting, values), text);
    }
}

void schema_placeholder(const struct setting *setting, char text[64])
{
    static const char *const kinds[] = {
        [SETTING_DURATION] = "DURATION", [SETTING_SIZE] = "SIZE",       [SETTING_COUNT] = "NUMBER",
        [SETTING_CHOICE] = "",           [SETTING_ADDRESS] = "ADDRESS", [SETTING_NAME] = "NAME",
    };
    bool both = setting->words != NULL && setting->type != SETTING_CHOICE;

    (void)snprintf(text, 64, "%s%s%s", kinds[setting->type], both ? "|" : "",
                   setting->words != NULL ? setting->words : "");
}
