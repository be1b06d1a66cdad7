"""Response heads of HTTP/1.1: complete bytes in, checked values out (RFC 9112).

Answers differ in dates, tags and ids, so nothing of them is remembered. A usual head is read by one expression that
every byte has to fit; one with other framing than a length needs a second, which finds the lines that decide about
framing. The other lines go on as they are, because each of them has been matched as a whole. Whatever is not ordinary
is read line by line, with llhttp as the judge.
"""

from __future__ import annotations

import re

import httptools
from msgspec import Struct

from harp.errors import PeerError
from harp.wire.core import cut_response
from harp.wire.http import CHUNKED, HOP_BY_HOP, IGNORE, UNTIL_CLOSE, Fields, read_lines
from harp.wire.ordinary import ORDINARY

RESPONSE_SPECIAL = HOP_BY_HOP | {b"content-length"}
_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch

_FRAMING = re.compile(
    rb"\n([Cc](?i:onnection|ontent-length)|[Kk](?i:eep-alive)|[Pp](?i:roxy-[ac][a-z]*)|[Tt](?i:e|ransfer-encoding)"
    rb"|[Uu](?i:pgrade)):[ \t]*([^\r]*)"
).findall
_BETWEEN_NEIGHBOURS = re.compile(rb"(?i)\n(?:connection|keep-alive|transfer-encoding):[^\n]*").sub
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,17}").fullmatch
_NAMED = frozenset((b"content-type", b"cache-control", b"set-cookie", b"location", b"range", b"content-encoding"))


class ResponseHead(Struct):
    """The head of one response. `length` is bytes, CHUNKED or UNTIL_CLOSE; it means nothing for HEAD, 1xx, 204, 304.

    `start` is what of it goes on to the client: status line and header lines without hop-by-hop fields and without an
    empty line at the end. Content-Length is there when the length is known, also where there is no body (HEAD, 304)
    and it tells how long the body would be. `upgrade` is the protocol of a 101.
    """

    status: int
    start: bytes
    length: int
    keep_alive: bool
    upgrade: bytes | None

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status}, length {self.length}>"

    def get(self, name: bytes) -> bytes:
        """The first value of an end-to-end header, by its lower-case name; b"" without."""
        for line in self.start.split(b"\r\n")[1:]:
            found, _, value = line.partition(b":")
            if found.lower() == name:
                return value.strip(b" \t")
        return b""


def read_usual_response(data: bytes) -> tuple[ResponseHead, int] | None:
    """Read the head that `data` begins with, and say where it ends; None: it is not usual, or not complete."""
    cut = cut_response(data)
    if cut is None:
        return None
    status, start, length, end = cut
    return ResponseHead(status, start, length, True, None), end


def read_response(data: bytes) -> ResponseHead:
    """Read exactly one head, with its empty line. Raises PeerError."""
    usual = read_usual_response(data)
    if usual is not None and usual[1] == len(data):
        return usual[0]
    ordinary = ORDINARY(data)
    if ordinary is not None:
        head = _read_ordinary(int(ordinary[1]), data, _FRAMING(data))
        if head is not None:
            return head
    return read_any_response(data)


def _read_ordinary(status: int, data: bytes, framing: Fields) -> ResponseHead | None:
    """The usual framing: one Content-Length, or chunked, or neither; kept alive or closed. None: the long way."""
    length, keep_alive, clean = UNTIL_CLOSE, True, True
    for name, value in framing:
        name = name.lower()
        if name == b"content-length":
            if length != UNTIL_CLOSE or _NUMBER(value) is None or status == 204:
                return None
            length = int(value)
            continue
        clean = False
        value = value.lower()
        if name == b"transfer-encoding" and value == b"chunked" and length == UNTIL_CLOSE:
            length = CHUNKED
        elif name == b"connection" and value in (b"keep-alive", b"close") and keep_alive:
            keep_alive = value == b"keep-alive"
        elif name != b"keep-alive":
            return None
    start = data[:-2] if clean else _BETWEEN_NEIGHBOURS(b"", data[:-2])
    return ResponseHead(status, start, length, keep_alive, None)


def read_any_response(data: bytes) -> ResponseHead:
    """As `read_response`, line by line. This is what `read_response` means."""
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
        raise PeerError(f"a response in {version[:16].decode('latin-1')}")
    status, reason = parser.get_status_code(), rest[4:]
    if _REASON(reason) is None:
        raise PeerError("a response with a control character in its reason")
    special, plain = read_lines(lines[1:], RESPONSE_SPECIAL)
    length, connection, upgrade = _framing(special)
    minor, options = _VERSIONS[version], _options(connection)
    keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    known = [b"content-length: %d\r\n" % length] if length >= 0 and status >= 200 and status != 204 else []
    start = b"".join([b"HTTP/1.1 %d %b\r\n" % (status, reason), *_end_to_end(plain, options), *known])
    return ResponseHead(status, start, length, keep_alive, upgrade)


def _framing(special: Fields) -> tuple[int, bytes, bytes | None]:
    """Length of the body, value of Connection, protocol of Upgrade."""
    length = coding = upgrade = None
    connection = b""
    for name, value in special:
        if name == b"content-length":
            length = _length(value, length)
        elif name == b"connection":
            connection = connection + b"," + value.lower()
        elif name == b"transfer-encoding":
            coding = value.lower() if coding is None else coding + b"," + value.lower()
        elif name == b"upgrade":
            upgrade = value
    if coding is None:
        return UNTIL_CLOSE if length is None else length, connection, upgrade
    if length is not None:
        raise PeerError("a response with both Content-Length and Transfer-Encoding")
    if coding != b"chunked":
        raise PeerError("a response in a transfer coding other than chunked")
    return CHUNKED, connection, upgrade


def _options(connection: bytes) -> set[bytes]:
    return {option.strip(b" \t") for option in connection.split(b",")}


def _end_to_end(plain: list[bytes], options: set[bytes]) -> list[bytes]:
    """The lines without those that the sender's Connection header declares hop-by-hop."""
    named = options - _NAMED
    return [line for line in plain if line.partition(b":")[0] not in named]


def _length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or len(value) > 19 or (before is not None and before != int(value)):
        raise PeerError("a response whose Content-Length is not one number")
    return int(value)
