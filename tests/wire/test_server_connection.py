"""The server's side of an HTTP/1 connection, without a socket: its table, what it reads, and what it writes."""

from __future__ import annotations

from typing import Any

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import BadRequest, PeerError
from harp.wire.chunked import A_TURN, chunk, last_chunk
from harp.wire.ends import How
from harp.wire.http import CHUNKED, NO_BODY, UNTIL_CLOSE
from harp.wire.requests import RequestReader
from harp.wire.server_connection import (
    ANSWERING,
    CLOSED,
    DECIDING,
    DUPLEX,
    IDLE,
    LINGERING,
    MOVES,
    RAW,
    UPLOADING,
    WAITING,
    Event,
    IllegalMove,
    ServerConnection,
    State,
)
from tests.properties import core

LIMIT = 1000
GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET /a HTTP/1.0\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
READER = RequestReader(20)

Seen = list[tuple[str, Any]]  # ("head", target), ("body", bytes), ("end", trailers), ("error", status)


def reading(data: bytes = b"") -> ServerConnection:
    """A connection that has got these bytes, and whose request, if that is complete, has been taken."""
    connection = ServerConnection(LIMIT)
    connection.receive(data)
    if connection.next_head(READER) is not None:
        connection.take_request()
    return connection


class Everything:
    """Answers each request at once it is complete, and notes what was read."""

    def __init__(self) -> None:
        self.connection = ServerConnection(LIMIT)
        self.seen: Seen = []

    def feed(self, data: bytes) -> None:
        if self.connection.state is CLOSED:
            return
        self.connection.receive(data)
        try:
            while self._step():
                pass
        except BadRequest as error:
            self.seen.append(("error", error.status))
            self.connection.end(How.RESET)
        except PeerError:
            self.seen.append(("error", 400))
            self.connection.end(How.RESET)

    def _step(self) -> bool:
        connection = self.connection
        if connection.state is IDLE:
            head = connection.next_head(READER)
            if head is None:
                return False
            self.seen.append(("head", (head.method, head.path + head.query)))
            connection.take_request()
        elif connection.state is UPLOADING:
            body = connection.take_body()
            if body and self.seen[-1][0] == "body":
                body = self.seen.pop()[1] + body
            if body:
                self.seen.append(("body", body))
            return connection.state is WAITING or connection.more_of_body
        if connection.state is WAITING:
            self.seen.append(("end", connection.trailers))
            connection.answer(OK, NO_BODY, b"", True)
            if connection.complete() is not None:
                connection.end(How.GRACEFUL)
                return False
        return True


def seen(parts: list[bytes]) -> Seen:
    everything = Everything()
    for part in parts:
        everything.feed(part)
    return everything.seen


class Oracle:
    """What llhttp sees in the same bytes, of requests that are all to be kept."""

    def __init__(self) -> None:
        self.seen: Seen = []
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> Seen:
        self._parser.feed_data(data)
        return self.seen

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_headers_complete(self) -> None:
        self.seen.append(("head", (self._parser.get_method(), self._url)))

    def on_body(self, body: bytes) -> None:
        if self.seen[-1][0] == "body":
            body = self.seen.pop()[1] + body
        self.seen.append(("body", body))

    def on_message_complete(self) -> None:
        self.seen.append(("end", []))


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted(place % (len(data) + 1) for place in cuts)
    return [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]


PATHS = st.sampled_from([b"/", b"/a?b=c", b"/exapps/x/y"])
PAYLOADS = st.binary(max_size=30)
HEADERS = st.sampled_from([b"", b"Accept: */*\r\n", b"Cookie: a=b\r\nX: y\r\n"])


def plain(path: bytes, headers: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (path, headers)


def sized(path: bytes, headers: bytes, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (path, headers, len(body), body)


def in_chunks(path: bytes, headers: bytes, pieces: list[bytes]) -> bytes:
    body = b"".join(chunk(piece) for piece in pieces if piece) + last_chunk([])
    return b"PUT %b HTTP/1.1\r\nHost: a\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (path, headers, body)


GOOD = st.one_of(
    st.builds(plain, PATHS, HEADERS),
    st.builds(sized, PATHS, HEADERS, PAYLOADS),
    st.builds(in_chunks, PATHS, HEADERS, st.lists(PAYLOADS, max_size=4)),
)
CHUNKED_PUT = in_chunks(b"/", b"", [b"a", b"b"])
LINES = (b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"\r\n")
FRAGMENTS = st.sampled_from((GET, POST, OLD, CHUNKED_PUT, *LINES, b"hello", b"\r", b"\n", b" ", b"\0", b"x" * 400))
CUTS = st.lists(st.integers(0, 5000), max_size=8)


@core
@given(st.lists(GOOD, max_size=5), CUTS)
def test_requests_in_any_slices_are_what_llhttp_sees_in_one(requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    expected = Oracle().feed(data) if data else []
    assert seen(cut(data, cuts)) == expected


@core
@given(st.lists(FRAGMENTS, max_size=8), CUTS)
def test_any_slicing_of_any_bytes_gives_the_same_events(fragments: list[bytes], cuts: list[int]) -> None:
    data = b"".join(fragments)
    whole, sliced = seen([data]), seen(cut(data, cuts))
    if whole and whole[-1][0] == "error":  # payload in front of an error may have been handed on before it was seen
        whole, sliced = ([event for event in events if event[0] != "body"] for events in (whole, sliced))
    assert sliced == whole


@core
@given(st.lists(PAYLOADS, min_size=1, max_size=5), st.booleans(), st.booleans())
def test_answers_are_read_by_llhttp_as_they_were_given(pieces: list[bytes], known: bool, at_once: bool) -> None:
    connection = reading(GET)
    body = b"".join(pieces)
    length = len(body) if known else UNTIL_CLOSE
    start = OK + (b"content-length: %d\r\n" % length if known else b"")
    out: list[bytes | tuple[bytes, ...]] = [connection.answer(start, length, body if at_once else b"", at_once)]
    if not at_once:
        out += [connection.answer_body(piece) for piece in pieces if piece]
        out.append(connection.answer_end([]))
    assert connection.complete() is None

    class ClientSide:
        body = b""
        complete = False

        def on_body(self, data: bytes) -> None:
            self.body += data

        def on_message_complete(self) -> None:
            self.complete = True

    client = ClientSide()
    parser = httptools.HttpResponseParser(client)
    for piece in out:
        parser.feed_data(piece if isinstance(piece, bytes) else b"".join(piece))
    assert (client.body, client.complete) == (body, True)


@pytest.mark.parametrize("state", State)
def test_a_connection_can_end_in_every_state(state: State) -> None:
    assert MOVES[state][Event.CLOSE] is CLOSED
    assert MOVES[state][Event.LINGER] in (LINGERING, CLOSED)


def test_every_state_can_be_reached_and_left() -> None:
    reached = {IDLE}
    while more := {after for state in reached for after in MOVES[state].values()} - reached:
        reached |= more
    assert reached == set(State) == set(MOVES)


def test_a_move_that_is_not_in_the_table_is_an_error_that_names_those_that_are() -> None:
    connection = reading(POST)
    with pytest.raises(IllegalMove, match="UPGRADE is not a move of this state; REQUEST_END, ANSWER, LINGER, CLOSE"):
        connection.upgrade()


def test_the_states_of_an_upload_that_is_answered_early() -> None:
    connection = ServerConnection(LIMIT)
    states = [connection.state]
    connection.receive(POST)
    connection.next_head(READER)
    states.append(connection.state)
    connection.take_request()
    states.append(connection.state)
    connection.answer(OK, CHUNKED, b"", False)
    states.append(connection.state)
    connection.receive(b"hello")
    assert connection.take_body() == b"hello"
    states.append(connection.state)
    assert connection.complete() is None
    assert [*states, connection.state] == [IDLE, DECIDING, UPLOADING, DUPLEX, ANSWERING, IDLE]


def test_an_answer_to_an_upload_that_is_not_complete_is_the_last() -> None:
    connection = reading(POST)
    assert b"connection: close\r\n" in bytes(connection.answer(OK, NO_BODY, b"", True))  # type: ignore[arg-type]
    assert connection.complete() is How.LINGER


def test_an_answer_that_only_the_end_completes_is_cut_by_a_reset_and_completed_gracefully() -> None:
    cut_short = reading(OLD)
    cut_short.answer(OK, UNTIL_CLOSE, b"abc", False)
    assert cut_short.end(How.GRACEFUL) is How.RESET
    whole = reading(OLD)
    whole.answer(OK, UNTIL_CLOSE, b"abc", False)
    how = whole.complete()
    assert how is How.GRACEFUL
    assert whole.end(how) is How.GRACEFUL


def test_an_answer_whose_end_is_told_otherwise_may_end_gracefully_though_short() -> None:
    connection = reading(GET)
    connection.answer(OK, CHUNKED, b"abc", False)
    assert connection.end(How.GRACEFUL) is How.GRACEFUL
    assert connection.end(How.LINGER) is How.LINGER
    assert connection.state is CLOSED


def test_of_tiny_chunks_no_more_than_a_turns_work_is_taken_at_a_time() -> None:
    connection = reading(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.receive(chunk(b"a") * (A_TURN + 5) + last_chunk([(b"x", b"y")]) + GET)
    assert (len(connection.take_body()), connection.more_of_body) == (A_TURN, True)
    assert (len(connection.take_body()), connection.more_of_body) == (5, False)
    assert (connection.state, connection.trailers) == (WAITING, [(b"x", b"y")])
    assert connection.waiting == len(GET)


def test_requests_that_come_together_again_are_all_read_again() -> None:
    reader = Everything()
    for _ in range(3):
        reader.feed(GET + GET.replace(b"/a", b"/b"))
    assert [what for name, what in reader.seen if name == "head"] == [(b"GET", b"/a"), (b"GET", b"/b")] * 3


def test_a_head_that_is_too_long_is_refused_before_it_is_complete() -> None:
    connection = ServerConnection(LIMIT)
    connection.receive(b"GET /" + b"a" * LIMIT)
    with pytest.raises(BadRequest) as refused:
        connection.next_head(READER)
    assert refused.value.status == 431


def test_what_comes_after_an_upgrade_is_raw() -> None:
    connection = reading(GET + b"\x00frame")
    connection.upgrade()
    assert (connection.state, connection.take_raw(), connection.waiting) == (RAW, b"\x00frame", 0)


def test_a_connection_is_one_line_of_state() -> None:
    connection = reading(POST + b"hel")
    assert repr(connection) == "<ServerConnection uploading POST /a, 5 of the body, 3 bytes wait>"
    connection.take_body()
    assert repr(connection) == "<ServerConnection uploading POST /a, 2 of the body>"
