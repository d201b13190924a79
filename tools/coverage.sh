#!/usr/bin/env bash
# Says which lines and branches of the sources the tests run, and refuses too few of them.
#
#   tools/coverage.sh [SUITE...]      default: unit sim integration matrix
#
# Builds MODE=cov (gcc --coverage), runs the suites, and lets gcovr add up what every process wrote: the tests, and each
# sluice they started. A process adds its counts to files next to the objects when it exits (a test also when it aborts:
# tests/runner/common/coverage.c); one that is killed adds nothing, so the true numbers are a little higher than these.
# The suite net is left out: it lets malloc(3) fail and measures memory, and what gcc adds bears neither.
#
# Prints a line for each file and folder. Fails when a suite fails, when src/base, src/net or src/relay (each with its
# headers in include/) has less than LINES_MIN percent of its lines, or one of their files less than FILE_LINES_MIN.
# Lines with CHECK(!"...") do not count, as they say what can never happen, nor do the branches of CHECK and DCHECK.
#
# Everything goes to BUILD/coverage: index.html shows each line. Environment: BUILD (build), LINES_MIN (95),
# FILE_LINES_MIN (90), and those of tools/test.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export BUILD=${BUILD:-build}
lines_min=${LINES_MIN:-95}
file_lines_min=${FILE_LINES_MIN:-90}
report=$BUILD/coverage
objects=$BUILD/cov/obj
failed=0

run_suites() {
    local args=() suite suites=("$@")
    [ ${#suites[@]} -gt 0 ] || suites=(unit sim integration matrix)
    for suite in "${suites[@]}"; do
        ! compgen -G "tests/$suite/*" >/dev/null || args+=(--suite "$suite")
    done
    # Processes that gave up root count too: their counts go to the same files. And no word of it on their stderr, which
    # tests read.
    umask 0
    "${MAKE:-make}" -j"$(nproc)" MODE=cov BUILD="$BUILD" tests
    find "$objects" -name '*.gcda' -delete
    find "$objects/src" -type d -exec chmod a+rwx {} +
    GCOV_ERROR_FILE=/dev/null tools/test.sh "${args[@]}" cov || failed=1
}

# Headers are counted with the folder whose layer they are.
summarise() {
    gcovr --root . --object-directory "$objects" "$objects" -j "$(nproc)" \
        --filter 'src/' --filter 'include/' \
        --exclude-lines-by-pattern '.*CHECK\(!".*' --exclude-branches-by-pattern '.*\bD?CHECK\(.*' \
        --gcov-ignore-parse-errors --csv "$report/files.csv" --html-details "$report/index.html"
    awk -F, -v lines_min="$lines_min" -v file_min="$file_lines_min" '
        function percent(part, whole) { return whole > 0 ? 100 * part / whole : 100 }
        function show(name, lines, lines_hit, branches, branches_hit, low) {
            printf "%-28s %6d %6.1f %%  %6d %6.1f %%%s\n", name, lines, percent(lines_hit, lines), branches, \
                percent(branches_hit, branches), low
        }
        FNR == 1 {
            for (i = 1; i <= NF; i++) column[$i] = i
            printf "%-28s %6s %8s  %6s %8s\n", "", "lines", "run", "branch", "taken"
            next
        }
        {
            n = split($1, path, "/")
            folder = n > 2 ? path[2] : "main.c"
            lines = $column["line_total"]; lines_hit = $column["line_covered"]
            branches = $column["branch_total"]; branches_hit = $column["branch_covered"]
            sum[folder, 1] += lines; sum[folder, 2] += lines_hit
            sum[folder, 3] += branches; sum[folder, 4] += branches_hit
            folders[folder] = 1
            bound = folder ~ /^(base|net|relay)$/
            low = ""
            if (bound && percent(lines_hit, lines) < file_min) {
                low = "   below " file_min " %"
                failed = 1
            }
            show($1, lines, lines_hit, branches, branches_hit, low)
        }
        END {
            print ""
            count = split("base net relay pool conf ops proc main.c", order, " ")
            for (i = 1; i <= count; i++) {
                f = order[i]
                if (!(f in folders)) continue
                low = ""
                if (i <= 3 && percent(sum[f, 2], sum[f, 1]) < lines_min) {
                    low = "   below " lines_min " %"
                    failed = 1
                }
                show(f, sum[f, 1], sum[f, 2], sum[f, 3], sum[f, 4], low)
                for (k = 1; k <= 4; k++) total[k] += sum[f, k]
                delete folders[f]
            }
            for (f in folders) {
                print "tools/coverage.sh: there is a folder it does not know: " f
                failed = 1
            }
            show("total", total[1], total[2], total[3], total[4], "")
            exit failed || total[1] == 0
        }' "$report/files.csv" || failed=1
}

mkdir -p "$report"
run_suites "$@"
summarise
echo "Each line: $report/index.html"
exit $failed
