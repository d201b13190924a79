/* sock_diag(7) tells the queues of the other end of a connection: a TCP socket is found by its two
 * addresses, a unix socket by the inode of its peer. A pipe of another process is opened through
 * /proc/PID/fd, and FIONREAD asked of it. None of this needs rights over one's own processes. */
#include "matrix/place.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIPES_MAX = 8192 };

struct queues {
    uint64_t unread;
    uint64_t unacked;
};

union answer {
    struct nlmsghdr header;
    char bytes[4096];
};

static void ask_kernel(const void *question, size_t len, union answer *ret_answer)
{
    static int netlink = -1;

    if (netlink < 0) {
        netlink = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    }
    cr_assert(netlink >= 0, "NETLINK_SOCK_DIAG: %s", strerror(errno));
    cr_assert(send(netlink, question, len, 0) == (ssize_t)len, "%s", strerror(errno));
    cr_assert(recv(netlink, ret_answer, sizeof(*ret_answer), 0) > 0, "%s", strerror(errno));
    cr_assert(ret_answer->header.nlmsg_type == SOCK_DIAG_BY_FAMILY,
              "the kernel knows no such socket, or has no CONFIG_INET_DIAG or CONFIG_UNIX_DIAG");
}

/* The port, and the address as inet_diag wants it. */
static __be16 split_address(const struct sockaddr_storage *address, __be32 ret_ip[4])
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

    memset(ret_ip, 0, 4 * sizeof(ret_ip[0]));
    if (address->ss_family == AF_INET) {
        ret_ip[0] = v4->sin_addr.s_addr;
        return v4->sin_port;
    }
    memcpy(ret_ip, &v6->sin6_addr, sizeof(v6->sin6_addr));
    return v6->sin6_port;
}

static struct queues other_tcp_queues(int fd, const struct sockaddr_storage *own)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 request;
    } question = {
        .header = {.nlmsg_len = sizeof(question),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST},
        .request = {.sdiag_family = (__u8)own->ss_family,
                    .sdiag_protocol = IPPROTO_TCP,
                    .idiag_states = ~0U,
                    .id = {.idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
    };
    struct inet_diag_sockid *id = &question.request.id;
    struct sockaddr_storage other;
    socklen_t len = sizeof(other);
    union answer answer;
    const struct inet_diag_msg *told = NLMSG_DATA(&answer.header);

    cr_assert(getpeername(fd, (struct sockaddr *)&other, &len) == 0, "%s", strerror(errno));
    id->idiag_sport = split_address(&other, id->idiag_src);
    id->idiag_dport = split_address(own, id->idiag_dst);
    ask_kernel(&question, sizeof(question), &answer);
    return (struct queues){.unread = told->idiag_rqueue, .unacked = told->idiag_wqueue};
}

struct unix_told {
    uint32_t peer_inode;
    uint64_t unread;
};

static struct unix_told ask_unix(uint32_t inode)
{
    struct {
        struct nlmsghdr header;
        struct unix_diag_req request;
    } question = {
        .header = {.nlmsg_len = sizeof(question),
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST},
        .request = {.sdiag_family = AF_UNIX,
                    .udiag_states = ~0U,
                    .udiag_ino = inode,
                    .udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN,
                    .udiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}},
    };
    struct unix_told told = {0};
    union answer answer;
    const struct rtattr *attribute;
    size_t left;

    ask_kernel(&question, sizeof(question), &answer);
    attribute = (const void *)((const char *)NLMSG_DATA(&answer.header) +
                               NLMSG_ALIGN(sizeof(struct unix_diag_msg)));
    left = answer.header.nlmsg_len - NLMSG_LENGTH(sizeof(struct unix_diag_msg));
    while (RTA_OK(attribute, left)) {
        if (attribute->rta_type == UNIX_DIAG_PEER) {
            memcpy(&told.peer_inode, RTA_DATA(attribute), sizeof(told.peer_inode));
        } else if (attribute->rta_type == UNIX_DIAG_RQLEN) {
            told.unread = ((const struct unix_diag_rqlen *)RTA_DATA(attribute))->udiag_rqueue;
        }
        attribute = RTA_NEXT(attribute, left);
    }
    return told;
}

/* What a unix socket sends is at once in the other end's receive queue: nothing is unacknowledged.
 */
static struct queues other_unix_queues(int fd)
{
    struct stat status;

    cr_assert(fstat(fd, &status) == 0);
    return (struct queues){.unread = ask_unix(ask_unix((uint32_t)status.st_ino).peer_inode).unread};
}

static struct queues other_queues(int fd, bool *ret_unix)
{
    struct sockaddr_storage own;
    socklen_t len = sizeof(own);

    cr_assert(getsockname(fd, (struct sockaddr *)&own, &len) == 0, "%s", strerror(errno));
    *ret_unix = own.ss_family == AF_UNIX;
    return *ret_unix ? other_unix_queues(fd) : other_tcp_queues(fd, &own);
}

static uint64_t queue_bytes(int fd, unsigned long request)
{
    int bytes = 0;

    cr_assert(ioctl(fd, request, &bytes) == 0, "ioctl: %s", strerror(errno));
    return (uint64_t)bytes;
}

uint64_t place_unacked(int fd)
{
    return queue_bytes(fd, SIOCOUTQ);
}

uint64_t place_unread(int fd)
{
    return queue_bytes(fd, FIONREAD);
}

struct place place_ask(int sender, int receiver)
{
    bool unix_sender;
    bool unix_receiver;
    struct queues in = other_queues(sender, &unix_sender);
    struct queues out = other_queues(receiver, &unix_receiver);

    return (struct place){
        .unsent = unix_sender ? 0 : place_unacked(sender),
        .untaken = in.unread,
        .unacked = out.unacked,
        .received = place_unread(receiver),
    };
}

bool place_equal(const struct place *a, const struct place *b)
{
    return a->unsent == b->unsent && a->untaken == b->untaken && a->unacked == b->unacked &&
           a->received == b->received;
}

/* --- pipes --- */

static uint64_t bytes_in_pipe(const char *path)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    uint64_t bytes = 0;

    if (fd >= 0) {
        bytes = queue_bytes(fd, FIONREAD);
        (void)close(fd);
    }
    return bytes;
}

/* A worker has both ends of the pipes for its connections, and one end of those to the master and
 * the log: so it is the second sight of an inode that counts. */
struct pipes place_pipes(pid_t worker)
{
    static unsigned long seen[PIPES_MAX];
    size_t seen_count = 0;
    struct pipes pipes = {0};
    char path[320];
    struct dirent *entry;
    DIR *directory;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", worker);
    directory = opendir(path);
    cr_assert(directory != NULL, "worker %d is gone", worker);
    while ((entry = readdir(directory)) != NULL) {
        char target[64] = "";
        unsigned long inode;
        size_t i = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", worker, entry->d_name);
        if (readlink(path, target, sizeof(target) - 1) < 0 ||
            sscanf(target, "pipe:[%lu]", &inode) != 1) {
            continue;
        }
        while (i < seen_count && seen[i] != inode) {
            i++;
        }
        if (i == seen_count) {
            cr_assert(seen_count < PIPES_MAX);
            seen[seen_count++] = inode;
            continue;
        }
        pipes.count += bytes_in_pipe(path) > 0;
        pipes.bytes += bytes_in_pipe(path);
    }
    (void)closedir(directory);
    return pipes;
}
