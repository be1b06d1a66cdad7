"""How a client's connection ends: half-closed, upgraded, late, drained."""

from __future__ import annotations

import pytest

from harp.frontend.client_transport import LINGER_TIME
from harp.net.deadlines import NEVER
from harp.wire.ends import How
from harp.wire.http import CHUNKED, UNTIL_CLOSE
from tests.frontend.connection_world import GET, ID, OK, OLD_GET, SETTINGS, ConnectionWorld, HeldRequest, respond_ok

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"


async def test_a_half_closed_client_still_gets_its_answer() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    assert world.connection.eof_received() is True
    assert world.respond() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n%bconnection: close\r\n\r\nok" % ID
    assert world.wire.closed


async def test_a_half_closed_client_gets_all_its_pipelined_answers() -> None:
    world = ConnectionWorld()
    world.feed(GET + GET)
    assert world.connection.eof_received() is True
    world.respond()
    assert len(world.gate.heads) == 2
    world.respond()
    assert world.wire.closed


async def test_a_client_that_closes_in_the_middle_of_an_event_stream_has_left() -> None:
    for request in (GET, OLD_GET):
        world = ConnectionWorld()
        world.feed(request)
        world.respond(b"data: 1\n\n", UNTIL_CLOSE, b"content-type: text/event-stream\r\n", end=False)
        assert world.connection.eof_received() is False
        assert "middle of a stream" in world.handler.lost


@pytest.mark.parametrize(("length", "rest"), [(400, b"cd"), (CHUNKED, b"2\r\ncd\r\n")])
async def test_a_client_that_half_closes_in_the_middle_of_a_body_gets_the_rest_however_long_it_takes(
    length: int, rest: bytes
) -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.respond(b"ab", length, end=False)
    assert world.connection.eof_received() is True
    for _ in range(5):
        world.gate.wait(SETTINGS.timeouts.half_closed - 1)
        world.connection.send_body(b"cd")
        assert world.wire.take() == rest
    world.gate.wait(SETTINGS.timeouts.half_closed + 1)
    assert world.wire.aborted


async def test_a_half_closed_client_is_not_waited_for_for_ever() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.connection.eof_received()
    world.gate.wait(SETTINGS.timeouts.half_closed + 1)
    assert world.wire.aborted
    assert world.handler.lost


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_reported() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
    assert world.connection.eof_received() is False
    assert "middle of its request" in world.handler.lost


async def test_a_client_that_half_closes_behind_its_body_is_answered_though_nobody_has_taken_it_yet() -> None:
    world = ConnectionWorld()
    handler = HeldRequest()
    world.gate.script = lambda connection, head: connection.attach(handler)
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n123")
    assert world.connection.eof_received() is True
    world.connection.resume_body()
    assert (handler.received, handler.ended, handler.lost) == (b"123", [], "")
    assert world.respond() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n%bconnection: close\r\n\r\nok" % ID
    assert world.wire.closed


async def test_a_client_that_half_closes_in_the_middle_of_its_body_is_found_out_when_it_is_taken() -> None:
    world = ConnectionWorld()
    handler = HeldRequest()
    world.gate.script = lambda connection, head: connection.attach(handler)
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n123")
    world.connection.eof_received()
    world.connection.resume_body()
    assert "middle of its request" in handler.lost
    assert world.wire.closed


async def test_an_upgraded_stream_is_raw_in_both_directions() -> None:
    world = ConnectionWorld()
    world.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
    world.connection.upgrade(SWITCH, b"first")
    assert world.wire.take() == SWITCH + ID + b"\r\nfirst"
    assert world.handler.received == b"early"
    world.feed(b"frame")
    assert world.handler.received == b"earlyframe"
    world.connection.send_body(b"answer")
    assert world.wire.take() == b"answer"
    assert world.connection.eof_received() is True
    assert world.handler.ended == []
    assert world.connection.deadline == NEVER
    world.connection.end(How.LINGER)
    assert world.wire.closed  # nothing more can come from a client that has ended its stream


async def test_an_upgraded_stream_that_ends_lets_the_client_say_its_last_words() -> None:
    """Its reply to a WebSocket's close frame: a reset would take the frame away from it."""
    world = ConnectionWorld()
    world.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    world.connection.upgrade(SWITCH, b"")
    world.connection.end(How.LINGER)
    assert world.wire.eof_sent
    world.feed(b"\x88\x82mask..")
    assert not world.wire.closed
    world.gate.wait(3)
    assert world.wire.closed


async def test_a_slow_head_is_408_however_it_drips() -> None:
    world = ConnectionWorld()
    for _ in range(4):
        world.feed(b"G" if not world.gate.heads else b"")
        world.gate.wait(SETTINGS.timeouts.head / 4 + 0.1)
    assert world.wire.take().startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    world = ConnectionWorld()
    world.gate.script = respond_ok
    world.feed(GET)
    world.gate.wait(SETTINGS.timeouts.keepalive + 1)
    assert world.wire.take() == b""
    assert world.wire.closed


async def test_a_body_that_stops_is_408() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.take().startswith(b"HTTP/1.1 408 ")
    assert world.handler.lost


async def test_a_short_answer_looks_short() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.respond(b"abc", CHUNKED, end=False)
    world.connection.end(How.GRACEFUL, "the ExApp died")
    assert world.wire.take() == b""
    assert world.wire.closed
    old = ConnectionWorld()
    old.feed(OLD_GET)
    old.respond(b"abc", UNTIL_CLOSE, end=False)
    old.connection.end(How.GRACEFUL, "the ExApp died")
    assert old.wire.aborted


async def test_draining_closes_idle_connections_and_lets_running_requests_end() -> None:
    idle, running, relayed = ConnectionWorld(), ConnectionWorld(), ConnectionWorld()
    running.feed(GET)
    relayed.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    relayed.connection.upgrade(SWITCH, b"")
    for world in (idle, running, relayed):
        world.gate.draining = True
        world.connection.drain()
    assert idle.wire.closed
    assert relayed.handler.events == ["drain"]
    assert not running.wire.closed
    assert b"connection: close\r\n" in running.respond()
    assert running.wire.closed


async def test_a_half_closed_client_gets_refusals_for_all_that_it_has_pipelined() -> None:
    world = ConnectionWorld()
    world.feed(GET * 3)
    world.connection.eof_received()
    world.gate.script = respond_ok
    assert world.respond() == OK + OK + OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    assert world.wire.closed


async def test_a_kept_connection_is_idle_for_a_limited_time_also_after_a_slow_answer() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.respond(b"x", 2, end=False)
    world.connection.pause_writing()
    world.connection.send_body(b"y")
    world.connection.send_end([])
    world.connection.resume_writing()
    world.gate.wait(SETTINGS.timeouts.keepalive + 1)
    assert world.wire.closed


async def test_a_closing_connection_closes_also_when_its_answer_was_read_slowly() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n")
    world.respond(b"x", 2, end=False)
    world.connection.pause_writing()
    world.connection.send_body(b"y")
    world.connection.send_end([])
    world.connection.resume_writing()
    world.gate.wait(LINGER_TIME + 1)
    assert world.wire.closed


async def test_a_client_that_sends_all_and_reads_nothing_is_given_up() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n12")
    world.respond(b"x", 1000, end=False)
    world.wire.unsent = 900
    world.connection.pause_writing()
    world.feed(b"34")
    assert world.handler.ended == []
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.aborted


async def test_a_client_that_reads_nothing_is_given_up_also_while_its_body_is_not_wanted() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n12")
    world.respond(b"x", 1000, end=False)
    world.wire.unsent = 900
    world.connection.pause_writing()
    world.connection.pause_body()
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.aborted


async def test_the_end_of_an_upgraded_stream_ends_both_sides_where_tls_knows_no_half() -> None:
    world = ConnectionWorld(secure=True)
    world.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    world.connection.upgrade(SWITCH, b"")
    handler = world.handler
    world.connection.finish()
    assert world.wire.closed
    assert handler.lost


async def test_a_client_that_had_half_closed_before_its_upgrade_has_finished() -> None:
    world = ConnectionWorld()
    world.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
    world.connection.eof_received()
    world.connection.upgrade(SWITCH, b"")
    assert world.handler.received == b"early"
    assert world.handler.ended == []


async def test_a_request_that_its_handler_forgets_is_504() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.gate.wait(2 * (SETTINGS.timeouts.connect + SETTINGS.timeouts.response) + 121)
    assert world.wire.take().startswith(b"HTTP/1.1 504 ")
    assert world.handler.lost


async def test_a_connection_ends_once_however_often_it_is_told_to() -> None:
    for how in How:
        world = ConnectionWorld()
        world.feed(GET)
        for _ in range(2):
            world.connection.end(how, "enough")
        world.connection.end(How.RESET)
        assert world.wire.aborted
        assert world.gate.statuses == [0]
        assert world.handler.lost == "enough"


async def test_a_connection_is_one_line_of_state() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    assert repr(world.connection) == "<ClientConnection 192.0.2.1, <ServerConnection waiting GET /a>>"
