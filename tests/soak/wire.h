/* Soak: one end of a connection, as a non-blocking socket that checks every byte it receives.
 *
 * The bytes a client sends begin with a header that names the connection, so that the server side
 * knows which one it has accepted; the rest, and all that the server sends, is the stream of a key
 * (support/stream.h). A byte that is lost, doubled, moved or of another connection is therefore
 * seen by whoever receives it. */
#ifndef SOAK_WIRE_H
#define SOAK_WIRE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { WIRE_HEADER_BYTES = 16, WIRE_TEXT_BYTES = 120 };

struct wire_addr {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
    } u;
    socklen_t len;
};

/** "IP:PORT", "[IPV6]:PORT" or "unix:/PATH"; exits on anything else. */
struct wire_addr wire_addr_parse(const char *text);

/** What an end has seen of the other side's end. */
enum seen {
    SEEN_NOTHING,
    SEEN_FIN,
    SEEN_RESET,
    SEEN_LOCAL /* none: this end has reset the connection itself */
};

struct end {
    int fd; /* -1: closed */
    int epoll_fd;
    uint32_t interest; /* what epoll was told, 0: not in it */
    bool is_unix;
    bool connecting;
    void *owner; /* the connection, NULL: a server end whose header has not come yet */
    const void *route;
    struct end *peer; /* NULL: not known yet */
    unsigned char header[WIRE_HEADER_BYTES];
    bool sends_header;
    uint64_t send_key;
    uint64_t receive_key;
    uint64_t sent;
    uint64_t send_limit; /* may be sent now */
    uint64_t received;
    bool fin_wanted; /* FIN behind the byte at send_limit */
    bool fin_sent;
    bool reads; /* false: a reader that has stopped */
    bool send_failed;
    enum seen seen;
    const char *wrong; /* NULL, or what no forwarder may do */
    /* A slow end: at most so many bytes at once, and a pause after them. */
    size_t send_chunk;
    size_t receive_chunk;
    uint64_t send_gap_us;
    uint64_t receive_gap_us;
    uint64_t next_send_us;
    uint64_t next_receive_us;
    uint64_t moved_us;          /* when a byte or an end last moved here */
    char text[WIRE_TEXT_BYTES]; /* address that sluice's record has for it; "-": none */
    struct end *next_anonymous; /* list of server ends without a header */
    struct end *previous_anonymous;
};

/** Microseconds of CLOCK_MONOTONIC. */
uint64_t wire_now_us(void);

/** Fills the header of connection `id`; reads it back, 0 if it is none. */
void wire_header_make(unsigned char header[WIRE_HEADER_BYTES], uint64_t id);
uint64_t wire_header_read(const unsigned char header[WIRE_HEADER_BYTES]);

/** A listening socket, -1 with errno if it can't be. */
int wire_listen(const struct wire_addr *addr);
/** Starts to connect. 0, or the errno of what is refused at once (EAGAIN: a full unix backlog). */
int wire_connect(struct end *end, const struct wire_addr *addr, int receive_buffer_bytes);
/** Makes the kernel hold little for a reader that is slow. */
void wire_shrink(struct end *end, int receive_buffer_bytes);
/** Takes over an accepted socket. */
void wire_adopt(struct end *end, int fd, bool is_unix);

/** Sends and receives what can be, and tells epoll what to wait for. True if something moved. */
bool wire_run(struct end *end, uint64_t now_us);
/** Tells epoll only. */
void wire_wait(struct end *end, uint64_t now_us);
/** Closes with RST (on unix sockets: just closes). */
void wire_reset(struct end *end);
void wire_close(struct end *end);
/** Nothing more is to come of this end. */
bool wire_is_over(const struct end *end);

#endif
