#!/usr/bin/env bash
# Refuses functions and files that have grown too long to hold in the head: functions over 70 lines (100 in tests, where
# a long table is no harm), files over 800. Counted are all lines, from the function's name to its closing brace.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

function_lines_max=70
test_function_lines_max=100
file_lines_max=800

mapfile -t files < <(find src include bench tests -name '*.[ch]' 2>/dev/null | LC_ALL=C sort)
if [ ${#files[@]} -eq 0 ]; then
    echo "tools/check-size.sh: there is no source file" >&2
    exit 1
fi

# Headers are C here, and Criterion's macros define functions named suite_test.
functions=$(ctags -x --language-force=C --kinds-C=f --fields=+ne --_xformat='%F %n %e %N' \
    -D 'Test(suite, name, ...)=void suite##_##name(void)' \
    -D 'ParameterizedTest(param, suite, name, ...)=void suite##_##name(param)' \
    -D 'ParameterizedTestParameters(suite, name)=void suite##_##name##_parameters(void)' \
    -D 'Theory(params, suite, name, ...)=void suite##_##name params' \
    "${files[@]}")
if [ -z "$functions" ]; then
    echo "tools/check-size.sh: ctags found no function in ${#files[@]} files, so nothing was checked" >&2
    exit 1
fi

failed=0
awk -v max="$function_lines_max" -v test_max="$test_function_lines_max" '
    {
        limit = $1 ~ /^tests\// ? test_max : max
        lines = $3 - $2 + 1
        if (lines > limit) {
            printf "%s:%d: the function %s has %d lines; the limit is %d\n", $1, $2, $4, lines, limit
            failed = 1
        }
    }
    END { exit failed }' <<<"$functions" || failed=1
wc -l "${files[@]}" | awk -v max="$file_lines_max" '
    $2 != "total" && $1 > max {
        printf "%s:1: the file has %d lines; the limit is %d\n", $2, $1, max
        failed = 1
    }
    END { exit failed }' || failed=1
exit $failed
