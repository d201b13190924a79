"""One run: a forwarder is started, loaded, looked at, and stopped. Returns metrics, or raises Failed.

    cpu_us, cpu_share    of the forwarder's process tree: by unit of the workload, and of one processor
    rate                 units a second
    p50_us, p90_us, ...  what the load says. wrk's are of a closed loop: it sends after the answer, so that a
                         pause counts once and not for each request that would have waited. wrk 4 adds those
                         at the end by a model, from the mean interval of requests: nobody has measured them
    others_share         of the forwarder's processor, what others than the forwarder had in the window
    pipes_degraded       of sluice's end line
    unreceived_bytes     of bulk down: what the origin sent and the load did not count
    pss_bytes, slab_bytes, idle_cpu_us, base_pss_bytes     of idle connections

A window is in the middle of the load, after a warm-up, so that set-up and end do not count.

What fails a run: an error of the load; keep-alive connections that are not all there, or that end within the
window (wrk connects again and says nothing); sluice's end line if it has lost log lines or failed to
accept; bulk of which more is missing than sockets could hold.
"""
import contextlib
import os
import re
import signal
import time

import loads
import measure
import programs
from programs import Failed
from workloads import IDLE_BEFORE, IDLE_MORE, IDLE_WATCH_S, MESSAGE_BYTES

AFTER_S = 0.15  # of load behind the window
MIXED_START_S = 0.2
SETTLE_S = 0.2
IDLE_SETTLE_S = 1.3  # a forwarder may put off part of setting up a connection; that is not idling
IPERF3_SETTLE_S = 0.1  # its server would take our probe, if it arrives late, for one of the test's connections
SMOKE_CONNECTIONS = 8
ATTACH_S = 0.7
TRACED_AT_A_TIME = 16
CONNECTING_S = 5  # beyond the warm-up; a SYN that met a full backlog is sent again after 1 s and 3 s
STOPPING_S = 0.2  # until the end of a load has reached the origin, which sends meanwhile
END_LINE_ZERO = ("log_lines_dropped", "accept_errors")


class Bench:
    """The stage, what is measured on it, and the options that each run needs."""

    def __init__(self, stage, window_s, smoke=False):
        self.stage, self.window_s, self.smoke = stage, window_s, smoke
        self.counters = None  # those of the run's origin

    def window_seconds(self, workload):
        return self.window_s if self.smoke else self.window_s * workload.window_factor

    def warm_up_seconds(self, workload):
        return 0.05 if self.smoke else workload.warm_up_s

    def connections(self, workload):
        return min(SMOKE_CONNECTIONS, workload.connections) if self.smoke else workload.connections

    def seconds(self, workload):
        """About how long a run takes."""
        if self.smoke:
            return 0.5
        if workload.kind == "idle":
            return 0.6 + IDLE_SETTLE_S + IDLE_WATCH_S
        more = {"iperf3": -0.1, "wrk": 0.15, "wrk-close": 0.15, "mixed": 0.7}.get(workload.kind, 0.3)
        return workload.warm_up_s + self.window_seconds(workload) + more

    @contextlib.contextmanager
    def origin(self, workload):
        """Around a run; nothing that it started is left after it.

        With two services each has an origin, so that neither waits within the other's process; the
        counters are those of the last service.
        """
        stage = self.stage
        running = len(stage.processes)
        try:
            origins = [stage.start_origin()]
            for service in workload.services[1:]:
                origins.append(stage.start_origin(f"origin-{service}", (service,)))
            self.counters = measure.Counters(stage.path(f"{origins[-1].name}.counters"),
                                             stage.origin_workers())
            try:
                yield
            finally:
                self.counters.close()
            for origin in origins:
                if not origin.alive():
                    raise Failed(f"{origin.name} ended during the run: {origin.last_words()}")
        finally:
            stage.stop_all_after(running)

    def run(self, workload, name):
        """The metrics of one run."""
        if "iperf3" in workload.services:
            self.stage.start_iperf3()
        with self.origin(workload):
            return self._run(workload, name)

    def own_processor(self, workload):
        """That which the forwarder has for itself, or None."""
        stage = self.stage
        return stage.processors[0] if workload.pinned and len(stage.processors) > 1 else None

    def _run(self, workload, name):
        stage = self.stage
        targets = [stage.ports[service] for service in workload.services]
        if name == "direct":
            return KINDS[workload.kind](self, workload, None, targets)
        links = [(stage.free_port(), target) for target in targets]
        processors = stage.forwarder_processors() if workload.pinned else stage.processors
        forwarder = programs.start_forwarder(stage, name, links, workload.workers, processors)
        try:
            metrics = KINDS[workload.kind](self, workload, forwarder, [port for port, _ in links])
            if not forwarder.alive():
                raise Failed(f"{name} ended during the run: {forwarder.last_words()}")
        finally:
            status = stage.stop(forwarder)
        if name.startswith("sluice"):
            if status != 0:
                raise Failed(f"{name} ended with status {status}: {forwarder.last_words()}")
            metrics.update(check_end_line(name, forwarder))
        return metrics


def check_end_line(name, forwarder):
    """What sluice says of itself at its end; without a log it says nothing."""
    if name == "sluice-quiet":
        return {}
    with open(forwarder.log, "rb") as file:
        file.seek(max(0, os.path.getsize(forwarder.log) - 4096))
        lines = file.read().decode("utf-8", "replace").splitlines()
    line = next((line for line in reversed(lines) if line.split()[1:2] == ["end"]), None)
    if line is None:
        raise Failed(f"{name} has no end line: {forwarder.last_words()}")
    fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
    if any(fields.get(field) != "0" for field in END_LINE_ZERO):
        raise Failed(f"{name} ended with: {line}")
    return {"pipes_degraded": int(fields["pipes_degraded"])}


def derive(window, units, forwarder):
    if units <= 0:
        raise Failed("nothing arrived in the window")
    metrics = {"rate": units / window.seconds}
    if forwarder:
        metrics["cpu_us"] = window.cpu_ns / 1e3 / units
        metrics["cpu_share"] = window.cpu_ns / 1e9 / window.seconds
        if (share := window.others_share()) is not None:
            metrics["others_share"] = share
    return metrics


def look(bench, workload, load, seconds, forwarder):
    """Lets a window pass."""
    processor = bench.own_processor(workload) if forwarder else None
    before = measure.Snapshot(bench.counters, forwarder, processor)
    time.sleep(seconds)
    after = measure.Snapshot(bench.counters, forwarder, processor)
    if not load.process.alive():
        load.finish()  # says why, if there is a reason
        raise Failed(f"{load.process.name} ended before the window did")
    return measure.Window(before, after)


def await_connections(bench, load, connections):
    """On a busy machine the warm-up may be over before all stand; what is missing then, the window shows."""
    deadline = time.monotonic() + CONNECTING_S
    while time.monotonic() < deadline and load.process.alive():
        counts = bench.counters.read()
        if counts["accepted"] - counts["closed"] >= connections:
            return
        time.sleep(0.05)


def check_connections(window, connections):
    """wrk opens a connection anew when it was ended, and does not notice one that was never served."""
    standing = window.before.counts["accepted"] - window.before.counts["closed"]
    opened, ended = window.counts["accepted"], window.counts["closed"]
    if standing < connections or opened or ended:
        raise Failed(f"the origin had {standing} connections at the beginning of the window, expected "
                     f"{connections}; within it {opened} more were opened and {ended} ended")


def most_in_sockets(connections):
    """Bytes that can be under way through a forwarder: two legs, each with what two sockets may hold."""
    total = 0
    for name in ("tcp_wmem", "tcp_rmem"):
        with open(f"/proc/sys/net/ipv4/{name}", encoding="ascii") as file:
            total += int(file.read().split()[2])
    return 2 * total * connections


def check_bulk(bench, load, connections):
    """What the origin sent and the load did not count was under way at its end, or sent until it was known."""
    missing = bench.counters.read()["sent"] - load.answer["bytes_down"]
    limit = most_in_sockets(connections) + load.answer["bytes_down"] * STOPPING_S / load.seconds
    if not 0 <= missing <= limit:
        raise Failed(f"the load received {load.answer['bytes_down']} bytes, the origin sent {missing} more, "
                     f"of which sockets can hold {limit:.0f}")
    return {"unreceived_bytes": missing}


def in_window(bench, workload, forwarder, ports):
    warm_up, seconds = bench.warm_up_seconds(workload), bench.window_seconds(workload)
    load = loads.start_load(bench.stage, workload, ports, bench.connections(workload),
                            warm_up + seconds + AFTER_S)
    time.sleep(warm_up)
    if workload.kind == "wrk":
        await_connections(bench, load, bench.connections(workload))
    window = look(bench, workload, load, seconds, forwarder)
    metrics = load.finish()
    if workload.kind == "wrk":
        check_connections(window, bench.connections(workload))
    if workload.kind == "bulk" and workload.direction != "up":
        metrics.update(check_bulk(bench, load, bench.connections(workload)))
    return {**derive(window, window.units(workload, MESSAGE_BYTES), forwarder), **metrics}


def mixed(bench, workload, forwarder, ports):
    """Messages on one link while bulk fills the other; both through one forwarder."""
    warm_up, seconds = bench.warm_up_seconds(workload), bench.window_seconds(workload)
    whole = warm_up + seconds + AFTER_S
    bulk = loads.Load(bench.stage, ports[1], "bulk", whole + 2 * MIXED_START_S, direction="down",
                      connections=4)
    time.sleep(MIXED_START_S)
    messages = loads.start_load(bench.stage, workload, ports, bench.connections(workload), whole)
    time.sleep(warm_up)
    window = look(bench, workload, messages, seconds, forwarder)
    latencies = messages.finish()
    bulk.finish()
    gigabytes = window.counts["sent"] / 1e9
    metrics = {**derive(window, gigabytes, forwarder), **latencies}
    metrics.pop("cpu_us", None)  # of two kinds of work: of no unit
    return metrics


def iperf3(bench, workload, forwarder, ports):
    time.sleep(IPERF3_SETTLE_S)
    processor = bench.own_processor(workload) if forwarder else None
    before = measure.Snapshot(bench.counters, forwarder, processor)
    count = loads.run_iperf3(bench.stage, ports[0], workload.direction,
                             bench.window_seconds(workload))
    after = measure.Snapshot(bench.counters, forwarder, processor)
    return derive(measure.Window(before, after), count / 1e9, forwarder)


def idle(bench, _workload, forwarder, ports):
    """Memory by growth: what the first connections cost once is there before the rest come."""
    first, more = (8, 32) if bench.smoke else (IDLE_BEFORE, IDLE_MORE)
    time.sleep(0.05 if bench.smoke else SETTLE_S)  # workers may still be starting
    pids = measure.tree(forwarder.pid) if forwarder else []
    base_pss = measure.pss_bytes(pids)
    held = [loads.Idle(bench.stage, ports[0], first)]
    pss, slab = measure.pss_bytes(pids), measure.slab_bytes()
    held.append(loads.Idle(bench.stage, ports[0], more))
    metrics = {"slab_bytes": (measure.slab_bytes() - slab) / more}
    if forwarder:
        metrics["pss_bytes"] = (measure.pss_bytes(pids) - pss) / more
        metrics["base_pss_bytes"] = base_pss
        time.sleep(0.05 if bench.smoke else IDLE_SETTLE_S)
        cpu = measure.cpu_ns(pids)
        time.sleep(0.1 if bench.smoke else IDLE_WATCH_S)
        metrics["idle_cpu_us"] = (measure.cpu_ns(pids) - cpu) / 1e3
    for load in held:
        load.ask("ping")
    for load in held:
        load.finish()
    return metrics


KINDS = {"wrk": in_window, "wrk-close": in_window, "bulk": in_window, "churn": in_window,
         "pingpong": in_window, "mixed": mixed, "iperf3": iperf3, "idle": idle}


def traced(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next(line for line in file if line.startswith("TracerPid:")).split()[1] != "0"


def attach(stage, pids):
    argv = [programs.which("strace"), "-f", "-c", "-o", "strace.txt"]
    for pid in pids:
        argv += ["-p", str(pid)]
    tracer = stage.start("strace", argv)
    deadline = time.monotonic() + ATTACH_S
    while not all(traced(pid) for pid in pids):
        if time.monotonic() > deadline or not tracer.alive():
            stage.stop(tracer)
            raise Failed(f"strace could not attach: {tracer.last_words()}")
        time.sleep(0.01)
    return tracer


def traced_connections(workload):
    """Under strace connections are few a second, and those that a window cuts in two must be fewer."""
    return min(TRACED_AT_A_TIME, workload.connections) if workload.unit == "connection" \
        else workload.connections


def count_calls(bench, workload, name, seconds):
    """System calls by unit of the workload, by name: in a window of a load, under strace.

    Attached while the load runs, so that setting up connections is counted only where it is the work.
    """
    stage, warm_up = bench.stage, bench.warm_up_seconds(workload)
    with bench.origin(workload):
        links = [(stage.free_port(), stage.ports[service]) for service in workload.services]
        forwarder = programs.start_forwarder(stage, name, links, 1, stage.forwarder_processors())
        load = loads.start_load(stage, workload, [links[0][0]], traced_connections(workload),
                                warm_up + ATTACH_S + seconds + AFTER_S)
        time.sleep(warm_up)
        tracer = attach(stage, measure.tree(forwarder.pid))
        before = measure.Snapshot(bench.counters, forwarder)
        time.sleep(seconds)
        after = measure.Snapshot(bench.counters, forwarder)
        stage.stop(tracer, signal.SIGINT)
        load.finish()
    units = measure.Window(before, after).units(workload, MESSAGE_BYTES)
    if units <= 0:
        raise Failed("nothing arrived under strace")
    with open(stage.path("strace.txt"), encoding="ascii", errors="replace") as file:
        rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:(\d+)\s+)?(\w+)$", file.read(),
                          re.MULTILINE)
    os.unlink(stage.path("strace.txt"))
    return {call: [int(calls) / units, int(errors or 0) / units] for calls, errors, call in rows
            if call != "total"}
