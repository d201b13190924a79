/* The scenarios: every path a byte, a connection or an end takes through the relay, small enough
 * to be played some thousand times. Lengths are such that copying fills buffers (64 KiB),
 * splicing fills pipes (64 KiB here), and a reader that stalls makes everything behind it fill
 * up. */
#include "base/macros.h"
#include "unit/sweep/scenario.h"

#include <errno.h>

enum { MUCH = 700000 }; /* more than a unix socket, a pipe and a buffer hold */

#define FINS (REASON_BIT(REASON_CLIENT_FIN) | REASON_BIT(REASON_SERVER_FIN))

/* Plans that several scenarios share: how much, when it begins to send, reads, and shuts. */
#define PLAN(bytes, begin, read, shut)                                                             \
    {                                                                                              \
        .sends = (bytes), .begins = (begin), .reads = (read), .shuts = (shut)                      \
    }
#define REQUEST PLAN(3000, AT_ONCE, AT_ONCE, WHEN_SENT)
#define ANSWER  PLAN(70000, WHEN_END_SEEN, AT_ONCE, WHEN_SENT)
#define HELLO   PLAN(2000, AT_ONCE, AT_ONCE, WHEN_SENT)
#define BULK    PLAN(150000, AT_ONCE, AT_ONCE, WHEN_SENT)
#define TINY    PLAN(10, AT_ONCE, AT_ONCE, WHEN_SENT)
#define ECHO    PLAN(10, WHEN_END_SEEN, AT_ONCE, WHEN_SENT)
#define FLOOD   PLAN(MUCH, AT_ONCE, AT_ONCE, WHEN_SENT)
#define STALLED PLAN(10, WHEN_END_SEEN, WHEN_OTHER_STUCK, WHEN_SENT)

const struct scenario scenarios[] = {
    /* Half-close, in both orders. */
    {
        .name = "request-copy",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = REQUEST,
        .server = ANSWER,
        .reasons = FINS,
    },
    {
        .name = "request-splice",
        .splice = SPLICE_ALWAYS,
        .servers = {TCP_SERVER},
        .client = REQUEST,
        .server = ANSWER,
        .reasons = FINS,
    },
    {
        .name = "request-auto",
        .splice = SPLICE_AUTO,
        .servers = {TCP_SERVER},
        .client = REQUEST,
        .server = ANSWER,
        .reasons = FINS,
    },
    {
        .name = "greeting-copy",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = ANSWER,
        .server = HELLO,
        .reasons = FINS,
    },
    {
        .name = "greeting-splice",
        .splice = SPLICE_ALWAYS,
        .servers = {TCP_SERVER},
        .client = ANSWER,
        .server = HELLO,
        .reasons = FINS,
    },

    /* Bulk. */
    {
        .name = "bulk-copy",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = BULK,
        .server = BULK,
        .reasons = FINS,
    },
    {
        .name = "bulk-splice",
        .splice = SPLICE_ALWAYS,
        .servers = {TCP_SERVER},
        .client = BULK,
        .server = BULK,
        .reasons = FINS,
    },
    {
        .name = "bulk-auto-unix",
        .splice = SPLICE_AUTO,
        .servers = {UNIX_SERVER},
        .client = BULK,
        .server = BULK,
        .reasons = FINS,
        .unix_front = true,
    },
    {
        .name = "bulk-unspliceable",
        .splice = SPLICE_ALWAYS,
        .servers = {TCP_SERVER},
        .client = BULK,
        .server = BULK,
        .reasons = FINS,
        .bases = {{CALL_SPLICE_OUT, EINVAL, 2, AT_ONCE}},
    },
    {
        .name = "bulk-small-pipes",
        .splice = SPLICE_ALWAYS,
        .servers = {TCP_SERVER},
        .client = BULK,
        .server = BULK,
        .reasons = FINS,
        .bases = {{CALL_PIPE_RESIZE, EPERM, 1, AT_ONCE}},
    },

    {
        .name = "upload-small-pipes",
        .splice = SPLICE_AUTO,
        .servers = {TCP_SERVER},
        .client = PLAN(200000, WHEN_END_SEEN, AT_ONCE, WHEN_SENT),
        .server = HELLO,
        .reasons = FINS,
        .bases = {{CALL_PIPE_RESIZE, EPERM, 1, AT_ONCE}},
    },

    /* Readers that stall, and go on. */
    {
        .name = "stall-up-copy",
        .splice = SPLICE_NEVER,
        .servers = {UNIX_SERVER},
        .client = FLOOD,
        .server = STALLED,
        .reasons = FINS,
    },
    {
        .name = "stall-up-splice",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = FLOOD,
        .server = STALLED,
        .reasons = FINS,
    },

    /* Connecting. */
    {
        .name = "refused-then-served",
        .splice = SPLICE_NEVER,
        .servers = {REFUSING_SERVER, TCP_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
    },
    {
        .name = "refused-then-unix",
        .splice = SPLICE_NEVER,
        .servers = {REFUSING_SERVER, UNIX_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
    },
    {
        .name = "refused",
        .splice = SPLICE_NEVER,
        .servers = {REFUSING_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = REASON_BIT(REASON_CONNECT_REFUSED),
    },
    {
        .name = "silent-then-served",
        .splice = SPLICE_NEVER,
        .servers = {SILENT_SERVER, TCP_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
    },
    {
        .name = "silent",
        .splice = SPLICE_NEVER,
        .servers = {SILENT_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = REASON_BIT(REASON_CONNECT_TIMEOUT),
    },
    {
        .name = "full-backlog",
        .splice = SPLICE_NEVER,
        .servers = {FULL_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
    },
    {
        .name = "from-source",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
        .tuned = true,
    },
    {
        .name = "from-source-refused",
        .splice = SPLICE_NEVER,
        .servers = {REFUSING_SERVER, TCP_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
        .tuned = true,
    },

    {
        .name = "from-source-unix-gone",
        .splice = SPLICE_NEVER,
        .servers = {GONE_UNIX_SERVER, TCP_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
        .tuned = true,
    },

    /* Accepting. */
    {
        .name = "crowd",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
        .clients = 4,
        .sessions_max = 2,
    },
    {
        .name = "unix-server",
        .splice = SPLICE_NEVER,
        .servers = {UNIX_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
    },
    {
        .name = "unix-client",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = TINY,
        .server = ECHO,
        .reasons = FINS,
        .unix_front = true,
    },

    /* Resets in mid-transfer. */
    {
        .name = "client-resets",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = {.sends = 3000, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_GOT_SOME},
        .server = BULK,
        .reasons = REASON_BIT(REASON_CLIENT_RESET),
    },
    {
        .name = "client-resets-splice",
        .splice = SPLICE_ALWAYS,
        .servers = {TCP_SERVER},
        .client = {.sends = 3000, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_GOT_SOME},
        .server = BULK,
        .reasons = REASON_BIT(REASON_CLIENT_RESET),
    },
    {
        .name = "client-resets-quietly",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = {.sends = 3000, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_GOT_SOME},
        .server = {.sends = 10, .begins = AT_ONCE, .reads = AT_ONCE},
        .reasons = REASON_BIT(REASON_CLIENT_RESET),
    },
    {
        .name = "server-resets",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = {.sends = 10, .begins = AT_ONCE, .reads = WHEN_OVER},
        .server = {.sends = 100000, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_ARRIVED},
        .reasons = REASON_BIT(REASON_SERVER_RESET),
        .down_arrives = 100000,
        .client_window = 4096,
    },
    {
        .name = "server-resets-splice",
        .splice = SPLICE_ALWAYS,
        .servers = {TCP_SERVER},
        .client = {.sends = 10, .begins = AT_ONCE, .reads = WHEN_OVER},
        .server = {.sends = 100000, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_ARRIVED},
        .reasons = REASON_BIT(REASON_SERVER_RESET),
        .down_arrives = 100000,
        .client_window = 4096,
    },
    {
        .name = "server-resets-late",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = REQUEST,
        .server =
            {.sends = 100000, .begins = WHEN_END_SEEN, .reads = AT_ONCE, .resets = WHEN_ARRIVED},
        .reasons = REASON_BIT(REASON_SERVER_RESET),
        .down_arrives = 100000,
    },
    {
        .name = "stuck-resets-copy",
        .splice = SPLICE_NEVER,
        .servers = {UNIX_SERVER},
        .client = {.sends = MUCH, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_STUCK},
        .server = {.sends = 10, .begins = AT_ONCE, .reads = WHEN_OVER},
        .reasons = REASON_BIT(REASON_CLIENT_RESET),
        .up_arrives = 200000,
    },
    {
        .name = "stuck-resets-splice",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = {.sends = MUCH, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_STUCK},
        .server = {.sends = 10, .begins = AT_ONCE, .reads = WHEN_OVER},
        .reasons = REASON_BIT(REASON_CLIENT_RESET),
        .up_arrives = 200000,
    },
    {
        .name = "both-reset",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = {.sends = 10, .begins = AT_ONCE, .reads = WHEN_OVER, .resets = WHEN_OVER},
        .server = {.sends = 100000, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_ARRIVED},
        .reasons = REASON_BIT(REASON_SERVER_RESET) | REASON_BIT(REASON_CLIENT_RESET),
        .client_window = 4096,
    },

    {
        .name = "stuck-resets-sips",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = {.sends = MUCH, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_STUCK},
        .server = {.sends = 10, .begins = AT_ONCE, .reads = WHEN_OVER, .sips = 20000},
        .reasons = REASON_BIT(REASON_CLIENT_RESET),
        .up_arrives = 200000,
    },
    {
        .name = "stuck-resets-unspliceable",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = {.sends = MUCH, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_STUCK},
        .server = {.sends = 10, .begins = AT_ONCE, .reads = WHEN_OVER, .sips = 20000},
        .reasons = REASON_BIT(REASON_CLIENT_RESET),
        .up_arrives = 200000,
        .bases = {{CALL_SPLICE_OUT, EINVAL, 2, AT_ONCE}},
    },
    {
        .name = "stuck-breaks",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = FLOOD,
        .server = STALLED,
        .reasons = FINS | REASON_BIT(REASON_CLIENT_RESET) | REASON_BIT(REASON_SERVER_RESET),
        .bases = {{CALL_SPLICE_IN, ECONNRESET, 6, AT_ONCE}},
    },
    {
        .name = "stuck-breaks-unspliceable",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = FLOOD,
        .server = STALLED,
        .reasons = FINS | REASON_BIT(REASON_CLIENT_RESET) | REASON_BIT(REASON_SERVER_RESET),
        .bases = {{CALL_SPLICE_IN, ECONNRESET, 6, AT_ONCE},
                  {CALL_SPLICE_OUT, EINVAL, 1, WHEN_STUCK}},
    },
    {
        .name = "gives-up-reading",
        .splice = SPLICE_NEVER,
        .servers = {UNIX_SERVER},
        .client = FLOOD,
        .server =
            {.sends = 70000, .begins = WHEN_OTHER_STUCK, .gives_up = WHEN_SENT, .shuts = WHEN_SENT},
        .reasons = REASON_BIT(REASON_SERVER_RESET),
        .down_arrives = 70000,
    },

    /* Told to stop, and falling asleep. */
    {
        .name = "drain",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = FLOOD,
        .server = {.sends = 10,
                   .begins = WHEN_END_SEEN,
                   .reads = WHEN_OTHER_STUCK,
                   .shuts = WHEN_SENT,
                   .sips = 20000},
        .reasons = FINS | REASON_BIT(REASON_DRAIN),
        .drains = WHEN_STUCK,
    },
    {
        .name = "drain-then-reset",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = {.sends = MUCH, .begins = AT_ONCE, .reads = AT_ONCE, .resets = WHEN_DRAINED},
        .server = {.reads = WHEN_OVER, .sips = 20000},
        .reasons = REASON_BIT(REASON_DRAIN),
        .drains = WHEN_STUCK,
    },
    {
        .name = "drain-copy",
        .splice = SPLICE_NEVER,
        .servers = {UNIX_SERVER},
        .client = FLOOD,
        .server = STALLED,
        .reasons = FINS | REASON_BIT(REASON_DRAIN),
        .drains = WHEN_STUCK,
    },
    {
        .name = "drain-unspliceable",
        .splice = SPLICE_ALWAYS,
        .servers = {UNIX_SERVER},
        .client = FLOOD,
        .server = STALLED,
        .reasons = FINS | REASON_BIT(REASON_DRAIN),
        .drains = WHEN_STUCK,
        .bases = {{CALL_SPLICE_OUT, EINVAL, 1, WHEN_STUCK}},
    },
    {
        .name = "idle",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = {.sends = 10, .begins = AT_ONCE, .reads = AT_ONCE},
        .server = {.sends = 10, .begins = AT_ONCE, .reads = AT_ONCE},
        .reasons = REASON_BIT(REASON_IDLE_TIMEOUT),
        .idles = true,
    },
    {
        .name = "half-idle",
        .splice = SPLICE_NEVER,
        .servers = {TCP_SERVER},
        .client = TINY,
        .server = {.sends = 10, .begins = AT_ONCE, .reads = AT_ONCE},
        .reasons = REASON_BIT(REASON_FIN_TIMEOUT),
        .idles = true,
    },
};

const size_t scenarios_len = ARRAY_LEN(scenarios);
