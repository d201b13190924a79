"""What a sluice has to live through while it is soaked.

A plan is made at the start: the time is cut into ten parts; in each but the last a worker is killed, and later in each
there is one squeeze (two in long runs), in turn:

    descriptors   the limit of every worker is lowered to half of what it has, so that nothing new can be opened
    pipes         another process of the same user takes the whole quota of pipe pages
    stop          SIGSTOP for a worker, SIGCONT two seconds later
    burst         more clients at once than --max-connections; most of them must wait
    signals       HUP and USR1 for the master, which ignores them

One worker, the elder, is never killed: what leaks has the whole run to show in it.
"""

import os
import signal
import subprocess
import time

import procfs

PARTS = 10
SQUEEZES = ["burst", "descriptors", "stop", "pipes", "signals"]
SQUEEZE_S_MAX = 5.0  # new connections wait for as long, and judge.py has a limit for that
STOP_S = 2
BURST_S = 6


def send(pid, number):
    """A process that is gone already is judge.py's affair: sluice says so in its log."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Trouble:
    def __init__(self, master, seconds, user, burst, load, tell_load):
        self.master = master
        self.user = user  # and group, of the workers; 0 and 0: ours
        self.load = load
        self.burst_clients = burst
        self.tell_load = tell_load
        self.squeeze_s = min(SQUEEZE_S_MAX, seconds / 30)
        self.elder = min(procfs.Sample(master).workers())
        self.kills = []  # (when, pid)
        self.windows = []  # (what, from, to): nobody may wonder at latency within
        self.notes = []  # what to mark in the next row
        self.stopped = 0
        self.limits = {}
        self.holder = None
        self.pages_held = []  # of the quota, by each squeeze
        self.start = time.monotonic()
        self.todo = sorted(self.plan(seconds), key=lambda entry: entry[0])
        self.undo = []  # (when, function), ordered by time

    def plan(self, seconds):
        part = seconds / PARTS
        squeezes = [0.45, 0.75] if part >= 30 else [0.45]
        count = 0
        for i in range(PARTS):
            if i < PARTS - 1:
                yield (i + 0.15) * part, self.kill_worker
            for offset in squeezes:
                yield (i + offset) * part, getattr(self, SQUEEZES[count % len(SQUEEZES)])
                count += 1

    def window(self, what, seconds):
        now = time.monotonic()
        self.windows.append((what, now - 0.2, now + seconds))
        self.notes.append(what)

    def take_notes(self):
        notes, self.notes = self.notes, []
        return notes

    def later(self, seconds, function):
        self.undo.append((time.monotonic() + seconds, function))
        self.undo.sort(key=lambda entry: entry[0])

    def run_due(self):
        now = time.monotonic()
        while self.undo and self.undo[0][0] <= now:
            self.undo.pop(0)[1]()
        while self.todo and self.start + self.todo[0][0] <= now:
            self.todo.pop(0)[1]()

    def end(self):
        """Takes back everything, whatever has happened."""
        self.todo = []
        while self.undo:
            self.undo.pop(0)[1]()

    def young(self):
        workers = [pid for pid in procfs.Sample(self.master).workers() if pid != self.elder]
        return workers[0] if workers else 0

    # --- what happens ---

    def kill_worker(self):
        pid = self.young()
        if pid:
            self.window("kill", 3)
            self.kills.append((time.monotonic(), pid))
            send(pid, signal.SIGKILL)

    def descriptors(self):
        self.window("descriptors", self.squeeze_s + 3)
        for pid in procfs.Sample(self.master).workers():
            self.limits[pid] = self.set_limit(pid, len(os.listdir(f"/proc/{pid}/fd")) // 2)
        self.later(self.squeeze_s, self.give_descriptors_back)

    def give_descriptors_back(self):
        for pid, limit in self.limits.items():
            if os.path.exists(f"/proc/{pid}"):
                self.set_limit(pid, limit)
        self.limits = {}

    def set_limit(self, pid, descriptors):
        done = subprocess.run([self.load, "limit", *map(str, self.user), str(pid), str(descriptors)],
                              capture_output=True, text=True, timeout=10, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"can't squeeze the descriptors: {done.stderr.strip()}")
        return int(done.stdout)

    def pipes(self):
        self.window("pipes", self.squeeze_s + 3)
        self.holder = subprocess.Popen([self.load, "hold-pipes", *map(str, self.user)], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, start_new_session=True)
        self.later(self.squeeze_s, self.give_pipes_back)

    def give_pipes_back(self):
        if self.holder:
            pages, _ = self.holder.communicate(timeout=30)
            self.pages_held.append(int(pages or 0))
            self.notes.append(f"pages-held:{self.pages_held[-1]}")
            self.holder = None

    def stop(self):
        workers = procfs.Sample(self.master).workers()
        self.stopped = workers[len(self.windows) % len(workers)]
        self.window("stop", STOP_S + 3)
        send(self.stopped, signal.SIGSTOP)
        self.later(STOP_S, self.go_on)

    def go_on(self):
        if self.stopped:
            send(self.stopped, signal.SIGCONT)
            self.stopped = 0

    def burst(self):
        self.window("burst", BURST_S)
        self.tell_load(f"burst {self.burst_clients}\n")

    def signals(self):
        self.window("signals", 1)
        send(self.master, signal.SIGHUP)
        send(self.master, signal.SIGUSR1)
