"""Everything that waits has a limit, and each limit its variable (A 2.8). Here all of them are about a second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest

from tests.live.processes import free_port
from tests.live.product import Product, running
from tests.live.recorder import RequestRecorder, recorder
from tests.live.tunnels import OWN, start_tunnel
from tests.live.wire import Client
from tests.live.world import TUNNEL_PORT, World

CONNECTIONS = 50
GET = b"GET /exapps/rec/x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def product(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    names = ("HEAD", "CLIENT", "KEEPALIVE", "RESPONSE", "SERVER", "TUNNEL", "HALF_CLOSED", "CONNECT", "DRAIN")
    limits = {f"HP_TIMEOUT_{name}": "1s" for name in names}
    limits |= {"HP_TIMEOUT_RESPONSE": "3s", "HP_MAX_CONNECTIONS": str(CONNECTIONS), "HP_TUNNEL_HOLD": "4s"}
    with running(tmp_path_factory.mktemp("limits"), world.nextcloud, **limits) as product:
        yield product


@pytest.fixture
async def exapp(product: Product) -> AsyncIterator[RequestRecorder]:
    """The ExApp "rec": all PUBLIC, at a port of its own."""
    async with recorder() as exapp:
        product.register("rec", "127.0.0.1", exapp.port)
        yield exapp


@pytest.mark.parametrize(
    "start", [b"", b"GET /exapps/rec/x HT", GET[:-2]], ids=["nothing", "half a line", "half a head"]
)
async def test_a_client_that_does_not_finish_its_head_is_turned_away(start: bytes, product: Product) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(start)
        assert (await client.rest())[:12] in {b"", b"HTTP/1.1 408"}


async def test_a_client_that_sends_its_head_drop_by_drop_is_turned_away(product: Product) -> None:
    """The limit is on the head, not on the pause between two bytes."""
    async with await Client.connect(product.http) as client, asyncio.timeout(8):
        with contextlib.suppress(ConnectionError):
            while not client.reader.at_eof():
                await client.send(b"A")
                await asyncio.sleep(0.1)


async def test_an_idle_connection_is_closed(product: Product, exapp: RequestRecorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_a_client_that_stops_in_its_body_is_turned_away(product: Product, exapp: RequestRecorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"POST /exapps/rec/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert (await client.rest())[:12] in {b"", b"HTTP/1.1 408"}


async def test_a_client_that_does_not_read_its_answer_is_let_go(product: Product, world: World) -> None:
    theirs = world.process.descriptors()
    async with await Client.connect(product.http) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await client.send(b"GET /exapps/direct/static/1000000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        process = world.process
        await asyncio.to_thread(process.until, lambda: process.descriptors() > theirs, "download")
        await asyncio.to_thread(process.until, lambda: process.descriptors() <= theirs, "end of the download")


async def test_an_exapp_that_does_not_answer_becomes_504(product: Product, exapp: RequestRecorder) -> None:
    exapp.silent = True
    async with await Client.connect(product.http) as client:
        await client.send(GET)
        answer = await client.answer()
    assert answer.status == 504
    assert b"did not answer in time" in answer.body


async def test_an_exapp_that_stops_in_its_answer_is_cut_off(product: Product, exapp: RequestRecorder) -> None:
    exapp.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    async with await Client.connect(product.http) as client:
        await client.send(GET)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()


async def test_an_exapp_that_is_away_becomes_502_or_503_and_the_log_names_it(product: Product) -> None:
    product.register("away", "127.0.0.1", free_port())
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/away/x HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await client.answer()
    assert answer.status in {502, 503}
    assert b"cannot be reached" in answer.body
    product.process.until(lambda: "ExApp away cannot be reached" in product.process.text(), "warning")


async def test_a_missing_tunnel_is_waited_for_then_told(product: Product) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/hello/public HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await client.answer()
    assert answer.status == 503
    assert answer.header("retry-after") is not None
    assert b"cannot be reached" in answer.body


async def test_a_request_that_waits_for_a_tunnel_is_served_when_it_comes(world: World, product: Product) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/hello/public HTTP/1.1\r\nHost: a\r\n\r\n")
        with start_tunnel(product, OWN, "hello", TUNNEL_PORT, world.socket):
            answer = await client.answer()
    assert answer.status == 200


async def test_an_idle_websocket_is_closed(product: Product) -> None:
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"{product.url}/exapps/direct/ws")
        message = await socket.receive(timeout=8)
        assert message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        await socket.close()


async def test_what_moves_lives_on(product: Product) -> None:
    """Three seconds of events and of WebSocket messages, a third of every limit apart."""
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(f"{product.url}/exapps/direct/ws")
        async with session.get(f"{product.url}/exapps/direct/sse?interval=0.3&count=10") as answer:
            for number in range(1, 11):
                assert f"hello {number}\n".encode() in await answer.content.readuntil(b"\n\n")
                await socket.send_str(f"{number}")
                assert await socket.receive_str() == f"{number}"
        await socket.close()


async def test_more_connections_than_allowed_wait_or_are_closed_and_nothing_breaks(product: Product) -> None:
    clients = [await Client.connect(product.http) for _ in range(2 * CONNECTIONS)]
    assert product.process.running
    assert product.process.descriptors() < 2 * CONNECTIONS + 50
    for client in clients:
        client.close()
    status = "/exapps/direct/public"
    await asyncio.to_thread(product.process.until, lambda: product.status(status) == 200, "answer after the crowd")
