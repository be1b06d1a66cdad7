"""Who suffers from whom: a light client, 400 requests a second over 4 connections, beside neighbours that hog.

Its ExApp is one of its own: a neighbour's is busy with what the neighbour sends, which is not the proxy's doing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tests.live.peers import find

from benchmarks.client import get, open_loop, run_precisely, trusting, without_collector
from benchmarks.latency import percentile
from benchmarks.peers import LIGHT, MIB, PLAIN, SERVICE, TUNNELED, WIDE, Peers
from benchmarks.trial import OURS, Contenders, Effort, Limit, Row, Trial

POST = Path(__file__).with_name("post.lua")
PIPELINE = Path(__file__).with_name("pipeline.lua")
RATE, CONNECTIONS = 400, 4
LONGER = 1.0  # seconds that a neighbour runs beyond what is measured
P50, P99 = 10.0, 50.0  # ms
TINY = 100_000  # bytes of a body whose chunks hold one byte each

NICE = 5  # of neighbours: the light client comes first on a busy machine, it is a measure and not a contender


@dataclass(frozen=True, slots=True)
class Way:
    """How a contender is reached by a neighbour and by the light client."""

    port: int
    prefix: str
    light: str  # path of the light client
    tls: bool = False

    def url(self, path: str) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{self.prefix}{path}"


Ways = Mapping[str, Way]
Neighbour = Callable[[Way, float], Sequence[str]]  # seconds -> command


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """All rows about neighbours."""
    if "HAProxy" not in peers.proxies:
        return []
    ours, other = peers.product, peers.proxies["HAProxy"]
    light = f"/exapps/{LIGHT}/1k"
    plain = {OURS: Way(ours.http, f"/exapps/{PLAIN}", light), "HAProxy": Way(other, "", "/light/1k")}
    service = {OURS: Way(ours.http, f"/exapps/{SERVICE}", light), "HAProxy": Way(other, "", "/light/1k")}
    tls = {
        OURS: Way(ours.https, f"/exapps/{PLAIN}", light, tls=True),
        "HAProxy": Way(peers.secure["HAProxy"], "", "/light/1k", tls=True),
    }
    wide = {OURS: Way(ours.http, f"/exapps/{WIDE}", light)}
    rows: list[tuple[str, Ways, Neighbour]] = [
        ("8 downloads of 100 MiB", plain, partial(_wrk, 8, "/100m")),
        ("500 uploads of 1 MiB", plain, partial(_uploads, 500, "length", MIB)),
        ("2 uploads in chunks of 1 byte", plain, partial(_uploads, 2, "1", TINY)),
        ("2 downloads in chunks of 1 byte", service, partial(_wrk, 2, "/tiny")),
        ("20 WebSocket floods", service, _floods),
        ("8 clients that send 32 requests ahead", plain, _pipelines),
        ("20 new records with 999 routes a second", wide, _records),
        ("8 downloads of 100 MiB over TLS", tls, partial(_wrk, 8, "/100m")),
        ("500 uploads of 1 MiB over TLS", tls, partial(_uploads, 500, "length", MIB)),
        ("20 clients that do nothing but TLS handshakes", tls, _handshakes),
    ]
    if peers.chain:
        tunnels = {
            OURS: Way(ours.http, f"/exapps/{TUNNELED}", light),
            "HAProxy": Way(peers.chain, "", "/light/1k"),
        }
        rows.append(("4 downloads through a tunnel", tunnels, partial(_wrk, 4, "/100m")))
    return [_trial(effort, *row) for row in rows]


def _trial(effort: Effort, name: str, ways: Ways, neighbour: Neighbour) -> Trial:
    rows = (
        Row(f"beside {name}, p50", "ms", Limit(P50)),
        Row(f"beside {name}, p99", "ms", Limit(P99)),
        Row(f"{name}: requests or messages meanwhile", "/s"),
    )

    def measure(way: Way) -> tuple[float, float, float]:
        with without_collector(), _Running(neighbour(way, effort.seconds + LONGER)) as running:
            light = open_loop(
                way.port,
                get(way.light),
                rate=RATE,
                seconds=effort.seconds,
                count=CONNECTIONS,
                connected=running.start,
                tls=trusting() if way.tls else None,
            )
            took = run_precisely(light)
        return median(took) * 1000, percentile(took, 99) * 1000, running.rate

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        yield {contender: partial(measure, way) for contender, way in ways.items()}

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
        self._process = subprocess.Popen(self._argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        os.setpriority(os.PRIO_PROCESS, self._process.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            output = self._process.communicate(timeout=120)[0]
            found = re.search(r"(?:Requests/sec|messages/s): +([\d.]+)", output)
            self.rate = float(found[1]) if found is not None else 0.0


def _wrk(connections: int, path: str, way: Way, seconds: float, *options: str, script: Sequence[str] = ()) -> list[str]:
    program = find("wrk")
    assert program is not None
    argv = [program, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", *options]
    return [*argv, way.url(path), *script]


def _uploads(connections: int, form: str, size: int, way: Way, seconds: float) -> list[str]:
    script = (f"{way.prefix}/post", form, str(size))
    return _wrk(connections, "/post", way, seconds, "-s", str(POST), script=script)


def _pipelines(way: Way, seconds: float) -> list[str]:
    return _wrk(8, "/1k", way, seconds, "-s", str(PIPELINE), script=(f"{way.prefix}/1k", "32"))


def _handshakes(way: Way, seconds: float) -> list[str]:
    return _wrk(20, "/1k", way, seconds, "-H", "Connection: close")


def _floods(way: Way, seconds: float) -> list[str]:
    return [sys.executable, "-m", "benchmarks.flood", str(way.port), f"{way.prefix}/raw", f"{seconds:g}"]


def _records(way: Way, seconds: float) -> list[str]:
    return [sys.executable, "-m", "benchmarks.records", str(way.port), way.prefix, f"{seconds:g}"]
