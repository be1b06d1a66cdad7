"""Yamux frames: bytes in, frames out (F 1.3, hashicorp/yamux spec.md).

A frame is a 12-byte big-endian header. Only DATA is followed by `length` bytes of payload; elsewhere `length` is a
number: a window increment in bytes, a ping's value or a go-away code.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct as Layout

from msgspec import Struct

from harp.errors import PeerError

HEADER = Layout("!BBHII")  # version, kind, flags, stream id, length
HEADER_SIZE = HEADER.size
INITIAL_WINDOW = 262144  # bytes a stream may carry each way before the first increment
ASKING = 16  # what a frame that wants an answer costs, in frames that do not
UNLIMITED = 1 << 62  # frames, for a caller that takes all at once


class Kind(IntEnum):
    """What a frame is."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flags(IntFlag):
    """May be combined."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class GoAway(IntEnum):
    """Why a peer ends the session."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


# Plain ints for the code that runs once a frame: an IntFlag operation costs more than everything else there.
DATA, WINDOW_UPDATE, PING, GO_AWAY = map(int, Kind)
SYN, ACK, FIN, RST = map(int, Flags)


class Frame(Struct, frozen=True, gc=False):
    """One frame, or one part of a DATA frame that did not arrive in one piece.

    The first part of a cut DATA frame has the announced `length` and all flags but FIN; those that follow have
    length 0 and the payload only, and the last of them has FIN if the frame had it. So `length` is always what the
    frame takes from the stream's window, known before its payload is awaited, and FIN comes after the last byte.
    """

    kind: int
    flags: int
    stream: int
    length: int
    payload: bytes = b""

    def __str__(self) -> str:
        """Return one line for a debug log: `DATA SYN stream 3, 5 bytes`."""
        flags = "".join(f" {flag.name}" for flag in Flags if self.flags & flag)
        if self.kind == DATA:
            return f"DATA{flags} stream {self.stream}, {self.length or len(self.payload)} bytes"
        if self.kind == WINDOW_UPDATE:
            return f"WINDOW_UPDATE{flags} stream {self.stream}, {self.length} more"
        return f"{Kind(self.kind).name}{flags} {self.length}"


class FrameParser:
    """Cut a byte stream into frames.

    feed() takes any slicing and gives out payloads as they arrive: what it holds back is an unfinished header of at
    most 11 bytes, and what `cost` has left for the next call. Raises PeerError on a bad version or an unknown kind;
    send GO_AWAY(1) then, and drop the parser.
    """

    def __init__(self) -> None:
        self._rest = b""  # an unfinished header, or what the last call had no budget for
        self._at = 0  # where it begins
        self._awaited = 0  # payload bytes of the cut DATA frame still to come; nothing is left in `_rest` then
        self._stream = 0  # of the cut frame
        self._fin = 0  # FIN of the cut frame, for its last part

    @property
    def waiting(self) -> bool:
        """Is there more to do without any more bytes?"""
        return len(self._rest) - self._at >= HEADER_SIZE

    def feed(self, data: bytes, cost: int = UNLIMITED) -> list[Frame]:
        """Return every frame, and part of a frame, that `data` completes, in order.

        Stops when frames of `cost` have been given out: 1 for a frame, ASKING for one that has SYN, which opens a
        stream or asks for a pong. Call it with b"" for those that follow.
        """
        frames: list[Frame] = []
        at = self._at
        if self._awaited:
            at = min(self._awaited, len(data))
            self._awaited -= at
            flags = 0 if self._awaited else self._fin
            if at:
                frames.append(Frame(DATA, flags, self._stream, 0, data[:at]))
        elif not data:
            data = self._rest
        elif self._rest:
            data, at = self._rest[at:] + data, 0
        end = len(data)
        unpack = HEADER.unpack_from
        while end - at >= HEADER_SIZE and cost > 0:
            version, kind, flags, stream, length = unpack(data, at)
            at += HEADER_SIZE
            cost -= ASKING if flags & SYN else 1
            if version or kind > GO_AWAY:
                raise PeerError(f"yamux: version {version}, kind {kind}")
            if kind:
                frames.append(Frame(kind, flags, stream, length))
                continue
            stop = at + length
            if stop > end:
                self._awaited, self._stream, self._fin = stop - end, stream, flags & FIN
                flags &= ~FIN
                stop = end
            frames.append(Frame(DATA, flags, stream, length, data[at:stop]))
            at = stop
        if end - at >= HEADER_SIZE:
            self._rest, self._at = data, at  # not cut off here: many calls may follow
        else:
            self._rest, self._at = data[at:], 0
        return frames


def data_header(stream: int, length: int, flags: int = 0) -> bytes:
    """Return the header of a DATA frame; `length` bytes of payload follow it."""
    return HEADER.pack(0, DATA, flags, stream, length)


def window_update(stream: int, increment: int, flags: int = 0) -> bytes:
    """Let the peer send `increment` more bytes; with flags it opens, accepts, ends or resets the stream."""
    return HEADER.pack(0, WINDOW_UPDATE, flags, stream, increment)


def ping(value: int, *, reply: bool = False) -> bytes:
    """Ask for a sign of life, or give one with the asker's value."""
    return HEADER.pack(0, PING, ACK if reply else SYN, 0, value)


def go_away(code: GoAway) -> bytes:
    """Say why the session ends."""
    return HEADER.pack(0, GO_AWAY, 0, 0, code)
