/* Tests of the step from the configuration's numbers to those of the layers below. */
#include "proc/translate.h"

#include "conf/options.h"
#include "proc/exits.h"

#include <criterion/criterion.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The settings after one option, in the form --name=value. */
static struct settings settings_with(const char *option)
{
    char *argv[] = {(char *)(uintptr_t) "sluice", (char *)(uintptr_t)option,
                    (char *)(uintptr_t) ":80=192.0.2.1:1", NULL};
    struct options options;
    struct settings settings;

    cr_assert(options_parse(3, argv, &options, stderr) == 0);
    settings = options.config.settings;
    options_fini(&options);
    return settings;
}

/* Seconds and milliseconds, as the kernel wants them, at both ends of each range. */
Test(translate, times_get_the_units_of_the_kernel)
{
    static const struct {
        const char *option;
        struct sock_tuning tuning;
    } cases[] = {
        {"--log=text", {60, 15, 900000}},
        {"--keepalive-idle=1s", {1, 15, 900000}},
        {"--keepalive-idle=32767s", {32767, 15, 900000}},
        {"--keepalive-idle=off", {0, 15, 900000}},
        {"--keepalive-interval=1s", {60, 1, 900000}},
        {"--keepalive-interval=32767s", {60, 32767, 900000}},
        {"--user-timeout=1ms", {60, 15, 1}},
        {"--user-timeout=24d", {60, 15, 2073600000}},
        {"--user-timeout=off", {60, 15, 0}},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct settings settings = settings_with(cases[i].option);
        struct sock_tuning tuning = translate_tuning(&settings);

        cr_assert(tuning.keepalive_idle_s == cases[i].tuning.keepalive_idle_s, "%s",
                  cases[i].option);
        cr_assert(tuning.keepalive_interval_s == cases[i].tuning.keepalive_interval_s, "%s",
                  cases[i].option);
        cr_assert(tuning.user_timeout_ms == cases[i].tuning.user_timeout_ms, "%s", cases[i].option);
    }
}

/* Whatever the schema accepts, the kernel takes. */
Test(translate, kernel_takes_every_accepted_time)
{
    static const char *const options[] = {
        "--keepalive-idle=1s",     "--keepalive-idle=32767s",     "--keepalive-idle=1500ms",
        "--keepalive-interval=1s", "--keepalive-interval=32767s", "--keepalive-interval=32766999ms",
        "--user-timeout=1ms",      "--user-timeout=24d"};
    struct endpoint any;

    cr_assert_null(endpoint_parse("127.0.0.1:1", &any));
    addr_set_port(&any.addr, 0);
    for (size_t i = 0; i < ARRAY_LEN(options); i++) {
        struct settings settings = settings_with(options[i]);
        struct sock_tuning tuning = translate_tuning(&settings);
        int fd = sock_listen_tcp(&any.addr, &tuning, true);

        cr_assert(fd >= 0, "%s: %s", options[i], strerror(-fd));
        (void)close(fd);
    }
}

/* Everything else goes over as it is; the sessions of a worker are somebody else's business. */
Test(translate, relay_gets_what_was_configured)
{
    struct settings settings = {.connect_timeout_ns = 1,
                                .idle_timeout_ns = 2,
                                .fin_timeout_ns = 3,
                                .keepalive_idle_ns = 4 * NS_PER_S,
                                .pipe_size_bytes = 65536};
    struct addr source = addr_any(AF_INET, 0);
    struct relay_settings relay = translate_relay(&settings, &source, 77);

    cr_assert(relay.connect_timeout_ns == 1);
    cr_assert(relay.idle_timeout_ns == 2);
    cr_assert(relay.fin_timeout_ns == 3);
    cr_assert(relay.tuning.keepalive_idle_s == 4);
    cr_assert(relay.source == &source);
    cr_assert(relay.pipes_max == 77);
    cr_assert(relay.pipe_bytes == 65536);
    cr_assert(relay.sessions_max == 0);
}

/* The words of the file mean the modes of the relay, and details are fetched only if they are logged. */
Test(translate, words_become_modes)
{
    static const struct {
        const char *option;
        enum splice_mode splice;
        bool want_details;
    } cases[] = {
        {"--splice=auto", SPLICE_AUTO, true},   {"--splice=always", SPLICE_ALWAYS, true},
        {"--splice=never", SPLICE_NEVER, true}, {"--log=text", SPLICE_AUTO, true},
        {"--log=json", SPLICE_AUTO, true},      {"--log=none", SPLICE_AUTO, false},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct settings settings = settings_with(cases[i].option);
        struct relay_settings relay = translate_relay(&settings, NULL, 0);

        cr_assert(relay.splice == cases[i].splice, "%s", cases[i].option);
        cr_assert(relay.want_details == cases[i].want_details, "%s", cases[i].option);
        cr_assert(relay.source == NULL);
    }
}

/* An address to connect from becomes one without a port; none stays none. */
Test(translate, source_becomes_an_address_without_port)
{
    static const struct {
        const char *option;
        const char *source; /* NULL: none */
    } cases[] = {
        {"--log=text", NULL},
        {"--source=192.0.2.7", "192.0.2.7:0"},
        {"--source=::1", "[::1]:0"},
        {"--source=2001:db8::7", "[2001:db8::7]:0"},
        {"--source=::ffff:192.0.2.7", "192.0.2.7:0"},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct settings settings = settings_with(cases[i].option);
        struct addr source = addr_any(AF_INET, 1);
        char text[ADDR_TEXT_BYTES];

        cr_assert(translate_source(&settings, &source) == (cases[i].source != NULL), "%s",
                  cases[i].option);
        addr_format(&source, text);
        cr_assert_str_eq(text, cases[i].source != NULL ? cases[i].source : "0.0.0.0:1");
    }
}

/* A source in IPv6 spelling of an IPv4 address is that IPv4 address: connections to IPv4 servers come
 * from it (addr.h: one canonical form). */
Test(translate, mapped_source_is_used_for_v4_servers)
{
    struct settings settings = settings_with("--source=::ffff:127.0.0.9");
    struct addr source;
    struct addr local;
    char text[ADDR_TEXT_BYTES];
    int fd;

    cr_assert(translate_source(&settings, &source));
    fd = sock_new(AF_INET, &source);
    cr_assert(fd >= 0);
    cr_assert(sock_local_address(fd, &local) == 0);
    addr_format(&local, text);
    cr_assert_str_eq(text, "127.0.0.9:0");
    (void)close(fd);
}

/* --- the user to run as --- */

/* What translate_user() returns and says for a name. */
static int translate_name(const char *name, struct identity *identity, char text[256])
{
    struct settings settings = {0};
    FILE *errors = fmemopen(text, 256, "w");
    int status;

    cr_assert(errors != NULL);
    (void)snprintf(settings.user, sizeof(settings.user), "%s", name);
    text[0] = '\0';
    status = translate_user(&settings, identity, errors);
    (void)fclose(errors);
    return status;
}

/* The account that this process runs as; NULL in a container that has none for it. */
static const char *own_name(void)
{
    const struct passwd *entry = getpwuid(getuid());

    return entry != NULL ? entry->pw_name : NULL;
}

/* No user, and the one that we are, may always be configured; an unknown one never. */
Test(translate, user_is_looked_up)
{
    struct identity identity = {.uid = 4711};
    char text[256];

    cr_assert(translate_name("", &identity, text) == EXIT_STATUS_OK);
    cr_assert_str_eq(text, "");
    cr_assert(identity.uid == 4711, "nothing is stored");
    cr_assert(translate_name("no-such-user-here", &identity, text) == EXIT_STATUS_CONFIG);
    cr_assert_str_eq(text, "sluice: --user: there is no user \"no-such-user-here\"\n");
    if (own_name() == NULL) {
        cr_skip_test("this user has no account");
    }
    cr_assert(translate_name(own_name(), &identity, text) == EXIT_STATUS_OK, "%s", text);
    cr_assert_str_eq(text, "");
    cr_assert(identity.uid == getuid());
}
