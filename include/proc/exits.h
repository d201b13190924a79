/* Layer: proc. Exit statuses, the same for every process of sluice (sysexits.h names the last). */
#ifndef PROC_EXITS_H
#define PROC_EXITS_H

enum exit_status {
    EXIT_STATUS_OK = 0,
    EXIT_STATUS_FAILURE = 1, /* at run time: a port is taken, a limit is met */
    EXIT_STATUS_USAGE = 2,   /* the command line is wrong */
    EXIT_STATUS_CONFIG = 78  /* what it asks for can't be right: starting again will not help */
};

#endif
