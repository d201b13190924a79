/* The close matrix: its axes, and which of their combinations can be.
 *
 * A cell says who ends a connection first, how, at which moment, what the other peer does, where
 * bytes are at that moment, how sluice moves them, and over which sockets. Its name joins the seven
 * values: client:rst:mid-up:paused:pipe:splice:v6. */
#ifndef MATRIX_CELL_H
#define MATRIX_CELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum axis { FIRST, KIND, MOMENT, SINK, RESIDUE, ENGINE, FAMILY, AXES };

/** FIRST: who ends first, "the closer". Also the sides of a connection everywhere in this suite. */
enum side { CLIENT, SERVER, SIDES };
/** KIND: how the closer ends. */
enum kind {
    KIND_FIN,           /* half-closes, and goes on reading */
    KIND_RST,           /* close(2) with SO_LINGER {1, 0} */
    KIND_RST_AFTER_FIN, /* half-closes, then resets */
    KIND_KILL,          /* its process is killed, everything read: the kernel sends FIN */
    KIND_KILL_UNREAD,   /* its process is killed, something unread: the kernel sends RST */
    KINDS
};
/** MOMENT: which way bytes move when it ends. */
enum moment { MOMENT_CONNECT, MOMENT_IDLE, MOMENT_UP, MOMENT_DOWN, MOMENT_BOTH, MOMENTS };
/** SINK: the other peer reads all the time, begins some time after the end, or never does. */
enum sink { SINK_READING, SINK_PAUSED, SINK_NEVER, SINKS };
/** RESIDUE: what sluice itself holds of each moving direction. */
enum residue { RESIDUE_EMPTY, RESIDUE_PIPE, RESIDUE_BUFFER, RESIDUES };
/** ENGINE: --splice never, always, or auto with a direction that has changed from copy to splice
 *  before the end (or will, where nothing has moved yet). */
enum engine { ENGINE_COPY, ENGINE_SPLICE, ENGINE_SWITCH, ENGINES };
/** FAMILY: of the client's leg and of the server's. */
enum family { FAMILY_V4, FAMILY_V6, FAMILY_UNIX, FAMILY_V4_UNIX, FAMILY_UNIX_V4, FAMILIES };

struct cell {
    int at[AXES];
};

enum {
    CELLS = SIDES * KINDS * MOMENTS * SINKS * RESIDUES * ENGINES * FAMILIES,
    CELL_NAME_MAX = 96
};

/** The index-th cell, in the order of seven nested loops. */
struct cell cell_at(size_t index);
/** Its name; the buffer is static and good until the eighth call after this one. */
const char *cell_name(const struct cell *cell);
/** False if this is no name of a cell; then *ret_problem says which part is not, and what could be. */
bool cell_parse(const char *name, struct cell *ret_cell, const char **ret_problem);
/** The number of values of an axis. */
int axis_size(enum axis axis);

enum { REASONS = 9 };
/** Why the cell can't be: a bit for each reason that applies, 0 if the cell is feasible. */
unsigned cell_obstacles(const struct cell *cell);
const char *obstacle_text(unsigned index);
/** The axes that the reason speaks of, a bit each: whether it applies depends on nothing else. */
unsigned obstacle_axes(unsigned index);

/** Whether bytes move from that side at the moment of the end, and whether sluice holds some. */
bool cell_moves(const struct cell *cell, enum side from);
bool cell_is_held(const struct cell *cell, enum side from);
/** The leg of that side is a unix socket. */
bool cell_is_unix(const struct cell *cell, enum side side);
enum side other_side(enum side side);

#endif
