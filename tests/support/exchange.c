/* One way after the other is done by one thread and its sender; both ways at once need four, since
 * each blocking peer must not wait for another one. */
#include "support/exchange.h"

#include <criterion/criterion.h>
#include <inttypes.h>

enum { TASKS = 4 };

static void send_all_one_way(int from, int to, uint64_t key, uint64_t len)
{
    struct peer_task sending = {.fd = from, .key = key, .len = len, .shut_after = true};
    enum peer_end end;
    uint64_t got;

    peer_start_sending(&sending);
    got = peer_drain(to, key, 0, &end);
    peer_join(&sending);
    cr_assert(got == len, "%" PRIu64 " of %" PRIu64 " bytes came", got, len);
    cr_assert(end == PEER_FIN, "a reset instead of FIN");
}

void join_receiving(struct peer_task *task, uint64_t len)
{
    peer_join(task);
    cr_assert(task->len == len, "%" PRIu64 " of %" PRIu64 " bytes came", task->len, len);
    cr_assert(task->end == PEER_FIN, "a reset instead of FIN");
}

void exchange_at_once(const struct pair *pair, uint64_t key, uint64_t len,
                      const struct peer_task *model)
{
    struct peer_task tasks[TASKS];

    for (size_t i = 0; i < TASKS; i++) {
        bool receives = i % 2 == 1;
        bool down = i >= 2;

        tasks[i] = *model;
        tasks[i].fd = receives == down ? pair->client : pair->server;
        tasks[i].key = key + down;
        tasks[i].len = len;
        tasks[i].seed = key + i;
        tasks[i].shut_after = true;
        tasks[i].to_end = true;
        if (receives) {
            peer_start_receiving(&tasks[i]);
        } else {
            peer_start_sending(&tasks[i]);
        }
    }
    peer_join(&tasks[0]);
    join_receiving(&tasks[1], len);
    peer_join(&tasks[2]);
    join_receiving(&tasks[3], len);
}

void exchange(const struct pair *pair, enum order order, uint64_t key, uint64_t len)
{
    static const struct peer_task plain;

    if (order == BOTH_AT_ONCE) {
        exchange_at_once(pair, key, len, &plain);
    } else if (order == CLIENT_FIRST) {
        send_all_one_way(pair->client, pair->server, key, len);
        send_all_one_way(pair->server, pair->client, key + 1, len);
    } else {
        send_all_one_way(pair->server, pair->client, key + 1, len);
        send_all_one_way(pair->client, pair->server, key, len);
    }
}

void expect_exchanged(struct proxy *proxy, size_t index, enum order order, uint64_t len)
{
    proxy_wait_event(proxy, "close", index + 1);
    cr_assert(proxy_number(proxy, "close", index, "bytes_up") == len);
    cr_assert(proxy_number(proxy, "close", index, "bytes_down") == len);
    cr_assert(proxy_number(proxy, "close", index, "undelivered_bytes") == 0);
    proxy_expect_field(proxy, "close", index, "how", "fin");
    if (order == CLIENT_FIRST) {
        proxy_expect_field(proxy, "close", index, "closed_by", "client");
        proxy_expect_field(proxy, "close", index, "reason", "server-fin");
    } else if (order == SERVER_FIRST) {
        proxy_expect_field(proxy, "close", index, "closed_by", "server");
        proxy_expect_field(proxy, "close", index, "reason", "client-fin");
    }
}
