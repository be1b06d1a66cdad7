"""HTTP/1.1 message heads: complete bytes in, checked values out (RFC 9112).

llhttp, through httptools, does the character-level work and is strict about it. What it leaves to us is done here:
versions, Host, the shape of the target, one unambiguous body length, and limits. Nobody copies head bytes through:
heads are always built anew from these values, so a peer behind us never reads a message other than the one we read.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httptools

from harp.errors import BadRequest, PeerError

CHUNKED = -1  # body length: chunked coding, the end marks itself
UNTIL_CLOSE = -2  # body length of a response: everything until the connection ends

Fields = list[tuple[bytes, bytes]]  # (lower-case name, value without outer white space), in order

HEAD_END = b"\r\n\r\n"
MAX_LENGTH = 1 << 62

# Printable ASCII without "#": a fragment never belongs on the wire, other bytes must be percent-encoded.
_TARGET = re.compile(rb'[!"$-~]+').fullmatch
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.vV]+\])(?::\d{0,5})?").fullmatch
_ABSOLUTE = re.compile(rb"(?i)https?://").match


class RequestHead:
    """The head of one request.

    `length` is the body's: bytes, or CHUNKED. `query` is b"" or begins with "?". `upgrade` is the protocol the client
    offers to switch to, None when there is no offer that may be relayed.
    """

    __slots__ = ("expects", "headers", "keep_alive", "length", "method", "minor", "path", "query", "upgrade")

    method: bytes
    path: bytes
    query: bytes
    minor: int
    headers: Fields
    length: int
    keep_alive: bool
    upgrade: bytes | None
    expects: bool  # Expect: 100-continue

    def get(self, name: bytes) -> bytes | None:
        """The last value of a header, by its lower-case name."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None


class ResponseHead:
    """The head of one response. `length` is bytes, CHUNKED or UNTIL_CLOSE; it tells nothing for HEAD, 1xx, 204, 304."""

    __slots__ = ("headers", "keep_alive", "length", "reason", "status", "upgrade")

    status: int
    reason: bytes
    headers: Fields
    length: int
    keep_alive: bool
    upgrade: bytes | None


class RequestParser:
    """Reads request heads, one after the other, of one connection.

    `parse` takes exactly one head including its empty line. Raises BadRequest, after which the parser is not to be
    used again. Only heads are fed to llhttp; bodies pass it by, so it never sees where messages end.
    """

    __slots__ = ("_headers", "_max_headers", "_parser", "_target")

    def __init__(self, max_headers: int) -> None:
        self._max_headers = max_headers
        self._parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def parse(self, data: bytes) -> RequestHead:
        self._target = b""
        self._headers: Fields = []
        parser = self._parser
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._parser = httptools.HttpRequestParser(self)
        except httptools.HttpParserError as error:
            raise BadRequest(f"malformed request: {error}") from None
        head = RequestHead()
        head.method = parser.get_method()
        head.headers = self._headers
        version = parser.get_http_version()
        if version == "1.1":
            head.minor = 1
        elif version == "1.0":
            head.minor = 0
        else:
            raise BadRequest(f"HTTP version {version} is not spoken here", 505)
        if len(self._headers) > self._max_headers:
            raise BadRequest(f"{len(self._headers)} header lines, limit {self._max_headers}", 431)
        if not data.startswith(b"%b %b HTTP/" % (head.method, self._target)):
            raise BadRequest("malformed request: the parts of the request line are not separated by one space")
        self._read_target(head, self._target)
        self._read_headers(head)
        if head.length:  # llhttp now waits for a body that it will not see
            self._parser = httptools.HttpRequestParser(self)
        return head

    @staticmethod
    def _read_target(head: RequestHead, target: bytes) -> None:
        if head.method == b"CONNECT":
            raise BadRequest("CONNECT is not served here", 501)
        if _TARGET(target) is None:
            raise BadRequest("the request target holds a character that must be percent-encoded")
        if target[0] != 0x2F:
            target = _origin_form(head, target)
        path, mark, query = target.partition(b"?")
        head.path = path
        head.query = mark + query

    @staticmethod
    def _read_headers(head: RequestHead) -> None:
        host = length = coding = connection = upgrade = None
        head.expects = False
        for name, value in head.headers:
            if name not in _REQUEST_FRAMING:
                continue
            if name == b"host":
                if host is not None:
                    raise BadRequest("more than one Host header")
                host = value
            elif name == b"content-length":
                length = _content_length(value, length)
            elif name == b"transfer-encoding":
                if coding is not None:
                    raise BadRequest("more than one Transfer-Encoding header")
                coding = value
            elif name == b"connection":
                connection = value.lower() if connection is None else connection + b"," + value.lower()
            elif name == b"upgrade":
                upgrade = value
            else:  # expect
                head.expects = value.lower() == b"100-continue"
        if host is None:
            if head.minor:
                raise BadRequest("no Host header")
        elif _HOST(host) is None:
            raise BadRequest("the Host header is not a host name or address with an optional port")
        if coding is not None:
            if length is not None:
                raise BadRequest("both Content-Length and Transfer-Encoding")
            if not head.minor:
                raise BadRequest("Transfer-Encoding in HTTP/1.0")
            if coding.lower() != b"chunked":
                raise BadRequest("a transfer coding other than chunked", 501)
            head.length = CHUNKED
        else:
            head.length = length or 0
        head.upgrade = None
        if connection is None:
            head.keep_alive = head.minor == 1
            return
        options = [option.strip() for option in connection.split(b",")]
        head.keep_alive = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
        if upgrade is not None and head.minor and b"upgrade" in options and _relayable(upgrade):
            head.upgrade = upgrade


class ResponseParser:
    """Reads the heads of responses. A fresh one for each: making it costs less than keeping it straight."""

    __slots__ = ("_headers", "_reason")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_status(self, reason: bytes) -> None:
        self._reason = reason

    def parse(self, data: bytes) -> ResponseHead:
        """Read one head including its empty line. Raises PeerError."""
        self._headers: Fields = []
        self._reason = b""
        parser = httptools.HttpResponseParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise PeerError(f"malformed response: {error}") from None
        head = ResponseHead()
        head.status = parser.get_status_code()
        head.reason = self._reason
        head.headers = self._headers
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise PeerError(f"a response in HTTP version {version}")
        _read_response_headers(head, minor=1 if version == "1.1" else 0)
        return head


def _read_response_headers(head: ResponseHead, minor: int) -> None:
    length = coding = connection = head.upgrade = None
    for name, value in head.headers:
        if name not in _RESPONSE_FRAMING:
            continue
        if name == b"content-length":
            length = _response_length(value, length)
        elif name == b"transfer-encoding":
            coding = value.lower() if coding is None else coding + b"," + value.lower()
        elif name == b"connection":
            connection = value.lower() if connection is None else connection + b"," + value.lower()
        else:
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


def _content_length(value: bytes, before: int | None) -> int:
    if before is not None:
        raise BadRequest("more than one Content-Length header")
    if not value.isdigit() or len(value) > 19 or int(value) > MAX_LENGTH:
        raise BadRequest("Content-Length is not a number of bytes")
    return int(value)


def _response_length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or len(value) > 19 or (before is not None and before != int(value)):
        raise PeerError("a response whose Content-Length is not one number")
    return int(value)


def _relayable(protocol: bytes) -> bool:
    """h2c and TLS upgrades are between neighbours (RFC 9110 section 7.8): we neither speak nor relay them."""
    name = protocol.split(b",")[0].strip().lower()
    return not name.startswith((b"h2c", b"http/", b"tls/"))


def _origin_form(head: RequestHead, target: bytes) -> bytes:
    """The path of an absolute-form target, whose authority must be the Host (RFC 9112 section 3.2.2)."""
    if not _ABSOLUTE(target):
        raise BadRequest("the request target is not a path")
    try:
        parts = urlsplit(target)
    except ValueError:
        raise BadRequest("the request target is not a URL") from None
    hosts = [value for name, value in head.headers if name == b"host"]
    if hosts and hosts[0].lower() != parts.netloc.lower():
        raise BadRequest("the host of the request target is not that of the Host header")
    rest = target.partition(b"//")[2]
    slash, mark = rest.find(b"/"), rest.find(b"?")
    if slash < 0 or 0 <= mark < slash:
        return b"/" + (rest[mark:] if mark >= 0 else b"")
    return rest[slash:]


_REQUEST_FRAMING = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect"))
_RESPONSE_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection", b"upgrade"))
