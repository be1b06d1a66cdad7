"""What passes to an engine: in which version, in whose name, how long, and what is never shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from harp.control.api import application
from harp.engines.inventory import EngineInventory
from harp.errors import TunnelAway
from harp.net.ports import PortTable
from harp.policy.exapp import ExApp, RecordFact
from harp.settings import load
from tests.fakes.clock import Clock
from tests.fakes.engine import EngineDialer, FakeEngine, serving

pytestmark = pytest.mark.hasty

ENV = {"HP_SHARED_KEY": "a-shared-key-for-tests", "NC_INSTANCE_URL": "http://cloud", "HP_INSTANCE_ID": "one"}
PORT = {"docker-engine-port": "24000"}
SECRET = "APP_SECRET=of-another"
Client = TestClient[web.Request, web.Application]


class NoRecords:
    def put(self, record: ExApp) -> None:
        raise AssertionError(record)

    def delete(self, app_id: str) -> bool:
        raise AssertionError(app_id)

    async def fetch(self, app_id: str) -> RecordFact:
        raise AssertionError(app_id)


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def dialer(fake: FakeEngine) -> AsyncIterator[EngineDialer]:
    async with serving(fake) as dialer:
        yield dialer


@asynccontextmanager
async def asking(dialer: EngineDialer, registries: Path) -> AsyncIterator[Client]:
    registries.write_text('{"auths": {"ghcr.io": {"username": "me", "password": "x"}}}')
    settings = load({**ENV, "HP_REGISTRIES_FILE": str(registries)})
    engines = EngineInventory(settings, dialer, PortTable(), Clock())
    app = application(NoRecords(), settings, lambda address, token: None, engines)
    async with TestClient(TestServer(app)) as client:
        yield client
    await engines.close()


@pytest.fixture
async def client(dialer: EngineDialer, tmp_path: Path) -> AsyncIterator[Client]:
    async with asking(dialer, tmp_path / "registries.json") as client:
        yield client


async def asked(client: Client, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    answer = await client.request(method, f"/engine{path}", headers={**PORT, **headers})
    return answer.status, await answer.text()


async def test_a_ping_passes_in_a_version_that_the_engine_takes(client: Client, fake: FakeEngine) -> None:
    answer = await client.get("/engine/v1.44/_ping", headers=PORT)
    assert (answer.status, await answer.text(), answer.headers["api-version"]) == (200, "OK", "1.41")
    assert [(call.version, call.path) for call in fake.calls] == [("", "/version"), ("1.41", "/_ping")]


async def test_nothing_of_the_callers_headers_reaches_the_engine(client: Client, fake: FakeEngine) -> None:
    await asked(client, "/_ping", Authorization="Basic eDp5", Cookie="a=b", Accept="text/x")
    assert not {"authorization", "cookie", "docker-engine-port"} & {name.lower() for name in fake.calls[-1].headers}
    assert fake.calls[-1].headers["accept"] == "*/*"


@pytest.mark.parametrize("path", ["/containers/json", "/info", "/containers/nc_app_x/archive", "/engine/_ping", ""])
async def test_a_call_that_is_not_on_the_list_is_403(client: Client, fake: FakeEngine, path: str) -> None:
    status, _ = await asked(client, path)
    assert status in (403, 404)
    assert fake.calls == []


async def test_our_own_container_is_shown_as_the_engine_shows_it(client: Client, fake: FakeEngine) -> None:
    fake.add("nc_app_app", "one", Status="running", Running=True)
    status, text = await asked(client, "/v1.44/containers/nc_app_app/json")
    assert (status, json.loads(text)["State"]["Status"]) == (200, "running")


async def test_a_container_that_is_not_there_is_404_in_the_engines_words(client: Client) -> None:
    for verb in ("json", "logs"):
        status, text = await asked(client, f"/v1.44/containers/nc_app_none/{verb}?stdout=true")
        assert (status, json.loads(text)) == (404, {"message": "No such container: nc_app_none"})


@pytest.mark.parametrize("verb", ["json", "logs"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_nothing_of_another_nextclouds_container_is_shown(
    client: Client, fake: FakeEngine, verb: str, method: str
) -> None:
    container = fake.add("nc_app_app", "two", Status="running", Running=True)
    container.log = SECRET.encode()
    container.body["Env"] = [SECRET]
    status, text = await asked(client, f"/v1.44/containers/nc_app_app/{verb}", method)
    assert status == 409
    assert "APP_SECRET" not in text
    assert method == "HEAD" or text.startswith("container nc_app_app belongs to another Nextcloud")
    assert fake.called("GET", "/containers/nc_app_app/logs") == []


async def test_logs_are_those_of_the_very_container_that_is_ours(client: Client, fake: FakeEngine) -> None:
    fake.add("nc_app_app", "one").log = b"\x01\0\0\0\0\0\0\x03ab\n"
    answer = await client.get("/engine/v1.44/containers/nc_app_app/logs?stdout=true&tail=all", headers=PORT)
    assert await answer.read() == b"\x01\0\0\0\0\0\0\x03ab\n"
    assert fake.calls[-1].path == "/containers/id-of-nc_app_app/logs"
    assert fake.calls[-1].query == {"stdout": "true", "tail": "all"}


PULL = "/v1.44/images/create?fromImage=ghcr.io/a/b:1"


@pytest.mark.parametrize(("given", "sent"), [({}, "eyJ"), ({"X-Registry-Auth": "own"}, "own")])
async def test_a_pull_goes_with_our_login_unless_it_has_one(
    client: Client, fake: FakeEngine, given: dict[str, str], sent: str
) -> None:
    fake.bodies["POST", "/images/create"] = b'{"status":"Pulling"}\r\n{"status":"done"}\r\n'
    status, text = await asked(client, PULL, "POST", **given)
    assert (status, text) == (200, '{"status":"Pulling"}\r\n{"status":"done"}\r\n')
    assert fake.calls[-1].query == {"fromImage": "ghcr.io/a/b:1"}
    assert fake.calls[-1].headers["x-registry-auth"].startswith(sent)


async def test_what_went_wrong_inside_a_pull_is_said_when_the_container_cannot_be_made(
    client: Client, fake: FakeEngine
) -> None:
    fake.bodies["POST", "/images/create"] = (
        b'{"status":"Pulling"}\r\n{"errorDetail":{"message":"x"},"error":"failed to register: no space left on device"}'
    )
    assert (await asked(client, PULL, "POST"))[0] == 200
    body = {"name": "app", "image_id": "ghcr.io/a/b:1"}
    answer = await client.post("/docker/exapp/create", json=body, headers=PORT)
    said = "No such image: ghcr.io/a/b:1; its pull failed: failed to register: no space left on device"
    assert answer.status == 503
    assert (await answer.text()).startswith(said)


async def test_a_pull_that_is_refused_is_passed_on_and_remembered(client: Client, fake: FakeEngine) -> None:
    fake.errors["POST", "/images/create"] = (404, "manifest unknown")
    status, text = await asked(client, PULL, "POST")
    assert (status, json.loads(text)) == (404, {"message": "manifest unknown"})
    body = {"name": "app", "image_id": "ghcr.io/a/b:1"}
    answer = await client.post("/docker/exapp/create", json=body, headers=PORT)
    assert "; its pull failed: manifest unknown" in await answer.text()


@pytest.mark.parametrize("path", ["/_ping", "/images/a/json"])
@pytest.mark.parametrize("version", [b'{"Version":"\xff"}', b"[" * 60_000, b"{", b'{"ApiVersion":5}', b" " * (1 << 20)])
async def test_an_engine_that_cannot_be_understood_is_503_in_words(
    client: Client, fake: FakeEngine, path: str, version: bytes
) -> None:
    fake.bodies["GET", "/version"] = version
    async with asyncio.timeout(5):
        status, text = await asked(client, path)
    assert status == 503
    assert "not what its API promises" in text or "more than 65536 bytes" in text


async def test_an_engine_that_is_away_is_503_in_words(client: Client, dialer: EngineDialer) -> None:
    dialer.away = TunnelAway("no tunnel is connected for port 24000")
    status, text = await asked(client, "/v1.44/_ping")
    assert status == 503
    assert "no tunnel is connected for port 24000" in text[:120]


async def test_a_ping_of_a_hung_engine_is_answered_before_appapi_gives_up(
    client: Client, fake: FakeEngine, dialer: EngineDialer, tmp_path: Path
) -> None:
    async with asking(dialer, tmp_path / "registries.json") as another:
        await asked(client, "/_ping")  # this one knows the engine, the other one has still to learn what it is
        fake.silent |= {("GET", "/_ping"), ("GET", "/version")}
        began = asyncio.get_running_loop().time()
        answers = await asyncio.gather(asked(client, "/v1.44/_ping"), asked(another, "/v1.44/_ping"))
        assert asyncio.get_running_loop().time() - began < 2.8
    assert [(status, "within 2." in text[:120]) for status, text in answers] == [(504, True)] * 2, answers


async def test_an_engine_whose_answers_are_odd_is_asked_again_what_it_is(client: Client, fake: FakeEngine) -> None:
    await asked(client, "/v1.44/_ping")
    fake.low, fake.high = "1.44", "1.52"
    assert (await asked(client, "/v1.44/_ping"))[0] == 400
    assert (await asked(client, "/v1.44/_ping"))[0] == 200


async def test_an_answer_larger_than_any_is_not_kept(client: Client, fake: FakeEngine) -> None:
    fake.bodies["GET", "/containers/nc_app_app/json"] = b'{"Id":"' + b"x" * (1 << 20) + b'"}'
    status, text = await asked(client, "/v1.44/containers/nc_app_app/json")
    assert status == 503
    assert "an answer of more than 1048576 bytes" in text
