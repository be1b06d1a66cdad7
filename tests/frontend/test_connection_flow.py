"""Back-pressure and fair turns of a client's connection."""

from __future__ import annotations

import time

from harp.frontend.connection import REQUESTS_A_TURN, TURN_TIME, ClientConnection
from harp.net.turns import SHARE
from harp.wire.requests import RequestHead
from tests.fakes.waiting import turn, until
from tests.frontend.connection_world import GET, OK, SETTINGS, ConnectionWorld, respond_ok


async def test_of_a_client_that_has_sent_ahead_a_lot_not_everything_is_served_in_one_turn_of_the_loop() -> None:
    world = ConnectionWorld()
    world.gate.script = respond_ok
    count = 10 * REQUESTS_A_TURN
    served = world.feed(GET * count)
    assert served == OK * served.count(OK)
    assert 1 <= served.count(OK) <= REQUESTS_A_TURN  # fewer where they take longer than a turn may
    assert not world.wire.reading
    turns = 0
    while len(world.gate.heads) < count:
        turns += 1
        await turn()
    assert turns >= 9
    assert world.wire.reading


async def test_requests_that_take_long_to_decide_about_are_few_in_a_turn_of_the_loop() -> None:
    world = ConnectionWorld()

    def ponder(connection: ClientConnection, head: RequestHead) -> None:
        until = time.thread_time() + TURN_TIME
        while time.thread_time() <= until:
            pass
        respond_ok(connection, head)

    world.gate.script = ponder
    assert world.feed(GET * 10) == OK * 2
    assert not world.wire.reading
    await until(lambda: len(world.gate.heads) == 10)
    assert world.wire.reading


async def test_what_is_pipelined_without_end_is_not_read() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.feed(GET * 2000)
    assert not world.wire.reading
    world.gate.script = respond_ok
    world.respond()
    await until(lambda: len(world.gate.heads) == 2001)
    assert world.wire.reading


async def test_a_paused_body_waits_in_the_socket() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
    world.connection.pause_body()
    assert not world.wire.reading
    world.feed(b"12345")
    assert world.handler.received == b""
    world.connection.resume_body()
    assert world.wire.reading
    assert world.handler.received == b"12345"


async def test_back_pressure_reaches_the_handler() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.respond(b"x", 1000, end=False)
    world.connection.pause_writing()
    world.connection.resume_writing()
    assert world.handler.events == ["blocked", "drained"]


async def test_a_client_that_stops_reading_is_given_up_but_a_slow_one_is_not() -> None:
    world = ConnectionWorld()
    world.feed(GET)
    world.respond(b"x", 1000, end=False)
    world.wire.unsent = 900
    world.connection.pause_writing()
    world.wire.unsent = 800
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert not world.wire.closed
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.aborted


async def test_a_client_that_does_not_read_its_answers_gets_no_more_requests_served() -> None:
    world = ConnectionWorld()

    def refuse(connection: ClientConnection, head: RequestHead) -> None:
        connection.refuse(404, "no")
        connection.pause_writing()

    world.gate.script = refuse
    world.feed(GET * 3)
    assert len(world.gate.heads) == 1
    assert not world.wire.reading
    world.connection.resume_writing()
    assert len(world.gate.heads) == 2
    world.connection.resume_writing()
    assert len(world.gate.heads) == 3
    world.wire.unsent = 10
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.aborted


async def test_a_pipelined_request_waits_until_the_client_has_read_the_answer_before_it() -> None:
    world = ConnectionWorld()
    world.feed(GET + GET)
    world.respond(b"x", 2, end=False)
    world.connection.pause_writing()
    world.connection.send_body(b"y")
    world.connection.send_end([])
    assert len(world.gate.heads) == 1
    world.connection.resume_writing()
    assert len(world.gate.heads) == 2
    assert world.wire.reading


async def test_after_a_large_read_others_come_first() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    world.feed(b"x" * SHARE)
    assert not world.wire.reading
    assert len(world.handler.received) == SHARE
    assert "not read: others come first" in repr(world.connection)
    await until(lambda: world.wire.reading)


async def test_a_turn_that_comes_does_not_end_a_pause_that_the_handler_wants() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    world.feed(b"x" * SHARE)
    world.connection.pause_body()
    world.connection.turn_came()
    assert not world.wire.reading
    world.connection.resume_body()
    await until(lambda: world.wire.reading)  # it stands in line once more


async def test_bytes_are_read_into_a_buffer_that_all_connections_share() -> None:
    world = ConnectionWorld()
    world.gate.script = respond_ok
    world.connection.get_buffer(-1)[: len(GET)] = GET
    world.connection.buffer_updated(len(GET))
    assert world.wire.take() == OK


async def test_tiny_chunks_are_decoded_in_many_turns_and_whole() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    world.feed(b"1\r\na\r\n" * 10000 + b"0\r\n\r\n")
    assert len(world.handler.received) < 2000
    turns = 0
    while world.handler.ended is None:
        turns += 1
        await turn()
    assert turns >= 5
    assert world.handler.received == b"a" * 10000


async def test_a_megabyte_of_absurd_chunks_is_400() -> None:
    world = ConnectionWorld()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    answer = b""
    for _ in range(20):
        answer += world.feed(b"1\r\na\r\n" * 10000)
        await until(lambda: "others come first" not in repr(world.connection))
        answer += world.wire.take()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
