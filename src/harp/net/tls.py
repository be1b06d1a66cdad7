"""TLS on accepted connections, with a bounded share of the loop and of memory.

uvloop's own reads 256 KiB ahead for each connection, paused or not, and keeps that much for as long as it lives. Here
what is encrypted is read into the memory that all connections share and decrypted at once, a paused connection reads
nothing at all, and handshakes, the most expensive thing that unknown clients can ask for, queue with the others.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import IntEnum, StrEnum, auto
from typing import Any, cast

from harp.net.turns import Turns
from harp.wire.tls_records import Records

HANDSHAKE = 10.0  # seconds
MOST_OF_HANDSHAKE = 64 * 1024  # bytes of a client's
FAREWELL = 30.0  # seconds for the other side to take what it was sent, and to close as well
MOST_OF_FAREWELL = 4 * 1024 * 1024  # bytes that are still read meanwhile, so that it sees our last words
SLICE = 16 * 1024  # bytes that OpenSSL's buffers are filled with at once: they never shrink
RECORD = 16 * 1024  # bytes: no record has more


class TlsState(IntEnum):
    HANDSHAKE = auto()
    OPEN = auto()
    CLOSING = auto()  # close_notify is sent
    CLOSED = auto()


class TlsEvent(StrEnum):
    SHAKEN = "handshake complete"
    CLOSE = "close"
    LOST = "aborted, broken or at its end"


SHAKING, OPEN, CLOSING, CLOSED = TlsState
MOVES: dict[TlsState, dict[TlsEvent, TlsState]] = {
    SHAKING: {TlsEvent.SHAKEN: OPEN, TlsEvent.CLOSE: CLOSED, TlsEvent.LOST: CLOSED},
    OPEN: {TlsEvent.CLOSE: CLOSING, TlsEvent.LOST: CLOSED},
    CLOSING: {TlsEvent.CLOSE: CLOSING, TlsEvent.LOST: CLOSED},
    CLOSED: {TlsEvent.CLOSE: CLOSED, TlsEvent.LOST: CLOSED},
}


class TlsConnection(asyncio.Transport, asyncio.BufferedProtocol):
    """The protocol of a TCP connection, and the transport of what `factory` makes after the handshake.

    `data_received` of that protocol is called, whatever its kind. `failed` is called if there is no connection.

    Its methods are many because these are the interfaces of a transport and of a protocol.
    """

    def __init__(
        self,
        factory: Callable[[], object],
        context: ssl.SSLContext,
        turns: Turns,
        failed: Callable[[], object],
    ) -> None:
        super().__init__()
        self._factory = factory
        self._context = context
        self._turns = turns
        self._failed = failed
        self._state = SHAKING
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl: ssl.SSLObject | None = None  # from the first byte on
        self._app: asyncio.Protocol | None = None
        self._records = Records()
        self._in_line = False
        self._received = 0  # bytes of the handshake, or since the end
        self._limit: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        waits = ", others come first" if self._in_line else ""
        return f"<TlsConnection {self._state.name.lower()}{waits}>"

    def _move(self, event: TlsEvent) -> None:
        self._state = MOVES[self._state][event]

    # asyncio.BufferedProtocol, of TCP

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast("asyncio.Transport", transport)
        self._limit = asyncio.get_running_loop().call_later(HANDSHAKE, self.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._turns.memory[:SLICE] if self._state is SHAKING else self._turns.view

    def buffer_updated(self, nbytes: int) -> None:
        if self._state is OPEN:
            self._decrypt(self._turns.memory[:nbytes])
        elif self._state is SHAKING:
            self._received += nbytes
            for piece, _ in self._records.cut(self._turns.memory[:nbytes]):
                self._incoming.write(piece)
            self._tcp.pause_reading()  # what follows the handshake at once waits as well
            if not self._in_line:
                self._in_line = True
                self._turns.join(self)
        else:
            self._received += nbytes
            if self._received > MOST_OF_FAREWELL:  # a peer that never stops sending is cut off
                self.abort()

    def eof_received(self) -> bool:
        """Take the end without close_notify: whatever was under way is not complete."""
        self._move(TlsEvent.LOST)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._move(TlsEvent.LOST)
        self._stop_clock()
        app, self._app = self._app, None
        if app is None:
            self._failed()
        else:
            app.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._app is not None:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        if self._app is not None:
            self._app.resume_writing()

    # Handshake

    def turn_came(self) -> None:
        """Reader: take the next step of the handshake."""
        self._in_line = False
        if self._state is not SHAKING:
            return
        if self._ssl is None:
            self._ssl = self._context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            if self._received > MOST_OF_HANDSHAKE:
                self.abort()
            else:
                self._tcp.resume_reading()
            return
        except ssl.SSLError:  # whatever it is, it is between the client and its TLS library
            self._flush()
            self._move(TlsEvent.LOST)
            self._tcp.close()
            return
        self._flush()
        self._stop_clock()
        self._move(TlsEvent.SHAKEN)
        self._received = 0
        self._tcp.resume_reading()
        self._app = cast("asyncio.Protocol", self._factory())
        self._app.connection_made(self)
        if self._state is OPEN and self._incoming.pending:
            self._decrypt(b"")

    # Reading

    def _decrypt(self, data: memoryview | bytes) -> None:
        """Hand on what this makes readable."""
        pieces: list[bytes] = []
        try:
            ended = not data and self._read(pieces)
            for piece, complete in self._records.cut(data):
                self._incoming.write(piece)
                if complete:  # SSLWantReadError costs more than a record
                    ended = self._read(pieces)
        except ssl.SSLError:
            self._flush()  # an alert
            self.abort()
            return
        if self._outgoing.pending:  # an answer of TLS itself
            self._flush()
        app = self._app
        if pieces and app is not None:
            app.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if ended and self._state is OPEN and app is not None and not app.eof_received():
            self.close()

    def _read(self, pieces: list[bytes]) -> bool:
        """Read whole records. True: the other side has announced its end."""
        stream, incoming = self._ssl, self._incoming
        assert stream is not None
        try:
            while incoming.pending or stream.pending():
                piece = stream.read(RECORD)
                if not piece:
                    return True
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            return True
        return False

    def pause_reading(self) -> None:
        if self._state is OPEN:
            self._tcp.pause_reading()

    def resume_reading(self) -> None:
        if self._state is OPEN:
            self._tcp.resume_reading()

    def is_reading(self) -> bool:
        return self._tcp.is_reading()

    # Writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writelines((data,))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        stream = self._ssl
        if self._state is not OPEN or stream is None:
            return
        encrypted = []
        data = b"".join(list_of_data)
        view = memoryview(data) if len(data) > SLICE else data
        try:
            for at in range(0, len(view), SLICE):
                stream.write(view[at : at + SLICE])
                encrypted.append(self._outgoing.read())
        except ssl.SSLError:
            self.abort()
            return
        self._tcp.writelines(encrypted)

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    # The end

    def is_closing(self) -> bool:
        return self._state in (CLOSING, CLOSED)

    def close(self) -> None:
        """Announce the end, and wait for the other side to close as well: otherwise it might not notice."""
        state = self._state
        self._move(TlsEvent.CLOSE)
        if state is SHAKING:
            self.abort()
        if state is not OPEN:
            return
        assert self._ssl is not None
        with suppress(ssl.SSLError):  # the other side has not said so itself yet
            self._ssl.unwrap()
        self._flush()
        self._limit = asyncio.get_running_loop().call_later(FAREWELL, self.abort)
        if self._tcp.can_write_eof() and not self._tcp.is_closing():
            self._tcp.write_eof()
        self._tcp.resume_reading()

    def abort(self) -> None:
        """End without a close-notify alert."""
        self._move(TlsEvent.LOST)
        self._tcp.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what TCP knows, and the `ssl_object`."""
        return self._ssl if name == "ssl_object" else self._tcp.get_extra_info(name, default)

    # Parts

    def _stop_clock(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
