"""100 tunnels by real frpc: memory each, all of them coming back at once, and what they cost while nothing happens.

frpc x 100 ═► relay, which can cut them all ═► ours, or frps
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from tests.live.processes import PATIENCE, Process, free_port
from tests.live.product import Product

from benchmarks.client import connect, get
from benchmarks.peers import FLEET, FLEET_PORT, KIB, Peers
from benchmarks.trial import OURS, Contenders, Effort, Limit, Row, Trial

T = TypeVar("T")

COMEBACK = 60.0  # seconds for all tunnels to serve; the pauses of frpc between its attempts may grow to many
SETTLE = 3.0  # seconds until a process has done what was left to do
QUIET = 10.0  # seconds until the connections kept from the last requests are closed as well
RETRY = 0.1  # seconds between two attempts to reach a tunnel that is not there

Way = Callable[[int], tuple[int, str]]  # number of a tunnel -> port and target that lead to it


def trials(peers: Peers, effort: Effort) -> list[Trial]:
    """All rows about many tunnels."""
    if peers.frp is None:
        return []
    rows = (
        Row("memory per tunnel that has served", "KiB"),
        Row(f"{FLEET} tunnels cut at once, until all serve again", "s", Limit(3.0)),
        Row(f"{FLEET} tunnels cut at once, until the last frpc has dialled", "s"),
        Row(f"processor time with {FLEET} idle tunnels", "%", Limit(0.2)),
    )
    return [Trial(rows, partial(_contenders, peers, effort), effort.rounds)]


@contextmanager
def _contenders(peers: Peers, effort: Effort) -> Iterator[Contenders]:
    """Between the turns the tunnels are with our process that takes part in everything."""
    assert peers.frp is not None
    frp, home = peers.frp, peers.product

    with _Relay() as relay:
        relay.target = home.frp
        frpcs = [
            peers.start_frpc(f"frpc-{number}", frp, relay.port, f"tunnel{number}", FLEET_PORT + number, "upstream")
            for number in range(FLEET)
        ]
        relay.wait(_through_us(home))

        def ours() -> tuple[float, float, float, float]:
            with peers.instance("tunnels") as fresh:
                memory = relay.move(fresh.process, fresh.frp, _through_us(fresh))
                relay.move(home.process, home.frp, _through_us(home))
            return memory, *relay.reconnect(_through_us(home)), _busy(home.process, effort.idle)

        def theirs() -> tuple[float, float, float, float]:
            frps, port = peers.start_frps("frps-fleet", frp)
            memory = relay.move(frps, port, _through_frps)
            figures = memory, *relay.reconnect(_through_frps), _busy(frps, effort.idle)
            relay.move(home.process, home.frp, _through_us(home))
            frps.stop()
            return figures

        try:
            yield {OURS: ours, "frps": theirs}
        finally:
            for frpc in frpcs:
                frpc.kill()


def _through_us(product: Product) -> Way:
    return lambda number: (product.http, f"/exapps/tunnel{number}/1k")


def _through_frps(number: int) -> tuple[int, str]:
    return FLEET_PORT + number, "/1k"


def _busy(process: Process, seconds: float) -> float:
    """How many per cent of one processor it takes while nothing happens."""
    time.sleep(QUIET)
    began, used = time.monotonic(), process.cpu()
    time.sleep(seconds)
    return (process.cpu() - used) / (time.monotonic() - began) * 100


class _Relay:
    """Between every frpc and the server of the moment, on a loop in a thread of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.target = 0  # port of the FRP server
        self._dialled = 0.0  # when a frpc did so last
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay")

    def __enter__(self) -> _Relay:
        self._thread.start()
        self._run(asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=FLEET))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def move(self, server: Process, port: int, way: Way) -> float:
        """Bring all tunnels to another server. Its growth in KiB each, measured when every one of them has served."""
        before = server.rss()
        self.target = port
        self.reconnect(way)
        time.sleep(SETTLE)
        return (server.rss() - before) / FLEET / KIB

    def reconnect(self, way: Way) -> tuple[float, float]:
        """Cut all connections. Seconds until a request through every tunnel was answered, and until the last dial."""
        return self._run(self._reconnect(way))

    def wait(self, way: Way) -> float:
        """Wait until every tunnel serves. When the last one did, on the loop's clock."""
        return self._run(_all_served(way))

    def _run(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(COMEBACK + PATIENCE)

    async def _reconnect(self, way: Way) -> tuple[float, float]:
        began = self._loop.time()
        self._cut()
        served = await _all_served(way)
        return served - began, self._dialled - began

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _close(self) -> None:
        """Once nobody dials any more."""
        self._cut()
        async with asyncio.timeout(PATIENCE):
            while self._writers:
                await asyncio.sleep(RETRY)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._dialled = self._loop.time()
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, to_server}
        self._writers |= both
        await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))
        self._writers -= both


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


async def _all_served(way: Way) -> float:
    async with asyncio.timeout(COMEBACK):
        return max(await asyncio.gather(*(_served(*way(number)) for number in range(FLEET))))


async def _served(port: int, target: str) -> float:
    """Ask until the answer is 200. When it was, on the loop's clock."""
    while True:
        try:
            requester = await connect(port)
            try:
                if await requester.send(get(target)) == 200:
                    return asyncio.get_running_loop().time()
            finally:
                requester.close()
        except OSError:
            pass
        await asyncio.sleep(RETRY)
