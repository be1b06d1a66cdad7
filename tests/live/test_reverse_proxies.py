"""nginx, Apache, Caddy and Traefik in front of HaRP, configured with what `harp setup` prints."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
import yaml
from yarl import URL

from harp.snippets import ProxySite, filled
from harp.testing.hello import static_content
from tests.live.nginx import start_nginx
from tests.live.peers import path_of
from tests.live.processes import Process, free_port
from tests.live.product import Product, basic
from tests.live.traefik import reaches_harp, start_traefik

DOMAIN = "cloud.example.com"
OTHERS = ("Apache", "Caddy", "Traefik")
APACHE_MODULES = Path("/usr/lib/apache2/modules")
CLIENT = "127.0.0.9"  # an address that is not the reverse proxy's
USER = {"Authorization": basic("user", "user")}


@dataclass(frozen=True)
class Front:
    """A running reverse proxy. `upgrades`: it passes WebSockets."""

    port: int
    product: Product
    upgrades: bool = True
    scheme: str = "http"

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"


def sites(product: Product) -> tuple[ProxySite, ProxySite]:
    """Nextcloud at the top of its host, and in a subfolder."""
    site = ProxySite(harp=f"127.0.0.1:{product.http}", domain=DOMAIN)
    return site, site._replace(prefix="/nextcloud")


def snippets(product: Product, file: str) -> str:
    """A file as `harp setup` prints it, for both."""
    return "\n".join(filled(file, site) for site in sites(product))


def nginx(folder: Path, product: Product, port: int, *, version: str) -> Process:
    location = snippets(product, "nginx-location.conf")
    if version == "1.0":  # nginx's default until its 1.29
        location = location.replace("proxy_http_version 1.1;", "")
    stripping = "location ^~ /stripped/exapps/ { proxy_pass http://harp/; }"
    http = filled("nginx-http.conf", sites(product)[0])
    return start_nginx(folder, f"{http} server {{ listen 127.0.0.1:{port}; {location} {stripping} }}")


def nginx_proxy_manager(folder: Path, product: Product, port: int) -> Process:
    location = snippets(product, "nginx-proxy-manager.conf")
    return start_nginx(folder, f"server {{ listen 127.0.0.1:{port}; {location} }}")


def apache(folder: Path, product: Product, port: int) -> Process:
    loaded = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "reqtimeout")
    modules = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in loaded)
    identity = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
    config = f"""
ServerRoot {folder}
ServerName localhost
PidFile {folder}/pid
ErrorLog /dev/stderr
{modules}
{identity}
Listen 127.0.0.1:{port}
<VirtualHost *:{port}>
{snippets(product, "apache.conf")}
</VirtualHost>
"""
    (folder / "apache.conf").write_text(config)
    argv = [path_of("apache2", "apache2"), "-DFOREGROUND", "-f", str(folder / "apache.conf")]
    return Process(argv, folder / "log", env=environment(folder))


def caddy(folder: Path, product: Product, port: int) -> Process:
    config = f"""
{{
    admin off
    auto_https off
    grace_period 1s
    storage file_system {folder}
}}
http://:{port} {{
    bind 127.0.0.1
    {snippets(product, "Caddyfile")}
}}
"""
    (folder / "Caddyfile").write_text(config)
    argv = [path_of("caddy", "caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    return Process(argv, folder / "log", env=environment(folder))


def traefik(folder: Path, product: Product, port: int) -> Process:
    """With a certificate of its own making: the router of the snippet is for HTTPS."""
    (folder / "routes").mkdir()
    for name, site in zip(("top", "subfolder"), sites(product), strict=True):
        (folder / "routes" / f"{name}.yaml").write_text(named(filled("traefik-file.yaml", site), name))
    return start_traefik(folder, port, f"{{file: {{directory: {folder}/routes, watch: false}}}}")


def named(text: str, name: str) -> str:
    """The same router under another name: two files may not have one in common."""
    return text.replace("    harp:", f"    {name}:").replace("service: harp", f"service: {name}")


def environment(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "PATH": os.environ["PATH"]}


@pytest.fixture(scope="module", params=["nginx HTTP/1.1", "nginx HTTP/1.0", "Nginx Proxy Manager", *OTHERS])
def front(
    request: pytest.FixtureRequest, product: Product, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    folder, port = tmp_path_factory.mktemp("front"), free_port()
    match request.param:
        case "Nginx Proxy Manager":
            starting = nginx_proxy_manager(folder, product, port)
        case "Apache":
            starting = apache(folder, product, port)
        case "Caddy":
            starting = caddy(folder, product, port)
        case "Traefik":
            starting = traefik(folder, product, port)
        case name:
            starting = nginx(folder, product, port, version=name[-3:])
    scheme = "https" if request.param == "Traefik" else "http"
    with starting as process:
        process.until_listening(port)
        if scheme == "https":  # Traefik listens before it has a certificate and its routes
            process.until(lambda: reaches_harp(port, DOMAIN), "route")
        yield Front(port, product, upgrades=request.param != "nginx HTTP/1.0", scheme=scheme)


def browser() -> AbstractAsyncContextManager[aiohttp.ClientSession]:
    return session_from("127.0.0.1")


@asynccontextmanager
async def session_from(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser that takes any certificate, on one connection at a time; none is left, not even one ending in TLS."""
    opened: list[socket.socket] = []

    def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
        opened.append(socket.socket(*address[:3]))
        return opened[-1]

    connector = aiohttp.TCPConnector(local_addr=(address, 0), ssl=False, limit=1, socket_factory=open_socket)
    timeout = aiohttp.ClientTimeout(20)
    async with aiohttp.ClientSession(connector=connector, headers={"Host": DOMAIN}, timeout=timeout) as session:
        yield session
    async with asyncio.timeout(20):
        while any(one.fileno() >= 0 for one in opened):
            await asyncio.sleep(0.005)


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
    async with browser() as session:
        for _ in range(10):
            async with session.get(front.url("/exapps/direct/static/1000")) as answer:
                assert (answer.status, len(await answer.read())) == (200, 1000)


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
    async with (
        browser() as session,
        session.get(URL(front.url("/exapps/direct/echo/a%20b//c?d=%20e"), encoded=True), headers=USER) as answer,
    ):
        seen = await answer.json()
    received = {name.lower(): value for name, value in seen["headers"]}
    slashes = "/" if front.scheme == "https" else "//"  # Traefik merges them, unless its sanitizePath is off
    assert seen["target"] == f"/echo/a%20b{slashes}c?d=%20e"
    assert received["host"] == DOMAIN
    assert received["x-forwarded-host"] == DOMAIN
    assert received["x-forwarded-proto"] == front.scheme
    assert received["x-forwarded-prefix"] == "/exapps/direct"
    assert received["x-forwarded-for"].startswith("127.0.0.1")


async def test_the_client_is_seen_and_cannot_forge_its_address(front: Front) -> None:
    path = f"/exapps/direct/static/{front.port}"
    async with (
        session_from(CLIENT) as session,
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
    with nginx(tmp_path, product, port, version="1.1") as process:
        process.until_listening(port)
        async with (
            browser() as session,
            session.get(f"http://127.0.0.1:{port}/stripped/exapps/direct/public") as answer,
        ):
            assert answer.status == 200
    product.process.until(lambda: "prefix" in product.process.text(), "log line that tells how to repair it")


@pytest.mark.parametrize(
    ("host", "path", "service"),
    [
        (DOMAIN, "/exapps/hello/", "http://127.0.0.1:8780"),
        (DOMAIN, "/index.php/exapps/", "http://nextcloud:80"),
        (DOMAIN, "/", "http://nextcloud:80"),
        ("elsewhere.example.com", "/exapps/hello/", "http_status:404"),
    ],
)
def test_rules_of_cloudflared_as_its_documentation_reads_them(host: str, path: str, service: str) -> None:
    """The first rule whose host is the same and whose path, a regular expression, is found; the last takes all."""
    rules = yaml.safe_load(filled("cloudflared.yaml", ProxySite()))["ingress"]
    chosen = (rule for rule in rules if rule.get("hostname") in (None, host) and re.search(rule.get("path", ""), path))
    assert next(chosen)["service"] == service
    assert rules[-1].keys() == {"service"}
