"""Requests and answers on a client's connection."""

from __future__ import annotations

import pytest

from harp.frontend.connection import ClientConnection
from harp.wire.ends import How
from harp.wire.http import CHUNKED, NO_BODY, UNTIL_CLOSE, Fields
from harp.wire.requests import RequestHead
from tests.frontend.connection_world import GET, ID, OK, OLD_GET, ConnectionWorld, HeldRequest, respond_ok


async def test_a_request_cut_at_any_byte_is_one_request() -> None:
    for cut in range(1, len(GET)):
        world = ConnectionWorld()
        world.gate.script = respond_ok
        assert world.feed(GET[:cut]) == b""
        assert world.feed(GET[cut:]) == OK


async def test_a_kept_connection_serves_request_after_request() -> None:
    world = ConnectionWorld()
    world.gate.script = respond_ok
    assert [world.feed(GET) for _ in range(3)] == [OK, OK, OK]
    assert not world.wire.closed


async def test_pipelined_requests_are_answered_in_order() -> None:
    world = ConnectionWorld()
    world.gate.script = respond_ok
    assert world.feed(GET * 20) == OK * 20


async def test_a_pipelined_request_waits_for_the_answer_before_it() -> None:
    world = ConnectionWorld()
    world.feed(GET + GET)
    assert len(world.gate.heads) == 1
    world.respond()
    assert len(world.gate.heads) == 2


async def test_empty_lines_before_a_request_are_ignored() -> None:
    world = ConnectionWorld()
    world.gate.script = respond_ok
    assert world.feed(b"\r\n\r\n" + GET) == OK


async def test_an_answer_to_http_1_0_ends_with_the_connection_and_is_never_chunked() -> None:
    world = ConnectionWorld()
    world.feed(OLD_GET)
    assert world.respond(b"part", UNTIL_CLOSE, end=False) == b"HTTP/1.1 200 OK\r\n%bconnection: close\r\n\r\npart" % ID
    world.connection.send_body(b"more")
    world.connection.send_end([])
    assert world.wire.take() == b"more"
    assert world.wire.closed


async def test_http_1_0_with_keep_alive_is_kept_when_the_length_is_known() -> None:
    world = ConnectionWorld()
    world.feed(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"connection: keep-alive\r\n" in world.respond()
    assert not world.wire.closed


async def test_an_answer_of_unknown_length_is_chunked_with_its_trailers() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    head = world.respond(b"abc", CHUNKED, end=False)
    assert head == b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n" % ID
    world.connection.send_body(b"d" * 20000)
    world.connection.send_end([(b"x-sum", b"1")])
    assert world.wire.take() == b"4e20\r\n" + b"d" * 20000 + b"\r\n0\r\nx-sum: 1\r\n\r\n"


async def test_a_whole_answer_of_unknown_length_gets_one() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    assert world.respond(b"abc", CHUNKED) == b"HTTP/1.1 200 OK\r\n%bcontent-length: 3\r\n\r\nabc" % ID


async def test_an_answer_without_body_says_only_what_its_fields_say() -> None:
    world = ConnectionWorld()
    world.feed(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (
        world.respond(b"", NO_BODY, b"content-length: 9\r\n") == b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n%b\r\n" % ID
    )
    assert not world.wire.closed


async def test_a_body_of_known_length_flows_and_the_rest_is_the_next_request() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    assert (world.handler.received, world.handler.ended) == (b"12345", None)
    world.feed(b"67890" + GET)
    assert (world.handler.received, world.handler.ended) == (b"1234567890", [])
    world.respond()
    assert len(world.gate.heads) == 2


async def test_a_chunked_body_flows_without_its_coding() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    assert world.handler.received == b"hel"
    world.feed(b"lo\r\n0\r\nX: 1\r\n\r\n" + GET)
    assert (world.handler.received, world.handler.ended) == (b"hello", [(b"x", b"1")])
    world.respond()
    assert len(world.gate.heads) == 2


@pytest.mark.parametrize(
    ("framing", "came", "first", "rest"),
    [
        (b"Content-Length: 5", b"", (b"", False, []), b"hello"),
        (b"Content-Length: 5", b"hel", (b"hel", False, []), b"lo"),
        (b"Content-Length: 5", b"hello" + GET, (b"hello", True, []), b""),
        (b"Transfer-Encoding: chunked", b"5\r\nhel", (b"hel", False, []), b"lo\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n", (b"hello", True, [(b"x-a", b"b")]), b""),
    ],
)
async def test_what_has_come_of_a_body_with_the_head_can_be_taken_at_once(
    framing: bytes, came: bytes, first: tuple[bytes, bool, Fields], rest: bytes
) -> None:
    world = ConnectionWorld()
    handler = HeldRequest()
    taken: list[tuple[bytes, bool, Fields]] = []

    def take(connection: ClientConnection, head: RequestHead) -> None:
        connection.attach(handler)
        taken.append(connection.first_body())
        connection.resume_body()

    world.gate.script = take
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n" + came)
    assert taken == [first]
    if rest:
        world.feed(rest)
        assert first[0] + handler.received == b"hello"
        assert handler.ended == []
    else:
        assert handler.received == b""
        assert handler.ended is None
    assert world.respond().startswith(b"HTTP/1.1 200")


async def test_a_broken_first_chunk_is_400_and_its_handler_knows_before_it_sends_anything() -> None:
    world = ConnectionWorld()
    handler = HeldRequest()
    lost: list[str] = []

    def take(connection: ClientConnection, head: RequestHead) -> None:
        connection.attach(handler)
        assert connection.first_body()[1] is False
        lost.append(handler.lost)

    world.gate.script = take
    answer = world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n" + GET)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1
    assert lost[0]


async def test_a_broken_chunk_is_400_and_the_end() -> None:
    world = ConnectionWorld()
    answer = world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!!" + GET)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert "longer than its size" in world.handler.lost
    assert world.wire.eof_sent
    assert len(world.gate.heads) == 1


async def test_a_body_whose_decision_takes_time_is_kept() -> None:
    world = ConnectionWorld()
    world.gate.script = lambda connection, head: None
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12")
    world.feed(b"345")
    handler = HeldRequest()
    world.connection.attach(handler)
    assert handler.received == b""
    world.connection.resume_body()
    assert (handler.received, handler.ended) == (b"12345", [])


async def test_an_answer_before_the_end_of_the_body_closes_gently() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n12345")
    assert b"connection: close\r\n" in world.respond()
    assert world.wire.eof_sent
    assert not world.wire.closed
    world.feed(b"x" * 95)
    world.gate.wait(3)
    assert world.wire.closed


async def test_interim_answers_go_to_http_1_1_only() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.connection.send_interim(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
    assert world.wire.take() == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    old = ConnectionWorld()
    old.feed(OLD_GET)
    old.connection.send_interim(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert old.wire.take() == b""


async def test_every_exchange_is_booked_exactly_once() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.respond()
    world.feed(GET)
    world.respond(b"a", 10, end=False)
    world.connection.end(How.GRACEFUL, "gone")
    world.connection.connection_lost(None)
    assert world.gate.statuses == [200, 200]
