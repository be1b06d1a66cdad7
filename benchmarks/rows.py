"""The rows of the table: what is measured, against whom, and what we want."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.load import download_by_wrk, download_once, requests_per_second, upload_once
from benchmarks.peers import FILES, MIB, PLAIN, SWALLOWING, TUNNELED, Peers

OURS = "ours"
Measure = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `contenders`: name -> measurement, "ours" among them.

    `goal` is the ratio ours / `against` to reach, or with `against` "" a figure of ours to stay below.
    `repeats` False: measured once, because it is no load.
    """

    name: str
    unit: str
    contenders: Mapping[str, Measure]
    against: str = ""
    goal: float = 0.0
    repeats: bool = True


@dataclass(frozen=True, slots=True)
class Effort:
    """How long and how big. `big` names the file that goes through the tunnel."""

    rounds: int
    seconds: float
    big: str


QUICK = Effort(rounds=1, seconds=2, big="256m")
FULL = Effort(rounds=3, seconds=6, big="1g")


def rows(peers: Peers, effort: Effort) -> list[Row]:
    """All rows that can be measured with what is there, in the order of the table."""
    idle = peers.product.process.rss() / MIB
    table = [*_direct(peers, effort), *(_tunnel(peers, effort) if peers.haproxy_frps else [])]
    return [
        Row("start with new certificates to the first answer", "s", {OURS: lambda: peers.first_start}, repeats=False),
        *table,
        Row("memory, idle with two tunnels", "MiB", {OURS: lambda: idle}, goal=45, repeats=False),
        Row("memory after all this", "MiB", {OURS: lambda: peers.product.process.rss() / MIB}, goal=80, repeats=False),
        Row("start, certificates present, to the first answer", "s", {OURS: partial(restart, peers)}, goal=0.5),
    ]


def restart(peers: Peers) -> float:
    """Seconds from `harp run` to the first answer."""
    peers.product.stop()
    return peers.product.start(peers.command)


def _direct(peers: Peers, effort: Effort) -> list[Row]:
    wrk = partial(requests_per_second, seconds=effort.seconds)
    fetch = partial(download_by_wrk, seconds=effort.seconds)
    known = {"HAProxy": peers.haproxy, "nginx": peers.nginx}
    ports = {name: port for name, port in known.items() if port}
    ours, cookie = peers.product.http, f"Cookie: {peers.cookie}"

    def row(name: str, unit: str, measure: Callable[[int, str], float], path: str, mine: Measure, goal: float) -> Row:
        others = {peer: partial(measure, port, path) for peer, port in ports.items()}
        return Row(name, unit, {OURS: mine, **others}, against="HAProxy", goal=goal)

    with_cookie = partial(wrk, ours, f"/exapps/{PLAIN}/user/1k", headers=[cookie])
    return [
        row(
            "direct, PUBLIC, 1 KiB, 64 connections",
            "req/s",
            wrk,
            "/1k",
            partial(wrk, ours, f"/exapps/{PLAIN}/1k"),
            0.85,
        ),
        row("direct, USER, session cached", "req/s", wrk, "/user/1k", with_cookie, 0.75),
        row("direct, 100 MiB bodies", "MiB/s", fetch, "/100m", partial(fetch, ours, f"/exapps/{PLAIN}/100m"), 1.0),
    ]


def _tunnel(peers: Peers, effort: Effort) -> list[Row]:
    chain, ours, big = "HAProxy-frps-frpc", peers.product.http, FILES[effort.big]
    wrk = partial(requests_per_second, seconds=effort.seconds)
    small = f"/exapps/{TUNNELED}/1k"
    label = f"{big // MIB} MiB"
    return [
        Row(
            "tunnel, PUBLIC, 1 KiB, 64 connections",
            "req/s",
            {OURS: partial(wrk, ours, small), chain: partial(wrk, peers.haproxy_frps, "/1k")},
            chain,
            1.0,
        ),
        Row(
            f"tunnel, download of {label}",
            "MiB/s",
            {
                OURS: partial(download_once, ours, f"/exapps/{TUNNELED}/{effort.big}", big),
                chain: partial(download_once, peers.haproxy_frps, f"/{effort.big}", big),
            },
            chain,
            1.0,
        ),
        Row(
            f"tunnel, upload of {label}",
            "MiB/s",
            {
                OURS: partial(upload_once, ours, f"/exapps/{SWALLOWING}/upload", big),
                chain: partial(upload_once, peers.haproxy_frps, "/upload", big),
            },
            chain,
            1.0,
        ),
    ]
