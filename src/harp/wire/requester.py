"""The client's side of one HTTP/1.1 connection, without the connection (RFC 9112).

A `Requester` is told of each request that is sent and is given the bytes that arrive; it returns what they mean. Its
life cycle is `MOVES`. What is not an answer raises PeerError, and then the connection is of no use any more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum, StrEnum, auto

from msgspec import Struct

from harp.errors import PeerError
from harp.wire.chunked import A_TURN, ChunkedDecoder
from harp.wire.core import cut_response
from harp.wire.http import CHUNKED, HEAD_END, NO_BODY, UNTIL_CLOSE, Fields
from harp.wire.responses import ResponseHead, read_response, read_usual_response

MAX_HEAD = 64 * 1024  # bytes of a response head
MOST_INTERIM = 256  # 1xx responses to one request: "102 Processing" every few seconds for half an hour
_BEGINNING = b"HTTP/1."
_BARE_LF = re.compile(rb"(?<!\r)\n").search


class RequesterState(IntEnum):
    IDLE = auto()  # a request may be sent
    RESTING = auto()  # as IDLE, after an answer without a body: what a faulty server sends next is not an answer
    WAITING = auto()  # a request is on its way, and not a byte has come back
    HEAD = auto()  # a part of a head has come, or an interim response
    BODY = auto()
    RAW = auto()  # switched to another protocol
    CLOSED = auto()


class RequesterEvent(StrEnum):
    REQUEST = "request sent"
    PART = "part of a head, or interim response"
    BEGIN = "head, the body follows"
    DONE = "answer complete"
    REST = "answer without a body complete"
    RESTED = "nothing came"
    SWITCH = "101"
    CLOSE = "closed, broken, given up or not to be used again"


IDLE, RESTING, WAITING, HEAD, BODY, RAW, CLOSED = RequesterState

_ANSWERED = {
    RequesterEvent.PART: HEAD,
    RequesterEvent.BEGIN: BODY,
    RequesterEvent.DONE: IDLE,
    RequesterEvent.REST: RESTING,
    RequesterEvent.SWITCH: RAW,
    RequesterEvent.CLOSE: CLOSED,
}
MOVES: dict[RequesterState, dict[RequesterEvent, RequesterState]] = {
    IDLE: {RequesterEvent.REQUEST: WAITING, RequesterEvent.CLOSE: CLOSED},
    RESTING: {RequesterEvent.RESTED: IDLE, RequesterEvent.CLOSE: CLOSED},
    WAITING: _ANSWERED,
    HEAD: _ANSWERED,
    BODY: {RequesterEvent.DONE: IDLE, RequesterEvent.CLOSE: CLOSED},
    RAW: {RequesterEvent.CLOSE: CLOSED},
    CLOSED: {RequesterEvent.CLOSE: CLOSED},
}

# Looking a member up in its Enum costs more than the rest of a step.
_REQUEST, _PART, _BEGIN, _DONE, _REST, _RESTED, _SWITCH, _CLOSE = RequesterEvent


class Interim(Struct):
    """A 1xx response other than 101."""

    head: ResponseHead


class FinalHead(Struct):
    """The final head. `length` is the body's in bytes, CHUNKED, UNTIL_CLOSE or NO_BODY; `end`: `data` is all of it."""

    head: ResponseHead
    length: int
    data: bytes
    end: bool


class Data(Struct):
    """More of the body or, after a switch, of the other protocol."""

    data: bytes


class End(Struct):
    """The body is complete."""

    trailers: Fields


class Switched(Struct):
    """101: `data` belongs to the other protocol, as does everything that is still to come."""

    head: ResponseHead
    data: bytes


Whole = tuple[int, bytes, bytes]  # status, start as in ResponseHead but without X-Request-Id, body
What = Interim | FinalHead | Data | End | Switched
NOTHING: Sequence[What] = ()


class Requester:
    """Says what arrives, one exchange after the other.

    `silent` is true while a request waits for the first byte of its answer. Holds back at most MAX_HEAD bytes of a head
    and what `ChunkedDecoder` holds back.
    """

    __slots__ = ("_bodyless", "_chunks", "_complete", "_held", "_interims", "_left", "_reusable", "state")

    def __init__(self) -> None:
        self.state = IDLE
        self._held = b""  # of a head
        self._bodyless = False  # the request is HEAD
        self._complete = False  # the request, with its body
        self._interims = 0  # to the request under way
        self._left = 0  # of the answer's body, in bytes; or UNTIL_CLOSE
        self._chunks: ChunkedDecoder | None = None
        self._reusable = True

    def __repr__(self) -> str:
        left = f", {self._left} bytes to come" if self.state is BODY and self._left > 0 else ""
        return f"<Requester {self.state.name.lower()}{left}>"

    @property
    def more(self) -> bool:
        """Is there more of the body than was a turn's work? Then `receive(b"")` goes on."""
        return self.state is BODY and self._chunks is not None and self._chunks.more

    @property
    def silent(self) -> bool:
        """Not a byte of the response has come."""
        return self.state is WAITING

    def _move(self, event: RequesterEvent) -> None:
        self.state = MOVES[self.state][event]

    # What is sent

    def request(self, bodyless: bool, complete: bool) -> None:
        """A request head is sent. `bodyless`: the method is HEAD. `complete`: no body follows."""
        self.state = MOVES[self.state][_REQUEST]
        self._bodyless = bodyless
        self._complete = complete
        self._interims = 0

    def request_complete(self) -> None:
        """The body is sent, to its end."""
        self._complete = True

    def rested(self) -> None:
        """Nothing came for a while after an answer without a body: the connection is idle."""
        self._move(_RESTED)

    def close(self) -> None:
        """The connection is of no use any more."""
        self.state = MOVES[self.state][_CLOSE]

    # What arrives

    def receive_whole(self, data: bytes) -> Whole | None:
        """An answer that these bytes are, as nearly all small ones come: usual, with its length, in one piece.

        None: `receive` says what they are.
        """
        if self.state is not WAITING or self._bodyless:
            return None
        cut = cut_response(data)
        if cut is None:
            return None
        status, start, length, end = cut
        if len(data) - end != length or status == 304:
            return None
        self.state = MOVES[WAITING][_DONE if self._reusable and self._complete else _CLOSE]
        return status, start, data[end:]

    def receive(self, data: bytes) -> Sequence[What]:
        """What these bytes mean, in order; of a body in tiny chunks no more than is a turn's work, see `more`."""
        state = self.state
        if state is WAITING or state is HEAD:
            return self._receive_head(data)
        if state is BODY:
            return self._receive_body(data)
        if state is RAW:
            return (Data(data),)
        if state is CLOSED:
            return NOTHING
        raise PeerError("bytes that nobody has asked for")

    def receive_end(self) -> Sequence[What]:
        """The other side sends no more. Raises PeerError when something is missing."""
        state = self.state
        if state is BODY and self._left == UNTIL_CLOSE:
            self._move(_CLOSE)
            return (End([]),)
        if state is BODY or state is HEAD or state is WAITING:
            raise PeerError("closed the connection before its answer was complete")
        return NOTHING

    # Heads

    def _receive_head(self, data: bytes) -> Sequence[What]:
        if not self._held:
            usual = read_usual_response(data)
            if usual is not None:  # nearly always
                return self._begin(usual[0], data[usual[1] :])
        seen = 0
        if self._held:
            seen = len(self._held)
            data = self._held + data
        before: list[What] = []
        while True:
            end = data.find(HEAD_END, max(seen - 3, 0)) + 4
            if end < 4:
                self._hold(data, seen)
                return before
            head = read_response(data if end == len(data) else data[:end])
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                self._move(_SWITCH)
                self._held = b""
                return [*before, Switched(head, data)]
            if head.status < 100:
                raise PeerError(f"a response with status {head.status}")
            self._interims += 1
            if self._interims > MOST_INTERIM:
                raise PeerError(f"more than {MOST_INTERIM} interim responses")
            self._move(_PART)
            before.append(Interim(head))
            seen = 0
        self._held = b""
        after = self._begin(head, data)
        return [*before, *after] if before else after

    def _hold(self, data: bytes, seen: int) -> None:
        """Keep an incomplete head, unless it can become none."""
        if len(data) > MAX_HEAD:
            raise PeerError(f"a response head of more than {MAX_HEAD} bytes")
        if data[: len(_BEGINNING)] != _BEGINNING[: len(data)]:
            raise PeerError("a response that does not begin with HTTP/1.")
        if _BARE_LF(data, seen):
            raise PeerError("a response head with lines that end in LF alone")
        self._held = data
        if data:
            self._move(_PART)

    def _begin(self, head: ResponseHead, data: bytes) -> Sequence[What]:
        length = head.length
        if not head.keep_alive:
            self._reusable = False
        if self._bodyless or head.status in (204, 304):
            return self._begin_bodyless(head, data)
        if length >= 0:
            left = length - len(data)
            if left > 0:
                self.state = MOVES[self.state][_BEGIN]
                self._left = left
                return (FinalHead(head, length, data, False),)
            self._finish(free=not left)
            return (FinalHead(head, length, data[:left] if left else data, True),)
        if length == CHUNKED:
            return self._begin_chunked(head, data)
        self._move(_BEGIN)
        self._left = UNTIL_CLOSE
        return (FinalHead(head, UNTIL_CLOSE, data, False),)

    def _begin_bodyless(self, head: ResponseHead, data: bytes) -> Sequence[What]:
        """Faulty servers send a body all the same, and it must not answer the next request.

        So a connection whose answer announces a body is not used again, and others rest for a while.
        """
        announced = head.length > 0 or head.length == CHUNKED
        if data or announced or not (self._reusable and self._complete):
            self._move(_CLOSE)
        else:
            self._move(_REST)
        return (FinalHead(head, NO_BODY, b"", True),)

    def _begin_chunked(self, head: ResponseHead, data: bytes) -> Sequence[What]:
        decoder = ChunkedDecoder()
        payload = b"".join(decoder.feed(data, A_TURN))
        if decoder.done and not decoder.trailers:
            self._finish(free=not decoder.rest)
            return (FinalHead(head, CHUNKED, payload, True),)
        self._move(_BEGIN)
        answer = FinalHead(head, CHUNKED, payload, False)
        if decoder.done:
            self._finish(free=not decoder.rest)
            return (answer, End(decoder.trailers))
        self._left = CHUNKED
        self._chunks = decoder
        return (answer,)

    # Bodies

    def _receive_body(self, data: bytes) -> Sequence[What]:
        if not data and not self.more:  # to the client an empty chunk would be the last one
            return NOTHING
        if self._chunks is not None:
            return self._receive_chunks(self._chunks, data)
        if self._left == UNTIL_CLOSE:
            return (Data(data),)
        left = self._left = self._left - len(data)
        if left > 0:
            return (Data(data),)
        self._finish(free=not left)
        return (Data(data[:left] if left else data), End([]))

    def _receive_chunks(self, decoder: ChunkedDecoder, data: bytes) -> Sequence[What]:
        pieces = decoder.feed(data, A_TURN)
        found: list[What] = []
        if pieces:
            found.append(Data(pieces[0] if len(pieces) == 1 else b"".join(pieces)))
        if decoder.done:
            self._finish(free=not decoder.rest)
            found.append(End(decoder.trailers))
        return found

    def _finish(self, *, free: bool) -> None:
        """The answer is complete. `free`: nothing follows it."""
        self._chunks = None
        self.state = MOVES[self.state][_DONE if free and self._reusable and self._complete else _CLOSE]
