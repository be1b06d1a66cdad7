"""The chunked transfer coding (RFC 9112 section 7.1), strictly."""

from __future__ import annotations

import re
import sys

from harp.errors import PeerError
from harp.wire.http import Fields

MAX_LINE = 4096  # bytes of one chunk-size line, extensions included
MAX_TRAILERS = 8192  # bytes of the trailer section
MAX_EXTENSIONS = 65536  # bytes of all extensions of one body: nobody uses them, floods do
A_TURN = 512  # chunks: what to decode in one turn of the loop, some hundreds of microseconds' work
CROWDED = 64  # chunks in one call of `feed`, from which on their size is looked at
TINY = 16  # bytes: a mean chunk below this is absurd, unless chunks come one by one as events do
MAX_TINY = 1024 * 1024  # bytes of a body in such chunks

# Chunk-ext is parsed loosely but never across a control character, where parsers disagree and requests are smuggled.
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})([ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n").match
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*").fullmatch

LAST_CHUNK = b"0\r\n\r\n"


class ChunkedDecoder:
    """Takes the coding off a body that arrives in any slices.

    feed() returns the payload found, in pieces of what it was given, never copying twice. When the last chunk and the
    trailer section have been read, `done` is true, `trailers` holds the trailer fields and `rest` the bytes after them.
    Raises PeerError on anything but the exact grammar, and on a megabyte of absurdly small chunks.

    A call decodes at most `most` chunks. `more` is true when some are left: feed(b"") goes on.
    Else at most one line is held back.
    """

    __slots__ = (
        "_extensions",
        "_held",
        "_left",
        "_tiny",
        "_trailer_size",
        "_trailing",
        "done",
        "more",
        "rest",
        "trailers",
    )

    def __init__(self) -> None:
        self._left = 0  # bytes of the current chunk, its line end included
        self._held = b""
        self._trailing = False
        self._trailer_size = 0
        self._extensions = 0
        self._tiny = 0  # bytes in tiny chunks
        self.done = False
        self.more = False
        self.rest = b""
        self.trailers: Fields = []

    def __repr__(self) -> str:
        state = (
            "done" if self.done else "in its trailers" if self._trailing else f"{self._left} bytes of a chunk to come"
        )
        return f"<ChunkedDecoder {state}, {len(self._held)} bytes held>"

    def feed(self, data: bytes, most: int = sys.maxsize) -> list[bytes]:
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        position = self._finish_chunk(data, pieces) if self._left else 0
        if not self._trailing and not self._left:
            position = self._chunks(data, position, pieces, most)
        if self._trailing:
            position = self._trailers(data, position)
        if self.done:
            self.rest = data[position:]
        else:
            self._held = data[position:]
        return pieces

    def _chunks(self, data: bytes, position: int, pieces: list[bytes], most: int) -> int:
        """Decode chunk after chunk; the position of what is not decoded yet."""
        size, begin = len(data), position
        count = 0
        while position < size:
            if count >= most:
                break
            line = _SIZE(data, position)
            if line is None:
                self._check_partial(data, position)
                break
            start = line.end()
            if line.lastindex == 2:
                self._count_extensions(start - position, len(line[2]))
            length = int(line[1], 16)
            if not length:
                self._trailing = True
                position = start
                break
            stop = start + length
            position = stop + 2
            if position > size:
                self._left = length + 2
                position = start + self._finish_chunk(data[start:], pieces)
                break
            if data[stop:position] != b"\r\n":
                raise PeerError("chunked body: a chunk that is longer than its size")
            pieces.append(data[start:stop])
            count += 1
        self.more = count >= most and position < size
        if count >= CROWDED:
            self._count_tiny(position - begin, count)
        return position

    def _finish_chunk(self, data: bytes, pieces: list[bytes]) -> int:
        """Take what there is of the current chunk, and its line end; the position after it."""
        payload = self._left - 2
        if payload > 0:
            piece = data[:payload] if len(data) > payload else data
            if piece:
                pieces.append(piece)
            self._left -= len(piece)
            position = len(piece)
            if self._left > 2:
                return position
        else:
            position = 0
        ending = data[position : position + self._left]
        if not b"\r\n"[2 - self._left :].startswith(ending):
            raise PeerError("chunked body: a chunk that is longer than its size")
        self._left -= len(ending)
        return position + len(ending)

    def _check_partial(self, data: bytes, position: int) -> None:
        """What is not a size line may be the beginning of one."""
        end = data.find(b"\n", position)
        if end < 0:
            if len(data) - position > MAX_LINE:
                raise PeerError("chunked body: an unterminated line")
        elif end == position or data[end - 1] != 0x0D:
            raise PeerError("chunked body: a line that does not end in CR LF")
        else:
            raise PeerError("chunked body: an invalid chunk size")

    def _count_extensions(self, line: int, extension: int) -> None:
        if line > MAX_LINE:
            raise PeerError("chunked body: an unterminated line")
        self._extensions += extension
        if self._extensions > MAX_EXTENSIONS:
            raise PeerError(f"chunked body: more than {MAX_EXTENSIONS} bytes of chunk extensions")

    def _count_tiny(self, size: int, count: int) -> None:
        if size < count * (TINY + 6):  # with a size line and two line ends
            self._tiny += size
            if self._tiny > MAX_TINY:
                raise PeerError(f"chunked body: {MAX_TINY} bytes in chunks of less than {TINY} bytes on average")

    def _trailers(self, data: bytes, position: int) -> int:
        """Read trailer lines; the position of what is not read yet."""
        while True:
            end = data.find(b"\n", position)
            if end < 0:
                if len(data) - position > MAX_TRAILERS:
                    raise PeerError("chunked body: an unterminated line")
                return position
            if end == position or data[end - 1] != 0x0D:
                raise PeerError("chunked body: a line that does not end in CR LF")
            line = data[position : end - 1]
            position = end + 1
            if not line:
                self.done = True
                return position
            self._trailer_line(line)

    def _trailer_line(self, line: bytes) -> None:
        match = _FIELD(line)
        self._trailer_size += len(line)
        if match is None or self._trailer_size > MAX_TRAILERS:
            raise PeerError("chunked body: a trailer line that is not a header field, or too many")
        self.trailers.append((match[1].lower(), match[2]))


def chunk(data: bytes) -> bytes:
    """`data` as one chunk; it must not be empty, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Fields) -> bytes:
    """Return the end of a chunked body with its trailer section."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + b"".join([b"%b: %b\r\n" % field for field in trailers]) + b"\r\n"
