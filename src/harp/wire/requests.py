"""Request heads of HTTP/1.1: complete bytes in, checked values out (RFC 9112).

What llhttp leaves to us is done here: versions, Host, the shape of the target, one unambiguous body length, limits.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from harp.errors import BadRequest
from harp.wire.http import (
    CHUNKED,
    FIELDS_REMEMBERED,
    FORWARDED,
    HOP_BY_HOP,
    IGNORE,
    MAX_LENGTH,
    RESERVED,
    Fields,
    Lines,
)

REQUEST_SPECIAL = (
    HOP_BY_HOP | RESERVED | FORWARDED | {b"host", b"content-length", b"expect", b"cookie", b"authorization"}
)
MOST_OPTIONS = 64  # of a Connection header

_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade"))
_NO_OPTIONS: frozenset[bytes] = frozenset()
_MINORS = {b" HTTP/1.1": 1, b" HTTP/1.0": 0}

# Printable ASCII without "#": a fragment never belongs on the wire, other bytes must be percent-encoded.
_TARGET = re.compile(rb'[!"$-~]+').fullmatch
# The usual request line, read by one expression: what it takes, llhttp and `_head_of` take as well.
_START = re.compile(
    rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|PROPFIND|REPORT) "
    rb'(/[!"$->@-~]*+)(\?[!"$-~]*+)? HTTP/1\.1'
).fullmatch
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.vV]+\])(?::\d{0,5})?").fullmatch
_ABSOLUTE = re.compile(rb"(?i)https?://").match


class RequestFields:
    """The header lines of one request, read. Requests of one client repeat them, so one object serves many requests.

    `special` are the lines that anybody here looks at, in order; `plain` are complete lines, rendered for the next hop,
    that nobody does. `length` is the body's: bytes, or CHUNKED. `upgrade` is the protocol the client offers to switch
    to, None when there is no offer that may be relayed. Nothing of it changes. `raw` are the bytes they were
    read from, b"" when they are not to be recognised. `named` are the options of Connection: names of lines that stay
    here, mostly.
    """

    __slots__ = ("host", "keep_alive", "length", "named", "plain", "raw", "special", "upgrade")

    special: Fields
    plain: list[bytes]
    host: bytes | None
    length: int
    keep_alive: bool
    upgrade: bytes | None
    raw: bytes
    named: frozenset[bytes]


class RequestHead(Struct):
    """The head of one request. `query` is b"" or begins with "?"; the rest is as in RequestFields."""

    method: bytes
    path: bytes
    query: bytes
    minor: int  # 1 for HTTP/1.1, 0 for HTTP/1.0
    fields: RequestFields
    length: int
    keep_alive: bool
    upgrade: bytes | None

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r}, {self.path!r})"

    def get(self, name: bytes) -> bytes | None:
        """The last value of a header, by its lower-case name."""
        for key, value in reversed(self.fields.special):
            if key == name:
                return value
        start = name + b": "
        for line in reversed(self.fields.plain):
            if line.startswith(start):
                return line[len(start) : -2]
        return None


class RequestReader:
    """Reads request heads, of any number of connections in turn.

    `watched` are more header names to be special. `read` takes exactly one head including its empty line and raises
    BadRequest. Only heads are fed to llhttp, which checks every byte of them; bodies pass it by. With `before`, what
    the header lines of the connection's last request said, lines that repeat are not checked again: clients repeat
    them, and so only the request line is read. Of one connection nothing is remembered for another but single header
    lines that hold no credential.
    """

    __slots__ = ("_lines", "_max_headers")

    def __init__(self, max_headers: int, watched: frozenset[bytes] = frozenset()) -> None:
        self._max_headers = max_headers
        self._lines = Lines(REQUEST_SPECIAL | watched)

    def read(self, data: bytes, before: RequestFields | None = None) -> RequestHead:
        line, _, rest = data.partition(b"\r\n")
        start = _START(line)
        if start is None:
            return _head_of(line, self._fields(data, line, rest))
        fields = before if before is not None and before.raw == rest else self._fields(data, line, rest)
        method, path, query = start.groups(b"")
        return RequestHead(method, path, query, 1, fields, fields.length, fields.keep_alive, fields.upgrade)

    def _fields(self, data: bytes, line: bytes, rest: bytes) -> RequestFields:
        """The header lines of a head all of whose bytes have to be checked."""
        if data[:1] <= b" ":  # llhttp passes over line ends there, and we must see the method that others see
            raise BadRequest("malformed request: it does not begin with a method")
        try:
            httptools.HttpRequestParser(IGNORE).feed_data(data)  # a fresh one: nothing reaches the next message
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise BadRequest(f"malformed request: {error}") from None
        lines = rest.split(b"\r\n")
        if len(lines) > self._max_headers + 2:
            raise BadRequest(f"{len(lines) - 2} header lines, limit {self._max_headers}", 431)
        fields = RequestFields()
        fields.special, fields.plain = self._lines.read(lines)
        minor = _minor_of(line)
        _read_headers(fields, minor)
        fields.raw = rest if minor and len(rest) <= FIELDS_REMEMBERED else b""
        return fields


def _head_of(line: bytes, fields: RequestFields) -> RequestHead:
    """A head from its request line and what its header lines say."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadRequest("malformed request: the request line is not method, target and version, one space between")
    method, target, _ = parts
    if method == b"CONNECT":
        raise BadRequest("CONNECT is not served here", 501)
    if _TARGET(target) is None:
        raise BadRequest("the request target holds a character that must be percent-encoded")
    if target[0] != 0x2F:
        target = _origin_form(fields, target)
    path, mark, query = target.partition(b"?")
    return RequestHead(
        method, path, mark + query, _minor_of(line), fields, fields.length, fields.keep_alive, fields.upgrade
    )


def _minor_of(line: bytes) -> int:
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    minor = _MINORS.get(line[-9:])
    if minor is None:
        version = line.rpartition(b" ")[2][:16].decode("latin-1")
        raise BadRequest(f"{version} is not spoken here", 505)
    return minor


def _read_headers(fields: RequestFields, minor: int) -> None:
    host = length = coding = connection = upgrade = None
    for name, value in fields.special:
        if name == b"host":
            if host is not None:
                raise BadRequest("more than one Host header")
            host = value
        elif name not in _FRAMING:
            continue
        elif name == b"content-length":
            length = _content_length(value, length)
        elif name == b"transfer-encoding":
            if coding is not None:
                raise BadRequest("more than one Transfer-Encoding header")
            coding = value
        elif name == b"connection":
            connection = value.lower() if connection is None else connection + b"," + value.lower()
        else:
            upgrade = value
    if host is None:
        if minor:
            raise BadRequest("no Host header")
    elif not _is_host(host):
        raise BadRequest("the Host header is not a host name or address with an optional port")
    fields.host = host
    if coding is not None:
        fields.length = _chunked(minor, coding, length)
    else:
        fields.length = length or 0
    fields.upgrade = None
    if connection is None:
        fields.keep_alive = minor == 1
        fields.named = _NO_OPTIONS
        return
    options = fields.named = _options(connection)
    fields.keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    if upgrade is not None and minor and b"upgrade" in options and _relayable(upgrade):
        fields.upgrade = upgrade


def _options(connection: bytes) -> frozenset[bytes]:
    if connection.count(b",") >= MOST_OPTIONS:
        raise BadRequest(f"more than {MOST_OPTIONS} options in Connection")
    return frozenset([option.strip() for option in connection.split(b",")])


def _chunked(minor: int, coding: bytes, length: int | None) -> int:
    if length is not None:
        raise BadRequest("both Content-Length and Transfer-Encoding")
    if not minor:
        raise BadRequest("Transfer-Encoding in HTTP/1.0")
    if coding.lower() != b"chunked":
        raise BadRequest("a transfer coding other than chunked", 501)
    return CHUNKED


@lru_cache(maxsize=256)
def _is_host(host: bytes) -> bool:
    return len(host) <= 261 and _HOST(host) is not None


def _content_length(value: bytes, before: int | None) -> int:
    if before is not None:
        raise BadRequest("more than one Content-Length header")
    if not value.isdigit() or len(value) > 19 or int(value) > MAX_LENGTH:
        raise BadRequest("Content-Length is not a number of bytes")
    return int(value)


def _relayable(protocol: bytes) -> bool:
    """h2c and TLS upgrades are between neighbours (RFC 9110 section 7.8): we neither speak nor relay them."""
    names = [name.strip() for name in protocol.lower().split(b",")]
    return not any(name.startswith((b"h2c", b"http/", b"tls/")) for name in names)


def _origin_form(fields: RequestFields, target: bytes) -> bytes:
    """The path of an absolute-form target, whose authority must be the Host (RFC 9112 section 3.2.2)."""
    if not _ABSOLUTE(target):
        raise BadRequest("the request target is not a path")
    try:
        parts = urlsplit(target)
    except ValueError:
        raise BadRequest("the request target is not a URL") from None
    if fields.host is not None and fields.host.lower() != parts.netloc.lower():
        raise BadRequest("the host of the request target is not that of the Host header")
    rest = target.partition(b"//")[2]
    slash, mark = rest.find(b"/"), rest.find(b"?")
    if slash < 0 or 0 <= mark < slash:
        return b"/" + (rest[mark:] if mark >= 0 else b"")
    return rest[slash:]
