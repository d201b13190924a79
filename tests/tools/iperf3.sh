#!/usr/bin/env bash
# iperf3: eight streams at once and a control connection, in each direction.
# Cases: iperf3-up iperf3-down
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs iperf3 iperf3
skip_if_missing

streams=8
seconds=2

# measure DIRECTION [OPTION...]
measure() {
    local direction=$1 server received
    shift
    free_port
    server=$port
    start "iperf3-$direction" iperf3 -s -1 -B 127.0.0.1 -p "$server" --forceflush
    wait_for "iperf3" grep -q listening "$dir/iperf3-$direction.log"
    sluice_to "127.0.0.1:$server"
    client iperf3 -c 127.0.0.1 -p "$port" -P "$streams" -t "$seconds" -f m "$@" >iperf3.out
    received=$(sed -n 's/^\[SUM\].* \([0-9.]* Mbits\/sec\) .*receiver.*$/\1/p' iperf3.out)
    [ -n "$received" ] || fail "iperf3 says nothing of what was received"
    # The side that is told to stop resets what it has not read.
    sluice_stop 'client-fin|server-fin|client-reset|server-reset'
    expect "connections" $((streams + 1)) "$records"
    figure="$streams streams, $received received"
}

case_iperf3_up() {
    measure up
    [ "$bytes_up" -gt "$bytes_down" ] || fail "$bytes_up bytes up, $bytes_down down"
}

case_iperf3_down() {
    measure down -R
    [ "$bytes_down" -gt "$bytes_up" ] || fail "$bytes_up bytes up, $bytes_down down"
}

run_cases
