#!/usr/bin/env bash
# socat: half-close in both orders, with a server that answers only after the end of the request, and with one that is
# done first.
# Cases: socat-half-close socat-server-first
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs perl perl-base
needs socat socat
skip_if_missing

bytes=67108864
patience_s=30 # how long socat goes on with one direction when the other has ended

cat >"$server_dir/answer" <<'END'
#!/bin/sh
exec sha256sum
END
cat >"$server_dir/greet" <<'END'
#!/bin/sh
# socat ends it as soon as it has passed on the last byte.
trap '' HUP TERM
echo hello
perl -e 'shutdown(STDOUT, 1) or die'
sha256sum >received.new
mv received.new received
END
chmod +x "$server_dir/answer" "$server_dir/greet"
start answer socat -t "$patience_s" "UNIX-LISTEN:answer.sock,fork,mode=777" EXEC:./answer
start greet socat -t "$patience_s" "UNIX-LISTEN:greet.sock,fork,mode=777" EXEC:./greet
wait_for "socat" test -S "$server_dir/answer.sock" -a -S "$server_dir/greet.sock"

# The request ends, then the answer comes.
case_socat_half_close() {
    local answer
    sluice_to "unix:$server_dir/answer.sock"
    expect "the answer to printf" "$(printf 'ping\n' | sha256)" \
        "$(printf 'ping\n' | client socat -t "$patience_s" - "TCP:127.0.0.1:$port" | cut -d' ' -f1)"
    random_bytes "$bytes" >sent
    answer=$(client socat -t "$patience_s" - "TCP:127.0.0.1:$port" <sent | cut -d' ' -f1)
    expect "the answer to $bytes bytes" "$(sha256 sent)" "$answer"
    sluice_stop server-fin
    expect "connections" 2 "$records"
    expect "bytes_up" $((bytes + 5)) "$bytes_up"
    figure="answers after the end of 5 and of $bytes bytes"
}

# The server's end comes before the request.
case_socat_server_first() {
    random_bytes "$bytes" >sent
    sluice_to "unix:$server_dir/greet.sock"
    (
        wait_for "the greeting" grep -q hello greeting
        sleep 0.3 # the end that comes with the greeting
        cat sent
    ) | client socat -t "$patience_s" - "TCP:127.0.0.1:$port" >greeting
    expect "the greeting" hello "$(cat greeting)"
    wait_for "the server to have all" test -e "$server_dir/received"
    expect "what the server received" "$(sha256 sent)" "$(cut -d' ' -f1 "$server_dir/received")"
    sluice_stop client-fin
    expect "bytes_up" "$bytes" "$bytes_up"
    figure="$bytes bytes sent after the server's end"
}

run_cases
