/* sluice: a TCP forwarder and layer-4 load balancer for Linux.
 *
 * This file is only the order of things: read the command line, make the plan, hand over to the
 * master. Read next: proc/master.c (processes), or relay/flow.c (where the bytes move). */
#include "conf/options.h"
#include "proc/exits.h"
#include "proc/master.h"
#include "proc/plan.h"
#include "proc/translate.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define SLUICE_VERSION "0.1.0"

static void print_version(void)
{
    (void)printf("sluice %s (%s, %s)\n", SLUICE_VERSION,
#ifdef SLUICE_DEBUG
                 "debug",
#else
                 "release",
#endif
#ifdef __clang__
                 "built with " __VERSION__); /* clang's has its name in it */
#else
                 "built with gcc " __VERSION__);
#endif
}

static int run(const struct options *options)
{
    struct identity ignored;
    struct plan plan;
    int user_status = translate_user(&options->config.settings, &ignored, stderr);
    int status = plan_make(&options->config, &plan, stderr);

    if (status == EXIT_STATUS_OK) {
        status = user_status;
    }
    if (status == EXIT_STATUS_OK) {
        if (options->action == OPTIONS_PRINT) {
            config_print(&options->config, stdout);
        } else if (options->action == OPTIONS_RUN) {
            status = master_run(&options->config, &plan);
        }
    }
    plan_fini(&plan);
    return status;
}

/* A process started with one of its standard descriptors closed would open a socket in its place, and
 * write its log into it. */
static void keep_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        (void)close(fd);
    }
}

int main(int argc, char *argv[])
{
    struct options options;
    int status;

    keep_standard_descriptors();
    if (options_parse(argc, argv, &options, stderr) > 0) {
        status = EXIT_STATUS_USAGE;
    } else if (options.action == OPTIONS_HELP) {
        options_help(stdout);
        status = EXIT_STATUS_OK;
    } else if (options.action == OPTIONS_VERSION) {
        print_version();
        status = EXIT_STATUS_OK;
    } else {
        status = run(&options);
    }
    options_fini(&options);
    return status;
}
