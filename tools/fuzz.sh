#!/usr/bin/env bash
# Builds the fuzz targets of tests/fuzz with clang's libFuzzer, and runs them. Usually by `make fuzz`.
#
#   tools/fuzz.sh run [TARGET...]      first the corpus, then looks for new inputs, T seconds for each target
#   tools/fuzz.sh replay [TARGET...]   the corpus only: seconds, and always the same
#   tools/fuzz.sh merge [TARGET...]    puts what runs have found into tests/fuzz/corpus, as few files as will do
#   tools/fuzz.sh --self-test          proves that a target that fails, leaks, hangs or ends early is seen
#
# The corpus in the repository is only read by run and replay. What a run finds goes to BUILD/fuzz/work/TARGET/new, and
# inputs that fail to BUILD/fuzz/work/TARGET/found; both stay there, so the next run goes on where this one ended.
#
# Environment: T (seconds a target, 60), JOBS (targets at once, one per processor), BUILD (build), MAKE (make).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

T=${T:-60}
JOBS=${JOBS:-$(nproc)}
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
input_seconds=25     # one input that takes longer is a finding
memory_mb=2048       # so is a run that takes more
corpus_files_max=200 # what merge keeps of a target: so many files, each of at most so many bytes
corpus_file_bytes=1024
programs=$BUILD/fuzz/tests/fuzz
work=$BUILD/fuzz/work
corpora=tests/fuzz/corpus

if ! [[ $T =~ ^[1-9][0-9]*$ && $JOBS =~ ^[1-9][0-9]*$ ]]; then
    echo "tools/fuzz.sh: T and JOBS are whole numbers, found T='$T' JOBS='$JOBS'" >&2
    exit 2
fi

declare -A name_of=() # of the processes that run
failed=()
stop() {
    trap '' INT TERM
    [ ${#name_of[@]} -eq 0 ] || kill -TERM "${!name_of[@]}" 2>/dev/null || true
    wait || true
    echo "tools/fuzz.sh: interrupted" >&2
    exit 130
}
trap stop INT TERM

build() {
    local jobs=()
    [[ ${MAKEFLAGS:-} == *jobserver* ]] || jobs=("-j$(nproc)")
    tools/deps.sh build fuzz
    "$MAKE" "${jobs[@]}" MODE=fuzz CC=clang BUILD="$BUILD" fuzz-programs
}

# Sets `arguments` to what libFuzzer is told about a target.
arguments_of() {
    arguments=(-timeout="$input_seconds" -rss_limit_mb="$memory_mb" -max_len=4096 -print_final_stats=1
        -artifact_prefix="$work/$1/found/")
    if [ -e "tests/fuzz/$1.dict" ]; then
        arguments+=(-dict="tests/fuzz/$1.dict")
    fi
}

# timeout(1) hands a signal on to the fuzzer, and ends one that has lost its own sense of time.
start() {
    local name=$1 corpus=$corpora/$1
    shift
    arguments_of "$name"
    mkdir -p "$work/$name/new" "$work/$name/found" "$corpus"
    case $1 in
    run) arguments+=(-max_total_time="$T" "$work/$name/new" "$corpus") ;;
    replay) arguments+=(-runs=0 "$corpus") ;;
    esac
    timeout -k 10 $((T + 300)) "$programs/$name" "${arguments[@]}" >"$work/$name/log" 2>&1 </dev/null &
    name_of[$!]=$name
}

stat_of() {
    sed -n "s/^stat::$2: *//p" "$work/$1/log" | tail -n 1
}

report_success() {
    local coverage
    coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/$1/log" | tail -n 1)
    printf 'ok %s: %s inputs, %s a second, %s places in the code reached, %s MB\n' "$1" \
        "$(stat_of "$1" number_of_executed_units)" "$(stat_of "$1" average_exec_per_sec)" "${coverage:-0}" \
        "$(stat_of "$1" peak_rss_mb)"
}

report_failure() {
    local input
    failed+=("$1")
    echo "FAILED $1: exit status $2; the log is $work/$1/log, and ends:"
    grep -av -e '^#' -e '^stat::' -e '# Uses:' "$work/$1/log" | tail -n 45 | sed 's/^/    /'
    input=$(sed -n 's/.*Test unit written to //p' "$work/$1/log" | tail -n 1)
    if [ -n "$input" ]; then
        echo "FAILED $1: to see it again: $programs/$1 $input"
    fi
}

# Waits for one of the processes, and says how it ended.
collect() {
    local pid status=0 name
    wait -n -p pid "${!name_of[@]}" || status=$?
    name=${name_of[$pid]}
    unset "name_of[$pid]"
    # libFuzzer's own statistics at the end prove that it came there.
    if [ $status -eq 0 ] && [ -n "$(stat_of "$name" number_of_executed_units)" ]; then
        report_success "$name"
    else
        report_failure "$name" $status
    fi
}

run_all() {
    local name
    for name in "${targets[@]}"; do
        [ ${#name_of[@]} -lt "$JOBS" ] || collect
        start "$name" "$1"
    done
    while [ ${#name_of[@]} -gt 0 ]; do
        collect
    done
}

# merge_into NEW OPTION...: the smallest set of inputs that reaches all that the corpus and the finds reach.
merge_into() {
    local name=$1 new=$2
    shift 2
    arguments_of "$name"
    rm -rf "$new"
    mkdir -p "$new" "$work/$name/new" "$work/$name/found" "tests/fuzz/corpus/$name"
    "$programs/$name" -merge=1 "$@" "${arguments[@]}" "$new" "tests/fuzz/corpus/$name" "$work/$name/new" \
        >"$work/$name/merge.log" 2>&1 </dev/null || { tail -n 20 "$work/$name/merge.log" >&2; exit 1; }
}

count_files() {
    find "$1" -type f | wc -l
}

# First what reaches each place in the code; then, up to the limit, some of what reaches it a different number of times.
# Names are hashes, so that their order is as good as a draw.
merge() {
    local name all new file
    for name in "${targets[@]}"; do
        all=$work/$name/all
        new=$work/$name/merged
        merge_into "$name" "$all"
        merge_into "$name" "$new" -use_counters=0
        for file in "$all"/*; do
            if [ "$(count_files "$new")" -lt $corpus_files_max ] && [ "$(wc -c <"$file")" -le $corpus_file_bytes ]; then
                cp "$file" "$new"
            fi
        done
        rm -rf "tests/fuzz/corpus/$name"
        mkdir -p tests/fuzz/corpus
        mv "$new" "tests/fuzz/corpus/$name"
        echo "merged $name: $(count_files "tests/fuzz/corpus/$name") of $(count_files "$all") files," \
            "$(cat "tests/fuzz/corpus/$name"/* | wc -c) bytes"
    done
}

# expect pass|fail TEXT NAME CODE: a target with this code must pass or fail, and the report must have this text.
expect() {
    local verdict=pass output
    printf '#include <stdint.h>\n#include <stdlib.h>\nvoid *volatile kept;\n%s\n' \
        "int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len) { (void)bytes; $4; return 0; }" >"$programs/$3.c"
    clang -g -fsanitize=fuzzer,address "$programs/$3.c" -o "$programs/$3"
    output=$(start "$3" run && collect && [ ${#failed[@]} -eq 0 ]) || verdict=fail
    if [ $verdict != "$1" ] || [[ $output != *"$2"* ]]; then
        printf '%s\n' "$output" "tools/fuzz.sh --self-test: '$3' should $1 and show \"$2\"; it did $verdict"
        exit 1
    fi
    if [ $verdict = fail ] && [[ $output == *"to see it again"* ]] &&
        "$programs/$3" -timeout=2 "$(find "$work/$3/found" -type f -print -quit)" >/dev/null 2>&1; then
        echo "tools/fuzz.sh --self-test: the input that '$3' fails with does not make it fail again"
        exit 1
    fi
}

self_test() {
    tools/deps.sh build fuzz
    work=$BUILD/fuzz/self-test
    programs=$work/programs
    input_seconds=2
    T=5
    rm -rf "$work"
    mkdir -p "$programs"
    corpora=$work/corpus
    expect pass "ok clean" clean ''
    expect fail "to see it again" crash 'if (len > 3) abort()'
    expect fail "LeakSanitizer" leak 'if (len > 3) { kept = malloc(7); kept = NULL; }'
    expect fail "timeout" hang 'while (len > 3) {}'
    expect fail "exit status" early 'if (len > 3) _Exit(0)'
    echo "tools/fuzz.sh --self-test: failures, leaks, hangs and targets that end early are seen, and can be seen again"
}

# In a function, so that the script is read to its end before hours go by in which somebody may edit it.
main() {
    local name source mode=${1:-run}
    if [ "$mode" = --self-test ]; then
        self_test
        return
    fi
    [ $# -eq 0 ] || shift
    targets=("$@")
    if [ ${#targets[@]} -eq 0 ]; then
        for source in tests/fuzz/*.c; do
            source=${source##*/}
            targets+=("${source%.c}")
        done
    fi
    for name in "${targets[@]}"; do
        if ! [ -e "tests/fuzz/$name.c" ]; then
            echo "tools/fuzz.sh: there is no target '$name'; known are:" tests/fuzz/*.c >&2
            return 2
        fi
    done
    case $mode in
    run | replay | merge) ;;
    *)
        echo "tools/fuzz.sh: there is no mode '$mode'; known are run, replay, merge" >&2
        return 2
        ;;
    esac
    build
    if [ "$mode" = merge ]; then
        merge
        return
    fi
    run_all replay
    if [ "$mode" = run ] && [ ${#failed[@]} -eq 0 ]; then
        run_all run
    fi
    if [ ${#failed[@]} -gt 0 ]; then
        echo "FAILED: ${failed[*]}"
        return 1
    fi
}

main "$@"
exit
