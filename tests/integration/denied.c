/* System calls that the system refuses for good: a seccomp filter of a container or an old kernel
 * may have no splice(2), or no pipes to spare. sluice then copies, and nobody notices (B42).
 *
 * The filter is installed between fork and exec, so it holds from the first instruction of sluice
 * on, in all its processes, for ever. Calls that fail later in life are among the tests of data.c.
 * No root is needed: a process may always restrict itself. */
#include "support/ends.h"
#include "support/exchange.h"
#include "support/pair.h"
#include "support/peer.h"
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MIB = 1024 * 1024, ANY_ARGUMENT = -1 };

/* A call that is refused; of fcntl(2), one command only. */
struct denial {
    int call;
    int command;
    int error;
    int mode; /* index of splice_names */
    bool splices;
};

static struct denial denial;

static void deny(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)denial.call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)denial.command, 0,
                 denial.command == ANY_ARGUMENT ? 0 : 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)denial.error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
        _exit(126);
    }
}

static bool has_seccomp(void)
{
    return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0;
}

ParameterizedTestParameters(denied, calls_of_the_splice_engine_cost_no_byte)
{
    static struct denial denials[] = {
        {SYS_splice, ANY_ARGUMENT, EINVAL, 0, false}, {SYS_splice, ANY_ARGUMENT, EINVAL, 1, false},
        {SYS_splice, ANY_ARGUMENT, ENOSYS, 0, false}, {SYS_splice, ANY_ARGUMENT, ENOSYS, 1, false},
        {SYS_splice, ANY_ARGUMENT, EPERM, 1, false},  {SYS_fcntl, F_SETPIPE_SZ, EPERM, 1, true},
        {SYS_fcntl, F_SETPIPE_SZ, ENOMEM, 0, true},
    };

    return cr_make_param_array(struct denial, denials, sizeof(denials) / sizeof(denials[0]));
}

/* DI-13, B39, B42. Goal: a system without splice, or that grants no larger pipes, costs no byte and
 * no connection. Method: each call refused from the first one on; bulk in every order. */
ParameterizedTest(struct denial *with, denied, calls_of_the_splice_engine_cost_no_byte)
{
    enum { LEN = 4 * MIB + 1 };
    struct proxy proxy;
    int origin;

    if (!has_seccomp()) {
        cr_skip_test("this kernel has no seccomp");
    }
    denial = *with;
    proxy_init(&proxy);
    proxy.in_child = deny;
    proxy_start_simple(&proxy, (const char *const[]){"--splice", splice_names[with->mode], NULL});
    origin = peer_listen(proxy.ip, ORIGIN_PORT, 8);
    for (enum order order = 0; order < ORDERS; order++) {
        struct pair pair = pair_open(&proxy, origin);

        exchange(&pair, order, 2 * (uint64_t)order, LEN);
        pair_close(&pair);
        expect_exchanged(&proxy, order, order, LEN);
        cr_assert((proxy_number(&proxy, "close", order, "spliced_bytes") > 0) == with->splices);
    }
    peer_close(origin);
    proxy_finish(&proxy, ORDERS);
}
