#!/usr/bin/env bash
# The demo behind `make run`: a small HTTP server, and sluice in front of it, until Ctrl-C.
#
# Environment: DEMO_PORT (8080) for sluice, ORIGIN_PORT (9000) for the server, BUILD (build).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BUILD=${BUILD:-build}
listen=127.0.0.1:${DEMO_PORT:-8080}
origin=127.0.0.1:${ORIGIN_PORT:-9000}
stop_ms=5000
origin_pid=
sluice_pid=
stopping=0

die() {
    echo "make run: $*" >&2
    exit 1
}

# stop PID NAME: asks a process to end, and insists when it does not.
stop() {
    local waited=0
    kill -TERM "$1" 2>/dev/null || return 0
    while kill -0 "$1" 2>/dev/null; do
        if [ "$waited" -eq "$stop_ms" ]; then
            echo "make run: $2 did not end within $((stop_ms / 1000)) s: killed" >&2
            kill -KILL "$1" 2>/dev/null || true
        fi
        sleep 0.1
        waited=$((waited + 100))
    done
}

# Runs on every way out. sluice first: it may still have connections to the server.
clean_up() {
    trap '' INT TERM HUP
    [ -z "$sluice_pid" ] || stop "$sluice_pid" sluice
    [ -z "$origin_pid" ] || stop "$origin_pid" "the server"
}
trap clean_up EXIT
trap 'stopping=1; exit 0' INT TERM HUP

is_taken() {
    (exec 3<>"/dev/tcp/${1%:*}/${1##*:}") 2>/dev/null
}

[ "$listen" != "$origin" ] || die "DEMO_PORT and ORIGIN_PORT are both ${listen##*:}; they must differ"
for program in sluice bench/origin; do
    [ -x "$BUILD/$program" ] || die "there is no $BUILD/$program; run make first"
done
! is_taken "$origin" || die "something listens on $origin already; choose another port: make run ORIGIN_PORT=..."
! is_taken "$listen" || die "something listens on $listen already; choose another port: make run DEMO_PORT=..."

# The server says when it is ready; until then there is nothing to forward to.
exec {said}< <(exec "$BUILD/bench/origin" --listen "$origin")
origin_pid=$!
if ! read -r -t 10 -u "$said" line || [[ $line != "origin: listening on "* ]]; then
    die "the server did not start on $origin${line:+: $line}"
fi

cat <<END
sluice listens on $listen and forwards to a small HTTP server on $origin. In another terminal, try

    curl http://$listen/
    curl -o /dev/null http://$listen/bytes/100000000

Each connection leaves a record below when it ends. Ctrl-C stops both.

END
# In a process group of its own: Ctrl-C in a terminal reaches the whole group, and with the TERM of clean_up sluice would
# be told twice, which means "at once" and not "when the connections have ended".
set -m
"$BUILD/sluice" "$listen=$origin" &
sluice_pid=$!
set +m
status=0
wait "$sluice_pid" || status=$?
[ $stopping -eq 1 ] || die "sluice ended by itself, with status $status"
