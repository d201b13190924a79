#!/usr/bin/env bash
# redis-server and redis-benchmark: requests one by one, pipelined ones, and one large value in and out.
# Cases: redis redis-pipelined redis-blob
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs redis-benchmark redis-tools
needs redis-server redis-server
skip_if_missing

requests=20000
blob_bytes=67108864

start redis redis-server --port 0 --unixsocket redis.sock --unixsocketperm 777 --save '' --appendonly no \
    --daemonize no --dir "$server_dir"
wait_for "redis" redis-cli -s "$server_dir/redis.sock" ping

# benchmark TESTS [OPTION...]
benchmark() {
    local tests=$1 count
    shift
    sluice_to "unix:$server_dir/redis.sock"
    client redis-benchmark -h 127.0.0.1 -p "$port" -n "$requests" -q -t "$tests" "$@" >redis.out
    tr '\r' '\n' <redis.out | grep 'requests per second' >results || true
    ! grep -iE 'error|WRONGTYPE' redis.out >complaints || fail "redis-benchmark: $(head -n 1 complaints)"
    count=$(wc -l <results)
    [ "$count" -gt 0 ] || fail "redis-benchmark says nothing"
    sluice_stop 'client-fin|server-fin|client-reset'
    figure="$count tests of $requests requests, GET $(sed -n 's/^GET: \([0-9.]*\) .*/\1/p' results)/s"
    figure+=", $records connections"
}

case_redis() {
    benchmark ping_mbulk,set,get,lpush,mset
}

case_redis_pipelined() {
    benchmark set,get,lpush,lrange_100 -P 16 -d 512
}

case_redis_blob() {
    random_bytes "$blob_bytes" >blob
    sluice_to "unix:$server_dir/redis.sock"
    expect "the answer to SET" OK "$(client redis-cli -h 127.0.0.1 -p "$port" -x set blob <blob)"
    # redis-cli ends its output with a newline.
    expect "checksum of GET" "$(sha256 blob)" \
        "$(client redis-cli -h 127.0.0.1 -p "$port" get blob >back && head -c "$blob_bytes" back | sha256)"
    figure="a value of $blob_bytes bytes in and out"
}

run_cases
