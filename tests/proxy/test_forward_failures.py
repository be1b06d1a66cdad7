"""ExApps that cannot be reached, break off, or do not speak HTTP."""

from __future__ import annotations

import pytest

from harp.errors import TunnelAway, Unreachable
from tests.fakes.waiting import settled
from tests.proxy.forward_world import BEHIND_TUNNEL, OK, TIMEOUTS, ProxyWorld


async def test_an_exapp_that_cannot_be_reached_is_503_with_its_name_and_the_reason() -> None:
    world = ProxyWorld()
    world.dialer.errors = [Unreachable("hello:8080: No route to host")]
    client, _ = await world.send()
    assert (client.status, client.retry_after) == (503, 2)
    assert client.refused == "ExApp hello cannot be reached: hello:8080: No route to host"


async def test_a_tunnel_that_stays_away_is_503_naming_the_app() -> None:
    world = ProxyWorld()
    world.dialer.errors = [TunnelAway("no tunnel is connected for port 23001")]
    client, _ = await world.send(target=BEHIND_TUNNEL)
    assert client.status == 503
    assert client.refused == "ExApp hello cannot be reached: no tunnel is connected for port 23001"


async def test_an_exapp_that_is_silent_for_too_long_is_504() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.wait(TIMEOUTS.response - 1)
    assert client.status == 0
    world.wait(2)
    assert (client.status, client.refused) == (504, "ExApp hello gave no answer within the time limit")
    assert world.wire().aborted


async def test_the_limit_for_an_answer_is_longer_than_half_an_hour() -> None:
    assert TIMEOUTS.response > 1800


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 099 Odd\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\nbare: lf\n\r\n\r\n"]
)
async def test_an_answer_that_is_not_http_is_502(garbage: bytes) -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(garbage)
    assert client.status == 502
    assert "is not HTTP" in client.refused


async def test_a_head_without_end_is_502() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000)
    assert client.status == 502


async def test_a_connection_that_closes_before_an_answer_is_502() -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.lose()
    assert (client.status, client.refused) == (502, "ExApp hello closed the connection before its answer was complete")


async def test_a_body_that_breaks_off_is_cut_for_the_client_too() -> None:
    for head in (b"Content-Length: 10", b"Transfer-Encoding: chunked"):
        world = ProxyWorld()
        client, _ = await world.send()
        world.answer(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n2\r\nab")
        world.lose()
        assert client.cut_for
        assert not client.ended


async def test_a_kept_connection_that_had_closed_costs_no_request() -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(OK)
    client, _ = await world.send()
    world.lose()
    await settled()
    assert len(world.dialer.made) == 2
    world.answer(OK)
    assert client.received == b"ok"


async def test_a_request_that_is_not_idempotent_is_not_sent_twice() -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(OK)
    client, _ = await world.send(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n")
    world.lose()
    await settled()
    assert client.status == 502
    assert len(world.dialer.made) == 1


async def test_an_answer_has_begun_so_nothing_is_sent_twice() -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(OK)
    client, _ = await world.send()
    world.answer(b"HTTP/1.1 2")
    world.lose()
    assert client.status == 502


@pytest.mark.parametrize("garbage", [b"garbage\r\n\r\n", OK[:17] + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"])
async def test_an_answer_that_is_not_http_is_an_answer_so_nothing_is_sent_twice(garbage: bytes) -> None:
    world = ProxyWorld()
    await world.send()
    world.answer(OK)
    client, _ = await world.send()
    world.answer(garbage)
    await settled()
    assert client.status == 502
    assert len(world.dialer.made) == 1


async def test_a_tunnel_stream_that_ends_at_once_is_tried_again_once() -> None:
    world = ProxyWorld()
    client, _ = await world.send(target=BEHIND_TUNNEL)
    world.lose()
    await settled()
    assert len(world.dialer.made) == 2
    world.lose()
    await settled()
    assert client.status == 502
    assert len(world.dialer.made) == 2


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"HTTP/1.1 200 OK\r\nX: 1\n", b"ok\r\n"])
async def test_a_head_that_cannot_become_one_is_502_at_once(head: bytes) -> None:
    world = ProxyWorld()
    client, _ = await world.send()
    world.answer(head)
    assert client.status == 502
    assert "is not HTTP" in client.refused


async def test_a_bug_while_connecting_is_500_and_not_a_client_that_waits_for_ever() -> None:
    world = ProxyWorld()
    world.dialer.errors = [RuntimeError("a bug")]
    client, _ = await world.send()
    assert client.status == 500
    assert "a bug" not in client.refused
