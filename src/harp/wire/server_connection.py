"""The server's side of an HTTP/1 connection, without a socket: bytes in, requests out, and answers framed (RFC 9112).

    receive(data) ──► next_head() ──► take_body() ... ──► answer(), answer_body(), answer_end() ──► complete()

Requests are taken one at a time; what a client pipelines after them waits. `MOVES` is the life of a connection:
whatever happens asks it, and what is not in it raises IllegalMove.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto

from harp.errors import BadRequest
from harp.wire.chunked import A_TURN, ChunkedDecoder, chunk, last_chunk
from harp.wire.ends import How
from harp.wire.http import CHUNKED, HEAD_END, UNTIL_CLOSE, Fields
from harp.wire.requests import RequestHead, RequestReader

BLANK = 16  # bytes of line ends that are ignored before a request
REPEATED = 2048  # bytes; longer requests are not compared with the one before
JOIN = 16 * 1024  # bytes: shorter pieces are joined with their head, longer ones are written beside it


class State(IntEnum):
    """Where request and answer are."""

    IDLE = auto()  # no request, or a part of its head
    DECIDING = auto()  # a request has come, and nobody has it yet
    UPLOADING = auto()  # its body is arriving
    WAITING = auto()  # it is complete, its answer has not begun
    DUPLEX = auto()  # its answer has begun before its body was complete
    ANSWERING = auto()  # it is complete, its answer has begun
    RAW = auto()  # upgraded: bytes in both directions
    LINGERING = auto()  # bytes go nowhere, until the client closes
    CLOSED = auto()


class Event(IntEnum):
    """What happens to a connection."""

    HEAD = auto()  # a request head was read
    BODY = auto()  # the request is taken, its body may come
    NO_BODY = auto()  # the request is taken, it has none
    REQUEST_END = auto()  # the body is complete
    ANSWER = auto()  # an answer begins that is not complete at once
    NEXT = auto()  # the answer is complete, and the connection is kept
    UPGRADE = auto()
    LINGER = auto()
    CLOSE = auto()


# Plain names: looking a member up in its Enum costs more than all the rest of a step.
IDLE, DECIDING, UPLOADING, WAITING, DUPLEX, ANSWERING, RAW, LINGERING, CLOSED = State
HEAD, BODY, NO_BODY, REQUEST_END, ANSWER, NEXT, UPGRADE, LINGER, CLOSE = Event

_ENDS = {LINGER: LINGERING, CLOSE: CLOSED}


class IllegalMove(Exception):
    """The program has done something in a state in which that makes no sense: a bug of ours."""


class _Moves(dict[Event, State]):
    """The moves out of one state."""

    def __missing__(self, event: Event) -> State:
        raise IllegalMove(
            f"{event.name} is not a move of this state; {', '.join(e.name for e in self) or 'none'} would be"
        )


MOVES: dict[State, _Moves] = {
    IDLE: _Moves({HEAD: DECIDING, **_ENDS}),
    DECIDING: _Moves({BODY: UPLOADING, NO_BODY: WAITING, NEXT: IDLE, **_ENDS}),
    UPLOADING: _Moves({REQUEST_END: WAITING, ANSWER: DUPLEX, **_ENDS}),
    WAITING: _Moves({ANSWER: ANSWERING, UPGRADE: RAW, NEXT: IDLE, **_ENDS}),
    DUPLEX: _Moves({REQUEST_END: ANSWERING, **_ENDS}),
    ANSWERING: _Moves({NEXT: IDLE, **_ENDS}),
    RAW: _Moves(_ENDS),
    LINGERING: _Moves({LINGER: LINGERING, CLOSE: CLOSED}),
    CLOSED: _Moves({LINGER: CLOSED, CLOSE: CLOSED}),
}


class Framing(Enum):
    """How the end of the answer under way is signalled."""

    LENGTH = auto()
    CHUNKS = auto()
    END_OF_CONNECTION = auto()


LENGTH, CHUNKS, END_OF_CONNECTION = Framing


class ServerConnection:
    """See the module. `head` is the request under way, `trailers` those of its body, `keep_alive` may be taken back.

    `bare`: it is of HTTP/1.1 and has no body, so a whole answer needs no word about a connection that is kept.
    """

    __slots__ = (
        "_at",
        "_before",
        "_blank",
        "_chunks",
        "_framing",
        "_left",
        "_limit",
        "_same",
        "bare",
        "head",
        "keep_alive",
        "state",
        "trailers",
        "unread",
    )

    def __init__(self, head_limit: int) -> None:
        self.state = IDLE
        self.head: RequestHead | None = None
        self.keep_alive = True
        self.bare = False
        self.trailers: Fields = []
        self._limit = head_limit
        self.unread = b""  # received; what stands before _at has been read, and all of it is read when it is b""
        self._at = 0
        self._blank = 0  # bytes of line ends since the last request
        self._before: RequestHead | None = None  # the request before: the next one often repeats its header lines
        self._same = b""  # what that was read from, if it was nothing else: often it is repeated as a whole
        self._left = 0  # bytes of the body to come, or CHUNKED
        self._chunks: ChunkedDecoder | None = None
        self._framing = LENGTH

    def __repr__(self) -> str:
        request = f" {self.head.method.decode()} {self.head.path.decode('latin-1')}" if self.head else ""
        more = f", {self.waiting} bytes wait" if self.waiting else ""
        left = f", {self._chunks or self._left} of the body" if self.state in (UPLOADING, DUPLEX) else ""
        return f"<ServerConnection {self.state.name.lower()}{request}{left}{more}>"

    @property
    def waiting(self) -> int:
        """Bytes received and not read yet."""
        return len(self.unread) - self._at

    @property
    def bodiless(self) -> bool:
        """Has the client sent, or is it about to send, nothing more of the request?"""
        return not self._left

    # The request

    def receive(self, data: bytes) -> None:
        """Bytes of the client."""
        if self.unread:
            self.unread = (self.unread[self._at :] if self._at else self.unread) + data
            self._at = 0
        else:
            self.unread = data

    def next_head(self, reader: RequestReader) -> RequestHead | None:
        """Read a request off what has come, if its head is complete. Raises BadRequest."""
        data, at, before = self.unread, self._at, self._before
        if not data:
            return None
        if data == self._same and before is not None:
            head, end = before, len(data)
        else:
            read = reader.read_ordinary(data, at, before)
            if read is None or read.size > self._limit:
                read = self._read_any(reader, data, at)
                if read is None:
                    return None
            head, end = read, at + read.size
        if end == len(data):
            self.unread = b""
            self._at = 0
            self._same = b"" if at or end >= REPEATED else data
        else:
            self._at = end
            self._same = b""
        self.head = self._before = head
        self.state = MOVES[self.state][HEAD]
        self._blank = 0
        self._left = head.length
        self.keep_alive = head.keep_alive
        self.bare = not head.length and head.minor == 1
        return head

    def take_request(self) -> None:
        """Somebody is going to answer. Its body, if there is one, may be read by `take_body`."""
        left = self._left
        if left:
            self.state = MOVES[self.state][BODY]
            self.trailers = []
            self._chunks = ChunkedDecoder() if left < 0 else None
        else:
            self.state = MOVES[self.state][NO_BODY]

    def take_body(self) -> bytes:
        """Payload of what has come of the body, at most so much as is a turn's work. Raises PeerError.

        Afterwards the state says whether the body is complete, and `more_of_body` whether this should be called again.
        """
        data = self.unread[self._at :] if self._at else self.unread
        self.unread = b""
        self._at = 0
        if self._chunks is not None:
            return self._take_chunks(self._chunks, data)
        left = self._left = self._left - len(data)
        if left > 0:
            return data
        if left:
            self.unread = data[left:]
            data = data[:left]
            self._left = 0
        self.state = MOVES[self.state][REQUEST_END]
        return data

    @property
    def more_of_body(self) -> bool:
        """Did `take_body` leave something that it could have taken?"""
        return self._chunks is not None and self._chunks.more

    def take_raw(self) -> bytes:
        """All that has come, when it is not HTTP any more."""
        data = self.unread[self._at :]
        self.unread = b""
        self._at = 0
        return data

    # The answer

    def answer(self, start: bytes, length: int, data: bytes, end: bool) -> bytes | tuple[bytes, ...]:
        """The head of an answer with the first of its body. `end`: `data` is all of it. See Downstream.send_head."""
        head = self.head
        assert head is not None
        unknown = length in (CHUNKED, UNTIL_CLOSE)
        if end:
            if self._left:
                self.keep_alive = False
            if unknown:
                start += b"content-length: %d\r\n" % len(data)
        else:
            self.state = MOVES[self.state][ANSWER]
            self._framing = LENGTH
            if unknown and head.minor:
                self._framing = CHUNKS
                start += b"transfer-encoding: chunked\r\n"
                if data:
                    data = chunk(data)
            elif unknown:  # HTTP/1.0 knows no chunks
                self._framing = END_OF_CONNECTION
                self.keep_alive = False
        if not self.keep_alive:
            start += b"connection: close\r\n"
        elif not head.minor:
            start += b"connection: keep-alive\r\n"
        if len(data) < JOIN:
            return b"%b\r\n%b" % (start, data)
        return start, b"\r\n", data

    def answer_body(self, data: bytes) -> bytes | tuple[bytes, ...]:
        """More of the answer's body, or of an upgraded stream."""
        if self._framing is not CHUNKS:
            return data
        if len(data) < JOIN:
            return chunk(data)
        return b"%x\r\n" % len(data), data, b"\r\n"

    def answer_end(self, trailers: Fields) -> bytes:
        """The end of the answer's body; b"" when that needs no word."""
        return last_chunk(trailers) if self._framing is CHUNKS else b""

    def complete(self) -> How | None:
        """The answer is complete. None: the next request may come. Else how the connection has to `end`."""
        self._framing = LENGTH
        if self.keep_alive and not self._left:
            self.state = MOVES[self.state][NEXT]
            self.head = None
            return None
        return How.LINGER if self._left or self.unread else How.GRACEFUL

    def upgrade(self) -> None:
        """The answer is 101: from now on bytes pass in both directions."""
        self.state = MOVES[self.state][UPGRADE]
        self.keep_alive = False
        self._before = None
        self._same = b""

    def end(self, how: How) -> How:
        """End the connection, and return how: an answer that only the end completes must not look complete.

        See RFC 9112 section 8.
        """
        if self._framing is END_OF_CONNECTION and self.state in (DUPLEX, ANSWERING) and self.head is not None:
            how = How.RESET
        self.state = MOVES[self.state][LINGER if how is How.LINGER else CLOSE]
        self.unread = b""
        self._at = 0
        return how

    # Parts

    def _read_any(self, reader: RequestReader, data: bytes, at: int) -> RequestHead | None:
        """Read what is not ordinary; its size includes the line ends before it. None: it is not complete."""
        begin = self._after_blank_lines(data, at) if data[at] == 0x0D else at
        end = data.find(HEAD_END, begin) + 4
        if end < 4 or end - begin > self._limit:
            self._check_partial(data, begin)
            return None
        self._at = end
        head = reader.read_any(data[begin:end])
        head.size = end - at
        return head

    def _after_blank_lines(self, data: bytes, at: int) -> int:
        """Where a request begins after line ends that do no harm (RFC 9112 section 2.2)."""
        begin = at
        while data.startswith(b"\r\n", begin) and self._blank + begin - at < BLANK:
            begin += 2
        if begin == len(data):  # there may be more of them
            self._blank += begin - at
            self.unread = b""
            self._at = 0
        return begin

    def _check_partial(self, data: bytes, at: int) -> None:
        """Is this the beginning of a head? The same objection is raised however the bytes are sliced."""
        end = min(len(data), at + self._limit)
        if data.count(b"\n", at, end) != data.count(b"\r\n", at, end):
            raise BadRequest("malformed request: a line that does not end in CR LF")
        if len(data) > end:
            raise BadRequest(f"a request head of more than {self._limit} bytes", 431)

    def _take_chunks(self, decoder: ChunkedDecoder, data: bytes) -> bytes:
        pieces = decoder.feed(data, A_TURN)
        if decoder.done:
            self.unread = decoder.rest
            self.trailers = decoder.trailers
            self._chunks = None
            self._left = 0
            self.state = MOVES[self.state][REQUEST_END]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
