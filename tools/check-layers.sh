#!/usr/bin/env bash
# Refuses an include that points to a higher layer, an include cycle, and a socket system call outside src/net/sys.c.
#
#   tools/check-layers.sh [DIRECTORY]     checks src/ and include/ there (default: this project)
#   tools/check-layers.sh --self-check    proves, in a scratch directory, that each rule catches its violation
#
# src/net/sys.c is the one place that tests wrap to make the kernel fail, so a call made elsewhere is one that no test
# can make fail.
set -euo pipefail

# Folder, then what its files may include: a folder, one header, or * for everything. This table is the architecture.
rules='
base   base
net    base net
relay  base net relay
pool   base net relay pool
conf   base net/addr.h conf
ops    base net relay conf ops
proc   *
main   *
'
calls='epoll_[a-z0-9_]+|splice|recv|send|accept4|connect|socket|setsockopt|getsockopt|bind|listen|shutdown|pipe2'

# check DIRECTORY: prints one line per violation; the status is 1 when there is any.
check() {
    (
        cd "$1"
        local files
        mapfile -t files < <(find src include -name '*.[ch]' 2>/dev/null | LC_ALL=C sort)
        if [ ${#files[@]} -eq 0 ]; then
            echo "there is no source file in $1" >&2
            exit 1
        fi
        LC_ALL=C awk -v rules="$rules" -v calls="$calls" "$program" "${files[@]}"
    )
}

# Written for any POSIX awk (Debian has mawk).
program='
BEGIN {
    count = split(rules, line, "\n")
    for (i = 1; i <= count; i++) {
        if (split(line[i], word, " ") == 0) {
            continue
        }
        allowed[word[1]] = line[i]
        sub(/^ *[a-z]+ +/, "", allowed[word[1]])
    }
    for (i = 1; i < ARGC; i++) {
        exists[ARGV[i]] = 1
    }
    call_pattern = "(^|[^A-Za-z0-9_])(" calls ")[ \t]*\\("
}

function report(text) {
    print FILENAME ":" FNR ": " text
    failed = 1
}

# src/net/sys.c and include/net/sys.h are net; src/main.c is main.
function layer_of(path,    part) {
    return split(path, part, "/") > 2 ? part[2] : "main"
}

# What follows a string or character literal whose opening quote has been taken off.
function after_literal(text, quote,    token) {
    while (match(text, /\\.|"|\047/)) {
        token = substr(text, RSTART, RLENGTH)
        text = substr(text, RSTART + RLENGTH)
        if (token == quote) {
            return text
        }
    }
    return ""
}

# The line without comments and literals; in_comment carries over to the next line.
function code_of(text,    code, token, end) {
    code = ""
    while (text != "") {
        if (in_comment) {
            end = index(text, "*/")
            if (end == 0) {
                return code
            }
            in_comment = 0
            text = substr(text, end + 2)
            code = code " "
        } else if (!match(text, /\/\*|\/\/|"|\047/)) {
            return code text
        } else {
            token = substr(text, RSTART, RLENGTH)
            code = code substr(text, 1, RSTART - 1)
            text = substr(text, RSTART + RLENGTH)
            if (token == "//") {
                return code
            }
            if (token == "/*") {
                in_comment = 1
            } else {
                text = after_literal(text, token)
            }
        }
    }
    return code
}

function may_include(layer, header,    part, word, count, i) {
    split(header, part, "/")
    count = split(allowed[layer], word, " ")
    for (i = 1; i <= count; i++) {
        if (word[i] == "*" || word[i] == part[1] || word[i] == header) {
            return 1
        }
    }
    return 0
}

function check_include(text,    quote, header, layer) {
    sub(/^[ \t]*#[ \t]*include[ \t]*/, "", text)
    quote = substr(text, 1, 1)
    header = substr(text, 2)
    sub(/[">].*$/, "", header)
    layer = layer_of(FILENAME)
    if (quote == "<") {
        if (("include/" header) in exists) {
            report("includes <" header ">, which is a header of this project: write it with quotes")
        }
        return
    }
    if (!(layer in allowed)) {
        report("the folder \"" layer "\" has no line in the table of tools/check-layers.sh")
    } else if (header !~ /^[a-z]+\/[a-z0-9_]+\.h$/) {
        report("includes \"" header "\"; headers of this project are named as \"layer/name.h\"")
    } else if (!may_include(layer, header)) {
        report("includes \"" header "\"; files of " layer " may include only: " allowed[layer])
    }
    if (FILENAME ~ /^include\//) {
        edges[FILENAME] = edges[FILENAME] " include/" header
        edge_line[FILENAME, "include/" header] = FNR
    }
}

function check_calls(code,    before, name) {
    while (match(code, call_pattern)) {
        before = substr(code, 1, RSTART)
        name = substr(code, RSTART, RLENGTH)
        code = substr(code, RSTART + RLENGTH)
        gsub(/[^A-Za-z0-9_]/, "", name)
        # A member that is called, as in io->connect(x), is not the system call.
        if (before !~ /(\.|->)$/) {
            report("calls " name "(); only src/net/sys.c may, everything else goes through its sys_ functions")
        }
    }
}

# Depth first; a header met while it is still on the path closes a cycle.
function visit(header, path,    next_header, count, i) {
    state[header] = "open"
    count = split(edges[header], next_header, " ")
    for (i = 1; i <= count; i++) {
        if (state[next_header[i]] == "open") {
            print header ":" edge_line[header, next_header[i]] ": closes an include cycle:" \
                substr(path, index(path, " " next_header[i])) " " next_header[i] "; includes may point only one way"
            failed = 1
        } else if (state[next_header[i]] == "" && next_header[i] in exists) {
            visit(next_header[i], path " " next_header[i])
        }
    }
    state[header] = "done"
}

FNR == 1 {
    in_comment = 0
}

{
    include_line = !in_comment && $0 ~ /^[ \t]*#[ \t]*include[ \t]*["<]/
    code = code_of($0)
    if (include_line) {
        check_include($0)
    } else if (FILENAME != "src/net/sys.c") {
        check_calls(code)
    }
}

END {
    for (i = 1; i < ARGC; i++) {
        if (edges[ARGV[i]] != "" && state[ARGV[i]] == "") {
            visit(ARGV[i], " " ARGV[i])
        }
    }
    exit failed
}
'

# A tree with nothing wrong, written so as to tempt each rule.
make_clean_tree() {
    mkdir -p "$1"/{src,include}/{base,net,conf,proc}
    echo '#include <stddef.h>' >"$1/include/base/list.h"
    printf '%s\n' '#include "base/list.h"' 'int sys_recv(int fd);' >"$1/include/net/sys.h"
    printf '%s\n' '#include "net/sys.h"' '#include <net/if.h>' 'int sys_recv(int fd) { return recv(fd, 0, 0, 0); }' \
        >"$1/src/net/sys.c"
    printf '%s\n' '#include "base/list.h"' >"$1/include/net/addr.h"
    printf '%s\n' '#include "conf/lexer.h"' '#include "net/addr.h"' >"$1/src/conf/lexer.c"
    printf '%s\n' '#include "base/list.h"' >"$1/include/conf/lexer.h"
    printf '%s\n' '#include "conf/lexer.h"' '#include "net/sys.h"' '/* #include "proc/master.h"' ' * then send(x) */' \
        'void f(struct io *io) { io->connect(1); io.send(2); sys_recv(3); my_splice (4); }' \
        "const char *s = \"bind(1) /* \\\" listen(2)\"; // shutdown(3)" "char c = '\"'; int g(int resend(int));" \
        >"$1/src/proc/worker.c"
    echo '#include "proc/worker.h"' >"$1/src/main.c"
}

# expect_violation TEXT FILE LINE... [@FILE LINE...]: a clean tree with these lines added must be refused with TEXT.
expect_violation() {
    local text=$1 file tree output word
    shift
    tree=$(mktemp -d "$scratch/XXXXXX")
    make_clean_tree "$tree"
    for word in "@$1" "${@:2}"; do
        if [[ $word == @* ]]; then
            file=$tree/${word#@}
            mkdir -p "$(dirname "$file")"
        else
            printf '%s\n' "$word" >>"$file"
        fi
    done
    if output=$(check "$tree") || [[ $output != *"$text"* ]] || [ "$(wc -l <<<"$output")" -ne 1 ]; then
        echo "tools/check-layers.sh --self-check: this should have been refused with \"$text\", and only once:"
        printf '    %s\n' "$*" "${output:-(nothing was found)}"
        exit 1
    fi
}

self_check() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir "$scratch/clean"
    make_clean_tree "$scratch/clean"
    if ! check "$scratch/clean"; then
        echo "tools/check-layers.sh --self-check: nothing is wrong in the tree above, but it was refused"
        exit 1
    fi
    expect_violation 'src/base/list.c:1: includes "net/sys.h"' src/base/list.c '#include "net/sys.h"'
    expect_violation 'may include only: base net/addr.h conf' src/conf/lexer.c '#include "net/sys.h"'
    expect_violation 'include/net/sys.h:3: includes "conf/lexer.h"' include/net/sys.h '  #  include "conf/lexer.h"'
    expect_violation 'named as "layer/name.h"' src/net/sock.c '#include "../proc/worker.h"'
    expect_violation 'write it with quotes' src/base/list.c '#include <net/sys.h>'
    expect_violation 'no line in the table' src/other/a.c '#include "base/list.h"'
    expect_violation 'src/net/sock.c:2: calls socket()' src/net/sock.c 'int f(void) {' 'return socket (1, 2, 3); }'
    expect_violation 'calls epoll_ctl()' include/base/list.h 'static inline int f(void) { return -epoll_ctl(1); }'
    expect_violation 'calls send()' src/proc/worker.c '/* over */ int h = send(1); /* again'
    expect_violation 'include/base/list.h:3: closes an include cycle' include/base/list.h '' '#include "base/list.h"'
    expect_violation 'cycle: include/base/list.h include/base/node.h include/base/list.h' include/base/list.h \
        '#include "base/node.h"' @include/base/node.h '#include "base/list.h"'
}

case ${1:-} in
--self-check) self_check ;;
-*)
    echo "usage: tools/check-layers.sh [--self-check | DIRECTORY]" >&2
    exit 2
    ;;
*) check "${1:-$(dirname "${BASH_SOURCE[0]}")/..}" ;;
esac
