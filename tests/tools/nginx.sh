#!/usr/bin/env bash
# nginx, with wrk in front: keep-alive, a connection for each request, and many downloads over TLS and HTTP/2.
# Cases: nginx-keepalive nginx-close nginx-tls
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs curl curl
needs nginx nginx
needs openssl openssl
needs wrk wrk
skip_if_missing

connections=32
seconds=2
large_bytes=33554432
downloads=8
# wrk stops in the middle of what it does.
wrk_reasons='client-fin|server-fin|client-reset|client-abort'

mkdir "$server_dir/www"
random_bytes 3000 | base64 >"$server_dir/www/page"
random_bytes "$large_bytes" >"$server_dir/www/large"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 \
    -keyout "$server_dir/key.pem" -out "$server_dir/cert.pem" 2>/dev/null
[ ${#as_user[@]} -eq 0 ] || chown "$user" "$server_dir/key.pem"
free_port
nginx_port=$port
cat >"$server_dir/nginx.conf" <<END
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 100000000;
    client_body_temp_path tmp_body;
    proxy_temp_path tmp_proxy;
    fastcgi_temp_path tmp_fastcgi;
    uwsgi_temp_path tmp_uwsgi;
    scgi_temp_path tmp_scgi;
    server {
        listen 127.0.0.1:$nginx_port;
        listen unix:$server_dir/http.sock;
        listen unix:$server_dir/https.sock ssl http2;
        ssl_certificate cert.pem;
        ssl_certificate_key key.pem;
        root www;
    }
}
END
start nginx nginx -e stderr -p "$server_dir/" -c nginx.conf
wait_for "nginx" accepts "$nginx_port"

# Counts the answers that are not the page, byte for byte.
cat >"$dir/check.lua" <<END
local threads = {}
local file = io.open("$server_dir/www/page", "rb")
local page = file:read("*a")
wrong = 0
function setup(thread) table.insert(threads, thread) end
function response(status, headers, body) if body ~= page then wrong = wrong + 1 end end
function done(summary, latency, requests)
    local sum = 0
    for _, thread in ipairs(threads) do sum = sum + thread:get("wrong") end
    print("answers: " .. summary.requests .. " wrong: " .. sum)
end
END

# load TARGET [WRK_OPTION...]
load() {
    local target=$1 answers wrong
    shift
    sluice_to "$target"
    client wrk -t1 "-c$connections" "-d${seconds}s" -s "$dir/check.lua" "$@" "http://127.0.0.1:$port/page" >wrk.out
    ! grep -E 'Socket errors|Non-2xx' wrk.out >complaints || fail "wrk: $(cat complaints)"
    read -r answers wrong < <(sed -n 's/^answers: \([0-9]*\) wrong: \([0-9]*\)$/\1 \2/p' wrk.out)
    expect "answers that are not the page" 0 "$wrong"
    [ "$answers" -gt 0 ] || fail "no answer in $seconds s"
    sluice_stop "$wrk_reasons"
    figure="$answers answers, all of them the page, $(sed -n 's/^Requests\/sec: *//p' wrk.out)/s, $records connections"
}

case_nginx_keepalive() {
    load "127.0.0.1:$nginx_port"
    # wrk makes one connection more, to see whether the address is any good.
    [ "$records" -le $((connections + 1)) ] || fail "$records connections for $connections that are kept"
}

case_nginx_close() {
    load "unix:$server_dir/http.sock" -H 'Connection: close'
    [ "$records" -gt $((connections * 2)) ] || fail "only $records connections"
}

case_nginx_tls() {
    local i arguments=() sum started_at
    sum=$(sha256 "$server_dir/www/large")
    sluice_to "unix:$server_dir/https.sock"
    for ((i = 0; i < downloads; i++)); do
        arguments+=(-o "body$i" "https://127.0.0.1:$port/large")
    done
    started_at=$EPOCHREALTIME
    client curl -q -sS --fail --noproxy '*' --http2 --cacert "$server_dir/cert.pem" --parallel --parallel-immediate \
        "${arguments[@]}"
    figure="$downloads downloads of $large_bytes bytes at once"
    figure+=", $(rate $((downloads * large_bytes)) "$started_at")"
    for ((i = 0; i < downloads; i++)); do
        expect "checksum of download $i" "$sum" "$(sha256 "body$i")"
    done
    sluice_stop
    figure+=", $records connections"
}

run_cases
