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
from harp.recent import remember
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
from harp.wire.ordinary import NO_LENGTH, OF_EACH_REQUEST, START, VERSION

REQUEST_SPECIAL = (
    HOP_BY_HOP | RESERVED | FORWARDED | {b"host", b"content-length", b"expect", b"cookie", b"authorization"}
)
MOST_OPTIONS = 64  # of a Connection header
RECOGNISED = 4096  # bytes; the header lines of a longer head are not compared with those of the next one
KNOWN = 4096  # blocks of special lines whose meaning is known
LONGEST_KNOWN = 1024  # bytes

_CHUNKED = b"transfer-encoding: chunked\r\n"
_USUAL = frozenset((b"keep-alive", b"close", b"upgrade"))
_END_TO_END = frozenset((b"content-type", b"cache-control", b"set-cookie", b"location", b"range", b"content-encoding"))
_NO_OPTIONS: frozenset[bytes] = frozenset()
_MINORS = {b" HTTP/1.1": 1, b" HTTP/1.0": 0}

# Printable ASCII without "#": a fragment never belongs on the wire, other bytes must be percent-encoded.
_TARGET = re.compile(rb'[!"$-~]+').fullmatch
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.vV]+\])(?::\d{0,5})?").fullmatch
_ABSOLUTE = re.compile(rb"(?i)https?://").match

_ORDINARY_START = re.compile(START).fullmatch


class RequestFields:
    """What a client says with every request: host, cookies, credentials, and what proxies say about it.

    `special` are the header lines that anybody here looks at, in order, but for those that are of one request alone;
    `found` are the same by name, the last of a name. One object serves the requests that say the same, if the reader
    has it as `known`.
    """

    __slots__ = ("found", "host", "known", "special")

    def __init__(self, special: Fields) -> None:
        self.special = special
        self.found = dict(special)
        self.host = self.found.get(b"host")
        self.known = False


class RequestHead(Struct):
    """The head of one request. `query` is b"" or begins with "?"; `length` is the body's in bytes, or CHUNKED.

    `plain` are the header lines that nobody here looks at, complete, and `framing` those for the next hop about body
    and connection. `upgrade` is the protocol the client offers to switch to, None when there is no offer that may be
    relayed. `raw` is what follows the target, b"" when that is not to be recognised. `size` is that of the whole head.
    """

    method: bytes
    path: bytes
    query: bytes
    minor: int  # 1 for HTTP/1.1, 0 for HTTP/1.0
    fields: RequestFields
    plain: bytes
    framing: bytes
    length: int
    keep_alive: bool
    upgrade: bytes | None = None
    request_id: bytes = b""  # that the sender gives it, in X-Request-Id
    raw: bytes = b""
    size: int = 0

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r}, {self.path!r})"

    def with_plain(self, plain: bytes) -> RequestHead:
        """The same with other plain lines."""
        return RequestHead(
            self.method,
            self.path,
            self.query,
            self.minor,
            self.fields,
            plain,
            self.framing,
            self.length,
            self.keep_alive,
            self.upgrade,
            self.request_id,
            self.raw,
            self.size,
        )

    def get(self, name: bytes) -> bytes | None:
        """The last value of a header, by its lower-case name."""
        if name in self.fields.found:
            return self.fields.found[name]
        for line in reversed(self.plain.split(b"\r\n")):
            found, _, value = line.partition(b":")
            if found.lower() == name:
                return value.strip(b" \t")
        return None


class RequestReader:
    """Reads request heads, of any number of connections in turn. `watched` are more header names to be special.

    Clients say the same again and again, so the meaning of the special lines of recent requests is known: KNOWN blocks,
    until `forget`. With `remembers` false none is, cookies and passwords least of all.
    """

    __slots__ = ("_cut", "_known", "_max_headers", "_remembers", "_special")

    def __init__(self, max_headers: int, watched: frozenset[bytes] = frozenset(), *, remembers: bool = True) -> None:
        self._max_headers = max_headers
        self._special = REQUEST_SPECIAL | watched
        self._cut = RequestCutter(sorted(self._special), max_headers).cut
        self._known: dict[bytes, RequestFields] = {}
        self._remembers = remembers

    def forget(self) -> None:
        """Forget what recent requests have said."""
        self._known.clear()

    def read(self, data: bytes, before: RequestHead | None = None) -> RequestHead:
        """Read exactly one head with its empty line. Raises BadRequest."""
        head = self.read_ordinary(data, 0, before)
        return head if head is not None and head.size == len(data) else self.read_any(data)

    def read_ordinary(self, data: bytes, at: int, before: RequestHead | None = None) -> RequestHead | None:
        """Read the head that begins at `at`; None: it is not ordinary, or not complete.

        With `before`, the last request of the connection, header lines that repeat are not read again: clients repeat
        them, and then only the start of the head is new.
        """
        if before is not None and before.raw and data.endswith(before.raw, at):
            start = _ORDINARY_START(data, at, len(data) - len(before.raw))
            if start is not None:
                method, path, query = start.groups(b"")
                return _as_before(method, path, query, before, len(data) - at)
        cut = self._cut(data, at)
        if cut is None:
            return None
        method, path, query, raw, said, request_id, length, keep_alive, plain = cut
        fields = self._known.get(said) or self._fields_of(said)
        if fields is None:
            return None
        size = len(method) + 1 + len(path) + len(query) + len(raw)
        framing = b""
        if length == NO_LENGTH:
            length = 0
        else:
            framing = _CHUNKED if length < 0 else b"content-length: %d\r\n" % length
        if size > RECOGNISED:
            raw = b""
        return RequestHead(
            method, path, query, 1, fields, plain, framing, length, keep_alive, None, request_id, raw, size
        )

    def _fields_of(self, said: bytes) -> RequestFields | None:
        """What these lines say; None: look closer."""
        lines = [line.partition(b": ") for line in said.split(b"\r\n")[:-1]]
        fields = RequestFields([(name, value) for name, _, value in lines])
        if fields.host is None or not _is_host(fields.host):
            return None
        if self._remembers and len(said) <= LONGEST_KNOWN:
            fields.known = True
            remember(self._known, said, fields, KNOWN)
        return fields

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
        special, plain = read_lines(lines, self._special)
        minor = _minor_of(line)
        head = _head_of(line, RequestFields([field for field in special if field[0] not in OF_EACH_REQUEST]))
        _read_framing(head, special)
        named = _read_connection(head, special)
        head.plain = b"".join(plain) if named <= _USUAL else b"".join(_end_to_end(plain, named))
        head.raw = VERSION + rest if minor and len(data) <= RECOGNISED else b""
        head.size = len(data)
        return head


def _as_before(method: bytes, path: bytes, query: bytes, before: RequestHead, size: int) -> RequestHead:
    return RequestHead(
        method,
        path,
        query,
        1,
        before.fields,
        before.plain,
        before.framing,
        before.length,
        before.keep_alive,
        before.upgrade,
        before.request_id,
        before.raw,
        size,
    )


def _head_of(line: bytes, fields: RequestFields) -> RequestHead:
    """A head from its request line; what the header lines say about body and connection is still to be read."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadRequest("malformed request: the request line is not method, target and version, one space between")
    method, target, _ = parts
    if method == b"CONNECT":
        raise BadRequest("CONNECT is not served here", 501)
    if _TARGET(target) is None:
        raise BadRequest("the request target contains a character that must be percent-encoded")
    minor = _minor_of(line)
    _check_host(fields, minor)
    if target[0] != 0x2F:
        target = _origin_form(fields, target)
    path, mark, query = target.partition(b"?")
    return RequestHead(method, path, mark + query, minor, fields, b"", b"", 0, minor == 1)


def _minor_of(line: bytes) -> int:
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    minor = _MINORS.get(line[-9:])
    if minor is None:
        version = line.rpartition(b" ")[2][:16].decode("latin-1")
        raise BadRequest(f"{version} is not supported", 505)
    return minor


def _check_host(fields: RequestFields, minor: int) -> None:
    """Is there one Host, and is it one?"""
    hosts = [value for name, value in fields.special if name == b"host"]
    if len(hosts) > 1:
        raise BadRequest("more than one Host header")
    if hosts:
        if not _is_host(hosts[0]):
            raise BadRequest("the Host header is not a host name or address with an optional port")
    elif minor:
        raise BadRequest("no Host header")


def _read_framing(head: RequestHead, special: Fields) -> None:
    """How long is the body?"""
    length = coding = None
    for name, value in special:
        if name == b"content-length":
            length = _content_length(value, length)
        elif name == b"transfer-encoding":
            if coding is not None:
                raise BadRequest("more than one Transfer-Encoding header")
            coding = value
        elif name == b"x-request-id":
            head.request_id = head.request_id or value
    if coding is not None:
        head.length = _chunked(head.minor, coding, length)
        head.framing = _CHUNKED
    elif length is not None:
        head.length = length
        head.framing = b"content-length: %d\r\n" % length


def _read_connection(head: RequestHead, special: Fields) -> frozenset[bytes]:
    """Is the connection to be kept, or switched? Return the options of Connection."""
    lines = [value.lower() for name, value in special if name == b"connection"]
    if not lines:
        return _NO_OPTIONS
    options = _options(b",".join(lines))
    head.keep_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
    upgrade = dict(special).get(b"upgrade")
    if upgrade is not None and head.minor and b"upgrade" in options and _relayable(upgrade):
        head.upgrade = upgrade
        head.framing += b"connection: upgrade\r\nupgrade: %b\r\n" % upgrade
    return options


def _end_to_end(plain: list[bytes], named: frozenset[bytes]) -> list[bytes]:
    """The plain lines without those that the sender's Connection header declares hop-by-hop."""
    named -= _END_TO_END
    return [line for line in plain if line.partition(b":")[0] not in named]


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
