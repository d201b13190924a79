#!/usr/bin/env python3
"""What forwarders do with a half-closed connection, tried on the programs that are installed.

A client sends "request" and FIN, as `printf request | nc` does; the server answers after a pause. Then the
mirror image: the server greets, sends FIN, and the client uploads afterwards. Each program runs with its
default configuration for forwarding one port.

    python3 bench/half_close.py          (needs build/sluice; haproxy, nginx and socat are optional)
"""
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

PAUSE_S = 1.0  # the server's thinking time: longer than the short cut-offs some forwarders have


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def read_to_end(connection):
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except OSError:
        return data + b" (reset)"
    return data


def command(name, listen, origin, folder):
    path = os.path.join(folder, name + ".conf")
    if name == "sluice":
        return ["build/sluice", f"127.0.0.1:{listen}=127.0.0.1:{origin}", "--log", "none"]
    if name == "socat":
        return ["socat", f"TCP-LISTEN:{listen},bind=127.0.0.1,fork,reuseaddr", f"TCP:127.0.0.1:{origin}"]
    if name == "haproxy":
        text = (f"defaults\n mode tcp\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n"
                f"listen l\n bind 127.0.0.1:{listen}\n server s 127.0.0.1:{origin}\n")
        arguments = ["haproxy", "-db", "-q", "-f", path]
    else:
        modules = "/usr/lib/nginx/modules/ngx_stream_module.so"
        load = f"load_module {modules};\n" if os.path.exists(modules) else ""
        text = (f"{load}daemon off;\npid {folder}/nginx.pid;\nerror_log /dev/null;\nevents {{}}\n"
                f"stream {{ server {{ listen 127.0.0.1:{listen}; proxy_pass 127.0.0.1:{origin}; }} }}\n")
        arguments = ["nginx", "-c", path, "-p", folder]
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    return arguments


def connect(port):
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def client_ends_first(listen, server):
    answer = b"answer" * 1000

    def serve():
        connection, _ = server.accept()
        with connection:
            read_to_end(connection)
            time.sleep(PAUSE_S)
            try:
                connection.sendall(answer)
            except OSError:
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    with connect(listen) as client:
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        got = read_to_end(client)
    thread.join()
    return got == answer


def server_ends_first(listen, server):
    upload = b"upload" * 1000
    got = []

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hello")
            connection.shutdown(socket.SHUT_WR)
            got.append(read_to_end(connection))

    thread = threading.Thread(target=serve)
    thread.start()
    with connect(listen) as client:
        read_to_end(client)
        time.sleep(PAUSE_S)
        try:
            client.sendall(upload)
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        thread.join()
    return got == [upload]


def version(name):
    flag = {"sluice": "-V", "haproxy": "-v", "nginx": "-v", "socat": "-V"}[name]
    path = "build/sluice" if name == "sluice" else name
    result = subprocess.run([path, flag], capture_output=True, text=True, check=False)
    lines = (result.stdout + result.stderr).splitlines()
    line = lines[1] if name == "socat" else lines[0]
    return next(word for word in line.replace("/", " ").split() if word[0].isdigit())


def try_program(name, folder):
    listen, origin = free_port(), free_port()
    with socket.create_server(("127.0.0.1", origin)) as server:
        server.settimeout(10)
        process = subprocess.Popen(command(name, listen, origin, folder),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(listen):  # wait until it is there; the forwarder may connect on, too
                pass
            time.sleep(0.2)
            server.setblocking(False)
            try:
                while True:
                    server.accept()[0].close()
            except OSError:
                pass
            server.settimeout(10)
            return [test(listen, server) for test in (client_ends_first, server_ends_first)]
        finally:
            process.terminate()
            process.wait()


def main():
    print("| forwarder | answer after the client's FIN | upload after the server's FIN |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sluice", "haproxy", "nginx", "socat"):
            if name != "sluice" and shutil.which(name) is None:
                print(f"{name} is not installed: left out", file=sys.stderr)
                continue
            words = ["delivered" if whole else "lost" for whole in try_program(name, folder)]
            print(f"| {name} {version(name)} | {words[0]} | {words[1]} |")


if __name__ == "__main__":
    main()
