/*
 * load_options: what load is told to do.
 *
 * Each mode has its own few options. One table says which letters a mode knows and which it cannot
 * do without; the rest is one getopt_long loop. An option of another mode is refused, not ignored:
 * a run that silently does something else than was meant is the worst result a benchmark can have.
 */
#include "load_options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    const char *needs; /* values of `known` below */
    const char *allows;
} modes[LOAD_MODES] = {
    [LOAD_BULK] = {"bulk", "dct", "dct"},
    [LOAD_PINGPONG] = {"pingpong", "crt", "crtb"},
    [LOAD_IDLE] = {"idle", "c", "cs"},
    [LOAD_CHURN] = {"churn", "ct", "ctb"},
};

static const struct option known[] = {{"direction", required_argument, NULL, 'd'},
                                      {"connections", required_argument, NULL, 'c'},
                                      {"rate", required_argument, NULL, 'r'},
                                      {"seconds", required_argument, NULL, 't'},
                                      {"bytes", required_argument, NULL, 'b'},
                                      {"sources", required_argument, NULL, 's'},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static const char *const directions[] = {
    [LOAD_UP] = "up", [LOAD_DOWN] = "down", [LOAD_BOTH] = "both"};

const char *load_direction_name(enum load_direction direction)
{
    return directions[direction];
}

static void usage(FILE *to)
{
    fputs(
        "Usage: load bulk --direction up|down|both --connections N --seconds S ADDR:PORT\n"
        "       load pingpong --connections N --rate R --seconds S [--bytes B] ADDR:PORT\n"
        "       load idle --connections N [--sources M] ADDR:PORT[,ADDR:PORT...]\n"
        "       load churn --connections N --seconds S [--bytes B] ADDR:PORT\n"
        "A load for TCP forwarders and servers, in front of origin's raw services. Prints one JSON\n"
        "object a line; exit status 0, 1 if connections failed, 2 for wrong usage.\n"
        "\n"
        "  bulk       streams bytes: up to a sink, down from a source, both with a source\n"
        "  pingpong   R messages a second in all, by a timetable, to an echo; latency since due\n"
        "  idle       holds N connections to an echo; obeys 'ping' and 'quit' on stdin\n"
        "  churn      N at a time: connect, one message to an echo and back, end; again\n"
        "\n"
        "  --bytes B    of a message, 1 to 65536 (default 64)\n"
        "  --rate R     messages a second, 1 to 1000000\n"
        "  --seconds S  as the connections stand; may have a fraction\n"
        "  --sources M  connect from 127.0.0.2 and the next ones in turn, 1 to 253\n"
        "  --help       this text\n"
        "\n"
        "ADDR is an IPv4 address or an IPv6 address in brackets. TERM and INT end a run early.\n",
        to);
}

static bool number_parse(const char *option, const char *text, uint32_t max, uint32_t *ret_number)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || number < 1 || number > max) {
        fprintf(stderr, "load: --%s takes 1 to %u, not '%s'\n", option, max, text);
        return false;
    }
    *ret_number = (uint32_t)number;
    return true;
}

static bool seconds_parse(const char *text, int64_t *ret_duration_ns)
{
    char *end;
    double seconds = strtod(text, &end);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' ||
        !(seconds >= 0.001 && seconds <= LOAD_SECONDS_MAX)) {
        fprintf(stderr, "load: --seconds takes 0.001 to %d, not '%s'\n", LOAD_SECONDS_MAX, text);
        return false;
    }
    *ret_duration_ns = (int64_t)(seconds * 1e9);
    return true;
}

static bool direction_parse(const char *text, enum load_direction *ret_direction)
{
    for (int i = LOAD_UP; i <= LOAD_BOTH; i++) {
        if (strcmp(text, directions[i]) == 0) {
            *ret_direction = (enum load_direction)i;
            return true;
        }
    }
    fprintf(stderr, "load: --direction takes up, down or both, not '%s'\n", text);
    return false;
}

static bool value_parse(int letter, const char *text, struct load_options *options)
{
    switch (letter) {
    case 'd':
        return direction_parse(text, &options->direction);
    case 'c':
        return number_parse("connections", text, LOAD_CONNECTIONS_MAX, &options->connections);
    case 'r':
        return number_parse("rate", text, LOAD_RATE_MAX, &options->rate);
    case 't':
        return seconds_parse(text, &options->duration_ns);
    case 'b':
        return number_parse("bytes", text, LOAD_BYTES_MAX, &options->bytes);
    default:
        return number_parse("sources", text, LOAD_SOURCES_MAX, &options->targets.sources);
    }
}

static bool mode_parse(const char *text, enum load_mode *ret_mode)
{
    for (int i = 0; i < LOAD_MODES; i++) {
        if (text != NULL && strcmp(text, modes[i].name) == 0) {
            *ret_mode = (enum load_mode)i;
            return true;
        }
    }
    fprintf(stderr, "load: the first argument is bulk, pingpong, idle or churn, not '%s'\n",
            text != NULL ? text : "");
    return false;
}

/* Complains about an option that is not there or is of another mode. */
static bool options_fit(enum load_mode mode, const bool *given)
{
    for (const struct option *option = known; option->name != NULL; option++) {
        bool needed = strchr(modes[mode].needs, option->val) != NULL;
        bool allowed = strchr(modes[mode].allows, option->val) != NULL;
        if (given[option->val] ? !allowed : needed) {
            fprintf(stderr, "load: %s %s --%s\n", modes[mode].name,
                    needed ? "needs" : "does not take", option->name);
            return false;
        }
    }
    return true;
}

static bool targets_fit(enum load_mode mode, int argc, char **argv, struct load_targets *targets)
{
    if (optind + 1 != argc) {
        fprintf(stderr, "load: %s takes one address, not %d\n", modes[mode].name, argc - optind);
        return false;
    }
    if (!load_targets_parse(argv[optind], targets) || (mode != LOAD_IDLE && targets->count > 1)) {
        fprintf(stderr, "load: %s takes ADDR:PORT or [V6]:PORT%s, not '%s'\n", modes[mode].name,
                mode == LOAD_IDLE ? ", up to 64 with commas between" : "", argv[optind]);
        return false;
    }
    for (uint32_t i = 0; i < targets->count; i++) {
        if (targets->sources > 0 && targets->list[i].address.any.sa_family != AF_INET) {
            fprintf(stderr, "load: --sources are IPv4, so the address cannot be '%s'\n",
                    targets->list[i].text);
            return false;
        }
    }
    return true;
}

int load_options_parse(int argc, char **argv, struct load_options *ret_options)
{
    bool given[128] = {false};
    bool right = true;
    int letter;

    *ret_options = (struct load_options){.bytes = 64};
    while (right && (letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (letter == 'h') {
            usage(stdout);
            return 1;
        }
        right = letter != '?' && value_parse(letter, optarg, ret_options);
        given[letter] = true;
    }
    right = right && mode_parse(argv[optind], &ret_options->mode);
    if (right) {
        optind++;
        right = options_fit(ret_options->mode, given) &&
                targets_fit(ret_options->mode, argc, argv, &ret_options->targets);
    }
    if (!right) {
        fputs("Try: load --help\n", stderr);
        return 3;
    }
    return 0;
}
