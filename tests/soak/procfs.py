"""What the kernel says of processes: memory, descriptors, CPU time (proc(5))."""

import os

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def read(path):
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def name(pid):
    return read(f"/proc/{pid}/comm").strip()


def children(pid):
    return [int(text) for text in read(f"/proc/{pid}/task/{pid}/children").split()]


def fields_kib(path):
    """Lines such as `VmRSS:   1234 kB`, by name."""
    found = {}
    for line in read(path).splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            found[words[0].rstrip(":")] = int(words[1])
    return found


def cpu_s(pid):
    words = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_S if len(words) > 12 else 0.0


def descriptors(pid):
    """How many descriptors a process has, by kind: socket, pipe, other."""
    counts = {"socket": 0, "pipe": 0, "other": 0}
    try:
        entries = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return counts
    for entry in entries:
        try:
            kind = os.readlink(f"/proc/{pid}/fd/{entry}").partition(":")[0]
        except OSError:
            continue
        counts[kind if kind in counts else "other"] += 1
    return counts


class Sample:
    """One look at the processes of a running sluice."""

    def __init__(self, master):
        self.pids = [master] + children(master)
        self.names = {pid: name(pid) for pid in self.pids}
        self.names[master] = "master"
        self.anon_kib = {}
        self.descriptors = {}
        self.cpu_s = {}
        self.rss_kib = 0
        self.pss_kib = 0
        for pid in self.pids:
            status = fields_kib(f"/proc/{pid}/status")
            self.anon_kib[pid] = status.get("RssAnon", 0)
            self.rss_kib += status.get("VmRSS", 0)
            self.pss_kib += fields_kib(f"/proc/{pid}/smaps_rollup").get("Pss", 0)
            self.descriptors[pid] = descriptors(pid)
            self.cpu_s[pid] = cpu_s(pid)

    def workers(self):
        return [pid for pid in self.pids if self.names[pid] == "sluice-worker"]

    def monitor(self):
        return next((pid for pid in self.pids if self.names[pid] == "sluice-log"), 0)

    def total(self, kind):
        return sum(counts[kind] for counts in self.descriptors.values())

    def all_descriptors(self):
        return sum(sum(counts.values()) for counts in self.descriptors.values())
