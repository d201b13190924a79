#!/usr/bin/env bash
# PostgreSQL, reached over its unix socket: pgbench with connections that are kept and with one for each transaction,
# and COPY in and out.
# Cases: postgres-pgbench postgres-reconnect postgres-copy
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs initdb postgresql
needs pgbench postgresql
needs postgres postgresql
needs psql postgresql
skip_if_missing

clients=8
transactions=150
reconnects=25
rows=200000

client "${as_user[@]}" initdb -D "$server_dir/data" -A trust -U tester --no-sync >"$dir/initdb.log" 2>&1
# mmap: dynamic shared memory stays in the data directory.
start postgres postgres -D "$server_dir/data" -k "$server_dir" -p 5432 -c listen_addresses= -c fsync=off \
    -c dynamic_shared_memory_type=mmap -c unix_socket_permissions=0777
export PGUSER=tester PGDATABASE=postgres PGCONNECT_TIMEOUT=10
wait_for "PostgreSQL" psql -X -h "$server_dir" -c 'select 1'

# begin: sluice in front of the server, and the client programs in front of sluice.
begin() {
    sluice_to "unix:$server_dir/.s.PGSQL.5432"
    export PGHOST=127.0.0.1 PGPORT=$port
}

query() {
    client psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

# bench TRANSACTIONS OPTION...
bench() {
    local count=$1 tps
    shift
    begin
    client pgbench -i -q -s 2 >init.out 2>&1
    client pgbench -c "$clients" -j 2 -t "$count" "$@" >pgbench.out 2>&1
    expect "transactions" "$((clients * count))/$((clients * count))" \
        "$(sed -n 's/^number of transactions actually processed: //p' pgbench.out)"
    # What each transaction adds in four places must add up.
    expect "sums that are right" t "$(query -c 'select (select sum(abalance) from pgbench_accounts) = sum(delta)
        and (select sum(bbalance) from pgbench_branches) = sum(delta) and count(*) = '$((clients * count))'
        from pgbench_history')"
    tps=$(sed -n 's/^tps = \([0-9]*\).*/\1/p' pgbench.out)
    sluice_stop
    figure="$((clients * count)) transactions of $clients clients, $tps/s, $records connections"
}

case_postgres_pgbench() {
    bench "$transactions"
}

case_postgres_reconnect() {
    bench "$reconnects" -C
    [ "$records" -ge $((clients * reconnects)) ] || fail "only $records connections"
}

case_postgres_copy() {
    local sum
    random_bytes $((rows * 48)) | base64 -w 64 | awk '{ print NR "\t" $0 }' >rows.in
    begin
    query -c 'create table copied (id integer primary key, body text)'
    query -c '\copy copied from rows.in'
    query -c '\copy (select * from copied order by id) to rows.out'
    sum=$(sha256 rows.in)
    expect "checksum of the rows" "$sum" "$(sha256 rows.out)"
    sluice_stop
    figure="$rows rows, $(stat -c %s rows.in) bytes in and out, sha256 ${sum::12}"
}

run_cases
