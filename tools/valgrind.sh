#!/usr/bin/env bash
# Runs sluice under valgrind while integration tests drive it, and refuses every report.
#
#   tools/valgrind.sh                 some of the integration tests, about two minutes (or FILTER='reset/*')
#   tools/valgrind.sh --self-test     proves that a leaked descriptor, leaked memory and a wrong read are refused
#
# What it adds to ASan: memory that was never initialised, and descriptors: each process of sluice that exits by itself
# (one that is killed can not be asked) may have open what it was started with, its end of the control pipe, and the log
# pipe, and nothing else. So a socket, pipe or epoll that some path forgets is named here, with the call that opened it.
#
# The tests start a script in place of sluice, which starts sluice under valgrind; each process writes a file of its
# own. It is a debug build, so that stacks have names and lines.
#
# Environment: FILTER (a Criterion pattern), BUILD (build), MAKE (make), JOBS (2).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BUILD=${BUILD:-build}
export BUILD
# Ends of every kind, both engines, failing connects, draining, the log; little that takes its time.
FILTER=${FILTER:-'@(half_close|reset|connect|draining|accept_options)/*'}
export FILTER
mkdir -p "$BUILD/valgrind"
work=$(cd "$BUILD/valgrind" && pwd)
options=(--quiet --error-exitcode=99 --trace-children=yes --track-fds=yes --leak-check=full
    --errors-for-leak-kinds=definite,indirect --show-leak-kinds=definite,indirect)

# A report is made of blocks between empty lines. Of descriptors, those inherited are fine, and one end each of the
# pipes that these two open themselves: whatever a worker opens later has start_worker() further up in its stack.
control_pipe='sys_pipe \([^\n]*\n[^\n]*: start_worker \('
log_pipe='sys_pipe \([^\n]*\n[^\n]*: open_log_pipe \('

# refuse_reports DIR: prints what valgrind found in any file of the directory; false when there is something.
refuse_reports() {
    local files=("$1"/*.log)
    if ! grep -qs 'FILE DESCRIPTORS:' "${files[@]}"; then
        echo "FAILED: no process has reported its descriptors"
        return 1
    fi
    awk -v control_pipe="${control_pipe//\\/\\\\}" -v log_pipe="${log_pipe//\\/\\\\}" '
        function is_fine() {
            if (block !~ /^Open file descriptor/) return 0
            if (block ~ /<inherited from parent>/) return 1
            if (block ~ control_pipe) return ++control_pipes == 1
            return block ~ log_pipe && ++log_pipes == 1
        }
        function judge() {
            if (block != "" && !is_fine()) {
                print "FAILED: valgrind reported (" name "):\n" block
                failed = 1
            }
            block = ""
        }
        FNR == 1 {
            judge()
            name = FILENAME
            processes++
            control_pipes = log_pipes = 0
        }
        {
            line = $0
            sub(/^(==|--|\*\*)[0-9]+(==|--|\*\*) ?/, "", line)
            if (line ~ /^ *$/) judge()
            else if (line !~ /^FILE DESCRIPTORS: [0-9]+ open/) block = block line "\n"
            else { judge(); reported++ }
        }
        END {
            judge()
            if (!failed) printf "valgrind: %d processes, %d of them to the end; no error, no leak, no descriptor\n",
                processes, reported
            exit failed
        }' "${files[@]}"
}

# Programs of a few lines, each with one mistake or none.
self_test() {
    local dir=$work/self-test name expected said verdict wanted
    rm -rf "$dir"
    mkdir -p "$dir"
    make_program() {
        printf '#include <%s>\n' stdlib.h unistd.h fcntl.h sys/wait.h >"$dir/$1.c"
        printf 'char *volatile kept;\n%s\n' "$2" >>"$dir/$1.c"
        gcc -g -O0 -w "$dir/$1.c" -o "$dir/$1"
    }
    make_program clean 'int main(void) { int fd = open("/dev/null", O_RDONLY); close(fd); return 0; }'
    make_program descriptor 'int main(void) { open("/dev/zero", O_RDONLY); return 0; }'
    make_program child 'int main(void) { if (fork() == 0) { dup(0); exit(0); } wait(0); return 0; }'
    make_program control 'void sys_pipe(int *f) { pipe(f); close(f[1]); }
        void start_worker(void) { int f[2]; sys_pipe(f); }
        int main(void) { start_worker(); return 0; }'
    make_program pipe 'void sys_pipe(int *f) { pipe(f); close(f[1]); }
        void lend(void) { int f[2]; sys_pipe(f); }
        void start_worker(void) { lend(); } int main(void) { start_worker(); return 0; }'
    make_program memory 'int main(void) { malloc(77); return 0; }'
    make_program freed 'int main(void) { kept = malloc(1); free(kept); return kept[0] != 0; }'
    make_program uninitialised 'int main(void) { kept = malloc(8); if (kept[3]) sleep(0); free(kept); return 0; }'
    for name in clean control descriptor pipe child memory freed uninitialised; do
        mkdir "$dir/$name.d"
        valgrind "${options[@]}" --log-file="$dir/$name.d/%p.log" "$dir/$name" >/dev/null 2>&1 || true
        case $name in
        clean | control) expected='no error, no leak' ;;
        pipe) expected='by .*: lend ' ;;
        descriptor) expected='Open file descriptor .*/dev/zero' ;;
        child) expected='dup ' ;;
        memory) expected='77 bytes .* definitely lost' ;;
        freed) expected='Invalid read' ;;
        uninitialised) expected='uninitialised value' ;;
        esac
        said=$(refuse_reports "$dir/$name.d") && said+=$'\n'passed
        verdict=refused
        [[ $said != *passed ]] || verdict=passed
        wanted=refused
        [[ $name != c[lo]* ]] || wanted=passed
        if ! grep -q "$expected" <<<"$said" || [ $verdict != $wanted ]; then
            echo "tools/valgrind.sh --self-test: '$name' should have shown \"$expected\":"
            printf '%s\n' "$said"
            exit 1
        fi
    done
    ! refuse_reports "$dir" >/dev/null || { echo "tools/valgrind.sh --self-test: no report counts as none" && exit 1; }
    rm -rf "$dir"
    echo "tools/valgrind.sh --self-test: descriptors, leaks, freed and uninitialised memory are seen as failures"
}

run() {
    local failed=0
    rm -rf "$work/reports"
    mkdir -p "$work/reports"
    chmod 1777 "$work/reports" # a process that gave up root writes here too
    printf '#!/bin/sh\nexec valgrind %s --log-file=%s/%%p.log %s "$@"\n' "${options[*]}" "$work/reports" \
        "$(cd "$BUILD" && pwd)/debug/sluice" >"$work/sluice"
    chmod +x "$work/sluice"
    SLUICE_UNDER_TEST=$work/sluice tools/test.sh --suite integration debug || failed=1
    refuse_reports "$work/reports" || failed=1
    exit $failed
}

case ${1:-} in
--self-test) self_test ;;
'') run ;;
*)
    echo "tools/valgrind.sh: there is no option '$1'" >&2
    exit 2
    ;;
esac
