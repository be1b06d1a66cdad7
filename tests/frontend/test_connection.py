"""A client connection: what it makes of the bytes, and what it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from harp.frontend.connection import LINGER_TIME, REQUESTS_A_TURN, TURN_TIME, ClientConnection
from harp.frontend.exchange import Exchange
from harp.net.deadlines import NEVER, Deadlines
from harp.net.turns import SHARE, Turns
from harp.settings import load
from harp.wire.ends import How
from harp.wire.http import CHUNKED, NO_BODY, UNTIL_CLOSE, Fields
from harp.wire.requests import RequestHead, RequestReader
from tests.fakes.clock import Clock
from tests.fakes.transport import MemoryTransport

SETTINGS = load({"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud", "HP_MAX_HEADERS": "16"})
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n"
OLD_GET = b"GET /a HTTP/1.0\r\n\r\n"


class Recorder:
    """A handler that notes what it gets."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Fields | None = None
        self.lost = ""
        self.events: list[str] = []

    def body(self, data: bytes) -> None:
        self.received += data

    def body_end(self, trailers: Fields) -> None:
        self.ended = trailers

    def blocked(self) -> None:
        self.events.append("blocked")

    def drained(self) -> None:
        self.events.append("drained")

    def gone(self, reason: str) -> None:
        self.lost = reason

    def drain(self) -> bool:
        self.events.append("drain")
        return True


class ScriptedGate:
    """Answers each request with `script`, or leaves it with a Recorder."""

    limits = SETTINGS.limits
    timeouts = SETTINGS.timeouts
    patience = 60.0

    def __init__(self) -> None:
        self.reader = RequestReader(SETTINGS.limits.headers)
        self.clock = Clock()
        self.deadlines = Deadlines(clock=self.clock)
        self.turns = Turns()
        self.draining = False
        self.trusted = True
        self.script: Callable[[ClientConnection, RequestHead], None] | None = None
        self.heads: list[RequestHead] = []
        self.handlers: list[Recorder] = []
        self.statuses: list[int] = []
        self.refusal: str | None = None

    def begin(self, connection: ClientConnection, head: RequestHead | None, last: Exchange | None) -> Exchange:
        return Exchange(head, b"id-1", connection.peer, trusted=self.trusted)

    def handle(self, connection: ClientConnection, exchange: Exchange) -> None:
        head = exchange.head
        assert head is not None
        self.heads.append(head)
        if self.script is not None:
            self.script(connection, head)
            return
        handler = Recorder()
        self.handlers.append(handler)
        connection.attach(handler)
        connection.resume_body()

    def finished(self, exchange: Exchange) -> None:
        self.statuses.append(exchange.status)

    def opened(self, connection: ClientConnection) -> str | None:
        return self.refusal

    def closed(self, connection: ClientConnection) -> None:
        pass

    def wait(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.deadlines.tick()


class World:
    """One connection with its transport and gate."""

    def __init__(self, *, secure: bool = False) -> None:
        self.gate = ScriptedGate()
        self.wire = MemoryTransport(half_close=not secure)
        self.connection = ClientConnection(self.gate, secure=secure)
        self.connection.connection_made(self.wire)

    def feed(self, data: bytes) -> bytes:
        self.connection.data_received(data)
        return self.wire.take()

    @property
    def handler(self) -> Recorder:
        return self.gate.handlers[-1]

    def respond(self, body: bytes = b"ok", length: int = 2, fields: bytes = b"", *, end: bool = True) -> bytes:
        declared = b"content-length: %d\r\n" % length if length >= 0 else b""
        self.connection.send_head(200, b"HTTP/1.1 200 OK\r\n" + fields + declared, length, body, end)
        return self.wire.take()


def respond_ok(connection: ClientConnection, head: RequestHead) -> None:
    connection.attach(Recorder())
    connection.send_head(200, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", 2, b"ok", True)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_a_request_cut_at_any_byte_is_one_request() -> None:
    for cut in range(1, len(GET)):
        world = World()
        world.gate.script = respond_ok
        assert world.feed(GET[:cut]) == b""
        assert world.feed(GET[cut:]) == OK


async def test_a_kept_connection_serves_request_after_request() -> None:
    world = World()
    world.gate.script = respond_ok
    assert [world.feed(GET) for _ in range(3)] == [OK, OK, OK]
    assert not world.wire.closed


async def test_pipelined_requests_are_answered_in_order() -> None:
    world = World()
    world.gate.script = respond_ok
    assert world.feed(GET * 20) == OK * 20


async def test_of_a_client_that_has_sent_ahead_a_lot_not_everything_is_served_in_one_turn_of_the_loop() -> None:
    world = World()
    world.gate.script = respond_ok
    count = 10 * REQUESTS_A_TURN
    assert world.feed(GET * count) == OK * REQUESTS_A_TURN
    assert not world.wire.reading
    turns = 0
    while len(world.gate.heads) < count:
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 9
    assert world.wire.reading


async def test_requests_that_take_long_to_decide_about_are_few_in_a_turn_of_the_loop() -> None:
    world = World()

    def ponder(connection: ClientConnection, head: RequestHead) -> None:
        until = time.thread_time() + TURN_TIME
        while time.thread_time() <= until:
            pass
        respond_ok(connection, head)

    world.gate.script = ponder
    assert world.feed(GET * 10) == OK * 2
    assert not world.wire.reading
    while len(world.gate.heads) < 10:
        await asyncio.sleep(0)
    assert world.wire.reading


async def test_a_pipelined_request_waits_for_the_answer_before_it() -> None:
    world = World()
    world.feed(GET + GET)
    assert len(world.gate.heads) == 1
    world.respond()
    assert len(world.gate.heads) == 2


async def test_what_is_pipelined_without_end_is_not_read() -> None:
    world = World()
    world.feed(GET)
    world.feed(GET * 2000)
    assert not world.wire.reading
    world.gate.script = respond_ok
    world.respond()
    while len(world.gate.heads) < 2001:
        await asyncio.sleep(0)
    assert world.wire.reading


async def test_empty_lines_before_a_request_are_ignored() -> None:
    world = World()
    world.gate.script = respond_ok
    assert world.feed(b"\r\n\r\n" + GET) == OK


async def test_an_answer_to_http_1_0_ends_with_the_connection_and_is_never_chunked() -> None:
    world = World()
    world.feed(OLD_GET)
    assert world.respond(b"part", UNTIL_CLOSE, end=False) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\npart"
    world.connection.send_body(b"more")
    world.connection.send_end([])
    assert world.wire.take() == b"more"
    assert world.wire.closed


async def test_http_1_0_with_keep_alive_is_kept_when_the_length_is_known() -> None:
    world = World()
    world.feed(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"connection: keep-alive\r\n" in world.respond()
    assert not world.wire.closed


async def test_an_answer_of_unknown_length_is_chunked_with_its_trailers() -> None:
    world = World()
    world.feed(GET)
    head = world.respond(b"abc", CHUNKED, end=False)
    assert head == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
    world.connection.send_body(b"d" * 20000)
    world.connection.send_end([(b"x-sum", b"1")])
    assert world.wire.take() == b"4e20\r\n" + b"d" * 20000 + b"\r\n0\r\nx-sum: 1\r\n\r\n"


async def test_a_whole_answer_of_unknown_length_gets_one() -> None:
    world = World()
    world.feed(GET)
    assert world.respond(b"abc", CHUNKED) == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


async def test_an_answer_without_body_says_only_what_its_fields_say() -> None:
    world = World()
    world.feed(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n")
    assert world.respond(b"", NO_BODY, b"content-length: 9\r\n") == b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    assert not world.wire.closed


async def test_a_body_of_known_length_flows_and_the_rest_is_the_next_request() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345")
    assert (world.handler.received, world.handler.ended) == (b"12345", None)
    world.feed(b"67890" + GET)
    assert (world.handler.received, world.handler.ended) == (b"1234567890", [])
    world.respond()
    assert len(world.gate.heads) == 2


async def test_a_chunked_body_flows_without_its_coding() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    assert world.handler.received == b"hel"
    world.feed(b"lo\r\n0\r\nX: 1\r\n\r\n" + GET)
    assert (world.handler.received, world.handler.ended) == (b"hello", [(b"x", b"1")])
    world.respond()
    assert len(world.gate.heads) == 2


async def test_a_broken_chunk_is_400_and_the_end() -> None:
    world = World()
    answer = world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!!" + GET)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert "longer than its size" in world.handler.lost
    assert world.wire.eof_sent
    assert len(world.gate.heads) == 1


async def test_a_paused_body_waits_in_the_socket() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
    world.connection.pause_body()
    assert not world.wire.reading
    world.feed(b"12345")
    assert world.handler.received == b""
    world.connection.resume_body()
    assert world.wire.reading
    assert world.handler.received == b"12345"


async def test_a_body_whose_decision_takes_time_is_kept() -> None:
    world = World()
    world.gate.script = lambda connection, head: None
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12")
    world.feed(b"345")
    handler = Recorder()
    world.connection.attach(handler)
    assert handler.received == b""
    world.connection.resume_body()
    assert (handler.received, handler.ended) == (b"12345", [])


async def test_an_answer_before_the_end_of_the_body_closes_gently() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n12345")
    assert b"connection: close\r\n" in world.respond()
    assert world.wire.eof_sent
    assert not world.wire.closed
    world.feed(b"x" * 95)
    world.gate.wait(3)
    assert world.wire.closed


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
    world = World()
    answer = world.feed(data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close\r\n" in answer
    assert world.wire.eof_sent
    assert world.feed(GET) == b""
    assert world.gate.heads == []


async def test_a_refusal_names_status_reason_and_request_id() -> None:
    world = World()
    world.gate.script = lambda connection, head: connection.refuse(503, "Nextcloud is down", 5)
    answer = world.feed(GET)
    assert b"\r\nretry-after: 5\r\n" in answer
    assert b"\r\nx-request-id: id-1\r\n" in answer
    assert answer.endswith(b"\r\n\r\n503 Service Unavailable: Nextcloud is down\nrequest id: id-1\n")
    assert not world.wire.closed


async def test_strangers_read_no_reason_that_could_name_hosts_ports_or_patterns() -> None:
    for status in (403, 404, 502, 503, 504):
        world = World()
        world.gate.trusted = False
        world.gate.script = lambda connection, head, s=status: connection.refuse(s, "db.internal:23001 ^/secret")
        answer = world.feed(GET)
        assert b"internal" not in answer
        assert b"23001" not in answer
        assert b"secret" not in answer
        assert b"request id: id-1" in answer


async def test_a_method_that_is_refused_comes_with_those_that_are_not() -> None:
    world = World()
    world.gate.script = lambda connection, head: connection.refuse(405, "no")
    assert b"\r\nallow: GET, HEAD, POST" in world.feed(GET)


async def test_a_refusal_is_json_for_who_asks_for_it() -> None:
    world = World()
    world.gate.script = lambda connection, head: connection.refuse(403, "the visitor is USER")
    answer = world.feed(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n")
    assert answer.endswith(b'\r\n\r\n{"error":"403 Forbidden","reason":"the visitor is USER","request_id":"id-1"}')


async def test_a_refused_upload_is_not_read_to_its_end() -> None:
    world = World()
    world.gate.script = lambda connection, head: connection.refuse(403, "no")
    answer = world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\nExpect: 100-continue\r\n\r\n")
    assert b"connection: close\r\n" in answer
    world.feed(b"x" * (5 << 20))
    assert world.wire.aborted


async def test_a_dropped_client_gets_not_a_byte() -> None:
    world = World()
    world.gate.script = lambda connection, head: connection.end(How.RESET)
    assert world.feed(GET) == b""
    assert world.wire.aborted


async def test_interim_answers_go_to_http_1_1_only() -> None:
    world = World()
    world.feed(GET)
    world.connection.send_interim(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
    assert world.wire.take() == b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    old = World()
    old.feed(OLD_GET)
    old.connection.send_interim(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert old.wire.take() == b""


async def test_a_half_closed_client_still_gets_its_answer() -> None:
    world = World()
    world.feed(GET)
    assert world.connection.eof_received() is True
    assert world.respond() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    assert world.wire.closed


async def test_a_half_closed_client_gets_all_its_pipelined_answers() -> None:
    world = World()
    world.feed(GET + GET)
    assert world.connection.eof_received() is True
    world.respond()
    assert len(world.gate.heads) == 2
    world.respond()
    assert world.wire.closed


async def test_a_client_that_closes_in_the_middle_of_an_event_stream_has_left() -> None:
    for request in (GET, OLD_GET):
        world = World()
        world.feed(request)
        world.respond(b"data: 1\n\n", UNTIL_CLOSE, b"content-type: text/event-stream\r\n", end=False)
        assert world.connection.eof_received() is False
        assert "middle of a stream" in world.handler.lost


@pytest.mark.parametrize(("length", "rest"), [(400, b"cd"), (CHUNKED, b"2\r\ncd\r\n")])
async def test_a_client_that_half_closes_in_the_middle_of_a_body_gets_the_rest_however_long_it_takes(
    length: int, rest: bytes
) -> None:
    world = World()
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
    world = World()
    world.feed(GET)
    world.connection.eof_received()
    world.gate.wait(SETTINGS.timeouts.half_closed + 1)
    assert world.wire.aborted
    assert world.handler.lost


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_reported() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
    assert world.connection.eof_received() is False
    assert "middle of its request" in world.handler.lost


async def test_a_client_that_half_closes_behind_its_body_is_answered_though_nobody_has_taken_it_yet() -> None:
    world = World()
    handler = Recorder()
    world.gate.script = lambda connection, head: connection.attach(handler)
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n123")
    assert world.connection.eof_received() is True
    world.connection.resume_body()
    assert (handler.received, handler.ended, handler.lost) == (b"123", [], "")
    assert world.respond() == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"
    assert world.wire.closed


async def test_a_client_that_half_closes_in_the_middle_of_its_body_is_found_out_when_it_is_taken() -> None:
    world = World()
    handler = Recorder()
    world.gate.script = lambda connection, head: connection.attach(handler)
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n123")
    world.connection.eof_received()
    world.connection.resume_body()
    assert "middle of its request" in handler.lost
    assert world.wire.closed


async def test_back_pressure_reaches_the_handler() -> None:
    world = World()
    world.feed(GET)
    world.respond(b"x", 1000, end=False)
    world.connection.pause_writing()
    world.connection.resume_writing()
    assert world.handler.events == ["blocked", "drained"]


async def test_a_client_that_stops_reading_is_given_up_but_a_slow_one_is_not() -> None:
    world = World()
    world.feed(GET)
    world.respond(b"x", 1000, end=False)
    world.wire.unsent = 900
    world.connection.pause_writing()
    world.wire.unsent = 800
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert not world.wire.closed
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.aborted


async def test_an_upgraded_stream_is_raw_in_both_directions() -> None:
    world = World()
    world.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
    world.connection.upgrade(SWITCH, b"first")
    assert world.wire.take() == b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\nfirst"
    assert world.handler.received == b"early"
    world.feed(b"frame")
    assert world.handler.received == b"earlyframe"
    world.connection.send_body(b"answer")
    assert world.wire.take() == b"answer"
    assert world.connection.eof_received() is True
    assert world.handler.ended == []
    assert world.connection.deadline == NEVER
    world.connection.end(How.LINGER)
    assert world.wire.eof_sent


async def test_an_upgraded_stream_that_ends_lets_the_client_say_its_last_words() -> None:
    """Its reply to a WebSocket's close frame: a reset would take the frame away from it."""
    world = World()
    world.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    world.connection.upgrade(SWITCH, b"")
    world.connection.end(How.LINGER)
    assert world.wire.eof_sent
    world.feed(b"\x88\x82mask..")
    assert not world.wire.closed
    world.gate.wait(3)
    assert world.wire.closed


async def test_a_slow_head_is_408_however_it_drips() -> None:
    world = World()
    for _ in range(4):
        world.feed(b"G" if not world.gate.heads else b"")
        world.gate.wait(SETTINGS.timeouts.head / 4 + 0.1)
    assert world.wire.take().startswith(b"HTTP/1.1 408 ")


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    world = World()
    world.gate.script = respond_ok
    world.feed(GET)
    world.gate.wait(SETTINGS.timeouts.keepalive + 1)
    assert world.wire.take() == b""
    assert world.wire.closed


async def test_a_body_that_stops_is_408() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.take().startswith(b"HTTP/1.1 408 ")
    assert world.handler.lost


async def test_a_short_answer_looks_short() -> None:
    world = World()
    world.feed(GET)
    world.respond(b"abc", CHUNKED, end=False)
    world.connection.end(How.GRACEFUL, "the ExApp died")
    assert world.wire.take() == b""
    assert world.wire.closed
    old = World()
    old.feed(OLD_GET)
    old.respond(b"abc", UNTIL_CLOSE, end=False)
    old.connection.end(How.GRACEFUL, "the ExApp died")
    assert old.wire.aborted


async def test_every_exchange_is_booked_exactly_once() -> None:
    world = World()
    world.feed(GET)
    world.respond()
    world.feed(GET)
    world.respond(b"a", 10, end=False)
    world.connection.end(How.GRACEFUL, "gone")
    world.connection.connection_lost(None)
    assert world.gate.statuses == [200, 200]


async def test_a_connection_too_many_is_refused() -> None:
    gate = ScriptedGate()
    gate.refusal = "all 8 connections are in use"
    wire = MemoryTransport()
    ClientConnection(gate, secure=False).connection_made(wire)
    assert wire.take().startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert wire.closed


async def test_draining_closes_idle_connections_and_lets_running_requests_end() -> None:
    idle, running, relayed = World(), World(), World()
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


async def test_a_client_that_does_not_read_its_answers_gets_no_more_requests_served() -> None:
    world = World()

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
    world = World()
    world.feed(GET + GET)
    world.respond(b"x", 2, end=False)
    world.connection.pause_writing()
    world.connection.send_body(b"y")
    world.connection.send_end([])
    assert len(world.gate.heads) == 1
    world.connection.resume_writing()
    assert len(world.gate.heads) == 2
    assert world.wire.reading


async def test_a_half_closed_client_gets_refusals_for_all_that_it_has_pipelined() -> None:
    world = World()
    world.feed(GET * 3)
    world.connection.eof_received()
    world.gate.script = respond_ok
    assert world.respond() == OK + OK + OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    assert world.wire.closed


async def test_a_kept_connection_is_idle_for_a_limited_time_also_after_a_slow_answer() -> None:
    world = World()
    world.feed(GET)
    world.respond(b"x", 2, end=False)
    world.connection.pause_writing()
    world.connection.send_body(b"y")
    world.connection.send_end([])
    world.connection.resume_writing()
    world.gate.wait(SETTINGS.timeouts.keepalive + 1)
    assert world.wire.closed


async def test_a_closing_connection_closes_also_when_its_answer_was_read_slowly() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n")
    world.respond(b"x", 2, end=False)
    world.connection.pause_writing()
    world.connection.send_body(b"y")
    world.connection.send_end([])
    world.connection.resume_writing()
    world.gate.wait(LINGER_TIME + 1)
    assert world.wire.closed


async def test_a_client_that_sends_all_and_reads_nothing_is_given_up() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n12")
    world.respond(b"x", 1000, end=False)
    world.wire.unsent = 900
    world.connection.pause_writing()
    world.feed(b"34")
    assert world.handler.ended == []
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.aborted


async def test_a_client_that_reads_nothing_is_given_up_also_while_its_body_is_not_wanted() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n12")
    world.respond(b"x", 1000, end=False)
    world.wire.unsent = 900
    world.connection.pause_writing()
    world.connection.pause_body()
    world.gate.wait(SETTINGS.timeouts.client + 1)
    assert world.wire.aborted


async def test_the_end_of_an_upgraded_stream_ends_both_sides_where_tls_knows_no_half() -> None:
    world = World(secure=True)
    world.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    world.connection.upgrade(SWITCH, b"")
    handler = world.handler
    world.connection.finish()
    assert world.wire.closed
    assert handler.lost


async def test_a_client_that_had_half_closed_before_its_upgrade_has_finished() -> None:
    world = World()
    world.feed(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
    world.connection.eof_received()
    world.connection.upgrade(SWITCH, b"")
    assert world.handler.received == b"early"
    assert world.handler.ended == []


async def test_after_a_large_read_others_come_first() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    world.feed(b"x" * SHARE)
    assert not world.wire.reading
    assert len(world.handler.received) == SHARE
    assert "not read: others come first" in repr(world.connection)
    while not world.wire.reading:
        await asyncio.sleep(0)


async def test_a_turn_that_comes_does_not_end_a_pause_that_the_handler_wants() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
    world.feed(b"x" * SHARE)
    world.connection.pause_body()
    world.connection.turn_came()
    assert not world.wire.reading
    world.connection.resume_body()
    while not world.wire.reading:  # it stands in line once more
        await asyncio.sleep(0)


async def test_bytes_are_read_into_a_buffer_that_all_connections_share() -> None:
    world = World()
    world.gate.script = respond_ok
    world.connection.get_buffer(-1)[: len(GET)] = GET
    world.connection.buffer_updated(len(GET))
    assert world.wire.take() == OK


async def test_tiny_chunks_are_decoded_in_many_turns_and_whole() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    world.feed(b"1\r\na\r\n" * 10000 + b"0\r\n\r\n")
    assert len(world.handler.received) < 2000
    turns = 0
    while world.handler.ended is None:
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 5
    assert world.handler.received == b"a" * 10000


async def test_a_megabyte_of_absurd_chunks_is_400() -> None:
    world = World()
    world.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    answer = b""
    for _ in range(20):
        answer += world.feed(b"1\r\na\r\n" * 10000)
        while "others come first" in repr(world.connection):
            await asyncio.sleep(0)
        answer += world.wire.take()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_a_request_that_its_handler_forgets_is_504() -> None:
    world = World()
    world.feed(GET)
    world.gate.wait(2 * (SETTINGS.timeouts.connect + SETTINGS.timeouts.response) + 121)
    assert world.wire.take().startswith(b"HTTP/1.1 504 ")
    assert world.handler.lost


async def test_a_connection_ends_once_however_often_it_is_told_to() -> None:
    for how in How:
        world = World()
        world.feed(GET)
        for _ in range(2):
            world.connection.end(how, "enough")
        world.connection.end(How.RESET)
        assert world.wire.aborted
        assert world.gate.statuses == [0]
        assert world.handler.lost == "enough"


async def test_a_connection_is_one_line_of_state() -> None:
    world = World()
    world.feed(GET)
    assert repr(world.connection) == "<ClientConnection 192.0.2.1, <ServerConnection waiting GET /a>>"
