#!/usr/bin/env bash
# Builds and runs the test suites, and believes no suite that merely says it passed.
#
#   tools/test.sh [--suite unit|sim|integration|matrix|net]... [MODE...]  (default: all but net, in debug asan ubsan)
#   tools/test.sh --self-test                                 proves that the rules below catch what they should
#
# Criterion 2.4.1 counts a test as passing when its process leaks, and knows nothing of what forked children and the
# sluice processes under test run into. So the sanitizers write their reports into a directory made for this run, and a
# suite has passed only if
#   - it exits with 0 and prints Criterion's closing line, having run a test (with FILTER: some suite has run one),
#   - no process of the run left a sanitizer report,
#   - no process of the run is still there after it.
#
# Environment: FILTER (a Criterion pattern), JOBS (of the integration tests, 2), TIMEOUT (seconds a test, 120),
# SUITE_TIMEOUT (seconds a suite, 900), SLUICE_UNDER_TEST (what to start in place of the sluice just built), BUILD
# (build), MAKE (make).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
FILTER=${FILTER:-}
JOBS=${JOBS:-2}
TIMEOUT=${TIMEOUT:-120}
SUITE_TIMEOUT=${SUITE_TIMEOUT:-900}
leftover_grace_ms=5000

mkdir -p "$BUILD/test"
logs=$(cd "$BUILD/test" && pwd)
build=${logs%/test}
# Of the suite that is running.
group=
reports=
log=

ulimit -c 0 # tests of assertions abort on purpose

# Output goes to a file and is shown afterwards: a pipe would stay open as long as any process that a test left behind.
stop_suite() {
    trap '' INT TERM
    leftover_grace_ms=500
    if [ -n "$group" ]; then
        kill -TERM -- "-$group" 2>/dev/null || true
        wait "$group" || true
        no_process_is_left || true
        cat "$log"
        rm -rf "$reports" "$log"
    fi
    echo "tools/test.sh: interrupted" >&2
    exit 130
}
trap stop_suite INT TERM

say_failed() {
    echo "FAILED: $*"
}

# build_targets MODE TARGET...
build_targets() {
    local mode=$1 jobs=()
    shift
    if [[ ${MAKEFLAGS:-} != *jobserver* ]]; then
        jobs=("-j$(nproc)")
    fi
    "$MAKE" "${jobs[@]}" MODE="$mode" BUILD="$BUILD" "$@"
}

# Prints the ids of the processes of the running suite. They are known by their environment: Criterion gives each test a
# session of its own, so neither a process group nor a parent leads to what a test left behind.
suite_processes() {
    local file
    grep -slF "SLUICE_TEST_RUN=$reports" /proc/[0-9]*/environ | while read -r file; do
        file=${file#/proc/}
        echo "${file%/environ}"
    done || true
}

# Waits for them to be gone, since a process that is about to exit may still write its report. Then ends the rest.
no_process_is_left() {
    local waited=0 pids pid
    while mapfile -t pids < <(suite_processes) && [ ${#pids[@]} -gt 0 ]; do
        if [ "$waited" -ge "$leftover_grace_ms" ]; then
            say_failed "processes of this run were still there after it:"
            for pid in "${pids[@]}"; do
                echo "  $pid $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")"
            done
            kill -KILL "${pids[@]}" 2>/dev/null || true
            return 1
        fi
        sleep 0.1
        waited=$((waited + 100))
    done
}

no_report_is_there() {
    local report found=0
    for report in "$1"/*; do
        if [ -e "$report" ]; then
            say_failed "a sanitizer reported (${report##*/} is the program and its process id):"
            cat "$report"
            found=1
        fi
    done
    return $found
}

closing_line_is_there() {
    local count
    count=$(sed -n 's/.*Synthesis: Tested: \([0-9]*\).*/\1/p' "$1")
    if [ -z "$count" ]; then
        say_failed "there is no closing line from Criterion"
        return 1
    fi
    tested=$((tested + count))
    if [ "$count" -eq 0 ] && [ -z "$FILTER" ]; then
        say_failed "no test was run"
        return 1
    fi
}

# run_suite NAME COMMAND...: runs the command in a process group of its own, shows its output, applies the rules.
run_suite() {
    local name=$1 status=0 passed=0
    shift
    log=$(mktemp "$logs/$name.log.XXXXXX")
    reports=$(mktemp -d "$logs/$name.reports.XXXXXX")
    chmod 1777 "$reports" # a process that gave up root writes here too

    local options=log_path=$reports/report:log_exe_name=1
    # Signals at their defaults: a background job of a shell would start with INT ignored, and hand that down.
    ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}$options:detect_leaks=1" \
    LSAN_OPTIONS="${LSAN_OPTIONS:+$LSAN_OPTIONS:}$options" \
    UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}$options:print_stacktrace=1" \
    SLUICE_TEST_RUN=$reports \
        timeout -k 10 "$SUITE_TIMEOUT" env --default-signal "$@" >"$log" 2>&1 </dev/null &
    group=$! # timeout(1) makes itself the leader of a new group
    wait "$group" || status=$?

    cat "$log"
    if [ $status -eq 124 ] || [ $status -eq 137 ]; then
        say_failed "the suite did not end within $SUITE_TIMEOUT s"
    elif [ $status -ne 0 ]; then
        say_failed "exit status $status"
    fi
    [ $status -eq 0 ] || passed=1
    no_process_is_left || passed=1
    group=
    no_report_is_there "$reports" || passed=1
    closing_line_is_there "$log" || passed=1
    rm -rf "$reports"
    mv "$log" "$logs/$name.log"
    return $passed
}

# run_mode MODE SUITE...: builds the mode, then runs its suites; adds to `results` and sets `failed`.
run_mode() {
    local mode=$1 suite verdict jobs args started
    shift
    if [ "$mode" = tsan ]; then
        echo "tools/test.sh: Criterion does not start under ThreadSanitizer, so there is nothing to run in tsan" >&2
        exit 2
    fi
    build_targets "$mode" tests
    for suite in "$@"; do
        printf '\n== %s, %s\n' "$suite" "$mode"
        if ! compgen -G "tests/$suite/*" >/dev/null; then
            results+="  $mode $suite: there are no tests yet"$'\n'
            continue
        fi
        jobs=2
        case $suite in integration | matrix | net) jobs=$JOBS ;; esac
        args=(--jobs "$jobs" --timeout "$TIMEOUT")
        [ -z "$FILTER" ] || args+=(--filter "$FILTER")
        started=$SECONDS
        verdict=ok
        SLUICE_BIN=${SLUICE_UNDER_TEST:-$build/$mode/sluice} \
            run_suite "$mode-$suite" "$build/$mode/tests/$suite" "${args[@]}" || verdict=FAILED
        [ "$verdict" = ok ] || failed=1
        results+="  $mode $suite: $verdict ($((SECONDS - started)) s)"$'\n'
    done
}

# expect pass|fail TEXT NAME COMMAND...: runs a suite that must pass or fail, and must print TEXT.
expect() {
    local expected=$1 text=$2 name=$3 output verdict=pass
    shift 3
    output=$(run_suite "self-$name" "$@") || verdict=fail
    rm -f "$logs/self-$name.log"
    if [ "$verdict" != "$expected" ] || [[ $output != *"$text"* ]]; then
        printf '%s\n' "$output" "tools/test.sh --self-test: '$name' should $expected and show \"$text\"; it did $verdict"
        exit 1
    fi
}

# Each rule is shown a suite that breaks it and nothing else.
self_test() {
    FILTER=
    tested=0
    build_targets asan runner-tests
    local programs=$build/asan/tests/runner closing='[====] Synthesis: Tested: 1 | Passing: 1 | Failing: 0 | Crashing: 0'
    expect pass "Passing: 1" clean "$programs/clean"
    expect fail "LeakSanitizer" leak "$programs/leak"
    expect fail "heap-buffer-overflow" child "$programs/child"
    expect fail "Timed out" hang "$programs/hang" --timeout 0.2
    leftover_grace_ms=200
    expect pass "Passing: 1" plain sh -c "echo '$closing'"
    expect fail "still there" orphan sh -c "setsid sleep 60 & echo '$closing'"
    expect fail "exit status 3" status sh -c "echo '$closing'; exit 3"
    expect fail "no closing line" silent true
    expect fail "no test was run" none sh -c "echo '${closing//1/0}'"
    echo "tools/test.sh --self-test: leaks, reports of child processes, leftovers and silent suites are seen as failures"
}

suites=()
modes=()
while [ $# -gt 0 ]; do
    case $1 in
    --self-test)
        self_test
        exit 0
        ;;
    --suite)
        suites+=("${2:?"--suite needs a name"}")
        shift
        ;;
    -*)
        echo "tools/test.sh: there is no option '$1'" >&2
        exit 2
        ;;
    *) modes+=("$1") ;;
    esac
    shift
done
[ ${#suites[@]} -gt 0 ] || suites=(unit sim integration matrix)
[ ${#modes[@]} -gt 0 ] || modes=(debug asan ubsan)

results=
failed=0
tested=0
for mode in "${modes[@]}"; do
    run_mode "$mode" "${suites[@]}"
done
printf '\n%s' "$results"
if [ $tested -eq 0 ] && [ $failed -eq 0 ]; then
    say_failed "no test was run${FILTER:+; FILTER='$FILTER' matches none}"
    failed=1
fi
exit $failed
