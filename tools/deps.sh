#!/usr/bin/env bash
# Names the packages that are missing for the groups given, and installs them where that is allowed.
#
#   tools/deps.sh [build] [test] [net] [check] [demo] [fuzz] [soak] [tools] [mutants] [coverage]
#                 [valgrind] [bench]     (default: build)
#
# As root or with a sudo that asks no password, missing packages are installed with apt-get. Otherwise the command to
# run is printed and the exit status is 1. Nothing missing: says nothing, and is done in milliseconds.
# A package that is only wanted is installed likewise, and without it the exit status is 0.
set -euo pipefail

# Asked of the system itself, not of dpkg: a compiler built by hand is as good.
has_libc_headers() { [ -e /usr/include/stdio.h ]; }
has_criterion() { pkg-config --exists criterion 2>/dev/null; }
has_libfuzzer() { compgen -G "$(clang -print-resource-dir 2>/dev/null)/lib/*/libclang_rt.fuzzer*.a" >/dev/null; }
has_universal_ctags() { ctags --version 2>/dev/null | grep -q '^Universal Ctags'; }
has() { command -v "$1" >/dev/null 2>&1; }
# Servers are not on everybody's path.
has_server() { PATH=$PATH:/usr/sbin:/sbin has "$1"; }
has_nginx_stream() {
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] ||
        PATH=$PATH:/usr/sbin:/sbin nginx -V 2>&1 | grep -qE -- '--with-stream( |$)'
}
has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || has initdb; }

missing=()
wanted=()
# need PACKAGE TEST...: remembers the package when the test fails.
need() {
    local package=$1
    shift
    if ! "$@"; then
        missing+=("$package")
    fi
}

# The same for one that can be done without.
want() {
    local package=$1
    shift
    if ! "$@"; then
        wanted+=("$package")
    fi
}

needs_build() {
    need gcc has gcc
    need make has make
    need binutils has ar
    need libc6-dev has_libc_headers
}

needs_test() {
    need pkg-config has pkg-config
    need libcriterion-dev has_criterion
}

# Networks, rules and faults of the tests' own making.
needs_net() {
    need iproute2 has ip
    need nftables has_server nft
    need ethtool has_server ethtool
    need strace has strace
    need util-linux has prlimit
}

needs_check() {
    need clang has clang
    need clang-format has clang-format
    need clang-tidy has clang-tidy
    need cppcheck has cppcheck
    need universal-ctags has_universal_ctags
    need patch has patch
}

needs_mutants() {
    need patch has patch
    need util-linux has flock
}

needs_coverage() {
    need gcovr has gcovr
}

needs_valgrind() {
    need valgrind has valgrind
}

needs_fuzz() {
    need clang has clang
    need llvm has llvm-symbolizer
    need libclang-rt-dev has_libfuzzer
}

needs_demo() {
    need curl has curl
}

needs_soak() {
    need python3 has python3
    need gnuplot-nox has gnuplot
}

# The programs that tests/tools/run.sh puts sluice in front of.
needs_tools() {
    need curl has curl
    need git has git
    need iperf3 has iperf3
    need memcached has memcached
    need nginx has_server nginx
    need openssh-client has ssh
    need openssh-server has_server sshd
    need openssl has openssl
    need postgresql has_postgres
    need redis-server has redis-server
    need redis-tools has redis-benchmark
    need rsync has rsync
    need socat has socat
    need wrk has wrk
}

# Peers to compare with and tools to look with: what is not there is left out of the tables.
needs_bench() {
    need python3 has python3
    need wrk has wrk
    want gnuplot-nox has gnuplot
    want haproxy has_server haproxy
    want iperf3 has iperf3
    want libnginx-mod-stream has_nginx_stream
    want nginx has_server nginx
    want socat has socat
    want strace has strace
}

for group in "${@:-build}"; do
    case $group in
    build | test | net | check | demo | fuzz | soak | tools | mutants | coverage | valgrind | bench) "needs_$group" ;;
    *)
        echo "tools/deps.sh: there is no group '$group'; known are build, test, net, check, demo, fuzz, soak, tools," \
            "mutants, coverage, valgrind, bench" >&2
        exit 2
        ;;
    esac
done
all=("${missing[@]}" "${wanted[@]}")
if [ ${#all[@]} -eq 0 ]; then
    exit 0
fi
failed=$((${#missing[@]} > 0))

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo -n)
fi
if ! has apt-get || { [ ${#as_root[@]} -gt 0 ] && ! sudo -n true 2>/dev/null; }; then
    if [ ${#missing[@]} -gt 0 ]; then
        echo "Missing: ${missing[*]}. On Debian or Ubuntu, run:" >&2
    else
        echo "Not installed, and left out: ${wanted[*]}. To have them, on Debian or Ubuntu, run:" >&2
    fi
    echo "    sudo apt-get update && sudo apt-get install -y ${all[*]}" >&2
    exit "$failed"
fi

echo "Installing what is missing: ${all[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
if ! "${apt[@]}" update </dev/null || ! "${apt[@]}" install -y --no-install-recommends "${all[@]}" </dev/null; then
    echo "tools/deps.sh: apt-get could not install ${all[*]}; its messages are above" >&2
    exit "$failed"
fi
