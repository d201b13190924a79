# shellcheck shell=bash
# What the tools have in common. run.sh runs each tool's file in a process of its own, with the names of the cases.
#
# A file names its cases (run.sh reads the line) and the programs they need, starts the servers, and defines for each
# case TOOL-WHAT a function case_TOOL_WHAT; then it calls run_cases. Each case has a subshell, a directory and a sluice
# of its own. A command that fails ends its case (set -e), so nothing that matters is to be called in a condition.
set -eEuo pipefail
shopt -s inherit_errexit

: "${RUN_DIR:?"this file is run by tests/tools/run.sh"}"
dir=$RUN_DIR
bin=${dir%/*}/bin
server_dir=$dir/server # the directory that servers run in and own
wanted=("$@")

client_timeout_s=40
start_timeout_ms=20000
stop_timeout_ms=15000
drain_timeout=10s # shorter than stop_timeout_ms
tail_lines=8

missing_packages=()
started=() # process ids of the servers
sluice_pid=
port=   # of sluice, or the last that free_port gave
figure= # what a case has to show
case_dir=
# Set by sluice_stop. The bytes are those that arrived.
records=
bytes_up=
bytes_down=
bytes_spliced=

# ---- Surroundings ------------------------------------------------------------------------------------------

# Nothing of the user's own configuration is read, or written.
export LC_ALL=C HOME=$dir/home GIT_CONFIG_NOSYSTEM=1
unset SSH_AUTH_SOCK GIT_PROXY_COMMAND ALL_PROXY all_proxy http_proxy https_proxy
while read -r name; do
    unset "$name"
done < <(compgen -e | grep -E '^(PG|GIT_(DIR|WORK_TREE|INDEX_FILE)|REDISCLI|RSYNC)' || true)
# Servers are not on everybody's path, and those of PostgreSQL on nobody's.
PATH=$PATH:/usr/sbin:/sbin
postgres_bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1 || true)
[ -z "$postgres_bin" ] || PATH=$postgres_bin:$PATH

# As root: the first of these users that there is, for the servers and for sluice's workers.
user=$(id -un)
as_user=()
sluice_options=()
if [ "$(id -u)" -eq 0 ]; then
    for user in postgres www-data nobody; do
        ! id "$user" >/dev/null 2>&1 || break
    done
    as_user=(setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups)
    sluice_options=(--user "$user")
fi
mkdir -p "$dir" "$HOME" "$server_dir"
[ ${#as_user[@]} -eq 0 ] || chown "$user" "$server_dir"
chmod 0711 "$dir"
chmod 0755 "$server_dir"

# ---- Results -----------------------------------------------------------------------------------------------

# fail TEXT: ends the case, or the tool, as failed. The first reason counts.
fail() {
    keep_reason "$*"
    exit 1
}

keep_reason() {
    [ -s "${case_dir:-$dir}/reason" ] || printf '%s\n' "$*" >"${case_dir:-$dir}/reason"
}

# expect WHAT EXPECTED FOUND
expect() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
}

# needs PROGRAM PACKAGE
needs() {
    command -v "$1" >/dev/null || missing_packages+=("$2")
}

# skip_if_missing: after the last `needs`.
skip_if_missing() {
    if [ ${#missing_packages[@]} -gt 0 ]; then
        skip_all "not installed: ${missing_packages[*]}"
    fi
}

skip_all() {
    local name
    for name in "${wanted[@]}"; do
        echo "skip $name: $*"
    done
    exit 0
}

show_logs() {
    local file
    for file in "$@"; do
        if [ -s "$file" ]; then
            echo "    ${file#"$dir"/}, its last lines:"
            tail -n "$tail_lines" "$file" | cut -c1-600 | sed 's/^/        /'
        fi
    done
}

# ---- Processes ---------------------------------------------------------------------------------------------

# wait_for WHAT COMMAND...: until the command succeeds.
wait_for() {
    local what=$1 waited=0
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$waited" -lt "$start_timeout_ms" ] || fail "waited $((start_timeout_ms / 1000)) s for $what"
        sleep 0.05
        waited=$((waited + 50))
    done
}

is_gone() {
    ! kill -0 "$1" 2>/dev/null
}

# stop PID: asks a process to end, and insists when it does not; false then.
stop() {
    local waited=0
    kill -TERM "$1" 2>/dev/null || return 0
    until is_gone "$1"; do
        if [ "$waited" -ge "$stop_timeout_ms" ]; then
            kill -KILL "$1" 2>/dev/null || true
            return 1
        fi
        sleep 0.05
        waited=$((waited + 50))
    done
}

# Runs on every way out of a tool or a case. sluice first: it may still have connections to a server.
stop_all() {
    local pid
    trap '' TERM
    [ -z "$sluice_pid" ] || stop "$sluice_pid" || true
    for pid in "${started[@]}"; do
        stop "$pid" || true
    done
}

# start NAME COMMAND...: a server, as the unprivileged user, in its own directory.
start() {
    local name=$1
    shift
    (cd "$server_dir" && exec "${as_user[@]}" "$@" >"$dir/$name.log" 2>&1) &
    started+=($!)
}

# client COMMAND...: with a deadline. In the foreground: a signal for us meets it too.
client() {
    local status=0
    timeout --foreground -k 5 "$client_timeout_s" "$@" || status=$?
    [ $status -ne 124 ] || fail "not done within $client_timeout_s s: $*"
    [ $status -eq 0 ] || fail "status $status of: $*"
}

# Sets `port` to one that nobody uses. Below what the kernel gives to connections, as a rule.
free_port() {
    local pattern
    while :; do
        port=$((20000 + RANDOM % 12000))
        printf -v pattern ':%04X ' "$port"
        ! grep -qs "$pattern" /proc/net/tcp /proc/net/tcp6 || continue
        return 0
    done
}

accepts() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# ---- sluice ------------------------------------------------------------------------------------------------

# sluice_to TARGET [OPTION...]: starts it in front of TARGET; sets `port`.
sluice_to() {
    local target=$1
    shift
    free_port
    "$bin/sluice" "${sluice_options[@]}" --drain-timeout "$drain_timeout" "$@" "127.0.0.1:$port=$target" \
        2>"$case_dir/sluice.log" &
    sluice_pid=$!
    wait_for "sluice to start" sluice_has_begun
    ! is_gone "$sluice_pid" || fail "sluice did not start"
}

sluice_has_begun() {
    grep -q ' start ' "$case_dir/sluice.log" || is_gone "$sluice_pid"
}

# sluice_stop [REASON|REASON...]: ends it and reads what it says about its connections, which must have ended for one
# of these reasons (default: client-fin and server-fin).
sluice_stop() {
    local pid=$sluice_pid reasons=${1:-client-fin|server-fin} status=0 children child
    ! is_gone "$pid" || fail "sluice ended by itself"
    children=$(cat "/proc/$pid/task/$pid/children")
    sluice_pid=
    stop "$pid" || fail "sluice did not end within $((stop_timeout_ms / 1000)) s of TERM"
    wait "$pid" || status=$?
    expect "sluice's exit status" 0 "$status"
    for child in $children; do
        wait_for "process $child of sluice to end" is_gone "$child"
    done
    read_records "$reasons"
}

# One close record for each connection, and nothing that is not understood.
read_records() {
    awk -v reasons="^($1)\$" '
        function field(key, i) {
            for (i = 3; i <= NF; i++) {
                if (index($i, key "=") == 1) return substr($i, length(key) + 2)
            }
            return ""
        }
        function wrong(text) { if (!problem) problem = text ": " $0 }
        $2 == "close" {
            closed++
            if (seen[field("id")]++) wrong("a second record of the same connection")
            if (field("reason") !~ reasons) wrong("unexpected reason " field("reason"))
            if (field("reason") ~ /-fin$/ && field("undelivered_bytes") != 0) wrong("bytes lost without an error")
            up += field("bytes_up"); down += field("bytes_down"); spliced += field("spliced_bytes")
        }
        $2 == "end" {
            ends++
            if (field("connections_accepted") != closed + 0) wrong(closed + 0 " close records")
            if (field("connections_closed") != closed + 0) wrong(closed + 0 " close records")
            if (field("log_lines_dropped") != 0) wrong("lines lost")
        }
        $2 !~ /^(start|drain|close|end)$/ { wrong("unexpected line") }
        END {
            if (ends != 1) { $0 = ""; wrong(ends + 0 " end lines") }
            printf "%d %.0f %.0f %.0f %s\n", closed, up, down, spliced, problem
        }' "$case_dir/sluice.log" >"$case_dir/records"
    local problem
    read -r records bytes_up bytes_down bytes_spliced problem <"$case_dir/records"
    [ -z "$problem" ] || fail "$problem"
    [ "$records" -gt 0 ] || fail "no connection went through sluice"
}

# ---- Cases -------------------------------------------------------------------------------------------------

# In a subshell.
case_body() {
    started=()
    trap stop_all EXIT
    trap 'exit 143' TERM
    trap 'keep_reason "${BASH_SOURCE[0]##*/}:$LINENO: status $? of: $BASH_COMMAND"' ERR
    cd "$case_dir"
    "case_${1//-/_}"
    [ -z "$sluice_pid" ] || sluice_stop
    printf '%s\n' "$figure" >figure
}

run_case() {
    local name=$1 status=0
    case_dir=$dir/$name
    mkdir "$case_dir"
    # Not in a condition: there, set -e would not hold.
    (case_body "$name") >"$case_dir/output" 2>&1 &
    wait $! || status=$?
    if [ $status -eq 0 ]; then
        echo "ok $name: $(cat "$case_dir/figure")"
    else
        echo "FAIL $name: $(cat "$case_dir/reason" 2>/dev/null || echo "status $status")"
        show_logs "$case_dir/output" "$case_dir"/*.log "$dir"/*.log
    fi
    case_dir=
}

run_cases() {
    local name
    for name in "${wanted[@]}"; do
        run_case "$name"
    done
}

# What goes wrong outside of the cases fails all of them.
leave() {
    local status=$? name
    stop_all
    if [ $status -ne 0 ]; then
        # Ended by a signal: whoever sent it knows.
        [ $status -eq 143 ] || for name in "${wanted[@]}"; do
            echo "FAIL $name: $(cat "$dir/reason" 2>/dev/null || echo "status $status before it")"
        done
        show_logs "$dir"/*.log
    fi
    exit 0
}
trap leave EXIT
trap 'exit 143' TERM
trap 'keep_reason "${BASH_SOURCE[0]##*/}:$LINENO: status $? of: $BASH_COMMAND"' ERR

# ---- Data --------------------------------------------------------------------------------------------------

# random_bytes N
random_bytes() {
    head -c "$1" /dev/urandom
}

# sha256 [FILE]: with the processor's own instructions, if openssl is there; five times as fast.
sha256() {
    if command -v openssl >/dev/null; then
        openssl dgst -sha256 -r "$@"
    else
        sha256sum "$@"
    fi | cut -d' ' -f1
}

# rate BYTES START: as text; START is what EPOCHREALTIME was.
rate() {
    awk -v bytes="$1" -v from="$2" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.0f MB/s", bytes / 1e6 / (to - from) }'
}
