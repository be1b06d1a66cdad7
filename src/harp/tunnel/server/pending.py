"""A client's connection until it has logged in: which protocol it speaks, and its first message (F 1.2, F 5.1, F 6.2).

Everything here belongs to an unknown peer: it has one time limit, one stream and small windows. The
life cycles are the tables of `harp.wire.frp_login`; here are transports and limits.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol, cast

import structlog

from harp.errors import PeerError
from harp.logs import debugging
from harp.net.deadlines import NEVER, Deadlines
from harp.net.turns import Turns
from harp.tunnel.mux import MuxSession
from harp.tunnel.server.tunnel import Tunnel
from harp.wire.frp import RANDOM_SIZE, HelloFrame, Login, Message, NewWorkConn
from harp.wire.frp_login import (
    BARE_BYTES,
    CONNECTION,
    MUX_BYTE,
    FirstMessages,
    NotFrp,
    Stage,
    Step,
    moved,
    stranger,
)
from harp.wire.windows import Budget

LOGIN_LIMIT = 10.0  # seconds from the connection, TLS included, to an accepted login
FIRST_MESSAGE_LIMIT = 10.0  # seconds, on each later stream
STREAMS_BEFORE_LOGIN = 1
FRAMES_BEFORE_LOGIN = 100  # a login takes less than 20

log = structlog.get_logger()


class LoginHandler(Protocol):
    """Who decides about first messages."""

    deadlines: Deadlines
    budget: Budget
    turns: Turns

    def login(self, first: FirstMessage, login: Login) -> None:
        """A client wants a control connection on this stream."""

    def work(self, first: FirstMessage, message: NewWorkConn) -> None:
        """A client has opened a work connection."""

    def unreadable(self, pending: PendingConnection, error: PeerError) -> None:
        """What the client has sent is not FRP, or not what comes first; the stream is closed."""

    def broken(self, pending: PendingConnection, reason: str) -> None:
        """The client, logged in or not, has violated yamux; its connection is lost."""

    def left(self, pending: PendingConnection) -> None:
        """The connection is no longer pending: it has ended, logged in, or belongs to a tunnel."""

    def late(self, pending: PendingConnection) -> None:
        """The connection has not logged in within the limit."""


class PendingConnection(asyncio.Protocol):
    """One TCP or TLS connection; the protocol of its transport until the first byte shows what it speaks.

    `tunnel` is set by the login. A connection without one, and that is not a work connection, is dropped at `deadline`.
    `greeting` is the task that brings the connection here.
    """

    def __init__(self, handler: LoginHandler, address: str) -> None:
        self.handler = handler
        self.address = address
        self.debugging = debugging()
        self.stage = Stage.FIRST_BYTE
        self.mux: MuxSession | None = None
        self.tunnel: Tunnel | None = None
        self.deadline = handler.deadlines.now + LOGIN_LIMIT
        self.greeting: asyncio.Task[None]
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        yamux = "" if self.mux is None else " over yamux"
        return f"<PendingConnection {self.address} {self.stage.value}{yamux}>"

    def move(self, step: Step) -> None:
        """Move as the table says. Raises PeerError if it has no such move."""
        self.stage = moved(CONNECTION, self.stage, step)
        if self.debugging:
            log.debug("tunnel connection moved", connection=self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it
        if self.stage is Stage.HANDSHAKE:
            self.move(Step.SECURED)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        protocol: asyncio.Protocol
        if data[:1] == MUX_BYTE:
            protocol = self.mux = MuxSession(
                self.handler.deadlines,
                client=False,
                accept=lambda: FirstMessage(self),
                lost=self._mux_lost,
                max_streams=STREAMS_BEFORE_LOGIN,
                frames=FRAMES_BEFORE_LOGIN,
                budget=self.handler.budget,
                turns=self.handler.turns,
            )
        elif data[:1] in BARE_BYTES:
            protocol = FirstMessage(self)
        else:
            self.unreadable(stranger(data))
            self._transport.abort()
            return
        self.move(Step.FRP)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone()

    def expired(self) -> None:
        """Not logged in within the limit."""
        self.handler.late(self)

    def unreadable(self, error: PeerError) -> None:
        """What came is not what a tunnel client sends."""
        self.handler.unreadable(self, error)

    def drop(self) -> None:
        """Close the connection without an answer, in any state."""
        self.gone()
        self.greeting.cancel()
        if self._transport is not None:
            self._transport.abort()

    def handed_over(self) -> None:
        """It is a work connection; the tunnel has it now."""
        self.move(Step.HANDED_OVER)
        self.handler.left(self)

    def logged_in(self, tunnel: Tunnel) -> None:
        """It is a tunnel now; with yamux, more streams may come."""
        self.move(Step.LOGGED_IN)
        self.tunnel = tunnel
        self.handler.left(self)

    def _mux_lost(self) -> None:
        if self.mux is not None and self.mux.fault:
            self.handler.broken(self, self.mux.reason)
        self.gone()

    def gone(self) -> None:
        """Lost or dropped; harmless when it was no longer pending."""
        self.move(Step.END)
        self.handler.left(self)


class FirstMessage(asyncio.Protocol):
    """A stream, or a connection without yamux, until its first message is here.

    The message goes to the handler, which answers with `send` and then refuses or accepts, giving the transport
    another protocol.
    """

    def __init__(self, pending: PendingConnection) -> None:
        self.pending = pending
        self.transport: asyncio.Transport
        self.messages = FirstMessages()
        self.deadline = NEVER

    def __repr__(self) -> str:
        return f"<FirstMessage {self.pending.address} {self.messages.state.value}, v{self.messages.version}>"

    def send(self, message: Message) -> None:
        """In clear, in the framing that the client uses."""
        if self.pending.debugging:
            log.debug("frp message sent", message=message, connection=self)
        self.transport.write(self.messages.encode(message))

    def accept(self) -> None:
        """The request is granted. The caller gives the transport another protocol."""
        self.pending.handler.deadlines.drop(self)
        self.messages.accept()

    def refuse(self) -> None:
        """Close after what was sent; fine in every state."""
        self.pending.handler.deadlines.drop(self)
        self.messages.end()
        self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's TLS transports do not derive from it
        deadlines = self.pending.handler.deadlines
        deadlines.watch(self)
        self.deadline = deadlines.now + FIRST_MESSAGE_LIMIT

    def data_received(self, data: bytes) -> None:
        self.messages.feed(data)
        try:
            while (message := self.messages.next()) is not None:
                if self.pending.debugging:
                    log.debug("frp message received", message=message, connection=self)
                self._handle(message)
        except PeerError as error:
            self.pending.unreadable(error)
            self.refuse()

    def connection_lost(self, exc: Exception | None) -> None:
        self.pending.handler.deadlines.drop(self)
        self.messages.end()
        if self.pending.mux is None:
            self.pending.gone()

    def expired(self) -> None:
        """The first message did not come in time."""
        self.refuse()

    def _handle(self, message: HelloFrame | Login | NewWorkConn) -> None:
        if isinstance(message, HelloFrame):
            answer, refusal = self.messages.greet(message, os.urandom(RANDOM_SIZE))
            self.transport.write(answer)
            if refusal:
                raise NotFrp(refusal)
        elif isinstance(message, Login):
            self.pending.handler.login(self, message)
        else:
            self.pending.handler.work(self, message)
