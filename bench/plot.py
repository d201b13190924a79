"""Four plots by gnuplot, with names that stay, so that README and RESULTS.md can show the newest.

White behind them and dark text: readable on a dark page too. Without gnuplot there are none, and one that
fails is left out: the numbers matter more.
"""
import contextlib
import os
import subprocess

import programs

COLOURS = {"bare": "#9aa0a6", "sluice": "#1f6feb", "haproxy": "#d1751f", "haproxy-splice": "#f0b060",
           "nginx-16k": "#5aa469", "nginx-64k": "#2e7d46"}  # socat would dwarf the others
SHORT = {"keepalive-1": "keep-alive\\n1", "keepalive-64": "keep-alive\\n64",
         "close-64": "connection\\neach", "response-1k": "1 KiB",
         "response-16k": "16 KiB", "response-128k": "128 KiB"}
HEAD = """set terminal svg size 760,{height} font "sans-serif,12" background "white"
set output "{path}"
set title "{title}"
set key outside top center horizontal maxrows 2
set bmargin 4
set grid ytics lt 1 lc rgb "#dddddd"
set border 3
set tics nomirror out
"""
BARS = """set style data histogram
set style histogram clustered gap 1
set style fill solid
set boxwidth 0.95
set yrange [0:*]
"""


def _value(data, workload, forwarder, metric, divisor):
    found = data["summary"].get(workload, {}).get(forwarder, {}).get(metric)
    return f"{found[0] / divisor:.4g}" if found else "NaN"


def _gnuplot(script):
    done = subprocess.run([programs.which("gnuplot")], input=script, capture_output=True, text=True,
                          timeout=60, check=False)
    if done.returncode != 0 or done.stderr.strip():
        raise programs.Failed(f"gnuplot: status {done.returncode}, {done.stderr.strip()[-300:]}")


def _bars(data, path, title, unit, labels, metric, divisor):
    """Groups of bars: a group for each workload, a bar for each forwarder."""
    workloads = [name for name in labels if name in data["summary"]]
    names = [name for name in COLOURS
             if any(metric in data["summary"][workload].get(name, {}) for workload in workloads)]
    if not names:
        return False
    rows = ["\t".join([f'"{labels[workload]}"'] + [_value(data, workload, name, metric, divisor)
                                                  for name in names]) for workload in workloads]
    script = HEAD.format(height=380, path=path, title=title) + BARS + f'set ylabel "{unit}"\n'
    script += f"set xrange [-0.6:{len(rows) - 0.4}]\n"
    script += "$data << EOD\n" + "\n".join(rows) + "\nEOD\n"
    script += "plot " + ", ".join(
        f'$data using {column}:xtic(1) title "{name}" lc rgb "{COLOURS[name]}"'
        for column, name in enumerate(names, 2)) + "\n"
    _gnuplot(script)
    return True


def _cost_by_connections(data, path):
    counts = {f"keepalive-{count}": count for count in (1, 64, 1000, 4000)}
    workloads = [name for name in counts if name in data["summary"]]
    names = [name for name in COLOURS if sum(
        "cpu_us" in data["summary"][workload].get(name, {}) for workload in workloads) > 1]
    if not names:
        return False
    script = HEAD.format(height=380, path=path, title="CPU for a small keep-alive request")
    script += ('set logscale x\nset xlabel "connections"\nset ylabel "microseconds"\nset yrange [0:*]\n'
               'set xrange [0.8:5000]\nset xtics (1, 64, 1000, 4000)\n$data << EOD\n')
    for workload in workloads:
        script += "\t".join([str(counts[workload])] + [_value(data, workload, name, "cpu_us", 1)
                                                        for name in names]) + "\n"
    script += "EOD\nplot " + ", ".join(
        f'$data using 1:{column} with linespoints pt 7 ps 0.6 lw 2 lc rgb "{COLOURS[name]}" title "{name}"'
        for column, name in enumerate(names, 2)) + "\n"
    _gnuplot(script)
    return True


def _memory(data, path):
    found = data["summary"].get("idle", {})
    names = [name for name in COLOURS if "pss_bytes" in found.get(name, {})]
    if not names:
        return False
    script = HEAD.format(height=340, path=path, title="Own memory of an idle connection (logarithmic)")
    script += ('unset key\nset style fill solid\nset boxwidth 0.6\nset logscale y\nset yrange [50:100000]\n'
               'set ylabel "bytes"\n$data << EOD\n')
    for index, name in enumerate(names):
        label, colour = name.replace("-", "-\\n"), int(COLOURS[name][1:], 16)
        size = max(1, found[name]["pss_bytes"][0])
        script += f'{index}\t{size:.0f}\t"{label}"\t{colour}\n'
    script += ("EOD\nset xrange [-0.6:" + f"{len(names) - 0.4}" + "]\n"
               "plot $data using 1:2:4:xtic(3) with boxes lc rgb variable, "
               '$data using 1:2:2 with labels offset 0,0.7\n')
    _gnuplot(script)
    return True


def draw(data, folder):
    """The names of the plots that were made in `folder`."""
    if not programs.which("gnuplot"):
        print("left out: plots, since gnuplot is not installed")
        return []
    bulk = {f"bulk-{direction}-{flows}": f"{direction}\\n{flows}"
            for direction in ("up", "down", "both") for flows in (1, 64)}
    made = []
    for name, make in (
            ("cpu.svg", lambda path: _bars(data, path, "CPU of the forwarder for a request",
                                           "microseconds", SHORT, "cpu_us", 1)),
            ("bulk.svg", lambda path: _bars(data, path, "CPU of the forwarder for a gigabyte, by direction "
                                            "and flows", "milliseconds", bulk, "cpu_us", 1000)),
            ("cost.svg", lambda path: _cost_by_connections(data, path)),
            ("memory.svg", lambda path: _memory(data, path))):
        path = os.path.join(folder, name)
        try:
            if make(path):
                made.append(name)
        except (programs.Failed, OSError, subprocess.TimeoutExpired) as failure:
            print(f"left out: {name}: {failure}")
            with contextlib.suppress(OSError):
                os.unlink(path)  # half of one
    return made
