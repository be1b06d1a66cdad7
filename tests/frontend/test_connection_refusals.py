"""What a client's connection refuses, and how the refusal reads."""

from __future__ import annotations

import pytest

from harp.frontend.connection import ClientConnection
from harp.wire.ends import How
from tests.fakes.transport import MemoryTransport
from tests.frontend.connection_world import GET, ConnectionWorld, ScriptedGate


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\nX: 1", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 33000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 33000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 16 + b"\r\n", 431),
    ],
)
async def test_a_request_that_cannot_be_read_is_refused_and_the_connection_closed(data: bytes, status: int) -> None:
    world = ConnectionWorld()
    answer = world.feed(data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close\r\n" in answer
    assert world.wire.eof_sent
    assert world.feed(GET) == b""
    assert world.gate.heads == []


async def test_a_refusal_names_status_reason_and_request_id() -> None:
    world = ConnectionWorld()
    world.gate.script = lambda connection, head: connection.refuse(503, "Nextcloud is down", 5)
    answer = world.feed(GET)
    assert b"\r\nretry-after: 5\r\n" in answer
    assert b"\r\nx-request-id: id-1\r\n" in answer
    assert answer.endswith(b"\r\n\r\n503 Service Unavailable: Nextcloud is down\nrequest id: id-1\n")
    assert not world.wire.closed


async def test_strangers_read_no_reason_that_could_name_hosts_ports_or_patterns() -> None:
    for status in (403, 404, 502, 503, 504):
        world = ConnectionWorld()
        world.gate.trusted = False
        world.gate.script = lambda connection, head, s=status: connection.refuse(s, "db.internal:23001 ^/secret")
        answer = world.feed(GET)
        assert b"internal" not in answer
        assert b"23001" not in answer
        assert b"secret" not in answer
        assert b"request id: id-1" in answer


async def test_a_method_that_is_refused_comes_with_those_that_are_not() -> None:
    world = ConnectionWorld()
    world.gate.script = lambda connection, head: connection.refuse(405, "no")
    assert b"\r\nallow: GET, HEAD, POST" in world.feed(GET)


async def test_a_refusal_is_json_for_who_asks_for_it() -> None:
    world = ConnectionWorld()
    world.gate.script = lambda connection, head: connection.refuse(403, "the visitor is USER")
    answer = world.feed(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n")
    assert answer.endswith(b'\r\n\r\n{"error":"403 Forbidden","reason":"the visitor is USER","request_id":"id-1"}')


async def test_a_refused_upload_is_not_read_to_its_end() -> None:
    world = ConnectionWorld()
    world.gate.script = lambda connection, head: connection.refuse(403, "no")
    answer = world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\nExpect: 100-continue\r\n\r\n")
    assert b"connection: close\r\n" in answer
    world.feed(b"x" * (5 << 20))
    assert world.wire.aborted


async def test_a_dropped_client_gets_not_a_byte() -> None:
    world = ConnectionWorld()
    world.gate.script = lambda connection, head: connection.end(How.RESET)
    assert world.feed(GET) == b""
    assert world.wire.aborted


async def test_a_connection_too_many_is_refused() -> None:
    gate = ScriptedGate()
    gate.refusal = "all 8 connections are in use"
    wire = MemoryTransport()
    ClientConnection(gate, secure=False).connection_made(wire)
    assert wire.take().startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert wire.closed
