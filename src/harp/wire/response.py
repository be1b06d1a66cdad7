"""One whole response to a GET: bytes in any slices in; head and body, together, out (RFC 9112 section 6.3)."""

from __future__ import annotations

from msgspec import Struct

from harp.errors import PeerError
from harp.wire.chunked import ChunkedDecoder
from harp.wire.http import CHUNKED, HEAD_END, UNTIL_CLOSE
from harp.wire.responses import ResponseHead, ResponseReader

MAX_HEAD = 64 * 1024  # bytes of a response head


class Response(Struct, frozen=True):
    """A complete response. `reusable`: the connection may carry another exchange."""

    head: ResponseHead
    body: bytes
    reusable: bool

    @property
    def status(self) -> int:
        return self.head.status

    def header(self, name: bytes) -> bytes:
        """The first value of a header that is not special to connections, by its lower-case name; b"" without."""
        return self.head.get(name)


class ResponseCollector:
    """Collects one response with at most `limit` bytes of body.

    `feed` takes what arrives and returns the response once it is complete; `end` says that nothing more arrives. Both
    raise PeerError for what is not a response to a GET, or is too long.
    """

    __slots__ = ("_body", "_buffer", "_chunks", "_head", "_length", "_limit", "_reader")

    def __init__(self, reader: ResponseReader, limit: int) -> None:
        self._reader = reader
        self._limit = limit
        self._buffer = b""  # of a head
        self._head: ResponseHead | None = None
        self._length = 0  # of the body: bytes, CHUNKED or UNTIL_CLOSE
        self._chunks: ChunkedDecoder | None = None
        self._body = bytearray()

    def feed(self, data: bytes) -> Response | None:
        head = self._head
        if head is None:
            data = self._buffer + data
            head, data = self._read_head(data)
            if head is None:
                self._buffer = data
                return None
            self._begin(head)
        return self._feed_body(head, data)

    def end(self) -> Response:
        head = self._head
        if head is None or self._length != UNTIL_CLOSE:
            raise PeerError("the connection was closed before the answer was complete")
        return Response(head, bytes(self._body), reusable=False)

    def _read_head(self, data: bytes) -> tuple[ResponseHead | None, bytes]:
        """The final head and what follows it; None when more of it has to come."""
        while True:
            end = data.find(HEAD_END) + len(HEAD_END)
            if end < len(HEAD_END):
                if len(data) > MAX_HEAD:
                    raise PeerError(f"a response head of more than {MAX_HEAD} bytes")
                return None, data
            head = self._reader.read(data[:end])
            data = data[end:]
            if head.status >= 200:
                return head, data
            if head.status in (100, 102, 103):
                continue
            raise PeerError(f"a response with status {head.status}")

    def _begin(self, head: ResponseHead) -> None:
        self._head = head
        self._buffer = b""
        self._length = 0 if head.status in (204, 304) else head.length
        if self._length == CHUNKED:
            self._chunks = ChunkedDecoder()
        elif self._length > self._limit:
            raise self._too_long()

    def _feed_body(self, head: ResponseHead, data: bytes) -> Response | None:
        if self._chunks is not None:
            for piece in self._chunks.feed(data):
                self._add(piece)
            return self._complete(head, self._chunks.rest) if self._chunks.done else None
        if self._length == UNTIL_CLOSE:
            self._add(data)
            return None
        missing = self._length - len(self._body)
        self._add(data[:missing])
        return self._complete(head, data[missing:]) if len(data) >= missing else None

    def _add(self, piece: bytes) -> None:
        self._body += piece
        if len(self._body) > self._limit:
            raise self._too_long()

    def _too_long(self) -> PeerError:
        return PeerError(f"an answer longer than {self._limit} bytes")

    def _complete(self, head: ResponseHead, excess: bytes) -> Response:
        return Response(head, bytes(self._body), reusable=head.keep_alive and not excess)
