/* Tests of the plan, second half of its suite: names. The answers come from a small name server of the
 * test's own, so that neither the machine's hosts nor its network matter. */
#include "base/macros.h"
#include "conf/options.h"
#include "proc/exits.h"
#include "proc/plan.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <nss.h>
#include <pthread.h>
#include <resolv.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- a name server --- */

enum { RCODE_OK = 0, RCODE_SERVFAIL = 2, RCODE_NXDOMAIN = 3 };

/* 127.x.y.z from the process id: tests that run at the same time have different ones. */
static uint32_t own_v4(void)
{
    return 0x7f010000 + ((uint32_t)getpid() & 0x3fffff);
}

/* Answers one question: what it is about is told by the first letter of the name.
 *   t(hree)  198.51.100.1, .2 and .3     o(wn)  our own loopback address, and the one behind it
 *   l(ater)  the server has a problem    else   there is no such name */
static size_t answer(unsigned char *message, size_t question_len)
{
    static const unsigned char head[] = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4};
    unsigned type = message[question_len - 3];
    uint32_t first = message[13] == 't' ? 0xc6336401 : own_v4();
    unsigned count = message[13] == 't' ? 3 : message[13] == 'o' ? 2 : 0;
    size_t len = question_len;

    message[2] = 0x85;
    message[3] = 0x80 | (count > 0 ? RCODE_OK : RCODE_NXDOMAIN);
    if (message[13] == 'l') {
        message[3] = 0x80 | RCODE_SERVFAIL;
    }
    memset(message + 6, 0, 6);
    for (unsigned i = 0; type == 1 && i < count; i++) {
        uint32_t address = htonl(first + i);

        memcpy(message + len, head, sizeof(head));
        memcpy(message + len + sizeof(head), &address, sizeof(address));
        len += sizeof(head) + sizeof(address);
        message[7]++;
    }
    return len;
}

static void *serve(void *argument)
{
    int fd = *(int *)argument;

    for (;;) {
        static unsigned char message[1024];
        struct sockaddr_in from;
        socklen_t from_len = sizeof(from);
        ssize_t len = recvfrom(fd, message, 512, 0, (struct sockaddr *)&from, &from_len);

        if (len > 16) {
            (void)sendto(fd, message, answer(message, (size_t)len), 0, (struct sockaddr *)&from,
                         from_len);
        }
    }
    return NULL;
}

static void start_server(void)
{
    static int fd;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(own_v4())};
    socklen_t len = sizeof(address);
    pthread_t thread;

    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0);
    cr_assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    cr_assert(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    cr_assert(__nss_configure_lookup("hosts", "dns") == 0);
    cr_assert(res_init() == 0);
    _res.nscount = 1;
    _res.nsaddr_list[0] = address;
    _res.options = RES_INIT | RES_RECURSE;
    _res.retrans = 5;
    _res.retry = 2;
    cr_assert(pthread_create(&thread, NULL, serve, &fd) == 0);
    cr_assert(pthread_detach(thread) == 0);
}

/* --- a plan from a command line --- */

struct made {
    struct options options;
    struct plan plan;
    int status;
    char *errors; /* owned */
};

/* `first` and `second` (may be NULL) are LISTEN=TARGET. */
static void make(struct made *made, const char *first, const char *second)
{
    char *argv[] = {(char *)(uintptr_t) "sluice", (char *)(uintptr_t)first,
                    (char *)(uintptr_t)second, NULL};
    size_t len;
    FILE *out = open_memstream(&made->errors, &len);

    cr_assert(out != NULL);
    cr_assert(options_parse(second != NULL ? 3 : 2, argv, &made->options, stderr) == 0);
    made->status = plan_make(&made->options.config, &made->plan, out);
    cr_assert(fclose(out) == 0);
}

static void finish(struct made *made)
{
    plan_fini(&made->plan);
    options_fini(&made->options);
    free(made->errors);
}

/* Every address of `pool` once, in any order (libc sorts them), for the targets from `from` on. */
static void assert_targets(const struct plan_pool *pool, size_t from, size_t count,
                           const char *const *texts)
{
    for (size_t i = 0; i < count; i++) {
        bool found = false;

        for (size_t k = from; k < from + count && k < pool->targets_len; k++) {
            char text[ADDR_TEXT_BYTES];

            addr_format(&pool->targets[k].addr, text);
            found = found || strcmp(text, texts[i]) == 0;
        }
        cr_assert(found, "%s is missing", texts[i]);
    }
}

/* --- tests --- */

/* Every address of a name is a target, in the name's place among the others, and has the name that the
 * user wrote. */
Test(plan, makes_every_address_of_a_name_a_target, .init = start_server)
{
    static const char *const addresses[] = {"198.51.100.1:5432", "198.51.100.2:5432",
                                            "198.51.100.3:5432"};
    static const char *const names[] = {"192.0.2.1:1", "three.test:5432", "three.test:5432",
                                        "three.test:5432", "192.0.2.2:2"};
    struct made made;

    make(&made, ":80=192.0.2.1:1,three.test:5432,192.0.2.2:2", NULL);
    cr_assert(made.status == EXIT_STATUS_OK, "%s", made.errors);
    cr_assert(made.plan.pools[0].targets_len == ARRAY_LEN(names));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        cr_assert_str_eq(made.plan.pools[0].targets[i].name, names[i]);
    }
    assert_targets(&made.plan.pools[0], 1, ARRAY_LEN(addresses), addresses);
    finish(&made);
}

/* A name to listen on is listened on at each of its addresses, all for one pool. */
Test(plan, listens_on_every_address_of_a_name, .init = start_server)
{
    struct sock_tuning tuning = {0};
    struct made made;

    make(&made, ":1=192.0.2.1:1", "own.test:17999=192.0.2.1:1");
    cr_assert(made.status == EXIT_STATUS_OK, "%s", made.errors);
    cr_assert(made.plan.listeners_len == 3);
    for (size_t i = 1; i < 3; i++) {
        cr_assert_str_eq(made.plan.listeners[i].name, "own.test:17999");
        cr_assert(made.plan.listeners[i].pool == 1);
        cr_assert(addr_port(&made.plan.listeners[i].addr) == 17999);
    }
    cr_assert(!addr_equal(&made.plan.listeners[1].addr, &made.plan.listeners[2].addr));
    finish(&made);
    make(&made, "own.test:17999=192.0.2.1:1", NULL);
    cr_assert(plan_listen(&made.plan, &tuning, 2, stderr) == 0);
    for (size_t i = 0; i < 2; i++) {
        struct addr bound;

        cr_assert(sock_local_address(plan_listener_fd(&made.plan.listeners[i], 1), &bound) == 0);
        cr_assert(addr_equal(&bound, &made.plan.listeners[i].addr));
    }
    finish(&made);
}

/* A loop is found behind a name, too. */
Test(plan, refuses_a_name_that_is_a_listener, .init = start_server)
{
    static const char *const args[] = {":80=own.test:80", "own.test:80=own.test:80",
                                       "0.0.0.0:80=three.test:80,own.test:80"};

    for (size_t i = 0; i < ARRAY_LEN(args); i++) {
        struct made made;

        make(&made, args[i], NULL);
        cr_assert(made.status == EXIT_STATUS_CONFIG, "%s", args[i]);
        cr_assert(strstr(made.errors, "target \"own.test:80\" of") != NULL, "%s", made.errors);
        finish(&made);
    }
}

/* Names that do not resolve are named, each of them, with the reason; starting again helps only if the
 * name server had a problem. */
Test(plan, reports_names_that_do_not_resolve, .init = start_server)
{
    static const struct {
        const char *first;
        const char *second;
        int status;
        const char *names[2];
    } cases[] = {
        {":80=gone.test:1", NULL, EXIT_STATUS_CONFIG, {"gone.test"}},
        {"gone.test:1=192.0.2.1:1", NULL, EXIT_STATUS_CONFIG, {"gone.test"}},
        {":80=later.test:1", NULL, EXIT_STATUS_FAILURE, {"later.test"}},
        {"later.test:1=192.0.2.1:1", NULL, EXIT_STATUS_FAILURE, {"later.test"}},
        {":80=gone.test:1,192.0.2.1:1,absent.test:1",
         NULL,
         EXIT_STATUS_CONFIG,
         {"gone.test", "absent.test"}},
        {":80=gone.test:1",
         "absent.test:1=192.0.2.1:1",
         EXIT_STATUS_CONFIG,
         {"gone.test", "absent.test"}},
        {":80=three.test:1,later.test:1",
         ":81=later.test:1",
         EXIT_STATUS_FAILURE,
         {"later.test", "later.test"}},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct made made;
        size_t lines = 0;

        make(&made, cases[i].first, cases[i].second);
        cr_assert(made.status == cases[i].status, "row %zu: %d", i, made.status);
        for (const char *at = made.errors; *at != '\0'; at++) {
            lines += *at == '\n';
        }
        for (size_t k = 0; k < 2 && cases[i].names[k] != NULL; k++) {
            char text[128];

            (void)snprintf(text, sizeof(text),
                           ": the name \"%s\" does not resolve: ", cases[i].names[k]);
            cr_assert(strstr(made.errors, text) != NULL, "row %zu: %s", i, made.errors);
            lines--;
        }
        cr_assert(lines == 0, "row %zu: %s", i, made.errors);
        finish(&made);
    }
}

/* With a name that will never resolve, starting again does not help, whatever else may pass: the
 * status says so in whatever order the two come. */
Test(plan, lasting_problem_decides_the_status, .init = start_server)
{
    static const char *const args[][2] = {
        {":80=later.test:1,gone.test:1", NULL},
        {":80=gone.test:1,later.test:1", NULL},
        {":80=later.test:1", ":81=gone.test:1"},
        {":80=gone.test:1", ":81=later.test:1"},
        {":80=gone.test:1", "later.test:1=192.0.2.1:1"},
        {":80=127.0.0.1:80", "later.test:1=192.0.2.1:1"},
    };

    for (size_t i = 0; i < ARRAY_LEN(args); i++) {
        struct made made;

        make(&made, args[i][0], args[i][1]);
        cr_assert(made.status == EXIT_STATUS_CONFIG, "row %zu gives %d:\n%s", i, made.status,
                  made.errors);
        finish(&made);
    }
}
