"""The OCS calls of ExApps that the stand-in answers, and how it refuses others."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession

from harp.policy.exapp import ExApp
from harp.testing.nextcloud import NextcloudStandIn
from harp.testing.ocs import LogLine

STORE = "apps/app_api/api/v1/ex-app/preference"


class OcsCalls:
    """Calls in the name of an ExApp."""

    def __init__(self, nextcloud: NextcloudStandIn) -> None:
        self.nextcloud = nextcloud

    async def call(
        self, method: str, path: str, body: Any = None, *, user: str = "", secret: str = "s"
    ) -> tuple[int, Any]:
        """The OCS status code, and data or message."""
        credentials = b64encode(f"{user}:{secret}".encode()).decode()
        headers = {"EX-APP-ID": "hello", "AUTHORIZATION-APP-API": credentials}
        url = f"{self.nextcloud.url}/ocs/v1.php/{path}"
        async with ClientSession() as client, client.request(method, url, json=body, headers=headers) as answer:
            ocs = (await answer.json())["ocs"]
        code = ocs["meta"]["statuscode"]
        return code, ocs["data"] if code == 100 else ocs["meta"]["message"]


@pytest.fixture
async def world() -> AsyncIterator[OcsCalls]:
    async with NextcloudStandIn("key") as nextcloud:
        nextcloud.register(ExApp("hello", "s", "1", "127.0.0.1", 1))
        yield OcsCalls(nextcloud)


async def test_users_and_capabilities_are_there(world: OcsCalls) -> None:
    assert (await world.call("GET", "cloud/users"))[1] == {"users": ["admin", "user"]}
    assert (await world.call("GET", "cloud/users?search=adm"))[1] == {"users": ["admin"]}
    assert (await world.call("GET", "cloud/users/admin"))[1]["groups"] == ["admin"]
    assert (await world.call("GET", "cloud/user", user="user"))[1]["id"] == "user"
    assert "app_api" in (await world.call("GET", "cloud/capabilities"))[1]["capabilities"]


async def test_values_are_kept_for_each_user(world: OcsCalls) -> None:
    await world.call("POST", STORE, {"configKey": "a", "configValue": 1}, user="user")
    keys = {"configKeys": ["a", "b"]}
    assert (await world.call("POST", f"{STORE}/get-values", keys, user="user"))[1] == [
        {"configkey": "a", "configvalue": "1"}
    ]
    assert (await world.call("POST", f"{STORE}/get-values", keys, user="admin"))[1] == []
    assert await world.call("DELETE", STORE, keys, user="user") == (100, 1)
    assert (await world.call("DELETE", STORE, keys, user="user"))[0] == 404
    assert (await world.call("PUT", STORE, keys, user="user"))[0] == 404


async def test_what_an_app_logs_can_be_read(world: OcsCalls) -> None:
    await world.call("POST", "apps/app_api/api/v1/log", {"level": 3, "message": "oh"})
    assert world.nextcloud.ocs.logs == [LogLine("hello", 3, "oh")]


async def test_a_call_that_nobody_stands_in_for_is_an_ocs_404_that_says_how_to_add_it(world: OcsCalls) -> None:
    code, message = await world.call("GET", "apps/notes/api/v1/notes")
    assert (code, message) == (404, "no stand-in for GET /apps/notes/api/v1/notes: harp.ocs(...) adds one")
    world.nextcloud.ocs.answer("get", "/apps/notes/api/v1/notes", [{"id": 1}])
    assert await world.call("GET", "apps/notes/api/v1/notes") == (100, [{"id": 1}])


@pytest.mark.parametrize(("user", "secret"), [("", "wrong"), ("nobody", "s")])
async def test_a_wrong_secret_or_user_is_refused(world: OcsCalls, user: str, secret: str) -> None:
    assert (await world.call("GET", "cloud/users", user=user, secret=secret))[0] == 997


async def test_a_body_without_what_is_needed_is_told_so(world: OcsCalls) -> None:
    assert await world.call("POST", "apps/app_api/api/v1/log", {"level": 1}) == (400, "message is missing")
    assert (await world.call("GET", "cloud/user"))[0] == 404
