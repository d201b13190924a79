/* One table of armed faults, one array of notes. Each wrapper asks the table (consult), makes the
 * real call unless the answer is there already, and takes a note. */
#include "support/unit/fault.h"

#include "base/clock.h"
#include "base/macros.h"
#include "net/sys.h"

#include <assert.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { FAULTS_MAX = 32, NOTES_MAX = 1 << 18, EVENTS_MAX = 64, TEST_SECONDS_MAX = 60 };

enum kind { KIND_RETURN, KIND_REPLACE, KIND_SHORTEN, KIND_HOOK, KIND_SOCKET_ERROR };

struct fault {
    enum kind kind;
    enum call call;
    int fd;
    uint32_t nth;
    uint32_t times;
    uint32_t seen; /* matching calls so far */
    int64_t value; /* result, length or errno */
    fault_hook_fn *hook;
    void *context;
};

static struct fault faults[FAULTS_MAX];
static size_t faults_len;
static size_t fired;
static const struct fault *watched; /* NULL: none */
static fault_told_fn *told_fn;
static void *told_context;
static struct call_note notes[NOTES_MAX]; /* bss: pages never written cost nothing */
static size_t notes_len;
static struct epoll_event made_up_events[EVENTS_MAX];
static int made_up_events_len = -1;
static uint64_t clock_ahead_ns;
static bool clock_jumped; /* since the last wait, which it would have ended */

const char *call_name(enum call call)
{
    static const char *const names[] = {
        [CALL_SOCKET] = "socket",
        [CALL_ACCEPT] = "accept",
        [CALL_CONNECT] = "connect",
        [CALL_BIND] = "bind",
        [CALL_LISTEN] = "listen",
        [CALL_SET_OPTION] = "set_option",
        [CALL_GET_OPTION] = "get_option",
        [CALL_TCP_INFO] = "tcp_info",
        [CALL_LOCAL_ADDRESS] = "local_address",
        [CALL_RECV] = "recv",
        [CALL_SEND] = "send",
        [CALL_SPLICE_IN] = "splice_in",
        [CALL_SPLICE_OUT] = "splice_out",
        [CALL_READ] = "read",
        [CALL_SHUTDOWN_WRITE] = "shutdown_write",
        [CALL_CLOSE] = "close",
        [CALL_PIPE] = "pipe",
        [CALL_PIPE_RESIZE] = "pipe_resize",
        [CALL_PIPE_SIZE] = "pipe_size",
        [CALL_UNACKNOWLEDGED] = "unacknowledged",
        [CALL_READABLE_BYTES] = "readable_bytes",
        [CALL_EPOLL_CREATE] = "epoll_create",
        [CALL_EPOLL_ADD] = "epoll_add",
        [CALL_EPOLL_REMOVE] = "epoll_remove",
        [CALL_EPOLL_WAIT] = "epoll_wait",
    };
    static_assert(ARRAY_LEN(names) == CALLS, "every call has a name");

    cr_assert(call < CALLS);
    return names[call];
}

void fault_disarm(void)
{
    faults_len = 0;
    made_up_events_len = -1;
}

void fault_clear(void)
{
    fault_disarm();
    fired = 0;
    notes_len = 0;
    watched = NULL;
}

static void arm(struct fault fault)
{
    cr_assert(faults_len < FAULTS_MAX, "no more than %d faults at once", FAULTS_MAX);
    cr_assert(fault.nth > 0, "calls are counted from 1");
    faults[faults_len++] = fault;
}

void fault_fail(enum call call, int fd, uint32_t nth, uint32_t times, int error)
{
    fault_return(call, fd, nth, times, -error);
}

void fault_return(enum call call, int fd, uint32_t nth, uint32_t times, int64_t result)
{
    arm((struct fault){
        .kind = KIND_RETURN, .call = call, .fd = fd, .nth = nth, .times = times, .value = result});
}

void fault_replace(enum call call, int fd, uint32_t nth, uint32_t times, int64_t result)
{
    arm((struct fault){
        .kind = KIND_REPLACE, .call = call, .fd = fd, .nth = nth, .times = times, .value = result});
}

void fault_shorten(enum call call, int fd, uint32_t nth, uint32_t times, size_t len)
{
    cr_assert(len > 0, "a call that moves nothing is no short count");
    arm((struct fault){.kind = KIND_SHORTEN,
                       .call = call,
                       .fd = fd,
                       .nth = nth,
                       .times = times,
                       .value = (int64_t)len});
}

void fault_hook(enum call call, int fd, uint32_t nth, uint32_t times, fault_hook_fn *hook,
                void *context)
{
    arm((struct fault){.kind = KIND_HOOK,
                       .call = call,
                       .fd = fd,
                       .nth = nth,
                       .times = times,
                       .hook = hook,
                       .context = context});
}

void fault_socket_error(int fd, uint32_t nth, int error)
{
    arm((struct fault){.kind = KIND_SOCKET_ERROR,
                       .call = CALL_GET_OPTION,
                       .fd = fd,
                       .nth = nth,
                       .times = 1,
                       .value = error});
}

void fault_events(const struct epoll_event *events, int events_len)
{
    cr_assert(events_len <= EVENTS_MAX);
    memcpy(made_up_events, events, (size_t)events_len * sizeof(*events));
    made_up_events_len = events_len;
}

size_t fault_fired(void)
{
    return fired;
}

void fault_watch(fault_told_fn *told, void *context)
{
    cr_assert(faults_len < FAULTS_MAX);
    watched = &faults[faults_len];
    told_fn = told;
    told_context = context;
}

bool fault_reached(void)
{
    return watched != NULL && watched < &faults[faults_len] && watched->seen >= watched->nth;
}

static bool is_noted(const struct call_note *note, enum call call, int fd)
{
    return note->call == call && (fd == ANY_FD || note->fd == fd);
}

size_t fault_count(enum call call, int fd)
{
    size_t count = 0;

    for (size_t i = 0; i < notes_len; i++) {
        count += is_noted(&notes[i], call, fd);
    }
    return count;
}

size_t fault_count_good(enum call call, int fd)
{
    size_t count = 0;

    for (size_t i = 0; i < notes_len; i++) {
        count += is_noted(&notes[i], call, fd) && notes[i].result >= 0;
    }
    return count;
}

size_t fault_notes_len(void)
{
    return notes_len;
}

void fault_forget_notes(void)
{
    notes_len = 0;
}

const struct call_note *fault_note(size_t index)
{
    cr_assert(index < notes_len);
    return &notes[index];
}

const struct call_note *fault_last(enum call call, int fd)
{
    for (size_t i = notes_len; i > 0; i--) {
        if (is_noted(&notes[i - 1], call, fd)) {
            return &notes[i - 1];
        }
    }
    cr_assert_fail("%s was never called on descriptor %d", call_name(call), fd);
    return NULL;
}

void bound_test_time(void)
{
    static bool is_bound;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGABRT};
    struct itimerspec limit = {.it_value.tv_sec = TEST_SECONDS_MAX};
    timer_t id;

    if (!is_bound) {
        cr_assert(timer_create(CLOCK_MONOTONIC, &event, &id) == 0);
        cr_assert(timer_settime(id, 0, &limit, NULL) == 0);
        is_bound = true;
    }
}

void fault_clock_advance(uint64_t duration_ns)
{
    clock_ahead_ns += duration_ns;
    clock_jumped = true;
}

/* --- what the wrappers share --- */

/* What a wrapper is to do. */
struct verdict {
    const struct fault *fault; /* the one that decides, NULL: none */
    size_t len;                /* to ask for */
};

static bool applies(struct fault *fault, enum call call, int fd)
{
    if (fault->call != call || (fault->fd != ANY_FD && fault->fd != fd)) {
        return false;
    }
    fault->seen++;
    return fault->seen >= fault->nth && fault->seen - fault->nth < fault->times;
}

static struct verdict consult(enum call call, int fd, size_t len)
{
    struct verdict verdict = {.len = len};

    for (size_t i = 0; i < faults_len; i++) {
        if (!applies(&faults[i], call, fd)) {
            continue;
        }
        if (faults[i].kind == KIND_HOOK) {
            faults[i].hook(faults[i].context);
        } else if (verdict.fault == NULL) {
            verdict.fault = &faults[i];
        }
    }
    if (verdict.fault != NULL && verdict.fault->kind == KIND_SHORTEN) {
        if ((size_t)verdict.fault->value >= len) {
            verdict.fault = NULL; /* short of nothing */
        } else {
            verdict.len = (size_t)verdict.fault->value;
        }
    }
    if (verdict.fault != NULL) {
        fired++;
    }
    return verdict;
}

static bool is_made_up(struct verdict verdict)
{
    return verdict.fault != NULL && verdict.fault->kind == KIND_RETURN;
}

static bool is_connected(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);

    return getpeername(fd, (struct sockaddr *)&peer, &len) == 0;
}

/* Only a call that went well is given another result; to say that a connect is done when it is not
 * would be a lie that no kernel tells. */
static bool may_be_replaced(enum call call, int fd, struct verdict verdict, int64_t result)
{
    if (verdict.fault == NULL || verdict.fault->kind != KIND_REPLACE) {
        return false;
    }
    if (call == CALL_CONNECT) {
        return (result == 0 || result == -EINPROGRESS) &&
               (verdict.fault->value != 0 || is_connected(fd));
    }
    return result >= 0;
}

static bool has_changed(struct verdict verdict, int64_t result)
{
    return verdict.fault != NULL &&
           ((verdict.fault->kind != KIND_SHORTEN && verdict.fault->kind != KIND_REPLACE) ||
            result == verdict.fault->value);
}

static int64_t take_note(enum call call, int fd, int64_t len, struct verdict verdict,
                         int64_t result)
{
    cr_assert(notes_len < NOTES_MAX, "too many calls to note: call fault_clear() now and then");
    if (may_be_replaced(call, fd, verdict, result)) {
        result = verdict.fault->value;
    }
    notes[notes_len++] = (struct call_note){call, fd, len, result, verdict.fault != NULL};
    if (watched != NULL && verdict.fault == watched && has_changed(verdict, result)) {
        told_fn(told_context, &notes[notes_len - 1]);
    }
    return result;
}

/* Consults the table, makes the call if it is still to be made, and returns the noted result. */
#define SCRIPTED(type, call, fd, asked_len, real)                                                  \
    do {                                                                                           \
        struct verdict verdict = consult(call, fd, (size_t)(asked_len));                           \
        int64_t result = is_made_up(verdict) ? verdict.fault->value : (int64_t)(real);             \
                                                                                                   \
        return (type)take_note(call, fd, (int64_t)(asked_len), verdict, result);                   \
    } while (0)

/* --- the wrappers --- */

int __real_sys_socket(int family);
int __wrap_sys_socket(int family);
int __wrap_sys_socket(int family)
{
    SCRIPTED(int, CALL_SOCKET, -1, 0, __real_sys_socket(family));
}

int __real_sys_accept(int fd, struct sockaddr *address, socklen_t *address_len);
int __wrap_sys_accept(int fd, struct sockaddr *address, socklen_t *address_len);
int __wrap_sys_accept(int fd, struct sockaddr *address, socklen_t *address_len)
{
    SCRIPTED(int, CALL_ACCEPT, fd, 0, __real_sys_accept(fd, address, address_len));
}

int __real_sys_connect(int fd, const struct sockaddr *address, socklen_t address_len);
int __wrap_sys_connect(int fd, const struct sockaddr *address, socklen_t address_len);
int __wrap_sys_connect(int fd, const struct sockaddr *address, socklen_t address_len)
{
    SCRIPTED(int, CALL_CONNECT, fd, 0, __real_sys_connect(fd, address, address_len));
}

int __real_sys_bind(int fd, const struct sockaddr *address, socklen_t address_len);
int __wrap_sys_bind(int fd, const struct sockaddr *address, socklen_t address_len);
int __wrap_sys_bind(int fd, const struct sockaddr *address, socklen_t address_len)
{
    SCRIPTED(int, CALL_BIND, fd, 0, __real_sys_bind(fd, address, address_len));
}

int __real_sys_listen(int fd, int backlog);
int __wrap_sys_listen(int fd, int backlog);
int __wrap_sys_listen(int fd, int backlog)
{
    SCRIPTED(int, CALL_LISTEN, fd, backlog, __real_sys_listen(fd, backlog));
}

int __real_sys_set_option(int fd, int level, int name, const void *value, socklen_t value_len);
int __wrap_sys_set_option(int fd, int level, int name, const void *value, socklen_t value_len);
int __wrap_sys_set_option(int fd, int level, int name, const void *value, socklen_t value_len)
{
    SCRIPTED(int, CALL_SET_OPTION, fd, name,
             __real_sys_set_option(fd, level, name, value, value_len));
}

int __real_sys_get_option(int fd, int level, int name, void *value, socklen_t *value_len);
int __wrap_sys_get_option(int fd, int level, int name, void *value, socklen_t *value_len);
int __wrap_sys_get_option(int fd, int level, int name, void *value, socklen_t *value_len)
{
    bool asks_error = level == SOL_SOCKET && name == SO_ERROR;
    enum call call = asks_error ? CALL_GET_OPTION : CALL_TCP_INFO;
    struct verdict verdict = consult(call, fd, 0);
    int64_t result;

    if (is_made_up(verdict)) {
        result = verdict.fault->value;
    } else {
        result = __real_sys_get_option(fd, level, name, value, value_len);
    }
    if (verdict.fault != NULL && verdict.fault->kind == KIND_SOCKET_ERROR && result == 0) {
        int error = (int)verdict.fault->value;

        memcpy(value, &error, sizeof(error));
    }
    return (int)take_note(call, fd, name, verdict, result);
}

int __real_sys_local_address(int fd, struct sockaddr *address, socklen_t *address_len);
int __wrap_sys_local_address(int fd, struct sockaddr *address, socklen_t *address_len);
int __wrap_sys_local_address(int fd, struct sockaddr *address, socklen_t *address_len)
{
    SCRIPTED(int, CALL_LOCAL_ADDRESS, fd, 0, __real_sys_local_address(fd, address, address_len));
}

ssize_t __real_sys_recv(int fd, void *bytes, size_t len);
ssize_t __wrap_sys_recv(int fd, void *bytes, size_t len);
ssize_t __wrap_sys_recv(int fd, void *bytes, size_t len)
{
    SCRIPTED(ssize_t, CALL_RECV, fd, len, __real_sys_recv(fd, bytes, verdict.len));
}

ssize_t __real_sys_send(int fd, const void *bytes, size_t len, bool fin_follows);
ssize_t __wrap_sys_send(int fd, const void *bytes, size_t len, bool fin_follows);
ssize_t __wrap_sys_send(int fd, const void *bytes, size_t len, bool fin_follows)
{
    SCRIPTED(ssize_t, CALL_SEND, fd, len, __real_sys_send(fd, bytes, verdict.len, fin_follows));
}

static bool is_pipe(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISFIFO(status.st_mode);
}

ssize_t __real_sys_splice(int from_fd, int to_fd, size_t len);
ssize_t __wrap_sys_splice(int from_fd, int to_fd, size_t len);
ssize_t __wrap_sys_splice(int from_fd, int to_fd, size_t len)
{
    bool out = is_pipe(from_fd);

    SCRIPTED(ssize_t, out ? CALL_SPLICE_OUT : CALL_SPLICE_IN, out ? to_fd : from_fd, len,
             __real_sys_splice(from_fd, to_fd, verdict.len));
}

ssize_t __real_sys_read(int fd, void *bytes, size_t len);
ssize_t __wrap_sys_read(int fd, void *bytes, size_t len);
ssize_t __wrap_sys_read(int fd, void *bytes, size_t len)
{
    SCRIPTED(ssize_t, CALL_READ, fd, len, __real_sys_read(fd, bytes, verdict.len));
}

int __real_sys_shutdown_write(int fd);
int __wrap_sys_shutdown_write(int fd);
int __wrap_sys_shutdown_write(int fd)
{
    SCRIPTED(int, CALL_SHUTDOWN_WRITE, fd, 0, __real_sys_shutdown_write(fd));
}

void __real_sys_close(int fd);
void __wrap_sys_close(int fd);
void __wrap_sys_close(int fd)
{
    struct verdict verdict = consult(CALL_CLOSE, fd, 0);

    __real_sys_close(fd); /* the descriptor is gone whatever close(2) says */
    (void)take_note(CALL_CLOSE, fd, 0, verdict, 0);
}

int __real_sys_pipe(int fds[2]);
int __wrap_sys_pipe(int fds[2]);
int __wrap_sys_pipe(int fds[2])
{
    SCRIPTED(int, CALL_PIPE, -1, 0, __real_sys_pipe(fds));
}

int __real_sys_pipe_resize(int fd, int size_bytes);
int __wrap_sys_pipe_resize(int fd, int size_bytes);
int __wrap_sys_pipe_resize(int fd, int size_bytes)
{
    SCRIPTED(int, CALL_PIPE_RESIZE, fd, size_bytes, __real_sys_pipe_resize(fd, size_bytes));
}

int __real_sys_pipe_size(int fd);
int __wrap_sys_pipe_size(int fd);
int __wrap_sys_pipe_size(int fd)
{
    SCRIPTED(int, CALL_PIPE_SIZE, fd, 0, __real_sys_pipe_size(fd));
}

int __real_sys_unacknowledged(int fd);
int __wrap_sys_unacknowledged(int fd);
int __wrap_sys_unacknowledged(int fd)
{
    SCRIPTED(int, CALL_UNACKNOWLEDGED, fd, 0, __real_sys_unacknowledged(fd));
}

int __real_sys_readable_bytes(int fd);
int __wrap_sys_readable_bytes(int fd);
int __wrap_sys_readable_bytes(int fd)
{
    SCRIPTED(int, CALL_READABLE_BYTES, fd, 0, __real_sys_readable_bytes(fd));
}

int __real_sys_epoll_create(void);
int __wrap_sys_epoll_create(void);
int __wrap_sys_epoll_create(void)
{
    SCRIPTED(int, CALL_EPOLL_CREATE, -1, 0, __real_sys_epoll_create());
}

int __real_sys_epoll_add(int epoll_fd, int fd, uint32_t events, void *data);
int __wrap_sys_epoll_add(int epoll_fd, int fd, uint32_t events, void *data);
int __wrap_sys_epoll_add(int epoll_fd, int fd, uint32_t events, void *data)
{
    SCRIPTED(int, CALL_EPOLL_ADD, fd, events, __real_sys_epoll_add(epoll_fd, fd, events, data));
}

int __real_sys_epoll_remove(int epoll_fd, int fd);
int __wrap_sys_epoll_remove(int epoll_fd, int fd);
int __wrap_sys_epoll_remove(int epoll_fd, int fd)
{
    SCRIPTED(int, CALL_EPOLL_REMOVE, fd, 0, __real_sys_epoll_remove(epoll_fd, fd));
}

int __real_sys_epoll_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms);

static int wait_for_events(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms)
{
    int count = made_up_events_len;

    if (count < 0) {
        if (clock_jumped && timeout_ms > 0) {
            timeout_ms = 0;
        }
        clock_jumped = false;
        return __real_sys_epoll_wait(epoll_fd, events, events_max, timeout_ms);
    }
    cr_assert(count <= events_max);
    memcpy(events, made_up_events, (size_t)count * sizeof(*events));
    made_up_events_len = -1;
    return count;
}

int __wrap_sys_epoll_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms);
int __wrap_sys_epoll_wait(int epoll_fd, struct epoll_event *events, int events_max, int timeout_ms)
{
    struct verdict verdict = consult(CALL_EPOLL_WAIT, epoll_fd, (size_t)events_max);
    int64_t result = is_made_up(verdict)
                         ? verdict.fault->value
                         : wait_for_events(epoll_fd, events, (int)verdict.len, timeout_ms);

    return (int)take_note(CALL_EPOLL_WAIT, epoll_fd, timeout_ms, verdict, result);
}

uint64_t __real_clock_monotonic_ns(void);
uint64_t __wrap_clock_monotonic_ns(void);
uint64_t __wrap_clock_monotonic_ns(void)
{
    return __real_clock_monotonic_ns() + clock_ahead_ns;
}
