/* The configuration knows no relay, and the relay no configuration: here they meet. */
#include "proc/translate.h"

#include "base/check.h"
#include "base/message.h"
#include "proc/exits.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct sock_tuning translate_tuning(const struct settings *settings)
{
    return (struct sock_tuning){
        .keepalive_idle_s = (uint32_t)(settings->keepalive_idle_ns / NS_PER_S),
        .keepalive_interval_s = (uint32_t)(settings->keepalive_interval_ns / NS_PER_S),
        .user_timeout_ms = (uint32_t)(settings->user_timeout_ns / NS_PER_MS),
    };
}

struct relay_settings translate_relay(const struct settings *settings, const struct addr *source,
                                      size_t pipes_max)
{
    static const enum splice_mode modes[] = {[CONFIG_SPLICE_AUTO] = SPLICE_AUTO,
                                             [CONFIG_SPLICE_ALWAYS] = SPLICE_ALWAYS,
                                             [CONFIG_SPLICE_NEVER] = SPLICE_NEVER};

    return (struct relay_settings){
        .connect_timeout_ns = settings->connect_timeout_ns,
        .idle_timeout_ns = settings->idle_timeout_ns,
        .fin_timeout_ns = settings->fin_timeout_ns,
        .tuning = translate_tuning(settings),
        .source = source,
        .splice = modes[settings->splice],
        .pipes_max = pipes_max,
        .pipe_bytes = (int)settings->pipe_size_bytes,
        .want_details = settings->log != CONFIG_LOG_NONE,
    };
}

int translate_user(const struct settings *settings, struct identity *ret_identity, FILE *errors)
{
    int result;

    if (settings->user[0] == '\0') {
        return EXIT_STATUS_OK;
    }
    result = identity_find(settings->user, ret_identity);
    if (result == -ENOENT) {
        message_line(errors, "sluice: --user: there is no user \"%s\"", settings->user);
        return EXIT_STATUS_CONFIG;
    }
    if (result < 0) {
        message_line(errors, "sluice: --user: can't look up \"%s\": %s", settings->user,
                     strerror(-result));
        return EXIT_STATUS_FAILURE;
    }
    return EXIT_STATUS_OK;
}

bool translate_source(const struct settings *settings, struct addr *ret_source)
{
    bool v6 = strchr(settings->source, ':') != NULL;
    char text[ADDR_TEXT_BYTES + 8];
    struct endpoint endpoint;

    if (settings->source[0] == '\0') {
        return false;
    }
    /* Any port makes it an endpoint; the schema has checked the rest. */
    (void)snprintf(text, sizeof(text), v6 ? "[%s]:1" : "%s:1", settings->source);
    CHECK(endpoint_parse(text, &endpoint) == NULL);
    *ret_source = endpoint.addr;
    addr_set_port(ret_source, 0);
    return true;
}
