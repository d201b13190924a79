"""Says whether a soak has passed, from three accounts of it that must agree: what the peers saw (results.txt of the
load), what sluice wrote (sluice.log), and what was seen from outside (samples, exit status).

A connection without a close record, or one that broke, needs a kill to explain it: its last sign of life came when a
worker was killed. Everything else must be as scripted, and the bytes of its record must be the bytes that the peers
counted.
"""

import collections
import datetime
import re
import sys

FIELD = re.compile(r'(\w+)=("[^"]*"|\S+)')
# A connection whose last byte or end came so long before or after a kill may be its victim.
KILL_EARLY_S = 0.5
KILL_LATE_S = 3.0
# A client that has reset may still wait in the backlog, in a squeeze, and has a record when it is accepted at last.
ACCEPT_LATE_S = 20.0
# A record is written at the end of a turn and counts from the begin of one, and a worker may be stopped in between.
RECORD_LATE_S = 3.0
UNFLUSHED_MAX = 12  # records a worker may have gathered, but not yet written, when it was killed: one batch
# What a worker may keep for later: the socket for the next server, and PIPES_KEPT_MAX empty pipes (src/net/pipes.c).
KEPT = {"socket": 1, "pipe": 2 * 64, "other": 0}
# A worker gets the socket for the server before it accepts, so what waits in the backlog waits out a shortage. But a
# second server needs a second socket: one client of each worker may meet a limit that was lowered just then.
LIMITED_MAX = 2
PAGES_MIN = 8192  # half of what an ordinary user may have
STALL_S = 10.0
EXCUSED = {"kill", "descriptors", "stop", "burst"}  # squeezes that must delay somebody
GROWTH_PIPES = 40  # ends; how many are kept depends on how much bulk met at once
GROWTH_KIB = 512  # eight buffers; one or two come and go
FIN = {"client-fin", "server-fin"}
# The reasons a record may have, by what the script was; those not named here must end with FIN.
REASONS = {
    "client-reset": {"client-reset", "client-abort"},
    "client-reset-blocked": {"client-reset", "client-abort"},
    "server-reset": {"server-reset"},
    "server-reset-blocked": {"server-reset"},
    "vanish": {"client-abort", "client-reset"},
    "gives-up": {"client-abort"},
    "unanswered": {"connect-timeout"},
}
REFUSED = {"refusable": {"connect-refused", "server-reset", "limit"}, "unanswered": {"connect-timeout", "limit"}}
EVENTS = {"start", "close", "accept-paused", "worker-died", "drain", "end"}

Conn = collections.namedtuple("Conn", "id kind route outcome start end client server up_sent up_received down_sent "
                              "down_received client_end server_end detail moved")
# A small request that took long: from when it was due, and from when it was sent (or its connection begun).
Slow = collections.namedtuple("Slow", "kind route due latency waited")


class Record:
    __slots__ = ("listener", "client", "server_local", "up", "down", "reason", "start", "used", "offset")

    def __init__(self, fields, ended, offset):
        self.listener = sys.intern(fields.get("listener", "").strip('"'))
        self.client = fields.get("client", "")
        self.server_local = fields.get("server_local", "")
        self.up = int(fields["bytes_up"])
        self.down = int(fields["bytes_down"])
        self.reason = sys.intern(fields["reason"])
        self.start = ended - float(fields["duration_s"])
        self.used = False
        self.offset = offset  # of its line in the log: an hour has half a million


def read_results(path):
    """Connections, slow requests, strangers (server ends that never said whose they are), times at which the load
    itself was late, and how many connections could not be opened."""
    conns, slow, strangers, late, failed = [], [], [], [], 0
    with open(path, encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[0] == "conn":
                numbers = [int(words[i]) for i in (5, 6, 9, 10, 11, 12)]
                conns.append(Conn(int(words[1]), *map(sys.intern, words[2:5]), numbers[0] / 1e6, numbers[1] / 1e6,
                                  words[7], words[8], *numbers[2:], *map(sys.intern, words[13:16]),
                                  int(words[16]) / 1e6))
            elif words[0] == "slow":
                slow.append(Slow(words[1], words[2], *(int(word) / 1e6 for word in words[3:6])))
            elif words[0] == "stranger":
                strangers.append(words[1:])
            elif words[0] == "late":
                late.append((int(words[1]) / 1e6, int(words[2]) / 1e6))
            else:
                failed += 1
    return conns, slow, strangers, late, failed


def read_log(path, realtime_minus_monotonic):
    """Close records, other events by name, and lines that are none."""
    records, events, odd = [], collections.defaultdict(list), []
    offset = 0
    with open(path, "rb") as file:
        for line in file:
            began, offset = offset, offset + len(line)
            line = line.decode(errors="replace")
            stamp, _, rest = line.partition(" ")
            event = rest.partition(" ")[0].strip()
            if event not in EVENTS:
                odd.append(line.strip())
                continue
            fields = dict(FIELD.findall(rest))
            if event != "close":
                events[event].append(fields)
                continue
            when = datetime.datetime.fromisoformat(stamp.rstrip("Z") + "+00:00").timestamp()
            records.append(Record(fields, when - realtime_minus_monotonic, began))
    return records, events, odd


def line_at(path, offset):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.readline().decode(errors="replace").strip()


class Verdict:
    def __init__(self):
        self.checks = []  # (passed, name, what was found)

    def check(self, passed, name, found):
        self.checks.append((bool(passed), name, found))

    def passed(self):
        return all(check[0] for check in self.checks)


def address(text):
    """Unix sockets have none that could be compared."""
    return None if text in ("", "-") or text.startswith("unix") else text


def pair_up(conns, records, listeners):
    """Finds the record of each connection: by the client's address and the one sluice had towards the server, as far
    as they have any; where both are unix sockets, by bytes. Ports are used again, so those go first that should have
    one, and of which more is known."""
    by_address = collections.defaultdict(list)
    by_bytes = collections.defaultdict(list)
    for record in records:
        record.client, record.server_local = address(record.client), address(record.server_local)
        for key in {record.client, record.server_local} - {None}:
            by_address[record.listener, key].append(record)
        by_bytes[record.listener, record.up, record.down].append(record)
    found = {}
    for conn in sorted(conns, key=lambda conn: (conn.outcome == "broken", address(conn.server) is None,
                                                address(conn.client) is None)):
        listener, client, server = listeners[conn.route], address(conn.client), address(conn.server)
        if client or server:
            fitting = by_address[listener, client or server]
        else:
            fitting = by_bytes[listener, conn.up_received, conn.down_received]
        latest = conn.end + (ACCEPT_LATE_S if conn.server_end == "absent" else RECORD_LATE_S)
        fitting = [record for record in fitting if not record.used
                   and (server is None or record.server_local == server)
                   and conn.start - RECORD_LATE_S <= record.start <= latest]
        record = min(fitting, key=lambda record: abs(record.start - conn.start), default=None)
        if record is not None:
            record.used = True
            found[conn.id] = record
    return [(conn, found.get(conn.id)) for conn in conns]


def contradiction(conn, record):
    """What a record says that the peers have not seen; None if they agree."""
    if conn.outcome == "refused":
        return None if record.reason in REFUSED.get(conn.kind, ()) else "reason"
    if conn.outcome == "broken":
        return None if record.reason == "limit" else "it broke, and has a record"
    if record.reason not in REASONS.get(conn.kind, FIN):
        return "reason"
    if record.reason in FIN and (record.up, record.down) != (conn.up_received, conn.down_received):
        return "bytes"
    if record.up < conn.up_received or record.down < conn.down_received:
        return "bytes: fewer than arrived"
    if record.reason == "client-reset" and conn.server_end == "reset" and record.up != conn.up_received:
        return "bytes: what came before the client's reset has not all arrived"
    if record.reason == "server-reset" and conn.client_end == "reset" and record.down != conn.down_received:
        return "bytes: what came before the server's reset has not all arrived"
    return None


def judge_connections(verdict, run):
    conns, slow, strangers, late, failed = read_results(run.results_path)
    records, events, odd = read_log(run.log_path, run.realtime_minus_monotonic)
    outcomes = collections.Counter(conn.outcome for conn in conns)
    bad = [conn for conn in conns if conn.outcome in ("wrong", "stalled")]
    bad_strangers = [s for s in strangers if s[2] != "reset"]
    pairs = pair_up(conns, records, run.listeners)
    killed_at = [when for when, _ in run.kills]

    def is_victim(conn):
        """Its last sign of life, which is the reset if it broke, came with a kill."""
        return any(-KILL_EARLY_S <= conn.moved - when <= KILL_LATE_S for when in killed_at)

    missing = [conn for conn, record in pairs if record is None and conn.kind != "vanish"]
    unrecorded = sum(record is None for conn, record in pairs if conn.kind == "vanish")  # some never were connections
    unexplained = [conn for conn in missing if not is_victim(conn)]
    contradictions = [(contradiction(conn, record), conn, record) for conn, record in pairs
                      if record is not None and contradiction(conn, record)]
    limited = [conn for conn, record in pairs if record is not None and record.reason == "limit"]
    squeezed = [(start, to) for what, start, to in run.windows if what == "descriptors"]
    bad_limited = [conn for conn in limited if not any(start <= conn.moved <= to for start, to in squeezed)]
    strays = [record for record in records if not record.used]
    lost = sum(int(fields["connections_lost"]) for fields in events["worker-died"])
    end = events["end"][-1] if events["end"] else {}
    accepted, closed = int(end.get("connections_accepted", -1)), int(end.get("connections_closed", -2))
    unflushed = closed - lost - len(records)

    verdict.check(not bad and not bad_strangers, "no foreign byte, no early end, no connection that hangs",
                  f"{len(conns)} connections: " + ", ".join(f"{n} {name}" for name, n in sorted(outcomes.items())) +
                  "".join(f"\n    {text}" for text in (bad + bad_strangers)[:10]))
    verdict.check(not unexplained, "what broke or has no record was cut by a kill",
                  f"{outcomes['broken']} broken, {len(missing)} without a record, {len(run.kills)} kills"
                  + "".join(f"\n    {text}" for text in unexplained[:10]))
    verdict.check(not contradictions, "records agree with what the peers saw, bytes and reason",
                  f"{len(records)} records" +
                  "".join(f"\n    {why}: {conn}\n      {line_at(run.log_path, record.offset)}"
                          for why, conn, record in contradictions[:10]))
    verdict.check(not bad_limited and len(limited) <= LIMITED_MAX * len(squeezed),
                  "a shortage costs nearly no connection",
                  f"{len(limited)} ended with reason limit in {len(squeezed)} squeezes of descriptors"
                  + "".join(f"\n    {text}" for text in bad_limited[:10]))
    verdict.check(not strays, "no record without a connection",
                  f"{len(strays)}" + "".join(f"\n    {line_at(run.log_path, record.offset)}" for record in strays[:10]))
    verdict.check(accepted == closed and 0 <= unflushed <= UNFLUSHED_MAX * len(run.kills) and
                  end.get("log_lines_dropped") == "0" and
                  len(missing) - len(run.kills) <= lost + unflushed <= len(missing) + unrecorded,
                  "counters balance",
                  f"accepted {accepted} = closed {closed}; {len(records)} records + {lost} lost with their worker + "
                  f"{unflushed} not yet written when it was killed; the load misses {len(missing)}"
                  + (f", and {unrecorded} that vanished" if unrecorded else ""))
    verdict.check(not odd and len(events["worker-died"]) == len(run.kills), "nothing unexpected in the log",
                  f"{len(events['worker-died'])} worker-died, {len(events['accept-paused'])} accept-paused, "
                  f"pipes_degraded={end.get('pipes_degraded')}" + "".join(f"\n    {line}" for line in odd[:10]))
    felt = int(end.get("accept_errors", 0)) > 0 and min(run.pages_held, default=0) >= PAGES_MIN
    verdict.check(felt or not run.kinds, "the squeezes were felt",
                  f"{end.get('accept_errors')} times no descriptor was left; pages of pipe taken: "
                  + (", ".join(map(str, run.pages_held)) or "none"))
    judge_load(verdict, run, conns, outcomes, failed)
    judge_stalls(verdict, run, slow, late)
    return conns, outcomes


def judge_load(verdict, run, conns, outcomes, failed):
    fine = collections.Counter(conn.kind for conn in conns if conn.outcome == "ok")
    idle = [conn for conn in conns if conn.kind == "idle"]
    idle_good = sum(conn.outcome == "ok" and conn.end >= run.finish_at for conn in idle)
    absent = [kind for kind in run.kinds if not fine[kind]]
    verdict.check(not absent and outcomes["refused"] > 0 and failed == 0 and run.load_status == 0,
                  "the load was what it says",
                  ", ".join(f"{n} {kind}" for kind, n in sorted(fine.items())) + f"; {outcomes['refused']} refused, "
                  f"{failed} not opened" + (f"; none was: {', '.join(absent)}" if absent else ""))
    verdict.check(idle_good > 0 and len(idle) == run.idle, "idle connections work at the end",
                  f"{idle_good} of {len(idle)} held for the whole run, then used; the others were cut by a kill")


def judge_stalls(verdict, run, slow, late):
    """A load that does not get the processor is late with everything. So the limit is for the time since a request was
    sent, without the time in which the load itself did not run; the latency, which counts from when the request was
    due, is for the plot."""
    def overlap_s(entry, windows):
        began, ended = entry.due + entry.latency - entry.waited, entry.due + entry.latency
        return sum(max(0.0, min(to, ended) - max(start, began)) for start, to in windows)

    trouble = [(start, to) for what, start, to in run.windows if what in EXCUSED]
    waits = [(entry.waited - overlap_s(entry, late), entry) for entry in slow]
    longest = max((wait for wait, _ in waits), default=0)
    outside = [entry for wait, entry in waits if wait > 1 and not overlap_s(entry, trouble)]
    verdict.check(longest < STALL_S, f"no small request waited for {STALL_S:.0f} s",
                  f"longest {longest:.1f} s; over 1 s: {sum(wait > 1 for wait, _ in waits)}, of them {len(outside)} at "
                  f"no time of trouble (the load itself was late for {sum(to - start for start, to in late):.1f} s in "
                  "all, which does not count)" +
                  "".join(f"\n    {entry.kind} {entry.route} {entry.waited:.2f} s, due at "
                          f"{entry.due - run.started_at:.0f} s" for entry in outside[:10]))


def middle(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else 0


def growth(series):
    """Medians of the first and the last third, the first twentieth left out."""
    series = series[len(series) // 20:]
    third = max(1, len(series) // 3)
    return middle(series[:third]), middle(series[-third:])


def left_over(before, after):
    """Descriptors that nobody should have now, as texts. Workers may keep some; the others have what they had."""
    found = []
    usual = before.descriptors[before.workers()[0]]
    for pid, counts in after.descriptors.items():
        is_worker = pid in after.workers()
        was = usual if is_worker else before.descriptors.get(pid, {kind: 0 for kind in KEPT})
        for kind, kept in KEPT.items():
            if counts[kind] > was[kind] + (kept if is_worker else 0):
                found.append(f"{after.names[pid]} {pid}: {counts[kind]} {kind}, {was[kind]} at the start")
    return found


def judge_resources(verdict, run):
    for who, series in run.anon_kib.items():
        first, last = growth(series)
        verdict.check(last - first <= GROWTH_KIB, f"memory of the {who} does not grow",
                      f"{first} KiB in the first third, {last} KiB in the last (median of RssAnon; at most "
                      f"{GROWTH_KIB} KiB more)")
    first, last = growth(run.elder_pipes)
    verdict.check(last - first <= GROWTH_PIPES, "pipes of the elder worker do not grow",
                  f"{first} ends in the first third, {last} in the last (median; at most {GROWTH_PIPES} more)")
    left = left_over(run.before, run.after)
    verdict.check(not left, "no descriptor is left when all connections have ended",
                  "; ".join(left) or f"{run.before.all_descriptors()} at the start, {run.after.all_descriptors()} now; "
                  f"a worker may keep {KEPT['socket']} socket and {KEPT['pipe']} ends of pipes")
    verdict.check(run.quiet_cpu_s <= 0.1, "no CPU while nothing happens", f"{run.quiet_cpu_s:.2f} s in 1 s")
    verdict.check(run.exit_status == 0 and not run.left, "TERM ends it with status 0 and no process is left",
                  f"status {run.exit_status} after {run.stop_s:.1f} s, left: {run.left or 'none'}")
    verdict.check(not run.reports, "no sanitizer report", ", ".join(run.reports) or "none")


def judge(run):
    verdict = Verdict()
    conns, outcomes = judge_connections(verdict, run)
    judge_resources(verdict, run)
    return verdict, conns, outcomes
