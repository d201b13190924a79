"""What is measured: the workloads, which forwarders take part in each, and the aims.

A workload is a row here and nothing else: how its load is made is in loads.py, how it is measured in
runs.py. Its identifier is what --only takes and what stands in the results.
"""
from dataclasses import dataclass

# The order is that of the tables. `direct` is no forwarder: what origin and load do by themselves.
FORWARDERS = ("direct", "bare", "sluice", "sluice-quiet", "haproxy", "haproxy-splice", "haproxy-log",
              "nginx-16k", "nginx-64k", "nginx-log", "socat")
PEERS = ("sluice-quiet", "haproxy", "haproxy-splice", "haproxy-log", "nginx-64k", "nginx-16k", "nginx-log", "socat", "bare")
RELAYS = ("bare", "sluice", "haproxy", "haproxy-splice", "nginx-16k", "nginx-64k")
WITH_DIRECT = ("direct",) + RELAYS
WITH_SOCAT = WITH_DIRECT + ("socat",)  # it forks: only where few connections stay open
# A record is written when a connection ends: by sluice unless it is told not to, by the others when told.
WITH_LOGS = WITH_DIRECT + ("sluice-quiet", "haproxy-log", "nginx-log")
MAIN = ("direct", "sluice", "haproxy", "nginx-64k")
# bare has one target and socat one for each process, so neither can carry two kinds of load at once.
TWO_TARGETS = ("direct", "sluice", "haproxy", "haproxy-splice", "nginx-16k", "nginx-64k")

MESSAGE_BYTES = 64
MESSAGES_PER_S = 2000
IDLE_BEFORE = 100  # connections that are open before the memory of IDLE_MORE further ones is taken
IDLE_MORE = 2000
IDLE_WATCH_S = 2.0
FEW_ROUNDS = 5


@dataclass(frozen=True)
class Workload:
    """One row: what the load does, and what the result is divided by."""
    name: str
    title: str
    group: str
    kind: str  # which function of runs.py measures it
    unit: str  # what `cpu_us` and `rate` count: request, connection, GB, message
    connections: int
    forwarders: tuple
    path: str = "/"
    direction: str = ""  # of bulk and iperf3
    services: tuple = ("http",)  # of origin, one for each link of the forwarder
    warm_up_s: float = 0.4
    window_factor: float = 1.0
    primary: str = "cpu_us"  # the metric that ratios are of
    workers: int = 1
    pinned: bool = True
    few_rounds: bool = False  # costs time and varies little: not in every round


def _http():
    for count in (1, 64, 1000, 4000):
        yield Workload(
            f"keepalive-{count}", f"keep-alive, {count}", "http", "wrk", "request", count,
            WITH_SOCAT if count <= 64 else WITH_DIRECT,
            warm_up_s={1000: 1.2, 4000: 2.5}.get(count, 0.4))  # until all are open
    yield Workload("close-64", "one request per connection, 64", "http", "wrk-close", "connection",
                   64, WITH_LOGS)
    for name, size in (("1k", 1 << 10), ("16k", 16 << 10), ("128k", 128 << 10), ("1m", 1 << 20)):
        label = "1 MiB" if name == "1m" else f"{size >> 10} KiB"
        yield Workload(f"response-{name}", f"responses of {label}, 16", "http", "wrk", "request", 16,
                       WITH_SOCAT, path=f"/bytes/{size}")


def _bulk():
    services = {"up": "sink", "down": "source", "both": "source"}
    for direction, service in services.items():
        for flows in (1, 4, 64):
            takes_part = {1: WITH_SOCAT, 4: RELAYS + ("socat",), 64: WITH_DIRECT}[flows]
            yield Workload(
                f"bulk-{direction}-{flows}", f"bulk {direction}, {flows}", "bulk", "bulk", "GB", flows,
                takes_part, direction=direction, services=(service,))
    for direction in ("up", "down"):
        yield Workload(f"iperf3-{direction}", f"iperf3 {direction}, 1", "bulk", "iperf3", "GB", 1, MAIN,
                       direction=direction, services=("iperf3",), few_rounds=True)


def _scale():
    for label, connections, path in (("keepalive", 64, "/"), ("16k", 16, f"/bytes/{16 << 10}")):
        for workers in (1, 2):
            yield Workload(
                f"scale-{label}-{workers}",
                f"{'keep-alive' if path == '/' else 'responses of 16 KiB'}, {connections}, "
                f"{workers} worker{'s' if workers > 1 else ''}",
                "scale", "wrk", "request", connections, ("sluice", "haproxy", "nginx-64k"), path=path,
                workers=workers, pinned=False, few_rounds=True)


WORKLOADS = {workload.name: workload for workload in (
    *_http(),
    Workload("churn", "connect, 64 bytes, end; 64", "churn", "churn", "connection", 64, WITH_LOGS,
             services=("echo",)),
    *_bulk(),
    Workload("pingpong", "ping-pong alone", "latency", "pingpong", "message", 16, WITH_SOCAT,
             services=("echo",), window_factor=2.0),
    Workload("pingpong-mixed", "ping-pong beside bulk down", "latency", "mixed", "GB", 16,
             TWO_TARGETS, services=("echo", "source"), window_factor=2.0, primary="p99_us"),
    Workload("idle", "idle connections", "memory", "idle", "connection", IDLE_MORE, WITH_DIRECT,
             services=("echo",), primary="pss_bytes", few_rounds=True),
    *_scale(),
)}

QUICK = ("keepalive-64", "close-64", "response-16k", "response-128k", "bulk-down-4")
QUICK_FORWARDERS = ("bare", "sluice", "haproxy", "nginx-64k")
CHECK_FORWARDERS = ("bare", "sluice", "haproxy")
CHECK_PEERS = ("bare", "haproxy")
# For counting system calls: one of each kind of work.
TRACED = ("keepalive-64", "close-64", "response-128k", "bulk-down-4")
TRACED_FORWARDERS = ("bare", "sluice", "haproxy", "haproxy-splice", "nginx-64k")


def _aims():
    columns = ("haproxy", "haproxy-splice", "nginx-64k", "bare")
    bulk = (0.29, 0.95, 0.52, 0.97)
    rows = {
        "keepalive-64": (0.80, 0.85, 0.93, 1.05),
        "keepalive-1000": (0.70, 0.85, 0.82, 1.05),
        "keepalive-4000": (0.70, 0.85, 0.82, 1.05),
        "close-64": (0.92, 0.90, 0.97, 1.05),
        "response-16k": (0.72, 0.75, 0.90, 1.05),
        "response-128k": (0.40, 0.93, 0.80, 1.02),
        "response-1m": (0.40, 0.93, 0.80, 1.02),
        "pingpong-mixed": (0.5, 0.5, 0.5),
    }
    for direction in ("up", "down"):
        for flows in (1, 4, 64):
            rows[f"bulk-{direction}-{flows}"] = bulk
    aims = {name: dict(zip(columns, row)) for name, row in rows.items()}
    aims["idle"] = {"haproxy": 0.15, "nginx-64k": 0.06, "nginx-16k": 0.06}
    return aims


# Largest ratio of sluice to a peer, in the workload's primary metric, that is good enough.
AIMS = _aims()
AIM_IDLE_BYTES = 512
BULK_AIM = 0.95  # smallest rate of bulk, to the peer's, beside which a short latency counts
