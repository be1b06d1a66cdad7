"""What members of one HaRP tell each other on the streams of a link: bytes in, messages out.

A message is four bytes of length (big-endian) and a JSON object that names its kind. A stream begins with one message
of the side that opens it, and its life is MOVES: after `Talk` only messages follow, one way; whatever else it asks for
is accepted or refused, and once accepted the stream is raw bytes. The TLS connection of two replicas begins as such a
stream, with `Greeting`.

Members may be of different versions while they are updated one after another. Messages of a kind that is not known here
are left out, and whatever is asked for in one is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from struct import Struct as Layout
from typing import TypeAlias, get_args

import msgspec
from msgspec import Struct

from harp.errors import PeerError
from harp.wire.decoding import decoded

LENGTH = Layout("!I")
LIMIT = 1 << 20  # bytes of JSON; the longest is the record of an ExApp


class MemberMessage(Struct, frozen=True, tag=True, omit_defaults=True, kw_only=True):
    """The root of all messages. `instance` is the Nextcloud it is about, "" where there is one."""

    instance: str = ""


# What a stream is opened for


class Greeting(MemberMessage, frozen=True):
    """The first message of a connection between replicas: who dials whom. Once it is accepted, yamux follows."""

    member: str
    boot: str  # the dialling process; a later one of the same name sorts after it
    to: str


class Talk(MemberMessage, frozen=True):
    """The opener tells what happens with it; the first stream of each side."""

    member: str
    fresh: bool  # it has just started, and wants to be told of strikes
    boot: str = ""  # as in Greeting; workers have none


class ToPort(MemberMessage, frozen=True):
    """A connection to the service behind a tunnel port that the other side holds."""

    port: int


class WorkFor(MemberMessage, frozen=True):
    """A work connection, without yamux, of a client whose tunnel the other side holds."""

    run_id: str
    version: int


class Ask(MemberMessage, frozen=True):
    """A question whose answer is as long as it likes, such as a snapshot."""

    what: str
    about: str = ""


# The answer


class Accepted(MemberMessage, frozen=True):
    """Raw bytes follow."""


class Declined(MemberMessage, frozen=True):
    """Nothing follows."""

    reason: str


# What is told


class Held(MemberMessage, frozen=True):
    """A tunnel here has a name and a port; with `offered` its client is known to know."""

    name: str
    port: int
    since: float  # Unix seconds of the tunnel's login: the newest wins
    offered: bool


class Freed(MemberMessage, frozen=True):
    """It does not any more."""

    port: int


class Serving(MemberMessage, frozen=True):
    """A client has logged in here."""

    run_id: str


class Ended(MemberMessage, frozen=True):
    """Its tunnel is closed."""

    run_id: str


class ConnectedAgain(MemberMessage, frozen=True):
    """A client of a tunnel there has logged in here: end the old tunnel."""

    run_id: str


class IsAlive(MemberMessage, frozen=True):
    """Does the tunnel that holds a port answer? A client here wants its name or port."""

    number: int
    port: int


class Alive(MemberMessage, frozen=True):
    """The answer."""

    number: int
    alive: bool


class GiveUp(MemberMessage, frozen=True):
    """End the tunnel of a port."""

    port: int
    reason: str


class Struck(MemberMessage, frozen=True):
    """A strike was counted here, or, for a fresh member, several were."""

    address: str
    reason: str
    factor: int = 1
    ages: tuple[float, ...] = (0.0,)  # seconds since each, the oldest first
    again: bool = False  # some of them may be known


class Lifted(MemberMessage, frozen=True):
    """An operator has forgiven an address everything."""

    address: str


class RecordPut(MemberMessage, frozen=True):
    """AppAPI has brought a record."""

    record: msgspec.Raw


class RecordGone(MemberMessage, frozen=True):
    """AppAPI has withdrawn one."""

    app_id: str


class WalkBegun(MemberMessage, frozen=True):
    """The doctor walks through the public URL: its steps may arrive anywhere."""

    nonce: str


class WalkEnded(MemberMessage, frozen=True):
    """It does no more."""

    nonce: str


class Greeted(MemberMessage, frozen=True):
    """A new link has been told everything that there is to know now."""


class Attached(MemberMessage, frozen=True):
    """It serves this Nextcloud as well from now on, and knows nothing of its tunnels and strikes."""


class Drained(MemberMessage, frozen=True):
    """It stops, and has no clients any more."""


class Renewed(MemberMessage, frozen=True):
    """There are new certificates in the directory that members share."""


class Operated(MemberMessage, frozen=True):
    """An operator has changed something for all members: `what` with `value`."""

    what: str
    value: str


Opening: TypeAlias = Greeting | Talk | ToPort | WorkFor | Ask
Answer: TypeAlias = Accepted | Declined
Told: TypeAlias = (
    Held
    | Freed
    | Serving
    | Ended
    | ConnectedAgain
    | IsAlive
    | Alive
    | GiveUp
    | Struck
    | Lifted
    | RecordPut
    | RecordGone
    | WalkBegun
    | WalkEnded
    | Greeted
    | Attached
    | Drained
    | Renewed
    | Operated
)


class _MessageKind(Struct, frozen=True):
    """What all messages have."""

    type: str


KINDS = frozenset(kind.__name__ for kinds in (Opening, Answer, Told) for kind in get_args(kinds))


class Phase(Enum):
    """Where a stream is."""

    OPENING = "waits for its first message"
    ASKED = "waits for its answer"
    TALKING = "carries messages"
    JOINED = "carries bytes"
    ENDED = "ended"


class LinkMove(Enum):
    """What moves it on."""

    TALK = "opened to talk"
    ASK = "opened for something else"
    ACCEPT = "accepted"
    END = "refused, closed or late"


MOVES: Mapping[Phase, Mapping[LinkMove, Phase]] = {
    Phase.OPENING: {LinkMove.TALK: Phase.TALKING, LinkMove.ASK: Phase.ASKED, LinkMove.END: Phase.ENDED},
    Phase.ASKED: {LinkMove.ACCEPT: Phase.JOINED, LinkMove.END: Phase.ENDED},
    Phase.TALKING: {LinkMove.END: Phase.ENDED},
    Phase.JOINED: {LinkMove.END: Phase.ENDED},
    Phase.ENDED: {LinkMove.END: Phase.ENDED},
}


class LinkStream:
    """One stream of a link, of either side.

    The opener calls `open`, feeds what arrives and gets the answer from `next`; the other side gets the opening from
    `next` and calls `accept` or `refuse`. These return what to send. `rest` hands over what came after the answer.
    """

    __slots__ = ("_buffer", "_opener", "phase")

    def __init__(self, *, opener: bool) -> None:
        self.phase = Phase.OPENING
        self._opener = opener
        self._buffer = b""

    def __repr__(self) -> str:
        return f"<LinkStream {'opened here' if self._opener else 'opened there'}, {self.phase.value}>"

    def open(self, opening: Opening) -> bytes:
        """Begin, as the side that opens the stream."""
        self._move(LinkMove.TALK if isinstance(opening, Talk) else LinkMove.ASK)
        return packed(opening)

    def accept(self) -> bytes:
        """Grant what the other side asks for."""
        self._move(LinkMove.ACCEPT)
        return packed(Accepted())

    def refuse(self, reason: str) -> bytes:
        """Do not."""
        self._move(LinkMove.END)
        return packed(Declined(reason))

    def end(self) -> None:
        """Nothing more is read. Fine in every phase."""
        self._move(LinkMove.END)

    def feed(self, data: bytes) -> None:
        """Add what arrived. Call next() until it gives None before feeding more."""
        self._buffer += data

    def rest(self) -> bytes:
        """Hand over, and forget, what no message has consumed."""
        rest, self._buffer = self._buffer, b""
        return rest

    def next(self) -> Opening | Answer | Told | None:
        """Return the next message, None until more is fed. Raises PeerError for what has no place here."""
        phase = self.phase
        if phase is Phase.JOINED or phase is Phase.ENDED:
            return None
        if self._opener and phase is not Phase.ASKED:
            if self._buffer:
                raise PeerError(f"link: {len(self._buffer)} bytes on a stream that {phase.value}")
            return None
        if not self._opener and phase is Phase.ASKED:
            if self._buffer:
                raise PeerError("link: bytes before the answer")
            return None
        while (body := self._next_body()) is not None:
            message = self._read(phase, body)
            if message is not None:
                return message
        return None

    def _next_body(self) -> bytes | None:
        if len(self._buffer) < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(self._buffer)
        if size > LIMIT:
            raise PeerError(f"link: message of {size} bytes, limit {LIMIT}")
        end = LENGTH.size + size
        if len(self._buffer) < end:
            return None
        body, self._buffer = self._buffer[LENGTH.size : end], self._buffer[end:]
        return body

    def _read(self, phase: Phase, body: bytes) -> Opening | Answer | Told | None:
        """Return what a message says, None if it is of a kind of later versions, and nobody waits for an answer."""
        kind = decoded(body, _MessageKind, _wrong).type
        if phase is Phase.OPENING:
            opening: Opening = Ask(kind) if kind not in KINDS else decoded(body, Opening, _wrong)  # type: ignore[arg-type]  # a union is a shape, too
            self._move(LinkMove.TALK if isinstance(opening, Talk) else LinkMove.ASK)
            return opening
        if phase is Phase.ASKED:
            answer: Answer = decoded(body, Answer, _wrong)  # type: ignore[arg-type]
            self._move(LinkMove.ACCEPT if isinstance(answer, Accepted) else LinkMove.END)
            return answer
        told: Told | None = None if kind not in KINDS else decoded(body, Told, _wrong)  # type: ignore[arg-type]
        return told

    def _move(self, turn: LinkMove) -> None:
        after = MOVES[self.phase].get(turn)
        if after is None:
            raise PeerError(f"link: {turn.value}, on a stream that {self.phase.value}")
        self.phase = after


def packed(message: MemberMessage) -> bytes:
    """Return a message as it is sent."""
    body = msgspec.json.encode(message)
    return LENGTH.pack(len(body)) + body


def _wrong(error: Exception) -> PeerError:
    return PeerError(f"link: not a message that belongs here ({type(error).__name__})")
