"""Response heads of HTTP/1.1: complete bytes in, checked values out (RFC 9112).

What llhttp leaves to us is done here: versions, the reason, and one unambiguous body length.
"""

from __future__ import annotations

import re

import httptools

from harp.errors import PeerError
from harp.wire.http import CHUNKED, FIELDS_REMEMBERED, HOP_BY_HOP, IGNORE, UNTIL_CLOSE, Fields, Lines

RESPONSES_REMEMBERED = 256

RESPONSE_SPECIAL = HOP_BY_HOP | {b"content-length"}
_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch


class ResponseHead:
    """The head of one response. `length` is bytes, CHUNKED or UNTIL_CLOSE; it tells nothing for HEAD, 1xx, 204, 304.

    `special` are the lines that decide about framing, `plain` complete lines, rendered for the client, that nobody here
    looks at. `raw` are the bytes it was read from, b"" when they are not to be recognised; `start` is what its
    forwarding has made of it, None before.
    """

    __slots__ = ("keep_alive", "length", "plain", "raw", "reason", "special", "start", "status", "upgrade")

    status: int
    reason: bytes
    special: Fields
    plain: list[bytes]
    length: int
    keep_alive: bool
    upgrade: bytes | None
    raw: bytes
    start: bytes | None


class ResponseReader:
    """Reads response heads, of any number of connections in turn. A head that repeats is the same object again.

    `read` takes exactly one head including its empty line and raises PeerError.
    """

    __slots__ = ("_heads", "_lines")

    def __init__(self) -> None:
        self._lines = Lines(RESPONSE_SPECIAL)
        self._heads: dict[bytes, ResponseHead] = {}

    def read(self, data: bytes) -> ResponseHead:
        return self._heads.get(data) or self._read(data)

    def _read(self, data: bytes) -> ResponseHead:
        parser = httptools.HttpResponseParser(IGNORE)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise PeerError(f"malformed response: {error}") from None
        lines = data.split(b"\r\n")
        version, _, rest = lines[0].partition(b" ")
        if version not in _VERSIONS:
            raise PeerError(f"a response in {version.decode('latin-1')}")
        head = ResponseHead()
        head.status = parser.get_status_code()
        head.reason = rest[4:]
        if _REASON(head.reason) is None:
            raise PeerError("a response with a control character in its reason")
        head.special, head.plain = self._lines.read(lines[1:])
        head.raw, head.start = b"", None
        _read_headers(head, minor=_VERSIONS[version])
        if len(data) <= FIELDS_REMEMBERED and b"\r\nset-cookie:" not in data.lower():
            if len(self._heads) >= RESPONSES_REMEMBERED:
                self._heads.clear()
            head.raw = data
            self._heads[data] = head
        return head


def _read_headers(head: ResponseHead, minor: int) -> None:
    length = coding = connection = head.upgrade = None
    for name, value in head.special:
        if name == b"content-length":
            length = _length(value, length)
        elif name == b"connection":
            connection = value.lower() if connection is None else connection + b"," + value.lower()
        elif name == b"transfer-encoding":
            coding = value.lower() if coding is None else coding + b"," + value.lower()
        elif name == b"upgrade":
            head.upgrade = value
    if coding is not None:
        if length is not None:
            raise PeerError("a response with both Content-Length and Transfer-Encoding")
        if coding != b"chunked":
            raise PeerError("a response in a transfer coding other than chunked")
        head.length = CHUNKED
    else:
        head.length = UNTIL_CLOSE if length is None else length
    head.keep_alive = minor == 1
    if connection is not None:
        options = [option.strip() for option in connection.split(b",")]
        head.keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)


def _length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or len(value) > 19 or (before is not None and before != int(value)):
        raise PeerError("a response whose Content-Length is not one number")
    return int(value)
