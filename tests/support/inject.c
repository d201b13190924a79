/* A seccomp filter that is installed between fork and exec, and a thread that answers for it.
 *
 * The filter is inherited by every process that sluice starts, so the end of the listener
 * (POLLHUP) is the proof that no process of it is left. */
#include "support/inject.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PROCESSES_MAX = 64, WAIT_MS = 30000 };

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#endif

/* One sluice at a time. */
static struct {
    int calls[INJECT_CALLS_MAX];
    size_t calls_len;
    int channel[2]; /* the child sends its listener through it */
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    struct inject_fault fault;
    bool armed;
    bool started; /* main() has begun */
    pid_t master;
    unsigned seen;
    unsigned hits;
    pid_t victim;
    struct {
        pid_t pid;
        unsigned seen;
    } processes[PROCESSES_MAX];
    size_t processes_len;
} inject = {.lock = PTHREAD_MUTEX_INITIALIZER, .channel = {-1, -1}};

/* --- in the child --- */

static int install_filter(void)
{
    struct sock_filter code[INJECT_CALLS_MAX + 6];
    struct sock_fprog program = {.filter = code};
    unsigned short n = 0;

    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < inject.calls_len; i++) {
        code[n++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)inject.calls[i],
                                         (unsigned char)(inject.calls_len - i), 0);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    program.len = n;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                        SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
                        &program);
}

static void send_listener(int listener)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    char byte = 'l';
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &listener, sizeof(int));
    if (sendmsg(inject.channel[1], &message, 0) != 1) {
        _exit(125);
    }
}

static void enter_filter(void)
{
    int listener;

    if (geteuid() != 0) {
        (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    }
    listener = install_filter();
    if (listener < 0) {
        (void)dprintf(STDERR_FILENO, "seccomp: %s\n", strerror(errno));
        _exit(125);
    }
    send_listener(listener);
    (void)close(listener);
}

/* --- the thread that answers --- */

static int receive_listener(void)
{
    char control[CMSG_SPACE(sizeof(int))];
    char byte;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header;
    int listener;

    if (recvmsg(inject.channel[0], &message, MSG_CMSG_CLOEXEC) != 1) {
        return -1;
    }
    header = CMSG_FIRSTHDR(&message);
    if (header == NULL) {
        return -1;
    }
    memcpy(&listener, CMSG_DATA(header), sizeof(listener));
    return listener;
}

/* The first thing that main() does is to open /dev/null. */
static bool is_first_of_main(const struct seccomp_notif *call)
{
    static const char wanted[] = "/dev/null";
    char path[sizeof(wanted)] = "";
    struct iovec here = {.iov_base = path, .iov_len = sizeof(path)};
    struct iovec there = {.iov_base = (void *)(uintptr_t)call->data.args[1],
                          .iov_len = sizeof(path)};

    return call->data.nr == SYS_openat &&
           process_vm_readv((pid_t)call->pid, &here, 1, &there, 1, 0) == (ssize_t)sizeof(path) &&
           memcmp(path, wanted, sizeof(wanted)) == 0;
}

static unsigned count_for(pid_t pid)
{
    for (size_t i = 0; i < inject.processes_len; i++) {
        if (inject.processes[i].pid == pid) {
            return ++inject.processes[i].seen;
        }
    }
    if (inject.processes_len < PROCESSES_MAX) {
        inject.processes[inject.processes_len].pid = pid;
        inject.processes[inject.processes_len++].seen = 1;
    }
    return 1;
}

/* The errno this call is to fail with, 0: none. */
static int judge(const struct seccomp_notif *call)
{
    const struct inject_fault *fault = &inject.fault;
    bool is_master;
    unsigned number;

    if (!inject.started) {
        inject.started = is_first_of_main(call);
        inject.master = (pid_t)call->pid;
    }
    is_master = (pid_t)call->pid == inject.master;
    if (!inject.started || !inject.armed || call->data.nr != fault->call ||
        (fault->argument_index >= 0 && call->data.args[fault->argument_index] != fault->argument) ||
        (fault->whose == INJECT_MASTER && !is_master) ||
        (fault->whose >= INJECT_CHILDREN && is_master)) {
        return 0;
    }
    inject.seen++;
    number = fault->whose == INJECT_EACH_CHILD ? count_for((pid_t)call->pid) : inject.seen;
    if (number != fault->nth &&
        (fault->every == 0 || number < fault->nth || (number - fault->nth) % fault->every != 0)) {
        return 0;
    }
    inject.hits++;
    inject.victim = (pid_t)call->pid;
    return fault->error;
}

static void answer(int listener)
{
    struct seccomp_notif call;
    struct seccomp_notif_resp response;
    int error;

    memset(&call, 0, sizeof(call));
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) < 0) {
        return; /* who called is gone */
    }
    pthread_mutex_lock(&inject.lock);
    error = judge(&call);
    pthread_mutex_unlock(&inject.lock);
    response = (struct seccomp_notif_resp){
        .id = call.id,
        .error = -error,
        .flags = error == 0 ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0,
    };
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response); /* fails if it is gone now */
}

static void *serve(void *unused)
{
    int listener = receive_listener();

    (void)unused;
    while (listener >= 0) {
        struct pollfd poller = {.fd = listener, .events = POLLIN};

        if (poll(&poller, 1, -1) < 0 && errno != EINTR) {
            break;
        }
        if ((poller.revents & POLLIN) != 0) {
            answer(listener);
        } else if ((poller.revents & (POLLHUP | POLLERR)) != 0) {
            break;
        }
    }
    if (listener >= 0) {
        (void)close(listener);
    }
    return NULL;
}

/* --- for tests --- */

static void need_user_notification(void)
{
    unsigned action = SECCOMP_RET_USER_NOTIF;

    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0) {
        cr_skip_test("the kernel has no seccomp user notification");
    }
}

void inject_watch(struct proxy *proxy, const int calls[], size_t count)
{
    need_user_notification();
    cr_assert(count + 1 <= INJECT_CALLS_MAX);
    memcpy(inject.calls, calls, count * sizeof(calls[0]));
    inject.calls[count] = SYS_openat; /* tells that main() has begun */
    inject.calls_len = count + 1;
    inject.started = false;
    inject.armed = false;
    cr_assert(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, inject.channel) == 0);
    cr_assert(pthread_create(&inject.thread, NULL, serve, NULL) == 0);
    proxy->in_child = enter_filter;
}

void inject_arm(const struct inject_fault *fault)
{
    pthread_mutex_lock(&inject.lock);
    inject.fault = *fault;
    inject.armed = true;
    inject.seen = 0;
    inject.hits = 0;
    inject.victim = 0;
    inject.processes_len = 0;
    pthread_mutex_unlock(&inject.lock);
}

void inject_disarm(void)
{
    pthread_mutex_lock(&inject.lock);
    inject.armed = false;
    pthread_mutex_unlock(&inject.lock);
}

unsigned inject_hits(void)
{
    unsigned hits;

    pthread_mutex_lock(&inject.lock);
    hits = inject.hits;
    pthread_mutex_unlock(&inject.lock);
    return hits;
}

unsigned inject_seen(void)
{
    unsigned seen;

    pthread_mutex_lock(&inject.lock);
    seen = inject.seen;
    pthread_mutex_unlock(&inject.lock);
    return seen;
}

pid_t inject_victim(void)
{
    pid_t victim;

    pthread_mutex_lock(&inject.lock);
    victim = inject.victim;
    pthread_mutex_unlock(&inject.lock);
    return victim;
}

void inject_wait_for_end(void)
{
    struct timespec until;

    (void)close(inject.channel[1]); /* the thread's only other way out, if nobody ever came */
    cr_assert(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += WAIT_MS / 1000;
    cr_assert(pthread_timedjoin_np(inject.thread, NULL, &until) == 0,
              "a process of sluice is still there");
    (void)close(inject.channel[0]);
}
