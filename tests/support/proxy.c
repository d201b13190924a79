/* Starting the real binary and reading back what it says.
 *
 * The oracles are in proxy_finish(). "No CPU while quiet" needs a stretch of time and therefore the
 * only fixed wait of the harness: QUIET_MS, in which idle processes may use no more than a tick. */
#include "support/proxy.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    WAIT_MS = 30000,   /* bound of every wait */
    QUIET_MS = 200,    /* how long sluice must be idle at the end of a test */
    QUIET_CPU_MS = 60, /* what its processes may use in that time; a spin uses all of it */
    ARGUMENTS_MAX = 64
};

static uint64_t now_ms(void)
{
    struct timespec now;

    cr_assert(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void wait_ms(long ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    (void)nanosleep(&pause, NULL);
}

void proxy_init(struct proxy *proxy)
{
    unsigned id = (unsigned)getpid();

    memset(proxy, 0, sizeof(*proxy));
    proxy->log_fd = -1;
    (void)snprintf(proxy->ip, sizeof(proxy->ip), "127.%u.%u.%u", 1 + (id >> 14) % 250,
                   (id >> 7) & 127, 1 + (id & 127));
    (void)snprintf(proxy->arg, sizeof(proxy->arg), "%s:%d=%s:%d", proxy->ip, PROXY_PORT, proxy->ip,
                   ORIGIN_PORT);
}

static const char *binary(void)
{
    const char *path = getenv("SLUICE_BIN");

    return path != NULL ? path : "build/debug/sluice";
}

static void spawn(struct proxy *proxy, const char *const arguments[])
{
    char *argv[ARGUMENTS_MAX] = {(char *)(uintptr_t) "sluice"};
    int exe_fd;
    int fds[2];

    for (size_t i = 0; arguments[i] != NULL; i++) {
        cr_assert(i + 2 < ARGUMENTS_MAX);
        argv[i + 1] = (char *)(uintptr_t)arguments[i];
    }
    exe_fd = open(binary(), O_RDONLY | O_CLOEXEC);
    cr_assert(pipe2(fds, O_CLOEXEC) == 0);
    (void)fcntl(fds[0], F_SETPIPE_SZ, 1 << 20);
    proxy->pid = fork();
    cr_assert(proxy->pid >= 0);
    if (proxy->pid == 0) {
        (void)dup2(fds[1], STDERR_FILENO);
        if (proxy->in_child != NULL) {
            proxy->in_child();
        }
        /* A test that dies must not leave a sluice behind. (A change of user would undo this.) */
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(binary(), argv);
        /* A user who can't reach the path can still run the file. */
        (void)fexecve(exe_fd, argv, environ);
        (void)dprintf(STDERR_FILENO, "can't execute %s: %s\n", binary(), strerror(errno));
        _exit(127);
    }
    (void)close(fds[1]);
    (void)close(exe_fd);
    proxy->log_fd = fds[0];
    proxy->running = true;
    if (proxy->log == NULL) {
        proxy->log = strdup("");
    }
}

/* Reads what has come, waiting at most `wait`; false at the end of the log. */
static bool read_log(struct proxy *proxy, int wait)
{
    struct pollfd poller = {.fd = proxy->log_fd, .events = POLLIN};
    char bytes[65536];
    ssize_t len;

    if (poll(&poller, 1, wait) != 1) {
        return true;
    }
    len = read(proxy->log_fd, bytes, sizeof(bytes));
    cr_assert(len >= 0, "reading the log: %s", strerror(errno));
    proxy->log = realloc(proxy->log, proxy->log_len + (size_t)len + 1);
    cr_assert(proxy->log != NULL);
    memcpy(proxy->log + proxy->log_len, bytes, (size_t)len);
    proxy->log_len += (size_t)len;
    proxy->log[proxy->log_len] = '\0';
    return len > 0;
}

/* True for `TIMESTAMP EVENT key=value ...` and `{"ts":"...","event":"EVENT","key":value ...`. */
static bool is_event(const char *line, const char *end, const char *event)
{
    static const char json[] = "\"event\":\"";
    bool is_json = line[0] == '{';
    const char *word = is_json ? memmem(line, (size_t)(end - line), json, sizeof(json) - 1)
                               : memchr(line, ' ', (size_t)(end - line));
    size_t len = strlen(event);

    if (word == NULL) {
        return false;
    }
    word += is_json ? sizeof(json) - 1 : 1;
    return strncmp(word, event, len) == 0 && strchr(is_json ? "\"" : " \n", word[len]) != NULL;
}

/* The index-th line of an event; NULL if there is none. */
static const char *find_line(const struct proxy *proxy, const char *event, size_t index)
{
    const char *line = proxy->log;

    while (line != NULL && *line != '\0') {
        const char *end = strchr(line, '\n');

        if (end == NULL) {
            return NULL; /* not complete yet */
        }
        if (is_event(line, end, event) && index-- == 0) {
            return line;
        }
        line = end + 1;
    }
    return NULL;
}

size_t proxy_count_event(struct proxy *proxy, const char *event)
{
    size_t count = 0;

    (void)read_log(proxy, 0);
    while (find_line(proxy, event, count) != NULL) {
        count++;
    }
    return count;
}

void proxy_wait_event(struct proxy *proxy, const char *event, size_t count)
{
    uint64_t deadline = now_ms() + WAIT_MS;

    while (count > 0 && find_line(proxy, event, count - 1) == NULL) {
        cr_assert(now_ms() < deadline, "no %zu lines \"%s\" in the log:\n%s", count, event,
                  proxy->log);
        cr_assert(read_log(proxy, 1000), "the log ended before %zu lines \"%s\":\n%s", count, event,
                  proxy->log);
    }
}

void proxy_field(const struct proxy *proxy, const char *event, size_t index, const char *key,
                 char value[PROXY_FIELD_BYTES])
{
    const char *line = find_line(proxy, event, index);
    char pattern[64];
    const char *end;
    const char *found;
    size_t len;

    cr_assert(line != NULL, "no line %zu of \"%s\" in the log:\n%s", index, event, proxy->log);
    end = strchr(line, '\n');
    if (line[0] == '{') {
        (void)snprintf(pattern, sizeof(pattern), ",\"%s\":", key);
    } else {
        (void)snprintf(pattern, sizeof(pattern), " %s=", key);
    }
    found = strstr(line, pattern);
    value[0] = '\0';
    if (found == NULL || found > end) {
        return;
    }
    found += strlen(pattern);
    if (*found == '"') {
        found++;
        len = strcspn(found, "\"");
    } else {
        len = strcspn(found, line[0] == '{' ? ",}" : " \n");
    }
    cr_assert(len < PROXY_FIELD_BYTES);
    memcpy(value, found, len);
    value[len] = '\0';
}

uint64_t proxy_number(const struct proxy *proxy, const char *event, size_t index, const char *key)
{
    char value[PROXY_FIELD_BYTES];

    proxy_field(proxy, event, index, key, value);
    return strtoull(value, NULL, 10);
}

void proxy_expect_field(const struct proxy *proxy, const char *event, size_t index, const char *key,
                        const char *value)
{
    char found[PROXY_FIELD_BYTES];

    proxy_field(proxy, event, index, key, found);
    cr_assert(strcmp(found, value) == 0, "%s=%s expected, found \"%s\" in the log:\n%s", key, value,
              found, find_line(proxy, event, index));
}

static void read_comm(pid_t pid, char comm[32])
{
    char path[64];
    FILE *file;

    comm[0] = '\0';
    (void)snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    file = fopen(path, "re");
    if (file != NULL) {
        if (fgets(comm, 32, file) != NULL) {
            comm[strcspn(comm, "\n")] = '\0';
        }
        (void)fclose(file);
    }
}

size_t proxy_child_pids(const struct proxy *proxy, pid_t pids[PROXY_WORKERS_MAX + 1])
{
    char path[64];
    size_t count = 0;
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", proxy->pid, proxy->pid);
    file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    while (count < PROXY_WORKERS_MAX + 1 && fscanf(file, "%d", &pids[count]) == 1) {
        count++;
    }
    (void)fclose(file);
    return count;
}

size_t proxy_worker_pids(const struct proxy *proxy, pid_t pids[PROXY_WORKERS_MAX])
{
    pid_t children[PROXY_WORKERS_MAX + 1];
    size_t total = proxy_child_pids(proxy, children);
    size_t count = 0;

    for (size_t i = 0; i < total && count < PROXY_WORKERS_MAX; i++) {
        char comm[32];

        read_comm(children[i], comm);
        if (strcmp(comm, "sluice-worker") == 0) {
            pids[count++] = children[i];
        }
    }
    return count;
}

/* Sockets that a process holds. */
static size_t count_sockets(pid_t pid)
{
    char path[320];
    size_t count = 0;
    struct dirent *entry;
    DIR *directory;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    directory = opendir(path);
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        char target[64] = "";

        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, entry->d_name);
        if (readlink(path, target, sizeof(target) - 1) > 0) {
            count += strncmp(target, "socket:", 7) == 0;
        }
    }
    if (directory != NULL) {
        (void)closedir(directory);
    }
    return count;
}

static size_t count_worker_sockets(const struct proxy *proxy)
{
    pid_t pids[PROXY_WORKERS_MAX];
    size_t workers = proxy_worker_pids(proxy, pids);
    size_t count = 0;

    for (size_t i = 0; i < workers; i++) {
        count += count_sockets(pids[i]);
    }
    return count;
}

static uint64_t process_cpu_ms(pid_t pid)
{
    unsigned long user = 0;
    unsigned long system = 0;
    char path[64];
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    if (fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
               &system) != 2) {
        user = 0;
    }
    (void)fclose(file);
    return (user + system) * 1000 / (unsigned long)sysconf(_SC_CLK_TCK);
}

uint64_t proxy_cpu_ms(const struct proxy *proxy)
{
    pid_t pids[PROXY_WORKERS_MAX + 1];
    size_t children = proxy_child_pids(proxy, pids);
    uint64_t sum = process_cpu_ms(proxy->pid);

    for (size_t i = 0; i < children; i++) {
        sum += process_cpu_ms(pids[i]);
    }
    return sum;
}

uint64_t proxy_pss_kib(const struct proxy *proxy)
{
    pid_t pids[PROXY_WORKERS_MAX];
    size_t workers = proxy_worker_pids(proxy, pids);
    uint64_t sum = 0;

    for (size_t i = 0; i < workers; i++) {
        char text[256];
        FILE *file;

        (void)snprintf(text, sizeof(text), "/proc/%d/smaps_rollup", pids[i]);
        file = fopen(text, "re");
        while (file != NULL && fgets(text, sizeof(text), file) != NULL) {
            unsigned long kib;

            if (sscanf(text, "Pss: %lu kB", &kib) == 1) {
                sum += kib;
            }
        }
        if (file != NULL) {
            (void)fclose(file);
        }
    }
    return sum;
}

static bool has_option(const char *const arguments[], const char *option)
{
    for (size_t i = 0; arguments[i] != NULL; i++) {
        if (strcmp(arguments[i], option) == 0) {
            return true;
        }
    }
    return false;
}

static void wait_for_workers(const struct proxy *proxy)
{
    uint64_t deadline = now_ms() + WAIT_MS;
    pid_t pids[PROXY_WORKERS_MAX];

    /* A worker has its name, and all its sockets, before it takes its first event. */
    while (proxy_worker_pids(proxy, pids) < proxy->workers) {
        cr_assert(now_ms() < deadline, "workers are missing:\n%s", proxy->log);
        wait_ms(1);
    }
}

void proxy_start(struct proxy *proxy, const char *const arguments[])
{
    const char *all[ARGUMENTS_MAX] = {NULL};
    size_t count = 0;

    if (!has_option(arguments, "--workers")) {
        all[count++] = "--workers";
        all[count++] = "1";
    }
    for (size_t i = 0; arguments[i] != NULL; i++) {
        cr_assert(count + 1 < ARGUMENTS_MAX);
        all[count++] = arguments[i];
    }
    spawn(proxy, all);
    proxy_wait_event(proxy, "start", 1);
    proxy->workers = (size_t)proxy_number(proxy, "start", 0, "workers");
    wait_for_workers(proxy);
    proxy->sockets_before = count_worker_sockets(proxy);
}

void proxy_start_simple(struct proxy *proxy, const char *const options[])
{
    const char *arguments[ARGUMENTS_MAX] = {proxy->arg};

    for (size_t i = 0; options != NULL && options[i] != NULL; i++) {
        cr_assert(i + 2 < ARGUMENTS_MAX);
        arguments[i + 1] = options[i];
    }
    proxy_start(proxy, arguments);
}

static int exit_status(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int wait_for_end(struct proxy *proxy)
{
    uint64_t deadline = now_ms() + 2 * WAIT_MS;
    int status = 0;

    while (read_log(proxy, 100)) {
        cr_assert(now_ms() < deadline, "sluice does not end:\n%s", proxy->log);
    }
    cr_assert(waitpid(proxy->pid, &status, 0) == proxy->pid);
    (void)close(proxy->log_fd);
    proxy->log_fd = -1;
    proxy->running = false;
    return exit_status(status);
}

int proxy_run_to_end(struct proxy *proxy, const char *const arguments[])
{
    spawn(proxy, arguments);
    return wait_for_end(proxy);
}

void proxy_launch(struct proxy *proxy, const char *const arguments[])
{
    spawn(proxy, arguments);
}

bool proxy_read_log(struct proxy *proxy, int wait)
{
    return read_log(proxy, wait);
}

int proxy_wait_for_end(struct proxy *proxy)
{
    return wait_for_end(proxy);
}

int proxy_stop(struct proxy *proxy, int signal_number)
{
    cr_assert(kill(proxy->pid, signal_number) == 0);
    return wait_for_end(proxy);
}

/* TCP sockets of this test's address in CLOSE_WAIT (08 in /proc/net/tcp). */
static size_t count_close_wait(const struct proxy *proxy)
{
    unsigned bytes[4];
    char wanted[16];
    char line[256];
    size_t count = 0;
    FILE *file = fopen("/proc/net/tcp", "re");

    cr_assert(file != NULL);
    cr_assert(sscanf(proxy->ip, "%u.%u.%u.%u", &bytes[0], &bytes[1], &bytes[2], &bytes[3]) == 4);
    (void)snprintf(wanted, sizeof(wanted), "%02X%02X%02X%02X:", bytes[3], bytes[2], bytes[1],
                   bytes[0]);
    while (fgets(line, sizeof(line), file) != NULL) {
        char local[32];
        char remote[32];
        unsigned state;

        if (sscanf(line, "%*d: %31s %31s %x", local, remote, &state) == 3 && state == 8) {
            count += strncmp(local, wanted, 9) == 0 || strncmp(remote, wanted, 9) == 0;
        }
    }
    (void)fclose(file);
    return count;
}

static void expect_quiet(const struct proxy *proxy)
{
    uint64_t before = proxy_cpu_ms(proxy);
    uint64_t used;

    wait_ms(QUIET_MS);
    used = proxy_cpu_ms(proxy) - before;
    cr_assert(used < QUIET_CPU_MS, "%llu ms of CPU in %d quiet ms", (unsigned long long)used,
              QUIET_MS);
}

void proxy_finish(struct proxy *proxy, size_t connections)
{
    size_t sockets;

    proxy_wait_event(proxy, "close", connections);
    expect_quiet(proxy);
    /* One spare socket per worker is kept for the next client's server leg. */
    sockets = count_worker_sockets(proxy);
    cr_assert(sockets <= proxy->sockets_before + proxy->workers,
              "workers hold %zu sockets, %zu at the start", sockets, proxy->sockets_before);
    cr_assert(count_close_wait(proxy) == 0, "sockets are left in CLOSE_WAIT");
    cr_assert(proxy_stop(proxy, SIGTERM) == 0, "sluice ended badly:\n%s", proxy->log);
    cr_assert(proxy_count_event(proxy, "close") == connections,
              "%zu close records, %zu connections", proxy_count_event(proxy, "close"), connections);
    cr_assert(proxy_number(proxy, "end", 0, "connections_accepted") == connections);
    cr_assert(proxy_number(proxy, "end", 0, "connections_closed") == connections);
    cr_assert(proxy_number(proxy, "end", 0, "log_lines_dropped") == 0);
    free(proxy->log);
    proxy->log = NULL;
}
