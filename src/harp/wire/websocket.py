"""Just enough of WebSocket framing (RFC 6455 section 5.2) to close a relayed connection politely."""

from __future__ import annotations

CLOSE_GOING_AWAY = b"\x88\x02\x03\xe9"  # an unmasked close frame with status 1001, as a server sends it
CERTAIN = 2  # slices in a row that end with a frame until a boundary is believed

_OPCODES = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))


class FrameFinder:
    """Finds a place between two frames of a server in a stream that it joins somewhere.

    Servers write whole frames, so what is read begins with one, most of the time. feed() takes the slices as they are
    read. A slice that does not begin with a frame makes no sense as frames sooner or later; then the next one is tried.
    `at_boundary` is true after slices that do make sense, each of them to its last byte: the only place where a
    frame may be put in.
    """

    __slots__ = ("_header", "_payload", "_whole")

    def __init__(self) -> None:
        self._header = b""
        self._payload = 0  # bytes of the current frame that are still to come
        self._whole = 0  # slices in a row that ended with a frame

    @property
    def at_boundary(self) -> bool:
        """The last slices each ended with a frame, so that nothing is cut if no more is sent."""
        return self._whole >= CERTAIN

    def feed(self, data: bytes) -> None:
        """Follow one slice."""
        if not self._follow(data):
            self._header, self._payload, self._whole = b"", 0, 0
        elif self._payload or self._header:
            self._whole = 0
        else:
            self._whole += 1

    def _follow(self, data: bytes) -> bool:
        """False: these are not frames."""
        position, size = 0, len(data)
        while position < size:
            if self._payload:
                skip = min(self._payload, size - position)
                self._payload -= skip
                position += skip
                continue
            header = self._header + data[position : position + 10 - len(self._header)]
            if header[0] & 0x3F not in _OPCODES or (len(header) > 1 and header[1] & 0x80):  # RSV1 is compression's
                return False
            need = _header_size(header)
            if len(header) < need:
                self._header = header
                return True
            position += need - len(self._header)
            self._header = b""
            self._payload = _payload_size(header)
        return True


def _header_size(header: bytes) -> int:
    """Of an unmasked frame; 2 while its length is not known."""
    short = header[1] if len(header) > 1 else 0
    return 4 if short == 126 else 10 if short == 127 else 2


def _payload_size(header: bytes) -> int:
    short = header[1]
    if short == 126:
        return int.from_bytes(header[2:4], "big")
    if short == 127:
        return int.from_bytes(header[2:10], "big")
    return short
