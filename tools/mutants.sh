#!/usr/bin/env bash
# Puts known mistakes into sluice, one at a time, and demands that a test fails for each.
#
#   tools/mutants.sh                  all of tests/mutants/*.patch; writes tests/mutants/RESULTS.md
#   tools/mutants.sh --check          every patch still applies and has its header; a second, builds nothing
#   tools/mutants.sh --refresh        writes those that apply anew, with the line numbers and contexts of today
#   tools/mutants.sh --self-test      proves that a mistake which nobody finds is reported, and broken patches too
#
# A patch begins with a header, and is made with paths as in `diff -u a/src/x.c b/src/x.c`:
#
#   What: one sentence, the mistake
#   Class: B01                        its class, see docs/CATALOGUE.md
#   Suites: unit:flow/* sim           where to look first; SUITE or SUITE:FILTER, a Criterion pattern without spaces
#   Short: yes                        optional: one of those that SHORT=1 runs, which have to be found by unit or sim
#
# What is tested is a copy of the sources as they are when this starts, so that editing goes on meanwhile. For each
# mistake a copy of it, objects included, is patched and built in debug; only what changed is compiled. Then come
# the suites that the header names, then all, the quickest first, up to the first failing test. A failure counts only if
# that test fails once more with the mistake, and passes without it: chance and load kill nothing.
#
# Environment: ONLY (parts of file names of patches), SHORT (1: few mistakes, unit and sim only, no RESULTS.md),
# LANES (mistakes at once, 2), BUILD (build), MAKE (make), MUTANTS (tests/mutants), STAGES (what comes after the suites
# of the header), TIMEOUT (seconds a test, 40).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BUILD=${BUILD:-build}
ONLY=${ONLY:-}
SHORT=${SHORT:-}
LANES=${LANES:-2}
MUTANTS=${MUTANTS:-tests/mutants}
export MAKE=${MAKE:-make}
export TIMEOUT=${TIMEOUT:-40}
export SUITE_TIMEOUT=${SUITE_TIMEOUT:-600}
unset FILTER MAKEFLAGS MFLAGS MAKELEVEL # each build is on its own

copied=(Makefile src include tests tools bench)
copied+=(docs README.md) # for tests that read them

die() {
    echo "tools/mutants.sh: $*" >&2
    exit 1
}

# header FIELD PATCH
header() {
    sed -n "1,/^\$/s/^$1: *//p" "$2" | head -n 1
}

patches() {
    local patch part parts
    read -ra parts <<<"${ONLY:-.patch}"
    for part in "${parts[@]}"; do
        for patch in "$MUTANTS"/*"$part"*; do
            [[ $patch == *.patch && -e $patch ]] || continue
            if [ -z "$SHORT" ] || [ "$(header Short "$patch")" = yes ]; then
                echo "$patch"
            fi
        done
    done | sort -u
}

# try_patch DIR PATCH OPTION...: offsets are fine, a context that differs is not
try_patch() {
    patch -d "$1" -p1 -s -f -F2 --no-backup-if-mismatch -r - "${@:3}" <"$2"
}

check_patch() {
    local field said
    for field in What Class Suites; do
        [ -n "$(header "$field" "$1")" ] || { echo "$1: there is no line '$field: ...' in its header" && return 1; }
    done
    [[ $(header Class "$1") =~ ^B[0-9][0-9]$ ]] || { echo "$1: 'Class' must be like B07" && return 1; }
    said=$(try_patch . "$1" --dry-run 2>&1) || { printf '%s does not apply any more:\n%s\n' "$1" "$said" && return 1; }
}

check_all() {
    local patch failed=0 count=0
    for patch in $(patches); do
        check_patch "$patch" || failed=1
        count=$((count + 1))
    done
    [ "$count" -gt 0 ] || die "there is no patch in $MUTANTS${ONLY:+ with '$ONLY' in its name}"
    return $failed
}

# Writes each patch anew against the sources of today, so that line numbers and contexts do not grow old.
refresh() {
    local patch file dir
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' RETURN
    for patch in $(patches); do
        sed '/^$/q' "$patch" >"$dir/new.patch"
        for file in $(sed -n 's|^+++ b/||p' "$patch"); do
            install -D "$file" "$dir/$file"
        done
        try_patch "$dir" "$patch" || die "$patch does not apply any more"
        for file in $(sed -n 's|^+++ b/||p' "$patch"); do
            diff -u --label "a/$file" --label "b/$file" "$file" "$dir/$file" >>"$dir/new.patch" || true
        done
        cmp -s "$dir/new.patch" "$patch" || cp "$dir/new.patch" "$patch"
    done
}

# run_suite DIR SUITE FILTER OUTPUT [all]: up to the first failing test, or all of them.
run_suite() {
    local settings=(BUILD=build FILTER="$3")
    [ -n "${5:-}" ] || settings+=(CRITERION_FAIL_FAST=1)
    [ "$2" != unit ] || settings+=(TIMEOUT=$((TIMEOUT / 2))) # none of them takes seconds
    (cd "$1" && exec env "${settings[@]}" tools/test.sh --suite "$2" debug) >"$4" 2>&1
}

failed_tests() {
    sed -n 's/^\[FAIL\] \([a-z0-9_]*\)::\([a-zA-Z0-9_]*\).*/\1\/\2/p' "$1" | awk '!seen[$0]++'
}

# is_killer SUITE FILTER: true when it fails with the mistake, and passes without.
is_killer() {
    ! run_suite "$lane" "$1" "$2" "$lane/again.out" &&
        flock "$work/lock" "${BASH_SOURCE[0]}" --without "$1" "$2" "$lane/without.out"
}

# look SUITE[:FILTER]: true when the mistake was found; sets `suite` and `killer`. 2: no test has such a name.
look() {
    local mode filter=''
    suite=${1%%:*}
    [ "$suite" = "$1" ] || filter=${1#*:}
    for mode in '' all; do # a test that failed by chance must not hide the others
        if run_suite "$lane" "$suite" "$filter" "$lane/suite.out" $mode; then
            return 1
        fi
        ! grep -q 'no test was run' "$lane/suite.out" || return 2
        for killer in $(failed_tests "$lane/suite.out" | head -n 8); do
            if is_killer "$suite" "$killer"; then
                return 0
            fi
            notes+="; $killer failed by chance"
        done
    done
    # Nothing failed but the rules of tools/test.sh, such as "no process is left".
    if [ -z "$(failed_tests "$lane/suite.out")" ] && is_killer "$suite" "$filter"; then
        killer=$(sed -n 's/^FAILED: //p' "$lane/suite.out" | head -n 1)
        return 0
    fi
    return 1
}

wide_stages() {
    local name stages=(unit sim)
    if [ -n "${STAGES:-}" ]; then
        echo "$STAGES"
        return
    fi
    if [ -z "$SHORT" ]; then
        stages+=(matrix integration)
        [ "$(id -u)" -ne 0 ] || stages+=(net)
    fi
    for name in "${stages[@]}"; do
        ! compgen -G "tests/$name/*" >/dev/null || echo "$name"
    done
}

# judge PATCH: sets `verdict`, and for a mistake that was found `suite` and `killer`
judge() {
    local stage stages said status
    if ! said=$(try_patch "$lane" "$1" 2>&1); then
        verdict="does not apply: $said"
        return
    fi
    if ! "$MAKE" -C "$lane" -j2 BUILD=build MODE=debug tests >"$lane/build.out" 2>&1; then
        verdict="does not compile: $(grep -m 1 -E 'error|Error' "$lane/build.out" || true)"
        return
    fi
    read -ra stages <<<"$(header Suites "$1") $(wide_stages | tr '\n' ' ')"
    for stage in "${stages[@]}"; do
        status=0
        look "$stage" || status=$?
        case $status in
        0) verdict=killed && return ;;
        2) verdict="its header names '$stage', and no test matches" && return ;;
        esac
    done
    verdict="SURVIVED$notes"
}

# One mistake, in a process of its own; its result is one line in a file of its own.
run_one() {
    local patch=$1 name started=$SECONDS
    name=$(basename "$patch" .patch)
    lane=$work/lane-$name
    verdict='' suite=- killer=- notes=''
    rm -rf "$lane"
    cp -a "$work/clean" "$lane"
    judge "$patch"
    if [ "$verdict" != killed ]; then
        suite=- killer=$verdict
        verdict=FAILED
        mkdir -p "$work/kept"
        rm -rf "$work/kept/$name"
        mkdir "$work/kept/$name"
        cp "$lane"/*.out "$work/kept/$name" 2>/dev/null || true
    fi
    printf '%s\t%s\t%s\t%s\t%s\n' "$name" "$verdict" "$suite" "${killer//[$'\t\n']/ }" $((SECONDS - started)) \
        >"$work/results/$name"
    printf '%-8s %-38s %s: %s (%s s)\n' "$verdict" "$name" "$suite" "$killer" $((SECONDS - started))
    rm -rf "$lane"
}

# Copies the sources and builds them: `clean` is what every mistake starts from, `without` is where tests run without.
make_copies() {
    local part
    mkdir -p "$work/clean"
    for part in "${copied[@]}"; do
        rm -rf "${work:?}/clean/$part"
        [ ! -e "$part" ] || cp -a "$part" "$work/clean/$part"
    done
    rm -rf "$work"/lane-* "$work/without" "$work/kept" "$work/results"
    mkdir -p "$work/results"
    "$MAKE" -C "$work/clean" -j2 BUILD=build MODE=debug tests >"$work/build.out" 2>&1 || {
        tail -n 20 "$work/build.out"
        die "the sources do not compile without any mistake"
    }
    cp -a "$work/clean" "$work/without"
}

print_markdown() {
    local name verdict suite killer seconds patch what
    echo "# Seeded mistakes"
    echo
    echo "Written by \`$1\` on $(date -u +%Y-%m-%d). Each mistake is a patch of this folder; \"found by\" is the"
    echo "first test that fails with it and passes without it, and its suite. The seconds include building."
    echo
    echo "| mistake | class | what | found by | suite | s |"
    echo "|---|---|---|---|---|---|"
    while IFS=$'\t' read -r name verdict suite killer seconds; do
        patch=$MUTANTS/$name.patch
        [ "$verdict" = killed ] || killer="**$killer**"
        what=$(header What "$patch")
        echo "| \`$name\` | $(header Class "$patch") | ${what//|/\\|} | ${killer//|/\\|} | $suite | $seconds |"
    done < <(cat "$work"/results/*)
    echo
    echo "$(cat "$work"/results/* | grep -cP '\tkilled\t') of $(cat "$work"/results/* | wc -l) found, in $2 seconds."
}

run_all() {
    local started=$SECONDS list
    check_all || die "mend the patches first (tools/mutants.sh --check)"
    list=$(patches)
    make_copies
    export work BUILD MUTANTS SHORT
    xargs -P "$LANES" -n 1 "${BASH_SOURCE[0]}" --one <<<"$list" | tee "$work/said" || true
    [ "$(find "$work/results" -type f | wc -l)" -eq "$(wc -l <<<"$list")" ] || die "not every mistake was tried"
    print_markdown "make mutants${SHORT:+ SHORT=1}${ONLY:+ ONLY=$ONLY}" $((SECONDS - started)) >"$work/results.md"
    tail -n 1 "$work/results.md"
    if [ -z "$SHORT$ONLY${STAGES:-}" ]; then
        cp "$work/results.md" "$MUTANTS/RESULTS.md"
    fi
    ! grep -q '^FAILED' "$work/said"
}

# Three patches in which nothing is found, and one in which something is; only the last may be called killed.
self_test() {
    local dir said clock=src/base/clock.c
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' RETURN
    write_patch() { # NAME OLD NEW
        printf 'What: self-test\nClass: B00\nSuites: unit:clock/*\n\n' >"$dir/$1.patch"
        sed "s|$2|$3|" "$clock" | diff -u --label "a/$clock" --label "b/$clock" "$clock" - >>"$dir/$1.patch" || true
    }
    write_patch harmless 'int result =' 'int  result ='
    write_patch broken 'int result =' 'int result ?'
    write_patch found 'return read_clock(CLOCK_REALTIME);' 'return 0;'
    said=$(MUTANTS=$dir ONLY='' SHORT='' STAGES='unit:clock/*' BUILD=$BUILD "${BASH_SOURCE[0]}" 2>&1 || echo failed)
    [[ $said == *failed ]] && grep -q '^FAILED *harmless .*SURVIVED' <<<"$said" &&
        grep -q '^FAILED *broken .*does not compile' <<<"$said" && grep -q '^killed *found .*clock/' <<<"$said" ||
        die "--self-test: this is not what should have come out:"$'\n'"$said"
    write_patch stale 'int result =' 'int result ='
    printf -- '--- a/%s\n+++ b/%s\n@@ -1,1 +1,1 @@\n-no such line\n+x\n' "$clock" "$clock" >>"$dir/stale.patch"
    said=$(MUTANTS=$dir ONLY=stale "${BASH_SOURCE[0]}" --check 2>&1) &&
        die "--self-test: a patch that does not apply was not noticed"
    [[ $said == *"does not apply"* ]] || die "--self-test: not what should have come out: $said"
    echo "tools/mutants.sh --self-test: survivors, and patches that do not compile or apply, are seen as failures"
}

mkdir -p "$BUILD/mutants"
work=$(cd "$BUILD/mutants" && pwd)
case ${1:-} in
--one) run_one "$2" ;;
--without) run_suite "$work/without" "$2" "$3" "$4" ;;
--check) check_all ;;
--self-test) self_test ;;
--refresh) refresh ;;
'') run_all ;;
*) die "there is no option '$1'" ;;
esac
