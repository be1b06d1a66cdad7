"""The chunked transfer coding (RFC 9112 section 7.1), strictly."""

from __future__ import annotations

import re

from harp.errors import PeerError
from harp.wire.http import Fields

MAX_LINE = 4096  # bytes of one chunk-size line, extensions included
MAX_TRAILERS = 8192  # bytes of the trailer section
MAX_EXTENSIONS = 65536  # bytes of all extensions of one body: nobody uses them, floods do

# Chunk-ext is parsed loosely but never across a control character, where parsers disagree and requests are smuggled.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?").fullmatch
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*").fullmatch

LAST_CHUNK = b"0\r\n\r\n"


class ChunkedDecoder:
    """Takes the coding off a body that arrives in any slices.

    feed() returns the payload found, in pieces of what it was given, never copying twice. When the last chunk and the
    trailer section have been read, `done` is true, `trailers` holds the trailer fields and `rest` the bytes behind.
    Holds back at most one line. Raises PeerError on anything but the exact grammar.
    """

    __slots__ = ("_extensions", "_left", "_line", "_trailer_size", "_trailing", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._left = 0  # payload bytes of the current chunk, then 2 for its line end
        self._line = b""
        self._trailing = False
        self._trailer_size = 0
        self._extensions = 0
        self.done = False
        self.rest = b""
        self.trailers: Fields = []

    def feed(self, data: bytes) -> list[bytes]:
        pieces: list[bytes] = []
        if self._line:
            data = self._line + data
            self._line = b""
        position, size = 0, len(data)
        while position < size:
            if self._left:
                position = self._payload(data, position, pieces)
                continue
            end = data.find(b"\n", position)
            if end < 0:
                self._hold(data[position:])
                break
            if end == position or data[end - 1] != 0x0D:
                raise PeerError("chunked body: a line that does not end in CR LF")
            line = data[position : end - 1]
            position = end + 1
            if not self._trailing:
                self._size_line(line)
            elif line:
                self._trailer_line(line)
            else:
                self.done = True
                self.rest = data[position:]
                break
        return pieces

    def _payload(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        take = min(self._left - 2, len(data) - position)
        if take > 0:
            pieces.append(data[position : position + take])
            self._left -= take
            return position + take
        expected = 0x0D if self._left == 2 else 0x0A
        if data[position] != expected:
            raise PeerError("chunked body: a chunk longer than its size says")
        self._left -= 1
        return position + 1

    def _size_line(self, line: bytes) -> None:
        match = _SIZE(line)
        if match is None or len(line) > MAX_LINE:
            raise PeerError("chunked body: a chunk size that is not one")
        self._extensions += len(line) - match.end(1)
        if self._extensions > MAX_EXTENSIONS:
            raise PeerError(f"chunked body: more than {MAX_EXTENSIONS} bytes of chunk extensions")
        length = int(match[1], 16)
        if length:
            self._left = length + 2
        else:
            self._trailing = True

    def _trailer_line(self, line: bytes) -> None:
        match = _FIELD(line)
        self._trailer_size += len(line)
        if match is None or self._trailer_size > MAX_TRAILERS:
            raise PeerError("chunked body: a trailer line that is not a header field, or too many")
        self.trailers.append((match[1].lower(), match[2]))

    def _hold(self, part: bytes) -> None:
        if len(part) > (MAX_TRAILERS if self._trailing else MAX_LINE):
            raise PeerError("chunked body: a line without end")
        self._line = part


def chunk(data: bytes) -> bytes:
    """`data` as one chunk; it must not be empty, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body with its trailer section."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + b"".join([b"%b: %b\r\n" % field for field in trailers]) + b"\r\n"
