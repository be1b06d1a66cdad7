"""What makes the load, and what it measured."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Sequence

from tests.live.peers import find

MIB = 1 << 20
UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}  # as wrk counts


def _run(program: str, *arguments: str) -> str:
    found = find(program)
    assert found is not None
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=True).stdout


def _wrk(
    port: int, target: str, connections: int, seconds: int, headers: Sequence[str] = (), script: Sequence[object] = ()
) -> str:
    arguments = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
    for header in headers:
        arguments += ["-H", header]
    if script:
        arguments += ["-s", str(script[0])]
    output = _run("wrk", *arguments, f"http://127.0.0.1:{port}{target}", *map(str, script[1:]))
    if "Non-2xx" in output:
        raise RuntimeError(f"{target} at port {port} did not answer 200: {output}")
    return output


def requests_per_second(
    port: int,
    target: str,
    *,
    seconds: int,
    connections: int = 64,
    headers: Sequence[str] = (),
    script: Sequence[object] = (),
) -> float:
    """Keep-alive GETs by wrk, one thread. `script`: a Lua script that makes the requests, and its arguments."""
    found = re.search(r"Requests/sec:\s+([\d.]+)", _wrk(port, target, connections, seconds, headers, script))
    assert found is not None
    return float(found[1])


def requests_by_h2load(port: int, target: str, *, seconds: int, connections: int = 64) -> float:
    """The same by h2load, one thread, as HTTP/1.1."""
    options = ["--h1", "-t1", f"-c{connections}", f"-D{seconds}"]
    output = _run("h2load", *options, f"http://127.0.0.1:{port}{target}")
    found = re.search(r"finished in [\d.]+s, ([\d.]+) req/s", output)
    if found is None or not re.search(r"[1-9]\d* 2xx, 0 3xx, 0 4xx, 0 5xx", output):
        raise RuntimeError(f"{target} at port {port} did not answer 200: {output}")
    return float(found[1])


def download_by_wrk(port: int, target: str, *, seconds: int, connections: int = 4) -> float:
    """MiB/s of a body that is fetched again and again over a few connections."""
    found = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?B)", _wrk(port, target, connections, seconds))
    assert found is not None
    return float(found[1]) * UNITS[found[2]] / MIB


def download_once(port: int, target: str, size: int) -> float:
    """MiB/s of one download of `size` bytes."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        buffer = bytearray(MIB)
        received = 0
        while count := connection.recv_into(buffer):
            received += count
    if received < size:
        raise RuntimeError(f"{target} at port {port}: {received} of {size} bytes: {bytes(buffer[:200])!r}")
    return size / MIB / (time.perf_counter() - began)


def upload_once(port: int, target: str, size: int) -> float:
    """MiB/s of one upload of `size` zero bytes, whole MiB, until the answer has come."""
    chunk = bytes(MIB)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = f"POST {target} HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(size // MIB):
            connection.sendall(chunk)
        answer = b""
        while f"{size}".encode() not in answer and (received := connection.recv(65536)):
            answer += received
    if f"{size}".encode() not in answer:
        raise RuntimeError(f"{target} at port {port}: {answer[:300]!r}")
    return size / MIB / (time.perf_counter() - began)
