"""What a reader sees: bench/RESULTS.md, and the tables on the terminal. Made from the numbers alone."""
import results
from workloads import AIM_IDLE_BYTES, BULK_AIM, FORWARDERS, PEERS, WORKLOADS

GROUPS = (("http", "HTTP"), ("churn", "Connections"), ("bulk", "Bulk"), ("latency", "Ping-pong"),
          ("scale", "Two workers"))

HEAD = """# Benchmark results

<!-- made by bench/bench.py; `python3 bench/bench.py --report {source}` makes it again -->

From [{source}]({link}), made on {date} by `{command}` in {minutes} min: {rounds} rounds, a window of
{window} s each, the forwarders' order drawn with seed {seed}. How it is measured:
[docs/PERFORMANCE.md](../docs/PERFORMANCE.md).

{environment}

**How to read it.** A cell is the median over the rounds; behind it in [square brackets] are the smallest and
the largest value, and in (round brackets) the interval that verdicts rest on: from the second smallest to the
second largest value. For nine rounds it is a 96 % interval of the median. With fewer than seven rounds it is
the same as the square brackets (for five rounds 94 %, for three only 75 %).
CPU is that of the forwarder's whole process tree, kernel included, divided by what the origin counted in the
same window. A ratio is sluice divided by the peer, taken within each round: below 1 sluice needs less. The
verdict on an aim is *met* when the whole interval is at most the aim, *missed* when all of it is above, and
*tie* when the aim lies inside; then it says on which side of the aim the median lies. There is *no verdict*
when more than one round failed. *level* says that 1.00 lies inside the interval: no difference between the
two was shown. Rates are medians; in brackets the forwarder's share of one processor: well below 100 % it was
the load or the origin that set the rate.
"""


LATENCIES = 5  # columns of the table of latencies that wrk has, too

UNPINNED = """Not pinned: unlike everywhere else the forwarder may use all processors, those of origin and load
too, so that these numbers depend on the scheduler as well.

"""

CALLS_HEAD = """Counted by `strace -f -c` in windows of their own, in which nothing was timed. Under strace connections are
few a second, so that where each carries one request there were 16 at a time.
"""


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def scaled(values, divisor, digits):
    return results.show_all([value / divisor for value in values], digits)


def digits_for(values):
    """As many as three significant ones ask for."""
    value = abs(values[0])
    return 0 if value >= 100 else 1 if value >= 10 else 2


def present(data, names):
    """The forwarders that have a number in one of the workloads, in the usual order."""
    return [name for name in FORWARDERS
            if any(name in data["summary"].get(workload, {}) for workload in names)]


def cost_table(data, names):
    columns = [name for name in present(data, names) if name != "direct"]
    rows = []
    for name in names:
        by_forwarder = data["summary"].get(name, {})
        unit = WORKLOADS[name].unit
        divisor, row = 1000 if unit == "GB" else 1, [f"{WORKLOADS[name].title}"]
        row.append("ms/GB" if unit == "GB" else f"us/{unit}")
        for column in columns:
            values = by_forwarder.get(column, {}).get("cpu_us")
            row.append(scaled(values, divisor, digits_for([values[0] / divisor])) if values else "")
        if any(row[2:]):
            rows.append(row)
    return markdown(["workload", "CPU", *columns], rows) if rows else ""


def rate_table(data, names):
    columns = present(data, names)
    rows = []
    for name in names:
        unit = WORKLOADS[name].unit
        row = [WORKLOADS[name].title, "GB/s" if unit == "GB" else f"{unit}s/s"]
        for column in columns:
            metrics = data["summary"].get(name, {}).get(column, {})
            if "rate" not in metrics:
                row.append("")
                continue
            share = f" ({metrics['cpu_share'][0] * 100:.0f} %)" if "cpu_share" in metrics else ""
            number = f"{metrics['rate'][0]:.2f}" if unit == "GB" else f"{metrics['rate'][0]:.0f}"
            row.append(number + share)
        if any(row[2:]):
            rows.append(row)
    return markdown(["workload", "rate", *columns], rows) if rows else ""


def ratio_table(data):
    """sluice to each peer in each workload's primary metric, with aim and verdict."""
    columns = [peer for peer in PEERS
               if any(f"sluice/{peer}" in pairs for pairs in data["ratios"].values())]
    rows = []
    for name, workload in WORKLOADS.items():
        pairs = data["ratios"].get(name, {})
        row = [workload.title, {"cpu_us": "CPU", "pss_bytes": "memory", "p99_us": "p99"}[workload.primary]]
        for peer in columns:
            ratio = pairs.get(f"sluice/{peer}")
            row.append(ratio_cell(ratio, results.decide(data, name, peer)) if ratio else "")
        if any(row[2:]):
            rows.append(row)
    return markdown(["workload", "of", *columns], rows) if rows else ""


def verdict_words(found, ratio, aim, bulk):
    """The verdict, with what one should know of it."""
    words = {"none": f"no verdict, {ratio[5]} rounds",
             "tie": f"tie, the median is {results.side(ratio, aim)} it"}.get(found, found)
    return words + (f"; bulk rate {results.show(bulk)}" if bulk else "")


def ratio_cell(ratio, decided):
    cell = results.show_both(ratio)
    words = []
    if decided:
        found, _, aim, bulk = decided
        words = [f"aim {aim:.2f}: {verdict_words(found, ratio, aim, bulk)}"]
    if results.no_difference(ratio):
        words.append("level")
    return cell + (f"<br>{', '.join(words)}" if words else "")


def bare_table(data):
    """What each forwarder costs, with the floor as the unit."""
    columns = [name for name in FORWARDERS
               if any(f"{name}/bare" in pairs for pairs in data["ratios"].values())]
    rows = []
    for name, workload in WORKLOADS.items():
        pairs = data["ratios"].get(name, {})
        row = [workload.title] + [results.show(pairs[f"{column}/bare"]) if f"{column}/bare" in pairs
                                  else "" for column in columns]
        if any(row[1:]):
            rows.append(row)
    return markdown(["workload", *columns], rows) if rows else ""


def aims_text(data):
    judged = results.judge(data)
    if not judged:
        return ""
    count = {word: sum(1 for row in judged if row[0] == word) for word in ("met", "tie", "missed", "none")}
    text = (f"Of {len(judged)} aims for ratios {count['met']} were met, {count['tie']} are ties, "
            f"{count['missed']} were missed"
            + (f"; of {count['none']} too few rounds succeeded.\n" if count["none"] else ".\n"))
    if any(row[5] for row in judged):
        text += (f"Beside bulk an aim for latency is met only if the rate of bulk was at least {BULK_AIM:.2f} of "
                 "the peer's.\n")
    for word, title in (("missed", "Missed"), ("tie", "Ties"), ("none", "No verdict")):
        rows = [f"- {WORKLOADS[workload].title}, to {peer}: {results.show_both(ratio)}, aim {aim:.2f}: "
                f"{verdict_words(found, ratio, aim, bulk)}"
                for found, workload, peer, ratio, aim, bulk in judged if found == word]
        if rows:
            text += f"\n{title}:\n\n" + "\n".join(rows) + "\n"
    return text


def memory_table(data):
    found = data["summary"].get("idle", {})
    direct = found.get("direct", {}).get("slab_bytes", [0])[0]
    rows = []
    for name in (name for name in FORWARDERS if "pss_bytes" in found.get(name, {})):
        metrics = found[name]
        kernel = (metrics["slab_bytes"][0] - direct) / 1024
        rows.append([name, scaled(metrics["pss_bytes"], 1, 0), f"{kernel:.1f}",
                     scaled(metrics["base_pss_bytes"], 1 << 20, 1),
                     scaled(metrics["idle_cpu_us"], 1, 0)])
    if not rows:
        return ""
    text = markdown(["forwarder", "own memory, bytes a connection", "kernel's, KiB a connection",
                     "at the start, MiB", "CPU in 2 idle seconds, us"], rows)
    if "sluice" in found:
        size = found["sluice"]["pss_bytes"]
        words = verdict_words(results.verdict(size, AIM_IDLE_BYTES, results.needed("idle", data["rounds"])),
                              size, AIM_IDLE_BYTES, None)
        text += (f"\nsluice: {results.show_both(size, 0)} bytes; the aim is at most {AIM_IDLE_BYTES}: "
                 f"{words}.\n")
    return text


def latency_table(data):
    rows = []
    for workload in WORKLOADS:
        for name in FORWARDERS:
            metrics = data["summary"].get(workload, {}).get(name, {})
            if "p50_us" in metrics:
                cells = [scaled(metrics[metric], 1, digits_for(metrics[metric]))
                         if metric in metrics else "" for metric in
                         ("p50_us", "p90_us", "p99_us", "p99_9_us", "max_us", "lag_p99_us")]
                rows.append([WORKLOADS[workload].title, name, *cells])
    return rows


def latencies(data):
    header = ["workload", "forwarder", "50 %", "90 %", "99 %", "99.9 %", "longest", "load late, 99 %"]
    rows = latency_table(data)
    titles = {WORKLOADS[name].title for name in ("pingpong", "pingpong-mixed")}
    opened = [row for row in rows if row[0] in titles]
    closed = [row[:LATENCIES] for row in rows if row[0] not in titles and "keep-alive" in row[0]
              and "worker" not in row[0]]
    text = ""
    if opened:
        text += ("Microseconds from the moment a message was due to its echo; 2,000 messages a second over\n"
                 "16 connections, sent by a timetable and not by the answers. The last column is how late the\n"
                 "load itself was with sending; that is part of the other columns.\n\n"
                 + markdown(header, opened))
    if closed:
        text += ("\nBy wrk, microseconds. It is a closed loop at full speed: the next request of a connection\n"
                 "waits for the answer, so this says more of throughput than of what a user would wait. wrk 4 tries to\n"
                 "make up for it: to each long latency it adds those of requests that it would have sent meanwhile,\n"
                 "by a model with the mean interval. So these are not only measured values.\n\n"
                 + markdown(header[:LATENCIES], closed))
    return text


def calls_table(data):
    text = ""
    for workload, by_forwarder in data.get("system_calls", {}).items():
        rows = []
        for name, calls in by_forwarder.items():
            ranked = sorted(calls.items(), key=lambda item: -item[1][0])
            total = sum(values[0] for values in calls.values())
            limit = total / 200
            rows.append([name, f"{total:.{digits_for([total])}f}", ", ".join(
                f"{call} {count:.{digits_for([count])}f}" + (f" ({errors:.{digits_for([errors])}f} failed)"
                                                             if errors >= limit else "")
                for call, (count, errors) in ranked if count >= limit)])
        text += (f"\n{WORKLOADS[workload].title}, calls by {WORKLOADS[workload].unit}:\n\n"
                 + markdown(["forwarder", "all", "which"], rows))
    return text


def environment_text(data):
    where = data["environment"]
    tools = ", ".join(f"{name} {number}" for name, number in where["tools"].items())
    versions = {}
    for name, forwarder in data["forwarders"].items():
        versions.setdefault(name.partition("-")[0], forwarder["version"])
    programs = ", ".join(f"{name} {number}".strip() for name, number in versions.items())
    return (
        f"Source {where['source']}. "
        f"{where['distribution']}, Linux {where['kernel']}; {where['processors']} processors "
        f"({where['processor']}), {where['memory_bytes'] / 2**30:.0f} GiB; pinning: {where['pinning']} "
        "(but for two workers, which are not pinned). "
        f"Everything ran as {where['user']}, with {where['congestion_control']} congestion control, "
        f"{where['descriptors']} descriptors and a pipe quota of "
        f"{where['pipe_quota_pages']} pages; other guests had {where['stolen_share'] * 100:.1f} % of the "
        f"processors. {programs}; {tools}.")


def configurations(data):
    text = ""
    for name, forwarder in data["forwarders"].items():
        text += f"\n**{name}**: `{forwarder['command']}`\n"
        if forwarder["configuration"]:
            text += f"\n```\n{forwarder['configuration']}```\n"
    return text


def failures(data):
    failed = [run for run in data["runs"] if "failed" in run]
    if not failed:
        return ""
    return f"\n**{len(failed)} of {len(data['runs'])} runs failed and are left out:**\n\n" + "".join(
        f"- round {run['round'] + 1}, {run['workload']}, {run['forwarder']}: {run['failed']}\n"
        for run in failed)


def disturbed(data):
    runs = [run for run in data["runs"] if "others_share" in run.get("metrics", {})]
    count = sum(run.get("disturbed", False) for run in runs)
    return (f"\nIn {count} of {len(runs)} windows in which the forwarder had a processor of its own something "
            f"else used more than\n{results.DISTURBED * 100:.0f} % of it; these are `disturbed` in the "
            "numbers, and count like the others.\n") if runs else ""


def degraded(data):
    runs = [run for run in data["runs"] if run.get("metrics", {}).get("pipes_degraded")]
    return f"\nIn {len(runs)} runs the kernel gave sluice fewer or smaller pipes than asked.\n" if runs else ""


def render(data, source, pictures):
    link = source.removeprefix("bench/")
    parts = [HEAD.format(source=source, link=link, date=data["date"], command=data["command"],
                         minutes=round(data["seconds"] / 60), rounds=data["rounds"],
                         window=data["window_s"], seed=data["seed"],
                         environment=environment_text(data)), disturbed(data), degraded(data), failures(data)]

    def section(title, text, picture=""):
        if text:
            shown = f"![{title}](results/{picture})\n\n" if picture in pictures else ""
            parts.append(f"\n## {title}\n\n{shown}{text}")

    section("Aims", aims_text(data))
    section("sluice to its peers", ratio_table(data))
    section("Everything to bare",
            "`bare` does the least that a right relay can do, without limits, records or timeouts.\n\n"
            + bare_table(data), "cost.svg")
    for group, title in GROUPS:
        names = [name for name, workload in WORKLOADS.items() if workload.group == group]
        note = "" if all(WORKLOADS[name].pinned for name in names) else UNPINNED
        tables = "\n".join(filter(None, (cost_table(data, names), rate_table(data, names))))
        section(title, note + tables if tables else "",
                {"http": "cpu.svg", "bulk": "bulk.svg"}.get(group, ""))
    section("Memory", memory_table(data), "memory.svg")
    section("Latency", latencies(data))
    section("System calls", CALLS_HEAD + calls if (calls := calls_table(data)) else "")
    section("Configurations", configurations(data))
    return "\n".join(line.rstrip() for line in "\n".join(filter(None, parts)).splitlines()) + "\n"


def terminal(data):
    """The main numbers, aligned."""
    lines = ["", "[smallest-largest] of the rounds; of ratios the median and (the interval that verdicts rest on)"]
    for name, by_forwarder in data["summary"].items():
        workload = WORKLOADS[name]
        lines.append(f"\n{workload.title}" + ("" if workload.pinned else " (not pinned)"))
        for forwarder in (known for known in FORWARDERS if known in by_forwarder):
            row = terminal_row(workload, forwarder, by_forwarder[forwarder],
                               data["ratios"].get(name, {}).get(f"sluice/{forwarder}"),
                               data["bulk_ratios"].get(name, {}).get(f"sluice/{forwarder}"))
            lines += [row] if row.strip() != forwarder else []
    return "\n".join(lines) + "\n" + disturbed(data)


def terminal_row(workload, forwarder, metrics, ratio, bulk):
    gigabytes = workload.unit == "GB"
    cells = []
    if "cpu_us" in metrics:
        divisor = 1000 if gigabytes else 1
        cells.append(f"{scaled(metrics['cpu_us'], divisor, 2 if not gigabytes else 0):>24} "
                     f"{'ms' if gigabytes else 'us'}/{workload.unit}")
    if "pss_bytes" in metrics:
        cells.append(f"{scaled(metrics['pss_bytes'], 1, 0):>24} bytes, "
                     f"idle CPU {metrics['idle_cpu_us'][0]:.0f} us")
    if "rate" in metrics:
        cells.append(f"{metrics['rate'][0]:.{2 if gigabytes else 0}f} {workload.unit}/s")
    if workload.group == "latency" and "p99_us" in metrics:
        cells.append(f"p50 {metrics['p50_us'][0]:.0f} us, p99 {scaled(metrics['p99_us'], 1, 0)} us")
    if ratio:
        cells.append(f"sluice/{forwarder} {results.show(ratio)}"
                     + (f", bulk rate {results.show(bulk)}" if bulk else ""))
    return f"  {forwarder:15}" + "; ".join(cells)
