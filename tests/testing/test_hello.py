"""The sample ExApp answers as an ExApp must, and serves every shape of traffic."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession, UnixConnector

from harp.policy.exapp import Level
from harp.testing.hello import Hello, static_content

SECRET = "app secret"


def signed(user: str = "", secret: str = SECRET) -> dict[str, str]:
    """The headers that HaRP adds (A 2.6)."""
    credentials = b64encode(f"{user}:{secret}".encode()).decode()
    return {"EX-APP-ID": "hello", "EX-APP-VERSION": "1.0.0", "AUTHORIZATION-APP-API": credentials}


@pytest.fixture
async def hello(tmp_path: Path) -> AsyncIterator[Hello]:
    async with Hello("hello", SECRET, socket=tmp_path / "exapp.sock") as hello:
        yield hello


@pytest.fixture
async def client(hello: Hello) -> AsyncIterator[ClientSession]:
    async with ClientSession("http://hello", connector=UnixConnector(str(hello.socket)), headers=signed()) as client:
        yield client


async def test_it_greets_whom_harp_says_is_calling(client: ClientSession) -> None:
    assert await (await client.get("/public")).text() == "Hello stranger, this is /public\n"
    assert await (await client.get("/user", headers=signed("ada"))).text() == "Hello ada, this is /user\n"


@pytest.mark.parametrize(
    "change",
    [
        {"EX-APP-ID": "Hello"},
        {"EX-APP-VERSION": ""},
        {"AUTHORIZATION-APP-API": "!"},
        signed(secret="guess"),
    ],
)
async def test_it_refuses_what_did_not_come_through_harp(client: ClientSession, change: dict[str, str]) -> None:
    assert (await client.get("/public", headers=change)).status == 401


async def test_heartbeat_needs_no_credentials(hello: Hello) -> None:
    async with ClientSession("http://hello", connector=UnixConnector(str(hello.socket))) as client:
        answer = await client.get("/heartbeat")
        assert (answer.status, await answer.json()) == (200, {"status": "ok"})


async def test_it_is_initialised_and_enabled_and_disabled(client: ClientSession, hello: Hello) -> None:
    assert (await client.post("/init")).status == 200
    assert hello.initialised == 1
    assert await (await client.put("/enabled?enabled=1")).json() == {"error": ""}
    assert hello.enabled is True
    await client.put("/enabled?enabled=0")
    assert hello.enabled is False


@pytest.mark.parametrize("size", [0, 1, 65521, 200_000])
async def test_static_is_exactly_as_long_as_asked_for(client: ClientSession, size: int) -> None:
    answer = await client.get(f"/static/{size}")
    body = await answer.read()
    assert answer.headers["content-length"] == str(size)
    assert body == b"".join(static_content(size))
    assert len(body) == size


async def test_head_of_a_huge_static_file_has_its_length_and_no_body(client: ClientSession) -> None:
    answer = await client.head(f"/static/{1 << 39}")
    assert answer.headers["content-length"] == str(1 << 39)
    assert (await client.get(f"/static/{(1 << 40) + 1}")).status == 400


async def test_echo_returns_the_request_head_as_it_came(client: ClientSession) -> None:
    answer = await client.request("PATCH", "/echo/%2Fa//b?x=%20&x=2", headers={"X-Case": "Größe"})
    echo = await answer.json()
    assert (echo["method"], echo["version"]) == ("PATCH", "1.1")
    assert ["EX-APP-ID", "hello"] in echo["headers"]
    assert ["X-Case", "Größe".encode().decode("latin-1")] in echo["headers"]


async def test_upload_counts_and_hashes_without_keeping(client: ClientSession) -> None:
    body = b"".join(static_content(3_000_000))
    answer = await client.post("/upload", data=BytesIO(body))
    assert await answer.json() == {"bytes": 3_000_000, "sha256": sha256(body).hexdigest()}


async def test_events_come_one_by_one(client: ClientSession) -> None:
    answer = await client.get("/sse?count=2&interval=0.001")
    assert answer.headers["content-type"] == "text/event-stream"
    assert await answer.text() == "id: 1\ndata: hello 1\n\nid: 2\ndata: hello 2\n\n"


async def test_a_websocket_echoes_text_and_bytes(client: ClientSession) -> None:
    async with client.ws_connect("/ws") as socket:
        await socket.send_str("hi")
        assert await socket.receive_str() == "hi"
        await socket.send_bytes(b"\x00\xff")
        assert await socket.receive_bytes() == b"\x00\xff"


async def test_stopping_ends_streams_and_says_going_away_to_websockets(client: ClientSession, hello: Hello) -> None:
    events = await client.get("/sse?interval=3600")
    assert await events.content.readuntil(b"\n\n")
    async with client.ws_connect("/ws") as socket:
        await hello.stop()
        message = await socket.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
    assert await events.read() == b""
    assert hello.socket is not None
    assert not hello.socket.exists()


@pytest.mark.parametrize(
    "request_head",
    [
        "GET /static/1000000000 HTTP/1.1\r\n",
        "GET /sse?interval=0.001 HTTP/1.1\r\n",
        "PUT /upload HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n",
        "PUT /upload HTTP/1.1\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n",
    ],
)
async def test_a_caller_that_leaves_in_the_middle_is_no_error(
    hello: Hello, request_head: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed().items())
    reader, writer = await asyncio.open_unix_connection(str(hello.socket))
    writer.write(f"{request_head}Host: hello\r\n{headers}\r\n".encode())
    assert (await reader.readline()).startswith((b"HTTP/1.1 200", b"HTTP/1.1 100"))
    writer.transport.abort()
    await hello.stop()
    assert caplog.records == []


def test_its_record_has_a_route_for_every_level() -> None:
    record = Hello("Hello", SECRET).record("127.0.0.1", 23000)
    assert (record.app_id, record.host, record.port, record.token) == ("hello", "127.0.0.1", 23000, SECRET)
    assert {route.access_level for route in record.routes} == set(Level)
