"""An ExApp that does not listen behind a tunnel that is up: nobody waits for it, and nobody who works is given up.

frpc up to 0.67 keeps such a stream open in silence (F 5.6).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.live.frp import ended
from tests.live.product import Product, running
from tests.live.tunnels import OWN, start_tunnel
from tests.live.wire import Client, WireAnswer

CLIENTS = ["0.61.1", "0.65.0", "0.70.1", OWN]
GET = b"GET /exapps/late/x HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /exapps/late/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi"
NOBODY = b"nothing listens behind it"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running(tmp_path_factory.mktemp("harp"), "http://127.0.0.1:1") as product:
        yield product


@pytest.fixture(params=CLIENTS)
def socket(request: pytest.FixtureRequest, product: Product) -> Iterator[Path]:
    """Where the ExApp `late` should listen; its tunnel is up."""
    with TemporaryDirectory(prefix="harp-late-") as directory:
        path = Path(directory) / "app.sock"
        with ended(start_tunnel(product, request.param, "late", 23040, path)) as tunnel:
            tunnel.until(lambda: "start proxy success" in tunnel.text() or "serves" in tunnel.text(), "tunnel")
            product.register("late", "127.0.0.1", 23040)
            yield path


@asynccontextmanager
async def exapp(path: Path, seconds: float = 0.0) -> AsyncIterator[list[bytes]]:
    """An ExApp that answers after so many seconds, and closes; its request lines."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await asyncio.sleep(seconds)
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield requests
    finally:
        server.close()
        await server.wait_closed()
        path.unlink(missing_ok=True)


async def ask(product: Product, request: bytes) -> tuple[WireAnswer, float]:
    """The answer and how long it took."""
    began = time.monotonic()
    async with await Client.connect(product.http) as client:
        await client.send(request)
        return await client.answer(), time.monotonic() - began


async def test_the_start_race_costs_about_a_second(product: Product, socket: Path) -> None:
    asked = asyncio.ensure_future(ask(product, GET))
    await asyncio.sleep(1.0)
    async with exapp(socket):
        answer, seconds = await asked
        if answer.status != 200:  # a client that says no at once is asked again, as AppAPI does
            answer, _ = await ask(product, GET)
    assert answer.status == 200
    assert seconds < 1.0 + 1.5


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
async def test_an_exapp_that_never_listens_is_502_within_seconds(
    product: Product, socket: Path, request_: bytes
) -> None:
    answer, seconds = await ask(product, request_)
    assert answer.status == 502
    assert seconds < 6.0


async def test_an_exapp_that_dies_after_it_has_answered_is_502_within_seconds(product: Product, socket: Path) -> None:
    async with exapp(socket):
        answer, _ = await ask(product, GET)
        assert answer.status == 200
    answer, seconds = await ask(product, GET)
    assert answer.status == 502
    assert seconds < 8.0
    async with exapp(socket):
        answer, _ = await ask(product, GET)
        assert answer.status == 200


@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
async def test_a_slow_answer_is_waited_for_and_asked_for_once(product: Product, socket: Path, request_: bytes) -> None:
    async with exapp(socket):
        await ask(product, GET)
    async with exapp(socket, seconds=7.0) as requests:
        answer, _ = await ask(product, request_)
        assert (answer.status, len(requests)) == (200, 1)
