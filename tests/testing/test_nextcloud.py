"""The Nextcloud stand-in answers as A 5 says a Nextcloud does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import ClientSession, encode_basic_auth

from harp.policy.exapp import ExApp, Level, Route
from harp.testing.nextcloud import NextcloudStandIn

KEY = 'schlüssel mit "Zeichen" \\ #'
APP = ExApp("hello", "t0ken", "1.0.0", "127.0.0.1", 23000, (Route("^/a", Level.USER, frozenset({429, 401})),))
META = "/index.php/apps/app_api/harp/exapp-meta?appId=hello"
USER_INFO = "/index.php/apps/app_api/harp/user-info?appId=hello"


@pytest.fixture
async def nextcloud() -> AsyncIterator[NextcloudStandIn]:
    async with NextcloudStandIn(KEY) as nextcloud:
        nextcloud.register(APP)
        yield nextcloud


@pytest.fixture
async def client(nextcloud: NextcloudStandIn) -> AsyncIterator[ClientSession]:
    jar = aiohttp.DummyCookieJar()
    async with ClientSession(nextcloud.url, headers={"harp-shared-key": KEY}, cookie_jar=jar) as client:
        yield client


async def test_metadata_of_a_known_app(client: ClientSession, nextcloud: NextcloudStandIn) -> None:
    answer = await client.get(META)
    assert answer.status == 200
    assert await answer.json() == {
        "exapp_token": "t0ken",
        "exapp_version": "1.0.0",
        "host": "127.0.0.1",
        "port": 23000,
        "routes": [{"url": "^/a", "access_level": 1, "bruteforce_protection": [401, 429]}],
    }
    assert nextcloud.calls == {"exapp-meta": 1}


async def test_an_unknown_app_and_a_wrong_key_get_the_same_401(
    client: ClientSession, nextcloud: NextcloudStandIn
) -> None:
    wrong_key = await client.get(META, headers={"harp-shared-key": "guess"})
    nextcloud.forget("HELLO")
    unknown = await client.get(META)
    for answer in (wrong_key, unknown):
        assert answer.status == 401
        assert await answer.json() == {"message": "Harp shared key is not valid"}


@pytest.mark.parametrize(
    ("auth", "info"),
    [
        (None, {"user_id": "", "access_level": 0}),
        (encode_basic_auth("user", "user"), {"user_id": "user", "access_level": 1}),
        (encode_basic_auth("admin", "admin"), {"user_id": "admin", "access_level": 2}),
    ],
)
async def test_basic_credentials_decide_who_it_is(
    client: ClientSession, auth: str | None, info: dict[str, object]
) -> None:
    headers = {} if auth is None else {"Authorization": auth}
    answer = await client.get(USER_INFO, headers=headers)
    assert (answer.status, await answer.json()) == (200, info)


async def test_wrong_basic_credentials_are_refused_by_nextcloud(client: ClientSession) -> None:
    for value in (encode_basic_auth("user", "guess"), encode_basic_auth("nobody", ""), "Basic !"):
        answer = await client.get(USER_INFO, headers={"Authorization": value})
        assert answer.status == 401


async def test_a_session_needs_both_cookies_and_ends(client: ClientSession, nextcloud: NextcloudStandIn) -> None:
    cookie = nextcloud.log_in("user")
    answer = await client.get(USER_INFO, headers={"Cookie": cookie})
    assert await answer.json() == {"user_id": "user", "access_level": 1}
    half = await client.get(USER_INFO, headers={"Cookie": cookie.split("; ")[0]})
    assert await half.json() == {"user_id": "", "access_level": 0}
    nextcloud.log_out("user")
    ended = await client.get(USER_INFO, headers={"Cookie": cookie})
    assert (ended.status, await ended.json()) == (200, {"user_id": "", "access_level": 0})


async def test_the_login_form_sets_the_cookies_of_a_session(nextcloud: NextcloudStandIn) -> None:
    headers = {"harp-shared-key": KEY}
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of an IP address
    async with ClientSession(nextcloud.url, headers=headers, cookie_jar=jar) as browser:
        assert (await browser.post("/login", data={"user": "admin", "password": "guess"})).status == 401
        assert "<form" in await (await browser.get("/login")).text()
        assert (await browser.post("/login", data={"user": "admin", "password": "admin"})).status == 200
        answer = await browser.get(USER_INFO)
        assert await answer.json() == {"user_id": "admin", "access_level": 2}


async def test_a_disabled_user_keeps_its_id_and_loses_its_level(
    client: ClientSession, nextcloud: NextcloudStandIn
) -> None:
    nextcloud.users["admin"].enabled = False
    answer = await client.get(USER_INFO, headers={"Authorization": encode_basic_auth("admin", "admin")})
    assert await answer.json() == {"user_id": "admin", "access_level": 0}


async def test_user_info_with_a_wrong_key_is_401(client: ClientSession) -> None:
    assert (await client.get(USER_INFO, headers={"harp-shared-key": "guess"})).status == 401


async def test_down_means_a_connection_without_an_answer_and_up_again(
    client: ClientSession, nextcloud: NextcloudStandIn
) -> None:
    nextcloud.down = True
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get(META)
    nextcloud.down = False
    assert (await client.get(META)).status == 200


async def test_stopped_means_no_listener_and_started_again_means_the_same_port(
    client: ClientSession, nextcloud: NextcloudStandIn
) -> None:
    url = nextcloud.url
    await nextcloud.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await client.get(META)
    await nextcloud.start()
    assert nextcloud.url == url
    assert (await client.get(META)).status == 200


async def test_a_status_and_a_body_can_stand_for_the_answer(client: ClientSession, nextcloud: NextcloudStandIn) -> None:
    nextcloud.status, nextcloud.body = 200, b"<html>"
    answer = await client.get(META)
    assert (answer.status, await answer.read()) == (200, b"<html>")
    nextcloud.status = 503
    assert (await client.get(META)).status == 503


async def test_every_request_is_remembered_with_its_headers(client: ClientSession, nextcloud: NextcloudStandIn) -> None:
    await client.get(USER_INFO, headers={"X-Forwarded-For": "192.0.2.1"})
    request = nextcloud.requests[-1]
    assert (request.method, request.target) == ("GET", USER_INFO)
    assert request.values("x-forwarded-for") == ["192.0.2.1"]
    assert KEY not in repr(request)
