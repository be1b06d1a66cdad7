"""An FRP connection until it has logged in: bytes in, what the client wants out (F 1.2, F 5.1, F 6.2).

Two life cycles, each a table: the TCP connection (CONNECTION), and in it every yamux stream, or the connection itself
where there is no yamux, until its first message is answered (FIRST_MESSAGE). What is not in a table raises PeerError.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from harp.errors import PeerError
from harp.wire.frp import FrameType, HelloFrame, Login, Message, MessageReader, NewWorkConn, encode, frame, server_hello

TLS_BYTE = b"\x16"
TLS_CUSTOM_BYTE = b"\x17"  # frpc's own byte in front of a TLS handshake; dropped
LINK_BYTE = b"\x1e"  # a replica's, in front of its TLS handshake: which certificates that shows is decided before it
MUX_BYTE = b"\0"
BARE_BYTES = (b"o", b"w", b"F")
WEBSOCKET = b"GET /~!frp"
REQUESTS = (Login, NewWorkConn)
ENOUGH = len(WEBSOCKET)  # bytes that show what a connection speaks

S = TypeVar("S", bound="LoginMove")
E = TypeVar("E", bound="LoginMove")


class LoginMove(Enum):
    """The root of states and events, which are looked up for every work stream: hashed by identity, it is quick."""

    __hash__ = object.__hash__


class Stage(LoginMove):
    """Where a TCP connection is on its way to a tunnel."""

    FIRST_BYTE = "waits for its first byte"
    HANDSHAKE = "in the TLS handshake"
    LINK = "is a link of another member"
    PROTOCOL = "waits for the first byte of FRP"
    LOGIN = "waits for its login"
    TUNNEL = "is a tunnel"
    WORK = "is a work connection"
    ENDED = "ended"


class Step(LoginMove):
    """What moves a TCP connection on."""

    TLS = "begins with TLS"
    LINK = "begins as a link"
    PLAIN = "begins without TLS"
    SECURED = "handshake done"
    FRP = "yamux or a bare message begins"
    LOGGED_IN = "login accepted"
    HANDED_OVER = "belongs to a tunnel"
    END = "closed, refused or late"


CONNECTION: Mapping[Stage, Mapping[Step, Stage]] = {
    Stage.FIRST_BYTE: {
        Step.TLS: Stage.HANDSHAKE,
        Step.LINK: Stage.LINK,
        Step.PLAIN: Stage.PROTOCOL,
        Step.END: Stage.ENDED,
    },
    Stage.HANDSHAKE: {Step.SECURED: Stage.PROTOCOL, Step.END: Stage.ENDED},
    Stage.LINK: {Step.END: Stage.ENDED},
    Stage.PROTOCOL: {Step.FRP: Stage.LOGIN, Step.END: Stage.ENDED},
    Stage.LOGIN: {Step.LOGGED_IN: Stage.TUNNEL, Step.HANDED_OVER: Stage.WORK, Step.END: Stage.ENDED},
    Stage.TUNNEL: {Step.END: Stage.ENDED},
    Stage.WORK: {Step.END: Stage.ENDED},
    Stage.ENDED: {Step.END: Stage.ENDED},
}


class LoginState(LoginMove):
    """Where a stream is until its first message is answered."""

    WAITING = "waits for its first message"
    GREETED = "has agreed on version 2"
    ASKING = "waits for our answer"
    ACCEPTED = "accepted"
    ENDED = "ended"


class LoginEvent(LoginMove):
    """What moves a stream on."""

    HELLO = "ClientHello"
    REQUEST = "Login or NewWorkConn"
    ACCEPT = "request accepted"
    END = "closed, refused or late"


FIRST_MESSAGE: Mapping[LoginState, Mapping[LoginEvent, LoginState]] = {
    LoginState.WAITING: {
        LoginEvent.HELLO: LoginState.GREETED,
        LoginEvent.REQUEST: LoginState.ASKING,
        LoginEvent.END: LoginState.ENDED,
    },
    LoginState.GREETED: {
        LoginEvent.REQUEST: LoginState.ASKING,
        LoginEvent.END: LoginState.ENDED,
    },
    LoginState.ASKING: {
        LoginEvent.ACCEPT: LoginState.ACCEPTED,
        LoginEvent.END: LoginState.ENDED,
    },
    LoginState.ACCEPTED: {LoginEvent.END: LoginState.ACCEPTED},  # the tunnel has it now
    LoginState.ENDED: {LoginEvent.END: LoginState.ENDED},
}


# By names of the module: Python 3.11 looks a member up in its class much more slowly.
WAITING, READING = LoginState.WAITING, (LoginState.WAITING, LoginState.GREETED)
HELLO, REQUEST, ACCEPT, END = LoginEvent


def moved(table: Mapping[S, Mapping[E, S]], state: S, event: E) -> S:
    """Return the state after `event`. Raises PeerError when `event` has no place in `state`."""
    try:
        return table[state][event]
    except KeyError:
        raise PeerError(f"frp: {event.value} on a connection that {state.value}") from None


class NotFrp(PeerError):
    """It speaks something else. `fix` is what to change when the peer seems to be a tunnel client, else ""."""

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


def check_start(start: bytes, *, tls_required: bool) -> Step:
    """Tell TLS, plain FRP and the link of a replica by the first byte (F 6.5). Raises NotFrp for anything else.

    `start` is what has arrived, at least one byte; up to ENOUGH bytes are looked at for the reason.
    """
    first = start[:1]
    if first in (TLS_BYTE, TLS_CUSTOM_BYTE):
        return Step.TLS
    if first == LINK_BYTE:
        return Step.LINK
    if first != MUX_BYTE and first not in BARE_BYTES:
        raise stranger(start)
    if tls_required:
        raise NotFrp("the client does not use TLS", "set transport.tls.enable = true and the certificates")
    return Step.PLAIN


def stranger(start: bytes) -> NotFrp:
    """Say what begins with `start`, which is not FRP."""
    if start[:ENOUGH] == WEBSOCKET:
        return NotFrp("the client uses a websocket", 'set transport.protocol = "tcp"')
    return NotFrp(f"neither FRP nor TLS, it begins with {start[:ENOUGH]!r}")


class FirstMessages:
    """The server's side of a stream until its first message is answered.

    feed() what arrives; next() gives the client's Hello, Login or NewWorkConn, or None until more is fed, and raises
    PeerError when it can be neither. After a Hello send what greet() gives. Then accept() or end().
    """

    __slots__ = ("_reader", "hellos", "state")

    def __init__(self) -> None:
        self.state = WAITING
        self.hellos: tuple[bytes, bytes] | None = None  # payloads, from and to a client of version 2
        self._reader = MessageReader()

    @property
    def version(self) -> int:
        """Of the protocol; known once a message is here."""
        return self._reader.version or 1

    def feed(self, data: bytes) -> None:
        """Add what arrived."""
        self._reader.feed(data)

    def next(self) -> HelloFrame | Login | NewWorkConn | None:
        """Return the next message, while one can come."""
        if self.state not in READING:
            return None
        message = self._reader.next()
        if message is None:
            return None
        if isinstance(message, HelloFrame) and message.client:
            self._move(HELLO)
            return message
        if isinstance(message, REQUESTS):
            self._move(REQUEST)
            return message
        raise PeerError(f"frp: the first message is {message!r}")

    def greet(self, hello: HelloFrame, random: bytes) -> tuple[bytes, str]:
        """Answer `hello` with 32 fresh bytes: what to send, and "" or why the client is refused."""
        answer, refusal = server_hello(hello.payload, random)
        self.hellos = (hello.payload, answer)
        return frame(FrameType.SERVER_HELLO, answer), refusal

    def encode(self, message: Message) -> bytes:
        """In clear, in the framing that the client uses."""
        return encode(message, self.version)

    def rest(self) -> bytes:
        """Hand over what came after the first message."""
        return self._reader.rest()

    def accept(self) -> None:
        """The request is granted; another protocol takes the stream."""
        self._move(ACCEPT)

    def end(self) -> None:
        """Nothing more is read. Fine in every state."""
        self._move(END)

    def _move(self, event: LoginEvent) -> None:
        self.state = moved(FIRST_MESSAGE, self.state, event)
