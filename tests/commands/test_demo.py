"""`harp demo`: a request takes the whole way through the product, and everything is gone at the end."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from hashlib import sha256
from io import BytesIO

import aiohttp
import pytest
from aiohttp import ClientSession, encode_basic_auth

from harp.commands.demo import Demo, Options
from harp.errors import HarpError
from harp.testing.hello import static_content

ANY_PORTS = Options(0, 0, 0)
USER = {"Authorization": encode_basic_auth("user", "user")}
ADMIN = {"Authorization": encode_basic_auth("admin", "admin")}


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    async with Demo(ANY_PORTS) as demo:
        yield demo


@pytest.fixture
async def client(demo: Demo) -> AsyncIterator[ClientSession]:
    jar = aiohttp.DummyCookieJar()
    async with ClientSession(f"http://127.0.0.1:{demo.harp.http_ports[0]}", cookie_jar=jar) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/exapps/hello/public", {}, 200),
        ("/exapps/hello/user", {}, 403),
        ("/exapps/hello/user", USER, 200),
        ("/exapps/hello/admin", USER, 403),
        ("/exapps/hello/admin", ADMIN, 200),
        ("/exapps/nope/x", {}, 404),
        ("/exapps/hello/init", ADMIN, 403),
    ],
)
async def test_what_it_shows(client: ClientSession, path: str, headers: dict[str, str], status: int) -> None:
    assert (await client.get(path, headers=headers)).status == status


async def test_a_browser_that_has_logged_in_is_let_in_by_its_cookies(client: ClientSession, demo: Demo) -> None:
    cookie = demo.nextcloud.log_in("user")
    answer = await client.get("/exapps/hello/user", headers={"Cookie": cookie})
    assert (answer.status, await answer.text()) == (200, "Hello user, this is /user\n")


async def test_bodies_arrive_whole_both_ways_through_the_tunnel(client: ClientSession) -> None:
    body = b"".join(static_content(5_000_000))
    assert await (await client.get("/exapps/hello/static/5000000")).read() == body
    answer = await client.post("/exapps/hello/upload", data=BytesIO(body))
    assert await answer.json() == {"bytes": 5_000_000, "sha256": sha256(body).hexdigest()}


async def test_events_and_websockets_pass_through_the_tunnel(client: ClientSession) -> None:
    events = await client.get("/exapps/hello/sse?interval=3600")
    assert await events.content.readuntil(b"\n\n") == b"id: 1\ndata: hello 1\n\n"
    events.close()
    async with client.ws_connect("/exapps/hello/ws") as socket:
        await socket.send_str("hi")
        assert await socket.receive_str() == "hi"


async def test_the_admin_listener_says_ready(client: ClientSession, demo: Demo) -> None:
    await client.get("/exapps/hello/public")  # Nextcloud has been asked then
    answer = await client.get(f"http://127.0.0.1:{demo.harp.admin_ports[0]}/readyz")
    assert answer.status == 200


async def test_every_command_that_it_prints_names_a_port_that_answers(demo: Demo) -> None:
    ports = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", demo.text())}
    assert len(ports) == 4
    for port in ports:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()


async def test_its_files_are_gone_at_the_end() -> None:
    async with Demo(ANY_PORTS) as demo:
        path = demo.hello.socket
        assert path is not None
        assert path.is_socket()
        assert {"ca.crt", "client.crt", "client.key"} <= {file.name for file in (path.parent / "certs/frp").iterdir()}
    assert not path.parent.exists()


async def test_a_taken_port_is_told_and_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = Demo(Options(port, 0, 0))
        with pytest.raises(HarpError, match=str(port)):
            await demo.__aenter__()
    assert demo.hello.socket is not None
    assert not demo.hello.socket.parent.exists()
    with pytest.raises(aiohttp.ClientConnectionError):
        async with ClientSession() as client:
            await client.get(demo.nextcloud.url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_command_prints_what_to_try_and_ends_in_silence(number: signal.Signals) -> None:
    command = (sys.executable, "-m", "harp", "demo", "--port", "0", "--frp-port", "0", "--admin-port", "0")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    out = await process.stdout.readuntil(b"Ctrl-C ends it")
    process.send_signal(number)
    _, err = await process.communicate()
    assert b"/exapps/hello/public" in out
    assert err == b""
    assert process.returncode == 0


async def test_a_browser_gets_a_page_with_everything_there_is_to_try(client: ClientSession, demo: Demo) -> None:
    answer = await client.get("/exapps/hello/")
    assert answer.content_type == "text/html"
    text = await answer.text()
    assert "Hello, stranger" in text
    assert f"{demo.nextcloud.url}/login" in text
    assert "Hello, user" in await (await client.get("/exapps/hello/", headers=USER)).text()
