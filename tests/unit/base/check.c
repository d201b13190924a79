/* Tests of CHECK: what a broken invariant writes and how it ends the process. The failing process
 * is a forked child, so that its stderr and its end can be looked at. */
#include "base/check.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct outcome {
    int status; /* of waitpid(2) */
    char message[2048];
};

/* Runs `body` in a child whose stderr is a pipe. `len` is limited by the pipe's 64 KiB only. */
static struct outcome run_in_child(void (*body)(void))
{
    struct outcome outcome = {0};
    size_t len = 0;
    ssize_t got;
    int ends[2];
    pid_t child;

    cr_assert(pipe2(ends, O_CLOEXEC) == 0);
    child = fork();
    cr_assert(child >= 0);
    if (child == 0) {
        const struct rlimit no_core = {0, 0};

        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)dup2(ends[1], STDERR_FILENO);
        body();
        _exit(0);
    }
    (void)close(ends[1]);
    while ((got = read(ends[0], outcome.message + len, sizeof(outcome.message) - 1 - len)) > 0) {
        len += (size_t)got;
    }
    (void)close(ends[0]);
    cr_assert(waitpid(child, &outcome.status, 0) == child);
    return outcome;
}

static void assert_aborted(const struct outcome *outcome)
{
    cr_assert(WIFSIGNALED(outcome->status), "wait status %#x", (unsigned)outcome->status);
    cr_assert(WTERMSIG(outcome->status) == SIGABRT, "signal %d", WTERMSIG(outcome->status));
}

static void assert_one_line(const char *message)
{
    size_t len = strlen(message);

    cr_assert(len > 0, "nothing was written");
    cr_assert(strchr(message, '\n') == message + len - 1, "not one whole line: '%s'", message);
}

enum { FAILING_LINE = __LINE__ + 4 };
static void fail_a_check(void)
{
    int answer = 41;
    CHECK(answer == 42);
}

/* A failed CHECK ends the process by SIGABRT: shown by Criterion's own reading of the signal. */
Test(check, aborts_when_the_condition_is_false, .signal = SIGABRT)
{
    (void)close(STDERR_FILENO);
    fail_a_check();
}

/* The message is all that is left of a dead worker: one line that names condition, file, line and
 * function, read from a child's stderr. */
Test(check, names_condition_file_line_and_function_in_one_line)
{
    struct outcome outcome = run_in_child(fail_a_check);
    char place[256];

    (void)snprintf(place, sizeof(place), "%s:%d", __FILE__, FAILING_LINE);
    assert_aborted(&outcome);
    assert_one_line(outcome.message);
    cr_assert(strstr(outcome.message, "answer == 42") != NULL, "got: %s", outcome.message);
    cr_assert(strstr(outcome.message, place) != NULL, "no '%s' in: %s", place, outcome.message);
    cr_assert(strstr(outcome.message, "fail_a_check") != NULL, "got: %s", outcome.message);
}

static void fail_with_percent_signs(void)
{
    const char *text = "%s%n";
    CHECK(text[0] % 2 == 5 && strcmp(text, "%n%n%s") == 0);
}

/* The condition's text is data and no format: percent signs in it come out as they are. */
Test(check, prints_percent_signs_of_the_condition_unchanged)
{
    struct outcome outcome = run_in_child(fail_with_percent_signs);

    assert_aborted(&outcome);
    cr_assert(strstr(outcome.message, "text[0] % 2 == 5") != NULL, "got: %s", outcome.message);
    cr_assert(strstr(outcome.message, "\"%n%n%s\"") != NULL, "got: %s", outcome.message);
}

static void fail_with_a_long_condition(void)
{
    static char condition[1500];

    memset(condition, 'x', sizeof(condition) - 1);
    check_failed(condition, "src/some/file.c", 4711, "some_function");
}

/* A condition longer than the message's buffer must not push out the place nor the newline: a
 * 1500-byte condition is given and both are looked for. */
Test(check, keeps_the_place_and_the_newline_of_a_long_condition)
{
    struct outcome outcome = run_in_child(fail_with_a_long_condition);

    assert_aborted(&outcome);
    assert_one_line(outcome.message);
    cr_assert(strstr(outcome.message, "src/some/file.c:4711") != NULL, "got: %s", outcome.message);
}

static void fail_without_stderr(void)
{
    (void)close(STDERR_FILENO);
    CHECK(0);
}

/* A daemon may have no stderr: the process aborts even when the message can't be written. */
Test(check, aborts_without_a_stderr)
{
    struct outcome outcome = run_in_child(fail_without_stderr);

    assert_aborted(&outcome);
    cr_assert_str_empty(outcome.message);
}

static void hold_checks(void)
{
    CHECK(1);
    CHECK(strlen("four") == 4);
    DCHECK(1);
}

/* A condition that holds is silent: the child goes on to its own end and its stderr stays empty. */
Test(check, is_silent_when_the_condition_holds)
{
    struct outcome outcome = run_in_child(hold_checks);

    cr_assert(WIFEXITED(outcome.status), "wait status %#x", (unsigned)outcome.status);
    cr_assert(WEXITSTATUS(outcome.status) == 0);
    cr_assert_str_empty(outcome.message);
}

/* CHECK is one expression and evaluates its condition once: counted by a side effect, and used as
 * the unbraced branch of an if and in a comma expression. */
Test(check, evaluates_its_condition_exactly_once)
{
    int evaluations = 0;

    CHECK(++evaluations > 0);
    cr_assert(evaluations == 1);
    // clang-format off
    if (evaluations == 0)
        CHECK(++evaluations > 0);
    else
        CHECK(evaluations == 1);
    // clang-format on
    cr_assert((CHECK(++evaluations == 2), evaluations) == 2);
}

static void fail_a_debug_check(void)
{
    DCHECK(1 == 2);
}

/* DCHECK is CHECK in debug builds and nothing in others: there even its condition is not evaluated,
 * which a child that fails one and a side effect show. */
Test(check, debug_variant_fails_in_debug_builds_only)
{
    struct outcome outcome = run_in_child(fail_a_debug_check);
    int evaluations = 0;

    DCHECK(++evaluations > 0);
#ifdef SLUICE_DEBUG
    assert_aborted(&outcome);
    cr_assert(strstr(outcome.message, "1 == 2") != NULL, "got: %s", outcome.message);
    cr_assert(evaluations == 1);
#else
    cr_assert(WIFEXITED(outcome.status));
    cr_assert(evaluations == 0);
#endif
}

Test(check, need_memory_gives_back_what_it_was_given)
{
    int something;

    cr_assert(need_memory(&something) == &something);
}

Test(check, need_room_keeps_what_the_array_holds)
{
    int *numbers = NULL;

    for (int i = 0; i < 100; i++) {
        numbers = need_room(numbers, (size_t)i, sizeof(*numbers));
        numbers[i] = i;
    }
    for (int i = 0; i < 100; i++) {
        cr_assert(numbers[i] == i);
    }
    free(numbers);
}

/* No CHECK: a want of memory is no bug. The process says so and ends with status 1. */
Test(check, need_memory_ends_the_process_without_memory, .init = cr_redirect_stderr,
     .exit_code = EXIT_FAILURE)
{
    (void)need_memory(NULL);
    cr_assert_fail("it went on");
}
