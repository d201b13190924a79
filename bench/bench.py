#!/usr/bin/env python3
"""Measures what forwarding costs: sluice beside haproxy, nginx, socat and the floor, build/bench/bare.

    make bench            everything, 9 rounds, about 50 minutes: bench/RESULTS.md and bench/results/
    make bench-quick      the main columns in two minutes; prints, and writes nothing
    make bench-check      whether sluice has got worse than the newest result in the last commit

    bench.py [--rounds N] [--window SECONDS] [--only WORKLOAD,..] [--forwarders NAME,..] [--quick]
             [--out FILE] [--sluice PATH] [--check [FILE]] [--smoke] [--report FILE] [--build DIR]
             [--seed NUMBER]

An origin, a forwarder, and a load: in a window in the middle of the load the CPU of the forwarder's whole
process tree is divided by what the origin counted. A round does every workload with every forwarder once,
so that all of them meet the same minutes of the machine; in which order is drawn by lot for each workload
and round, from a seed that the result records. Only a whole `bench.py` without a choice of workloads,
forwarders, rounds or window writes the report; else --out keeps the numbers.

workloads.py has the rows, programs.py the forwarders' configurations, runs.py what one run does, measure.py
the clocks, loads.py the loads, results.py medians and verdicts, environment.py where it ran, report.py and
plot.py what a reader sees.

Exit status: 0 done; 1 a run failed, or --check found something worse; 2 could not run; 130 interrupted.
"""
import argparse
import datetime
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
# pylint: disable=wrong-import-position
import environment  # noqa: E402
import plot  # noqa: E402
import programs  # noqa: E402
import report  # noqa: E402
import results  # noqa: E402
import runs  # noqa: E402
from workloads import (CHECK_FORWARDERS, CHECK_PEERS, FEW_ROUNDS, FORWARDERS, QUICK, QUICK_FORWARDERS,  # noqa: E402
                       TRACED, TRACED_FORWARDERS, WORKLOADS)

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "results")
ROUNDS, WINDOW_S = 9, 1.0
TRACE_S = 2.0


def parse(arguments):
    parser = argparse.ArgumentParser(
        description="Measures what forwarding costs; see the head of this file.")
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}; quick 3, check 5")
    parser.add_argument("--window", type=float, metavar="SECONDS", help=f"default {WINDOW_S}; quick 0.8")
    parser.add_argument("--only", metavar="WORKLOAD,..", help=", ".join(WORKLOADS))
    parser.add_argument("--forwarders", metavar="NAME,..", help=", ".join(FORWARDERS))
    parser.add_argument("--quick", action="store_true", help="the main columns within two minutes")
    parser.add_argument("--out", metavar="FILE", help="the numbers as JSON")
    parser.add_argument("--sluice", metavar="PATH", help="another build of sluice")
    parser.add_argument("--check", metavar="FILE", nargs="?", const="newest",
                        help="compare with FILE, or with the newest of bench/results in the last commit")
    parser.add_argument("--seed", type=int, help="of the order of the forwarders; default by chance")
    parser.add_argument("--smoke", action="store_true", help="does everything run? No numbers")
    parser.add_argument("--report", metavar="FILE", help="write the report again from its numbers")
    parser.add_argument("--build", metavar="DIR", default=os.path.join(HERE, "..", "build"))
    options = parser.parse_args(arguments)
    for names, known in ((options.only, WORKLOADS), (options.forwarders, FORWARDERS)):
        for name in (names or "").split(","):
            if name and name not in known:
                parser.error(f"'{name}' is not one of {', '.join(known)}")
    if (options.rounds or 1) < 1 or (options.window or 1) <= 0:
        parser.error("--rounds and --window must be more than 0")
    if sum(map(bool, (options.quick, options.smoke, options.check, options.report))) > 1:
        parser.error("--quick, --check, --smoke and --report exclude each other")
    if options.sluice and not os.path.isfile(options.sluice):
        parser.error(f"--sluice: there is no file {options.sluice}")
    options.build = os.path.relpath(options.build)
    options.whole = not (options.quick or options.smoke or options.check or options.only
                         or options.forwarders or options.sluice
                         or (options.rounds or ROUNDS) != ROUNDS
                         or (options.window or WINDOW_S) != WINDOW_S)
    options.seed = random.randrange(1 << 31) if options.seed is None else options.seed
    options.sluice = options.sluice or os.path.join(options.build, "sluice")
    options.rounds = options.rounds or (1 if options.smoke else 3 if options.quick
                                        else 5 if options.check else ROUNDS)
    options.window = options.window or (0.2 if options.smoke else 0.8 if options.quick else WINDOW_S)
    return options


def choose(options, stage):
    """The workloads and forwarders that were asked for and can be had; says what is left out."""
    short = options.quick or options.check
    names = options.only.split(",") if options.only else QUICK if short else WORKLOADS
    forwarders = options.forwarders.split(",") if options.forwarders else \
        CHECK_FORWARDERS if options.check else QUICK_FORWARDERS if options.quick else FORWARDERS
    installed = {name for name in forwarders if name == "direct" or programs.resolve(stage, name)}
    plan = []
    for workload in (WORKLOADS[name] for name in names):
        program = {"wrk": "wrk", "wrk-close": "wrk", "iperf3": "iperf3"}.get(workload.kind)
        if program and not programs.which(program):
            print(f"left out: {workload.name}, since {program} is not installed")
        elif not program and not os.path.exists(stage.path("load")):
            print(f"left out: {workload.name}, since {options.build}/bench/load is not built")
        elif 2 * workload.connections + 200 > stage.descriptors:
            print(f"left out: {workload.name}, since a process may have only {stage.descriptors} "
                  "descriptors (ulimit -Hn)")
        else:
            plan.append((workload, [name for name in FORWARDERS
                                    if name in installed and name in workload.forwarders]))
    if options.smoke:
        plan = thin_out(plan)
    for name in sorted(set(forwarders) - installed):
        print(f"left out: {name}, which is not installed or not built")
    plan = [(workload, names) for workload, names in plan if names]
    if not plan:
        raise programs.Failed("nothing is left to run")
    return plan


def choose_compared(plan, committed, chosen):
    """(the plan without what is not in the committed result, the pairs to compare)."""
    peers = [peer for peer in CHECK_PEERS if not chosen or peer in chosen.split(",")]
    pairs, kept = [f"sluice/{peer}" for peer in peers], []
    if not pairs:
        raise programs.Failed(f"--check compares with {' and '.join(CHECK_PEERS)}, and none was chosen")
    for workload, names in plan:
        missing = {"sluice", *peers} - set(names)
        if missing:
            raise programs.Failed(f"cannot compare {workload.name} without {', '.join(sorted(missing))}")
        if workload.name not in committed["ratios"]:
            print(f"left out: {workload.name}, which is not in the committed result")
            continue
        unknown = [pair for pair in pairs if pair not in committed["ratios"][workload.name]]
        if unknown:
            raise programs.Failed(f"the committed result has no {', '.join(unknown)} of {workload.name}")
        kept.append((workload, names))
    if not kept:
        raise programs.Failed("nothing is left to compare")
    return kept, pairs


def thin_out(plan):
    """With few connections many workloads are the same: all forwarders only in the first of its sort."""
    seen, thin = set(), []
    for workload, names in plan:
        sort = (workload.kind, workload.direction, workload.workers)
        thin.append((workload, [name for name in names if sort not in seen or name == "sluice"]))
        seen.add(sort)
    return thin


def schedule(plan, rounds, seed):
    """(round, workload, forwarder) in order: whoever comes after another is drawn anew each time."""
    lots = random.Random(seed)
    for number in range(rounds):
        for workload, forwarders in plan:
            if workload.few_rounds and number >= FEW_ROUNDS:
                continue
            for name in lots.sample(forwarders, len(forwarders)):
                yield number, workload, name


class Progress:
    """One line that is rewritten on a terminal; else a line for each workload."""

    def __init__(self, rounds, seconds):
        self.rounds, self.left, self.shown, self.began = rounds, seconds, None, time.monotonic()
        self.terminal = sys.stdout.isatty()
        print(f"{rounds} round{'s' if rounds > 1 else ''}, about {duration(seconds)}", flush=True)

    def say(self, number, workload, name):
        text = f"round {number + 1}/{self.rounds}, {workload.name}"
        if self.terminal:
            print(f"\r\033[K{text}, {name}; {duration(self.left)} left", end="", flush=True)
        elif text != self.shown:
            print(f"{text}; {duration(self.left)} left", flush=True)
        self.shown = text

    def note(self, text):
        print(("\r\033[K" if self.terminal else "") + text, flush=True)

    def took(self, estimate):
        self.left = max(0, self.left - estimate)

    def end(self):
        self.note(f"took {duration(time.monotonic() - self.began)}")


def duration(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def run_one(bench, number, workload, name, progress):
    record = {"round": number, "workload": workload.name, "forwarder": name}
    try:
        record["metrics"] = {metric: float(f"{value:.6g}") for metric, value
                             in bench.run(workload, name).items()}
    except (programs.Failed, OSError) as failure:
        record["failed"] = " ".join(str(failure).split())
        progress.note(f"FAILED {workload.name}, {name}: {record['failed']}")
    if record.get("metrics", {}).get("others_share", 0) > results.DISTURBED:
        record["disturbed"] = True
    return record


def run_all(bench, plan, rounds, seed):
    """The record of every run. One that failed is said at once, and again at the end."""
    work = list(schedule(plan, rounds, seed))
    progress = Progress(rounds, sum(bench.seconds(workload) for _, workload, _ in work))
    records = []
    for number, workload, name in work:
        progress.say(number, workload, name)
        record = run_one(bench, number, workload, name, progress)
        if bench.smoke and "failed" in record:  # so short a window may be empty on a busy machine
            record = run_one(bench, number, workload, name, progress)
        records.append(record)
        progress.took(bench.seconds(workload))
    progress.end()
    return records


def count_calls(bench, installed, seconds):
    """{workload: {forwarder: {call: [calls, of them errors]}}}, each by unit of the workload."""
    if not programs.which("strace"):
        print("left out: system calls, since strace is not installed")
        return {}
    found = {}
    for workload in (WORKLOADS[name] for name in TRACED):
        for name in TRACED_FORWARDERS:
            if name not in installed:
                continue
            try:
                calls = runs.count_calls(bench, workload, name, seconds)
                found.setdefault(workload.name, {})[name] = {
                    call: [round(value, 4) for value in values] for call, values in calls.items()}
            except (programs.Failed, OSError) as failure:
                print(f"left out: system calls of {name}, {workload.name}: {failure}")
    return found


def measure(options, committed):
    began = time.monotonic()
    with programs.Stage(options.build, options.sluice) as stage:
        bench = runs.Bench(stage, options.window, options.smoke)
        plan = choose(options, stage)
        installed = {name for _, names in plan for name in names}
        pairs = []
        if committed:
            plan, pairs = choose_compared(plan, committed, options.forwarders)
        where = environment.Environment(stage)
        forwarders = environment.forwarders(stage, installed)
        records = run_all(bench, plan, options.rounds, options.seed)
        calls = {}
        if options.whole:
            calls = count_calls(bench, installed, TRACE_S)
        elif options.smoke:
            calls = count_calls(bench, installed & {"sluice", "haproxy"}, 0.2)
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python3 bench/bench.py"] + sys.argv[1:]),
        "seconds": round(time.monotonic() - began),
        "rounds": options.rounds,
        "window_s": options.window,
        "seed": options.seed,
        "workloads": [workload.name for workload, _ in plan],
        "compared": pairs,
        "environment": where.finish(),
        "forwarders": forwarders,
        "summary": results.summarise(records),
        "ratios": results.ratios(records),
        "bulk_ratios": results.bulk_ratios(records),
        "system_calls": calls,
        "runs": records,
    }


def write_json(data, path):
    """One line for each run, so that the file can be read and compared."""
    head = {key: value for key, value in data.items() if key != "runs"}
    text = json.dumps(head, indent=1, ensure_ascii=False)
    lines = ",\n".join("  " + json.dumps(run, ensure_ascii=False) for run in data["runs"])
    with open(path, "w", encoding="utf-8") as file:
        file.write(text[:-2] + ',\n "runs": [\n' + lines + "\n ]\n}\n")


def write_report(data, source):
    os.makedirs(RESULTS, exist_ok=True)
    pictures = plot.draw(data, RESULTS)
    with open(os.path.join(HERE, "RESULTS.md"), "w", encoding="utf-8") as file:
        file.write(report.render(data, source, pictures))
    print(f"wrote bench/RESULTS.md and {len(pictures)} plots from {source}")


def git(*words):
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False,
                          cwd=os.path.dirname(HERE))
    if done.returncode != 0:
        raise programs.Failed(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout


def load_committed():
    """The newest result of the last commit: what lies in the directory may be of a moment ago."""
    names = git("ls-tree", "-r", "--name-only", "HEAD", "bench/results").splitlines()
    found = sorted(name for name in names if re.fullmatch(r"bench/results/[0-9][^/]*\.json", name))
    if not found:
        raise programs.Failed("bench/results has no committed YEAR-MONTH-DAY.json to compare with: run "
                              "make bench and commit it first")
    return json.loads(git("show", f"HEAD:{found[-1]}")), found[-1]


def load(path):
    if path == "newest":
        return load_committed()
    with open(path, encoding="utf-8") as file:
        return json.load(file), path


def finish_check(data, committed, path):
    """Says what was compared; the exit status."""
    lines, count = results.compare(data["ratios"], committed["ratios"], data["workloads"],
                                   data["compared"], data["rounds"])
    print(f"compared with {path} of {committed['date']}:", *lines, sep="\n")
    for name in ("processor", "kernel"):
        then, now = committed["environment"].get(name), data["environment"][name]
        if then != now:
            print(f"note: another machine, {name} {then} then and {now} now")
    print(f"{count} worse" if count else "nothing is worse")
    return 1 if count else 0


def finish(options, data, committed, committed_path):
    if options.out:
        write_json(data, options.out)
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            report.render(data, "smoke.json", plot.draw(data, folder))
    elif options.check:
        return finish_check(data, committed, committed_path)
    else:
        print(report.terminal(data))
    if options.whole:
        path = os.path.join(RESULTS, f"{data['date']}.json")
        os.makedirs(RESULTS, exist_ok=True)
        write_json(data, path)
        write_report(data, f"bench/results/{data['date']}.json")
    return 0


def main():
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if options.report:
            data, path = load(options.report)
            write_report(data, os.path.relpath(path, os.path.dirname(HERE)))
            return 0
        committed, path = load(options.check) if options.check else (None, None)
        data = measure(options, committed)
    except (programs.Failed, OSError, ValueError) as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench.py: interrupted; nothing was written", file=sys.stderr)
        return 130
    status = finish(options, data, committed, path)
    failed = [run for run in data["runs"] if "failed" in run]
    for run in failed:
        print(f"FAILED round {run['round'] + 1}, {run['workload']}, {run['forwarder']}: {run['failed']}",
              file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(data['runs'])} runs failed and are left out", file=sys.stderr)
    return 1 if failed else status


if __name__ == "__main__":
    sys.exit(main())
