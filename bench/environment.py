"""Where a benchmark ran, and with what: so that a number can be read and a run repeated."""
import os
import platform
import pwd
import subprocess

import measure
import programs
from workloads import FORWARDERS

TOOLS = ("wrk", "iperf3", "strace", "gnuplot")


def _first(path, key):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), "")
    except OSError:
        return ""


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _distribution():
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "unknown"


def _source():
    """The commit, with `-dirty` behind it if there were changes. Of the checkout: --sluice may be other."""
    try:
        done = subprocess.run(["git", "--no-optional-locks", "describe", "--always", "--dirty"],
                              cwd=os.path.dirname(os.path.abspath(__file__)), capture_output=True,
                              text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


class Environment:
    """Begun before the runs and finished after them: how much of the machine others had is in it."""

    def __init__(self, stage):
        self.before = measure.steal_and_total_ticks()
        virtual = " hypervisor " in _first("/proc/cpuinfo", "flags") + " "
        many = len(stage.processors) > 1
        self.facts = {
            "source": _source(),
            "kernel": platform.release(),
            "distribution": _distribution(),
            "processor": _first("/proc/cpuinfo", "model name") + (", virtual" if virtual else ""),
            "processors": len(stage.processors),
            "memory_bytes": int(_first("/proc/meminfo", "MemTotal").split()[0]) * 1024,
            "user": stage.user.pw_name if stage.user else pwd.getpwuid(os.geteuid()).pw_name,
            "descriptors": stage.descriptors,
            "congestion_control": _read("/proc/sys/net/ipv4/tcp_congestion_control"),
            "pipe_quota_pages": int(_read("/proc/sys/fs/pipe-user-pages-soft") or 0),
            # The forwarder of a workload that is not pinned may use all of them.
            "pinning": (f"forwarder on processor {stage.processors[0]}, origin and load on "
                        f"{','.join(map(str, stage.load_processors()))}") if many else "none",
            "origin_workers": stage.origin_workers(),
            "python": platform.python_version(),
            "tools": {name: programs.version(path, name) for name in TOOLS
                      if (path := programs.which(name))},
        }

    def finish(self):
        steal, total = measure.steal_and_total_ticks()
        passed = max(1, total - self.before[1])
        self.facts["stolen_share"] = round((steal - self.before[0]) / passed, 4)
        return self.facts


def forwarders(stage, installed):
    """{name: version, command line, configuration text}, with example ports."""
    found = {}
    for name in FORWARDERS:
        if name not in installed or name == "direct":
            continue
        argv, text = programs.describe(name, [(8080, 9000)], 1, stage.descriptors)
        number = "" if name == "bare" else programs.version(programs.resolve(stage, name), argv[0])
        found[name] = {"version": number, "command": " ".join(argv), "configuration": text}
    return found
