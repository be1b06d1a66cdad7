"""The control API (A 4.1 to 4.4) over real HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from io import BytesIO

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from harp.control.api import BANNED, application
from harp.engines.verbs import ContainerEngine
from harp.errors import Unreachable
from harp.policy.exapp import ExApp, Level, RecordFact, Route, UnknownApp
from harp.settings import load

Client = TestClient[Request, Application]

KEY = "the shared key of these tests"
SETTINGS = load({"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "https://cloud.example.com"})
PUSHED = {"exapp_token": "t0ken", "exapp_version": "1.2.3", "host": "127.0.0.1", "port": 23001}


class InstanceOfApi:
    """Keeps records in a dict; raises `trouble` when there is some."""

    def __init__(self) -> None:
        self.records: dict[str, ExApp] = {}
        self.trouble: Exception | None = None

    def put(self, record: ExApp) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.records[record.app_id] = record

    def delete(self, app_id: str) -> bool:
        return self.records.pop(app_id, None) is not None

    async def fetch(self, app_id: str) -> RecordFact:
        return self.records.get(app_id) or UnknownApp()


class NoEngines:
    """No test here needs an engine."""

    async def engine(self, port: int, patience: float = 15.0) -> ContainerEngine:
        raise AssertionError(port)

    def name(self, port: int) -> str:
        raise AssertionError(port)

    def doubt(self, port: int) -> None:
        raise AssertionError(port)


class Doorkeeper:
    """Knows the key, one banned address, and who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, address: str, token: str) -> str | None:
        self.asked.append((address, token))
        if address == "192.0.2.66":
            return BANNED
        return None if token == KEY else "wrong token"


@pytest.fixture
def instance() -> InstanceOfApi:
    return InstanceOfApi()


@pytest.fixture
def doorkeeper() -> Doorkeeper:
    return Doorkeeper()


@pytest.fixture
async def client(instance: InstanceOfApi, doorkeeper: Doorkeeper) -> AsyncIterator[Client]:
    async with TestClient(TestServer(application(instance, SETTINGS, doorkeeper, NoEngines()))) as client:
        yield client


async def test_heartbeat_says_ok(client: Client) -> None:
    answer = await client.get("/heartbeat")
    assert (answer.status, await answer.text()) == (200, '{"status": "ok"}')
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


async def test_info_has_a_version_of_three_parts_that_appapi_accepts(client: Client) -> None:
    answer = await client.get("/info")
    info = await answer.json()
    assert tuple(int(part) for part in info["version"].split(".")) >= (0, 4, 5)
    assert info["docker"] is True
    assert info["kubernetes"] == {"enabled": False}


async def test_a_pushed_record_is_stored_under_its_lower_cased_id(client: Client, instance: InstanceOfApi) -> None:
    routes = [
        {"url": "^/api", "access_level": 1, "bruteforce_protection": [401, 429], "verb": "GET"},
        {"url": ".*", "access_level": 0},
    ]
    answer = await client.post("/exapp_storage/Hello", json={**PUSHED, "routes": routes})
    assert (answer.status, await answer.read()) == (204, b"")
    assert instance.records == {
        "hello": ExApp(
            "hello",
            "t0ken",
            "1.2.3",
            "127.0.0.1",
            23001,
            (Route("^/api", Level.USER, frozenset({401, 429})), Route(".*", Level.PUBLIC)),
        )
    }


async def test_a_record_without_routes_and_content_type_is_fine(client: Client, instance: InstanceOfApi) -> None:
    answer = await client.post("/exapp_storage/hello", data=json.dumps(PUSHED).encode())
    assert answer.status == 204
    assert instance.records["hello"].routes == ()


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 24001), ("localhost", 8200), ("127.1", 9000)])
async def test_a_pushed_record_cannot_lead_to_an_engine_or_to_ourselves(
    client: Client, instance: InstanceOfApi, host: str, port: int
) -> None:
    answer = await client.post("/exapp_storage/hello", json={**PUSHED, "host": host, "port": port})
    assert answer.status == 400
    assert (await answer.text()).startswith("Payload validation error: host, port: ")
    assert instance.records == {}


async def test_numbers_may_be_numeric_strings_or_integral_floats(client: Client, instance: InstanceOfApi) -> None:
    routes = [{"url": "a", "access_level": "2", "bruteforce_protection": ["401", 429.0]}]
    answer = await client.post("/exapp_storage/hello", json={**PUSHED, "port": "23002", "routes": routes})
    assert answer.status == 204
    assert instance.records["hello"].port == 23002
    assert instance.records["hello"].routes == (Route("a", Level.ADMIN, frozenset({401, 429})),)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"port": None}, "port: Expected int, got null"),
        ({"port": "a port"}, "port: Expected int, got str"),
        ({"port": 70000}, "port: Expected int <= 65535"),
        ({"exapp_token": 5}, "exapp_token: Expected str, got int"),
        ({"routes": None}, "routes: Expected array, got null"),
        ({"routes": [{"access_level": 1}]}, "routes[0].url: field required"),
        ({"routes": [{"url": "a", "access_level": 3}]}, "routes[0].access_level: Expected int <= 2"),
        ({"routes": [{"url": "a", "access_level": -1}]}, "routes[0].access_level: Expected int >= 0"),
    ],
)
async def test_a_record_of_another_shape_is_400_and_the_text_names_the_field(
    client: Client, instance: InstanceOfApi, change: dict[str, object], text: str
) -> None:
    answer = await client.post("/exapp_storage/hello", json={**PUSHED, **change})
    assert answer.status == 400
    assert await answer.text() == f"Payload validation error: {text}"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert instance.records == {}


@pytest.mark.parametrize("missing", ["exapp_token", "exapp_version", "host", "port"])
async def test_every_required_key_is_required(client: Client, missing: str) -> None:
    body = {key: value for key, value in PUSHED.items() if key != missing}
    answer = await client.post("/exapp_storage/hello", json=body)
    assert (answer.status, await answer.text()) == (400, f"Payload validation error: {missing}: field required")


@pytest.mark.parametrize("body", [b"", b"{", b"port=1", b"[" * 100_000])
async def test_a_body_that_is_no_json_is_400(client: Client, body: bytes) -> None:
    answer = await client.post("/exapp_storage/hello", data=body)
    assert (answer.status, await answer.text()) == (400, "Invalid JSON body")


async def test_text_that_is_not_utf8_is_400(client: Client) -> None:
    assert (await client.post("/exapp_storage/hello", data=b'{"exapp_token": "\xff"}')).status == 400


async def test_a_version_that_would_break_a_header_is_400(client: Client, instance: InstanceOfApi) -> None:
    answer = await client.post("/exapp_storage/hello", json={**PUSHED, "exapp_version": "1\r\nX-Evil: 1"})
    assert answer.status == 400
    assert "Evil" not in await answer.text()
    assert instance.records == {}


async def test_a_json_value_that_is_no_object_is_400(client: Client) -> None:
    answer = await client.post("/exapp_storage/hello", json=[1])
    assert (answer.status, await answer.text()) == (400, "Payload validation error: body: Expected object, got array")


async def test_a_body_of_more_than_16_mib_is_413(client: Client) -> None:
    answer = await client.post("/exapp_storage/hello", data=BytesIO(b" " * (16 * 1024 * 1024 + 1)))
    assert answer.status == 413


async def test_a_record_is_deleted_once_and_then_404(client: Client) -> None:
    await client.post("/exapp_storage/hello", json=PUSHED)
    assert (await client.delete("/exapp_storage/HELLO")).status == 204
    answer = await client.delete("/exapp_storage/hello")
    assert (answer.status, await answer.text()) == (404, "404: Not Found")


async def test_an_unknown_path_is_404_and_a_wrong_method_405(client: Client) -> None:
    unknown = await client.get("/nothing")
    assert (unknown.status, await unknown.text()) == (404, "404: Not Found")
    wrong = await client.post("/info")
    assert (wrong.status, await wrong.text()) == (405, "405: Method Not Allowed")


async def test_head_works_where_get_does(client: Client) -> None:
    answer = await client.head("/info")
    assert (answer.status, await answer.read()) == (200, b"")


def login(address: str, **content: object) -> dict[str, object]:
    return {"version": "0.1.0", "op": "Login", "content": {"client_address": address, **content}}


async def test_an_frp_login_with_the_key_is_accepted_unchanged(client: Client, doorkeeper: Doorkeeper) -> None:
    answer = await client.post("/frp_handler?op=Login", json=login("192.0.2.1:5000", metas={"token": KEY}))
    assert (answer.status, await answer.json()) == (200, {"reject": False, "unchange": True})
    assert doorkeeper.asked == [("192.0.2.1", KEY)]


@pytest.mark.parametrize("address", ["[2001:db8::1]:5000", "2001:db8::1:5000"])
async def test_an_ipv6_client_of_frps_is_known_by_its_whole_address(
    client: Client, doorkeeper: Doorkeeper, address: str
) -> None:
    await client.post("/frp_handler", json=login(address, metas={"token": KEY}))
    assert doorkeeper.asked == [("2001:db8::1", KEY)]


async def test_a_banned_client_of_frps_is_rejected_in_words(client: Client) -> None:
    answer = await client.post("/frp_handler", json=login("192.0.2.66:5000", metas={"token": KEY}))
    assert (answer.status, await answer.json()) == (200, {"reject": True, "reject_reason": "banned"})


async def test_a_wrong_token_and_no_token_are_400_and_the_doorkeeper_hears_of_both(
    client: Client, doorkeeper: Doorkeeper
) -> None:
    wrong = await client.post("/frp_handler", json=login("192.0.2.1:5000", metas={"token": "guess"}))
    assert wrong.status == 400
    assert "guess" not in await wrong.text()
    assert (await client.post("/frp_handler", json=login("192.0.2.1:5000"))).status == 400
    assert (await client.post("/frp_handler", json=login("192.0.2.1:5000", metas=None))).status == 400
    assert doorkeeper.asked == [("192.0.2.1", "guess"), ("192.0.2.1", ""), ("192.0.2.1", "")]


@pytest.mark.parametrize("body", [{}, {"content": {}}, {"content": {"client_address": "192.0.2.1"}}, {"content": 1}])
async def test_a_login_without_an_address_is_400_and_not_counted(
    client: Client, doorkeeper: Doorkeeper, body: dict[str, object]
) -> None:
    assert (await client.post("/frp_handler", json=body)).status == 400
    assert doorkeeper.asked == []


async def test_an_error_of_ours_gets_its_own_status_and_words(client: Client, instance: InstanceOfApi) -> None:
    instance.trouble = Unreachable("engine 24001 is not connected")
    answer = await client.post("/exapp_storage/hello", json=PUSHED)
    assert (answer.status, await answer.text()) == (503, "engine 24001 is not connected")


async def test_a_bug_is_a_bare_500_without_its_text(client: Client, instance: InstanceOfApi) -> None:
    instance.trouble = RuntimeError("t0ken")
    answer = await client.post("/exapp_storage/hello", json=PUSHED)
    assert answer.status == 500
    assert await answer.text() == "500 Internal Server Error\n\nServer got itself in trouble"
