/* The calls of the model: each answer is one that Linux may give in this state, and which of them
 * is the input's choice. Where it follows Linux, the function of the kernel is named.
 *
 * The first byte of each choice: 0 all goes well, 250 to 253 splice is refused, 254 and 255 a
 * shortage. */
#include "fuzz/model/model.h"
#include "net/sys.h"

#include <errno.h>
#include <string.h>

struct world world;

static unsigned char pattern[2 * PATTERN_BYTES];

/* --- bytes and choices --- */

static void prepare_pattern(void)
{
    uint32_t state = 1;

    for (size_t i = 0; i < PATTERN_BYTES; i++) {
        state = state * 1664525u + 1013904223u;
        pattern[i] = (unsigned char)(state >> 24);
        pattern[i + PATTERN_BYTES] = pattern[i];
    }
}

void model_reset(const uint8_t *bytes, size_t len)
{
    if (pattern[0] == 0 && pattern[1] == 0) {
        prepare_pattern();
    }
    memset(&world, 0, sizeof(world));
    world.input = (struct input){bytes, len};
    for (int i = 0; i < LANES; i++) {
        struct lane *lane = &world.lanes[i];

        flow_init(&lane->flow);
        io_init(&lane->source, NULL);
        io_init(&lane->target, NULL);
        lane->source.fd = SOURCE_FD + i;
        lane->target.fd = TARGET_FD + i;
        lane->urgent_at = NO_OFFSET;
        lane->target_edge = true; /* epoll_ctl(2) tells what is ready already */
    }
}

/* Where the `len` bytes of `lane` from `offset` on stand in the pattern. */
static const unsigned char *bytes_at(int lane, uint64_t offset)
{
    return pattern + (offset + (uint64_t)lane * 40503u) % PATTERN_BYTES;
}

static struct lane *lane_of(int fd, int first_fd)
{
    EXPECT(fd >= first_fd && fd < first_fd + LANES, "descriptor %d is none of these", fd);
    return &world.lanes[fd - first_fd];
}

static int index_of(const struct lane *lane)
{
    return (int)(lane - world.lanes);
}

/* A short count is always legal. 0: all of it. */
static uint64_t choose_count(uint8_t choice, uint64_t most)
{
    switch (choice & 3) {
    case 0:
        return most;
    case 1:
        return 1;
    case 2:
        return most > 1 ? most - 1 : most;
    default:
        return 1 + input_below(&world.input, most);
    }
}

static bool is_shortage(uint8_t choice, struct lane *lane)
{
    lane->met_shortage = lane->met_shortage || choice >= 254;
    return choice >= 254;
}

/* --- pipes --- */

static struct tube *tube_of(int fd, int end)
{
    struct tube *tube;

    EXPECT(fd >= PIPE_FD && fd < PIPE_FD + 2 * PIPES, "descriptor %d is no pipe", fd);
    EXPECT((fd - PIPE_FD) % 2 == end, "descriptor %d is the other end", fd);
    tube = &world.tubes[(fd - PIPE_FD) / 2];
    EXPECT(tube->open[end], "descriptor %d is closed", fd);
    return tube;
}

static uint64_t tube_bytes(const struct tube *tube)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < tube->count; i++) {
        bytes += tube->slots[(tube->first + i) % SLOTS_MAX].len;
    }
    return bytes;
}

uint64_t model_piped_bytes(int lane)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < PIPES; i++) {
        bytes += world.tubes[i].lane == lane ? tube_bytes(&world.tubes[i]) : 0;
    }
    return bytes;
}

static void tube_push(struct tube *tube, int lane, struct piece piece)
{
    EXPECT(tube->count == 0 || tube->lane == lane, "F4: two lanes share a pipe");
    tube->lane = lane;
    tube->slots[(tube->first + tube->count) % SLOTS_MAX] = piece;
    tube->count++;
}

static struct piece tube_take(struct tube *tube, uint64_t len)
{
    struct piece *slot = &tube->slots[tube->first];
    struct piece taken = {slot->offset, min_u64(len, slot->len)};

    slot->offset += taken.len;
    slot->len -= taken.len;
    if (slot->len == 0) {
        tube->first = (tube->first + 1) % SLOTS_MAX;
        tube->count--;
    }
    return taken;
}

int sys_pipe(int fds[2])
{
    uint8_t choice = input_byte(&world.input);

    if (choice >= 254) {
        return choice == 255 ? -EMFILE : -ENFILE;
    }
    for (int i = 0; i < PIPES; i++) {
        struct tube *tube = &world.tubes[i];

        if (!tube->open[0] && !tube->open[1]) {
            memset(tube, 0, sizeof(*tube));
            tube->open[0] = true;
            tube->open[1] = true;
            tube->slots_max = choice == 0 ? SLOTS_MAX : 1 + choice % SLOTS_MAX;
            fds[0] = PIPE_FD + 2 * i;
            fds[1] = fds[0] + 1;
            return 0;
        }
    }
    EXPECT(false, "F4: more pipes than the limit");
    return -EMFILE;
}

int sys_pipe_resize(int fd, int size_bytes)
{
    (void)tube_of(fd, 1);
    return input_byte(&world.input) == 255 ? -EPERM : size_bytes;
}

int sys_pipe_size(int fd)
{
    (void)tube_of(fd, 1);
    return input_byte(&world.input) % 2 == 0 ? 65536 : 8192;
}

int sys_readable_bytes(int fd)
{
    if (fd < TARGET_FD) {
        const struct lane *lane = &world.lanes[fd - SOURCE_FD];

        return (int)(lane->sent - lane->taken);
    }
    return (int)tube_bytes(tube_of(fd, 0));
}

void sys_close(int fd)
{
    struct tube *tube = tube_of(fd, (fd - PIPE_FD) % 2);

    tube->open[(fd - PIPE_FD) % 2] = false;
    if (!tube->open[0] && !tube->open[1]) {
        tube->count = 0;
    }
}

ssize_t sys_read(int fd, void *bytes, size_t len)
{
    struct tube *tube = tube_of(fd, 0);
    const struct lane *lane = &world.lanes[tube->lane];
    uint64_t wanted = choose_count(input_byte(&world.input), len);
    uint64_t done = 0;

    EXPECT(tube_bytes(tube) == lane->taken - lane->given, "F1: bytes in the buffer come first");
    while (done < wanted && tube->count > 0) {
        struct piece piece = tube_take(tube, wanted - done);

        memcpy((unsigned char *)bytes + done, bytes_at(tube->lane, piece.offset), piece.len);
        done += piece.len;
    }
    return done > 0 ? (ssize_t)done : -EAGAIN;
}

/* --- the source --- */

/* tcp_recvmsg_locked(), tcp_splice_read(): what a socket says that holds no byte. */
static ssize_t nothing_received(struct lane *lane)
{
    int error = lane->source_error;

    if (lane->fin) {
        return 0;
    }
    if (error != 0) {
        lane->source_error = 0;
        return -error;
    }
    return lane->source_broken ? 0 : -EAGAIN;
}

ssize_t sys_recv(int fd, void *bytes, size_t len)
{
    struct lane *lane = lane_of(fd, SOURCE_FD);
    uint8_t choice = input_byte(&world.input);
    uint64_t count;

    EXPECT(!lane->stopped, "F2: reads after flow_stop()");
    EXPECT(lane->taken == lane->given ||
               (lane->flow.pipe_bytes == 0 && bytes == lane->flow.buffer + lane->flow.buffer_end),
           "F1: copies while bytes are held, and not behind them");
    if (is_shortage(choice, lane)) {
        return choice == 255 ? -ENOMEM : -ENOBUFS;
    }
    if (lane->sent == lane->taken) {
        return nothing_received(lane);
    }
    count = choose_count(choice, min_u64(lane->sent - lane->taken, len));
    memcpy(bytes, bytes_at(index_of(lane), lane->taken), count);
    lane->taken += count;
    return (ssize_t)count;
}

static ssize_t splice_in(struct lane *lane, struct tube *tube, size_t len, uint8_t choice)
{
    uint64_t end = lane->sent;
    uint64_t piece_bytes = choice == 0 ? 65536 : 1 + input_below(&world.input, 65536);
    uint64_t left;
    uint64_t before = lane->taken;

    EXPECT(!lane->stopped, "F2: reads after flow_stop()");
    EXPECT(tube_bytes(tube) == lane->taken - lane->given, "F1: splices while a buffer is held");
    if (tube->count == tube->slots_max) {
        return -EAGAIN; /* wait_for_space(): even when the stream has ended */
    }
    if (lane->taken == lane->sent) {
        return nothing_received(lane);
    }
    if (lane->urgent_at >= lane->taken && lane->urgent_at < end) {
        end = lane->urgent_at;
    }
    if (end == lane->taken) {
        return 0; /* splice does not pass an urgent byte */
    }
    left = choose_count(choice, min_u64(end - lane->taken, len));
    while (left > 0 && tube->count < tube->slots_max) {
        struct piece piece = {lane->taken, min_u64(left, piece_bytes)};

        tube_push(tube, index_of(lane), piece);
        lane->taken += piece.len;
        left -= piece.len;
    }
    return (ssize_t)(lane->taken - before);
}

/* --- the target --- */

/* tcp_sendmsg_locked(): why nothing can be sent; 0 if something can. */
static ssize_t cannot_send(struct lane *lane)
{
    int error = lane->target_error;

    EXPECT(!lane->shut, "F2: sends after FIN");
    if (error != 0) {
        lane->target_error = 0;
        return -error;
    }
    if (lane->target_broken) {
        return -EPIPE;
    }
    lane->nospace = lane->nospace || lane->room == 0;
    return lane->room == 0 ? -EAGAIN : 0;
}

static uint64_t room_for(struct lane *lane, uint8_t choice, uint64_t len)
{
    lane->nospace = lane->nospace || lane->room < len;
    return choose_count(choice, min_u64(lane->room, len));
}

static void gave(struct lane *lane, uint64_t count)
{
    lane->given += count;
    lane->room -= count;
    EXPECT(lane->given <= lane->taken, "F1: more is given than was taken");
}

ssize_t sys_send(int fd, const void *bytes, size_t len, bool fin_follows)
{
    struct lane *lane = lane_of(fd, TARGET_FD);
    uint8_t choice = input_byte(&world.input);
    ssize_t refused;
    uint64_t count;

    EXPECT(len > 0, "F1: sends nothing");
    if (is_shortage(choice, lane)) {
        return choice == 255 ? -ENOMEM : -ENOBUFS;
    }
    refused = cannot_send(lane);
    if (refused != 0) {
        return refused;
    }
    count = room_for(lane, choice, len);
    EXPECT(memcmp(bytes, bytes_at(index_of(lane), lane->given), count) == 0,
           "F1: lane %d, wrong bytes at or behind offset %llu", index_of(lane),
           (unsigned long long)lane->given);
    gave(lane, count);
    EXPECT(!fin_follows || (lane->fin && !lane->stopped), "F2: announces a FIN that never came");
    lane->fin_is_due = fin_follows && count == len;
    return (ssize_t)count;
}

static ssize_t splice_out(struct tube *tube, struct lane *lane, size_t len, uint8_t choice)
{
    ssize_t refused = cannot_send(lane);
    uint64_t left;
    uint64_t before = lane->given;

    EXPECT(tube->count > 0, "F4: splices from an empty pipe");
    EXPECT(tube->lane == index_of(lane), "F1: the pipe of another lane");
    if (refused != 0) {
        return refused;
    }
    left = room_for(lane, choice, len);
    while (left > 0 && tube->count > 0) {
        struct piece piece = tube_take(tube, left);

        EXPECT(piece.offset == lane->given, "F1: lane %d, offset %llu comes before %llu",
               index_of(lane), (unsigned long long)piece.offset, (unsigned long long)lane->given);
        gave(lane, piece.len);
        left -= piece.len;
    }
    return (ssize_t)(lane->given - before);
}

ssize_t sys_splice(int from_fd, int to_fd, size_t len)
{
    static const int refusals[] = {EINVAL, ENOSYS, EPERM, EOPNOTSUPP};
    bool in = from_fd < PIPE_FD;
    struct lane *lane = in ? lane_of(from_fd, SOURCE_FD) : lane_of(to_fd, TARGET_FD);
    uint8_t choice = input_byte(&world.input);

    if (is_shortage(choice, lane)) {
        return choice == 255 ? -ENOMEM : -ENOBUFS;
    }
    if (choice >= 250) {
        return -refusals[choice - 250];
    }
    return in ? splice_in(lane, tube_of(to_fd, 1), len, choice)
              : splice_out(tube_of(from_fd, 0), lane, len, choice);
}

int sys_shutdown_write(int fd)
{
    struct lane *lane = lane_of(fd, TARGET_FD);

    EXPECT(!lane->shut, "F2: FIN twice");
    EXPECT(lane->fin, "F2: FIN that never came");
    EXPECT(!lane->stopped, "F2: FIN after flow_stop()");
    EXPECT(lane->given == lane->sent, "F2: FIN after %llu of %llu bytes",
           (unsigned long long)lane->given, (unsigned long long)lane->sent);
    if (lane->target_broken) {
        return -ENOTCONN;
    }
    lane->shut = true;
    return 0;
}

int sys_get_option(int fd, int level, int name, void *value, socklen_t *value_len)
{
    struct lane *lane = lane_of(fd, TARGET_FD);

    EXPECT(level == SOL_SOCKET && name == SO_ERROR && *value_len == sizeof(int), "an option");
    memcpy(value, &lane->target_error, sizeof(int));
    lane->target_error = 0;
    return 0;
}
