"""A yamux session without its transport: bytes in, events out; what we want in, bytes out (F 1.4, hashicorp/yamux).

    for event in session.receive(data, cost):
        ...  # may call any method of the session
    transport.write(session.data_to_send())

A stream lives by STREAM, a session by SESSION. A move of the peer that is not there raises PeerError, and the session
should `leave(GoAway.PROTOCOL_ERROR)`; one of ours raises ProtocolError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum

from msgspec import Struct

from harp.errors import Flooded, PeerError, ProtocolError
from harp.wire import yamux
from harp.wire.windows import Budget, ReceiveWindow
from harp.wire.yamux import (
    ACK,
    DATA,
    FIN,
    HEADER,
    INITIAL_WINDOW,
    PING,
    RST,
    SYN,
    UNLIMITED,
    WINDOW_UPDATE,
    Frame,
    FrameParser,
    GoAway,
)

MAX_ID = 0xFFFFFFFF
MAX_FRAME = 65536  # bytes of payload in a frame of ours
IDLE_FRAMES = 5000  # without data, beyond as many as there are with data, until it is a flood; see `forgive`


class StreamState(IntEnum):
    """Where a stream is in its life. Both sides may send in the first two."""

    OPENING = 0  # by us, and the peer has not answered
    OPEN = 1
    ENDED_HERE = 2  # we have sent FIN
    ENDED_THERE = 3  # the peer has
    CLOSED = 4  # both have, or one has reset it: its id is forgotten


class Move(IntEnum):
    """What happens to a stream."""

    SEND_DATA = 0
    SEND_END = 1
    SEND_RESET = 2
    GOT_ACK = 3
    GOT_DATA = 4
    GOT_END = 5
    GOT_RESET = 6


OPENING, OPEN, ENDED_HERE, ENDED_THERE, CLOSED = StreamState
SEND_DATA, SEND_END, SEND_RESET, GOT_ACK, GOT_DATA, GOT_END, GOT_RESET = Move

STREAM: dict[StreamState, dict[Move, StreamState]] = {
    OPENING: {
        SEND_DATA: OPENING,
        SEND_END: ENDED_HERE,
        SEND_RESET: CLOSED,
        GOT_ACK: OPEN,
        GOT_DATA: OPEN,  # the ACK may come with it, or never
        GOT_END: ENDED_THERE,
        GOT_RESET: CLOSED,
    },
    OPEN: {
        SEND_DATA: OPEN,
        SEND_END: ENDED_HERE,
        SEND_RESET: CLOSED,
        GOT_ACK: OPEN,
        GOT_DATA: OPEN,
        GOT_END: ENDED_THERE,
        GOT_RESET: CLOSED,
    },
    ENDED_HERE: {
        SEND_RESET: CLOSED,
        GOT_ACK: ENDED_HERE,
        GOT_DATA: ENDED_HERE,
        GOT_END: CLOSED,
        GOT_RESET: CLOSED,
    },
    ENDED_THERE: {
        SEND_DATA: ENDED_THERE,
        SEND_END: CLOSED,
        SEND_RESET: CLOSED,
        GOT_ACK: ENDED_THERE,
        GOT_RESET: CLOSED,
    },
    CLOSED: {},
}


class SessionState(IntEnum):
    """Where a session is in its life."""

    RUNNING = 0
    NO_NEW_STREAMS = 1  # the peer takes none; those that are open go on
    OVER = 2


class Turn(IntEnum):
    """What happens to a session."""

    OPEN_STREAM = 0
    GOT_NORMAL_GO_AWAY = 1
    GOT_GO_AWAY = 2
    LEAVE = 3


RUNNING, NO_NEW_STREAMS, OVER = SessionState

SESSION: dict[SessionState, dict[Turn, SessionState]] = {
    RUNNING: {
        Turn.OPEN_STREAM: RUNNING,
        Turn.GOT_NORMAL_GO_AWAY: NO_NEW_STREAMS,
        Turn.GOT_GO_AWAY: OVER,
        Turn.LEAVE: OVER,
    },
    NO_NEW_STREAMS: {
        Turn.GOT_NORMAL_GO_AWAY: NO_NEW_STREAMS,
        Turn.GOT_GO_AWAY: OVER,
        Turn.LEAVE: OVER,
    },
    OVER: {Turn.LEAVE: OVER},
}


class Happening(IntEnum):
    """What a session reports."""

    WINDOW_OPENED = 0  # `stream` may send more
    OPENED = 1  # `stream` is new, and acknowledged
    ENDED = 2  # the peer sends no more on `stream`
    RESET = 3  # `stream` is gone
    PONG = 4  # the answer to ping `value`
    NO_NEW_STREAMS = 5
    OVER = 6  # the peer ends the session with code `value`


class MuxEvent(Struct, frozen=True, gc=False):
    """Something that the peer did, other than sending data: that is a Frame, its payload for its stream."""

    kind: Happening
    stream: int = 0
    value: int = 0


class Stream:
    """One stream. Its fields are for reading; the session changes them."""

    __slots__ = ("id", "sendable", "state", "window")

    def __init__(self, number: int, state: StreamState, window: ReceiveWindow) -> None:
        self.id = number
        self.state = state
        self.sendable = INITIAL_WINDOW  # bytes we may still send
        self.window = window

    def __repr__(self) -> str:
        return f"<Stream {self.id} {words_of(self.state)}, may send {self.sendable}, may receive {self.window.left}>"

    def may_send(self) -> bool:
        """Return whether this side may still send."""
        return SEND_DATA in STREAM[self.state]

    def may_receive(self) -> bool:
        """Return whether the peer may still send."""
        return GOT_DATA in STREAM[self.state]

    def move(self, move: Move) -> None:
        """Raises PeerError or ProtocolError when the table has no such move."""
        after = STREAM[self.state].get(move)
        if after is None:
            error = PeerError if move >= GOT_ACK else ProtocolError
            raise error(f"yamux: {words_of(move)} for stream {self.id}, which is {words_of(self.state)}")
        self.state = after


class Session:
    """One end of a session. A peer may have `max_streams` open, or none; the excess is reset.

    `frames` is how many the peer may send in all until it is `trust`ed. `clock` is for the windows: seconds. `trace`
    is called with "<" or ">" and every frame, for a debug log.
    """

    def __init__(
        self,
        *,
        client: bool,
        max_streams: int,
        clock: Callable[[], float],
        budget: Budget | None = None,
        frames: int | None = None,
        first: int | None = None,
        trace: Callable[[str, Frame], None] | None = None,
    ) -> None:
        self.state = RUNNING
        self.streams: dict[int, Stream] = {}
        self.max_streams = max_streams
        self.max_window = INITIAL_WINDOW  # bytes that a stream's window may grow to
        self.round_trip: float | None = None  # seconds; what windows are made for
        self.queued = 0  # bytes of data in `data_to_send`
        self._clock = clock
        self.budget = budget or Budget()
        self._trace = trace
        self._next_id = first or (1 if client else 2)
        self._peer_parity = 0 if client else 1  # of the ids that the peer may open
        self._parser = FrameParser()
        self._control: list[bytes] = []  # frames that go ahead of all data
        self._data: list[bytes] = []
        self._pings = 0
        self._patience = IDLE_FRAMES if frames is None else frames
        self._earns = 1 if frames is None else -1  # what a frame with data does to the patience

    def __repr__(self) -> str:
        return f"<Session {words_of(self.state)}, {len(self.streams)} streams>"

    @property
    def waiting(self) -> bool:
        """Were more frames received than `receive` was allowed to take? Call it again, with b""."""
        return self._parser.waiting

    def trust(self) -> None:
        """The peer has shown who it is."""
        self._earns = 1
        self.forgive()

    def forgive(self) -> None:
        """Allow it IDLE_FRAMES once more; to be called every now and then, or pings add up."""
        if self._earns > 0:
            self._patience = IDLE_FRAMES

    # Receiving

    def receive(self, data: bytes, cost: int = UNLIMITED) -> Iterator[Frame | MuxEvent]:
        """Yield what the bytes say, in order; see FrameParser.feed for `cost`. Raises PeerError; Flooded is one.

        Each event is given when all before it were dealt with: what is done about one counts for the next.
        """
        frames = self._parser.feed(data, cost)
        if self._trace is not None:
            for frame in frames:
                self._trace("<", frame)
        streams = self.streams
        for frame in frames:
            if self.state is OVER:
                return
            flags = frame.flags
            if frame.kind > WINDOW_UPDATE:
                yield from self._session_frame(frame)
                continue
            if flags & SYN and self._open(frame.stream):
                yield MuxEvent(Happening.OPENED, frame.stream)
            stream = streams.get(frame.stream)
            if stream is None:  # late frames of a stream that is gone (F 1.4, rule 6)
                self._patience -= 1
                continue
            if flags & RST:
                self._patience -= 1
                self._move(stream, GOT_RESET)
                yield MuxEvent(Happening.RESET, stream.id)
                continue
            if flags & ACK:
                stream.move(GOT_ACK)
            if frame.kind == DATA:
                window = stream.window
                if frame.length > window.left:
                    raise PeerError(f"yamux: {frame.length} bytes of data for a window of {window.left}")
                window.left -= frame.length
                if frame.length:
                    self._patience += self._earns
                if frame.payload:
                    if stream.state is not OPEN:
                        stream.move(GOT_DATA)
                    yield frame
                elif not frame.length:
                    self._patience -= 1
            else:
                self._patience -= 1
                stream.sendable += frame.length
                if frame.length:
                    yield MuxEvent(Happening.WINDOW_OPENED, stream.id)
            if flags & FIN and stream.state is not CLOSED:
                self._move(stream, GOT_END)
                yield MuxEvent(Happening.ENDED, stream.id)
        if self._patience < 0:
            raise Flooded(self._flood())

    def _flood(self) -> str:
        if self._earns < 0:
            return "yamux: too many frames before the login"
        return f"yamux: a flood, {IDLE_FRAMES} frames that carry nothing"

    def _open(self, number: int) -> bool:
        self._patience -= 1  # what is then sent on it brings it back
        if number in self.streams or number % 2 != self._peer_parity or not number:
            raise PeerError(f"yamux: stream {number} cannot be opened")
        if len(self.streams) >= self.max_streams:
            self._control.append(yamux.window_update(number, 0, RST))
            return False
        self._add(number, OPEN)
        self._control.append(yamux.window_update(number, 0, ACK))
        return True

    def _session_frame(self, frame: Frame) -> Iterator[MuxEvent]:
        self._patience -= 1
        if frame.kind == PING:
            if frame.flags & SYN:
                self._control.append(yamux.ping(frame.length, reply=True))
            else:
                yield MuxEvent(Happening.PONG, value=frame.length)
        elif frame.length:
            self._turn(Turn.GOT_GO_AWAY)
            yield MuxEvent(Happening.OVER, value=frame.length)
        else:
            self._turn(Turn.GOT_NORMAL_GO_AWAY)
            yield MuxEvent(Happening.NO_NEW_STREAMS)

    # Sending

    def can_open(self) -> bool:
        """Return whether a stream can be opened now."""
        return Turn.OPEN_STREAM in SESSION[self.state] and self._next_id <= MAX_ID

    def open(self) -> Stream:
        """Open a stream; it may send at once. Raises ProtocolError when it cannot be."""
        self._turn(Turn.OPEN_STREAM)
        if self._next_id > MAX_ID:
            raise ProtocolError("yamux: all stream ids are used up")
        stream = self._add(self._next_id, OPENING)
        self._next_id += 2
        self._control.append(yamux.window_update(stream.id, 0, SYN))
        return stream

    def send(self, stream: Stream, data: bytes) -> None:
        """Send data that `stream.sendable` has room for."""
        size = len(data)
        if size > stream.sendable:
            raise ProtocolError(f"yamux: {size} bytes for a window of {stream.sendable}")
        if stream.state > OPEN:
            stream.move(SEND_DATA)
        stream.sendable -= size
        self.queued += size
        self._patience += 1
        if size <= MAX_FRAME:
            self._data += (HEADER.pack(0, DATA, 0, stream.id, size), data)
        else:
            for at in range(0, size, MAX_FRAME):
                part = data[at : at + MAX_FRAME]
                self._data += (HEADER.pack(0, DATA, 0, stream.id, len(part)), part)

    def end(self, stream: Stream) -> None:
        """End this direction, after what was sent."""
        self._move(stream, SEND_END)
        self._data.append(yamux.window_update(stream.id, 0, FIN))

    def reset(self, stream: Stream) -> None:
        """Give up a stream, after what was sent. Nothing when it is closed already."""
        if stream.state is not CLOSED:
            self._move(stream, SEND_RESET)
            self._data.append(yamux.window_update(stream.id, 0, RST))

    def reopen_window(self, stream: Stream) -> None:
        """The reader has taken everything: let the peer send more, if it has used half of what it had."""
        window = stream.window
        if window.left * 2 <= window.size and stream.may_receive():
            increment = window.reopen(self._clock(), self.round_trip, self.max_window)
            if increment:
                self._control.append(yamux.window_update(stream.id, increment))

    def ping(self) -> int:
        """Ask for a sign of life; the value that its PONG will have."""
        value = self._pings
        self._pings = (value + 1) & 0xFFFFFFFF
        self._control.append(yamux.ping(value))
        return value

    def leave(self, code: GoAway | None = None) -> None:
        """End the session; with a code the peer is told. Streams are forgotten, what was sent is not."""
        self._turn(Turn.LEAVE)
        if code is not None:
            self._control.append(yamux.go_away(code))
        for stream in list(self.streams.values()):
            self._forget(stream)

    def has_to_send(self) -> bool:
        """Return whether `data_to_send` would return anything."""
        return bool(self._control or self._data)

    def data_to_send(self) -> bytes:
        """Return everything that has gathered: control frames first, then data in the order of the calls."""
        batch = b"".join(self._control + self._data)
        self._control.clear()
        self._data.clear()
        self.queued = 0
        if self._trace is not None:
            for frame in FrameParser().feed(batch):
                self._trace(">", frame)
        return batch

    # Inside

    def _add(self, number: int, state: StreamState) -> Stream:
        stream = self.streams[number] = Stream(
            number, state, ReceiveWindow(self.budget, self._clock(), self.round_trip)
        )
        return stream

    def _move(self, stream: Stream, move: Move) -> None:
        stream.move(move)
        if stream.state is CLOSED:
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        stream.window.close()
        self.streams.pop(stream.id, None)

    def _turn(self, turn: Turn) -> None:
        after = SESSION[self.state].get(turn)
        if after is None:
            error = ProtocolError if turn in (Turn.OPEN_STREAM, Turn.LEAVE) else PeerError
            raise error(f"yamux: {words_of(turn)} in a session whose state is {words_of(self.state)}")
        self.state = after


def words_of(name: IntEnum) -> str:
    """Of a state or a move, for people."""
    return name.name.lower().replace("_", " ")
