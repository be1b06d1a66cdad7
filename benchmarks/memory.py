"""What each thing that we hold costs in memory, each measured in a process of its own that held few of them before."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

from tests.live.product import Product

from benchmarks import growth
from benchmarks.client import ask_all, connect_websockets, connections, get, trusting
from benchmarks.peers import KIB, PLAIN, SERVICE, Peers
from benchmarks.trial import OURS, Limit, Row, Trial

FEW = 20  # held before the first measurement: what is made once is there then
SETTLE = 1.0  # seconds until a process has done what was left to do


@dataclass(frozen=True, slots=True)
class Thing:
    """Something held. `hold` has those of the given numbers for the duration of a block."""

    row: Row
    count: int
    hold: Callable[[Product, range], AbstractAsyncContextManager[None]]
    settings: dict[str, str] = field(default_factory=dict)


def trial(peers: Peers) -> Trial:
    """All rows about memory each."""
    websocket = Row("memory per WebSocket", "KiB", Limit(30))
    things = (
        Thing(Row("memory per idle HTTP connection", "KiB"), 4000, partial(_http, tls=None)),
        Thing(Row("memory per idle HTTPS connection", "KiB"), 1000, partial(_http, tls=trusting())),
        Thing(websocket, 1000, _websockets),
        Thing(
            Row("memory per cached session", "KiB"), 10_000, partial(_sessions, cookie=peers.cookie), growth.SETTINGS
        ),
        Thing(Row("memory per ExApp", "KiB"), 900, _records),
        Thing(Row("memory per banned address", "KiB"), 10_000, _bans, growth.SETTINGS),
    )

    contenders = {OURS: lambda: [_each(peers, thing) for thing in things]}
    return Trial(tuple(thing.row for thing in things), lambda: nullcontext(contenders))


def _each(peers: Peers, thing: Thing) -> float:
    """KiB."""

    async def growth_of(product: Product) -> int:
        async with thing.hold(product, range(FEW)):
            pass
        await asyncio.sleep(SETTLE)
        before = product.process.rss()
        async with thing.hold(product, range(FEW, FEW + thing.count)):
            await asyncio.sleep(SETTLE)
            return product.process.rss() - before

    with peers.instance("memory", **thing.settings) as product:
        return asyncio.run(growth_of(product)) / thing.count / KIB


@asynccontextmanager
async def _http(product: Product, numbers: range, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
    """Each has had one answer."""
    port = product.https if tls else product.http
    async with connections(port, len(numbers), tls) as opened:
        for requester in opened:
            await requester.send(get(f"/exapps/{PLAIN}/1k"))
        yield


@asynccontextmanager
async def _websockets(product: Product, numbers: range) -> AsyncIterator[None]:
    """Each has had one message echoed."""
    sockets = await connect_websockets(product.http, f"/exapps/{SERVICE}/echo", len(numbers))
    for socket in sockets:
        await socket.echo(b"hello")
    yield
    for socket in sockets:
        socket.close()


@asynccontextmanager
async def _sessions(product: Product, numbers: range, cookie: str) -> AsyncIterator[None]:
    await ask_all(product.http, growth.visits(cookie, numbers, apps=1))
    yield


@asynccontextmanager
async def _records(product: Product, numbers: range) -> AsyncIterator[None]:
    await ask_all(product.http, (get(f"/exapps/app{number}/1k") for number in numbers))
    yield


@asynccontextmanager
async def _bans(product: Product, numbers: range) -> AsyncIterator[None]:
    await ask_all(product.http, growth.strikes(numbers), status=growth.REFUSED)
    yield
