#!/usr/bin/env python3
"""Soaks sluice: hours of mixed traffic and trouble, watched from outside, judged at the end.

    soak.py --sluice BIN --load BIN --work DIR [--result DIR] [--seconds 60] [--rate 100] [--seed 1]
    soak.py --again --work DIR [--result DIR]       judges a run once more, after a change of judge.py or plot.py

One process each: this one starts sluice and the load (load.c: clients, servers, and the check of every byte), makes
trouble for sluice (trouble.py), looks at its processes each second (procfs.py), and stops all of it; then judge.py
compares what the peers saw with what sluice wrote, and plot.py writes soak.csv, soak.svg and SUMMARY.md into the
result's directory. The work directory keeps what they were made from: results.txt, sluice.log, full.csv.

Run as root, sluice's workers become `nobody`: root has no quota of pipes, so that as root a quarter of what can go
wrong with pipes would never be tried.

Exit status: 0 passed, 1 failed, 2 could not run, 130 interrupted. No process is left in any case.
"""

import argparse
import ctypes
import datetime
import glob
import os
import pickle
import platform
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# pylint: disable=wrong-import-position
import judge  # noqa: E402
import plot  # noqa: E402
import procfs  # noqa: E402
import trouble  # noqa: E402

MAX_CONNECTIONS = 600
BURST = 700
IDLE = 20
START_S = 10
STOP_S = 60
FINISH_S = 110
QUIET_WAIT_S = 10
QUIET_S = 1
STAT = ["now_us", "active", "opened", "ok", "refused", "broken", "wrong", "stalled", "requests", "p50_us", "p99_us",
        "max_us", "bytes"]
KINDS = ["probe", "keepalive", "one-shot", "idle", "burst", "refusable", "bulk", "large", "slow", "bytes",
         "client-reset", "server-reset", "client-reset-blocked", "server-reset-blocked", "gives-up", "vanish"]
libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Run:
    """All that is known of one soak. What the judge needs is public."""

    def __init__(self, options):
        self.seconds = options.seconds
        self.interval = max(1.0, options.seconds / 900)
        self.options = options
        self.idle = IDLE
        self.kinds = KINDS if options.seconds >= 60 else []
        self.results_path = os.path.join(options.work, "results.txt")
        self.log_path = os.path.join(options.work, "sluice.log")
        self.realtime_minus_monotonic = time.time() - time.monotonic()
        self.date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        self.command = f"make soak T={options.seconds} MODE={options.mode} RATE={options.rate} SEED={options.seed}"
        self.machine = machine()
        self.versions = versions(options.sluice)
        self.listeners = {}
        self.sockets = tempfile.mkdtemp(prefix="sluice-soak-")
        os.chmod(self.sockets, 0o755)
        self.sluice = None
        self.load = None
        self.reader = None
        self.stats = []
        self.rows = []
        self.anon_kib = {"master": [], "monitor": [], "elder worker": []}
        self.elder_pipes = []
        self.kills = []
        self.windows = []
        self.pages_held = []
        self.reports = []
        self.left = []
        self.load_status = None
        self.exit_status = None
        self.finish_at = self.quiet_cpu_s = self.stop_s = 0.0
        self.started_at = time.monotonic()
        self.before = self.after = None
        self.last_sample = self.last_stat = None

    # --- starting ---

    def routes(self):
        """Listener, origin and targets of each route, by name."""
        one = os.getpid()
        ip = f"127.{64 + one % 128}.{one // 128 % 250}.{1 + one // 32000 % 250}"
        port = 20000 + one % 5000
        unix = f"unix:{self.sockets}"
        return {
            "v4": (f"{ip}:8080", f"{ip}:9000", None),
            "v6": (f"[::1]:{port}", f"[::1]:{port + 5000}", None),
            "v4-unix": (f"{ip}:8081", f"{unix}/o1", None),
            "unix-v4": (f"{unix}/l1", f"{ip}:9001", None),
            "unix-unix": (f"{unix}/l2", f"{unix}/o2", None),
            "second-of-two": (f"{ip}:8082", f"{ip}:9002", f"{ip}:9999,{ip}:9002"),
            "flaky": (f"{ip}:8083", f"{ip}:9003", None),
            "silent": (f"{ip}:8084", f"{ip}:9004", None),
        }

    def start_load(self, routes):
        arguments = [self.options.load, "--results", self.results_path, "--rate", str(self.options.rate),
                     "--idle", str(IDLE), "--large-gap", str(max(15, self.seconds // 30)),
                     "--seed", str(self.options.seed)]
        arguments += [f"{name},{listener},{origin}" for name, (listener, origin, _) in routes.items()]
        self.load = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, umask=0,
                                     start_new_session=True, preexec_fn=die_with_parent)
        self.reader = threading.Thread(target=self.read_stats, daemon=True)
        self.reader.start()

    def read_stats(self):
        for line in self.load.stdout:
            words = line.split()
            if words[0] == "stat":
                self.stats.append(dict(zip(STAT, map(int, words[1:]))))

    def start_sluice(self, routes):
        arguments = [self.options.sluice, "--workers", "2", "--max-connections", str(MAX_CONNECTIONS),
                     "--idle-timeout", f"{2 * self.seconds + 600}s", "--fin-timeout", f"{2 * self.seconds + 600}s"]
        if worker_user()[0]:
            arguments += ["--user", "nobody"]
        for name, (listener, origin, targets) in routes.items():
            self.listeners[name] = listener
            arguments.append(f"{listener}={targets or origin}")
        environment = dict(os.environ, ASAN_OPTIONS=f"log_path={self.options.work}/report:quarantine_size_mb=8",
                           UBSAN_OPTIONS=f"log_path={self.options.work}/report:print_stacktrace=1")
        with open(self.log_path, "wb") as log:
            self.sluice = subprocess.Popen(arguments, stderr=log, stdin=subprocess.DEVNULL, env=environment,
                                           start_new_session=True, preexec_fn=die_with_parent)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.sluice.poll() is None:
            sample = procfs.Sample(self.sluice.pid)
            if len(sample.workers()) == 2 and sample.monitor() and b" start " in open(self.log_path, "rb").read():
                later = procfs.Sample(self.sluice.pid)
                if later.descriptors == sample.descriptors:
                    return later  # the workers have opened all that they keep
            time.sleep(0.1)
        raise RuntimeError(f"sluice did not start: {open(self.log_path, encoding='utf-8').read()}")

    # --- watching ---

    def tell_load(self, text):
        try:
            self.load.stdin.write(text)
            self.load.stdin.flush()
        except OSError as error:
            raise RuntimeError("the load has ended") from error

    def take_row(self, troubles):
        sample = procfs.Sample(self.sluice.pid)
        stats = [stat for stat in list(self.stats) if stat["now_us"] > (self.last_stat or {"now_us": 0})["now_us"]]
        now = time.monotonic()
        load_cpu_s = procfs.cpu_s(self.load.pid)
        has_row = bool(stats and self.last_sample)
        if has_row:
            self.rows.append(self.row(sample, stats, now, load_cpu_s, troubles))
        if stats:
            self.last_stat = stats[-1]
        self.last_sample = (now, sample, load_cpu_s)
        for who, pid in (("master", self.sluice.pid), ("monitor", sample.monitor()), ("elder worker", troubles.elder)):
            if pid in sample.anon_kib:
                self.anon_kib[who].append(sample.anon_kib[pid])
        if troubles.elder in sample.descriptors:
            self.elder_pipes.append(sample.descriptors[troubles.elder]["pipe"])
        return has_row

    def row(self, sample, stats, now, load_cpu_s, troubles):
        last = self.last_stat or dict.fromkeys(STAT, 0)
        before, old, old_load_cpu_s = self.last_sample
        took = now - before
        cpu_s = sum(max(0.0, value - old.cpu_s.get(pid, 0.0)) for pid, value in sample.cpu_s.items())
        young = [pid for pid in sample.workers() if pid != troubles.elder]

        def more(key):
            return stats[-1][key] - last[key]

        return {
            "t_s": round(now - self.started_at, 1),
            "active": stats[-1]["active"],
            "opened": more("opened"),
            "rss_kib": sample.rss_kib,
            "pss_kib": sample.pss_kib,
            "elder_anon_kib": sample.anon_kib.get(troubles.elder, 0),
            "young_anon_kib": sample.anon_kib.get(young[0], 0) if young else 0,
            "descriptors": sample.all_descriptors(),
            "sockets": sample.total("socket"),
            "pipes": sample.total("pipe"),
            "cpu_percent": round(100 * cpu_s / took, 1),
            "load_cpu_percent": round(100 * (load_cpu_s - old_load_cpu_s) / took, 1),
            "requests_per_s": round(more("requests") / took, 1),
            "p50_ms": round(max(stat["p50_us"] for stat in stats) / 1000, 2),
            "p99_ms": round(max(stat["p99_us"] for stat in stats) / 1000, 2),
            "max_ms": round(max(stat["max_us"] for stat in stats) / 1000, 2),
            "broken": more("broken"),
            "wrong": more("wrong"),
            "stalled": more("stalled"),
            "mib_per_s": round(more("bytes") / took / 2**20, 1),
            "events": " ".join(troubles.take_notes()),
        }

    def say(self, text):
        print(text, flush=True)

    def soak(self, troubles):
        next_row = self.started_at
        next_line = self.started_at + self.seconds / 20
        events, said = [], 0
        self.say(f"{'t s':>6} {'conns':>6} {'RSS MiB':>8} {'elder KiB':>9} {'fds':>5} {'pipes':>5} {'CPU %':>6} "
                 f"{'req/s':>6} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>8} {'broken':>6}  trouble")
        while time.monotonic() < self.started_at + self.seconds:
            troubles.run_due()
            if self.load.poll() is not None or self.sluice.poll() is not None:
                raise RuntimeError("the load or sluice has ended by itself")
            if time.monotonic() >= next_row:
                next_row += self.interval
                if self.take_row(troubles):
                    events.append(self.rows[-1]["events"])
            if time.monotonic() >= next_line and len(self.rows) > said:
                next_line += self.seconds / 20
                self.say_row(self.rows[said:], " ".join(filter(None, events)))
                events, said = [], len(self.rows)
            time.sleep(0.05)

    def say_row(self, rows, events):
        """The last of these, but the worst latency of all."""
        row, p99_ms, max_ms = rows[-1], max(row["p99_ms"] for row in rows), max(row["max_ms"] for row in rows)
        self.say(f"{row['t_s']:6.0f} {row['active']:6} {row['rss_kib'] / 1024:8.1f} {row['elder_anon_kib']:9} "
                 f"{row['descriptors']:5} {row['pipes']:5} {row['cpu_percent']:6.1f} {row['requests_per_s']:6.0f} "
                 f"{row['p50_ms']:7.2f} {p99_ms:7.2f} {max_ms:8.2f} {sum(r['broken'] for r in self.rows):6}  {events}")

    # --- ending ---

    def finish(self, troubles):
        """Lets all connections end, looks at what sluice keeps, stops it."""
        troubles.end()
        self.finish_at = time.monotonic()
        self.tell_load("finish\n")
        self.load_status = self.load.wait(FINISH_S)
        self.reader.join(5)
        if self.sluice.poll() is None:
            self.after = self.when_quiet()
            time.sleep(QUIET_S)
            later = procfs.Sample(self.sluice.pid)
            self.quiet_cpu_s = sum(later.cpu_s.values()) - sum(self.after.cpu_s.values())
        self.kills, self.windows, self.pages_held = troubles.kills, troubles.windows, troubles.pages_held
        began = time.monotonic()
        self.sluice.send_signal(signal.SIGTERM)
        self.exit_status = self.sluice.wait(STOP_S)
        self.stop_s = time.monotonic() - began
        self.left = [pid for pid in self.after.pids if os.path.exists(f"/proc/{pid}")]
        self.reports = glob.glob(f"{self.options.work}/report*")

    def when_quiet(self):
        """Waits until sluice has closed what its peers have closed, but not for ever."""
        deadline = time.monotonic() + QUIET_WAIT_S
        sample = procfs.Sample(self.sluice.pid)
        while time.monotonic() < deadline and judge.left_over(self.before, sample):
            time.sleep(0.1)
            sample = procfs.Sample(self.sluice.pid)
        return sample

    def clean_up(self):
        """Ends what is still there, however the run has ended."""
        for process in (self.load, self.sluice):
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM if process is self.sluice else signal.SIGKILL)
                try:
                    process.wait(5)
                    continue
                except subprocess.TimeoutExpired:
                    pass
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        shutil.rmtree(self.sockets, ignore_errors=True)


def worker_user():
    """User and group of the workers. Root has no quota of pipe pages, so they are not root; 0 and 0: they are us."""
    nobody = pwd.getpwnam("nobody")
    return (nobody.pw_uid, nobody.pw_gid) if os.getuid() == 0 else (0, 0)


def machine():
    model = next((line.partition(":")[2].strip() for line in procfs.read("/proc/cpuinfo").splitlines()
                  if line.startswith("model name")), platform.machine())
    memory_kib = procfs.fields_kib("/proc/meminfo").get("MemTotal", 0)
    return f"{os.cpu_count()} x {model}, {memory_kib / 2**20:.0f} GiB, Linux {platform.release()}"


def versions(sluice):
    def first_line(*command):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
            return (done.stdout or done.stderr).strip().splitlines()[0]
        except (OSError, IndexError):
            return f"no {command[0]}"

    commit = first_line("git", "-C", os.path.dirname(os.path.abspath(__file__)), "describe", "--always", "--dirty")
    return ", ".join([f"{first_line(sluice, '-V')} ({commit})", f"Python {platform.python_version()}",
                      first_line("gnuplot", "--version")])


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sluice")
    parser.add_argument("--load")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--work", required=True)
    parser.add_argument("--result")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mode", default="release")
    options = parser.parse_args()
    if not options.again and not (options.sluice and options.load):
        parser.error("--sluice and --load are needed")
    if options.seconds < 20 or not 1 <= options.rate <= 200:
        parser.error("--seconds must be at least 20, --rate 1 to 200")
    options.result = options.result or os.path.dirname(options.work.rstrip("/"))
    return options


def keep(run):
    """For --again."""
    run.load = run.sluice = run.reader = None
    with open(os.path.join(run.options.work, "run.pickle"), "wb") as file:
        pickle.dump(run, file)


def conclude(run):
    """Judges, writes, says; the exit status."""
    verdict, _, _ = judge.judge(run)
    write_results(run, verdict)
    run.say("")
    for passed, name, found in verdict.checks:
        run.say(f"{'ok    ' if passed else 'FAILED'}  {name}: {found}")
    run.say(f"\n{'PASSED' if verdict.passed() else 'FAILED'}; results in {run.options.result}")
    return 0 if verdict.passed() else 1


def write_results(run, verdict):
    plot.write_csv(os.path.join(run.options.work, "full.csv"), run.rows)
    csv_path = os.path.join(run.options.result, "soak.csv")
    plot.write_csv(csv_path, plot.thin(run.rows))
    if not plot.write_svg(run, csv_path, os.path.join(run.options.result, "soak.svg")):
        run.say("there is no gnuplot (tools/deps.sh soak), so no soak.svg")
    plot.write_summary(run, verdict, os.path.join(run.options.result, "SUMMARY.md"))


def interrupt(number, frame):
    raise KeyboardInterrupt


def main():
    options = parse()
    os.makedirs(options.result, exist_ok=True)
    if options.again:
        with open(os.path.join(options.work, "run.pickle"), "rb") as file:
            run = pickle.load(file)
        run.options.result = options.result
        return conclude(run)
    shutil.rmtree(options.work, ignore_errors=True)
    os.makedirs(options.work)
    os.chmod(options.work, 0o1777)  # sanitizer reports of workers that are nobody
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    run = Run(options)
    troubles = None
    try:
        routes = run.routes()
        run.before = run.start_sluice(routes)
        run.start_load(routes)
        run.started_at = time.monotonic()
        troubles = trouble.Trouble(run.sluice.pid, run.seconds, worker_user(), BURST, options.load, run.tell_load)
        run.soak(troubles)
        run.finish(troubles)
    except KeyboardInterrupt:
        print("soak: interrupted", file=sys.stderr)
        return 130
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"soak: FAILED: {error}; see {options.work}", file=sys.stderr)
        return 1
    finally:
        if troubles:
            troubles.end()
        run.clean_up()
    keep(run)
    return conclude(run)


if __name__ == "__main__":
    sys.exit(main())
