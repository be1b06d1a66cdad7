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


class FrameParser:
    """Cut a byte stream into frames.

    feed() takes any slicing and holds back at most 11 bytes, an unfinished header: payloads are given out as they
    arrive. Raises PeerError on a bad version or an unknown kind; send GO_AWAY(1) then, and drop the parser.
    """

    def __init__(self) -> None:
        self._header = b""  # an unfinished one
        self._awaited = 0  # payload bytes of the cut DATA frame still to come
        self._stream = 0  # of the cut frame
        self._fin = 0  # FIN of the cut frame, for its last part

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame, and part of a frame, that `data` completes, in order."""
        frames: list[Frame] = []
        at = 0
        if self._awaited:
            at = min(self._awaited, len(data))
            self._awaited -= at
            flags = 0 if self._awaited else self._fin
            frames.append(Frame(DATA, flags, self._stream, 0, data[:at]))
        elif self._header:
            data = self._header + data
        end = len(data)
        unpack = HEADER.unpack_from
        while end - at >= HEADER_SIZE:
            version, kind, flags, stream, length = unpack(data, at)
            at += HEADER_SIZE
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
        self._header = data[at:]
        return frames


def data_header(stream: int, length: int, flags: int = 0) -> bytes:
    """The header of a DATA frame; `length` bytes of payload follow it."""
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
