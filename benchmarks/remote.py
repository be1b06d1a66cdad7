"""Tunnels over a long way: one stream and four, down and up, beside frps.

frpc, or our own client ═► relay with a round trip of 50 or 150 ms ═► ours, or frps
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from tests.live.processes import Process, free_port
from tests.live.product import HARP
from tests.live.tunnels import configuration

from benchmarks.load import download_once, upload_once
from benchmarks.peers import FILES, FLEET_PORT, Peers
from benchmarks.trial import OURS, Contenders, Effort, Ratio, Row, Trial

OWN_CLIENT = "ours with our client"
FRPS = "frps"
ROUND_TRIPS = 50, 150  # ms
FILE = "100m"
FOUR = 4
Transfer = Callable[[], float]  # MiB/s


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """One for each round trip."""
    if peers.frp is None:
        return []
    return [Trial(_rows(trip), partial(_contenders, peers, trip), effort.rounds) for trip in ROUND_TRIPS]


def _rows(round_trip: int) -> tuple[Row, ...]:
    goal = Ratio(1.0, of=FRPS)
    return tuple(
        Row(f"tunnel over {round_trip} ms, {way}, {streams}", "MiB/s", goal)
        for way in ("download", "upload")
        for streams in ("one stream", "four streams")
    )


@contextmanager
def _contenders(peers: Peers, round_trip: int) -> Iterator[Contenders]:
    """A static ExApp and one that takes uploads, each behind a client of its own."""
    frp = peers.frp
    assert frp is not None
    running: list[Process] = []

    def relay(name: str, server: int) -> int:
        port = free_port()
        argv = [sys.executable, "-m", "benchmarks.relay", str(port), str(server), str(round_trip)]
        running.append(peers.run(f"relay-{name}", argv))
        running[-1].until_listening(port)
        return port

    def ours(number: int, name: str, program: list[str]) -> Callable[[], tuple[float, ...]]:
        way = relay(name, peers.product.frp)
        for at, socket in enumerate(("upstream", "service")):
            app = f"tunnel{number + at}"
            text = configuration(
                peers.product.certs / "frp", way, app, FLEET_PORT + number + at, peers.directory / f"{socket}.sock"
            )
            running.append(peers.run(f"{name}-{app}", [*program, "-c", peers.write(f"{name}-{app}.toml", text)]))
            peers.product.process.until(lambda app=app: peers.product.status(f"/exapps/{app}/") < 500, app)  # type: ignore[misc]
        port = peers.product.http
        return partial(
            _figures,
            partial(download_once, port, f"/exapps/tunnel{number}/{FILE}", FILES[FILE]),
            partial(upload_once, port, f"/exapps/tunnel{number + 1}/upload", FILES[FILE]),
        )

    def theirs() -> Callable[[], tuple[float, ...]]:
        frps, server = peers.start_frps(f"frps-{round_trip}", frp)
        running.append(frps)
        way = relay("frps", server)
        ports = free_port(), free_port()
        for port, socket in zip(ports, ("upstream", "service"), strict=True):
            name = f"frpc-{round_trip}-{socket}"
            running.append(peers.start_frpc(name, frp, way, name, port, socket))
            running[-1].until_listening(port)
        return partial(
            _figures,
            partial(download_once, ports[0], f"/{FILE}", FILES[FILE]),
            partial(upload_once, ports[1], "/upload", FILES[FILE]),
        )

    try:
        yield {
            OURS: ours(90, f"frpc-{round_trip}", [str(frp / "frpc")]),
            OWN_CLIENT: ours(92, f"own-{round_trip}", [*HARP, "tunnel"]),
            FRPS: theirs(),
        }
    finally:
        for process in reversed(running):
            process.kill()


def _figures(download: Transfer, upload: Transfer) -> tuple[float, ...]:
    """In the order of the rows."""
    return tuple(_at_once(run, streams) for run in (download, upload) for streams in (1, FOUR))


def _at_once(run: Transfer, count: int) -> float:
    """MiB/s of all together."""
    with ThreadPoolExecutor(count) as threads:
        return sum(threads.map(lambda _: run(), range(count)))
