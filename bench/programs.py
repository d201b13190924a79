"""The programs of a benchmark: where they run, as which user, on which processors; the forwarders' command lines.

Root is exempt from the quota of pipes (/proc/sys/fs/pipe-user-pages-soft), so a benchmark as root would
measure what no service has. Started as root, everything runs as `nobody`, from copies in a fresh directory,
since the build directory may be closed to that user.

The forwarder has the first processor, origin and load have the others, so that what the load does to caches
and to the scheduler is the same for each forwarder. A forwarder with two workers is not pinned: it may use
all processors, those of origin and load too. With one processor nothing is pinned.

Every forwarder runs with its defaults, except for limits that would stop the load, and what its name says.
"""
import ctypes
import errno
import os
import pwd
import random
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

START_S = 10
STOP_S = 3
FOLDER = "WORK"  # stands for the directory of a run, in configurations that are recorded
NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
MAX_PIPES = 1000
SERVICES = ("http", "echo", "sink", "source")
libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A run that cannot count, with the reason."""


def which(name):
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Process:
    """A started program in a process group of its own; nothing of the group outlives stop()."""

    def __init__(self, popen, name, log):
        self.popen, self.name, self.log, self.pid = popen, name, log, popen.pid

    def alive(self):
        # Not reaped: until stop() no other process can get this number.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        return ended is None

    def wait_for_end(self, seconds):
        handle = os.pidfd_open(self.pid)
        try:
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            return bool(poller.poll(max(0, seconds) * 1000))
        finally:
            os.close(handle)

    def stop(self, first=signal.SIGTERM):
        """The exit status; 0 or -SIGTERM is what a forwarder that was told to stop has."""
        if self.popen.returncode is not None:
            return self.popen.returncode
        if self.alive():
            os.kill(self.pid, first)
            self.wait_for_end(STOP_S)
        os.killpg(self.pid, signal.SIGKILL)  # workers and children that remain; itself if it hangs
        return self.popen.wait()

    def last_words(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                file.seek(max(0, os.path.getsize(self.log) - 400))
                return " | ".join(file.read().splitlines()[-3:])
        except OSError:
            return ""


class Stage:
    """The directory, user, processors and ports that all runs share. A context manager: cleans up."""

    def __init__(self, build, sluice):
        self.build, self.sluice = build, sluice
        self.folder, self.processes, self.ports = "", [], {}
        self._next_port = random.randrange(15000, 20000)
        self.user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.descriptors = hard
        self.processors = sorted(os.sched_getaffinity(0))

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="sluice-bench-")
        try:
            os.chmod(self.folder, 0o755)
            if self.user:
                os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
            for name in ("sluice", "bare", "origin", "load"):
                path = self.sluice if name == "sluice" else f"{self.build}/bench/{name}"
                if os.path.exists(path):
                    shutil.copy(path, os.path.join(self.folder, name))
                    os.chmod(os.path.join(self.folder, name), 0o755)  # whatever the umask was
            if len(self.processors) > 1:
                os.sched_setaffinity(0, self.load_processors())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.stop()
        os.sched_setaffinity(0, self.processors)
        kept = f"{self.build}/bench/work"
        shutil.rmtree(kept, ignore_errors=True)
        for name in ("sluice", "bare", "origin", "load"):
            try:
                os.unlink(os.path.join(self.folder, name))
            except OSError:
                pass
        try:
            shutil.copytree(self.folder, kept)  # configurations and logs, to look at
        except (OSError, shutil.Error):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def forwarder_processors(self):
        return self.processors[:1]

    def load_processors(self):
        return self.processors[1:] or self.processors

    def free_port(self):
        """Counts up: a port that was used has connections in TIME_WAIT."""
        for _ in range(10000):
            self._next_port = 15000 + (self._next_port - 14999) % 15000
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", self._next_port))
                    return self._next_port
                except OSError as error:
                    if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                        raise
        raise Failed("no free port between 15000 and 30000 on 127.0.0.1")

    def start(self, name, argv, processors=None, **pipes):
        log = self.path(f"{name}.log")
        processors = processors or self.load_processors()

        def before_exec():
            libc.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: nothing outlives the benchmark
            if len(self.processors) > 1:
                os.sched_setaffinity(0, processors)

        identity = {}
        if self.user:
            identity = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        pipes.setdefault("stdin", subprocess.DEVNULL)
        with open(log, "wb") as file:
            pipes.setdefault("stdout", file)
            popen = subprocess.Popen(  # pylint: disable=consider-using-with,subprocess-popen-preexec-fn
                argv, stderr=file, cwd=self.folder, start_new_session=True, preexec_fn=before_exec,
                **identity, **pipes)
        process = Process(popen, name, log)
        self.processes.append(process)
        return process

    def stop(self, process, first=signal.SIGTERM):
        if process in self.processes:
            self.processes.remove(process)
        return process.stop(first)

    def stop_all_after(self, count):
        """What a run that failed has left."""
        while len(self.processes) > count:
            self.stop(self.processes[-1])

    def wait_until_accepts(self, process, port):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.alive():
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.003)
        raise Failed(f"{process.name} does not accept on port {port}: {process.last_words()}")

    def start_origin(self, name="origin", services=SERVICES):
        """A fresh one for each run: connections in TIME_WAIT to its ports would cost the next forwarder.

        connect() has to search when most local ports have such a connection to the same target, and a new
        connection that meets an old one may wait a second for its SYN to be sent again.
        """
        self.ports.update((service, self.free_port()) for service in services)
        counters = self.path(f"{name}.counters")
        argv = [self.path("origin"), "--counters", counters, "--workers", str(self.origin_workers())]
        if "http" not in services:
            argv += ["--listen", f"127.0.0.1:{self.free_port()}"]  # it always has HTTP
        for service in services:
            argv += [f"--{'listen' if service == 'http' else service}",
                     f"127.0.0.1:{self.ports[service]}"]
        if not os.path.exists(argv[0]):
            raise Failed(f"{self.build}/bench/origin is missing: run make")
        if os.path.exists(counters):
            os.unlink(counters)
        origin = self.start(name, argv)
        for service in services:
            self.wait_until_accepts(origin, self.ports[service])
        deadline = time.monotonic() + START_S
        while not os.path.exists(counters) or \
                os.path.getsize(counters) < 64 * self.origin_workers():
            if time.monotonic() > deadline:
                raise Failed(f"{name} made no counters: {origin.last_words()}")
            time.sleep(0.003)
        return origin

    def origin_workers(self):
        return max(1, min(4, len(self.load_processors()) - 1))

    def start_iperf3(self):
        """Runs until the end: one server serves all runs, one after the other."""
        if "iperf3" not in self.ports:
            port = self.free_port()
            process = self.start("iperf3-server", [which("iperf3"), "-s", "-p", str(port)])
            self.wait_until_accepts(process, port)
            self.ports["iperf3"] = port


def haproxy_text(links, workers, descriptors, variant):
    # Each connection has two sockets; pipes and a few others come on top, and haproxy refuses to start
    # with less than its limits ask for.
    maxconn = min(20000, (descriptors - 200 - 2 * MAX_PIPES) // 2)
    text = f"global\n    nbthread {workers}\n    maxconn {maxconn}\n"
    if variant == "log":
        text += "    log stderr format raw daemon\n"
    if variant == "splice":
        text += f"    tune.pipesize 1048576\n    maxpipes {MAX_PIPES}\n"
    text += (f"defaults\n    mode tcp\n    maxconn {maxconn}\n    backlog 4096\n    timeout connect 5s\n"
             "    timeout client 1h\n    timeout server 1h\n")
    if variant == "log":
        text += "    log global\n    option tcplog\n"
    if variant == "splice":
        # splice-auto would leave the choice to haproxy, and 2.6 then copied everything, bulk too.
        text += "    option splice-request\n    option splice-response\n"
    for number, (listen, target) in enumerate(links):
        text += (f"listen link{number}\n    bind 127.0.0.1:{listen}\n"
                 f"    server origin 127.0.0.1:{target}\n")
    return text


def nginx_text(links, workers, folder, variant):
    text = f"load_module {NGINX_STREAM};\n" if os.path.exists(NGINX_STREAM) else ""
    text += (f"daemon off;\nworker_processes {workers};\npid {folder}/nginx.pid;\n"
             f"error_log {folder}/nginx-error.log;\nevents {{\n    worker_connections 40000;\n}}\n"
             "stream {\n    proxy_connect_timeout 5s;\n    proxy_timeout 1h;\n")
    if variant != "16k":  # its default
        text += "    proxy_buffer_size 64k;\n"
    if variant == "log":
        text += ("    log_format ends '$time_iso8601 $remote_addr:$remote_port $upstream_addr $status '\n"
                 "                    '$bytes_received $bytes_sent $session_time $upstream_connect_time';\n"
                 f"    access_log {folder}/nginx-access.log ends;\n")
    for listen, target in links:
        text += (f"    server {{\n        listen 127.0.0.1:{listen} backlog=4096;\n"
                 f"        proxy_pass 127.0.0.1:{target};\n    }}\n")
    return text + "}\n"


def describe(name, links, workers, descriptors, folder=FOLDER):
    """The command line of a forwarder, its program not resolved, and the text of its configuration."""
    program, _, variant = name.partition("-")
    if program == "bare":
        (listen, target), = links
        return ["bare", f"127.0.0.1:{listen}", f"127.0.0.1:{target}"], ""
    if program == "sluice":
        argv = ["sluice"] + [f"127.0.0.1:{a}=127.0.0.1:{b}" for a, b in links]
        argv += ["--workers", str(workers)] + (["--log", "none"] if variant == "quiet" else [])
        return argv, ""
    if program == "socat":
        (listen, target), = links
        return ["socat", f"TCP-LISTEN:{listen},bind=127.0.0.1,fork,reuseaddr,backlog=128",
                f"TCP:127.0.0.1:{target}"], ""
    path = f"{folder}/{name}.conf"
    if program == "haproxy":
        text = haproxy_text(links, workers, descriptors, variant)
        quiet = [] if variant == "log" else ["-q"]  # which also closes its stderr
        return ["haproxy", "-db", *quiet, "-f", path], text
    text = nginx_text(links, workers, folder, variant)
    return ["nginx", "-e", f"{folder}/nginx-error.log", "-p", folder, "-c", path], text


def resolve(stage, name):
    """The path of a forwarder's program, None when it is not installed."""
    program = name.partition("-")[0]
    if program in ("sluice", "bare"):
        return stage.path(program) if os.path.exists(stage.path(program)) else None
    if program == "nginx" and not os.path.exists(NGINX_STREAM):
        # Built in, perhaps.
        path = which("nginx")
        text = subprocess.run([path, "-V"], capture_output=True, text=True, check=False).stderr if path else ""
        return path if re.search(r"--with-stream(\s|$)", text) else None
    return which(program)


def start_forwarder(stage, name, links, workers, processors):
    argv, text = describe(name, links, workers, stage.descriptors, stage.folder)
    argv[0] = resolve(stage, name)
    if text:
        with open(stage.path(f"{name}.conf"), "w", encoding="ascii") as file:
            file.write(text)
    process = stage.start(name, argv, processors)
    try:
        for listen, _ in links:
            stage.wait_until_accepts(process, listen)
    except Failed:
        stage.stop(process)
        raise
    return process


def version(path, program):
    flag = {"sluice": "-V", "socat": "-V", "strace": "-V", "iperf3": "--version",
            "gnuplot": "--version"}.get(program, "-v")
    result = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)*[\w.+-]*", result.stdout + result.stderr)
    return found.group() if found else "unknown"
