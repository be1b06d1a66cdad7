"""Connections that have not logged in (F 1.2, F 8.1)."""

from __future__ import annotations

import socket

import pytest
from msgspec.structs import replace
from structlog.typing import EventDict

from harp.settings import Settings
from harp.wire import frp, yamux
from harp.wire.frp import LoginResp, Ping
from harp.wire.frp_login import LINK_BYTE
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder
from tests.fakes.waiting import settled, until
from tests.tunnel.peer import good_login
from tests.tunnel.server.world import Start, TunnelWorld, closed, told

FEW = 5


@pytest.mark.parametrize("first", [b"GET /~!frp HTTP/1.1\r\n", b"SSH-2.0", b"p\0\0"])
async def test_other_protocols_are_closed_without_an_answer(world: TunnelWorld, first: bytes) -> None:
    end = await world.raw(first)
    await end.until(event="lost")
    assert not end.received


async def test_a_check_that_connects_and_closes_is_not_worth_a_line(
    world: TunnelWorld, logged: list[EventDict]
) -> None:
    end = await world.raw()
    await until(lambda: world.server.pending)
    end.transport.close()
    await until(lambda: not world.server.pending)
    assert told(logged) == []


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\x17",
        b"\x16\x03\x01",
        b"o\0",
        b"FRP",
        b"\0",
        yamux.ping(0),
        yamux.window_update(1, 0, yamux.SYN) + yamux.data_header(1, 3) + b"o\0\0",
    ],
)
async def test_a_connection_without_a_login_is_closed_after_10_seconds(
    world: TunnelWorld, clock: Clock, first: bytes
) -> None:
    end = await world.raw(first)
    await until(lambda: world.server.pending)
    await settled()
    clock.move(9.5)
    await settled()
    assert "lost" not in end.events
    clock.move(0.5)
    assert await closed(end)
    assert world.server.pending == 0


async def test_before_the_login_there_is_one_stream(world: TunnelWorld) -> None:
    client = world.client()
    await client.connect()
    second = await client.stream()
    await second.until(event="lost")
    assert isinstance(second.error, ConnectionResetError)
    client.control.send(good_login())
    assert (await client.control.next(LoginResp)).error == ""


@pytest.mark.parametrize(
    "first",
    [
        frp.encode(Ping(), 1),
        frp.encode(frp.NewProxy("a", remote_port=23001), 1),
        frp.V1_HEADER.pack(b"v", 2) + b"{}",
        frp.V1_HEADER.pack(b"o", 10241),
        frp.V1_HEADER.pack(b"o", 2) + b"[]",
    ],
)
async def test_another_first_message_closes_the_stream_without_an_answer(world: TunnelWorld, first: bytes) -> None:
    client = world.client()
    await client.connect()
    client.control.send_raw(first)
    await client.control.end.until(event="end")
    assert not client.control.end.received


async def crowd(world: TunnelWorld, count: int, address: str = "127.0.0.1") -> list[Recorder]:
    """Connections from one address that never say a word, all accepted."""
    before = world.server.pending
    ends = [await world.raw(source=address) for _ in range(count)]
    await until(lambda: world.server.pending == before + count)
    return ends


@pytest.fixture
async def small(settings: Settings, start: Start) -> TunnelWorld:
    """A server for FEW connections."""
    return await start(replace(settings, limits=replace(settings.limits, tunnels=FEW)))


async def test_the_oldest_unfinished_connection_gives_way_to_a_new_one(
    small: TunnelWorld, logged: list[EventDict]
) -> None:
    ends = await crowd(small, FEW)
    await small.client().login()
    assert await closed(ends[0])
    assert "lost" not in ends[1].events
    (line,) = told(logged, "warning")
    assert (line["event"], line["source"]) == ("tunnel connection dropped", "127.0.0.1")
    assert line["reason"] == "it has not logged in, and too many others of its address have not"
    assert line["connection"] == "<PendingConnection 127.0.0.1 waits for its first byte>"


async def test_it_is_one_of_the_address_that_has_the_most(small: TunnelWorld) -> None:
    (other,) = await crowd(small, 1, "127.0.0.2")
    ends = await crowd(small, FEW - 1)
    await small.client().login()
    assert await closed(ends[0])
    assert "lost" not in other.events


async def test_a_tunnel_never_gives_way(small: TunnelWorld, logged: list[EventDict]) -> None:
    for _ in range(FEW):
        await small.client().login()
    assert await closed(await small.raw())
    assert len(small.server.facts()) == FEW
    (line,) = told(logged, "warning")
    assert (line["reason"], line["fix"]) == (f"{FEW} tunnels are connected", "raise HP_MAX_TUNNELS")


class Arrivals:
    """As LinkEntrance: closes whatever comes, and counts."""

    def __init__(self) -> None:
        self.count = 0

    async def arrived(self, sock: socket.socket, address: str) -> None:
        self.count += 1
        sock.close()


async def test_links_of_replicas_have_room_however_many_tunnels_there_are(
    small: TunnelWorld, logged: list[EventDict]
) -> None:
    links = Arrivals()
    small.server.accept_links(links)
    small.server.admit_clients()
    for _ in range(FEW):
        await small.client().login()
    assert await closed(await small.raw(LINK_BYTE))
    assert links.count == 1
    assert told(logged, "warning") == []
    assert await closed(await small.raw(b"o"))
    assert len(small.server.facts()) == FEW
    (line,) = told(logged, "warning")
    assert line["reason"] == f"{FEW} tunnels are connected"


@pytest.mark.parametrize(
    ("first", "reason", "fix"),
    [
        (b"GET /~!frp HTTP/1.1\r\n", "the client uses a websocket", 'set transport.protocol = "tcp"'),
        (b"o" + b"\xff" * 20, "frp: message of -1 bytes, limit 10240", "is it a tunnel client of another version?"),
        (b"FRP\0\3\r\n", "frp: the magic of version 2 is wrong", "is it a tunnel client of another version?"),
    ],
)
async def test_a_client_that_cannot_be_understood_is_one_warning_with_the_cure(
    world: TunnelWorld, logged: list[EventDict], first: bytes, reason: str, fix: str
) -> None:
    for _ in range(3):
        assert await closed(await world.raw(first))
    (line,) = told(logged)
    assert (line["event"], line["log_level"]) == ("tunnel connection refused", "warning")
    assert (line["reason"], line["fix"], line["source"]) == (reason, fix, "127.0.0.1")


async def test_a_stranger_on_the_port_is_not_a_warning(world: TunnelWorld, logged: list[EventDict]) -> None:
    assert await closed(await world.raw(b"GET / HTTP/1.1\r\n"))
    (line,) = told(logged)
    assert (line["log_level"], line["reason"]) == ("info", "neither FRP nor TLS, it begins with b'GET / HTTP'")
