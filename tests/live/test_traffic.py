"""Traffic of every shape through the real product, on every road: direct, by our own tunnel client, by stock frpc."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import aiohttp
import pytest

from harp.testing.hello import static_content
from tests.live.frp import NEWEST
from tests.live.product import HARP, WITHOUT_UVLOOP, Product, running
from tests.live.tunnels import OWN, SHIPPED, start_tunnel
from tests.live.wire import Client
from tests.live.world import TUNNEL_PORT, World

MIB = 1 << 20
GIB = 1 << 30
TUNNEL_MEMORY = 64 * MIB  # HP_TUNNEL_MEMORY
DIRECT = "direct"


@dataclass(frozen=True)
class Way:
    """How a road is built: by which tunnel client, with how large bodies, and how HaRP is started."""

    name: str
    client: str
    large: int
    command: Sequence[str] = HARP


WAYS = [
    Way("direct", DIRECT, GIB // 4),
    Way("our client", OWN, GIB // 4),
    Way(f"frpc {SHIPPED}", SHIPPED, 2 * GIB),
    Way(f"frpc {NEWEST}", NEWEST, GIB // 4),
    Way(f"frpc {SHIPPED}, without uvloop", SHIPPED, GIB // 4, WITHOUT_UVLOOP),
]


@dataclass(frozen=True)
class Road:
    """One way to an ExApp. `large`: bytes of its large bodies."""

    product: Product
    app: str
    large: int

    def path(self, rest: str) -> str:
        return f"/exapps/{self.app}{rest}"

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.product.http, timeout=timeout)


@pytest.fixture(scope="module", params=WAYS, ids=lambda way: way.name)
def road(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    with ExitStack() as stack:
        way: Way = request.param
        product = stack.enter_context(running(tmp_path_factory.mktemp("traffic"), world.nextcloud, way.command))
        app = "direct"
        if way.client != DIRECT:
            app = "hello"
            stack.enter_context(start_tunnel(product, way.client, app, TUNNEL_PORT, world.socket))
        product.process.until(lambda: product.status(f"/exapps/{app}/public") == 200, f"ExApp {app}")
        yield Road(product, app, way.large)


@cache
def digest(size: int) -> str:
    """The SHA-256 of what is sent, made once: of gigabytes it takes as long as sending them."""
    whole = sha256()
    for piece in static_content(size):
        whole.update(piece)
    return whole.hexdigest()


@pytest.mark.timeout(300)
def test_a_download_of_gigabytes_arrives_intact_at_constant_memory(road: Road) -> None:
    process = road.product.process
    before = process.rss()
    connection = road.connect()
    connection.request("GET", road.path(f"/static/{road.large}"))
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-length")) == (200, str(road.large))
    assert all(answer.read(len(piece)) == piece for piece in static_content(road.large))
    assert answer.read(1) == b""
    connection.close()
    assert process.peak_rss() - before < 32 * MIB


@pytest.mark.timeout(300)
def test_an_upload_of_gigabytes_arrives_intact_at_constant_memory(road: Road) -> None:
    process = road.product.process
    before = process.rss()
    connection = road.connect()
    body = static_content(road.large)
    connection.request("POST", road.path("/upload"), body, {"Content-Length": str(road.large)})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer == {"bytes": road.large, "sha256": digest(road.large)}
    assert process.peak_rss() - before < 32 * MIB


def test_a_chunked_upload_arrives_intact(road: Road) -> None:
    size = 64 * MIB
    connection = road.connect()
    connection.request("POST", road.path("/upload"), static_content(size), encode_chunked=True)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer == {"bytes": size, "sha256": digest(size)}


async def test_clients_that_do_not_read_cost_no_memory(road: Road) -> None:
    """Twenty downloads of a gigabyte, none of them read: the ExApp is held back; tunnels keep their windows at most."""
    process = road.product.process
    before = process.rss()
    clients = [await Client.connect(road.product.http) for _ in range(20)]
    for client in clients:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(f"GET {road.path(f'/static/{GIB}')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    used = -1.0
    while used != (used := process.cpu()):  # until everybody waits for somebody
        await asyncio.sleep(0.5)
    grown = process.rss() - before
    for client in clients:
        client.close()
    assert grown < 32 * MIB + (0 if road.app == "direct" else TUNNEL_MEMORY)


@pytest.mark.timeout(120)
async def test_a_thousand_websockets_echo_at_once(road: Road) -> None:
    url = f"ws://127.0.0.1:{road.product.http}{road.path('/ws')}"
    process = road.product.process
    before = process.rss()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sockets: list[aiohttp.ClientWebSocketResponse] = []
        for _ in range(20):  # in crowds of fifty
            sockets += await asyncio.gather(*(session.ws_connect(url, autoping=True) for _ in range(50)))
        for turn in range(3):
            for number, socket in enumerate(sockets):
                await socket.send_str(f"{turn} {number}")
            for number, socket in enumerate(sockets):
                assert await socket.receive_str(timeout=20) == f"{turn} {number}"
        grown = process.rss() - before
        await asyncio.gather(*(socket.close() for socket in sockets))
    assert grown < 64 * MIB


@pytest.mark.timeout(120)
async def test_thousands_of_short_connections_leave_nothing_behind(road: Road) -> None:
    process = road.product.process
    before = process.descriptors()
    request = f"GET {road.path('/public')} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()

    async def visits(count: int) -> None:
        for _ in range(count):
            async with await Client.connect(road.product.http) as client:
                await client.send(request)
                assert (await client.answer()).status == 200

    await asyncio.gather(*(visits(60) for _ in range(50)))
    await asyncio.to_thread(process.until, lambda: process.descriptors() <= before + 2, "closed connections")


@pytest.mark.timeout(120)
async def test_a_hundred_aborted_downloads_leave_nothing_behind(road: Road, world: World) -> None:
    ours, exapps = road.product.process, world.process
    request = f"GET {road.path(f'/static/{GIB}')} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    descriptors, theirs, memory = ours.descriptors(), exapps.descriptors(), ours.rss()
    for _ in range(100):
        async with await Client.connect(road.product.http) as client:
            await client.send(request)
            assert await client.reader.readexactly(100_000)
    await asyncio.to_thread(ours.until, lambda: ours.descriptors() <= descriptors + 2, "closed connections")
    await asyncio.to_thread(exapps.until, lambda: exapps.descriptors() <= theirs + 2, "closed connections to the ExApp")
    assert ours.rss() - memory < 16 * MIB
    assert await asyncio.to_thread(road.product.status, road.path("/public")) == 200


@pytest.mark.timeout(120)
async def test_a_hundred_aborted_uploads_leave_nothing_behind(road: Road, world: World) -> None:
    ours, exapps = road.product.process, world.process
    head = f"POST {road.path('/upload')} HTTP/1.1\r\nHost: a\r\nContent-Length: {GIB}\r\n\r\n".encode()
    descriptors, theirs, memory = ours.descriptors(), exapps.descriptors(), ours.rss()
    for _ in range(100):
        async with await Client.connect(road.product.http) as client:
            await client.send(head + bytes(100_000))
    await asyncio.to_thread(ours.until, lambda: ours.descriptors() <= descriptors + 2, "closed connections")
    await asyncio.to_thread(exapps.until, lambda: exapps.descriptors() <= theirs + 2, "closed connections to the ExApp")
    assert ours.rss() - memory < 16 * MIB
    assert await asyncio.to_thread(road.product.status, road.path("/public")) == 200


async def test_a_slow_reader_does_not_hold_up_the_others(road: Road) -> None:
    """On one tunnel all streams share a connection: one that nobody reads must not stop the rest."""
    async with await Client.connect(road.product.http) as slow:
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await slow.send(f"GET {road.path(f'/static/{GIB}')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        for _ in range(20):
            async with await Client.connect(road.product.http) as quick:
                await quick.send(f"GET {road.path(f'/static/{MIB}')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert len((await quick.answer()).body) == MIB


async def test_a_hundred_downloads_at_once_arrive_whole(road: Road) -> None:
    size = 2 * MIB
    request = f"GET {road.path(f'/static/{size}')} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

    async def download() -> str:
        async with await Client.connect(road.product.http) as client:
            await client.send(request)
            return sha256((await client.answer()).body).hexdigest()

    assert set(await asyncio.gather(*(download() for _ in range(100)))) == {digest(size)}


async def test_an_event_arrives_at_once_and_a_departure_is_noticed(road: Road, world: World) -> None:
    theirs = world.process.descriptors()
    async with await Client.connect(road.product.http) as client:
        await client.send(f"GET {road.path('/sse?interval=0.01')} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        for number in range(1, 20):
            async with asyncio.timeout(10):
                assert await client.reader.readuntil(f"data: hello {number}\n".encode())
    await asyncio.to_thread(
        world.process.until, lambda: world.process.descriptors() <= theirs + 2, "closed connection to the ExApp"
    )
