#!/usr/bin/env bash
# Runs real programs through sluice: a server of each kind behind it, its own client in front, over 127.0.0.1.
#
#   tests/tools/run.sh                  all of them
#   tests/tools/run.sh redis curl-2g    those of one tool, or a single case
#   tests/tools/run.sh --list           the names
#
# One line a case: `ok NAME: what was seen`, `skip NAME: reason` or `FAIL NAME: reason`, then their number. The exit
# status is 0 if nothing failed. A case has passed only if
#   - the client and the server are content, and what was sent is what arrived,
#   - sluice left one close record for each connection, each with a reason that the case allows, and lost no log line,
#   - its `end` line counts as many connections closed as accepted,
#   - sluice exits with 0 on TERM, and no process of the run is left.
# Figures are for information: nothing is said of speed.
#
# All happens in a directory made for the run. As root, servers run as an unprivileged user, and so do sluice's workers.
#
# Environment: BUILD (build), SLUICE_BIN (BUILD/sluice), ORIGIN_BIN (BUILD/bench/origin), TOOL_TIMEOUT (seconds a tool,
# 60), KEEP=1 (keep the directory), INSTALL=yes|no (install the packages that are missing; default: as root, where no
# systemd would start the servers that come with them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools=(curl socat nginx iperf3 redis memcached postgres rsync git)
BUILD=${BUILD:-build}
SLUICE_BIN=${SLUICE_BIN:-$BUILD/sluice}
ORIGIN_BIN=${ORIGIN_BIN:-$BUILD/bench/origin}
TOOL_TIMEOUT=${TOOL_TIMEOUT:-60}
leftover_grace_ms=5000
path_bytes_max=60 # of the directory: a unix socket somewhere below it must fit into 107

run=
running=
passed=0
failed=0
skipped=0

die() {
    echo "tests/tools/run.sh: $*" >&2
    exit 2
}

cases_of() {
    sed -n 's/^# Cases: //p' "tests/tools/$1.sh"
}

# Prints the ids of the processes of this run: by their environment, or, if they have written over it, by the directory
# that they are in.
processes() {
    local file
    {
        grep -slF "SLUICE_TOOLS_RUN=$run" /proc/[0-9]*/environ || true
        for file in /proc/[0-9]*/cwd; do
            [[ $(readlink "$file" 2>/dev/null) != "$run"/* ]] || echo "$file"
        done
    } | cut -d/ -f3 | sort -un
}

# no_process_is_left NAME: waits for them to be gone, then ends the rest.
no_process_is_left() {
    local waited=0 pids pid
    while mapfile -t pids < <(processes) && [ ${#pids[@]} -gt 0 ]; do
        if [ "$waited" -ge "$leftover_grace_ms" ]; then
            for pid in "${pids[@]}"; do
                echo "FAIL $1: still there after it: $pid $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")"
            done
            kill -KILL "${pids[@]}" 2>/dev/null || true
            return 1
        fi
        sleep 0.1
        waited=$((waited + 100))
    done
}

# Runs on every way out.
clean_up() {
    trap '' INT TERM HUP
    leftover_grace_ms=500
    if [ -n "$running" ]; then
        kill -TERM "$running" 2>/dev/null || true
        wait "$running" || true
    fi
    if [ -n "$run" ]; then
        no_process_is_left interrupted || true
        if [ "${KEEP:-}" = 1 ]; then
            echo "kept: $run" >&2
        else
            rm -rf "$run"
        fi
    fi
}

show_failure() {
    failed=$((failed + 1))
    echo "FAIL $*"
}

# run_tool NAME CASE...: all its cases in one process with a deadline. What it prints goes to a file and is shown
# afterwards: a pipe would stay open as long as any process that it left behind.
run_tool() {
    local tool=$1 status=0 output=$run/$1.out
    shift
    SLUICE_TOOLS_RUN=$run RUN_DIR=$run/$tool timeout -k 10 "$TOOL_TIMEOUT" \
        bash "tests/tools/$tool.sh" "$@" >"$output" 2>&1 </dev/null &
    running=$!
    wait "$running" || status=$?
    running=
    cat "$output"
    passed=$((passed + $(grep -c '^ok ' "$output" || true)))
    failed=$((failed + $(grep -c '^FAIL ' "$output" || true)))
    skipped=$((skipped + $(grep -c '^skip ' "$output" || true)))
    if [ $status -eq 124 ] || [ $status -eq 137 ]; then
        show_failure "$tool: not done within $TOOL_TIMEOUT s"
    elif [ $status -ne 0 ]; then
        show_failure "$tool: ended with status $status"
    elif [ "$(grep -cE '^(ok|FAIL|skip) ' "$output" || true)" -ne $# ]; then
        show_failure "$tool: not every case has a result"
    fi
    no_process_is_left "$tool" || failed=$((failed + 1))
}

install_what_is_missing() {
    local default=no
    if [ "$(id -u)" -eq 0 ] && [ ! -d /run/systemd/system ]; then
        default=yes
    fi
    if [ "${INSTALL:-$default}" = yes ]; then
        tools/deps.sh tools >"$run/deps.out" 2>&1 || cat "$run/deps.out" >&2
    fi
}

# Fills `selected`, the cases of each tool, from names of tools and of cases.
declare -A selected=()
select_cases() {
    local name tool known
    for name in "$@"; do
        tool=${name%%-*}
        [[ " ${tools[*]} " == *" $tool "* ]] || die "there is no '$name'; --list shows the names"
        known=" $(cases_of "$tool") "
        if [ "$name" = "$tool" ]; then
            selected[$tool]=$known
        elif [[ $known == *" $name "* ]]; then
            selected[$tool]+=" $name"
        else
            die "there is no '$name'; --list shows the names"
        fi
    done
}

if [ "${1:-}" = --list ]; then
    for tool in "${tools[@]}"; do
        printf '%-10s %s\n' "$tool" "$(cases_of "$tool")"
    done
    exit 0
fi
select_cases "${@:-${tools[@]}}"
for program in "$SLUICE_BIN" "$ORIGIN_BIN"; do
    [ -x "$program" ] || die "there is no $program; run make first"
done

trap clean_up EXIT
trap 'exit 130' INT TERM HUP
run=$(mktemp -d "${TMPDIR:-/tmp}/sluice-tools.XXXXXX")
[ ${#run} -le $path_bytes_max ] || die "$run is too long a path for unix sockets; set TMPDIR to a shorter one"
# One build for the whole run, whatever is built meanwhile, and where the servers' user gets at it.
chmod 0711 "$run"
install -D "$SLUICE_BIN" "$run/bin/sluice"
install -D "$ORIGIN_BIN" "$run/bin/origin"
install_what_is_missing

for tool in "${tools[@]}"; do
    if [ -n "${selected[$tool]:-}" ]; then
        # shellcheck disable=SC2086 # words
        run_tool "$tool" ${selected[$tool]}
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
