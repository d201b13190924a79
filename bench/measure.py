"""What is read from outside: CPU and memory of a process tree, the origin's counters, the machine's slabs.

CPU comes from the processes' own clocks, in nanoseconds; /proc/PID/stat has only hundredths of a second.
The clock of an ended process is gone, so what its parent has of it (cutime) is added: of forwarders here
only socat has children that end.
"""
import os
import struct
import time

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
COUNTERS = ("requests", "accepted", "closed", "received", "sent", "body", "", "")


def _stat(pid):
    """The fields of /proc/PID/stat behind the program's name, or None."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def tree(root):
    """The process and all that descend from it."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(entry)):
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_ns(pids):
    total = 0
    for pid in pids:
        try:
            total += time.clock_gettime_ns((~pid << 3) | 2)  # the kernel's CPUCLOCK_SCHED of a process
        except OSError:
            continue
        if fields := _stat(pid):
            total += (int(fields[13]) + int(fields[14])) * TICK_NS
    return total


def pss_bytes(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total * 1024


def slab_bytes():
    """What the kernel holds in objects: sockets, their inodes, files, the marks of epoll.

    Of connections that have ended some objects go minutes later; those do not count. Only root may see
    objects; anybody else sees pages, which say less, since a page may be half free.
    """
    try:
        with open("/proc/slabinfo", encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[2:]]  # behind two of heading
    except OSError:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Slab:"))
    return sum(int(row[1]) * int(row[3]) for row in rows if not row[0].startswith(("tw_", "request_")))


def steal_and_total_ticks():
    """How much of the processors another guest had, for the environment's record."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(value) for value in file.readline().split()[1:9]]
    return fields[7], sum(fields)


class Counters:
    """The file into which the origin writes while it works: 8 numbers for each of its workers."""

    def __init__(self, path, workers):
        self.handle, self.workers = os.open(path, os.O_RDONLY), workers

    def read(self):
        data = os.pread(self.handle, 64 * self.workers, 0)
        numbers = struct.unpack(f"={8 * self.workers}Q", data)
        return {name: sum(numbers[i::8]) for i, name in enumerate(COUNTERS) if name}

    def close(self):
        os.close(self.handle)


class Snapshot:
    """Time, counters and CPU at one moment; two of them make a window."""

    def __init__(self, counters, process):
        pids = tree(process.pid) if process else []  # slow, so before the rest
        self.time_ns = time.monotonic_ns()
        self.counts = counters.read()
        self.cpu_ns = cpu_ns(pids)


class Window:
    def __init__(self, before, after):
        self.seconds = (after.time_ns - before.time_ns) / 1e9
        self.cpu_ns = after.cpu_ns - before.cpu_ns
        self.counts = {name: after.counts[name] - before.counts[name] for name in after.counts}

    def units(self, workload, message_bytes):
        """How much was done in it, in the workload's unit."""
        if workload.unit == "request":
            return self.counts["requests"]
        if workload.unit == "connection":
            return self.counts["accepted"]
        if workload.unit == "message":
            return self.counts["received"] / message_bytes
        return (self.counts["received"] + self.counts["sent"]) / 1e9
