"""The admin API over the admin listener, byte by byte: what is shown, what may be changed, and by whom."""

from __future__ import annotations

import msgspec
import pytest

from harp.frontend.connection import ClientConnection
from harp.settings import load
from harp.status.admin import AdminGate
from harp.status.api import StatusApi
from harp.status.pages import Pages
from tests.fakes.clock import Clock
from tests.fakes.facts import FakeFacts
from tests.fakes.transport import MemoryTransport

SETTINGS = load({"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud"})
OURS = "Sec-Harp-Admin: harp\r\n"


class AdminApi:
    def __init__(self) -> None:
        self.facts = FakeFacts()
        self.gate = AdminGate(SETTINGS, Pages(self.facts), Clock().deadlines, StatusApi(self.facts))

    def ask(self, method: str, target: str, lines: str = OURS, peer: str = "127.0.0.1") -> tuple[int, object]:
        connection, wire = ClientConnection(self.gate, secure=False), MemoryTransport((peer, 4000) if peer else "")
        connection.connection_made(wire)
        connection.data_received(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())
        head, _, body = wire.take().partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), msgspec.json.decode(body) if body else None


@pytest.fixture
async def world() -> AdminApi:
    return AdminApi()


@pytest.mark.parametrize("what", ["apps", "bans", "certificates", "cluster", "engines", "tunnels"])
async def test_a_list_is_an_object_with_room_for_more(world: AdminApi, what: str) -> None:
    status, told = world.ask("GET", f"/api/v1/{what}", lines="", peer="192.0.2.1")
    assert status == 200
    assert isinstance(told, dict)
    assert list(told) == [what]


async def test_the_snapshot_has_everything_under_the_same_names(world: AdminApi) -> None:
    _, told = world.ask("GET", "/api/v1/snapshot")
    assert isinstance(told, dict)
    for what in ("apps", "bans", "certificates", "cluster", "engines", "tunnels"):
        assert world.ask("GET", f"/api/v1/{what}") == (200, {what: told[what]})
    assert world.ask("GET", "/api/v1/process") == (200, told["process"])


async def test_a_ban_is_lifted_by_its_address(world: AdminApi) -> None:
    assert world.ask("DELETE", "/api/v1/bans/8.8.4.4") == (200, {"lifted": "8.8.4.4"})
    assert world.ask("DELETE", "/api/v1/bans/8.8.4.4") == (404, {"error": "8.8.4.4 is not banned"})


async def test_an_address_with_a_slash_or_a_blank_is_written_in_percents(world: AdminApi) -> None:
    assert world.ask("DELETE", "/api/v1/bans/2001:db8::%2F64%20(hello)") == (200, {"lifted": "2001:db8::/64 (hello)"})


@pytest.mark.parametrize(("method", "target"), [("DELETE", "/api/v1/bans/8.8.4.4"), ("PUT", "/api/v1/logs?level=info")])
async def test_only_this_host_changes_anything_and_no_web_page_makes_it(
    world: AdminApi, method: str, target: str
) -> None:
    for lines, peer in ((OURS, "192.0.2.1"), (OURS, "::ffff:192.0.2.1"), ("", "127.0.0.1"), ("", "")):
        assert world.ask(method, target, lines, peer)[0] == 403
    assert world.facts.changes == []
    for peer in ("", "::1", "127.0.0.2"):
        world.ask(method, target, OURS, peer)
    assert len(world.facts.changes) >= 1


async def test_the_tunnel_of_an_engine_is_ended_by_its_name(world: AdminApi) -> None:
    assert world.ask("DELETE", "/api/v1/engines/gpu1") == (200, {"ended": 1})
    assert world.ask("DELETE", "/api/v1/engines/gpu%2F2") == (200, {"ended": 0})
    assert world.facts.changes == ["gpu1", "gpu/2"]
    assert world.ask("DELETE", "/api/v1/engines/gpu1", "")[0] == 403


async def test_logs_are_changed_in_part_or_both(world: AdminApi) -> None:
    assert world.ask("PUT", "/api/v1/logs?level=debug") == (200, {"level": "debug", "access": "off"})
    assert world.ask("PUT", "/api/v1/logs?access=errors") == (200, {"level": "debug", "access": "errors"})
    assert world.ask("PUT", "/api/v1/logs?level=error&access=all") == (200, {"level": "error", "access": "all"})


@pytest.mark.parametrize("query", ["level=loud", "access=some", "color=red", "level="])
async def test_what_logs_do_not_have_is_400(world: AdminApi, query: str) -> None:
    assert world.ask("PUT", f"/api/v1/logs?{query}")[0] == 400
    assert world.facts.changes == []


@pytest.mark.parametrize(
    ("method", "target"), [("POST", "bans"), ("DELETE", "apps"), ("GET", "bans/8.8.4.4"), ("POST", "logs")]
)
async def test_another_method_is_405(world: AdminApi, method: str, target: str) -> None:
    assert world.ask(method, f"/api/v1/{target}")[0] == 405


@pytest.mark.parametrize("target", ["/api/v1/", "/api/v1/nothing"])
async def test_any_other_path_is_told_what_there_is(world: AdminApi, target: str) -> None:
    status, told = world.ask("GET", target)
    assert status == 404
    assert "bans" in str(told)


@pytest.mark.parametrize("what", ["problems", "requests", "requests?app=hello", "openapi.json", "cluster"])
async def test_what_is_no_list_of_lines_is_answered_as_well(world: AdminApi, what: str) -> None:
    status, told = world.ask("GET", f"/api/v1/{what}")
    assert status == 200
    assert isinstance(told, dict)


async def test_the_description_names_every_path_there_is_and_no_other(world: AdminApi) -> None:
    _, told = world.ask("GET", "/api/v1/openapi.json")
    assert isinstance(told, dict)
    _, refused = world.ask("GET", "/api/v1/")
    assert isinstance(refused, dict)
    named = (
        refused["error"]
        .removeprefix("/api/v1/ has ")
        .replace("ADDRESS", "{address}")
        .replace("NAME", "{name}")
        .split(", ")
    )
    assert sorted(told["paths"]) == sorted(f"/{name}" for name in named)


async def test_requests_are_read_and_not_changed(world: AdminApi) -> None:
    assert world.ask("POST", "/api/v1/requests")[0] == 405
