"""What a client sends: requests, one at a time, and their bodies, on their way to whatever answers."""

from __future__ import annotations

from harp.errors import PeerError
from harp.frontend.client_transport import BODY, FULL, TURN, ClientTransport
from harp.frontend.decider import Decider
from harp.frontend.exchange import Exchange
from harp.net.turns import BIG
from harp.proxy.exchange import Handler
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
    ServerConnection,
)

LINGER_BYTES = 4 * 1024 * 1024
LAST_RESORT = 120.0  # seconds on top of the limits of others that end an exchange before this one does
CUT_SHORT = "the client closed the connection in the middle of its request"


class Incoming(ClientTransport):
    """See the module. What is answered, and how a connection ends, is its subclass's matter."""

    __slots__ = (
        "_core",
        "_endless",
        "_eof",
        "_exchange",
        "_gate",
        "_handler",
        "_last_resort",
        "_serving",
        "_swallowed",
        "_wanted",
    )

    def __init__(self, gate: Decider, *, secure: bool) -> None:
        timeouts = gate.timeouts
        super().__init__(gate.deadlines, gate.turns, timeouts, secure=secure)
        self._gate = gate
        self._core = ServerConnection(gate.limits.head_size)
        self._exchange: Exchange | None = None  # under way; between requests the last one
        self._handler: Handler | None = None
        self._wanted = False  # the handler takes the body, or bytes of the upgraded stream
        self._endless = False  # the answer is a stream of events
        self._eof = False
        self._serving = False  # `_serve` is at work
        self._swallowed = 0
        # Seconds after which no handler can still be at work: its own limits end the exchange earlier.
        self._last_resort = 2 * (timeouts.connect + timeouts.response) + LAST_RESORT

    # What the subclass does

    def _serve(self) -> None:
        """Take requests off what has come."""
        raise NotImplementedError

    def _give_up(self, status: int, reason: str, retry_after: int | None = None) -> None:
        """Neither side can finish the exchange."""
        raise NotImplementedError

    def end(self, how: How, note: str = "") -> None:
        """End the connection, and the exchange under way with it."""
        raise NotImplementedError

    # asyncio.BufferedProtocol

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        if len(data) >= BIG and self._turns.spend(self, len(data)):
            self._hold(TURN)
        core = self._core
        state = core.state
        if state is IDLE:
            core.receive(data)
            if self._held and self._held & TURN:  # who begins with much of a body waits for its turn with all of it
                return
            if not self.blocked:
                self._serve()
            elif core.waiting > self._gate.limits.head_size:
                self._hold(FULL)
        elif self._wanted and (state is UPLOADING or state is DUPLEX):
            core.receive(data)
            self._upload()
        elif self._wanted and state is RAW:
            if self._handler is not None and self._exchange is not None:
                self._exchange.received += len(data)
                self._handler.body(data)
        elif state is LINGERING:
            self._swallowed += len(data)
            if self._swallowed > LINGER_BYTES:
                self.end(How.RESET)
        elif state is not CLOSED:
            core.receive(data)
            if core.waiting > self._gate.limits.head_size:
                self._hold(FULL)

    def eof_received(self) -> bool:
        self._eof = True
        core = self._core
        state = core.state
        if state in (WAITING, ANSWERING) or (state is DECIDING and core.bodiless):
            # The answer may still be wanted: nobody can tell a half-closed client from one that left, until we write.
            # But who closes in the middle of a stream of events, which has no end of its own, has heard enough of it.
            if self._endless:
                self.end(How.GRACEFUL, "the client closed the connection in the middle of a stream")
                return False
            self._half_closed()
        elif state is RAW:
            if self._handler is not None:
                self._handler.body_end([])
        elif core.waiting and not self.secure and (state in (UPLOADING, DUPLEX, DECIDING) or self._held & TURN):
            pass  # perhaps that is all the rest of the request: `resume_body` or `turn_came` will see
        else:
            if state is not LINGERING:
                self.end(How.GRACEFUL, CUT_SHORT)
            return False
        return not self.secure

    def turn_came(self) -> None:
        """Reader: all others have been served."""
        self._release(TURN)
        core = self._core
        if core.state is IDLE:
            if not self._serving and (core.waiting or self._eof):
                self._go_on()
        elif core.more_of_body and self._wanted:
            self._upload()
            self._notice_cut()

    # Requests

    def _go_on(self) -> None:
        """Take the requests that the client has sent ahead, unless their answers would wait as well."""
        if self.blocked:
            return
        self._release(FULL)
        core = self._core
        if core.waiting:
            self._serve()
        if self._eof and core.state is IDLE and not self.blocked and not self._held & TURN:
            self.end(How.GRACEFUL)

    def attach(self, handler: Handler) -> None:
        """Let `handler` answer the request. Its body, if any, flows after `resume_body`."""
        self._handler = handler
        self._wanted = False
        core = self._core
        core.take_request()
        if not self.blocked:
            self.deadline = self._deadlines.now + self._last_resort
        if self._eof and core.state is WAITING:
            self._half_closed()

    # Their bodies

    def first_body(self) -> tuple[bytes, bool, Fields]:
        core = self._core
        if not core.waiting:
            return b"", False, []
        data = self._take_body()
        return data, core.state is WAITING, core.trailers

    def _upload(self) -> None:
        """Hand on what has come of the request's body."""
        core, handler = self._core, self._handler
        data = self._take_body()
        if handler is None or self._handler is not handler:
            return
        if data:
            handler.body(data)
        if core.state is not UPLOADING and core.state is not DUPLEX and self._handler is handler:  # it may end it
            handler.body_end(core.trailers)

    def _take_body(self) -> bytes:
        """Return what has come of the request's body; no handler is left when that is none."""
        core = self._core
        try:
            data = core.take_body()
        except PeerError as error:
            self._give_up(400, str(error))
            return b""
        if self._exchange is not None:
            self._exchange.received += len(data)
        if core.state is UPLOADING or core.state is DUPLEX:
            self.deadline = self._deadlines.now + self._timeouts.client
            if core.more_of_body:
                self._stand_in_line()
        elif self._eof:
            self._half_closed()
        elif not self.blocked:
            self.deadline = self._deadlines.now + self._last_resort
        return data

    def _notice_cut(self) -> None:
        """A client that has sent all it ever will, and not its whole request, has left."""
        core = self._core
        if self._eof and core.state in (UPLOADING, DUPLEX) and self._wanted and not core.more_of_body:
            self.end(How.GRACEFUL, CUT_SHORT)

    def resume_body(self) -> None:
        core = self._core
        state = core.state
        if state is UPLOADING or state is DUPLEX:
            self._wanted = True
            if not self.blocked:
                self.deadline = self._deadlines.now + self._timeouts.client
            if core.waiting or core.more_of_body:
                self._upload()
            self._notice_cut()
        elif state is RAW:
            self._wanted = True
            if core.waiting and self._handler is not None:
                self._handler.body(core.take_raw())
        else:
            return
        if self._wanted:
            if self._held & BODY and not self._held & TURN and self._turns.crowded:
                self._stand_in_line()
            self._release(BODY | FULL)

    def pause_body(self) -> None:
        state = self._core.state
        if state is UPLOADING or state is DUPLEX or state is RAW:
            self._wanted = False
            self._hold(BODY)
            if state is not RAW and not self.blocked:  # now it is the other side that takes its time
                self.deadline = self._deadlines.now + self._last_resort

    def _half_closed(self) -> None:
        """The client sends no more than what waits in the buffer. It may still read, but not for ever."""
        core = self._core
        core.keep_alive = core.keep_alive and core.waiting > 0
        self.deadline = self._deadlines.now + self._timeouts.half_closed
