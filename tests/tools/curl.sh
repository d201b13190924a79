#!/usr/bin/env bash
# curl and the bench origin: one long download, compared with the same one past sluice, each engine, and an upload.
# Cases: curl-2g curl-copy curl-splice curl-slow curl-upload
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

needs curl curl
skip_if_missing

big=2147483648
medium=134217728
slow=41943040
slow_rate=20M
upload=314572800

free_port
origin=$port
start origin "$bin/origin" --listen "127.0.0.1:$origin"
wait_for "the origin" accepts "$origin"

# fetch PORT BYTES NAME [OPTION...]: the file NAME gets the checksum of the body, NAME.seen the size of the header and
# of the body, and the speed.
fetch() {
    local from=$1 bytes=$2 name=$3
    shift 3
    client curl -q -sS --fail --noproxy '*' -w '%{stderr}%{size_header} %{size_download} %{speed_download}\n' "$@" \
        "http://127.0.0.1:$from/bytes/$bytes" 2>"$name.seen" | sha256 >"$name"
}

# same_bytes BYTES PATTERN [SLUICE_OPTION...]: fetches through sluice; PATTERN is what the spliced bytes must match.
same_bytes() {
    local bytes=$1 spliced=$2 sum header body speed
    shift 2
    sluice_to "127.0.0.1:$origin" "$@"
    fetch "$port" "$bytes" through &
    fetch "$origin" "$bytes" direct
    wait $!
    read -r header body speed <through.seen
    sum=$(cat through)
    expect "the body's checksum" "$(cat direct)" "$sum"
    expect "the body's length" "$bytes" "$body"
    sluice_stop
    expect "connections" 1 "$records"
    expect "bytes_down" $((header + bytes)) "$bytes_down"
    [[ $bytes_spliced =~ ^$spliced$ ]] || fail "spliced_bytes=$bytes_spliced"
    figure="$bytes bytes, sha256 ${sum::12} on both paths, $((speed / 1000000)) MB/s"
    figure+=" with the checksums, $bytes_spliced spliced"
}

case_curl_2g() {
    same_bytes "$big" '[0-9]+'
}

case_curl_copy() {
    same_bytes "$medium" 0 --splice never
}

case_curl_splice() {
    same_bytes "$medium" '[1-9][0-9]+' --splice always
}

# A reader that is slower than the server all the time.
case_curl_slow() {
    sluice_to "127.0.0.1:$origin"
    fetch "$port" "$slow" through --limit-rate "$slow_rate"
    fetch "$origin" "$slow" direct
    expect "the body's checksum" "$(cat direct)" "$(cat through)"
    figure="$slow bytes at $slow_rate/s, sha256 $(head -c 12 through) on both paths"
}

case_curl_upload() {
    local reply sent speed
    truncate -s "$upload" body
    sluice_to "127.0.0.1:$origin"
    reply=$(client curl -q -sS --fail --noproxy '*' -X POST -T body -w '%{stderr}%{size_request} %{speed_upload}\n' \
        "http://127.0.0.1:$port/discard" 2>sent)
    read -r sent speed <sent
    expect "the origin's count" "$upload" "$reply"
    sluice_stop
    expect "bytes_up" $((sent + upload)) "$bytes_up"
    figure="$upload bytes counted by the server, $((speed / 1000000)) MB/s"
}

run_cases
