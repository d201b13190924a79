/* Sending and receiving for all runs, a piece at a time. */
#include "matrix/run.h"

#include "support/ends.h"
#include "support/stream.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE_BYTES = 64 * 1024, WAIT_MS = 20000 };

enum side run_closer(const struct run *run)
{
    return (enum side)run->cell.at[FIRST];
}

struct lane *run_own(struct run *run)
{
    return &run->lane[run_closer(run)];
}

struct lane *run_back(struct run *run)
{
    return &run->lane[other_side(run_closer(run))];
}

static bool send_piece(struct run *run, enum side from)
{
    static unsigned char bytes[PIECE_BYTES];
    struct lane *lane = &run->lane[from];
    uint64_t left = lane->goal - lane->sent;
    size_t size = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
    ssize_t result;

    if (run->fd[from] < 0) {
        return false;
    }
    if (size == 0) {
        if (!lane->shut_after || lane->is_shut) {
            return false;
        }
        lane->is_shut = true;
        if (shutdown(run->fd[from], SHUT_WR) < 0) {
            complain(&run->cell, "shutdown: %s", strerror(errno));
        }
        return true;
    }
    stream_fill(lane->key, lane->sent, bytes, size);
    result = send(run->fd[from], bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result < 0 && errno != EAGAIN) {
        complain(&run->cell, "send after %llu bytes: %s", (unsigned long long)lane->sent,
                 strerror(errno));
        lane->goal = lane->sent;
    }
    lane->sent += result > 0 ? (uint64_t)result : 0;
    return result > 0;
}

void look_for_reset(struct run *run, enum side from)
{
    int fd = run->fd[other_side(from)];
    struct pollfd poller = {.fd = fd};
    int error = 0;
    socklen_t len = sizeof(error);

    if (fd < 0 || run->lane[from].view != VIEW_FIN || cell_is_unix(&run->cell, other_side(from))) {
        return;
    }
    if (poll(&poller, 1, 0) == 1 && (poller.revents & POLLERR) != 0) {
        cr_assert(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0);
        if (error == ECONNRESET || error == EPIPE) {
            run->lane[from].view = VIEW_FIN_RESET;
        } else {
            complain(&run->cell, "error %s behind FIN", strerror(error));
        }
    }
}

static void received_end(struct run *run, struct lane *lane, ssize_t result)
{
    if (result == 0) {
        lane->view = VIEW_FIN;
    } else {
        if (errno != ECONNRESET) {
            complain(&run->cell, "recv after %llu bytes: %s", (unsigned long long)lane->read,
                     strerror(errno));
        }
        lane->view = VIEW_RESET;
    }
}

static bool receive_piece(struct run *run, enum side from)
{
    static unsigned char bytes[PIECE_BYTES];
    struct lane *lane = &run->lane[from];
    int fd = run->fd[other_side(from)];
    uint64_t left = lane->may_read - lane->read;
    size_t size = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);
    ssize_t result;
    size_t good;

    if (fd < 0 || size == 0) {
        return false;
    }
    if (lane->view != VIEW_NONE) {
        look_for_reset(run, from);
        return false;
    }
    result = recv(fd, bytes, size, MSG_DONTWAIT);
    if (result < 0 && errno == EAGAIN) {
        return false;
    }
    if (result <= 0) {
        received_end(run, lane, result);
        return true;
    }
    good = stream_mismatch(lane->key, lane->read, bytes, (size_t)result);
    if (good < (size_t)result && lane->wrong_at == NO_OFFSET) {
        lane->wrong_at = lane->read + good;
    }
    lane->read += (uint64_t)result;
    return true;
}

bool pump(struct batch *batch)
{
    bool moved = false;

    for (size_t i = 0; i < batch->count; i++) {
        for (int from = 0; from < SIDES; from++) {
            moved = send_piece(&batch->runs[i], (enum side)from) || moved;
            moved = receive_piece(&batch->runs[i], (enum side)from) || moved;
        }
    }
    return moved;
}

static struct run *first_unready(struct batch *batch, run_ready_fn *ready)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (!ready(&batch->runs[i])) {
            return &batch->runs[i];
        }
    }
    return NULL;
}

bool pump_for(struct batch *batch, run_ready_fn *ready, uint64_t wait_ms)
{
    uint64_t deadline = monotonic_ms() + wait_ms;

    while (first_unready(batch, ready) != NULL) {
        if (monotonic_ms() >= deadline) {
            return false;
        }
        if (!pump(batch)) {
            pause_ms(1);
        }
    }
    return true;
}

void pump_until(struct batch *batch, run_ready_fn *ready, const char *what)
{
    if (!pump_for(batch, ready, WAIT_MS)) {
        struct run *run = first_unready(batch, ready);
        const struct lane *up = &run->lane[CLIENT];
        const struct lane *down = &run->lane[SERVER];

        complain(&run->cell,
                 "%s: never came (up: sent %llu of %llu, read %llu; down: sent %llu of %llu, read "
                 "%llu)",
                 what, (unsigned long long)up->sent, (unsigned long long)up->goal,
                 (unsigned long long)up->read, (unsigned long long)down->sent,
                 (unsigned long long)down->goal, (unsigned long long)down->read);
        expect_no_complaint();
    }
}

bool is_acknowledged(const struct run *run, enum side side)
{
    return cell_is_unix(&run->cell, side) || place_unacked(run->fd[side]) == 0;
}

void look(struct run *run, enum side from)
{
    run->lane[from].place = place_ask(run->fd[from], run->fd[other_side(from)]);
}

int64_t held_bytes(const struct lane *lane)
{
    const struct place *place = &lane->place;

    return (int64_t)(lane->sent - place->unsent - place->untaken - lane->read - place->received -
                     place->unacked);
}
