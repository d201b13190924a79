/* Bulk in both directions at once over wires of all shapes: tiny and huge packets, tiny buffers,
 * loss.
 *
 * The problem: on loopback a packet carries 64 KiB, nothing is lost and buffers are large, so a
 * proxy that is only tested there has never seen a stream come in pieces of 500 bytes, a pipe whose
 * slots are used up by them long before its bytes (B02), a pipe that holds more than its size
 * because merged packets fill its slots (B03), or a window that opens by one segment at a time.
 *
 * The model: client and server at the far end of a cable (support/cable.h), so both legs cross it;
 * what a test varies is the cable, and the buffers of its two ends. Every byte is compared, FIN
 * stands behind the last one, and the record counts exactly. Loss is random and takes from each
 * direction of both legs. */
#include "support/cable.h"
#include "support/ends.h"
#include "support/exchange.h"
#include "support/netns.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum { KIB = 1024, MIB = 1024 * KIB };

/* --- packets and buffers --- */

static const struct shape {
    const char *name;
    unsigned mtu;
    bool one_segment; /* a packet: no merging, no splitting */
    bool tiny;        /* the smallest buffers, at both ends of the cable */
    unsigned loss_percent;
    uint64_t len;
    struct peer_task peers; /* how they read and write */
} shapes[] = {
    /* Segments of 36 bytes. (At 68, the least that IPv4 allows, Linux 6.18 alone does not carry a
     * stream between two of its own sockets: it fails to make the fragments.) */
    {.name = "mtu 88", .mtu = 88, .one_segment = true, .len = 512 * KIB},
    {.name = "mtu 576", .mtu = 576, .one_segment = true, .len = 8 * MIB},
    {.name = "mtu 576, paused readers",
     .mtu = 576,
     .one_segment = true,
     .len = 4 * MIB,
     .peers = {.chunk_max = 64 * KIB, .pause_us = 1000}},
    {.name = "mtu 1280", .mtu = 1280, .one_segment = true, .len = 16 * MIB},
    {.name = "mtu 1500", .mtu = 1500, .one_segment = true, .len = 16 * MIB},
    {.name = "mtu 9000", .mtu = 9000, .one_segment = true, .len = 32 * MIB},
    {.name = "mtu 9000, merged", .mtu = 9000, .len = 32 * MIB},
    {.name = "mtu 65535", .mtu = 65535, .len = 32 * MIB},
    {.name = "tiny buffers", .mtu = 1500, .tiny = true, .one_segment = true, .len = MIB},
    {.name = "tiny buffers, merged", .mtu = 1500, .tiny = true, .len = MIB},
    {.name = "tiny buffers, large packets", .mtu = 65535, .tiny = true, .len = MIB},
    {.name = "1 % loss", .mtu = 1500, .one_segment = true, .loss_percent = 1, .len = 8 * MIB},
    {.name = "5 % loss", .mtu = 1500, .one_segment = true, .loss_percent = 5, .len = 2 * MIB},
    {.name = "5 % loss of merged packets", .mtu = 1500, .loss_percent = 5, .len = 4 * MIB},
};

/* Of the namespace that we are in; sockets made from now on have them. */
static void shrink_buffers(void)
{
    netns_set("tcp_rmem", "2304 2304 2304");
    netns_set("tcp_wmem", "4608 4608 4608");
}

static void lose(unsigned percent)
{
    netns_rule("meta l4proto tcp numgen random mod 100 < %u drop", percent);
}

static void shape_wire(const struct shape *shape)
{
    if (shape->one_segment) {
        netns_one_segment_a_packet();
    }
    netns_set_mtu(shape->mtu);
    for (int end = 0; end < 2; end++) {
        (end == 0 ? netns_go_near : netns_go_far)();
        if (shape->tiny) {
            shrink_buffers();
        }
        if (shape->loss_percent > 0) {
            lose(shape->loss_percent);
        }
    }
    netns_go_near();
}

ParameterizedTestParameters(wire, delivers_bulk_both_ways_whatever_its_shape)
{
    static int cases[COUNT_OF(shapes) * SPLICE_MODES];

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cases[i] = (int)i;
    }
    return cr_make_param_array(int, cases, COUNT_OF(cases));
}

/* DI-10, B01, B02, B03. Goal: no shape of the wire costs a byte, an order or an end. Method: each
 * shape, in each splice mode, one exchange with both directions at once. */
ParameterizedTest(int *with, wire, delivers_bulk_both_ways_whatever_its_shape)
{
    const struct shape *shape = &shapes[(size_t)*with / SPLICE_MODES];
    const char *mode = splice_names[*with % SPLICE_MODES];
    struct proxy proxy;
    struct pair pair;
    int origin;

    cr_log_info("%s, --splice %s", shape->name, mode);
    cable_lay(&proxy);
    shape_wire(shape);
    origin = cable_start(&proxy, (const char *const[]){"--splice", mode, NULL});
    pair = cable_open(&proxy, origin);
    exchange_at_once(&pair, 7, shape->len, &shape->peers);
    pair_close(&pair);
    expect_exchanged(&proxy, 0, BOTH_AT_ONCE, shape->len);
    if (strcmp(mode, "never") != 0 && shape->len >= 8 * MIB) {
        cr_assert(proxy_number(&proxy, "close", 0, "spliced_bytes") > 0);
    }
    if (shape->loss_percent > 0) {
        cr_assert(netns_hits() > 0, "nothing was lost");
    }
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* --- pipes that hold more than their size --- */

/* The bytes in the fullest pipe of the worker, and what that pipe says its size is. */
static uint64_t fullest_pipe(pid_t worker, uint64_t *ret_size)
{
    char directory_path[64];
    uint64_t most = 0;
    struct dirent *entry;
    DIR *directory;

    (void)snprintf(directory_path, sizeof(directory_path), "/proc/%d/fd", worker);
    directory = opendir(directory_path);
    cr_assert(directory != NULL);
    while ((entry = readdir(directory)) != NULL) {
        char path[320];
        char target[64] = "";
        int held = 0;
        int fd;

        (void)snprintf(path, sizeof(path), "%s/%s", directory_path, entry->d_name);
        if (readlink(path, target, sizeof(target) - 1) <= 0 || strncmp(target, "pipe:", 5) != 0) {
            continue;
        }
        fd =
            open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* the same pipe, a descriptor of ours */
        cr_assert(fd >= 0 && ioctl(fd, FIONREAD, &held) == 0);
        if ((uint64_t)held >= most) {
            most = (uint64_t)held;
            *ret_size = (uint64_t)fcntl(fd, F_GETPIPE_SZ);
        }
        (void)close(fd);
    }
    (void)closedir(directory);
    return most;
}

/* DI-06, B03. Goal: a pipe may hold more bytes than its size, as its slots take whole merged
 * packets; nothing derives full or empty from that size. Method: packets of 64 KiB; while the
 * worker is stopped, a receive buffer of 8 MiB fills up before it; its send buffer takes little and
 * the client does not read, so the pipe gets all it can hold. The rest follows when the client
 * reads, in pieces of random length: 64 MiB, 4 GiB in a long run. */
Test(wire, fills_a_pipe_beyond_its_size_and_delivers_all_of_it)
{
    const uint64_t more = is_long_run() ? UINT64_C(4) << 30 : 64 * MIB;
    struct way way;
    struct peer_task sending = {.key = 3, .len = more, .shut_after = true};
    struct peer_task reading = {
        .key = 3, .to_end = true, .chunk_max = 256 * KIB, .pause_us = 300, .seed = 11};
    struct proxy proxy;
    struct pair pair;
    uint64_t size = 0;
    uint64_t held;
    int origin;

    cable_lay(&proxy);
    netns_set_mtu(65535);
    netns_set("tcp_rmem", "4096 8388608 8388608");
    netns_set("tcp_wmem", "4096 262144 262144");
    netns_go_far();
    netns_set("tcp_wmem", "4096 8388608 8388608");
    netns_go_near();
    origin = cable_start(&proxy, (const char *const[]){"--splice", "always", NULL});
    pair = cable_open(&proxy, origin);
    way = (struct way){.sender = pair.server, .receiver = pair.client, .key = 3};
    freeze(only_worker(&proxy)); /* so that it never sees its source empty while the pipe fills */
    block(&way, 1);
    thaw(only_worker(&proxy));
    block(&way, 1);
    held = fullest_pipe(only_worker(&proxy), &size);
    cr_assert(held > size, "%" PRIu64 " bytes in a pipe of %" PRIu64 ": this shows nothing", held,
              size);
    cr_log_info("%" PRIu64 " bytes in a pipe of %" PRIu64, held, size);
    sending.fd = pair.server;
    sending.offset = way.sent;
    reading.fd = pair.client;
    peer_start_sending(&sending);
    peer_start_receiving(&reading);
    peer_join(&sending);
    join_receiving(&reading, way.sent + more);
    peer_shut(pair.client);
    peer_expect_end(pair.server, PEER_FIN);
    pair_close(&pair);
    expect_reason(&proxy, 0, "client-fin", "server", "fin", NULL);
    cr_assert(proxy_number(&proxy, "close", 0, "bytes_down") == way.sent + more);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}

/* --- processes that die with bytes on a slow wire --- */

ParameterizedTestParameters(wire, carries_what_a_process_left_behind_when_it_died)
{
    static int modes[SPLICE_MODES] = {0, 1, 2};

    return cr_make_param_array(int, modes, SPLICE_MODES);
}

/* HC-16. Goal: bytes that a process had handed to its kernel before it died arrive, also when they
 * take long after its death. Method: a wire of 20 Mbit/s; a server that writes 1 MiB and FIN, of
 * which most is still in its kernel, and that closes at once; then the client does the same with
 * its direction. */
ParameterizedTest(int *mode, wire, carries_what_a_process_left_behind_when_it_died)
{
    enum { BYTES = MIB };
    struct expected_end end = {"client-fin", "server", "fin", NULL, BYTES, BYTES, 0};
    struct peer_task reading = {.key = 2, .to_end = true};
    struct proxy proxy;
    struct pair pair;
    enum peer_end how;
    int sndbuf = 4 * MIB;
    int origin;
    int queued;
    int kept;

    cable_lay(&proxy);
    netns_set_rate(20);
    origin = cable_start(&proxy, (const char *const[]){"--splice", splice_names[*mode], NULL});
    pair = cable_open(&proxy, origin);
    cr_assert(setsockopt(pair.server, SOL_SOCKET, SO_SNDBUFFORCE, &sndbuf, sizeof(sndbuf)) == 0);
    cr_assert(setsockopt(pair.client, SOL_SOCKET, SO_SNDBUFFORCE, &sndbuf, sizeof(sndbuf)) == 0);
    kept = dup(pair.server); /* its receiving half lives on, for the client's direction */
    cr_assert(kept >= 0);
    peer_send(pair.server, 2, 0, BYTES);
    peer_shut(pair.server);
    cr_assert(ioctl(pair.server, TIOCOUTQ, &queued) == 0 && queued > BYTES / 2,
              "%d bytes are left in the kernel: too few to show anything", queued);
    peer_close(pair.server);
    reading.fd = pair.client;
    peer_start_receiving(&reading);
    join_receiving(&reading, BYTES);
    peer_send(pair.client, 1, 0, BYTES);
    peer_close(pair.client);
    cr_assert(peer_drain(kept, 1, 0, &how) == BYTES && how == PEER_FIN);
    peer_close(kept);
    expect_end(&proxy, 0, &end);
    peer_close(origin);
    proxy_finish(&proxy, 1);
}
