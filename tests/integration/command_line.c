/* The command line: each mistake gives its own line and the right exit status, and nothing is left
 * behind half-started. Texts are compared whole: they are what a user sees first. */
#include "support/pair.h"
#include "support/peer.h"
#include "support/procfs.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { USAGE = 2, FAILURE = 1, CONFIGURATION = 78, ARGUMENTS = 8, TEXT_BYTES = 8192 };

static void forget_log(struct proxy *proxy)
{
    free(proxy->log);
    proxy->log = NULL;
    proxy->log_len = 0;
}

/* Runs sluice to its end; its status and all of its stderr must be as stated. */
static void expect_run(struct proxy *proxy, const char *const arguments[], int status,
                       const char *text)
{
    int found = proxy_run_to_end(proxy, arguments);

    cr_assert(strcmp(proxy->log, text) == 0, "expected:\n%sfound:\n%s", text, proxy->log);
    cr_assert(found == status, "expected exit status %d, found %d after:\n%s", status, found,
              proxy->log);
    forget_log(proxy);
}

/* The same for one LISTEN=TARGET made from the test's own address. */
static void expect_pair(struct proxy *proxy, const char *pair, int status, const char *text)
{
    expect_run(proxy, (const char *const[]){pair, NULL}, status, text);
}

/* Standard output goes to a file in memory. For in_child, which takes no argument. */
static int output_fd = -1;
static bool output_as_nobody;

static void redirect_output(void)
{
    (void)dup2(output_fd, STDOUT_FILENO);
    if (output_as_nobody) {
        become_nobody();
    }
}

static int run_with_output(struct proxy *proxy, const char *const arguments[],
                           char output[TEXT_BYTES])
{
    ssize_t len;
    int status;

    output_fd = memfd_create("output", MFD_CLOEXEC);
    cr_assert(output_fd >= 0);
    proxy->in_child = redirect_output;
    status = proxy_run_to_end(proxy, arguments);
    proxy->in_child = NULL;
    len = pread(output_fd, output, TEXT_BYTES - 1, 0);
    cr_assert(len >= 0);
    output[len] = '\0';
    (void)close(output_fd);
    return status;
}

static void unix_path(char path[64], const char *what)
{
    (void)snprintf(path, 64, "/tmp/sluice-%d-%s", (int)getpid(), what);
}

/* --- what can be told without looking anything up --- */

struct mistake {
    const char *arguments[ARGUMENTS];
    const char *text; /* without the leading "sluice: " and the newline */
};

static void expect_usage_errors(const struct mistake mistakes[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct proxy proxy;
        char text[512];

        proxy_init(&proxy);
        (void)snprintf(text, sizeof(text), "sluice: %s\n", mistakes[i].text);
        expect_run(&proxy, mistakes[i].arguments, USAGE, text);
    }
}

/* Addresses that are none: every kind of mistake in LISTEN and TARGET is named with what was
 * expected in its place, in one line, with status 2. */
Test(command_line, names_what_is_wrong_with_an_address)
{
#define LISTEN(text, expected)                                                                     \
    {                                                                                              \
        {text "=127.0.0.1:9"},                                                                     \
            "argument 1, \"" text "=127.0.0.1:9\": found listen address \"" text "\", " expected   \
    }
#define TARGET(text, expected)                                                                     \
    {                                                                                              \
        {"127.0.0.1:9=" text},                                                                     \
            "argument 1, \"127.0.0.1:9=" text "\": found target \"" text "\", " expected           \
    }
    static const struct mistake mistakes[] = {
        LISTEN("0", "expected a port from 1 to 65535"),
        LISTEN(":0", "expected a port from 1 to 65535"),
        LISTEN("65536", "expected a port from 1 to 65535"),
        LISTEN("127.0.0.1:0", "expected a port from 1 to 65535"),
        LISTEN("127.0.0.1:65536", "expected a port from 1 to 65535"),
        LISTEN("127.0.0.1:http", "expected a port from 1 to 65535"),
        LISTEN("127.0.0.1:08", "expected a port from 1 to 65535"),
        LISTEN("localhost", "expected HOST:PORT, [IPV6]:PORT, unix:/PATH or unix:@NAME"),
        LISTEN("10.0.0.256:80", "expected an IPv4 address of four numbers from 0 to 255"),
        LISTEN("127.1:80", "expected an IPv4 address of four numbers from 0 to 255"),
        LISTEN("a b:80", "expected a host name of letters, digits, - . and _"),
        LISTEN("::1:80", "expected an IPv6 address in brackets: [V6]:PORT"),
        LISTEN("[::1]", "expected a port from 1 to 65535"),
        LISTEN("[::g]:80", "expected an IPv6 address between the brackets"),
        LISTEN("[::1:80", "expected ] and :PORT after the IPv6 address"),
        LISTEN("unix:app.sock",
               "expected an absolute path (unix:/PATH) or an abstract name (unix:@NAME)"),
        LISTEN("unix:@", "expected a name after unix:@"),
        TARGET("127.0.0.1:0", "expected a port from 1 to 65535"),
        TARGET("127.0.0.1:65536", "expected a port from 1 to 65535"),
        TARGET(":80", "expected a host before the port"),
        TARGET("db1", "expected HOST:PORT, [IPV6]:PORT, unix:/PATH or unix:@NAME"),
        TARGET("-db:80", "expected a host name of letters, digits, - . and _"),
        {{"127.0.0.1:9"},
         "argument 1, \"127.0.0.1:9\": expected LISTEN=TARGET, such as :8080=127.0.0.1:9000"},
        {{""}, "argument 1, \"\": expected LISTEN=TARGET, such as :8080=127.0.0.1:9000"},
    };
#undef LISTEN
#undef TARGET

    expect_usage_errors(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

/* An address that is missing altogether, in front of or behind the `=`, is not told to be a
 * port. */
Test(command_line, asks_for_an_address_where_there_is_none)
{
    static const struct mistake mistakes[] = {
        {{"=127.0.0.1:9"},
         "argument 1, \"=127.0.0.1:9\": found listen address \"\", expected HOST:PORT, "
         "[IPV6]:PORT, unix:/PATH or unix:@NAME"},
        {{"127.0.0.1:9="},
         "argument 1, \"127.0.0.1:9=\": found target \"\", expected HOST:PORT, [IPV6]:PORT, "
         "unix:/PATH or unix:@NAME"},
        {{"127.0.0.1:9=127.0.0.1:10,"},
         "argument 1, \"127.0.0.1:9=127.0.0.1:10,\": found target \"\", expected HOST:PORT, "
         "[IPV6]:PORT, unix:/PATH or unix:@NAME"},
    };

    expect_usage_errors(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

/* Values of options: missing, without a unit, out of range, not among the words. The line says what
 * a right one looks like. */
Test(command_line, says_what_a_value_should_look_like)
{
#define DURATION "expected a duration with its unit (ms s m h d) from "
    static const struct mistake mistakes[] = {
        {{"--idle-timeout"},
         "argument 1, \"--idle-timeout\": found the end of the line, expected a value after it"},
        {{"--idle-timeout", "5", "127.0.0.1:9=127.0.0.1:10"},
         "argument 1, \"--idle-timeout\": found \"5\", " DURATION
         "1ms to 365d, or off, such as 1h"},
        {{"127.0.0.1:9=127.0.0.1:10", "--idle-timeout=5"},
         "argument 2, \"--idle-timeout=5\": found \"5\", " DURATION
         "1ms to 365d, or off, such as 1h"},
        {{"--drain-timeout", "-1s"},
         "argument 1, \"--drain-timeout\": found \"-1s\", " DURATION "1ms to 365d, such as 30s"},
        {{"--connect-timeout", "61m"},
         "argument 1, \"--connect-timeout\": found \"61m\", " DURATION "1ms to 1h, such as 5s"},
        {{"--connect-timeout="},
         "argument 1, \"--connect-timeout=\": found \"\", " DURATION "1ms to 1h, such as 5s"},
        {{"--workers", "0"},
         "argument 1, \"--workers\": found \"0\", expected a number from 1 to 1024, or auto, such "
         "as auto"},
        {{"--pipe-size", "2m"},
         "argument 1, \"--pipe-size\": found \"2m\", expected a size in bytes, or with k m g, from "
         "64k to 1m, such as 1m"},
        {{"--splice", "sometimes"},
         "argument 1, \"--splice\": found \"sometimes\", expected one of auto|always|never"},
        {{"--log", "xml"}, "argument 1, \"--log\": found \"xml\", expected one of text|json|none"},
        {{"--source", "127.0.0.1:80"},
         "argument 1, \"--source\": found \"127.0.0.1:80\", expected an IPv4 or IPv6 address "
         "without port, such as 192.0.2.7"},
        {{"--user", ""}, "argument 1, \"--user\": found \"\", expected a name of 1 to 63 bytes"},
    };
#undef DURATION

    expect_usage_errors(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

/* A misspelt option is answered with the one that was probably meant, and the value behind it is no
 * second mistake; one that resembles nothing gets no wild guess. */
Test(command_line, suggests_the_option_that_was_meant)
{
    static const struct mistake mistakes[] = {
        {{"--idle-timout", "5s", "127.0.0.1:9=127.0.0.1:10"},
         "argument 1, \"--idle-timout\": unknown option; did you mean --idle-timeout?"},
        {{"--idle-timout=5s", "127.0.0.1:9=127.0.0.1:10"},
         "argument 1, \"--idle-timout=5s\": unknown option; did you mean --idle-timeout?"},
        {{"--maxconnections", "10"},
         "argument 1, \"--maxconnections\": unknown option; did you mean --max-connections?"},
        {{"-workers", "2"}, "argument 1, \"-workers\": unknown option; did you mean --workers?"},
        {{"--quux-frobnicator"},
         "argument 1, \"--quux-frobnicator\": unknown option; sluice -h lists all of them"},
    };

    expect_usage_errors(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

/* A single letter is as far from every name as it is long: suggesting --log for -x would
 * mislead. */
Test(command_line, suggests_nothing_for_an_option_that_resembles_none)
{
    static const struct mistake mistakes[] = {
        {{"-x"}, "argument 1, \"-x\": unknown option; sluice -h lists all of them"},
        {{"--"}, "argument 1, \"--\": unknown option; sluice -h lists all of them"},
    };

    expect_usage_errors(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

/* Without anything to do there is one line that says how to begin, also for -t and -T. */
Test(command_line, explains_itself_when_given_nothing_to_do)
{
    static const struct mistake mistakes[] = {
        {{NULL},
         "nothing to do: expected LISTEN=TARGET, such as :8080=127.0.0.1:9000; sluice -h "
         "explains"},
        {{"-t"},
         "nothing to do: expected LISTEN=TARGET, such as :8080=127.0.0.1:9000; sluice -h "
         "explains"},
        {{"--workers", "2"},
         "nothing to do: expected LISTEN=TARGET, such as "
         ":8080=127.0.0.1:9000; sluice -h explains"},
    };

    expect_usage_errors(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

/* The same address twice, in whatever spelling, is told before anything is opened. */
Test(command_line, refuses_an_address_that_is_listened_on_twice)
{
    static const struct mistake mistakes[] = {
        {{"127.0.0.1:9=127.0.0.1:10", "127.0.0.1:9=127.0.0.1:11"},
         "argument 2, \"127.0.0.1:9=127.0.0.1:11\": found \"127.0.0.1:9\" a second time, expected "
         "each address once"},
        {{":9=127.0.0.1:10", "9=127.0.0.1:11"},
         "argument 2, \"9=127.0.0.1:11\": found \"9\" a second time, expected each address once"},
        {{"[::1]:9=127.0.0.1:10", "[0:0::1]:9=127.0.0.1:11"},
         "argument 2, \"[0:0::1]:9=127.0.0.1:11\": found \"[0:0::1]:9\" a second time, expected "
         "each address once"},
        {{"unix:@a=127.0.0.1:10", "unix:@a=127.0.0.1:11"},
         "argument 2, \"unix:@a=127.0.0.1:11\": found \"unix:@a\" a second time, expected each "
         "address once"},
    };

    expect_usage_errors(mistakes, sizeof(mistakes) / sizeof(mistakes[0]));
}

/* Four mistakes in one run are four lines, in the order of the arguments: nobody has to try again
 * after each. */
Test(command_line, shows_all_mistakes_in_one_run)
{
    struct proxy proxy;

    proxy_init(&proxy);
    expect_run(&proxy,
               (const char *const[]){"--idle-timeout", "5", "--spice", "always",
                                     "127.0.0.1:0=127.0.0.1:9", "127.0.0.1:9=127.0.0.1:0", NULL},
               USAGE,
               "sluice: argument 1, \"--idle-timeout\": found \"5\", expected a duration with its "
               "unit (ms s m h d) from 1ms to 365d, or off, such as 1h\n"
               "sluice: argument 3, \"--spice\": unknown option; did you mean --splice?\n"
               "sluice: argument 5, \"127.0.0.1:0=127.0.0.1:9\": found listen address "
               "\"127.0.0.1:0\", expected a port from 1 to 65535\n"
               "sluice: argument 6, \"127.0.0.1:9=127.0.0.1:0\": found target \"127.0.0.1:0\", "
               "expected a port from 1 to 65535\n");
}

/* --- help, version, and the printed configuration --- */

/* -h goes to standard output, succeeds, and names every setting with its default. */
Test(command_line, help_lists_every_setting)
{
    static const char *const lines[] = {
        "usage: sluice [OPTIONS] LISTEN=TARGET[,TARGET...] [LISTEN=TARGET...]\n",
        "\n  -t ",
        "\n  -T ",
        "\n  -V ",
        "\n  -h ",
        "\n  --workers NUMBER|auto ",
        "\n  --max-connections NUMBER|auto ",
        "\n  --connect-timeout DURATION ",
        "\n  --idle-timeout DURATION|off ",
        "\n  --fin-timeout DURATION ",
        "\n  --drain-timeout DURATION ",
        "\n  --keepalive-idle DURATION|off ",
        "\n  --keepalive-interval DURATION ",
        "\n  --user-timeout DURATION|off ",
        "\n  --splice auto|always|never ",
        "\n  --pipe-size SIZE ",
        "\n  --source ADDRESS ",
        "\n  --log text|json|none ",
        "\n  --user NAME ",
        " [5s]\n",
        " [auto]\n",
        "Exit status: 0 stopped, 1 failed, 2 usage, 78 configuration.\n",
    };
    char output[TEXT_BYTES];
    struct proxy proxy;

    proxy_init(&proxy);
    cr_assert(run_with_output(&proxy, (const char *const[]){"-h", NULL}, output) == 0);
    cr_assert(proxy.log_len == 0, "on stderr:\n%s", proxy.log);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        cr_assert(strstr(output, lines[i]) != NULL, "no \"%s\" in\n%s", lines[i], output);
    }
    forget_log(&proxy);
}

/* -V says name, version and build in one line on standard output. */
Test(command_line, prints_its_version)
{
    char output[TEXT_BYTES];
    struct proxy proxy;
    int major;
    int minor;
    int patch;

    proxy_init(&proxy);
    cr_assert(run_with_output(&proxy, (const char *const[]){"-V", NULL}, output) == 0);
    cr_assert(sscanf(output, "sluice %d.%d.%d (", &major, &minor, &patch) == 3, "%s", output);
    cr_assert(strchr(output, '\n') == output + strlen(output) - 1);
    cr_assert(proxy.log_len == 0, "on stderr:\n%s", proxy.log);
    forget_log(&proxy);
}

/* -T prints all of the configuration, defaults included; the whole text of one case. */
Test(command_line, prints_the_effective_configuration)
{
    static const char expected[] = "workers auto\n"
                                   "max-connections 1000\n"
                                   "connect-timeout 5s\n"
                                   "idle-timeout off\n"
                                   "fin-timeout 1h\n"
                                   "drain-timeout 1500ms\n"
                                   "keepalive-idle 1m\n"
                                   "keepalive-interval 15s\n"
                                   "user-timeout 15m\n"
                                   "splice never\n"
                                   "pipe-size 128k\n"
                                   "busy-poll off\n"
                                   "source 127.0.0.1\n"
                                   "log text\n"
                                   "\n"
                                   "listen 127.0.0.1:9 {\n"
                                   "    bind 127.0.0.1:9\n"
                                   "    to 127.0.0.1:9\n"
                                   "}\n"
                                   "\n"
                                   "listen \"unix:/run/my app\" {\n"
                                   "    bind \"unix:/run/my app\"\n"
                                   "    to \"unix:/run/my app\"\n"
                                   "}\n"
                                   "\n"
                                   "pool 127.0.0.1:9 {\n"
                                   "    server 127.0.0.1:10 127.0.0.1:10\n"
                                   "    server [::1]:11 [::1]:11\n"
                                   "}\n"
                                   "\n"
                                   "pool \"unix:/run/my app\" {\n"
                                   "    server unix:@back unix:@back\n"
                                   "}\n";
    char output[TEXT_BYTES];
    struct proxy proxy;
    int status;

    proxy_init(&proxy);
    status = run_with_output(
        &proxy,
        (const char *const[]){"-T", "--max-connections", "1000", "--idle-timeout=off",
                              "--drain-timeout", "1500ms", "--splice", "never", "--pipe-size",
                              "128k", "--source", "127.0.0.1", "127.0.0.1:9=127.0.0.1:10,[::1]:11",
                              "unix:/run/my app=unix:@back", NULL},
        output);
    cr_assert(status == 0);
    cr_assert(proxy.log_len == 0, "on stderr:\n%s", proxy.log);
    cr_assert(strcmp(output, expected) == 0, "expected:\n%sfound:\n%s", expected, output);
    forget_log(&proxy);
}

/* RL-08: -t and -T bind nothing: they succeed although the port is taken, and make no socket
 * file. */
Test(command_line, check_listens_on_nothing)
{
    static const char *const actions[] = {"-t", "-T"};
    char output[TEXT_BYTES];
    struct proxy proxy;
    char path[64];
    char pair[96];
    int taken;

    proxy_init(&proxy);
    unix_path(path, "check");
    (void)snprintf(pair, sizeof(pair), "unix:%s=127.0.0.1:9", path);
    taken = peer_listen(proxy.ip, PROXY_PORT, 1);
    for (size_t i = 0; i < 2; i++) {
        int status = run_with_output(
            &proxy, (const char *const[]){actions[i], proxy.arg, pair, NULL}, output);

        cr_assert(status == 0 && proxy.log_len == 0, "%s: status %d, %s", actions[i], status,
                  proxy.log);
        cr_assert((output[0] != '\0') == (i == 1));
        cr_assert(access(path, F_OK) < 0 && errno == ENOENT, "%s made %s", actions[i], path);
        forget_log(&proxy);
    }
    peer_close(taken);
}

/* -t fails wherever a start would fail for the configuration alone: a user that does not exist. */
Test(command_line, check_finds_a_user_that_does_not_exist)
{
    static const char *const actions[] = {"-t", "-T"};
    struct proxy proxy;

    proxy_init(&proxy);
    expect_run(&proxy, (const char *const[]){"--user", "no-such-user", proxy.arg, NULL},
               CONFIGURATION, "sluice: --user: there is no user \"no-such-user\"\n");
    for (size_t i = 0; i < 2; i++) {
        expect_run(&proxy,
                   (const char *const[]){actions[i], "--user", "no-such-user", proxy.arg, NULL},
                   CONFIGURATION, "sluice: --user: there is no user \"no-such-user\"\n");
    }
}

/* A configuration for root can be checked and printed by anybody: only a start needs the right to
 * become that user. */
Test(command_line, check_needs_no_privilege)
{
    static const char *const actions[] = {"-t", "-T"};
    char output[TEXT_BYTES];
    struct proxy proxy;

    need_root();
    output_as_nobody = true;
    proxy_init(&proxy);
    for (size_t i = 0; i < 2; i++) {
        int status = run_with_output(
            &proxy, (const char *const[]){actions[i], "--user", "root", proxy.arg, NULL}, output);

        cr_assert(status == 0 && proxy.log_len == 0, "%s: status %d, %s", actions[i], status,
                  proxy.log);
        cr_assert((strstr(output, "\nuser root\n") != NULL) == (i == 1), "%s", output);
        forget_log(&proxy);
    }
}

/* --- names and loops --- */

/* A name that does not resolve is a configuration error (78); if only the resolver can't say, it
 * may be right tomorrow (1). Both as target and as listener, and both are shown. */
Test(command_line, names_the_host_that_does_not_resolve)
{
    struct proxy proxy;
    char pair[128];
    int status;

    proxy_init(&proxy);
    (void)snprintf(pair, sizeof(pair), "%s:%d=no-such-host.invalid:80", proxy.ip, PROXY_PORT);
    status = proxy_run_to_end(
        &proxy, (const char *const[]){pair, "other-host.invalid:80=127.0.0.1:9", NULL});
    cr_assert(strstr(proxy.log, "sluice: \"no-such-host.invalid:80\": the name "
                                "\"no-such-host.invalid\" does not resolve: ") != NULL,
              "%s", proxy.log);
    cr_assert(strstr(proxy.log, "sluice: \"other-host.invalid:80\": the name "
                                "\"other-host.invalid\" does not resolve: ") != NULL,
              "%s", proxy.log);
    cr_assert(status == (strstr(proxy.log, "emporary") != NULL ? FAILURE : CONFIGURATION),
              "status %d after:\n%s", status, proxy.log);
    forget_log(&proxy);
}

/* CF-06: a target that is one of the listeners, in any spelling, would send each connection round
 * for ever: refused with 78. */
Test(command_line, refuses_a_target_that_is_a_listener)
{
    static const struct {
        const char *listen; /* %s: this test's address */
        const char *target;
    } loops[] = {
        {"%s:8080", "%s:8080"},
        {":8080", "%s:8080"},
        {":8080", "[::1]:8080"},
        {":8080", "0.0.0.0:8080"},
        {"127.0.0.1:8080", "0.0.0.0:8080"},
        {"127.0.0.1:8080", "[::ffff:127.0.0.1]:8080"},
        {"unix:@loop-%s", "unix:@loop-%s"},
    };
    struct proxy proxy;

    proxy_init(&proxy);
    for (size_t i = 0; i < sizeof(loops) / sizeof(loops[0]); i++) {
        char listen[64];
        char target[64];
        char pair[160];
        char text[512];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void)snprintf(listen, sizeof(listen), loops[i].listen, proxy.ip);
        (void)snprintf(target, sizeof(target), loops[i].target, proxy.ip);
#pragma GCC diagnostic pop
        (void)snprintf(pair, sizeof(pair), "%s=127.0.0.1:9,%s", listen, target);
        (void)snprintf(text, sizeof(text),
                       "sluice: target \"%s\" of \"%s\" is sluice's own listener \"%s\": each "
                       "connection would come back for ever\n",
                       target, listen, listen);
        expect_pair(&proxy, pair, CONFIGURATION, text);
    }
}

/* --- addresses that can't be had --- */

/* A taken port is refused, also one that its owner shares by SO_REUSEPORT: half of the connections
 * would go to the other program. */
Test(command_line, refuses_a_port_that_is_taken)
{
    struct proxy proxy;
    char text[256];

    proxy_init(&proxy);
    (void)snprintf(text, sizeof(text),
                   "sluice: can't listen on \"%s:8080\" (%s:8080): Address already in use: "
                   "somebody listens there, or a connection has it as its own port\n",
                   proxy.ip, proxy.ip);
    for (int shared = 0; shared < 2; shared++) {
        int taken = peer_listen(proxy.ip, PROXY_PORT, 1);

        cr_assert(setsockopt(taken, SOL_SOCKET, SO_REUSEPORT, &shared, sizeof(shared)) == 0);
        expect_pair(&proxy, proxy.arg, FAILURE, text);
        peer_close(taken);
    }
}

/* A second sluice on the same address is refused like any other program: its own sharing between
 * workers does not open the door. The first one goes on. */
Test(command_line, refuses_to_share_a_port_with_another_sluice)
{
    struct proxy first;
    struct proxy second;
    struct pair pair;
    char text[256];
    int origin;

    proxy_init(&first);
    proxy_init(&second);
    origin = peer_listen(first.ip, ORIGIN_PORT, 8);
    proxy_start_simple(&first, (const char *const[]){"--workers", "2", NULL});
    (void)snprintf(text, sizeof(text),
                   "sluice: can't listen on \"%s:8080\" (%s:8080): Address already in use: "
                   "somebody listens there, or a connection has it as its own port\n",
                   second.ip, second.ip);
    expect_run(&second, (const char *const[]){"--workers", "2", second.arg, NULL}, FAILURE, text);
    pair = pair_open(&first, origin);
    pair_exchange(&pair, 1);
    pair_end(&pair);
    peer_close(origin);
    proxy_finish(&first, 1);
}

/* All or nothing: when the second address is taken, the first one is closed again, and the file of
 * a unix socket is gone. Every address that can't be had is named. */
Test(command_line, opens_all_listeners_or_none)
{
    struct proxy proxy;
    char path[64];
    char arguments[3][96];
    char text[512];
    int taken[2];
    int first;

    proxy_init(&proxy);
    unix_path(path, "none");
    (void)snprintf(arguments[0], 96, "%s:7000=127.0.0.1:9", proxy.ip);
    (void)snprintf(arguments[1], 96, "%s:7001=127.0.0.1:9", proxy.ip);
    (void)snprintf(arguments[2], 96, "unix:%s=127.0.0.1:9", path);
    taken[0] = peer_listen(proxy.ip, 7001, 1);
    taken[1] = peer_listen(proxy.ip, PROXY_PORT, 1);
    (void)snprintf(
        text, sizeof(text),
        "sluice: can't listen on \"%s:7001\" (%s:7001): Address already in use: somebody "
        "listens there, or a connection has it as its own port\n"
        "sluice: can't listen on \"%s:8080\" (%s:8080): Address already in use: somebody "
        "listens there, or a connection has it as its own port\n",
        proxy.ip, proxy.ip, proxy.ip, proxy.ip);
    expect_run(&proxy,
               (const char *const[]){arguments[0], arguments[1], arguments[2], proxy.arg, NULL},
               FAILURE, text);
    cr_assert(access(path, F_OK) < 0 && errno == ENOENT, "%s is left behind", path);
    first = peer_listen(proxy.ip, 7000, 1);
    peer_close(first);
    peer_close(taken[0]);
    peer_close(taken[1]);
}

/* An address that no interface has is told as such (192.0.2.0/24 belongs to documentation). */
Test(command_line, refuses_an_address_of_no_interface)
{
    struct proxy proxy;

    if (read_number("/proc/sys/net/ipv4/ip_nonlocal_bind") == 1) {
        cr_skip_test("this machine binds any address");
    }
    proxy_init(&proxy);
    expect_pair(&proxy, "192.0.2.1:8080=127.0.0.1:9", FAILURE,
                "sluice: can't listen on \"192.0.2.1:8080\" (192.0.2.1:8080): Cannot assign "
                "requested address: no interface has this address\n");
}

/* Without the privilege, port 80 is refused with the two ways to get it. Method: as user nobody. */
Test(command_line, says_what_a_low_port_needs)
{
    struct proxy proxy;
    char pair[64];
    char text[256];

    need_root();
    if (read_number("/proc/sys/net/ipv4/ip_unprivileged_port_start") <= 80) {
        cr_skip_test("port 80 needs no privilege here");
    }
    proxy_init(&proxy);
    proxy.in_child = become_nobody;
    (void)snprintf(pair, sizeof(pair), "%s:80=127.0.0.1:9", proxy.ip);
    (void)snprintf(text, sizeof(text),
                   "sluice: can't listen on \"%s:80\" (%s:80): Permission denied: ports below "
                   "net.ipv4.ip_unprivileged_port_start need root or CAP_NET_BIND_SERVICE\n",
                   proxy.ip, proxy.ip);
    expect_pair(&proxy, pair, FAILURE, text);
}

/* --user asks for what only root can do. Started by anybody else, sluice says so and ends, instead
 * of starting workers that die one after the other. */
Test(command_line, refuses_another_user_when_not_started_as_root)
{
    struct proxy proxy;
    int status;

    need_root();
    proxy_init(&proxy);
    proxy.in_child = become_nobody;
    status = proxy_run_to_end(&proxy, (const char *const[]){"--user", "daemon", proxy.arg, NULL});
    cr_assert(status == CONFIGURATION || status == FAILURE, "status %d after:\n%s", status,
              proxy.log);
    cr_assert(strncmp(proxy.log, "sluice: --user: ", 16) == 0, "%s", proxy.log);
    cr_assert(strchr(proxy.log, '\n') == proxy.log + proxy.log_len - 1, "%s", proxy.log);
    forget_log(&proxy);
}

/* --- unix sockets --- */

/* A path whose directory is missing or not writable gives the reason. */
Test(command_line, says_why_a_path_cannot_be_used)
{
    struct proxy proxy;
    char directory[64];
    char pair[128];
    char text[384];

    proxy_init(&proxy);
    expect_pair(&proxy, "unix:/nonexistent/app.sock=127.0.0.1:9", FAILURE,
                "sluice: can't listen on \"unix:/nonexistent/app.sock\" "
                "(unix:/nonexistent/app.sock): No such file or directory: the directory does not "
                "exist\n");
    need_root();
    unix_path(directory, "closed");
    cr_assert(mkdir(directory, 0755) == 0);
    (void)snprintf(pair, sizeof(pair), "unix:%s/app.sock=127.0.0.1:9", directory);
    (void)snprintf(text, sizeof(text),
                   "sluice: can't listen on \"unix:%s/app.sock\" (unix:%s/app.sock): Permission "
                   "denied: the directory must be writable\n",
                   directory, directory);
    proxy.in_child = become_nobody;
    expect_pair(&proxy, pair, FAILURE, text);
    cr_assert(rmdir(directory) == 0);
}

/* SE-07: a file that is no socket stays where it is, with what is in it; so does a symbolic
 * link. */
Test(command_line, leaves_a_file_that_is_not_a_socket_alone)
{
    struct proxy proxy;
    struct stat before;
    struct stat after;
    char path[64];
    char pair[96];
    char text[384];

    proxy_init(&proxy);
    unix_path(path, "file");
    (void)snprintf(pair, sizeof(pair), "unix:%s=127.0.0.1:9", path);
    (void)snprintf(
        text, sizeof(text),
        "sluice: can't listen on \"unix:%s\" (unix:%s): Path is taken: the file there is "
        "not a socket, and is left alone\n",
        path, path);
    for (int link = 0; link < 2; link++) {
        if (link == 1) {
            cr_assert(symlink("/nonexistent", path) == 0);
        } else {
            int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

            cr_assert(fd >= 0 && write(fd, "precious", 8) == 8);
            peer_close(fd);
        }
        cr_assert(lstat(path, &before) == 0);
        expect_pair(&proxy, pair, FAILURE, text);
        cr_assert(lstat(path, &after) == 0);
        cr_assert(before.st_ino == after.st_ino && before.st_size == after.st_size);
        cr_assert(unlink(path) == 0);
    }
}

/* A socket on which somebody listens is refused and goes on working. */
Test(command_line, refuses_a_unix_socket_that_is_alive)
{
    struct proxy proxy;
    char path[64];
    char pair[96];
    char text[384];
    int client;
    int owner;

    proxy_init(&proxy);
    unix_path(path, "alive");
    (void)snprintf(pair, sizeof(pair), "unix:%s=127.0.0.1:9", path);
    (void)snprintf(
        text, sizeof(text),
        "sluice: can't listen on \"unix:%s\" (unix:%s): Address already in use: somebody "
        "listens there already\n",
        path, path);
    owner = peer_listen_unix(path);
    expect_pair(&proxy, pair, FAILURE, text);
    client = peer_connect_unix(path);
    peer_close(client);
    peer_close(owner);
    cr_assert(unlink(path) == 0);
}

/* A socket file that nobody listens behind any more, as a crash leaves it, is taken over; and
 * removed at the end. */
Test(command_line, takes_over_a_stale_unix_socket)
{
    struct proxy proxy;
    char path[64];
    char pair[128];
    int origin;
    int client;
    int server;

    proxy_init(&proxy);
    unix_path(path, "stale");
    (void)snprintf(pair, sizeof(pair), "unix:%s=%s:%d", path, proxy.ip, ORIGIN_PORT);
    peer_close(peer_listen_unix(path));
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    proxy_start(&proxy, (const char *const[]){pair, NULL});
    client = peer_connect_unix(path);
    server = peer_accept(origin);
    peer_send(client, 1, 0, 1000);
    peer_expect(server, 1, 0, 1000);
    peer_shut(client);
    peer_expect_end(server, PEER_FIN);
    peer_close(client);
    peer_close(server);
    peer_close(origin);
    proxy_finish(&proxy, 1);
    cr_assert(access(path, F_OK) < 0 && errno == ENOENT, "%s is left behind", path);
}
