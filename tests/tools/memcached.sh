#!/usr/bin/env bash
# memcached: a pipeline of large values, written without waiting for the answers.
# Cases: memcached
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs memcached memcached
needs socat socat
skip_if_missing

values=64
value_bytes=524288

start memcached memcached -s memcached.sock -a 777 -m 256 -t 1
wait_for "memcached" test -S "$server_dir/memcached.sock"

case_memcached() {
    local i name
    # Base64, so that no value has a line of its own that looks like an answer.
    random_bytes $((values * value_bytes / 4 * 3)) | base64 -w 0 >values.txt
    split -b "$value_bytes" -d -a 3 values.txt value.
    for ((i = 0; i < values; i++)); do
        printf -v name 'value.%03d' "$i"
        printf 'set key%d 0 0 %d\r\n' "$i" "$value_bytes" >&3
        cat "$name" >&3
        printf '\r\n' >&3
        printf 'STORED\r\n' >&4
    done 3>request 4>expected
    for ((i = 0; i < values; i++)); do
        printf -v name 'value.%03d' "$i"
        printf 'get key%d\r\n' "$i" >&3
        printf 'VALUE key%d 0 %d\r\n' "$i" "$value_bytes" >&4
        cat "$name" >&4
        printf '\r\nEND\r\n' >&4
    done 3>>request 4>>expected
    printf 'quit\r\n' >>request
    sluice_to "unix:$server_dir/memcached.sock"
    client socat -t 30 - "TCP:127.0.0.1:$port" <request >answers
    cmp answers expected
    sluice_stop
    expect "bytes_up" "$(stat -c %s request)" "$bytes_up"
    expect "bytes_down" "$(stat -c %s expected)" "$bytes_down"
    figure="$values values of $value_bytes bytes set and got in one pipeline"
}

run_cases
