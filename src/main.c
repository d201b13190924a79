/* sluice: a TCP forwarder and layer-4 load balancer for Linux.
 *
 * This file is only the order of things: read the command line, make the plan, hand over to the
 * master. Read next: proc/master.c (processes), or relay/flow.c (where the bytes move). */
#include "conf/options.h"
#include "proc/exits.h"
#include "proc/master.h"
#include "proc/plan.h"

#include <stdio.h>

#define SLUICE_VERSION "0.1.0"

static void print_version(void)
{
    (void)printf("sluice %s (%s, %s)\n", SLUICE_VERSION,
#ifdef SLUICE_DEBUG
                 "debug",
#else
                 "release",
#endif
                 "built with " __VERSION__);
}

static int run(const struct options *options)
{
    struct plan plan;
    int status = plan_make(&options->config, &plan, stderr);

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

int main(int argc, char *argv[])
{
    struct options options;
    int status;

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
