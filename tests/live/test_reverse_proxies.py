"""nginx, Apache and Caddy in front of HaRP, configured with the very files of docs/snippets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest

from harp.testing.hello import static_content
from tests.live.peers import path_of
from tests.live.processes import Process, free_port
from tests.live.product import Product, basic
from tests.live.wire import Client

DOCS = Path(__file__).parents[2] / "docs"
SNIPPETS = DOCS / "snippets"
APACHE_MODULES = Path("/usr/lib/apache2/modules")
CLIENT = "127.0.0.9"  # an address that is not the reverse proxy's
USER = {"Authorization": basic("user", "user")}


@dataclass(frozen=True)
class Front:
    """A running reverse proxy. `upgrades`: it passes WebSockets."""

    port: int
    product: Product
    upgrades: bool = True

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def snippet(name: str, product: Product, prefix: str = "/exapps/") -> str:
    """A file of docs/snippets with our port, and perhaps another prefix."""
    text = (SNIPPETS / name).read_text()
    assert "127.0.0.1:8780" in text or "/exapps/" in text
    text = text.replace("127.0.0.1:8780", f"127.0.0.1:{product.http}")
    return (
        text.replace('"/exapps/"', f'"{prefix}"')
        .replace(" /exapps/", f" {prefix}")
        .replace(f":{product.http}/exapps/", f":{product.http}{prefix}")
    )


def nginx(folder: Path, product: Product, port: int, *, version: str) -> list[str]:
    location = snippet("nginx-location.conf", product) + snippet("nginx-location.conf", product, "/nextcloud/exapps/")
    if version == "1.0":  # nginx's default until its 1.29
        location = location.replace("proxy_http_version 1.1;", "")
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = f"""
    daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; {"user root;" if os.geteuid() == 0 else ""}
    events {{ worker_connections 1024; }}
    http {{
        access_log off; {temporary}
        {snippet("nginx-http.conf", product)}
        server {{
            listen 127.0.0.1:{port};
            {location}
            location ^~ /stripped/exapps/ {{ proxy_pass http://harp/; }}
        }}
    }}"""
    (folder / "nginx.conf").write_text(config)
    return [path_of("nginx", "nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def apache(folder: Path, product: Product, port: int) -> list[str]:
    loaded = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "reqtimeout")
    modules = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in loaded)
    identity = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    subfolder = snippet("apache.conf", product, "/nextcloud/exapps/")
    config = f"""
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog /dev/stderr
{modules}
{identity}
Listen 127.0.0.1:{port}
<VirtualHost *:{port}>
{snippet("apache.conf", product)}
{subfolder}
</VirtualHost>
"""
    (folder / "apache.conf").write_text(config)
    return [path_of("apache2", "apache2"), "-DFOREGROUND", "-f", str(folder / "apache.conf")]


def caddy(folder: Path, product: Product, port: int) -> list[str]:
    config = f"""
{{
    admin off
    auto_https off
    grace_period 1s
    storage file_system {folder}
}}
http://:{port} {{
    bind 127.0.0.1
    {snippet("Caddyfile", product)}
    {snippet("Caddyfile", product, "/nextcloud/exapps/")}
}}
"""
    (folder / "Caddyfile").write_text(config)
    return [path_of("caddy", "caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.fixture(scope="module", params=["nginx HTTP/1.1", "nginx HTTP/1.0", "Apache", "Caddy"])
def front(
    request: pytest.FixtureRequest, product: Product, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    folder, port = tmp_path_factory.mktemp("front"), free_port()
    match request.param:
        case "Apache":
            argv = apache(folder, product, port)
        case "Caddy":
            argv = caddy(folder, product, port)
        case name:
            argv = nginx(folder, product, port, version=name[-3:])
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    with Process(argv, folder / "log", env=environment) as process:
        process.until_listening(port)
        yield Front(port, product, upgrades=request.param != "nginx HTTP/1.0")


@asynccontextmanager
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


@pytest.mark.parametrize("app", ["direct", "hello"])
async def test_a_page_arrives(front: Front, app: str) -> None:
    async with browser() as session, session.get(front.url(f"/exapps/{app}/public")) as answer:
        assert (answer.status, await answer.text()) == (200, "Hello stranger, this is /public\n")


@pytest.mark.parametrize("app", ["direct", "hello"])
async def test_a_password_decides(front: Front, app: str) -> None:
    url = front.url(f"/exapps/{app}/user")
    async with browser() as session:
        async with session.get(url) as answer:
            assert answer.status == 403
        async with session.get(url, headers=USER) as answer:
            assert (answer.status, await answer.text()) == (200, "Hello user, this is /user\n")


async def test_ten_requests_over_one_connection(front: Front) -> None:
    async with await Client.connect(front.port) as client:
        for _ in range(10):
            await client.send(b"GET /exapps/direct/static/1000 HTTP/1.1\r\nHost: cloud.example.com\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, len(answer.body)) == (200, 1000)


async def test_an_upload_larger_than_every_default_limit_arrives(front: Front) -> None:
    body = b"".join(static_content(20 << 20))
    async with browser() as session, session.post(front.url("/exapps/direct/upload"), data=BytesIO(body)) as answer:
        assert await answer.json() == {"bytes": len(body), "sha256": sha256(body).hexdigest()}


@pytest.mark.parametrize("app", ["direct", "hello"])
async def test_an_upload_of_unknown_length_arrives(front: Front, app: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        for piece in static_content(3 << 20):
            yield piece

    async with browser() as session, session.post(front.url(f"/exapps/{app}/upload"), data=body()) as answer:
        expected = sha256(b"".join(static_content(3 << 20))).hexdigest()
        assert await answer.json() == {"bytes": 3 << 20, "sha256": expected}


@pytest.mark.parametrize("app", ["direct", "hello"])
async def test_a_download_arrives_whole(front: Front, app: str) -> None:
    size = 20 << 20
    async with browser() as session, session.get(front.url(f"/exapps/{app}/static/{size}")) as answer:
        digest = sha256()
        async for piece in answer.content.iter_any():
            digest.update(piece)
    expected = sha256()
    for piece in static_content(size):
        expected.update(piece)
    assert digest.digest() == expected.digest()


@pytest.mark.parametrize("app", ["direct", "hello"])
async def test_an_event_arrives_before_the_next_one_is_sent(front: Front, app: str) -> None:
    url = front.url(f"/exapps/{app}/sse?interval=3&count=2")
    async with browser() as session, session.get(url) as answer, asyncio.timeout(2):
        assert await answer.content.readuntil(b"\n\n") == b"id: 1\ndata: hello 1\n\n"


@pytest.mark.parametrize("app", ["direct", "hello"])
async def test_a_websocket_passes(front: Front, app: str) -> None:
    url = front.url(f"/exapps/{app}/ws")
    if not front.upgrades:  # HTTP/1.0 has none: a clear refusal, nothing that hangs
        async with browser() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(url)
        return
    async with browser() as session, session.ws_connect(url) as socket:
        await socket.send_str("text")
        assert await socket.receive_str() == "text"
        large = os.urandom(1 << 20)
        await socket.send_bytes(large)
        assert await socket.receive_bytes() == large
        await socket.close(code=4321)
        assert socket.close_code == 1000  # the ExApp's own answer to it


async def test_the_exapp_learns_how_it_was_called(front: Front) -> None:
    headers = {**USER, "Host": "cloud.example.com"}
    async with (
        browser() as session,
        session.get(front.url("/exapps/direct/echo/a%20b//c?d=%20e"), headers=headers) as answer,
    ):
        seen = await answer.json()
    received = {name.lower(): value for name, value in seen["headers"]}
    assert seen["target"] == "/echo/a%20b//c?d=%20e"
    assert received["host"] == "cloud.example.com"
    assert received["x-forwarded-host"] == "cloud.example.com"
    assert received["x-forwarded-proto"] == "http"
    assert received["x-forwarded-prefix"] == "/exapps/direct"
    assert received["x-forwarded-for"].startswith("127.0.0.1")


async def test_the_client_is_seen_and_cannot_forge_its_address(front: Front) -> None:
    path = f"/exapps/direct/static/{front.port}"
    connector = aiohttp.TCPConnector(local_addr=(CLIENT, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(front.url(path), headers={"X-Forwarded-For": "203.0.113.7"}) as answer,
    ):
        assert answer.status == 200
    assert [entry["address"] for entry in front.product.served(path)] == [CLIENT]


async def test_nextcloud_in_a_subfolder(front: Front) -> None:
    async with browser() as session:
        async with session.get(front.url("/nextcloud/exapps/direct/public")) as answer:
            assert (answer.status, await answer.text()) == (200, "Hello stranger, this is /public\n")
        async with session.get(front.url("/nextcloud/exapps/direct/echo"), headers=USER) as answer:
            seen = {name.lower(): value for name, value in (await answer.json())["headers"]}
    assert seen["x-forwarded-prefix"] == "/nextcloud/exapps/direct"


async def test_a_lost_prefix_is_served_and_told(product: Product, tmp_path: Path) -> None:
    port = free_port()
    with Process(nginx(tmp_path, product, port, version="1.1"), tmp_path / "log") as process:
        process.until_listening(port)
        async with (
            browser() as session,
            session.get(f"http://127.0.0.1:{port}/stripped/exapps/direct/public") as answer,
        ):
            assert answer.status == 200
    product.process.until(lambda: "prefix" in product.process.text(), "log line that tells how to repair it")


def test_the_page_shows_the_snippets_as_they_are_tested() -> None:
    page = (DOCS / "reverse-proxies.md").read_text()
    for file in SNIPPETS.iterdir():
        assert f"\n{file.read_text()}```" in page, f"docs/reverse-proxies.md does not show {file.name}"


def test_traefik_and_cloudflared_keep_the_prefix() -> None:
    """Neither is in Debian; at least their snippets do not strip."""
    assert "strip" not in (SNIPPETS / "traefik-compose.yaml").read_text().lower()
    assert "path: ^/exapps/" in (SNIPPETS / "cloudflared.yaml").read_text()
