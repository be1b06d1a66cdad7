"""What we add to the time of an answer, of an event's first byte, and of a WebSocket's echo."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from statistics import median, quantiles

import uvloop

from benchmarks.client import connect_websockets, get, open_loop, paced, run_precisely, without_collector
from benchmarks.peers import PLAIN, SERVICE, TUNNELED_SERVICE, Peers
from benchmarks.throughput import CHAIN
from benchmarks.trial import EXAPP, OURS, Effort, Limit, Row, Trial, single

RATE = 1000  # requests a second
EVENTS = 200  # streams, one after the other
WEBSOCKETS = 1000
ECHOES = 500  # a second, over all WebSockets

_STAMP = re.compile(rb"data: (\d+)\n\n")


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """All rows about time."""
    return [_requests(peers, effort), *_events(peers, effort), _websockets(peers, effort)]


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile of at least two values."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _ways(peers: Peers, exapp: int, app: str, path: str) -> Mapping[str, tuple[int, str]]:
    """Contender -> port and target: the ExApp itself, ours, HAProxy."""
    ways = {EXAPP: (exapp, path), OURS: (peers.product.http, f"/exapps/{app}{path}")}
    if "HAProxy" in peers.proxies:
        ways["HAProxy"] = (peers.proxies["HAProxy"], path)
    return ways


# Requests at a fixed rate


def _requests(peers: Peers, effort: Effort) -> Trial:
    rows = (
        Row(f"latency at {RATE:,} requests/s, p50", "ms", Limit(0.3, over=EXAPP)),
        Row(f"latency at {RATE:,} requests/s, p99", "ms", Limit(2.0, over=EXAPP)),
    )

    ways = _ways(peers, peers.upstream, PLAIN, "/1k")
    contenders = {name: partial(_latencies, *way, effort.seconds) for name, way in ways.items()}
    return Trial(rows, lambda: nullcontext(contenders), effort.rounds)


def _latencies(port: int, target: str, seconds: float) -> tuple[float, float]:
    """p50 and p99 in ms, after a moment of warming up."""
    request = get(target)
    run_precisely(open_loop(port, request, rate=RATE, seconds=0.3))
    with without_collector():
        took = run_precisely(open_loop(port, request, rate=RATE, seconds=seconds))
    return median(took) * 1000, percentile(took, 99) * 1000


# Server-sent events


def _events(peers: Peers, effort: Effort) -> list[Trial]:
    def trial(name: str, ways: Mapping[str, tuple[int, str]]) -> Trial:
        contenders = {contender: partial(_first_event, *way) for contender, way in ways.items()}
        return single(Row(name, "ms", Limit(1.0)), effort.rounds, contenders)

    direct = trial("first SSE byte behind the ExApp's, median", _ways(peers, peers.service, SERVICE, "/events"))
    if not peers.chain:
        return [direct]
    ways = {OURS: (peers.product.http, f"/exapps/{TUNNELED_SERVICE}/events"), CHAIN: (peers.chain, "/events")}
    return [direct, trial("first SSE byte through the tunnel, median", ways)]


def _first_event(port: int, target: str) -> float:
    """Median of the ms from the ExApp's sending of the first bytes of a stream to their arrival here."""

    async def delay() -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(get(target))
            data = b""
            while not (found := _STAMP.search(data)):
                chunk = await reader.read(65536)
                now = time.monotonic_ns()
                if not chunk:
                    raise RuntimeError(f"no event at port {port}: {data[:200]!r}")
                data += chunk
            return (now - int(found[1])) / 1e6
        finally:
            writer.transport.abort()

    async def delays() -> list[float]:
        return [await delay() for _ in range(EVENTS)]

    return median(uvloop.run(delays()))


# WebSockets


def _websockets(peers: Peers, effort: Effort) -> Trial:
    ways = _ways(peers, peers.service, SERVICE, "/echo")
    row = Row(f"echo while {WEBSOCKETS:,} WebSockets are open, p99", "ms", Limit(5.0))
    return single(row, effort.rounds, {name: partial(_echo, *way, effort.seconds) for name, way in ways.items()})


def _echo(port: int, target: str, seconds: float) -> float:
    """p99 in ms of short messages on one WebSocket after the other."""

    async def echoes() -> list[float]:
        sockets = await connect_websockets(port, target, WEBSOCKETS)
        pending: list[asyncio.Future[float]] = []
        async for _ in paced(ECHOES, int(ECHOES * seconds)):
            pending.append(sockets[len(pending) % WEBSOCKETS].echo(b"are you still there?"))
        async with asyncio.timeout(30):
            took = await asyncio.gather(*pending)
        for socket in sockets:
            socket.close()
        return took

    with without_collector():
        return percentile(uvloop.run(echoes()), 99) * 1000
