"""Who suffers from whom: a light client, 400 requests a second over 4 connections, beside neighbours that hog."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from tests.live.peers import find

from benchmarks.client import get, open_loop, run_precisely, without_collector
from benchmarks.latency import percentile
from benchmarks.peers import MIB, PLAIN, SERVICE, Peers
from benchmarks.trial import OURS, Contenders, Effort, Limit, Row, Trial

POST = Path(__file__).with_name("post.lua")
RATE, CONNECTIONS = 400, 4
LONGER = 1.0  # seconds that a neighbour runs beyond what is measured
P50, P99 = 10.0, 50.0  # ms
TINY = 100_000  # bytes of a body whose chunks hold one byte each

Neighbour = Callable[[int, str, float], Sequence[str]]  # port, prefix of the path, seconds -> command


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """All rows about neighbours."""
    if "HAProxy" not in peers.proxies:
        return []
    return [
        _trial(peers, effort, "8 downloads of 100 MiB", partial(_wrk, 8, "/100m")),
        _trial(peers, effort, "500 uploads of 1 MiB", partial(_uploads, 500, "length", MIB)),
        _trial(peers, effort, "2 uploads in chunks of 1 byte", partial(_uploads, 2, "1", TINY)),
        _trial(peers, effort, "20 WebSocket floods", _floods),
    ]


def _trial(peers: Peers, effort: Effort, name: str, neighbour: Neighbour) -> Trial:
    rows = (
        Row(f"beside {name}, p50", "ms", Limit(P50)),
        Row(f"beside {name}, p99", "ms", Limit(P99)),
        Row(f"{name}: requests or messages meanwhile", "/s"),
    )
    ways: Mapping[str, tuple[int, str]] = {
        OURS: (peers.product.http, f"/exapps/{PLAIN}"),
        "HAProxy": (peers.proxies["HAProxy"], ""),
    }

    def measure(port: int, prefix: str) -> tuple[float, float, float]:
        with without_collector(), _Running(neighbour(port, prefix, effort.seconds + LONGER)) as running:
            light = open_loop(
                port,
                get(f"{prefix}/1k"),
                rate=RATE,
                seconds=effort.seconds,
                count=CONNECTIONS,
                connected=running.start,
            )
            took = run_precisely(light)
        return median(took) * 1000, percentile(took, 99) * 1000, running.rate

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        yield {contender: partial(measure, *way) for contender, way in ways.items()}

    return Trial(rows, prepare, effort.rounds)


class _Running:
    """A neighbour, from `start` until it ends by itself. `rate`: what it has done in a second."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = argv
        self._process: subprocess.Popen[str] | None = None
        self.rate = 0.0

    def __enter__(self) -> _Running:
        return self

    def start(self) -> None:
        """Begin. The light client comes first on a busy machine: it is a measure, not a contender."""
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 5)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            output = self._process.communicate(timeout=120)[0]
            found = re.search(r"(?:Requests/sec|messages/s): +([\d.]+)", output)
            self.rate = float(found[1]) if found is not None else 0.0


def _wrk(connections: int, path: str, port: int, prefix: str, seconds: float, *script: object) -> Sequence[str]:
    program = find("wrk")
    assert program is not None
    argv = [program, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s"]
    if script:
        argv += ["-s", str(script[0])]
    return [*argv, f"http://127.0.0.1:{port}{prefix}{path}", *(str(argument) for argument in script[1:])]


def _uploads(connections: int, form: str, size: int, port: int, prefix: str, seconds: float) -> Sequence[str]:
    return _wrk(connections, "/post", port, prefix, seconds, POST, f"{prefix}/post", form, size)


def _floods(port: int, prefix: str, seconds: float) -> Sequence[str]:
    path = f"/exapps/{SERVICE}/raw" if prefix else "/raw"
    return (sys.executable, "-m", "benchmarks.flood", str(port), path, f"{seconds:g}")
