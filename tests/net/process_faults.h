/* Fails one system call of the process path, and says what became of sluice. See process_faults.c. */
#ifndef NET_PROCESS_FAULTS_H
#define NET_PROCESS_FAULTS_H

#include "support/inject.h"

#include <stdbool.h>
#include <stddef.h>

/** When the fault is armed; before and after, every call is made. */
enum phase { PHASE_START, PHASE_RESPAWN, PHASE_STOP, PHASES };

/** What became of it. Anything else fails the test. */
enum outcome {
    OUTCOME_REFUSED, /* status 1 or 78, said why, left nothing */
    OUTCOME_SERVED,  /* served through both listeners, ended with status 0, left nothing */
    OUTCOMES
};

enum { ERRORS_MAX = 6 };

/** The beginning of a row. */
#define CALL(call_name, processes, ...)                                                            \
    .name = #call_name, .call = SYS_##call_name, .whose = (processes), .errors = {__VA_ARGS__}

struct fault_row {
    const char *name;
    int call;
    int errors[ERRORS_MAX]; /* ends with 0 */
    enum inject_whose whose;
    const char
        *says[ERRORS_MAX]; /* of a refusal: its text instead of strerror(error); NULL: that */
    bool refuses;          /* sluice must not serve without it */
    bool is_lossy;         /* log lines may be lost, and are counted if sluice can know */
    bool is_sanitizers; /* AddressSanitizer makes such calls itself, and dies: not in its builds */
    bool leaves_file;   /* it is the removing that fails */
};

/** Runs each row with each error for N = 1, 2 ... until the N-th call is never made, and prints what
 *  came out. Fails the test if a row's call was never met. */
void run_fault_rows(enum phase phase, const struct fault_row rows[], size_t count);

/** A fault that lasts: each of its calls fails from the N-th on. */
struct lasting_fault {
    struct inject_fault fault;
    const char *says; /* what the log must hold, beside the text of the error */
};

void expect_refusal_of_lasting(const struct lasting_fault *lasting);
/** Started twice: stopped while the fault lasts, and after it is over and both workers serve. */
void expect_survival_of_lasting(const struct lasting_fault *lasting);

#endif
