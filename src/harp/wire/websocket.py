"""Just enough of WebSocket framing (RFC 6455 section 5.2) to close a relayed connection politely."""

from __future__ import annotations

CLOSE_GOING_AWAY = b"\x88\x02\x03\xe9"  # an unmasked close frame with status 1001, as a server sends it


class FrameTracker:
    """Follows the frames in one direction without looking at payloads.

    feed() accepts any slicing. `at_boundary` is true between frames, the only place where a frame may be put in.
    """

    __slots__ = ("_header", "_payload")

    def __init__(self) -> None:
        self._header = b""
        self._payload = 0

    @property
    def at_boundary(self) -> bool:
        return not self._payload and not self._header

    def feed(self, data: bytes) -> None:
        position, size = 0, len(data)
        while position < size:
            if self._payload:
                skip = min(self._payload, size - position)
                self._payload -= skip
                position += skip
                continue
            header = self._header + data[position : position + 14 - len(self._header)]
            need = _header_size(header)
            if need is None or len(header) < need:
                self._header = header
                return
            position += need - len(self._header)
            self._header = b""
            self._payload = _payload_size(header)


def _header_size(header: bytes) -> int | None:
    if len(header) < 2:
        return None
    short = header[1] & 0x7F
    return 2 + (2 if short == 126 else 8 if short == 127 else 0) + (4 if header[1] & 0x80 else 0)


def _payload_size(header: bytes) -> int:
    short = header[1] & 0x7F
    if short == 126:
        return int.from_bytes(header[2:4], "big")
    if short == 127:
        return int.from_bytes(header[2:10], "big")
    return short
