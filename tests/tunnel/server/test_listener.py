"""The control connection, the start and the end of a server (F 5.7)."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.typing import EventDict

from harp.settings import Address, Settings
from harp.tunnel.server.acceptor import address_of
from harp.wire import frp
from harp.wire.frp import LoginResp, Ping, Pong
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder
from tests.fakes.waiting import settled, until
from tests.tunnel.peer import Messages, good_login
from tests.tunnel.server.world import Start, TunnelWorld, told


async def test_pings_are_answered_and_messages_without_a_use_ignored(world: TunnelWorld) -> None:
    client = world.client()
    await client.login()
    client.control.send_raw(frp.V1_HEADER.pack(b"n", 2) + b"{}")
    client.control.send(Ping())
    await client.control.next(Pong)


@pytest.mark.parametrize("garbage", [b"x", frp.V1_HEADER.pack(b"p", 2) + b"[]"])
async def test_garbage_on_the_control_connection_ends_the_tunnel(world: TunnelWorld, garbage: bytes) -> None:
    client = world.client()
    await client.login()
    client.control.send_raw(garbage)
    await client.control.end.until(event="lost")
    assert world.server.facts() == []


async def test_a_client_that_does_not_read_its_control_connection_is_dropped(world: TunnelWorld) -> None:
    client = world.client(version=2)  # its answers are larger
    await client.login()
    client.control.end.transport.pause_reading()
    pings = frp.encode(Ping(), 2) * 500
    for _ in range(40):
        if "lost" not in client.control.end.events:
            client.control.send_raw(pings)
            await settled()
    await client.control.end.until(event="lost")
    assert world.server.facts() == []


async def test_a_claim_of_a_tunnel_that_ended_meanwhile_is_never_offered(world: TunnelWorld, clock: Clock) -> None:
    client = world.client()
    await client.login()
    await client.claim()
    client.hang_up()
    await until(lambda: not world.server.facts())
    clock.move(2)
    assert world.ports.get(23001) is None
    assert not world.ports.seen(23001)


async def test_a_client_without_yamux_must_say_something_within_90_seconds(world: TunnelWorld, clock: Clock) -> None:
    client = world.client(mux=False)
    await client.login()
    for _ in range(3):
        clock.move(89)
        client.control.send(Ping())
        await client.control.next(Pong)
    clock.move(90)
    assert world.server.facts() == []
    await client.control.end.until(event="lost")


async def test_a_client_without_yamux_whose_ping_is_overdue_gives_way(world: TunnelWorld, clock: Clock) -> None:
    quiet = world.client(mux=False)
    await quiet.login()
    await quiet.claim()
    other = world.client()
    await other.login()
    assert (await other.claim()).error == "proxy [my_app] already exists"
    clock.move(36)
    third = world.client()
    await third.login()
    assert (await third.claim()).error == ""


async def test_the_log_names_facts_and_shows_neither_run_id_nor_control_characters(
    world: TunnelWorld, logged: list[EventDict]
) -> None:
    client = world.client()
    await client.login(version="1\x1b[31m\nx")
    await client.claim("evil\nname", 23001)
    client.hang_up()
    await until(lambda: not world.server.facts())
    seen = told(logged)
    names = ["tunnel connected", "tunnel claim granted", "tunnel closed", "tunnel lost"]
    assert [event["event"] for event in seen] == names
    shown = repr([list(event.values()) for event in logged])
    assert client.run_id not in shown
    assert seen[0]["client"] == r"1\x1b[31m\nx"
    assert seen[1]["name"] == r"evil\nname"


async def test_debug_shows_every_message_of_a_tunnel_and_no_secret(world: TunnelWorld, logged: list[EventDict]) -> None:
    client = world.client()
    await client.offer()
    client.control.send(Ping())
    await client.control.next(Pong)
    lines = [f"{event['event']}: {event['message']}" for event in told(logged, "debug") if "message" in event]
    assert lines == [
        "frp message received: Login(version='0.61.1', os='linux', arch='amd64', timestamp=1700000000, pool_count=1)",
        "frp message sent: LoginResp(version='0.61.1')",
        "frp message sent: ReqWorkConn()",
        "frp message received: NewProxy(proxy_name='my_app', proxy_type='tcp', remote_port=23001)",
        "frp message sent: NewProxyResp(proxy_name='my_app', remote_addr=':23001')",
        "frp message sent: ReqWorkConn()",
        "frp message received: NewWorkConn()",
        "frp message received: NewWorkConn()",
        "frp message received: Ping()",
        "frp message sent: Pong()",
    ]
    assert client.run_id not in repr(logged)
    tunnel = [event["tunnel"] for event in told(logged, "debug") if "tunnel" in event][-1]
    assert tunnel == "<Tunnel 127.0.0.1 open, v1, claims [my_app:23001], <WorkPool 2 ready, 0 asked for, 0 wait>>"


async def test_debug_shows_the_way_of_a_connection_to_its_tunnel(world: TunnelWorld, logged: list[EventDict]) -> None:
    await world.client().login()
    ways = [event["connection"] for event in told(logged, "debug") if event["event"] == "tunnel connection moved"]
    assert ways == [
        "<PendingConnection 127.0.0.1 waits for the first byte of FRP>",
        "<PendingConnection 127.0.0.1 waits for its login over yamux>",
        "<PendingConnection 127.0.0.1 is a tunnel over yamux>",
    ]


# Start and end


async def test_an_address_in_use_is_reported(settings: Settings, clock: Clock) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        addresses = (Address("127.0.0.1", 0), Address("127.0.0.1", port))
        world = TunnelWorld(replace(settings, listen=replace(settings.listen, frp=addresses)), None, clock)
        with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{port}"):
            await world.server.start()
        assert world.server.bound_ports == []


async def test_a_server_that_does_not_accept_keeps_its_tunnels(world: TunnelWorld) -> None:
    client = world.client()
    await client.offer()
    port = world.server.bound_ports[0]
    world.server.stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.get_running_loop().create_connection(Recorder, "127.0.0.1", port)
    offer = await world.ports.wait(23001, 5)
    await offer.connect(Recorder)


async def test_closing_ends_tunnels_and_guests(world: TunnelWorld) -> None:
    client, bare, guest = world.client(), world.client(mux=False), await world.raw()
    await client.login()
    await bare.login()
    await world.server.close()
    await guest.until(event="lost")
    await bare.control.end.until(event="lost")
    await client.control.end.until(event="lost")
    assert world.server.facts() == []
    assert world.server.pending == 0


async def test_a_unix_socket_can_be_listened_on(settings: Settings, start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "frp.sock")
    world = await start(replace(settings, listen=replace(settings.listen, frp=(Address("", 0, path),))))
    _, end = await asyncio.get_running_loop().create_unix_connection(Recorder, path)
    world.clock.transports.append(end.transport)
    end.transport.write(frp.encode(good_login(), 1))
    assert (await Messages(end, 1).next(LoginResp)).error == ""
    assert world.asked == [("", "the key")]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.1", 5000), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5000, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 5000, 0, 0), "2001:db8::1"),
        ("", ""),
    ],
)
def test_a_client_is_known_by_its_address_without_port(peer: object, address: str) -> None:
    assert address_of(peer) == address
