#!/usr/bin/env python3
"""50,000 connections at once through sluice on one machine: what they cost while they rest, and that all are whole.

    make bench-scale          (or: python3 bench/scale.py --connections 2000)

Each connection has one byte echoed when it is opened, then rests for ten seconds, then all are asked for
one more byte at the same moment, then all are ended. Looked at are the time, memory and CPU for it; and
the records at the end, of which there must be one for each connection, each with a clean end.

What shapes it is limits. A process may have 20,000 descriptors, say, and sluice wants 2.5 for a connection:
so there are several workers, with room to spare, since the kernel spreads connections by a hash and not
evenly. A pair of addresses has 28,000 ports: so there are several targets (127.0.0.1, 127.0.0.2, ...), and
the load has several source addresses. Started as root, all runs as nobody. Nothing is pinned.

Writes bench/results/scale.json, unless there are fewer connections than 50,000, and prints a table.
"""
import argparse
import collections
import datetime
import json
import os
import re
import select
import subprocess
import sys
import time

import environment
import measure
import programs
from programs import Failed

HERE = os.path.dirname(os.path.abspath(__file__))
CONNECTIONS = 50000
TARGETS = 4  # each an origin of its own, on an address of its own
LOADS = 4  # processes
SOURCES = 4  # addresses that each load connects from
IDLE_S = 10
STEP_S = 120  # for opening, asking, or ending all
SETTLE_S = 1.0
DESCRIPTORS_PER_CONNECTION = 2.5  # README: sluice's limits
FILLED = 0.85  # of what a worker could take, since the kernel does not spread evenly
CLEAN = ("client-fin", "server-fin")


class Stage(programs.Stage):
    """Has no origin of all services but echoes on several addresses, and pins nothing."""

    def start_origins(self):
        for name in ("sluice", "origin", "load"):
            if not os.path.exists(self.path(name)):
                raise Failed(f"{name} is missing below {self.build}: run make")
        self.ports = {"echo": self.free_port()}
        for number in range(TARGETS):
            origin = self.start(f"origin{number}", [
                self.path("origin"), "--listen", f"127.0.0.{number + 1}:{self.free_port()}",
                "--echo", self.target(number)], self.processors)
            wait_for_line(self, origin, "echo")

    def target(self, number):
        return f"127.0.0.{number + 1}:{self.ports['echo']}"


def wait_for_line(stage, process, word):
    deadline = time.monotonic() + programs.START_S
    while time.monotonic() < deadline and process.alive():
        with open(process.log, encoding="utf-8", errors="replace") as file:
            if re.search(rf"\b{word}\b", file.read()):
                return
        time.sleep(0.01)
    raise Failed(f"{process.name} did not say '{word}' within {programs.START_S} s: {process.last_words()}")


class Load:
    """One `load idle`; the answers of several are waited for after all were asked."""

    def __init__(self, stage, number, connections, port):
        self.connections = connections
        self.process = stage.start(
            f"load{number}", [stage.path("load"), "idle", "--connections", str(connections), "--sources",
                              str(SOURCES), f"127.0.0.1:{port}"], stage.processors,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        self.process.popen.stdin.write(line.encode() + b"\n")
        self.process.popen.stdin.flush()

    def answer(self, event):
        stream = self.process.popen.stdout
        ready, _, _ = select.select([stream], [], [], STEP_S)
        line = stream.readline().decode() if ready else ""
        answer = json.loads(line) if line.startswith("{") else {}
        if answer.get("event") != event or answer.get("errors") != 0:
            raise Failed(f"{self.process.name}: expected \"{event}\" without errors within {STEP_S} s, found "
                         f"'{line.strip()}' {self.process.last_words()}")
        return answer


class Look:
    """Sluice's process tree and the machine at one moment."""

    def __init__(self, sluice):
        pids = measure.tree(sluice.pid)
        self.time_s = time.monotonic()
        self.cpu_s = measure.cpu_ns(pids) / 1e9
        self.pss_bytes = measure.pss_bytes(pids)
        self.slab_bytes = measure.slab_bytes()  # of the whole machine; MemAvailable and the like are too restless


def workers_for(connections, descriptors):
    """As many as have room for all, with what the hash makes uneven."""
    each = (descriptors - 100) / DESCRIPTORS_PER_CONNECTION * FILLED
    return max(2, -(-connections // int(each)))


def start_sluice(stage, connections):
    port = stage.free_port()
    targets = ",".join(stage.target(number) for number in range(TARGETS))
    argv = [stage.path("sluice"), f"127.0.0.1:{port}={targets}", "--workers",
            str(workers_for(connections, stage.descriptors))]
    sluice = stage.start("sluice", argv, stage.processors)
    wait_for_line(stage, sluice, "start")
    return sluice, port, " ".join(["sluice"] + argv[1:])


def ask_all(loads, line, event):
    """Their answers, and the seconds until the last one is there."""
    begin = time.monotonic()
    for load in loads:
        load.ask(line)
    answers = [load.answer(event) for load in loads]
    return answers, time.monotonic() - begin


def shares(connections):
    return [connections // LOADS + (number < connections % LOADS) for number in range(LOADS)]


def run(stage, connections):
    """Everything from the first connect to sluice's last line."""
    sluice, port, command = start_sluice(stage, connections)
    time.sleep(SETTLE_S)
    empty = Look(sluice)
    loads = [Load(stage, number, count, port) for number, count in enumerate(shares(connections))]
    for load in loads:
        load.answer("ready")
    opening_s = time.monotonic() - empty.time_s
    time.sleep(SETTLE_S)
    full = Look(sluice)
    time.sleep(IDLE_S)
    rested = Look(sluice)
    pings, ping_s = ask_all(loads, "ping", "ping")
    pinged = Look(sluice)
    _, ending_s = ask_all(loads, "quit", "end")
    for load in loads:
        if load.process.popen.wait(STEP_S) != 0:
            raise Failed(f"{load.process.name} failed: {load.process.last_words()}")
    time.sleep(SETTLE_S)
    ended = Look(sluice)
    status = stage.stop(sluice)
    if status != 0:
        raise Failed(f"sluice ended with status {status}: {sluice.last_words()}")
    return {
        "connections": connections, "command": command,
        "opening_s": opening_s, "connections_per_s": connections / opening_s,
        "opening_cpu_us": (full.cpu_s - empty.cpu_s) * 1e6 / connections,
        "pss_bytes": (rested.pss_bytes - empty.pss_bytes) / connections, "pss_empty_bytes": empty.pss_bytes,
        "slab_bytes": (full.slab_bytes - empty.slab_bytes) / connections,
        "idle_s": rested.time_s - full.time_s, "idle_cpu_s": rested.cpu_s - full.cpu_s,
        "ping_s": ping_s, **{name: max(answer[name] for answer in pings)
                             for name in ("p50_us", "p99_us", "max_us")},
        "ping_cpu_us": (pinged.cpu_s - rested.cpu_s) * 1e6 / connections,
        "ending_s": ending_s, "ending_cpu_us": (ended.cpu_s - pinged.cpu_s) * 1e6 / connections,
        **read_records(sluice.log),
    }


def read_records(path):
    """Counts of the records by reason, the totals, and how the workers shared the connections."""
    reasons, workers, others, totals = collections.Counter(), collections.Counter(), [], {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            event = line.split()[1]
            fields = dict(word.split("=", 1) for word in line.split()[2:] if "=" in word)
            if event == "close":
                reasons[fields["reason"]] += 1
                workers[fields["id"][:6]] += 1
            elif event == "end":
                totals = {name: int(value) for name, value in fields.items()}
            elif event not in ("start", "drain", "stop"):
                others.append(line.strip())
    return {"records": sum(reasons.values()), "reasons": dict(reasons), "totals": totals,
            "workers": sorted(workers.values()), "other_lines": others[:20]}


def complaints(found):
    """What is not as promised, in words."""
    count, totals = found["connections"], found["totals"]
    expected = {"connections_accepted": count, "connections_closed": count, "bytes_up": 2 * count,
                "bytes_down": 2 * count, "accept_errors": 0, "log_lines_dropped": 0}
    said = [f"the end line has {name}={totals.get(name)}, expected {value}"
            for name, value in expected.items() if totals.get(name) != value]
    clean = sum(found["reasons"].get(reason, 0) for reason in CLEAN)
    if found["records"] != count or clean != count:
        said.append(f"{found['records']} records, {clean} of a clean end, expected {count}: {found['reasons']}")
    if found["other_lines"]:
        said.append(f"unexpected line: {found['other_lines'][0]}")
    return said


def table(found):
    milli, kilo = 1e-3, 1 / 1024
    workers = found["workers"]
    return "\n".join(f"| {name} | {value} |" for name, value in (
        ("connections at once", f"{found['connections']:,}"),
        ("---", "---"),
        ("workers, connections of each", f"{len(workers)}, {workers[0]:,} to {workers[-1]:,}"),
        ("to open all and echo a byte on each", f"{found['opening_s']:.1f} s"),
        ("connections opened each second", f"{found['connections_per_s']:,.0f}"),
        ("CPU of sluice to open one", f"{found['opening_cpu_us']:.0f} us"),
        ("sluice's memory for one (PSS)", f"{found['pss_bytes']:.0f} bytes"),
        ("the kernel's for one, in slabs: four sockets, two of them sluice's", f"{found['slab_bytes'] * kilo:.1f} KiB"),
        (f"CPU of sluice in {found['idle_s']:.0f} s of rest", f"{found['idle_cpu_s'] * 1e6:.0f} us"),
        ("one byte and its echo on all at once", f"{found['ping_s']:.2f} s"),
        ("p50, p99, largest of them (of the slowest load)",
         f"{found['p50_us'] * milli:.0f}, {found['p99_us'] * milli:.0f}, {found['max_us'] * milli:.0f} ms"),
        ("CPU of sluice for byte and echo", f"{found['ping_cpu_us']:.0f} us"),
        ("to end all", f"{found['ending_s']:.1f} s"),
        ("CPU of sluice to end one", f"{found['ending_cpu_us']:.0f} us"),
        ("records, of which with a clean end",
         f"{found['records']:,}, {sum(found['reasons'].get(r, 0) for r in CLEAN):,}"),
    ))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help="where make has put the programs (default build)")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help=f"default {CONNECTIONS}")
    options = parser.parse_args()
    try:
        with Stage(options.build, os.path.join(options.build, "sluice")) as stage:
            stage.start_origins()
            where = environment.Environment(stage)
            found = run(stage, options.connections)
            found["environment"] = {**where.finish(), "pinning": "none", "origin_workers": TARGETS}
    except (Failed, OSError, ValueError) as error:
        print(f"scale.py: {error}", file=sys.stderr)
        return 2
    print(table(found))
    said = complaints(found)
    for line in said:
        print(f"scale.py: NOT AS PROMISED: {line}", file=sys.stderr)
    if found["connections"] >= CONNECTIONS:
        found["date"] = datetime.date.today().isoformat()
        path = os.path.join(HERE, "results", "scale.json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            json.dump(found, file, indent=1)
            file.write("\n")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
