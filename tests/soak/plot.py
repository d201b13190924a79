"""Writes what a soak has found: soak.csv (thinned), soak.svg (by gnuplot), SUMMARY.md."""

import collections
import csv
import shutil
import subprocess

ROWS_MAX = 300
# Of several rows that become one: their sum, their maximum, else the last one.
SUMMED = {"broken", "wrong", "stalled", "opened"}
LARGEST = {"active", "p99_ms", "max_ms", "rss_kib", "pss_kib", "descriptors", "sockets", "pipes"}


def thin(rows):
    """At most ROWS_MAX rows; nothing that stands out is lost."""
    step = -(-len(rows) // ROWS_MAX)
    thinned = []
    for i in range(0, len(rows), step):
        group = rows[i:i + step]
        row = dict(group[-1])
        for key in row:
            if key in SUMMED:
                row[key] = sum(part[key] for part in group)
            elif key in LARGEST:
                row[key] = max(part[key] for part in group)
        row["events"] = " ".join(part["events"] for part in group if part["events"])
        thinned.append(row)
    return thinned


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="ascii") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


GNUPLOT = """
set terminal svg size 1000,1150 font 'sans,12' background 'white'
set output '{svg}'
set datafile separator ','
set key outside right top
set grid ytics lc rgb '#dddddd'
set xrange [0:{end}]
set lmargin 12
set rmargin 26
{marks}
set multiplot layout 4,1 title '{title}'
set ylabel 'MiB'
set yrange [0:*]
plot '{csv}' using 't_s':(column('rss_kib')/1024) with lines lw 1.5 title 'RSS, all', \\
     '' using 't_s':(column('pss_kib')/1024) with lines lw 1.5 title 'PSS, all', \\
     '' using 't_s':(column('elder_anon_kib')/1024) with lines lw 1.5 title 'own, elder worker', \\
     '' using 't_s':(column('young_anon_kib')/1024) with lines lw 1 title 'own, killed worker'
unset label
set ylabel 'number'
plot '{csv}' using 't_s':'descriptors' with lines lw 1.5 title 'descriptors', \\
     '' using 't_s':'sockets' with lines lw 1 title 'sockets', \\
     '' using 't_s':'pipes' with lines lw 1.5 title 'ends of pipes', \\
     '' using 't_s':'active' with lines lw 1 title 'connections'
set ylabel 'ms'
set logscale y
set yrange [0.1:*]
plot '{csv}' using 't_s':'p50_ms' with lines lw 1.5 title 'small requests: p50', \\
     '' using 't_s':'p99_ms' with lines lw 1 title 'p99', \\
     '' using 't_s':'max_ms' with points pt 7 ps 0.3 title 'longest'
unset logscale y
set yrange [0:*]
set ylabel '% of a core, MiB/s'
set xlabel 'seconds; red line: a worker is killed; grey: a squeeze'
plot '{csv}' using 't_s':'cpu_percent' with lines lw 1.5 title 'CPU of sluice', \\
     '' using 't_s':'load_cpu_percent' with lines lw 1 title 'CPU of the load', \\
     '' using 't_s':'mib_per_s' with lines lw 1 title 'MiB/s delivered'
"""


def marks(run):
    lines = []
    for when, _ in run.kills:
        at = when - run.started_at
        lines.append(f"set arrow from {at:.1f}, graph 0 to {at:.1f}, graph 1 nohead lc rgb '#dd4444' lw 0.8")
    for what, start, to in run.windows:
        if what not in ("kill", "signals"):
            at = (start + to) / 2 - run.started_at
            lines.append(f"set object rectangle from {start - run.started_at:.1f}, graph 0 to "
                         f"{to - run.started_at:.1f}, graph 1 behind fc rgb '#eeeeee' fs solid noborder")
            lines.append(f"set label '{what}' at {at:.1f}, graph 0.97 right rotate by 90 font 'sans,7'")
    return "\n".join(lines)


def write_svg(run, csv_path, svg_path):
    """True if there is a plot now."""
    if not shutil.which("gnuplot"):
        return False
    script = GNUPLOT.format(svg=svg_path, csv=csv_path, end=max(1, round(run.rows[-1]["t_s"])), marks=marks(run),
                            title=f"sluice, {run.seconds} s of soak")
    done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True, timeout=120, check=False)
    if done.returncode != 0:
        print(f"gnuplot: {done.stderr}")
    return done.returncode == 0


def write_summary(run, verdict, path):
    requests = sum(row["requests_per_s"] for row in run.rows) * run.interval
    bytes_moved = sum(row["mib_per_s"] for row in run.rows) * run.interval
    lines = [
        "# A soak of sluice", "",
        f"{'PASSED' if verdict.passed() else 'FAILED'}: {run.seconds} s, {run.date}.", "",
        f"    {run.command}", "",
        f"- machine: {run.machine}",
        f"- versions: {run.versions}",
        "- trouble: " + ", ".join(f"{count} x {what}" for what, count in
                                  collections.Counter(what for what, _, _ in run.windows).items()),
        f"- {requests:.0f} small requests, {bytes_moved / 1024:.1f} GiB delivered and checked, byte by byte", "",
        "![memory, descriptors, latency and CPU over time](soak.svg)", "",
        "The numbers behind the picture are in [soak.csv](soak.csv); docs/TESTING.md says what the load is.", "",
        "| check | found |", "|---|---|",
    ]
    for passed, name, found in verdict.checks:
        text = found.replace("|", "\\|").replace("\n", "<br>")
        lines.append(f"| {'ok' if passed else '**FAILED**'}: {name} | {text} |")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
