/* One row per reason: its text and the manner of ending it stands for. */
#include "base/reason.h"

#include "base/check.h"
#include "base/macros.h"

#include <assert.h>

static const struct {
    const char *text;
    enum how how;
} reasons[] = {
    [REASON_CLIENT_FIN] = {"client-fin", HOW_FIN},
    [REASON_SERVER_FIN] = {"server-fin", HOW_FIN},
    [REASON_CLIENT_RESET] = {"client-reset", HOW_RST},
    [REASON_SERVER_RESET] = {"server-reset", HOW_RST},
    [REASON_CLIENT_ABORT] = {"client-abort", HOW_RST},
    [REASON_CONNECT_REFUSED] = {"connect-refused", HOW_ERROR},
    [REASON_CONNECT_TIMEOUT] = {"connect-timeout", HOW_TIMEOUT},
    [REASON_CONNECT_UNREACHABLE] = {"connect-unreachable", HOW_ERROR},
    [REASON_NO_SERVER] = {"no-server", HOW_ERROR},
    [REASON_NO_PORT] = {"no-port", HOW_ERROR},
    [REASON_IDLE_TIMEOUT] = {"idle-timeout", HOW_TIMEOUT},
    [REASON_FIN_TIMEOUT] = {"fin-timeout", HOW_TIMEOUT},
    [REASON_PEER_TIMEOUT] = {"peer-timeout", HOW_TIMEOUT},
    [REASON_DENIED] = {"denied", HOW_ERROR},
    [REASON_LIMIT] = {"limit", HOW_ERROR},
    [REASON_DRAIN] = {"drain", HOW_ADMIN},
    [REASON_ADMIN] = {"admin", HOW_ADMIN},
    [REASON_PROXY_HEADER] = {"proxy-header", HOW_ERROR},
    [REASON_INTERNAL] = {"internal", HOW_ERROR},
};
static_assert(ARRAY_LEN(reasons) == REASON_COUNT, "every reason has a row");

const char *reason_text(enum reason reason)
{
    CHECK(reason < REASON_COUNT);
    return reasons[reason].text;
}

enum how reason_how(enum reason reason)
{
    CHECK(reason < REASON_COUNT);
    return reasons[reason].how;
}

const char *closed_by_text(enum closed_by closed_by)
{
    static const char *const texts[] = {
        [CLOSED_BY_CLIENT] = "client",
        [CLOSED_BY_SERVER] = "server",
        [CLOSED_BY_PROXY] = "proxy",
    };
    static_assert(ARRAY_LEN(texts) == CLOSED_BY_COUNT, "every party has a text");

    CHECK(closed_by < CLOSED_BY_COUNT);
    return texts[closed_by];
}

const char *how_text(enum how how)
{
    static const char *const texts[] = {
        [HOW_FIN] = "fin",     [HOW_RST] = "rst",     [HOW_TIMEOUT] = "timeout",
        [HOW_ERROR] = "error", [HOW_ADMIN] = "admin",
    };
    static_assert(ARRAY_LEN(texts) == HOW_COUNT, "every manner has a text");

    CHECK(how < HOW_COUNT);
    return texts[how];
}
