"""HaRP as the gateway: it serves /exapps/, and everything else is Nextcloud's, byte by byte."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest

from harp.testing.hello import static_content
from tests.live.processes import Process, free_port
from tests.live.product import KEY, Product, running
from tests.live.world import World

# What an ExApp sends when it calls Nextcloud back, and what a browser does.
SIGNED = {"AA-VERSION": "4.0.0", "EX-APP-ID": "hello", "EX-APP-VERSION": "1", "AUTHORIZATION-APP-API": "abc"}
BROWSER = {"Cookie": "a=b; oc_sessionPassphrase=c", "Authorization": "Basic abc", "Host": "cloud.example.com"}


@pytest.fixture(scope="module")
def nextcloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a web server in Nextcloud's place."""
    port = free_port()
    log = tmp_path_factory.mktemp("web") / "log"
    with Process([sys.executable, "-m", "tests.live.web_server", str(port)], log) as process:
        process.until_listening(port)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def gateway(world: World, nextcloud: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running(tmp_path_factory.mktemp("gateway"), world.nextcloud, HP_GATEWAY_URL=nextcloud) as product:
        yield product


@asynccontextmanager
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


async def test_exapps_are_served_and_everything_else_is_nextclouds(gateway: Product) -> None:
    async with browser() as session:
        async with session.get(f"{gateway.url}/exapps/direct/public") as answer:
            assert await answer.text() == "Hello stranger, this is /public\n"
        async with session.get(f"{gateway.url}/index.php/login?a=%20b") as answer:
            assert (await answer.json())["target"] == "/index.php/login?a=%20b"
    assert gateway.served("/index.php/login")[0]["verdict"] == "gateway"
    assert gateway.status("/exapps/app_api/info", harp_shared_key=KEY) == 200
    assert gateway.status("/exapps/app_api/info") == 401
    assert gateway.status("/exapps/unknown/x") == 404


async def test_nextcloud_gets_what_browsers_and_exapps_send(gateway: Product) -> None:
    async with browser() as session, session.get(f"{gateway.url}/x", headers={**SIGNED, **BROWSER}) as answer:
        received = {name.lower(): value for name, value in (await answer.json())["headers"]}
    for name, value in {**SIGNED, **BROWSER}.items():
        assert received[name.lower()] == value
    assert received["x-forwarded-for"] == "127.0.0.1"
    assert received["x-forwarded-proto"] == "http"
    assert received["x-forwarded-host"] == "cloud.example.com"


async def test_a_client_cannot_say_who_it_is_where_only_a_trusted_proxy_may(
    world: World, nextcloud: str, tmp_path: Path
) -> None:
    trusted = {"HP_GATEWAY_URL": nextcloud, "HP_TRUSTED_PROXY_IPS": "192.0.2.1"}
    with running(tmp_path, world.nextcloud, **trusted) as product:
        forged = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https", "X-Real-IP": "192.0.2.7"}
        async with browser() as session, session.get(f"{product.url}/x", headers=forged) as answer:
            received = {name.lower(): value for name, value in (await answer.json())["headers"]}
    assert received["x-forwarded-for"] == "127.0.0.1"
    assert received["x-forwarded-proto"] == "http"
    assert "x-real-ip" not in received


async def test_uploads_downloads_and_websockets_pass(gateway: Product) -> None:
    body = b"".join(static_content(20 << 20))
    async with browser() as session:
        async with session.put(f"{gateway.url}/upload", data=BytesIO(body)) as answer:
            assert await answer.json() == {"bytes": len(body), "sha256": sha256(body).hexdigest()}
        async with session.get(f"{gateway.url}/static/{len(body)}") as answer:
            assert await answer.read() == body
        async with session.ws_connect(f"{gateway.url}/ws") as socket:  # as notify_push has it
            await socket.send_str("text")
            assert await socket.receive_str() == "text"


def test_in_a_subfolder_the_control_api_stays_where_appapi_calls_it(
    world: World, nextcloud: str, tmp_path: Path
) -> None:
    url = f"{nextcloud}/nextcloud"
    with running(tmp_path, world.nextcloud, HP_GATEWAY_URL=url) as product:
        assert product.status("/nextcloud/exapps/direct/public") == 200
        assert product.status("/exapps/app_api/info", harp_shared_key=KEY) == 200
        assert product.status("/nextcloud/public") == 200  # Nextcloud's own
        assert product.served("/nextcloud/public")[0]["verdict"] == "gateway"


def test_who_is_banned_still_has_nextcloud(world: World, nextcloud: str, tmp_path: Path) -> None:
    with running(tmp_path, world.nextcloud, HP_GATEWAY_URL=nextcloud, HP_BLACKLIST_COUNT="2") as product:
        for _ in range(2):
            product.status("/exapps/app_api/info", harp_shared_key="a guess")
        assert product.status("/exapps/direct/public") == 429
        assert product.status("/public") == 200


def test_a_nextcloud_that_is_away_is_an_error_of_harps_own_with_a_line_in_the_log(world: World, tmp_path: Path) -> None:
    away = {"HP_GATEWAY_URL": f"http://127.0.0.1:{free_port()}", "HP_LOG_LEVEL": "warning"}
    with running(tmp_path, world.nextcloud, **away) as product:
        assert product.status("/index.php") == 503
        assert product.status("/exapps/direct/public") == 200
        product.process.until(lambda: "request not served" in product.process.text(), "log line")
        assert "Nextcloud" in product.process.text()
