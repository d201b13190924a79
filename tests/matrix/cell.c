/* The axes as tables, and the obstacles: each a text, the axes it speaks of, and a predicate.
 *
 * An obstacle must follow from what the words of the axes mean, or from what the kernel does; never
 * from what sluice does, for that is what the cells are there to find out. */
#include "matrix/cell.h"

#include <stdio.h>
#include <string.h>

enum { VALUES_MAX = 5 };

static const struct {
    const char *name;
    const char *values[VALUES_MAX + 1];
} axes[AXES] = {
    [FIRST] = {"first closer", {"client", "server"}},
    [KIND] = {"kind", {"fin", "rst", "rst-after-fin", "kill", "kill-unread"}},
    [MOMENT] = {"moment", {"connect", "idle", "mid-up", "mid-down", "mid-both"}},
    [SINK] = {"sink", {"reading", "paused", "never"}},
    [RESIDUE] = {"residue", {"empty", "pipe", "buffer"}},
    [ENGINE] = {"engine", {"copy", "splice", "switch"}},
    [FAMILY] = {"family", {"v4", "v6", "unix", "v4-unix", "unix-v4"}},
};

int axis_size(enum axis axis)
{
    int size = 0;

    while (axes[axis].values[size] != NULL) {
        size++;
    }
    return size;
}

struct cell cell_at(size_t index)
{
    struct cell cell;

    for (int axis = AXES - 1; axis >= 0; axis--) {
        size_t size = (size_t)axis_size((enum axis)axis);

        cell.at[axis] = (int)(index % size);
        index /= size;
    }
    return cell;
}

const char *cell_name(const struct cell *cell)
{
    static char names[8][CELL_NAME_MAX];
    static unsigned next;
    char *name = names[next++ % 8];
    size_t len = 0;

    for (int axis = 0; axis < AXES; axis++) {
        len += (size_t)snprintf(name + len, CELL_NAME_MAX - len, "%s%s", axis > 0 ? ":" : "",
                                axes[axis].values[cell->at[axis]]);
    }
    return name;
}

static const char *describe_problem(enum axis axis, const char *found, size_t len)
{
    static char text[256];
    size_t used = (size_t)snprintf(text, sizeof(text), "%s: found \"%.*s\", expected one of",
                                   axes[axis].name, (int)len, found);

    for (int value = 0; axes[axis].values[value] != NULL && used < sizeof(text); value++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, " %s", axes[axis].values[value]);
    }
    return text;
}

bool cell_parse(const char *name, struct cell *ret_cell, const char **ret_problem)
{
    for (int axis = 0; axis < AXES; axis++) {
        size_t len = strcspn(name, ":");
        int value = 0;

        while (axes[axis].values[value] != NULL && (strlen(axes[axis].values[value]) != len ||
                                                    memcmp(axes[axis].values[value], name, len))) {
            value++;
        }
        if (axes[axis].values[value] == NULL) {
            *ret_problem = describe_problem((enum axis)axis, name, len);
            return false;
        }
        ret_cell->at[axis] = value;
        name += len;
        if ((*name == ':') != (axis + 1 < AXES)) {
            *ret_problem = "expected seven values with colons between them";
            return false;
        }
        name += *name == ':';
    }
    return true;
}

enum side other_side(enum side side)
{
    return side == CLIENT ? SERVER : CLIENT;
}

bool cell_moves(const struct cell *cell, enum side from)
{
    return cell->at[MOMENT] == MOMENT_BOTH ||
           cell->at[MOMENT] == (from == CLIENT ? MOMENT_UP : MOMENT_DOWN);
}

bool cell_is_held(const struct cell *cell, enum side from)
{
    return cell->at[RESIDUE] != RESIDUE_EMPTY && cell_moves(cell, from);
}

bool cell_is_unix(const struct cell *cell, enum side side)
{
    int family = cell->at[FAMILY];

    return family == FAMILY_UNIX || family == (side == CLIENT ? FAMILY_UNIX_V4 : FAMILY_V4_UNIX);
}

/* --- obstacles --- */

static enum side closer(const struct cell *cell)
{
    return (enum side)cell->at[FIRST];
}

static bool sends_reset(const struct cell *cell)
{
    return cell->at[KIND] == KIND_RST || cell->at[KIND] == KIND_RST_AFTER_FIN;
}

static bool nothing_moves(const struct cell *cell)
{
    return cell->at[RESIDUE] != RESIDUE_EMPTY && cell->at[MOMENT] == MOMENT_IDLE;
}

static bool nothing_was_read(const struct cell *cell)
{
    return cell->at[RESIDUE] != RESIDUE_EMPTY && cell->at[MOMENT] == MOMENT_CONNECT;
}

static bool no_pipe(const struct cell *cell)
{
    return cell->at[RESIDUE] == RESIDUE_PIPE && cell->at[ENGINE] == ENGINE_COPY;
}

static bool no_buffer(const struct cell *cell)
{
    return cell->at[RESIDUE] == RESIDUE_BUFFER && cell->at[ENGINE] == ENGINE_SPLICE;
}

static bool sink_takes_all(const struct cell *cell)
{
    return cell->at[SINK] == SINK_READING && cell_is_held(cell, closer(cell));
}

static bool unread_after_all(const struct cell *cell)
{
    return cell->at[KIND] == KIND_KILL && cell_is_held(cell, other_side(closer(cell)));
}

static bool nothing_to_leave_unread(const struct cell *cell)
{
    return cell->at[KIND] == KIND_KILL_UNREAD && cell->at[MOMENT] == MOMENT_CONNECT;
}

static bool no_reset_on_unix(const struct cell *cell)
{
    return sends_reset(cell) && cell_is_unix(cell, closer(cell));
}

static bool no_such_server(const struct cell *cell)
{
    if (cell->at[MOMENT] != MOMENT_CONNECT) {
        return false;
    }
    if (closer(cell) == SERVER) {
        return cell_is_unix(cell, SERVER); /* connect(2) on a unix socket is done at once */
    }
    return sends_reset(cell) && cell->at[SINK] != SINK_NEVER; /* the attempt is given up */
}

#define BIT(axis) (1U << (axis))

static const struct {
    const char *text;
    unsigned axes;
    bool (*applies)(const struct cell *cell);
} obstacles[REASONS] = {
    {"an idle connection has nothing in its channels", BIT(RESIDUE) | BIT(MOMENT), nothing_moves},
    {"nothing is read from the client before the server is connected", BIT(RESIDUE) | BIT(MOMENT),
     nothing_was_read},
    {"copying uses no pipe", BIT(RESIDUE) | BIT(ENGINE), no_pipe},
    {"splice always uses no copy buffer", BIT(RESIDUE) | BIT(ENGINE), no_buffer},
    {"a channel holds bytes only while its receiver does not read",
     BIT(SINK) | BIT(RESIDUE) | BIT(MOMENT) | BIT(FIRST), sink_takes_all},
    {"a process killed while bytes wait for it leaves them unread: that is kill-unread",
     BIT(KIND) | BIT(RESIDUE) | BIT(MOMENT) | BIT(FIRST), unread_after_all},
    {"before the connect nothing has come that could be left unread", BIT(KIND) | BIT(MOMENT),
     nothing_to_leave_unread},
    {"unix sockets have no RST: closing with unread bytes is nearest, and that is kill-unread",
     BIT(KIND) | BIT(FAMILY) | BIT(FIRST), no_reset_on_unix},
    {"that server is never met: the client has given up, or a unix connect is done at once",
     BIT(MOMENT) | BIT(FIRST) | BIT(FAMILY) | BIT(KIND) | BIT(SINK), no_such_server},
};

unsigned cell_obstacles(const struct cell *cell)
{
    unsigned found = 0;

    for (unsigned i = 0; i < REASONS; i++) {
        if (obstacles[i].applies(cell)) {
            found |= 1U << i;
        }
    }
    return found;
}

const char *obstacle_text(unsigned index)
{
    return obstacles[index].text;
}

unsigned obstacle_axes(unsigned index)
{
    return obstacles[index].axes;
}
