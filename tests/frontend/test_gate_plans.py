"""Decisions are kept for whoever asks the same, and no longer than their facts."""

from __future__ import annotations

import pytest

from harp.frontend.gate import FORGET
from harp.frontend.plans import LIFETIME
from harp.policy.exapp import ExApp, Level, Route, UnknownApp, Visitor
from harp.settings import load
from tests.fakes.clock import Clock
from tests.frontend.gate_world import ENV, KEY, GateWorld

OPEN = ExApp("hello", "token", "1", "127.0.0.1", 23001, (Route(".*", Level.PUBLIC),))


class Settled:
    """A world in which nothing changes by itself, with ExApps that answer at once."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        self.clock = Clock()
        self.world = GateWorld(peer=peer, clock=self.clock)
        self.world.instance.settled = True
        self.instance = self.world.instance

    def pass_time(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.world.deadlines.tick()

    async def ask(self, lines: str = "", path: str = "/exapps/hello/user") -> str:
        """The status of a GET."""
        answer = await self.world.ask(path, lines) or self.world.answer()
        return answer.split(b" ")[1].decode()


async def test_a_caller_that_comes_back_is_decided_about_no_more_while_nothing_changes() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    session = "Cookie: oc_sessionPassphrase=alice\n"
    assert [await settled.ask(session) for _ in range(5)] == ["200"] * 5
    assert settled.instance.asked == ["hello"]
    assert "authorization-app-api: YWxpY2U6dG9rZW4=" in settled.world.forwarded()


async def test_each_route_is_decided_about_by_itself() -> None:
    settled = Settled()
    assert await settled.ask(path="/exapps/hello/public") == "200"
    assert await settled.ask(path="/exapps/hello/user") == "403"
    assert await settled.ask(path="/exapps/hello/public?secret=1") == "200"
    assert settled.instance.asked == ["hello", "hello"]


async def test_a_decision_counts_for_the_first_request_of_another_connection_and_other_header_lines() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    for number in range(5):
        settled.world.wire, settled.world.connection = settled.world.connect()
        assert await settled.ask(f"Cookie: oc_sessionPassphrase=alice\nX-Number: {number}\n") == "200"
    assert settled.instance.asked == ["hello"]


async def test_a_change_of_the_facts_counts_at_once() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    session = "Cookie: oc_sessionPassphrase=alice\n"
    assert [await settled.ask(session) for _ in range(3)] == ["200"] * 3
    settled.instance.known["hello"] = UnknownApp()
    settled.instance.settled = False  # another version
    assert await settled.ask(session) == "404"


async def test_a_session_that_ends_counts_after_a_tick_at_the_latest() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    settled.instance.until = settled.clock() + 1.5
    session = "Cookie: oc_sessionPassphrase=alice\n"
    assert [await settled.ask(session) for _ in range(3)] == ["200"] * 3
    settled.instance.who = Visitor("", Level.PUBLIC)
    settled.pass_time(1.0)
    assert await settled.ask(session) == "200"
    settled.pass_time(0.5)
    assert await settled.ask(session) == "403"


async def test_no_decision_is_kept_for_long() -> None:
    settled = Settled()
    for _ in range(3):
        assert await settled.ask(path="/exapps/hello/public") == "200"
        settled.pass_time(LIFETIME)
    assert settled.instance.asked == ["hello"] * 3


async def test_the_paths_of_one_route_are_decided_about_together() -> None:
    settled = Settled()
    for number in range(5):
        assert await settled.ask(path=f"/exapps/hello/public/{number}") == "200"
        assert settled.world.forwarded()[0].startswith(f"GET /public/{number} ")
    assert settled.instance.asked == ["hello"]


async def test_internal_paths_and_those_without_exapps_are_decided_about_each_time() -> None:
    settled = Settled()
    settled.instance.known["hello"] = OPEN
    assert await settled.ask(path="/exapps/hello/public") == "200"
    assert await settled.ask(path="/exapps/hello/heartbeat") == "403"
    for number in range(2):
        assert await settled.ask(path=f"/hello/public/{number}") == "200"
    assert settled.instance.asked == ["hello"] * 4


@pytest.mark.parametrize("other", ["", "Cookie: oc_sessionPassphrase=bob\n", "Authorization: Basic Ym9iOng=\n"])
async def test_a_decision_about_one_caller_is_no_other_ones(other: str) -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    assert [await settled.ask("Cookie: oc_sessionPassphrase=alice\n") for _ in range(3)] == ["200"] * 3
    settled.instance.who = Visitor("", Level.PUBLIC)
    assert await settled.ask(other) == "403"


async def test_a_decision_about_one_address_is_no_other_ones() -> None:
    settled = Settled()  # a private peer: the ban key is the address it names
    assert await settled.ask("X-Forwarded-For: 1.1.1.1\n", "/exapps/hello/public") == "200"
    settled.instance.ban = 60.0
    assert await settled.ask("X-Forwarded-For: 2.2.2.2\n", "/exapps/hello/public") == "429"


async def test_a_decision_about_a_call_with_the_shared_key_is_for_that_key_alone() -> None:
    settled = Settled()
    for _ in range(2):
        assert await settled.ask(f"Harp-Shared-Key: {KEY}\n", "/exapps/hello/public") == "200"
    settled.instance.ban = 60.0
    for lines in ("", "Harp-Shared-Key: wrong\n"):
        assert await settled.ask(lines, "/exapps/hello/public") == "429"


async def test_a_strike_counts_each_time() -> None:
    settled = Settled()
    settled.instance.who = Visitor("", Level.PUBLIC, refused=True)
    for _ in range(2):
        assert await settled.ask("Authorization: Basic Ym9iOng=\n", "/exapps/hello/public") == "200"
    assert len(settled.instance.strikes) == 2


async def test_other_trusted_proxies_count_on_open_connections() -> None:
    world = GateWorld(peer="10.0.0.1", HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    world.instance.settled = True
    for proxies, expected in (("10.0.0.0/8", "1.1.1.1, 10.0.0.1"), ("192.168.0.0/16", "10.0.0.1")):
        world.gate.reload(load({**ENV, "HP_TRUSTED_PROXY_IPS": proxies}))
        await world.ask(lines="X-Forwarded-For: 1.1.1.1\n")
        assert f"x-forwarded-for: {expected}" in world.forwarded()
        world.answer()


async def test_what_clients_repeat_is_read_anew_after_a_minute() -> None:
    settled = Settled()
    settled.instance.who = Visitor("alice", Level.USER)
    session = "Cookie: oc_sessionPassphrase=alice\nX-Forwarded-For: 1.1.1.1\n"
    for number in range(3):
        assert await settled.ask(f"{session}X-Number: {number}\n") == "200"
    assert settled.instance.digested == 1
    settled.pass_time(FORGET)
    assert await settled.ask(session) == "200"
    assert settled.instance.digested == 2


async def test_an_id_that_a_proxy_gives_is_of_one_request() -> None:
    settled = Settled()
    for name in ("one", "two", "not an id"):
        assert await settled.ask(f"X-Request-Id: {name}\n", "/exapps/hello/public") == "200"
        lines = settled.world.forwarded()
        assert (f"x-request-id: {name}" in lines) is (name != "not an id")
