"""Limits of connections, the access log, and requests that something goes wrong with."""

from __future__ import annotations

import msgspec
import pytest

from harp.errors import Unreachable
from harp.policy.exapp import ExApp
from tests.fakes.clock import Clock
from tests.frontend.gate_world import ROUTES, GateWorld


async def test_an_exapp_that_cannot_be_reached_is_looked_up_again() -> None:
    world = GateWorld()
    world.dialer.errors = [Unreachable("direct-host:8080: No route to host")]
    answer = await world.ask("/exapps/direct/public")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert world.instance.failed == ["direct"]


async def test_connections_of_one_address_are_limited_but_not_those_of_proxies() -> None:
    stranger = GateWorld(HP_MAX_CONNECTIONS_PER_ADDRESS="2")
    stranger.connect()
    refused, _ = stranger.connect()
    assert refused.take().startswith(b"HTTP/1.1 503 ")
    proxy = GateWorld(peer="127.0.0.1", HP_MAX_CONNECTIONS_PER_ADDRESS="2")
    proxy.connect()
    served, _ = proxy.connect()
    assert served.take() == b""


async def test_a_closed_connection_makes_room() -> None:
    world = GateWorld(HP_MAX_CONNECTIONS_PER_ADDRESS="1")
    world.connection.connection_lost(None)
    wire, _ = world.connect()
    assert wire.take() == b""


async def test_all_connections_together_are_limited() -> None:
    world = GateWorld(HP_MAX_CONNECTIONS="1")
    wire, _ = world.connect()
    assert b"all 1 connections are in use" in wire.take()


@pytest.mark.parametrize("part", [b"garbage\r\n\r\n", b"GET /exapps/hel"])
async def test_what_is_no_request_has_nothing_of_the_request_before(part: bytes) -> None:
    """Neither its id nor its time, nor the client that a proxy had named."""
    clock = Clock()
    world = GateWorld(peer="10.0.0.1", clock=clock, HP_TRUSTED_PROXY_IPS="10.0.0.0/8")
    await world.ask(lines="X-Forwarded-For: 8.8.8.8\nX-Request-Id: mine\n")
    world.answer()
    world.connection.data_received(part)
    clock.move(world.settings.timeouts.head + 1)
    world.deadlines.tick()
    assert b"mine" not in world.wire.take()
    await world.gate.close()
    good, bad = [msgspec.json.decode(line) for line in world.log.getvalue().splitlines()]
    assert (good["request_id"], good["address"]) == ("mine", "8.8.8.8")
    assert bad["request_id"] != "mine"
    assert (bad["status"] >= 400, bad["address"], bad["seconds"]) == (True, "10.0.0.1", 0.0)


async def test_a_bug_in_the_decision_is_500_and_not_a_dead_connection() -> None:
    world = GateWorld()
    world.instance.known = {"hello": "not a record"}  # type: ignore[dict-item]
    answer = await world.ask()
    assert answer.startswith(b"HTTP/1.1 500 ")


async def test_a_bug_after_facts_were_learnt_is_500_and_not_a_request_that_waits_for_ever() -> None:
    world = GateWorld()
    world.instance.known = {}
    world.instance.later = {"hello": ExApp("hello", "token", None, "127.0.0.1", 23001, ROUTES)}  # type: ignore[arg-type]
    assert (await world.ask()).startswith(b"HTTP/1.1 500 ")


async def test_a_request_that_nobody_decides_about_in_time_is_503() -> None:
    clock = Clock()
    world = GateWorld(clock=clock)
    world.instance.known = {}
    world.instance.gate.clear()
    assert await world.ask() == b""
    clock.move(world.gate.patience + 0.1)
    world.deadlines.tick()
    assert world.wire.take().startswith(b"HTTP/1.1 503 ")
    world.instance.gate.set()
    assert (await world.ask()).startswith(b"HTTP/1.1 404 ")
