"""The client's side of HTTP/1.1: what arrives, in any slicing, is one and the same answer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import PeerError
from harp.wire.http import CHUNKED, NO_BODY, UNTIL_CLOSE
from harp.wire.requester import (
    CLOSED,
    IDLE,
    MAX_HEAD,
    MOST_INTERIM,
    MOVES,
    RAW,
    RESTING,
    WAITING,
    Data,
    End,
    FinalHead,
    Interim,
    Requester,
    RequesterEvent,
    RequesterState,
    Switched,
    What,
)
from tests.properties import core
from tests.wire.heads import responses


class Heard:
    """What came out, put together."""

    def __init__(self) -> None:
        self.interims: list[int] = []
        self.status = 0
        self.length = -99
        self.body = b""
        self.ended = False
        self.trailers: list[tuple[bytes, bytes]] = []
        self.switched = False
        self.error = ""

    def add(self, what: What) -> None:
        assert not self.ended, "after the end"
        match what:
            case Interim(head):
                self.interims.append(head.status)
            case FinalHead(head, length, data, end):
                assert not self.status, "two answers"
                self.status, self.length, self.body, self.ended = head.status, length, data, end
            case Data(data):
                assert self.status and data
                self.body += data
            case End(trailers):
                self.ended, self.trailers = True, trailers
            case Switched(head, data):
                self.status, self.switched, self.body = head.status, True, data

    def facts(self) -> tuple[object, ...]:
        return (
            self.interims,
            self.status,
            self.length,
            self.body,
            self.ended,
            self.trailers,
            self.switched,
            self.error,
        )


def exchange(slices: list[bytes], *, method: bytes = b"GET", eof: bool = False) -> tuple[Heard, Requester]:
    requester, heard = Requester(), Heard()
    requester.request(bodyless=method == b"HEAD", complete=True)
    try:
        for piece in slices:
            for what in requester.receive(piece):
                heard.add(what)
        if eof:
            for what in requester.receive_end():
                heard.add(what)
    except PeerError as error:
        heard.error = str(error)
        requester.close()
    return heard, requester


WHOLE = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 5, b"hello", IDLE),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, b"", IDLE),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", CHUNKED, b"abcde", IDLE),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 2, b"ok", IDLE),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 2, b"ok", CLOSED),
    (b"HTTP/1.1 204 No Content\r\n\r\n", NO_BODY, b"", RESTING),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", NO_BODY, b"", CLOSED),
]


@pytest.mark.parametrize(("data", "length", "body", "state"), WHOLE)
def test_an_answer_cut_at_any_byte_is_still_one_answer(
    data: bytes, length: int, body: bytes, state: RequesterState
) -> None:
    for cut in range(1, len(data) + 1):
        heard, requester = exchange([data[:cut], data[cut:]] if cut < len(data) else [data])
        assert (heard.length, heard.body, heard.ended, heard.error) == (length, body, True, "")
        assert requester.state is state


def test_trailers_come_with_the_end() -> None:
    heard, _ = exchange([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"])
    assert (heard.body, heard.trailers) == (b"a", [(b"x-sum", b"1")])


def test_interim_answers_without_end_are_an_error() -> None:
    continue_ = b"HTTP/1.1 100 Continue\r\n\r\n"
    heard, requester = exchange([continue_ * MOST_INTERIM, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
    assert (heard.error, heard.ended, requester.state) == ("", True, IDLE)
    for slices in ([continue_ * (MOST_INTERIM + 1)], [continue_] * (MOST_INTERIM + 1)):
        heard, _ = exchange(slices)
        assert heard.error == f"more than {MOST_INTERIM} interim responses"


def test_every_request_may_have_interim_answers() -> None:
    requester = Requester()
    for _ in range(3):
        requester.request(bodyless=False, complete=True)
        requester.receive(b"HTTP/1.1 102 Processing\r\n\r\n" * MOST_INTERIM)
        requester.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert requester.state is IDLE


def test_no_bytes_are_no_part_of_a_body() -> None:
    for answer in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"):
        requester = Requester()
        requester.request(bodyless=False, complete=True)
        requester.receive(answer)
        assert not requester.receive(b"")


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    heard, requester = exchange([b"HTTP/1.1 200 OK\r\n\r\nab", b"cd"], eof=True)
    assert (heard.length, heard.body, heard.ended, requester.state) == (UNTIL_CLOSE, b"abcd", True, CLOSED)


@pytest.mark.parametrize(
    "data",
    [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", b"HTTP/1.1 103 Early Hints\r\n\r\n"],
)
def test_a_connection_that_ends_too_early_is_an_error(data: bytes) -> None:
    heard, _ = exchange([data] if data else [], eof=True)
    assert heard.error == "closed the connection before its answer was complete"


def test_silence_is_over_with_the_first_byte() -> None:
    requester = Requester()
    requester.request(bodyless=False, complete=True)
    assert requester.silent
    requester.receive(b"H")
    assert not requester.silent


def test_an_answer_that_comes_before_the_request_is_complete_ends_the_connection() -> None:
    requester = Requester()
    requester.request(bodyless=False, complete=False)
    requester.receive(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    assert requester.state is CLOSED


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nbody"])
def test_after_an_answer_to_head_that_announces_or_has_a_body_the_connection_ends(data: bytes) -> None:
    heard, requester = exchange([data], method=b"HEAD")
    assert (heard.length, heard.body, heard.ended, requester.state) == (NO_BODY, b"", True, CLOSED)


def test_bytes_that_nobody_asked_for_are_an_error() -> None:
    for requester in (Requester(), exchange([b"HTTP/1.1 304 Not Modified\r\n\r\n"])[1]):
        with pytest.raises(PeerError, match="nobody has asked"):
            requester.receive(b"HTTP/1.1 200 OK\r\n")


def test_after_a_switch_every_byte_is_the_other_protocols() -> None:
    heard, requester = exchange([b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw", b" bytes"])
    assert (heard.switched, heard.body, requester.state) == (True, b"raw bytes", RAW)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\n", "LF alone"),
        (b"HTTP/1.1 200 OK\r\nX: 1\nY", "LF alone"),
        (b"SSH-2.0", "does not begin with HTTP/1."),
        (b"HTTP/2", "does not begin with HTTP/1."),
        (b"HTTP/1.1 099 Odd\r\n\r\n", "status"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD, "more than 65536 bytes"),
    ],
)
def test_what_cannot_become_a_head_is_refused_at_once(data: bytes, reason: str) -> None:
    assert reason in exchange([data])[0].error


PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Early Hints\r\n",
        b"HTTP/1.1 101 S\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"\n",
        b"3\r\nabc\r\n",
        b"0\r\n",
        b"abc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ]
) | st.binary(max_size=3)


@core
@given(
    pieces=st.lists(PIECES, max_size=9),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    method=st.sampled_from([b"GET", b"HEAD"]),
    eof=st.booleans(),
)
def test_whatever_arrives_means_the_same_in_every_slicing(
    pieces: list[bytes], cuts: list[int], method: bytes, eof: bool
) -> None:
    data = b"".join(pieces)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    slices = [data[a:b] for a, b in itertools.pairwise(edges)]
    whole, at_once = exchange([data] if data else [], method=method, eof=eof)
    sliced, in_slices = exchange(slices, method=method, eof=eof)
    if whole.ended and at_once.state is CLOSED:  # what follows the answer is noticed with it, or later
        assert sliced.facts()[:6] == whole.facts()[:6]
    elif not whole.error and not sliced.error:
        assert sliced.facts() == whole.facts()
        assert in_slices.state is at_once.state
    else:
        assert bool(whole.error) == bool(sliced.error)


@core
@given(data=st.lists(st.binary(max_size=40), max_size=6))
def test_no_bytes_raise_anything_but_a_peer_error(data: list[bytes]) -> None:
    exchange([b"HTTP/1.1 200 ", *data], eof=True)


def test_every_state_can_be_closed_and_none_is_left_after_that() -> None:
    for state, moves in MOVES.items():
        assert moves[RequesterEvent.CLOSE] is CLOSED, state
    assert MOVES[CLOSED] == {RequesterEvent.CLOSE: CLOSED}


def test_a_move_that_is_not_in_the_table_raises() -> None:
    requester = Requester()
    requester.request(bodyless=False, complete=True)
    with pytest.raises(KeyError):
        requester.request(bodyless=False, complete=True)
    assert requester.state is WAITING


def test_every_state_is_reached_from_idle() -> None:
    reached = {IDLE}
    for _ in RequesterState:
        reached |= {after for state in reached for after in MOVES[state].values()}
    assert reached == set(RequesterState)


def test_its_state_is_one_line() -> None:
    heard, requester = exchange([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234"])
    assert (heard.body, repr(requester)) == (b"1234", "<Requester body, 5 bytes to come>")


@core
@given(responses(), st.booleans(), st.booleans())
def test_an_answer_in_one_piece_is_what_it_is_in_two(data: bytes, bodyless: bool, complete: bool) -> None:
    one, two = Requester(), Requester()
    for requester in (one, two):
        requester.request(bodyless, complete)
    whole = one.receive_whole(data)
    if whole is None:
        assert one.state is WAITING
        return
    heard = Heard()
    for what in two.receive(data):
        heard.add(what)
    status, start, body = whole
    assert (heard.status, heard.body, heard.length, heard.ended) == (status, body, len(body), True)
    assert b"\nx-request-id:" not in start.lower()
    assert one.state is two.state
