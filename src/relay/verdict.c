/* The end of a session, put into words.
 *
 * An errno says little by itself: ECONNRESET from the client is the client's doing, from the
 * server the server's; EPIPE is what Linux stores for a reset that came after FIN; ETIMEDOUT and
 * whatever ICMP reported are a peer that stopped answering. Here they become the reasons of
 * reason.h.
 *
 * closed_by tells who ended it: the side that showed an end first (FIN, reset or silence), the
 * server for a refused connect, and sluice for everything that it decided itself. */
#include "relay/verdict.h"

#include "net/sys.h"
#include "relay/listener.h"

#include <errno.h>

/* Which side broke; with errors on both, the one that showed its end first. */
static bool client_broke(const struct session *session)
{
    if (session->client.error == 0 || session->server.error == 0) {
        return session->client.error != 0;
    }
    return session->closed_by == CLOSED_BY_CLIENT;
}

int verdict_error(const struct session *session)
{
    return client_broke(session) ? session->client.error : session->server.error;
}

enum reason verdict_broken_reason(const struct session *session)
{
    switch (verdict_error(session)) {
    case ECONNRESET:
    case EPIPE:        /* a reset after FIN */
    case ECONNABORTED: /* destroyed from outside, as by `ss -K` */
        return client_broke(session) ? REASON_CLIENT_RESET : REASON_SERVER_RESET;
    case ETIMEDOUT:
    case EHOSTUNREACH: /* what ICMP said of a peer that stopped answering, from here on */
    case ENETUNREACH:
    case ECONNREFUSED:
    case ENETDOWN:
    case EHOSTDOWN:
    case EACCES:
    case ENONET:
    case EPROTO:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
        return REASON_PEER_TIMEOUT;
    default:
        return REASON_INTERNAL;
    }
}

/* Bytes a peer has not acknowledged. Of unix sockets none: what they took survives close(2). */
static uint32_t unacknowledged(const struct io *io, sa_family_t family, const struct flow *into)
{
    int bytes;

    if (io->fd < 0 || family == AF_UNIX) {
        return 0;
    }
    bytes = sys_unacknowledged(io->fd);
    if (bytes > 0 && into->state == FLOW_FINISHED) {
        bytes--; /* the FIN counts one */
    }
    return bytes > 0 ? (uint32_t)bytes : 0;
}

uint32_t verdict_client_unacked(const struct session *session)
{
    return unacknowledged(&session->client, session->client_addr.family, &session->down);
}

uint32_t verdict_server_unacked(const struct session *session)
{
    if (session->connected_ns == 0) {
        return 0; /* SIOCOUTQ of a refused connect counts the SYN */
    }
    return unacknowledged(&session->server, session->server_local.family, &session->up);
}

static void ask_kernel(const struct session *session, struct record *record)
{
    record->rtt_us = 0;
    if (session->client_addr.family != AF_UNIX) {
        record->rtt_us = sock_rtt_us(session->client.fd);
    }
    record->client_local = session->listener->local;
    if (record->client_local.len == 0 &&
        sock_local_address(session->client.fd, &record->client_local) < 0) {
        record->client_local.len = 0;
    }
}

static uint64_t since_accept(const struct session *session, uint64_t moment_ns)
{
    return moment_ns == 0 ? RECORD_NO_TIME : moment_ns - session->accepted_ns;
}

static enum closed_by ended_by(const struct session *session, enum reason reason)
{
    enum how how = reason_how(reason);

    if (reason == REASON_CONNECT_REFUSED) {
        return CLOSED_BY_SERVER;
    }
    if (session->has_end && (how == HOW_FIN || how == HOW_RST || reason == REASON_PEER_TIMEOUT)) {
        return (enum closed_by)session->closed_by;
    }
    return CLOSED_BY_PROXY;
}

void verdict_record(const struct session *session, enum reason reason, int error,
                    struct record *ret_record)
{
    const struct listener *listener = session->listener;

    *ret_record = (struct record){
        .id = session->id,
        .listener = listener->name,
        .pool = listener->pool_name,
        .server = session->target != NULL ? session->target->name : NULL,
        .client = session->client_addr,
        .server_local = session->server_local,
        .bytes_up = flow_bytes_out(&session->up),
        .bytes_down = flow_bytes_out(&session->down),
        .spliced_bytes = session->up.bytes_spliced + session->down.bytes_spliced,
        .duration_ns = session->listener->relay->loop->now_ns - session->accepted_ns,
        .connect_ns = since_accept(session, session->connected_ns),
        .first_byte_ns = since_accept(session, session->first_byte_ns),
        .retries = session->tries.made > 0 ? session->tries.made - 1 : 0,
        .reason = reason,
        .closed_by = ended_by(session, reason),
        .error = error,
    };
    if (reason_how(reason) != HOW_FIN) {
        ret_record->undelivered_bytes =
            flow_held_bytes(&session->up) + flow_held_bytes(&session->down) +
            verdict_client_unacked(session) + verdict_server_unacked(session);
    }
    if (session->listener->relay->settings.want_details) {
        ask_kernel(session, ret_record);
    }
}
