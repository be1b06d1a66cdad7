"""A client's connection until it has logged in: which protocol it speaks, and its first message (F 1.2, F 5.1, F 6.2).

Everything here belongs to a peer that we know nothing of: it has one time limit, one stream and small windows.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

from harp.errors import PeerError
from harp.net.deadlines import NEVER, Deadlines
from harp.tunnel.mux import MuxSession
from harp.tunnel.server.tunnel import Tunnel
from harp.wire.frp import Hello, Login, Message, MessageReader, NewWorkConn, encode

LOGIN_LIMIT = 10.0  # seconds from the connection, TLS included, to an accepted login
FIRST_MESSAGE_LIMIT = 10.0  # seconds, on each later stream
STREAMS_BEFORE_LOGIN = 1
MUX_BYTE = b"\0"
BARE_BYTES = (b"o", b"w", b"F")


class Reception(Protocol):
    """Who decides about first messages."""

    deadlines: Deadlines

    def hello(self, opening: Opening, payload: bytes) -> None:
        """A ClientHello of version 2."""

    def login(self, opening: Opening, login: Login) -> None:
        """A client wants a control connection on this stream."""

    def work(self, opening: Opening, message: NewWorkConn) -> None:
        """A client has opened a work connection."""

    def left(self, guest: Guest) -> None:
        """The connection is gone, or no guest any more."""

    def late(self, guest: Guest) -> None:
        """The connection has not logged in within the limit."""


class Guest(asyncio.Protocol):
    """One TCP or TLS connection; the protocol of its transport until the first byte tells what it speaks.

    `tunnel` is set by the login. A connection without one, and that is no work connection, is dropped at `deadline`.
    `greeting` is the task that brings the connection here.
    """

    def __init__(self, reception: Reception, address: str) -> None:
        self.reception = reception
        self.address = address
        self.mux: MuxSession | None = None
        self.tunnel: Tunnel | None = None
        self.deadline = reception.deadlines.now + LOGIN_LIMIT
        self.greeting: asyncio.Task[None]
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        protocol: asyncio.Protocol
        if data[:1] == MUX_BYTE:
            protocol = self.mux = MuxSession(
                self.reception.deadlines,
                client=False,
                accept=lambda: Opening(self),
                lost=self.gone,
                max_streams=STREAMS_BEFORE_LOGIN,
            )
        elif data[:1] in BARE_BYTES:
            protocol = Opening(self)
        else:
            self._transport.abort()
            return
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone()

    def expired(self) -> None:
        """Not logged in within the limit."""
        self.reception.late(self)

    def drop(self) -> None:
        """Close the connection without a word, whatever state it is in."""
        self.gone()
        self.greeting.cancel()
        if self._transport is not None:
            self._transport.abort()

    def gone(self) -> None:
        """No guest any more: lost, logged in, or handed over."""
        self.reception.left(self)


class Opening(asyncio.Protocol):
    """A stream, or a connection without yamux, until its first message is here.

    The message goes to the reception, which answers with `send` and then closes the transport or gives it another
    protocol. `hellos` are the payloads that went both ways on a connection of version 2.
    """

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.transport: asyncio.Transport
        self.hellos: tuple[bytes, bytes] | None = None
        self.deadline = NEVER
        self._reader = MessageReader()
        self._done = False

    @property
    def version(self) -> int:
        """Of the protocol; known once a message is here."""
        return self._reader.version or 1

    def send(self, message: Message) -> None:
        """In clear, in the framing that the client uses."""
        self.transport.write(encode(message, self.version))

    def rest(self) -> bytes:
        """What came behind the first message."""
        return self._reader.rest()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it
        deadlines = self.guest.reception.deadlines
        deadlines.watch(self)
        self.deadline = deadlines.now + FIRST_MESSAGE_LIMIT

    def data_received(self, data: bytes) -> None:
        if self._done:
            return  # refused; the answer is on its way
        self._reader.feed(data)
        try:
            while not self._done and (message := self._reader.next()) is not None:
                if isinstance(message, Hello) and message.client and self.hellos is None:
                    self.guest.reception.hello(self, message.payload)
                    continue
                self._finish()
                if isinstance(message, Login):
                    self.guest.reception.login(self, message)
                elif isinstance(message, NewWorkConn):
                    self.guest.reception.work(self, message)
                else:
                    self.transport.close()
        except PeerError:
            self._finish()
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()
        if self.guest.mux is None:
            self.guest.gone()

    def expired(self) -> None:
        """The first message did not come in time."""
        self._finish()
        self.transport.close()

    def refuse(self) -> None:
        """Close behind what was sent."""
        self._finish()
        self.transport.close()

    def _finish(self) -> None:
        self._done = True
        self.guest.reception.deadlines.drop(self)
