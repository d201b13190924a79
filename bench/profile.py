#!/usr/bin/env python3
"""Where the CPU time of sluice goes, by group and by function, with bare beside it.

    sudo make bench-profile

For each of some workloads: the forwarder runs under its load, its CPU for one request (connection, GB) is
taken in a window, and then perf takes samples of it with their call chains. A sample belongs to the first
function, from the innermost outwards, that GROUPS knows; so an allocation counts for whoever needed it.
Two things are worth knowing when reading the tables:

  - A send on the loopback device does the receiver's work as well: the packet goes through the receiver's
    TCP, and the receiver is woken, all within the sender's system call ("delivery", "waking").
  - In a virtual machine without a hardware counter, samples are taken by a timer (cpu-clock). It cannot
    look where interrupts are off, so such code counts where they are switched on again: chains still lead
    to the right group mostly, but a single function's number is to be taken with a grain of salt.

Writes bench/results/profile.md and prints it. Needs root, for the kernel's names and as everywhere here so
that what is measured runs as nobody.
"""
import argparse
import collections
import datetime
import os
import re
import subprocess
import sys
import time

import environment
import loads
import measure
import programs
from programs import Failed
from workloads import WORKLOADS

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = ("keepalive-64", "close-64", "response-16k", "bulk-down-4")
FORWARDERS = ("sluice", "bare")
WINDOW_S = 1.5
PERF_S = 2.0
SAMPLES_PER_S = 4000
TOP = 15

OWN = "own code"
OTHER = "other"
# From the most special to the most general; the first pattern that matches a function's whole name counts.
GROUPS = tuple((group, re.compile("|".join(patterns.split()))) for group, patterns in (
    ("copying bytes", r"""
        _?copy_(to|from)_(iter|user).* copy_user.* rep_movs.* .*skb_(copy_)?datagram.* simple_copy_to_iter
        skb_copy_.* .*copy_page.*"""),
    ("waking the other side", r"""
        try_to_wake_up ttwu_.* .*wake_up.* ep_poll_callback ep_autoremove_wake.* autoremove_wake.*
        default_wake.* sock_def_(readable|write_space|error.*) sk_stream_write_space tcp_data_ready
        select_task_rq.* enqueue_task.* activate_task pollwake .*send_IPI.* resched_curr.*"""),
    ("splice and pipes", r"""
        .*splice.* pipe_.* .*_pipe_.* .*pipe_buf.* do_pipe.* linear_to_page add_to_pipe"""),
    ("accept, connect, close", r"""
        .*accept.* .*connect.* .*sys_(close|socket|shutdown|setsockopt).* .*sock_alloc.*
        .*sock_(create|close|release).* inet6?_(create|release|shutdown|bind.*|hash.*|unhash.*)
        inet6?_(csk_.*|twsk_.*) tcp_(close|shutdown|v4_conn_request|conn_request)
        tcp_(check_req|create_openreq.*|v4_syn_recv.*) tcp_(time_wait.*|fin|done|disconnect|rcv_synsent.*)
        tcp_(rcv_state_process|timewait_.*|send_fin) tcp_(v4_destroy_sock|init_sock|child_process)
        tcp_(finish_connect|rtx_synack|v4_send_synack) tcp_make_synack __tcp_close __inet_.*hash.*
        __inet_bhash.* sk_(alloc|clone.*|free|common_release|destruct) __sk_(free|destruct)
        alloc_(empty_)?file.* __?fput.* fput.* file_close.* filp_.* evict iput.* .*dentry.* dput d_alloc.*
        new_inode.* alloc_inode alloc_fd __sys_socket.* do_sock_setsockopt eventpoll_release.*
        security_sk_.* task_work_run"""),
    ("TCP, delivery to the other side", r"""
        tcp_v4_(rcv|do_rcv|early_demux|inbound.*|fill_cb) tcp_rcv_established tcp_ack.* tcp_clean_rtx.*
        tcp_data_queue.* tcp_queue_rcv tcp_try_coalesce tcp_event_data_recv tcp_validate_.* tcp_urg
        __inet_lookup.* .*netif_receive.* process_backlog __napi_poll net_rx_action
        ip_(rcv|local_deliver|protocol|sublist).* ip_list_.* enqueue_to_backlog netif_rx.* loopback_xmit
        tcp_check_space tcp_rate_.* bictcp_.* cubictcp.*
        tcp_(grow_window|rcv_rtt.*|update_.*|rack.*|mstamp.*)
        tcp_(newly_delivered|in_window|store_ts.*|new_space) tcp_filter __release_sock handle_softirqs
        __do_softirq do_softirq.* __local_bh_enable_ip"""),
    ("TCP, sending", r"""
        tcp_(send|push|write|stream|tso|transmit|established).*
        tcp_(skb|event_new|wmem|chrono|current_mss|small_queue).*
        tcp_(schedule_loss|rearm|options|nagle|cwnd|init_tso).* tcp_(trim|remove_empty|tx_timestamp|bound).*
        __tcp_(transmit|push|select|send_ack).* ip_(queue_xmit|output|finish|local_out|send|copy).*
        __ip_(queue_xmit|local_out|finish).* ipv4_dst_check .*dev_(queue_xmit|hard_start).* validate_xmit.*
        neigh_.* dst_.* sk_(stream_|page_frag|setup_caps|wait|reset_timer).* .*sendmsg.* __sys_sendto
        .*sys_sendto inet_send.* skb_page_frag.* .*eth_.* netif_skb.* __sk_dst_.* mod_timer"""),
    ("TCP, receiving", r"""
        tcp_(recv|rcv_space|cleanup|eat|read|splice|peek|inq).* tcp_update_recv.* __tcp_(cleanup|read).*
        .*recvmsg.* .*sys_recvfrom inet_recv.* skb_(release|free|attempt|unref).* __kfree_skb
        sk_skb_reason.* napi_.* lock_sock.* release_sock sock_rfree sk_forced_mem.*"""),
    ("epoll", r"""
        _*ep_.* .*epoll.* eventpoll.* tcp_poll sock_poll .*_poll_wait init_wait.* .*sys_epoll.*
        hrtimer_.*(range|sleep).* poll_select.* tcp_stream_is_readable"""),
    ("sleeping and scheduling", r"""
        schedule.* __schedule pick_.* .*finish_task_switch.* .*dequeue_.* prepare_task.* __switch_to.*
        context_switch balance_.* .*update_curr.* psi_.* .*switch_mm.* put_prev.* set_next.* do_sched_yield
        sched_.*"""),
    ("interrupts and timers", r"""
        .*hrtimer.* .*sysvec.* .*apic_timer.* .*irq_exit.* tick_.* update_process_times run_timer.* rcu_.*
        .*call_timer.*"""),
    ("system call in and out", r"""
        entry_SYSCALL.* do_syscall.* x64_sys_call syscall_.* .*exit_to_user.* srso_.* sockfd_lookup.*
        fdget.* __fget.* fget.* __x64_sys_.* __sys_.* ksys_.* security_.* apparmor.* aa_.* move_addr.*
        entry_.* .*clear_bhb.* sock_(sendmsg|recvmsg).* __fdget.* import_.* __check_object.* _*audit.*"""),
))
ORDER = (OWN, "libc") + tuple(sorted({group for group, _ in GROUPS})) + (OTHER,)
known = {}


def group_of(symbol):
    """The group of a kernel function, None if it says nothing: an allocation, a lock."""
    name = re.sub(r"\.(constprop|isra|part|cold).*|\+0x[0-9a-f]+$", "", symbol)
    if name not in known:
        known[name] = next((group for group, pattern in GROUPS if pattern.fullmatch(name)), None)
    return known[name]


def classify(chain, program):
    """The group of a sample; its chain has (symbol, file) from the innermost outwards."""
    symbol, file = chain[0]
    if file.startswith("["):
        found = (group_of(name) for name, where in chain if where.startswith("[k") or where.startswith("[guest"))
        return next((group for group in found if group), OTHER)
    return OWN if os.path.basename(file) == program else "libc"


class Profile:
    """Samples by group and by function."""

    def __init__(self, text, program):
        self.groups, self.symbols = collections.Counter(), collections.Counter()
        for block in text.split("\n\n"):
            chain = [match.groups() for line in block.splitlines()
                     if (match := re.match(r"\s+[0-9a-f]+ (.+) \((.+)\)$", line))]
            if not chain:
                continue
            group = classify(chain, program)
            self.groups[group] += 1
            self.symbols[(re.sub(r"\+0x[0-9a-f]+$", "", chain[0][0]), group)] += 1
        self.total = sum(self.groups.values())


def check_perf():
    if programs.which("perf") is None:
        raise Failed("perf is not installed: it is in the package linux-perf")
    with open("/proc/kallsyms", encoding="ascii") as file:
        hidden = file.readline().startswith("0000000000000000")
    if os.geteuid() != 0 or hidden:
        raise Failed("the kernel hides the addresses of its functions: run as root, with "
                     "`sysctl kernel.kptr_restrict=0`")


def record(stage, forwarder, program):
    """Samples of the whole process tree; the master of sluice sleeps."""
    pids = ",".join(map(str, measure.tree(forwarder.pid)))
    path = stage.path("perf.data")
    taken = subprocess.run(
        [programs.which("perf"), "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_PER_S), "-g", "-o", path,
         "-p", pids, "--", "sleep", str(PERF_S)], capture_output=True, text=True, check=False)
    if taken.returncode != 0:
        raise Failed(f"perf record failed with status {taken.returncode}: {taken.stderr.strip()[-300:]}")
    text = subprocess.run([programs.which("perf"), "script", "-i", path, "-F", "comm,ip,sym,dso"],
                          capture_output=True, text=True, errors="replace", check=True).stdout
    os.unlink(path)
    profile = Profile(text, program)
    if profile.total < 200:
        raise Failed(f"perf has taken {profile.total} samples of {program}, expected some thousand")
    return profile


def run(stage, counters, workload, name):
    """CPU in microseconds for one unit of the workload, and the profile."""
    link = (stage.free_port(), stage.ports[workload.services[0]])
    forwarder = programs.start_forwarder(stage, name, [link], 1, stage.forwarder_processors())
    try:
        load = loads.start_load(stage, workload, [link[0]], workload.connections,
                                workload.warm_up_s + WINDOW_S + PERF_S + 3)
        time.sleep(workload.warm_up_s)
        before = measure.Snapshot(counters, forwarder)
        time.sleep(WINDOW_S)
        window = measure.Window(before, measure.Snapshot(counters, forwarder))
        profile = record(stage, forwarder, name)
        load.finish()
    finally:
        stage.stop(forwarder)
    return window.cpu_ns / 1e3 / window.units(workload, 0), profile


def amount(microseconds, unit):
    return f"{microseconds / 1000:,.1f}" if unit == "GB" else f"{microseconds:.2f}"


def in_units(unit):
    return f"{'ms' if unit == 'GB' else 'us'} of CPU for one {unit}"


def group_table(workload, results):
    unit = workload.unit
    lines = [f"| {in_units(unit)} | " + " | ".join(
        f"{name} | share" for name in results) + " |", "|---|" + "---:|" * (2 * len(results))]
    rows = []
    for group in ORDER:
        shares = [profile.groups[group] / profile.total for _, profile in results.values()]
        if max(shares) >= 0.001:
            cells = [f"{amount(cpu_us * share, unit)} | {share:.1%}"
                     for (cpu_us, _), share in zip(results.values(), shares)]
            rows.append((group == OTHER, -shares[0], f"| {group} | " + " | ".join(cells) + " |"))
    lines += [row for _, _, row in sorted(rows)]
    whole = [f"**{amount(cpu_us, unit)}** | 100%" for cpu_us, _ in results.values()]
    return "\n".join(lines + ["| **all** | " + " | ".join(whole) + " |"])


def symbol_table(result, unit, only=None):
    cpu_us, profile = result
    found = [(symbol, group, count) for (symbol, group), count in profile.symbols.most_common()
             if only in (None, group)]
    return "\n".join([f"| function | group | {in_units(unit)} | share |", "|---|---|---:|---:|"] + [
        f"| `{symbol}` | {group} | {amount(cpu_us * count / profile.total, unit)} | {count / profile.total:.1%} |"
        for symbol, group, count in found[:TOP]])


def section(workload, results):
    parts = [f"## {workload.title}", group_table(workload, results)]
    for name, result in results.items():
        parts += [f"Most expensive functions, {name}:", symbol_table(result, workload.unit)]
    parts += ["Sluice's own:", symbol_table(results["sluice"], workload.unit, OWN)]
    return "\n\n".join(parts)


def head(where):
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as file:
        congestion = file.read().strip()
    return ("# Where the CPU time goes\n\n"
            f"`make bench-profile` on {datetime.date.today().isoformat()}: Linux {where['kernel']}, "
            f"{where['processor']}, {where['processors']} processors, congestion control {congestion}; one "
            f"worker; source {where['source']}. Timer samples with call chains; how they are grouped, and what to think of "
            "them: bench/profile.py.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help="where make has put the programs (default build)")
    parser.add_argument("--only", action="append", choices=SHAPES, help="these workloads; prints, writes nothing")
    options = parser.parse_args()
    try:
        check_perf()
        with programs.Stage(options.build, os.path.join(options.build, "sluice")) as stage:
            stage.start_origin()
            counters = measure.Counters(stage.path("origin.counters"), stage.origin_workers())
            where = environment.Environment(stage)
            parts = [head(where.facts)]
            for shape in options.only or SHAPES:
                workload = WORKLOADS[shape]
                results = {name: run(stage, counters, workload, name) for name in FORWARDERS}
                parts.append(section(workload, results))
    except (Failed, OSError, ValueError) as error:
        print(f"profile.py: {error}", file=sys.stderr)
        return 2
    text = "\n\n".join(parts) + "\n"
    print(text)
    if not options.only:
        path = os.path.join(HERE, "results", "profile.md")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
