"""Request heads of HTTP/1.1: complete bytes in, checked values out (RFC 9112).

Paths, cookies, request ids and tags differ from request to request, so single lines are not remembered. An ordinary
head is read by one expression that every byte has to fit, and cut at the lines that anybody here looks at by another.
The other lines go on as they are. What is not ordinary (names with "_", rare methods and targets, repeated or doubtful
framing) is read line by line by `read_any`, with llhttp as the judge; that is what reading means, and the expressions
take nothing that it would read otherwise.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from harp.errors import BadRequest
from harp.wire.core import RequestCutter
from harp.wire.http import (
    CHUNKED,
    FORWARDED,
    HOP_BY_HOP,
    IGNORE,
    MAX_LENGTH,
    RESERVED,
    Fields,
    read_lines,
)
from harp.wire.ordinary import START, VERSION

REQUEST_SPECIAL = (
    HOP_BY_HOP | RESERVED | FORWARDED | {b"host", b"content-length", b"expect", b"cookie", b"authorization"}
)
MOST_OPTIONS = 64  # of a Connection header
RECOGNISED = 4096  # bytes; longer header lines are not compared with those of the request before

_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade"))
_NO_OPTIONS: frozenset[bytes] = frozenset()
_MINORS = {b" HTTP/1.1": 1, b" HTTP/1.0": 0}

# Printable ASCII without "#": a fragment never belongs on the wire, other bytes must be percent-encoded.
_TARGET = re.compile(rb'[!"$-~]+').fullmatch
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.vV]+\])(?::\d{0,5})?").fullmatch
_ABSOLUTE = re.compile(rb"(?i)https?://").match

_ORDINARY_START = re.compile(START).fullmatch


class RequestFields:
    """The header lines of one request, read. One object serves all requests of a connection that repeat them.

    `special` are the lines that anybody here looks at, in order; `found` are the same by name, the last of a name;
    `plain` are the other lines, complete, as they go on. `length` is the body's: bytes, or CHUNKED. `upgrade` is the
    protocol the client offers to switch to, None when there is no offer that may be relayed. Nothing of it changes.
    `raw` is what follows the target of the head they were read from, b"" when that is not to be recognised. `named` are
    the options of Connection: names of lines that stay here, mostly.
    """

    __slots__ = ("found", "host", "keep_alive", "length", "named", "plain", "raw", "special", "upgrade")

    special: Fields
    found: dict[bytes, bytes]
    plain: bytes
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
        if name in self.fields.found:
            return self.fields.found[name]
        for line in reversed(self.fields.plain.split(b"\r\n")):
            found, _, value = line.partition(b":")
            if found.lower() == name:
                return value.strip(b" \t")
        return None


class RequestReader:
    """Reads request heads, of any number of connections in turn. `watched` are more header names to be special."""

    __slots__ = ("_cut", "_max_headers", "_special")

    def __init__(self, max_headers: int, watched: frozenset[bytes] = frozenset()) -> None:
        self._max_headers = max_headers
        self._special = REQUEST_SPECIAL | watched
        self._cut = RequestCutter(sorted(self._special), max_headers).cut

    def read(self, data: bytes, before: RequestFields | None = None) -> RequestHead:
        """Read exactly one head with its empty line. Raises BadRequest."""
        ordinary = self.read_ordinary(data, 0, before)
        return ordinary[0] if ordinary is not None and ordinary[1] == len(data) else self.read_any(data)

    def read_ordinary(
        self, data: bytes, at: int, before: RequestFields | None = None
    ) -> tuple[RequestHead, int] | None:
        """Read the head that begins at `at`, and say where it ends; None: it is not ordinary, or not complete.

        With `before`, what the header lines of the connection's last request said, lines that repeat are not read
        again: clients repeat them, and then only the start of the head is new. Nothing of one connection is remembered
        for another.
        """
        if before is not None and before.raw and data.endswith(before.raw, at):
            start = _ORDINARY_START(data, at, len(data) - len(before.raw))
            if start is not None:
                method, path, query = start.groups(b"")
                return _head(method, path, query, before), len(data)
        cut = self._cut(data, at)
        if cut is None:
            return None
        method, path, query, raw, special, plain = cut
        fields = _fields_of(raw, special, plain)
        if fields is None:
            return None
        return _head(method, path, query, fields), at + len(method) + 1 + len(path) + len(query) + len(raw)

    def read_any(self, data: bytes) -> RequestHead:
        """As `read`, line by line. This is what `read` means."""
        if data[:1] <= b" ":  # llhttp passes over line ends there, and we must see the method that others see
            raise BadRequest("malformed request: it does not begin with a method")
        try:
            httptools.HttpRequestParser(IGNORE).feed_data(data)  # a fresh one: nothing reaches the next message
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise BadRequest(f"malformed request: {error}") from None
        line, _, rest = data.partition(b"\r\n")
        lines = rest.split(b"\r\n")
        if len(lines) > self._max_headers + 2:
            raise BadRequest(f"{len(lines) - 2} header lines, limit {self._max_headers}", 431)
        fields = RequestFields()
        fields.special, plain = read_lines(lines, self._special)
        fields.found, fields.plain = dict(fields.special), b"".join(plain)
        minor = _minor_of(line)
        _read_headers(fields, minor)
        fields.raw = VERSION + rest if minor and len(rest) < RECOGNISED else b""
        return _head_of(line, fields)


def _fields_of(raw: bytes, special: Fields, plain: bytes) -> RequestFields | None:
    """The fields of an ordinary head, which says only one thing about each matter; None: look closer."""
    fields = RequestFields()
    found = fields.found = dict(special)
    host = fields.host = found.get(b"host")
    if len(found) != len(special) or host is None or not _is_host(host):
        return None
    fields.special, fields.plain = special, plain
    fields.raw = raw if len(raw) <= RECOGNISED else b""
    fields.length, fields.keep_alive, fields.upgrade, fields.named = 0, True, None, _NO_OPTIONS
    return fields if _FRAMING.isdisjoint(found) or _read_usual_framing(fields, found) else None


def _read_usual_framing(fields: RequestFields, found: dict[bytes, bytes]) -> bool:
    """Read Connection and the body's length where they say one usual thing; False: look closer."""
    if b"connection" in found:
        connection = found[b"connection"].lower()
        if connection == b"close":
            fields.keep_alive = False
        elif connection != b"keep-alive":
            return False
        fields.named = frozenset((connection,))
    length, coding = found.get(b"content-length"), found.get(b"transfer-encoding")
    if length is not None:
        if coding is not None or not length.isdigit() or len(length) > 18:
            return False
        fields.length = int(length)
    elif coding is not None:
        fields.length = CHUNKED
    return (coding is None or coding.lower() == b"chunked") and b"upgrade" not in found


def _head(method: bytes, path: bytes, query: bytes, fields: RequestFields) -> RequestHead:
    return RequestHead(method, path, query, 1, fields, fields.length, fields.keep_alive, fields.upgrade)


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
