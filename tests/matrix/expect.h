/* What the contract says a cell must look like from outside: to both peers, and in the record. */
#ifndef MATRIX_EXPECT_H
#define MATRIX_EXPECT_H

#include "matrix/cell.h"

/** How a stream ended for the one who reads it. */
enum view {
    VIEW_NONE,      /* there is nobody, or nobody looks */
    VIEW_FIN,       /* FIN behind the last byte, and nothing after it */
    VIEW_RESET,     /* a reset, no FIN */
    VIEW_FIN_RESET, /* FIN behind the last byte, later a reset */
    VIEWS
};
const char *view_name(enum view view);

struct expected {
    const char *reason; /* as in the close record */
    const char *closed_by;
    const char *how;
    const char *error; /* NULL: none */
    enum view closer;
    enum view other;
    bool stuck; /* what the closer sent last is never taken: the other peer gets a part */
};
struct expected expect_cell(const struct cell *cell);

/** The other peer answers and half-closes once it has seen FIN. */
bool cell_is_clean(const struct cell *cell);

/** Which settings a cell needs to end by itself, and whether its server is met late. */
enum plan {
    PLAN_PATIENT,       /* ends without any time-out */
    PLAN_FIN_LIMIT,     /* fin-timeout is short */
    PLAN_IDLE_LIMIT,    /* idle-timeout is short */
    PLAN_LATE,          /* the first three again, for connections that wait for their server */
    PLAN_LATE_FIN,      /* fin-timeout is short */
    PLAN_CONNECT_LIMIT, /* connect-timeout is short */
    PLANS
};
enum plan cell_plan(const struct cell *cell);

#endif
