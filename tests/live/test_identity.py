"""Who is calling: what the real product asks Nextcloud, how often, and what it does without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from harp.testing.hello import Hello
from harp.testing.nextcloud import NextcloudStandIn
from tests.live.product import KEY, Product, basic
from tests.live.wire import Client


@pytest.fixture
async def nextcloud() -> AsyncIterator[NextcloudStandIn]:
    async with NextcloudStandIn(KEY) as nextcloud:
        yield nextcloud


@pytest.fixture
async def product(nextcloud: NextcloudStandIn, tmp_path: Path) -> AsyncIterator[Product]:
    """A product of the test's own, with the ExApp "hello" reached directly."""
    product = Product(tmp_path, nextcloud.url, HP_SESSION_LIFETIME="1")
    async with Hello("hello", "secret") as hello:
        nextcloud.register(hello.record("127.0.0.1", hello.port))
        await asyncio.to_thread(product.start)
        yield product
        assert await asyncio.to_thread(product.stop) == 0


async def statuses(product: Product, path: str, count: int = 1, **headers: str) -> set[int]:
    """The statuses of `count` GETs at once."""

    async def ask(session: aiohttp.ClientSession) -> int:
        async with session.get(product.url + path, headers=headers) as answer:
            return answer.status

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        return set(await asyncio.gather(*(ask(session) for _ in range(count))))


def asked(nextcloud: NextcloudStandIn, call: str, app: str) -> int:
    """How often a call was made for an app. (HaRP also asks for none, to see whether Nextcloud answers.)"""
    return sum(request.target.endswith(f"/{call}?appId={app}") for request in nextcloud.requests)


async def test_the_assets_of_a_cold_page_cost_one_call_each_way(product: Product, nextcloud: NextcloudStandIn) -> None:
    cookie = nextcloud.log_in("user")
    assert await statuses(product, "/exapps/hello/user", 200, Cookie=cookie) == {200}
    assert (asked(nextcloud, "exapp-meta", "hello"), asked(nextcloud, "user-info", "hello")) == (1, 1)


async def test_public_pages_of_strangers_cost_no_user_info_call(product: Product, nextcloud: NextcloudStandIn) -> None:
    assert await statuses(product, "/exapps/hello/public", 50) == {200}
    assert asked(nextcloud, "user-info", "hello") == 0


async def test_one_session_is_never_taken_for_another(product: Product, nextcloud: NextcloudStandIn) -> None:
    user, admin = nextcloud.log_in("user"), nextcloud.log_in("admin")
    for _ in range(3):
        assert await statuses(product, "/exapps/hello/admin", 5, Cookie=user) == {403}
        assert await statuses(product, "/exapps/hello/admin", 5, Cookie=admin) == {200}
        assert await statuses(product, "/exapps/hello/admin", 5, Authorization=basic("user", "user")) == {403}
        assert await statuses(product, "/exapps/hello/admin", 5) == {403}


async def test_half_of_a_session_is_nobody(product: Product, nextcloud: NextcloudStandIn) -> None:
    cookie = nextcloud.log_in("admin")
    assert await statuses(product, "/exapps/hello/admin", Cookie=cookie) == {200}
    for half in cookie.split("; "):
        assert await statuses(product, "/exapps/hello/admin", Cookie=half) == {403}


async def test_a_logout_is_seen_within_the_session_lifetime(product: Product, nextcloud: NextcloudStandIn) -> None:
    cookie = nextcloud.log_in("user")
    assert await statuses(product, "/exapps/hello/user", Cookie=cookie) == {200}
    nextcloud.log_out("user")
    async with asyncio.timeout(5):
        while await statuses(product, "/exapps/hello/user", Cookie=cookie) != {403}:
            await asyncio.sleep(0.1)


async def test_nextcloud_gets_a_clean_get_whatever_the_client_sends(
    product: Product, nextcloud: NextcloudStandIn
) -> None:
    cookie = nextcloud.log_in("user")
    head = (
        f"PUT /exapps/hello/echo HTTP/1.1\r\nHost: cloud.example.com\r\nCookie: {cookie}\r\n"
        "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nRange: bytes=0-1\r\nIf-None-Match: a\r\n"
        "X-Own: secret of the app\r\nharp-shared-key: guessed\r\n\r\n"
    )
    async with await Client.connect(product.http) as client:
        await client.send(head.encode())
        answer = await client.answer()
        if answer.status == 100:
            await client.send(b"3\r\nabc\r\n0\r\n\r\n")
            answer = await client.answer()
    assert answer.status == 200
    call = next(request for request in nextcloud.requests if "user-info" in request.target)
    assert call.method == "GET"
    assert call.values("cookie") == [cookie]
    assert call.values("harp-shared-key") == [KEY]
    for name in ("transfer-encoding", "content-length", "expect", "range", "if-none-match", "x-own", "upgrade"):
        assert call.values(name) == [], name


async def test_public_pages_survive_a_nextcloud_that_is_down(product: Product, nextcloud: NextcloudStandIn) -> None:
    cookie = nextcloud.log_in("user")
    assert await statuses(product, "/exapps/hello/public") == {200}
    nextcloud.down = True
    assert await statuses(product, "/exapps/hello/public", 5, Cookie=cookie) == {200}


async def test_other_pages_tell_that_nextcloud_is_down(product: Product, nextcloud: NextcloudStandIn) -> None:
    assert await statuses(product, "/exapps/hello/public") == {200}
    nextcloud.down = True
    async with aiohttp.ClientSession(headers={"Cookie": nextcloud.log_in("user")}) as session:
        async with session.get(f"{product.url}/exapps/hello/user") as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers
            assert "Nextcloud" in await answer.text()
        nextcloud.down = False
        async with asyncio.timeout(10):
            while (await session.get(f"{product.url}/exapps/hello/user")).status != 200:
                await asyncio.sleep(0.1)


async def test_maintenance_mode_is_no_logout(product: Product, nextcloud: NextcloudStandIn) -> None:
    assert await statuses(product, "/exapps/hello/public") == {200}
    nextcloud.status = 503
    assert await statuses(product, "/exapps/hello/user", Cookie=nextcloud.log_in("user")) == {503}
    assert await statuses(product, "/exapps/hello/public") == {200}


async def test_scanners_of_unknown_apps_make_no_storm_of_calls(product: Product, nextcloud: NextcloudStandIn) -> None:
    assert await statuses(product, "/exapps/wp-login/x", 200) == {404}
    assert asked(nextcloud, "exapp-meta", "wp-login") == 1
