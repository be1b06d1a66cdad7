"""One client connection: transport, limits, deadlines and back-pressure around `wire.server_connection`.

The connection is the `Downstream` of the exchange under way and calls its `Handler`; it decides nothing about the
request itself, which is the gate's work. Every state has a bound: the client's limits where we wait for the client, and
a last resort where we wait for the gate or for a handler, so that no request can hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, thread_time

from harp.errors import BadRequest
from harp.frontend.answers import refusal, told
from harp.frontend.client_transport import FULL, HIGH_WATER, LINGER_TIME
from harp.frontend.decider import Decider
from harp.frontend.exchange import NO_ID, Exchange
from harp.frontend.incoming import LAST_RESORT, Incoming
from harp.net.deadlines import NEVER
from harp.wire.ends import How
from harp.wire.http import Fields
from harp.wire.server_connection import (
    ANSWERING,
    CLOSED,
    DECIDING,
    DUPLEX,
    IDLE,
    LINGERING,
    RAW,
    UPLOADING,
    WAITING,
)

REQUESTS_A_TURN = 32  # of one client, however many it has sent ahead
TURN_TIME = 0.005  # seconds of work for those after the first: some take a hundred times as long as others


class ClientConnection(Incoming):
    """See the module.

    Its methods are many because two interfaces meet here: asyncio's protocol and the exchange's Downstream.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        facts = [*self._describe_transport(), *(["half-closed"] if self._eof else [])]
        return f"<ClientConnection {self.peer or 'unix'}, {', '.join([repr(self._core), *facts])}>"

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._use(transport)
        refused = self._gate.opened(self)
        self._deadlines.watch(self)
        if refused is not None:
            self._refuse_unread(503, refused, How.GRACEFUL, retry_after=1)
            return
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.deadline = self._deadlines.now + self._timeouts.head

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle(How.RESET, "the client went away")
        self._deadlines.drop(self)
        self._gate.closed(self)

    def pause_writing(self) -> None:
        self._note_blocked()
        timeouts = self._timeouts
        self.deadline = self._deadlines.now + (timeouts.tunnel if self._core.state is RAW else timeouts.client)
        if self._handler is not None:
            self._handler.blocked()

    def resume_writing(self) -> None:
        self.blocked = False
        self._rearm()
        if self._handler is not None:
            self._handler.drained()
        elif self._core.state is IDLE and not self._serving:
            self._go_on()

    def expired(self) -> None:
        """Timed: whatever this state waits for took too long."""
        core = self._core
        state = core.state
        if self.blocked:
            if self._reads_slowly():
                self.deadline = self._deadlines.now + self._timeouts.client
            else:
                self.end(How.RESET, "the client stopped reading")
        elif state is IDLE and core.waiting:
            self._refuse_unread(408, "the request head did not arrive in time")
        elif state is IDLE:
            self.end(How.GRACEFUL)
        elif state is UPLOADING:
            self._give_up(408, "the request body stopped arriving")
        elif state is DECIDING:
            self._give_up(503, "no decision was reached in time", 1)
        elif state is WAITING and not self._eof:
            self._give_up(504, "no answer came in time")
        else:
            self.end(How.RESET, "the connection made no progress for too long")

    # The request

    def _serve(self) -> None:
        """Take requests off what has come, as long as each is answered at once, and no more than is a turn's work."""
        core, gate = self._core, self._gate
        served, until = 0, 0.0
        self._serving = True
        try:
            while not self.blocked:  # who does not read answers gets no more of them
                head = core.next_head(gate.reader)
                if head is None:
                    if core.waiting:
                        self.deadline = min(self.deadline, self._deadlines.now + gate.timeouts.head)
                    return
                exchange = self._exchange = gate.begin(self, head, self._exchange)
                gate.handle(self, exchange)
                state = core.state
                if state is not IDLE:
                    if state is DECIDING:
                        self.deadline = self._deadlines.now + gate.patience
                    return
                served += 1
                if core.waiting:
                    if served == 1:  # nobody else needs to look at a clock
                        until = thread_time() + TURN_TIME
                    elif served >= REQUESTS_A_TURN or thread_time() > until:
                        self._stand_in_line()
                        return
            if core.waiting:
                self._hold(FULL)
        except BadRequest as error:
            self._refuse_unread(error.status, error.reason)
        finally:
            self._serving = False

    # Downstream: the response

    def send_interim(self, response: bytes) -> None:
        head = self._core.head
        if head is not None and head.minor:
            self.transport.write(response)

    def send_answer(self, status: int, start: bytes, data: bytes) -> None:
        core, exchange = self._core, self._exchange
        gate = self._gate
        if not (core.bare and core.keep_alive) or gate.draining or exchange is None:
            self.send_head(status, start, len(data), data, True)
            return
        exchange.status = status
        exchange.sent = len(data)
        if gate.inspected:
            exchange.answer = start
        self.transport.write(b"".join((start, b"x-request-id: ", exchange.request_id, b"\r\n\r\n", data)))
        self._complete()

    def send_head(self, status: int, start: bytes, length: int, data: bytes, end: bool) -> None:
        core, exchange = self._core, self._exchange
        assert exchange is not None
        exchange.status = status
        exchange.sent = len(data)
        if self._gate.inspected:
            exchange.answer = start
        if self._gate.draining:
            core.keep_alive = False
        self._write(core.answer(_with_id(start, exchange), length, data, end))
        if end:
            self._complete()
        else:
            exchange.began = monotonic()
            self._endless = b"text/event-stream" in start
            self._progress()

    def send_body(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.sent += len(data)
        self._progress()
        self._write(self._core.answer_body(data))

    def send_end(self, trailers: Fields) -> None:
        last = self._core.answer_end(trailers)
        if last:
            self.transport.write(last)
        self._endless = False
        self._complete()

    def refuse(self, status: int, reason: str, retry_after: int | None = None, *, unreachable: bool = False) -> None:
        exchange = self._exchange
        assert exchange is not None
        if self._core.state not in (DECIDING, UPLOADING, WAITING):  # an answer has begun, and cannot become another
            self.end(How.GRACEFUL, reason)
            return
        exchange.unreachable = unreachable
        self._answer_error(exchange, status, reason, retry_after)
        self._complete(reason)

    def waited(self, what: str, seconds: float) -> None:
        if self._exchange is not None:
            self._exchange.waited(what, seconds)

    @property
    def running(self) -> Exchange | None:
        """The exchange under way, None between two."""
        return self._exchange if DECIDING <= self._core.state <= RAW else None

    @property
    def is_heard_out(self) -> bool:
        """Has the client said all that will be listened to? Then nothing is missed until it has its answer."""
        return not self._core.keep_alive and self._core.bodiless

    def waits(self, exchange: Exchange) -> bool:
        """Is this request still to be decided? The client may have left while facts were fetched."""
        return self._core.state is DECIDING and self._exchange is exchange

    def fail(self, exchange: Exchange, reason: str) -> None:
        """Something of ours has failed at this request: 500, or the end when its answer has begun."""
        if self._exchange is exchange and DECIDING <= self._core.state <= RAW:
            self._give_up(500, reason)

    def upgrade(self, start: bytes, data: bytes) -> None:
        core, exchange = self._core, self._exchange
        assert exchange is not None
        if core.state is not WAITING:
            self._give_up(502, "a switch of protocols before the request was complete")
            return
        core.upgrade()
        exchange.status = 101
        exchange.sent = len(data)
        self._wanted = True
        if not self.blocked:
            self.deadline = NEVER  # the handler's limit for silence counts
        self.transport.write(b"%b\r\n%b" % (_with_id(start, exchange), data))
        self._release(FULL)
        if core.waiting and self._handler is not None:
            self._handler.body(core.take_raw())
        if self._eof and self._handler is not None:
            self._handler.body_end([])

    def finish(self) -> None:
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.end(How.LINGER, "the ExApp has ended the stream")

    # The end

    def end(self, how: How, note: str = "") -> None:
        """End the connection, and the exchange under way with it."""
        closed = self._core.state is CLOSED
        how = self._settle(how, note)
        if not closed or how is How.RESET:
            self._leave(how)

    def _settle(self, how: How, note: str) -> How:
        """End the exchange under way, if there is one, and let nothing more begin."""
        core = self._core
        running = DECIDING <= core.state <= RAW
        how = core.end(how)
        handler, self._handler = self._handler, None
        if running:
            if handler is not None:
                handler.gone(note)
            self._finished(note)
        return how

    def _leave(self, how: How) -> None:
        """End the transport. It lingers only where that is possible, and the client may still send."""
        if how is How.LINGER and (self._eof or not self.transport.can_write_eof()):
            how = How.GRACEFUL
        if how is How.GRACEFUL:
            self._core.end(how)
        self._end_transport(how)

    def _complete(self, note: str = "") -> None:
        """The answer has been written."""
        self._handler = None
        core, gate, exchange = self._core, self._gate, self._exchange
        how = core.complete()
        if exchange is not None:
            if note:
                exchange.note = note
            gate.finished(exchange)
        if how is not None:
            self._leave(core.end(how))
            return
        timeouts = gate.timeouts
        self.deadline = self._deadlines.now + (timeouts.client if self.blocked else timeouts.keepalive)
        if not self._serving and (core.unread or self._held or self._eof):
            self._go_on()

    def _give_up(self, status: int, reason: str, retry_after: int | None = None) -> None:
        """Neither side can finish the exchange: tell the handler, and the client if its answer has not begun."""
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.gone(reason)
        if self._core.state in (DUPLEX, ANSWERING, RAW):
            self.end(How.RESET, reason)
        else:
            self.refuse(status, reason, retry_after)

    def _refuse_unread(
        self, status: int, reason: str, how: How = How.LINGER, *, retry_after: int | None = None
    ) -> None:
        """Reject what has not become a request: what is known of the one before does not belong to it."""
        self._answer_error(self._gate.begin(self, None, None), status, reason, retry_after)
        self._finished(reason)
        self.end(how)

    def _answer_error(self, exchange: Exchange, status: int, reason: str, retry_after: int | None) -> None:
        """Write an error of our own. Without a readable request the connection ends with it."""
        core = self._core
        self._handler = None
        self._exchange = exchange
        exchange.refused = True
        exchange.status = status
        if core.head is None or not core.bodiless or self._gate.draining:
            core.keep_alive = False
        answer, exchange.sent = refusal(
            core.head,
            status,
            told(status, reason, trusted=exchange.trusted),
            exchange.request_id,
            retry_after,
            keep_alive=core.keep_alive,
        )
        self.transport.write(answer)

    # Parts

    def _finished(self, note: str) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.note = note
            self._gate.finished(exchange)

    def _write(self, framed: bytes | tuple[bytes, ...]) -> None:
        if isinstance(framed, bytes):
            self.transport.write(framed)
        else:
            self.transport.writelines(framed)

    def _progress(self) -> None:
        """The answer moves, so the limit for it begins again."""
        if not self.blocked and self._core.state is ANSWERING:
            timeouts = self._timeouts
            limit = timeouts.half_closed if self._eof else timeouts.server + LAST_RESORT
            self.deadline = self._deadlines.now + limit

    def _rearm(self) -> None:
        """Set the limit of this state, after the client has read what it was sent."""
        state, now, timeouts = self._core.state, self._deadlines.now, self._timeouts
        if (state is UPLOADING or state is DUPLEX) and self._wanted:
            self.deadline = now + timeouts.client
        elif state is IDLE:
            self.deadline = now + timeouts.keepalive
        elif state is LINGERING:
            self.deadline = now + LINGER_TIME
        elif state is ANSWERING:
            self._progress()
        elif state is RAW:
            self.deadline = NEVER
        elif state is not CLOSED:
            self.deadline = now + (timeouts.half_closed if self._eof else self._last_resort)

    # Stopping

    def drain(self, *, idle: bool = True) -> None:
        """HaRP is stopping: a running exchange goes on as the last; `idle`: an idle connection closes."""
        core = self._core
        if core.state is IDLE and not core.waiting:
            if idle:
                self.end(How.GRACEFUL)
        elif core.state is RAW and self._handler is not None:
            self._handler.drain()


def serving(gate: Decider, *, secure: bool) -> Callable[[], ClientConnection]:
    """Return what makes a connection for each client that a listener accepts."""
    return lambda: ClientConnection(gate, secure=secure)


def _with_id(start: bytes, exchange: Exchange) -> bytes:
    """The start of an answer, with the id under which our log has the request."""
    return start if exchange.request_id is NO_ID else b"%bx-request-id: %b\r\n" % (start, exchange.request_id)
