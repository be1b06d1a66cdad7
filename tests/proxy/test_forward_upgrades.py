"""WebSockets and other upgraded streams."""

from __future__ import annotations

from harp.proxy.forward import QUIET, Forwarding
from harp.wire.websocket import CLOSE_GOING_AWAY
from tests.proxy.forward_world import BEHIND_TUNNEL, TIMEOUTS, NotingClient, ProxyWorld

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"


async def test_a_websocket_is_relayed_both_ways_and_lives_as_long_as_it_moves() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(SWITCH + b"\x81\x02hi")
    assert (client.status, client.received) == (101, b"\x81\x02hi")
    assert client.start == b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    forwarding.body(b"\x81\x80mask")
    assert world.wire().take() == b"HEAD BYTES\x81\x80mask"
    for _ in range(3):
        world.wait(TIMEOUTS.tunnel - 1)
        world.answer(b"\x89\x00")
    assert not client.closed
    world.wait(TIMEOUTS.tunnel + 1)
    assert client.closed


async def test_an_upgraded_stream_ends_when_both_sides_have_finished() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(SWITCH)
    forwarding.body_end([])
    assert world.wire().eof_sent
    assert not client.closed
    assert world.dialer.made[0][1].eof_received() is True
    assert client.closed


async def test_behind_a_tunnel_the_clients_end_is_not_passed_on() -> None:
    """frpc closes both directions at the first end (F 5.6): what the ExApp still sends would be lost."""
    world = ProxyWorld()
    client, forwarding = await world.send(
        b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", target=BEHIND_TUNNEL
    )
    world.answer(SWITCH)
    forwarding.body_end([])
    assert not world.wire().eof_sent
    world.answer(b"last words")
    assert client.received == b"last words"
    world.wait(TIMEOUTS.half_closed + 1)
    assert client.closed


async def test_an_upgrade_that_nobody_asked_for_is_502() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(SWITCH)
    assert client.status == 502


async def test_an_exapp_may_decline_an_upgrade() -> None:
    world = ProxyWorld()
    client, _ = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    assert (client.status, client.ended) == (403, True)


async def websocket(world: ProxyWorld) -> tuple[NotingClient, Forwarding]:
    client, forwarding = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(SWITCH)
    return client, forwarding


async def test_draining_closes_a_quiet_websocket_with_1001() -> None:
    world = ProxyWorld()
    client, forwarding = await websocket(world)
    world.answer(b"\x81\x05hello")
    assert forwarding.drain() is False
    world.wait(QUIET)
    assert forwarding.drain() is True
    assert client.received == b"\x81\x05hello" + CLOSE_GOING_AWAY
    assert client.closed
    assert world.wire().aborted


async def test_draining_closes_a_busy_websocket_between_two_frames_only() -> None:
    world = ProxyWorld()
    client, forwarding = await websocket(world)
    world.answer(b"\x81\x05he")
    assert forwarding.drain() is False
    for piece in (b"llo", b"\x81\x02hi\x81", b"\x02ho", b"\x81\x02yo"):
        world.answer(piece)
        if piece != b"\x81\x02yo":
            assert forwarding.drain() is False
    assert forwarding.drain() is True
    assert client.received == b"\x81\x05hello\x81\x02hi\x81\x02ho\x81\x02yo" + CLOSE_GOING_AWAY


async def test_draining_adds_nothing_to_a_websocket_that_its_exapp_has_finished() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send(b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n")
    world.answer(SWITCH)
    world.dialer.made[-1][1].eof_received()
    assert client.finished
    assert forwarding.drain() is False
    assert client.received == b""
