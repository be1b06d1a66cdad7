"""One pooled connection to an ExApp, an engine or a service of ours: HTTP/1.1 from the client's side."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Protocol, cast

from harp.errors import PeerError
from harp.net.deadlines import NEVER, Deadlines
from harp.net.ports import Offer
from harp.net.targets import Target
from harp.wire.chunked import ChunkedDecoder
from harp.wire.http import CHUNKED, HEAD_END, UNTIL_CLOSE, Fields
from harp.wire.responses import ResponseHead, ResponseReader

MAX_HEAD = 64 * 1024  # bytes of a response head
HIGH_WATER = 256 * 1024  # bytes waiting to be sent before the client is told to pause

_READER = ResponseReader()


class State(Enum):
    IDLE = auto()
    HEAD = auto()  # waiting for a response head
    BODY = auto()
    RAW = auto()  # switched to another protocol
    CLOSED = auto()


# Plain names: looking a member up in its Enum costs more than all the rest of a step.
IDLE, HEAD, BODY, RAW, CLOSED = State


class User(Protocol):
    """Who has borrowed the connection for one exchange."""

    def on_interim(self, head: ResponseHead) -> None: ...

    def on_head(self, head: ResponseHead, length: int | None, data: bytes, end: bool) -> None:
        """The final response; `length` None = no body. `end`: `data` is all of it."""

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None: ...

    def on_data(self, data: bytes) -> None: ...

    def on_end(self, trailers: Fields) -> None: ...

    def on_eof(self) -> None:
        """The other side of a raw stream has finished sending."""

    def on_silence(self) -> float | None:
        """No byte of an answer within the limit: seconds to go on waiting, None to give up."""

    def on_lost(self, reason: str, *, status: int, silent: bool) -> None:
        """The exchange cannot go on. `silent`: not a byte came, so the request may be worth another try."""

    def on_blocked(self) -> None: ...

    def on_drained(self) -> None: ...


class Pool(Protocol):
    """Where a connection goes between two exchanges."""

    deadlines: Deadlines

    def give_back(self, connection: Upstream) -> None: ...

    def lost(self, connection: Upstream) -> None: ...


class Upstream(asyncio.Protocol):
    """Sends one request at a time and cuts the answers out of the byte stream."""

    __slots__ = (
        "_bodyless",
        "_buffer",
        "_chunks",
        "_last",
        "_left",
        "_pool",
        "_request_done",
        "_reusable",
        "blocked",
        "deadline",
        "idle_since",
        "offer",
        "paused",
        "reused",
        "state",
        "target",
        "transport",
        "user",
    )

    transport: asyncio.Transport
    user: User

    def __init__(self, pool: Pool, target: Target) -> None:
        self._pool = pool
        self.target = target
        self.offer: Offer | None = None  # of the tunnel that this is a stream of
        self.state = IDLE
        self.deadline = NEVER
        self.idle_since = 0.0
        self.reused = False
        self.blocked = False
        self.paused = False  # nothing is read
        self._buffer = b""
        self._last: ResponseHead | None = None  # the head of the last answer: the next often repeats it
        self._bodyless = False
        self._left = 0
        self._chunks: ChunkedDecoder | None = None
        self._reusable = True
        self._request_done = False

    # The exchange

    def send(self, user: User, head: bytes, bodyless: bool, complete: bool, limit: float) -> None:
        """Send a request head. `bodyless`: the method is HEAD. `complete`: no body follows."""
        self.user = user
        self.state = HEAD
        self._bodyless = bodyless
        self._request_done = complete
        self.deadline = self._pool.deadlines.now + limit
        self.transport.write(head)

    def send_body(self, data: bytes, limit: float) -> None:
        """More of the request body, framed already; the limit for the answer starts again."""
        self.deadline = self._pool.deadlines.now + limit
        self.transport.write(data)

    def pause(self) -> None:
        """Read no more of the answer."""
        self.paused = True
        self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self.paused = False
        self.transport.resume_reading()

    def request_done(self) -> None:
        """The request body is complete."""
        self._request_done = True

    def abandon(self) -> None:
        """The exchange is over before its end: the connection is of no use any more."""
        self._close()
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self._pool.deadlines.watch(self)

    def data_received(self, data: bytes) -> None:
        state = self.state
        try:
            if state is HEAD:
                last = self._last
                if last is not None and not self._buffer and data.startswith(last.raw):
                    self._begin(last, data[len(last.raw) :])
                else:
                    self._read_head(data)
            elif state is BODY:
                self._read_body(data)
            elif state is RAW:
                self.user.on_data(data)
            elif state is IDLE:  # nobody asked: whatever it is, it cannot be an answer
                self.abandon()
        except PeerError as error:
            self._fail(f"answered what is not HTTP: {error}", 502)

    def eof_received(self) -> bool:
        state = self.state
        if state is RAW:
            self.user.on_eof()
            return True
        if state is BODY and self._left == UNTIL_CLOSE:
            self._finish([], reusable=False)
        elif state in (HEAD, BODY):
            self._broken("closed the connection before its answer was complete")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.deadlines.drop(self)
        self._pool.lost(self)
        state = self.state
        if state in (HEAD, BODY, RAW):
            self._broken(f"broke the connection{f': {exc}' if exc else ''}")
        self.state = CLOSED

    def pause_writing(self) -> None:
        self.blocked = True
        if self.state not in (IDLE, CLOSED):
            self.user.on_blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        if self.state not in (IDLE, CLOSED):
            self.user.on_drained()

    def expired(self) -> None:
        """Timed: the limit of whatever is under way."""
        state = self.state
        if state is IDLE:
            self.abandon()
        elif state is HEAD:
            more = self.user.on_silence()
            if more is not None:
                self.deadline = self._pool.deadlines.now + more
                return
            self._fail("gave no answer within the time limit", 504)
        else:
            self._fail("fell silent in the middle of its answer", 504)

    # Reading

    def _read_head(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        while True:
            end = data.find(HEAD_END) + len(HEAD_END)
            if end < len(HEAD_END):
                if len(data) > MAX_HEAD:
                    raise PeerError(f"a response head of more than {MAX_HEAD} bytes")
                self._buffer = data
                return
            head = _READER.read(data[:end])
            data = data[end:]
            if head.status >= 200:
                break
            if head.status == 101:
                self._switch(head, data)
                return
            if head.status < 100:
                raise PeerError(f"a response with status {head.status}")
            self.user.on_interim(head)
        self._buffer = b""
        self._last = head if head.raw else None
        self._begin(head, data)

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        self._buffer = b""
        self.state = RAW
        self.user.on_upgrade(head, data)

    def _begin(self, head: ResponseHead, data: bytes) -> None:
        length = head.length
        if self._bodyless or head.status in (204, 304):
            self._respond(head, None, data, -len(data))
        elif length >= 0:
            self._respond(head, length, data, length - len(data))
        elif length == CHUNKED:
            self._begin_chunked(head, data)
        else:
            self._reusable = False
            self._left = UNTIL_CLOSE
            self.state = BODY
            self.user.on_head(head, UNTIL_CLOSE, data, False)

    def _begin_chunked(self, head: ResponseHead, data: bytes) -> None:
        decoder = self._chunks = ChunkedDecoder()
        payload = b"".join(decoder.feed(data))
        self._left = CHUNKED
        self._reusable = self._reusable and head.keep_alive
        user = self.user
        if decoder.done and not decoder.trailers:
            self._release(not decoder.rest)
            user.on_head(head, CHUNKED, payload, True)
            return
        self.state = BODY
        user.on_head(head, CHUNKED, payload, False)
        if decoder.done and self.state is BODY:
            self._finish(decoder.trailers, reusable=not decoder.rest)

    def _respond(self, head: ResponseHead, length: int | None, data: bytes, left: int) -> None:
        """Begin an answer of known length, of which `left` bytes are still to come; negative ones are too many."""
        user = self.user
        if not head.keep_alive:
            self._reusable = False
        if left > 0:
            self._left = left
            self.state = BODY
            user.on_head(head, length, data, False)
        else:
            self._release(not left)
            user.on_head(head, length, data[:left] if left else data, True)

    def _read_body(self, data: bytes) -> None:
        if self._chunks is not None:
            self._read_chunks(self._chunks, data)
            return
        if self._left == UNTIL_CLOSE:
            self.user.on_data(data)
            return
        left = self._left = self._left - len(data)
        if left > 0:
            self.user.on_data(data)
            return
        user = self.user
        self._release(not left)
        user.on_data(data[:left] if left else data)
        user.on_end([])

    def _read_chunks(self, decoder: ChunkedDecoder, data: bytes) -> None:
        pieces = decoder.feed(data)
        if pieces:
            self.user.on_data(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if decoder.done and self.state is BODY:
            self._finish(decoder.trailers, reusable=not decoder.rest)

    # Ends

    def _finish(self, trailers: Fields, *, reusable: bool) -> None:
        user = self.user
        self._release(reusable)
        user.on_end(trailers)

    def _release(self, reusable: bool) -> None:
        """The answer is complete: keep the connection for the next exchange, if it can be."""
        self._chunks = None
        if reusable and self._reusable and self._request_done and not (self.blocked or self.paused):
            self.state = IDLE
            self.reused = True
            self._pool.give_back(self)
        else:
            self._close()
            if self.transport.get_write_buffer_size():  # who has answered need not read the rest of the request, ever
                self.transport.abort()
            else:
                self.transport.close()

    def _broken(self, reason: str) -> None:
        """The connection has ended in the middle of an exchange."""
        self._fail(reason, 502, silent=self.state is HEAD and not self._buffer)

    def _fail(self, reason: str, status: int, *, silent: bool = False) -> None:
        user = self.user
        self._close()
        self.transport.abort()
        user.on_lost(reason, status=status, silent=silent)

    def _close(self) -> None:
        self.state = CLOSED
        self.deadline = NEVER
