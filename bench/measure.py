"""What is read from outside: CPU and memory of a process tree, the origin's counters, the machine's slabs.

CPU comes from the processes' own clocks, in nanoseconds; /proc/PID/stat has only hundredths of a second.
The clock of an ended process is gone, so what its parent has of it (cutime) is added: of forwarders here
only socat has children that end.
"""
import os
import struct
import time

GAP_NS = 200_000  # between the two readings of the clocks around the counters
TRIES = 10
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


def unused_ns(processor):
    """How long this processor has had nothing to do since the start, in steps of 10 ms, or None.

    The kernel measures idle time, while it estimates the other columns by what it finds at its ticks.
    """
    with open("/proc/stat", encoding="ascii") as file:
        fields = next((line.split() for line in file if line.startswith(f"cpu{processor} ")), None)
    return (int(fields[4]) + int(fields[5])) * TICK_NS if fields else None


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
    """Time, counters and CPU at one moment; two of them make a window.

    The counters are read between two readings of the clocks, and count as of their middle. If something
    came between, and the moment was a long one, all is read again; of several tries the shortest counts.
    """

    def __init__(self, counters, process, processor=None):
        pids = tree(process.pid) if process else []  # slow, so before the rest
        self.unused_ns = None if processor is None else unused_ns(processor)
        self.gap_ns = None
        for _ in range(TRIES):
            self._take(counters, pids)
            if self.gap_ns < GAP_NS:
                break

    def _take(self, counters, pids):
        time_ns, cpu = time.monotonic_ns(), cpu_ns(pids)
        counts = counters.read()
        cpu_after, time_after_ns = cpu_ns(pids), time.monotonic_ns()
        if self.gap_ns is None or time_after_ns - time_ns < self.gap_ns:
            self.gap_ns = time_after_ns - time_ns
            self.time_ns = (time_ns + time_after_ns) // 2
            self.cpu_ns = (cpu + cpu_after) // 2
            self.counts = counts


class Window:
    def __init__(self, before, after):
        self.before, self.after = before, after
        self.seconds = (after.time_ns - before.time_ns) / 1e9
        self.cpu_ns = after.cpu_ns - before.cpu_ns
        self.counts = {name: after.counts[name] - before.counts[name] for name in after.counts}

    def others_share(self):
        """How much of the forwarder's processor something else had, None if it has none of its own."""
        if self.before.unused_ns is None or self.after.unused_ns is None:
            return None
        elapsed_ns = self.after.time_ns - self.before.time_ns
        used_ns = elapsed_ns - (self.after.unused_ns - self.before.unused_ns)
        return (used_ns - self.cpu_ns) / elapsed_ns

    def units(self, workload, message_bytes):
        """How much was done in it, in the workload's unit."""
        if workload.unit == "request":
            return self.counts["requests"]
        if workload.unit == "connection":
            return self.counts["accepted"]
        if workload.unit == "message":
            return self.counts["received"] / message_bytes
        return (self.counts["received"] + self.counts["sent"]) / 1e9
