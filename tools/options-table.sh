#!/usr/bin/env bash
# The README's table of options, made from `sluice -h`, which is made from the schema.
#
#   tools/options-table.sh           prints the table
#   tools/options-table.sh --check   fails when the README holds another one
#   tools/options-table.sh --write   puts it into the README
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

sluice=${SLUICE_BIN:-${BUILD:-build}/sluice}
begin='<!-- options: made by tools/options-table.sh -->'
end='<!-- options end -->'

table() {
    echo '| option | default | what it does |'
    echo '|---|---|---|'
    "$sluice" -h | sed -n 's/^  --\([a-z-]*\) \([^ ]*\) \{1,\}\(.*\)$/\1\t\2\t\3/p' |
        awk -F '\t' '{
            fallback = ""; help = $3
            if (match(help, / \[[^]]*\]$/)) {
                fallback = "`" substr(help, RSTART + 2, RLENGTH - 3) "`"
                help = substr(help, 1, RSTART - 1)
            }
            gsub(/\|/, "\\|", $2)
            printf "| `--%s %s` | %s | %s |\n", $1, $2, fallback, help
        }'
}

# The README with the table between its two marks.
with_table() {
    awk -v begin="$begin" -v end="$end" -v table="$(table)" '
        $0 == begin { print; print ""; print table; print ""; inside = 1; next }
        $0 == end { inside = 0 }
        !inside { print }' README.md
}

case ${1:-} in
--check)
    if ! diff -u README.md <(with_table); then
        echo "The README's options differ from sluice -h: run tools/options-table.sh --write" >&2
        exit 1
    fi
    ;;
--write)
    with_table >README.md.new
    mv README.md.new README.md
    ;;
*) table ;;
esac
