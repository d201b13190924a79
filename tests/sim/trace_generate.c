/* Traces from seeds. What a word may be followed by is kept in a few facts; left out is only what
 * no kernel promises an answer for (how much a full buffer takes) or what sluice cannot do. */
#include "sim/trace.h"

#include "base/check.h"
#include "base/macros.h"
#include "support/stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct writing {
    uint64_t random;
    char *trace;
    size_t size;
    size_t len;
    unsigned peer_sends; /* each may take a slot of the pipe */
    bool one_slot;
    bool peer_fin;
    bool peer_gone;
    bool we_shut;
    bool we_closed;
    bool filled;
    bool added;
};

static uint64_t below(struct writing *w, uint64_t bound)
{
    return random_below(&w->random, bound);
}

static void put(struct writing *w, const char *format, ...) PRINTF_LIKE(2, 3);

static void put(struct writing *w, const char *format, ...)
{
    va_list values;
    int len;

    va_start(values, format);
    len = vsnprintf(w->trace + w->len, w->size - w->len, format, values);
    va_end(values);
    CHECK(len > 0);
    CHECK((size_t)len < w->size - w->len);
    w->len += (size_t)len;
}

static void put_beginning(struct writing *w)
{
    static const char *const beginnings[] = {"connect",
                                             "connect",
                                             "arrive accept",
                                             "socket connect",
                                             "addl arrive wait arrive wait accept wait accept wait",
                                             "refused"};
    uint64_t which = below(w, ARRAY_LEN(beginnings));

    w->one_slot = below(w, 4) == 0;
    if (w->one_slot) {
        put(w, "slots:%d ", 1 << below(w, 3));
    }
    if (which == 2 && below(w, 2) == 0) {
        put(w, "arrive psend:%d %saccept", 1 + (int)below(w, 100), below(w, 3) == 0 ? "pfin " : "");
        w->peer_fin = strstr(w->trace, "pfin") != NULL;
    } else if (which == 3 && below(w, 2) == 0) {
        put(w, "socket add connect");
        w->added = true;
    } else {
        put(w, "%s", beginnings[which]);
        w->peer_gone = which == 5;
    }
}

static size_t size_of(struct writing *w)
{
    return 1 + (size_t)below(w, below(w, 2) == 0 ? 8 : 600);
}

/* True if a word of the peer's was written. */
static bool put_peer(struct writing *w)
{
    switch (below(w, 10)) {
    case 0:
    case 1:
    case 2:
    case 3:
        if (w->peer_fin || w->peer_sends == 8) {
            return false;
        }
        w->peer_sends++;
        if (below(w, 10) == 0) {
            put(w, " purge");
        } else {
            put(w, " psend:%zu", size_of(w));
        }
        return true;
    case 4:
    case 5:
        put(w, " ptake");
        w->filled = false;
        return true;
    case 6:
    case 7:
        if (w->peer_fin) {
            return false;
        }
        w->peer_fin = true;
        put(w, " pfin");
        return true;
    case 8:
        w->peer_gone = true;
        put(w, " preset");
        return true;
    default:
        w->peer_gone = true;
        put(w, " pclose");
        return true;
    }
}

static bool put_ours(struct writing *w)
{
    static const char *const questions[] = {"error", "unacked", "readable", "look", "held"};

    switch (below(w, 13)) {
    case 0:
    case 1:
        put(w, " recv:%zu", size_of(w));
        return true;
    case 2:
    case 3:
        put(w, " send:%zu", size_of(w));
        return true;
    case 4:
    case 5:
        put(w, " in:%zu", w->one_slot ? 1 : size_of(w));
        return true;
    case 6:
        put(w, " out:%zu", size_of(w));
        return true;
    case 7:
        put(w, " read:%zu", size_of(w));
        return true;
    case 8:
    case 9:
        if (w->we_shut) {
            return false;
        }
        w->we_shut = true;
        put(w, " shut");
        return true;
    case 10:
        if (w->filled || below(w, 3) != 0) {
            return false;
        }
        w->filled = true;
        put(w, " fill");
        return true;
    case 11:
        if (below(w, 4) != 0) {
            return false;
        }
        w->we_closed = true;
        put(w, "%s close ptake", below(w, 2) == 0 ? " linger:0" : "");
        return true;
    default:
        put(w, " %s", questions[below(w, ARRAY_LEN(questions))]);
        return true;
    }
}

void trace_generate(uint64_t seed, char *trace, size_t size)
{
    struct writing w = {
        .random = seed * UINT64_C(0x9e3779b97f4a7c15), .trace = trace, .size = size};
    unsigned words = 4 + (unsigned)below(&w, 32);

    put_beginning(&w);
    while (words > 0 && !w.we_closed) {
        if (!w.added && below(&w, 2) == 0) {
            w.added = true;
            put(&w, " add");
        } else if (below(&w, 3) == 0) {
            put(&w, " wait");
        } else if (!(below(&w, 2) == 0 && !w.peer_gone ? put_peer(&w) : put_ours(&w))) {
            continue;
        }
        words--;
    }
}
