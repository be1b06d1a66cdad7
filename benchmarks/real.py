"""Traffic as it is: many users whose requests and answers all differ, uploads, crowds of connections, WebSockets.

Beside each row of speed stands one with the processor time that a request costs, which noise does not touch as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import uvloop

from benchmarks.flood import flood, ping_pong
from benchmarks.load import requests_per_second
from benchmarks.peers import PLAIN, SERVICE, Peers
from benchmarks.trial import OURS, Contenders, Effort, Ratio, Row, Trial

REAL, POST = (Path(__file__).with_name(f"{name}.lua") for name in ("real", "post"))
REFERENCE = "HAProxy"

Load = Callable[[str, int], float]  # contender and port -> operations a second


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """All rows of realistic load, beside HAProxy; the first ones are the headline."""
    if REFERENCE not in peers.proxies:
        return []
    straight = {OURS: peers.product.http, REFERENCE: peers.proxies[REFERENCE]}
    trial = partial(_trial, peers, effort)
    users = _Users(peers, effort)
    return [
        trial("1,000 sessions, all different, 16 connections", 0.42, straight, partial(users.visit, 16)),
        trial("1,000 sessions, all different, 64 connections", 0.42, straight, partial(users.visit, 64)),
        trial("the same behind nginx, 64 connections", 0.70, peers.fronts, partial(users.visit, 64)),
        trial("the same, a connection for each request", 0.65, straight, partial(users.visit, 64, last="close")),
        trial("POST of 4 KiB", 0.80, straight, partial(_post, effort, "length", 4096)),
        trial("POST of 1 KiB, chunked", 0.70, straight, partial(_post, effort, "1024", 1024)),
        trial("1,000 connections", 0.85, straight, partial(_crowd, effort)),
        trial("WebSocket messages, 20 floods", 0.90, straight, partial(_flood, effort)),
        trial("WebSocket messages, 100 in ping-pong", 0.95, straight, partial(_ping_pong, effort)),
    ]


def _trial(peers: Peers, effort: Effort, name: str, least: float, ports: Mapping[str, int], load: Load) -> Trial:
    rows = (Row(name, "/s", Ratio(least, of=REFERENCE)), Row(f"{name}: processor time of each", "us"))
    processes = {OURS: peers.product.process, REFERENCE: peers.processes["haproxy"]}

    def measure(contender: str) -> tuple[float, float]:
        before = processes[contender].cpu()
        rate = load(contender, ports[contender])
        return rate, (processes[contender].cpu() - before) / (rate * effort.seconds) * 1e6

    @contextmanager
    def prepare() -> Iterator[Contenders]:
        for contender in ports:
            load(contender, ports[contender])  # nobody pays for what is slow only once
        yield {contender: partial(measure, contender) for contender in ports}

    return Trial(rows, prepare, effort.rounds)


class _Users:
    """The visitors of `real.lua`. Each turn has sessions of its own, so nothing of the turn before is of use."""

    def __init__(self, peers: Peers, effort: Effort) -> None:
        self._cookie = peers.cookie
        self._seconds = effort.seconds
        self._seeds = count(1)

    def visit(self, connections: int, contender: str, port: int, last: str = "") -> float:
        script = (REAL, self._cookie, next(self._seeds), last)
        return requests_per_second(port, "/", seconds=self._seconds, connections=connections, script=script)


def _post(effort: Effort, form: str, size: int, contender: str, port: int) -> float:
    script = (POST, f"/exapps/{PLAIN}/post", form, size)
    return requests_per_second(port, "/", seconds=effort.seconds, script=script)


def _crowd(effort: Effort, contender: str, port: int) -> float:
    path = f"/exapps/{PLAIN}/1k" if contender == OURS else "/1k"
    return requests_per_second(port, path, seconds=effort.seconds, connections=1000)


def _flood(effort: Effort, contender: str, port: int) -> float:
    path = f"/exapps/{SERVICE}/raw" if contender == OURS else "/raw"
    return uvloop.run(flood(port, path, seconds=effort.seconds))


def _ping_pong(effort: Effort, contender: str, port: int) -> float:
    path = f"/exapps/{SERVICE}/raw" if contender == OURS else "/raw"
    return uvloop.run(ping_pong(port, path, seconds=effort.seconds))
