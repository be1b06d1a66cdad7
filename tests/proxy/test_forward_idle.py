"""Connections that are used again, and those that must not be."""

from __future__ import annotations

import pytest

from harp.errors import TunnelHeld
from tests.proxy.forward_world import BEHIND_TUNNEL, OK, TIMEOUTS, ProbedOffer, ProxyWorld


async def test_a_connection_is_used_again_while_it_is_fresh() -> None:
    world = ProxyWorld()
    for _ in range(3):
        await world.send()
        world.answer(OK)
    assert len(world.dialer.made) == 1
    world.wait(TIMEOUTS.upstream_idle + 1)
    assert world.wire().aborted
    await world.send()
    assert len(world.dialer.made) == 2


async def test_what_may_not_be_sent_twice_avoids_connections_that_were_idle_for_long() -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(OK)
    world.wait(3)
    await world.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n")
    assert len(world.dialer.made) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok-and-more",
    ],
)
async def test_a_connection_that_ends_or_says_too_much_is_not_used_again(answer: bytes) -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(answer)
    assert (client.received, client.ended) == (b"ok", True)
    assert world.wire().closed


async def test_an_idle_connection_ends_with_the_tunnel_it_goes_through() -> None:
    world = ProxyWorld()
    first, second = ProbedOffer(), ProbedOffer()
    world.dialer.offer = first
    world.ports.claim(23001, first)
    await world.send(target=BEHIND_TUNNEL)
    world.answer(OK)
    world.ports.release(23001, first)
    assert world.wire(0).aborted
    world.dialer.offer = second
    world.ports.claim(23001, second)
    await world.send(target=BEHIND_TUNNEL)
    assert len(world.dialer.made) == 2


async def test_a_connection_whose_tunnel_goes_during_an_exchange_is_not_kept_after_it() -> None:
    world = ProxyWorld()
    first, second = ProbedOffer(), ProbedOffer()
    world.dialer.offer = first
    world.ports.claim(23001, first)
    client, _ = await world.send(target=BEHIND_TUNNEL)
    world.ports.release(23001, first)
    world.ports.claim(23001, second)
    world.answer(OK)
    assert client.received == b"ok"
    assert world.wire(0).aborted
    world.dialer.offer = second
    await world.send(target=BEHIND_TUNNEL)
    assert len(world.dialer.made) == 2


async def test_an_idle_connection_is_not_used_for_an_exapp_whose_port_is_another_exapps() -> None:
    world = ProxyWorld()
    offer = world.dialer.offer = ProbedOffer()
    world.ports.claim(23001, offer)
    await world.send(target=BEHIND_TUNNEL)
    world.answer(OK)
    world.dialer.strangers.add(offer)  # its name has become known as another ExApp's
    world.dialer.errors.append(TunnelHeld("port 23001 is held by the tunnel of porta"))
    client, _ = await world.send(target=BEHIND_TUNNEL)
    assert (client.status, client.refused) == (
        503,
        "ExApp hello cannot be reached: port 23001 is held by the tunnel of porta",
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_a_connection_whose_answer_to_head_announces_a_body_is_not_used_again(answer: bytes) -> None:
    world = ProxyWorld()
    client, _ = await world.send(b"HEAD / HTTP/1.1\r\n")
    world.answer(answer)
    assert client.ended
    assert world.wire().closed


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_what_follows_an_answer_without_a_body_never_answers_the_next_request(status: bytes) -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 %b\r\n\r\n" % status)
    assert client.ended
    victim, _ = await world.send()
    assert len(world.dialer.made) == 2
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", index=0)
    assert world.wire(0).aborted
    world.answer(OK, index=1)
    assert victim.received == b"ok"


async def test_a_connection_rests_after_an_answer_without_a_body_and_is_used_again() -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    world.wait(0.5)
    await world.send()
    assert len(world.dialer.made) == 1


async def test_idle_connections_are_as_many_as_were_in_use_at_once() -> None:
    world = ProxyWorld()
    for _ in range(300):
        await world.send()
    for index in range(300):
        world.answer(OK, index)
    for _ in range(300):
        await world.send()
    assert len(world.dialer.made) == 300


async def test_addresses_that_do_not_connect_leave_nothing_in_the_count() -> None:
    world = ProxyWorld()
    world.dialer.failed_tries = 1  # uvloop makes the protocol before it knows whether there will be a connection
    client, _ = await world.send()
    world.answer(OK)
    assert (client.status, repr(world.upstreams)) == (200, "<Upstreams 1 open, 1 idle, 1 targets>")


async def test_the_connection_is_the_one_that_was_made_although_another_was_tried_beside_it() -> None:
    world = ProxyWorld()
    world.dialer.late_tries = 1
    client, _ = await world.send()
    world.answer(OK)
    assert (client.status, client.received) == (200, b"ok")


async def test_closing_the_proxy_drops_idle_connections() -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(OK)
    await world.upstreams.close()
    assert world.wire().aborted


async def test_an_idle_connection_is_dropped_in_time_also_after_a_body_in_pieces() -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    world.answer(b"k")
    world.wait(TIMEOUTS.upstream_idle + 1)
    assert world.wire().aborted


async def test_a_connection_that_waits_for_a_slow_client_is_not_used_for_others() -> None:
    world = ProxyWorld()
    client, forwarding = await world.send()
    world.answer(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    client.blocked = True
    forwarding.blocked()
    world.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert client.ended
    await world.send()
    assert len(world.dialer.made) == 2
    assert world.wire().reading


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"304 Not Modified"])
async def test_bytes_behind_an_answer_without_body_never_reach_the_client(status: bytes) -> None:
    world = ProxyWorld()
    method = b"HEAD" if status == b"200 OK" else b"GET"
    client, _ = await world.send(method + b" / HTTP/1.1\r\n")
    world.answer(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    assert (client.received, client.ended) == (b"", True)
    assert world.wire().closed
