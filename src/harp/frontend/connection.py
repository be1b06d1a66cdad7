"""One client connection: HTTP/1.0 and 1.1 from the server's side.

Requests are taken one at a time; what a client pipelines behind waits in a bounded buffer. The connection is the
`Downstream` of the exchange under way and calls its `Handler`; it decides framing, persistence and limits, and nothing
about the request itself, which is the gate's work.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import NoReturn, Protocol, cast

from harp.errors import BadRequest, PeerError
from harp.frontend.answers import refusal
from harp.frontend.exchange import Exchange
from harp.net.deadlines import NEVER, Deadlines
from harp.proxy.exchange import Handler
from harp.settings import Limits, Timeouts
from harp.wire.chunked import ChunkedDecoder, chunk, last_chunk
from harp.wire.http import HEAD_END, Fields
from harp.wire.requests import RequestFields, RequestHead, RequestReader

HIGH_WATER = 256 * 1024  # bytes waiting for the client before the producer is told to pause
LINGER_TIME = 2.0  # seconds to swallow a body that nobody wants, so that its sender sees our answer
LINGER_BYTES = 4 * 1024 * 1024
CUT_SHORT = "the client closed the connection in the middle of its request"
JOIN = 16 * 1024  # bytes: shorter pieces are joined with their head, longer ones are written beside it


class Phase(Enum):
    """What we expect from the client."""

    HEAD = auto()  # a request
    DECIDE = auto()  # nothing: the gate has the request
    BODY = auto()  # the rest of the request
    WAIT = auto()  # nothing: the request is complete, its answer is not
    RAW = auto()  # bytes of an upgraded stream
    LINGER = auto()  # bytes that go nowhere, until the client closes
    CLOSED = auto()


# Plain names: looking a member up in its Enum costs more than all the rest of a step.
HEAD, DECIDE, BODY, WAIT, RAW, LINGER, CLOSED = Phase


class Gate(Protocol):
    """What decides about requests and keeps the books."""

    deadlines: Deadlines
    limits: Limits
    timeouts: Timeouts
    reader: RequestReader
    draining: bool

    patience: float  # seconds from `handle` to `attach`, for what has to be asked

    def begin(self, connection: ClientConnection, head: RequestHead | None, last: Exchange | None) -> Exchange:
        """A request has arrived, or what is not one: the record for it. `last` is the connection's record before."""

    def handle(self, connection: ClientConnection, exchange: Exchange) -> None:
        """Sooner or later `attach` a handler to the request or `refuse` it."""

    def finished(self, exchange: Exchange) -> None:
        """The exchange is over."""

    def opened(self, connection: ClientConnection) -> str | None:
        """A connection was made; a text refuses it."""

    def closed(self, connection: ClientConnection) -> None:
        """A connection has ended."""


class ClientConnection(asyncio.Protocol):
    """See the module."""

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_chunked_answer",
        "_chunks",
        "_endless",
        "_eof",
        "_exchange",
        "_fields",
        "_gate",
        "_handler",
        "_keep_alive",
        "_left",
        "_looping",
        "_overfull",
        "_paused",
        "_phase",
        "_swallowed",
        "_unsent",
        "_until_close",
        "blocked",
        "deadline",
        "head",
        "peer",
        "secure",
        "transport",
    )

    def __init__(self, gate: Gate, *, secure: bool) -> None:
        self.secure = secure
        self.peer = ""  # address of the other end, as text; "" on unix sockets
        self.deadline = NEVER
        self.blocked = False
        self.head: RequestHead | None = None
        self._gate = gate
        self._exchange: Exchange | None = None  # under way; between requests the last one
        self._phase = HEAD
        self._handler: Handler | None = None
        self._buffer = b""
        self._fields: RequestFields | None = None  # of the request before: the next one often repeats them
        self._left = 0
        self._chunks: ChunkedDecoder | None = None
        self._paused = False  # the handler wants no body now
        self._keep_alive = False
        self._chunked_answer = False
        self._until_close = False
        self._endless = False  # the answer is a stream of events
        self._eof = False
        self._looping = False
        self._overfull = False  # reading is paused for what waits in the buffer
        self._swallowed = 0
        self._unsent = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        host = peer[0] if isinstance(peer, tuple) else ""
        self.peer = host.removeprefix("::ffff:")  # IPv4 on a dual-stack socket is IPv4
        refused = self._gate.opened(self)
        if refused is not None:
            self._answer_error(self._gate.begin(self, None, None), 503, refused, 1)
            return
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.deadline = self._gate.deadlines.now + self._gate.timeouts.head
        self._gate.deadlines.watch(self)

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase is HEAD:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._read_heads(data)
        elif phase is BODY and not self._paused:
            self._read_body(data)
        elif phase is RAW and not self._paused:
            self._to_handler(data)
        elif phase is LINGER:
            self._swallow(len(data))
        elif phase is not CLOSED:
            self._buffer += data
            if len(self._buffer) > self._gate.limits.head_size:
                self._overfull = True
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        phase = self._phase
        if phase is WAIT or (phase is DECIDE and not self._left):
            # The answer may still be wanted: nobody can tell a half-closed client from one that left, until we write.
            # But who closes in the middle of a stream of events, which has no end of its own, has heard enough of it.
            if self._endless:
                self._lose("the client closed the connection in the middle of a stream")
                return False
            self._half_closed()
            return not self.secure
        if phase is RAW:
            self._handler_eof()
            return not self.secure
        if phase in (BODY, DECIDE):
            if self._buffer and not self.secure:  # perhaps all the rest of the request: `resume_body` will see
                return True
            self._lose(CUT_SHORT)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose("the client went away")
        self._phase = CLOSED
        self._gate.deadlines.drop(self)
        self._gate.closed(self)

    def pause_writing(self) -> None:
        self.blocked = True
        self._unsent = self.transport.get_write_buffer_size()
        timeouts = self._gate.timeouts
        limit = timeouts.tunnel if self._phase is RAW else timeouts.client
        self.deadline = self._gate.deadlines.now + limit
        if self._handler is not None:
            self._handler.blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        phase, now, timeouts = self._phase, self._gate.deadlines.now, self._gate.timeouts
        if phase is BODY and not self._paused:
            self.deadline = now + timeouts.client
        elif phase is HEAD:
            self.deadline = now + timeouts.keepalive
        elif phase is LINGER:
            self.deadline = now + LINGER_TIME
        elif phase is not CLOSED:
            self.deadline = now + timeouts.half_closed if self._eof else NEVER
        if self._handler is not None:
            self._handler.drained()
        elif phase is HEAD and not self._looping:
            self._take_waiting()

    def expired(self) -> None:
        """Timed: the client took too long for what we expect of it."""
        phase = self._phase
        if self.blocked:
            self._expired_blocked()
        elif phase is HEAD and self._buffer:
            self._refuse_unread(408, "the request head did not arrive in time")
        elif phase is BODY:
            self._to_handler_gone("the client stopped sending its request body")
            if self._has_begun():
                self._abort()
            else:
                self.refuse(408, "the request body stopped arriving")
        elif phase is DECIDE:
            self.refuse(503, "no decision was reached in time", 1)
        elif phase is HEAD:
            self._close()
        else:
            self._abort()

    # Reading requests

    def _read_heads(self, data: bytes) -> None:
        """Take requests off `data`, as long as each is answered at once."""
        self._looping = True
        try:
            while data and self._phase is HEAD:
                if self.blocked:  # who does not read answers gets no more of them
                    self._buffer = data
                    self._overfull = True
                    self.transport.pause_reading()
                    return
                end = data.find(HEAD_END)
                if end < 1 or data[0] == 0x0D:
                    stripped = data.lstrip(b"\r\n")  # RFC 9112 section 2.2
                    if len(stripped) < len(data) <= len(stripped) + 16:
                        data = stripped
                        continue
                if end < 0:
                    self._hold(data)
                    return
                end += len(HEAD_END)
                if end > self._gate.limits.head_size:
                    self._refuse_size()
                if end < len(data):
                    self._buffer = data[end:]
                    data = data[:end]
                self._begin(self._gate.reader.read(data, self._fields))
                if self._phase is not HEAD:
                    return
                data, self._buffer = self._buffer, b""
        except BadRequest as error:
            self._refuse_unread(error.status, error.reason)
        finally:
            self._looping = False

    def _hold(self, data: bytes) -> None:
        """Keep the part of a head that has come."""
        if len(data) > self._gate.limits.head_size:
            self._refuse_size()
        if data.count(b"\n") != data.count(b"\r\n"):
            raise BadRequest("malformed request: a line that does not end in CR LF")
        self.deadline = min(self.deadline, self._gate.deadlines.now + self._gate.timeouts.head)
        self._buffer = data

    def _refuse_size(self) -> NoReturn:
        raise BadRequest(f"a request head of more than {self._gate.limits.head_size} bytes", 431)

    def _refuse_unread(self, status: int, reason: str) -> None:
        """Reject what has not become a request: what is known of the one before does not belong to it."""
        self.head = None
        self._answer_error(self._gate.begin(self, None, None), status, reason)

    def _begin(self, head: RequestHead) -> None:
        self.head = head
        self._fields = head.fields
        self._left = head.length
        self._keep_alive = head.keep_alive
        self._phase = DECIDE
        self.deadline = NEVER
        exchange = self._exchange = self._gate.begin(self, head, self._exchange)
        self._gate.handle(self, exchange)
        if self._phase is DECIDE:
            self.deadline = self._gate.deadlines.now + self._gate.patience

    def attach(self, handler: Handler) -> None:
        """Let `handler` answer the request. Its body, if any, flows after `resume_body`."""
        self._handler = handler
        self.deadline = NEVER
        if self._left:
            self._phase = BODY
            self._paused = True
            self._chunks = ChunkedDecoder() if self._left < 0 else None
        else:
            self._phase = WAIT

    def _read_body(self, data: bytes) -> None:
        if self._chunks is not None:
            self._read_chunks(self._chunks, data)
            return
        left = self._left - len(data)
        if left > 0:
            self._left = left
            self.deadline = self._gate.deadlines.now + self._gate.timeouts.client
            self._to_handler(data)
            return
        piece, self._buffer = (data, b"") if not left else (data[:left], data[left:])
        self._to_handler(piece)
        self._body_complete([])

    def _read_chunks(self, decoder: ChunkedDecoder, data: bytes) -> None:
        try:
            pieces = decoder.feed(data)
        except PeerError as error:
            self._keep_alive = False
            self._to_handler_gone(str(error))
            if self._has_begun():
                self._abort()
            else:
                self.refuse(400, str(error))
            return
        self.deadline = self._gate.deadlines.now + self._gate.timeouts.client
        if pieces:
            self._to_handler(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if decoder.done:
            self._buffer = decoder.rest
            self._body_complete(decoder.trailers)

    def _body_complete(self, trailers: Fields) -> None:
        self._left = 0
        self._chunks = None
        if self._phase is BODY:
            self._phase = WAIT
            if self._eof:
                self._half_closed()
            elif not self.blocked:
                self.deadline = NEVER
            if self._paused:  # nothing more will come for this handler; the next request may
                self._paused = False
                self.transport.resume_reading()
            if self._handler is not None:
                self._handler.body_end(trailers)

    # Downstream: the request's body

    def resume_body(self) -> None:
        self._paused = False
        if self._phase is BODY:
            self.deadline = self._gate.deadlines.now + self._gate.timeouts.client
        elif self._phase is not RAW:
            return
        data, self._buffer = self._buffer, b""
        if data and self._phase is BODY:
            self._read_body(data)
            if self._eof and self._phase is BODY:
                self._lose(CUT_SHORT)
                self._close()
        elif data:
            self._to_handler(data)
        if not self._paused and self.transport.is_closing() is False:
            self._overfull = False
            self.transport.resume_reading()

    def pause_body(self) -> None:
        if self._phase in (BODY, RAW):
            self._paused = True
            self.transport.pause_reading()
            if self._phase is BODY and not self.blocked:
                self.deadline = NEVER  # now it is the other side that takes its time

    # Downstream: the response

    def send_interim(self, response: bytes) -> None:
        if self.head is not None and self.head.minor:
            self.transport.write(response)

    def send_head(self, status: int, start: bytes, length: int | None, data: bytes, end: bool) -> None:
        exchange = self._exchange
        head = self.head
        assert exchange is not None
        assert head is not None
        exchange.status = status
        exchange.sent = len(data)
        if self._left and end:
            self._keep_alive = False
        if not end:
            self._chunked_answer = self._until_close = False
            self._endless = b"text/event-stream" in start
        if length is not None and length < 0:
            if end:
                start += b"content-length: %d\r\n" % len(data)
            elif head.minor:
                start += b"transfer-encoding: chunked\r\n"
                self._chunked_answer = True
                if data:
                    data = chunk(data)
            else:  # HTTP/1.0 knows no chunks
                self._until_close = True
                self._keep_alive = False
        if not self._keep_alive or self._gate.draining:
            self._keep_alive = False
            start += b"connection: close\r\n"
        elif not head.minor:
            start += b"connection: keep-alive\r\n"
        if len(data) < JOIN:
            self.transport.write(b"%b\r\n%b" % (start, data))
        else:
            self.transport.writelines((start, b"\r\n", data))
        if end:
            self._complete()

    def send_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.sent += len(data)
        if self._eof and self._phase is WAIT and not self.blocked:  # it moves, so the limit begins again
            self.deadline = self._gate.deadlines.now + self._gate.timeouts.half_closed
        if not self._chunked_answer:
            self.transport.write(data)
        elif len(data) < JOIN:
            self.transport.write(chunk(data))
        else:
            self.transport.writelines((b"%x\r\n" % len(data), data, b"\r\n"))

    def send_end(self, trailers: Fields) -> None:
        if self._chunked_answer:
            self.transport.write(last_chunk(trailers))
        self._endless = False
        self._complete()

    def cut(self, reason: str) -> None:
        self._end(reason)
        if self._until_close:
            self._abort()  # only a reset tells this client that the body is short
        else:
            self._close()

    def refuse(self, status: int, reason: str, retry_after: int | None = None, *, unreachable: bool = False) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.unreachable = unreachable
        self._handler = None
        self._answer_error(exchange, status, reason, retry_after)

    def drop(self) -> None:
        """End the connection without a word."""
        self._end()
        self._abort()

    def waits(self, exchange: Exchange) -> bool:
        """Is this request still to be decided? The client may have left while facts were fetched."""
        return self._phase is DECIDE and self._exchange is exchange

    def fail(self, exchange: Exchange, reason: str) -> None:
        """Something of ours has failed at this request: 500, or the end when its answer has begun."""
        if self._exchange is not exchange or self._phase not in (DECIDE, BODY, WAIT):
            return
        self._to_handler_gone(reason)
        if self._has_begun():
            self._abort()
        else:
            self.refuse(500, reason)

    def upgrade(self, response: bytes, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.status = 101
            self._exchange.sent = len(data)
        self._fields = None
        self._phase = RAW
        self._keep_alive = self._chunked_answer = False
        if not self.blocked:
            self.deadline = NEVER
        self.transport.write(response + data)
        waiting, self._buffer = self._buffer, b""
        if self._overfull:
            self._overfull = False
            self.transport.resume_reading()
        if waiting:
            self._to_handler(waiting)
        if self._eof:
            self._handler_eof()

    def finish(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self._to_handler_gone("the ExApp has ended the stream")
            self.close()

    def close(self) -> None:
        self._end()
        self._linger()

    # Ends

    def _has_begun(self) -> bool:
        """Has the answer to the request under way begun?"""
        return self._exchange is not None and self._exchange.status != 0

    def _finished(self, note: str) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.note = note
            self._gate.finished(exchange)

    def _half_closed(self) -> None:
        """The client sends no more than what waits in the buffer. It may still read, but not for ever."""
        self._keep_alive = self._keep_alive and bool(self._buffer)
        self.deadline = self._gate.deadlines.now + self._gate.timeouts.half_closed

    def _end(self, note: str = "") -> None:
        """The exchange is over, and the connection with it."""
        self._handler = None
        self._phase = CLOSED
        self._finished(note)

    def _complete(self, note: str = "") -> None:
        """The response has been written."""
        self._handler = None
        self._finished(note)
        if self._left and self._phase in (BODY, DECIDE):
            self._linger()
        elif self._keep_alive and not self._gate.draining:
            self._next()
        elif self._eof and not self._buffer:
            self._close()
        elif self._buffer:
            self._linger()
        else:
            self._close()

    def _next(self) -> None:
        self._phase = HEAD
        self.head = None
        timeouts = self._gate.timeouts
        self.deadline = self._gate.deadlines.now + (timeouts.client if self.blocked else timeouts.keepalive)
        if not self._looping and (self._buffer or self._overfull or self._eof):
            self._take_waiting()

    def _take_waiting(self) -> None:
        """Take the requests that the client has sent ahead, unless their answers would wait as well."""
        if self.blocked:
            return
        if self._overfull:
            self._overfull = False
            self.transport.resume_reading()
        if self._buffer:
            data, self._buffer = self._buffer, b""
            self._read_heads(data)
        if self._eof and self._phase is HEAD and not self.blocked:
            self._close()

    def _answer_error(self, exchange: Exchange, status: int, reason: str, retry_after: int | None = None) -> None:
        """Answer with an error of our own. Without a readable request the connection ends with it."""
        head = self.head
        self._exchange = exchange
        exchange.status = status
        if head is None or self._left or self._gate.draining:
            self._keep_alive = False
        answer, exchange.sent = refusal(
            head, status, reason, exchange.request_id, retry_after, keep_alive=self._keep_alive
        )
        self.transport.write(answer)
        if head is not None:
            self._complete(reason)
            return
        self._finished(reason)
        self._linger()

    def _linger(self) -> None:
        """Close, but let the client finish speaking: a reset would take our answer away from it (RFC 9112 9.6)."""
        self._phase = LINGER
        self._buffer = b""
        self.deadline = self._gate.deadlines.now + LINGER_TIME
        self._gate.deadlines.watch(self)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.transport.resume_reading()
        else:
            self._close()

    def _swallow(self, size: int) -> None:
        self._swallowed += size
        if self._swallowed > LINGER_BYTES:
            self._abort()

    def _close(self) -> None:
        """Close as soon as everything is sent."""
        self._phase = CLOSED
        self.deadline = self._gate.deadlines.now + self._gate.timeouts.client
        self.transport.close()

    def _abort(self) -> None:
        self._lose("the connection was given up")
        self._phase = CLOSED
        self.deadline = NEVER
        self.transport.abort()

    def _expired_blocked(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:  # slow, but reading
            self._unsent = unsent
            self.deadline = self._gate.deadlines.now + self._gate.timeouts.client
        else:
            self._abort()

    def _lose(self, reason: str) -> None:
        """The exchange under way, if any, cannot be completed."""
        waiting = self._phase in (DECIDE, BODY, WAIT, RAW)
        self._to_handler_gone(reason)
        if waiting:
            self._phase = CLOSED
            self._finished(reason)

    # The handler, guarded: it may let go of us at any call

    def _to_handler(self, data: bytes) -> None:
        if self._handler is not None:
            self._handler.body(data)

    def _handler_eof(self) -> None:
        if self._handler is not None:
            self._handler.body_end([])

    def _to_handler_gone(self, reason: str) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.gone(reason)

    # Stopping

    def drain(self) -> None:
        """HaRP is stopping: an idle connection closes, a running exchange goes on as the last."""
        if self._phase is HEAD and not self._buffer:
            self._close()
        elif self._phase is RAW and self._handler is not None:
            self._handler.drain()

    def give_up(self) -> None:
        """The time for draining is over."""
        self._abort()
