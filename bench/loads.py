"""The programs that make the load, and whether what they say counts.

Each has finish(), which returns what it measured itself or raises Failed: a run in which one connection went
wrong is not a slower run but no run.
"""
import json
import math
import re
import select
import signal
import subprocess
import time

from programs import Failed, which
from workloads import MESSAGE_BYTES, MESSAGES_PER_S

END_S = 10
MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 6e7}


def await_output(stage, process, seconds):
    """Output and exit status of a load that ends by itself; both pipes are small or files."""
    try:
        output, _ = process.popen.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        stage.stop(process)
        raise Failed(f"{process.name} did not end within {seconds:.0f} s; it was killed") from None
    stage.processes.remove(process)
    return output.decode("utf-8", "replace"), process.popen.returncode


class Wrk:
    """wrk ends when it gets SIGINT, so that it runs as long as the window needs and not whole seconds.

    wrk 4 corrects its latencies for coordinated omission: to each that is longer than the mean interval of
    requests of a connection it adds shorter ones, for requests that it would have sent meanwhile. So its
    quantiles are those of a model.
    """

    def __init__(self, stage, port, workload, connections, seconds):
        argv = [which("wrk"), "-t1", f"-c{connections}", f"-d{math.ceil(seconds) + END_S}s", "--timeout",
                "10s", "--latency"]
        if workload.kind == "wrk-close":
            argv += ["-H", "Connection: close"]
        argv.append(f"http://127.0.0.1:{port}{workload.path}")
        self.stage = stage
        self.process = stage.start("wrk", argv, stdout=subprocess.PIPE)

    def finish(self):
        if self.process.alive():
            self.process.popen.send_signal(signal.SIGINT)
        output, status = await_output(self.stage, self.process, END_S)
        errors = re.search(r"Socket errors:.*|Non-2xx or 3xx responses:.*", output)
        if status != 0 or errors:
            raise Failed(f"wrk: {errors.group() if errors else ''} status {status} "
                         f"{self.process.last_words()}")
        return {f"p{percent}_us": float(value) * MICROSECONDS[unit] for percent, value, unit in
                re.findall(r"^\s+(50|90|99)%\s+([\d.]+)(us|ms|s|m)", output, re.MULTILINE)}


class Load:
    """A mode of build/bench/load that runs for given seconds and then prints one line."""

    def __init__(self, stage, port, mode, seconds, **options):
        argv = [stage.path("load"), mode]
        for name, value in options.items():
            argv += [f"--{name}", str(value)]
        argv += ["--seconds", f"{seconds:.2f}", f"127.0.0.1:{port}"]
        self.stage, self.mode, self.seconds = stage, mode, seconds
        self.answer = {}  # after finish(): all that it said
        self.process = stage.start(f"load-{mode}", argv, stdout=subprocess.PIPE)

    def finish(self):
        output, status = await_output(self.stage, self.process, self.seconds + END_S)
        self.answer = answer = json_line(output, self.process)
        if status != 0 or answer.get("errors") != 0:
            raise Failed(f"load {self.mode}: status {status}, {answer} {self.process.last_words()}")
        return {name: float(value) for name, value in answer.items()
                if name.endswith("_us") and value is not None}


class Idle:
    """`load idle`: holds connections, each of which has exchanged a byte, until it is told to end."""

    def __init__(self, stage, port, connections):
        self.stage = stage
        self.process = stage.start(
            "load-idle", [stage.path("load"), "idle", "--connections", str(connections),
                          f"127.0.0.1:{port}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.output = b""
        self._answer()

    def _answer(self):
        deadline = time.monotonic() + END_S
        stream = self.process.popen.stdout
        while b"\n" not in self.output:
            ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
            chunk = stream.read1(65536) if ready else b""
            if not chunk:
                raise Failed(f"load idle said nothing for {END_S} s, or ended: "
                             f"{self.process.last_words()}")
            self.output += chunk
        line, _, self.output = self.output.partition(b"\n")
        answer = json_line(line.decode("utf-8", "replace"), self.process)
        if answer.get("errors") != 0:
            raise Failed(f"load idle: {answer} {self.process.last_words()}")
        return answer

    def ask(self, line):
        self.process.popen.stdin.write(line.encode() + b"\n")
        self.process.popen.stdin.flush()
        return self._answer()

    def finish(self):
        self.ask("quit")
        _, status = await_output(self.stage, self.process, END_S)
        if status != 0:
            raise Failed(f"load idle: status {status} {self.process.last_words()}")
        return {}


def json_line(text, process):
    try:
        return json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"{process.name}: expected a line of JSON, found {text[-200:]!r} "
                     f"{process.last_words()}") from None


def start_load(stage, workload, ports, connections, seconds):
    """The load of a workload that is measured in a window; `ports` has one for each of its services."""
    if workload.kind in ("wrk", "wrk-close"):
        return Wrk(stage, ports[0], workload, connections, seconds)
    if workload.kind == "bulk":
        return Load(stage, ports[0], "bulk", seconds, direction=workload.direction,
                    connections=connections)
    if workload.kind == "churn":
        return Load(stage, ports[0], "churn", seconds, connections=connections)
    return Load(stage, ports[0], "pingpong", seconds, connections=connections,
                rate=MESSAGES_PER_S, bytes=MESSAGE_BYTES)


def run_iperf3(stage, port, direction, seconds):
    """Bytes and nothing else: it runs in whole seconds, set-up and end included."""
    amount = ["-t", str(round(seconds))] if seconds >= 1 else ["-n", "64M"]
    argv = [which("iperf3"), "-c", "127.0.0.1", "-p", str(port), "-J", *amount]
    process = stage.start("iperf3", argv + (["-R"] if direction == "down" else []),
                          stdout=subprocess.PIPE)
    output, status = await_output(stage, process, seconds + END_S)
    try:
        answer = json.loads(output)
        if status == 0 and "error" not in answer:
            return answer["end"]["sum_received"]["bytes"]
    except (ValueError, KeyError):
        answer = {}
    raise Failed(f"iperf3: status {status}, {answer.get('error', output[-200:])}")
