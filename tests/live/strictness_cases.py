"""Requests that have to be refused, and odd ones that have to pass."""

from __future__ import annotations

from dataclasses import dataclass

SMUGGLED = b"GET /exapps/rec/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
TARGET = b"/exapps/rec/x"


def head(*lines: bytes, line: bytes = b"POST " + TARGET + b" HTTP/1.1", host: bytes | None = b"h") -> bytes:
    """A request head; `host` None leaves the Host line out."""
    hosts = [] if host is None else [b"Host: " + host]
    return b"\r\n".join([line, *hosts, *lines]) + b"\r\n\r\n"


def chunked(body: bytes, *lines: bytes) -> bytes:
    """A chunked request with `body` on the wire as it stands here."""
    return head(b"Transfer-Encoding: chunked", *lines) + body


@dataclass(frozen=True)
class Case:
    name: str
    raw: bytes


REFUSED = [
    # Two ways to tell the length.
    Case("Content-Length with Transfer-Encoding", chunked(b"0\r\n\r\n", b"Content-Length: 3")),
    Case(
        "Content-Length before Transfer-Encoding",
        head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ),
    Case("two equal Content-Length", head(b"Content-Length: 3", b"Content-Length: 3") + b"abc"),
    Case("two different Content-Length", head(b"Content-Length: 3", b"Content-Length: 0") + b"abc"),
    Case("Content-Length: 3, 3", head(b"Content-Length: 3, 3") + b"abc"),
    Case("Content-Length 2^64+3", head(b"Content-Length: 18446744073709551619") + b"abc"),
    Case("Content-Length with a plus sign", head(b"Content-Length: +3") + b"abc"),
    Case("Content-Length with a minus sign", head(b"Content-Length: -3") + b"abc"),
    Case("Content-Length in hex", head(b"Content-Length: 0x3") + b"abc"),
    Case("Content-Length with a blank inside", head(b"Content-Length: 3 3") + b"abc"),
    Case("Content-Length with a letter behind it", head(b"Content-Length: 3a") + b"abc"),
    Case("empty Content-Length", head(b"Content-Length:") + b""),
    # Transfer-Encoding.
    Case("Transfer-Encoding: identity", head(b"Transfer-Encoding: identity") + b"abc"),
    Case("chunked twice on one line", head(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n"),
    Case("chunked twice on two lines", chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked")),
    Case("chunked, and identity behind it", chunked(b"0\r\n\r\n", b"Transfer-Encoding: identity")),
    Case("Transfer-Encoding: xchunked", head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    Case("Transfer-Encoding: chunked, gzip", head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n"),
    Case("Transfer-Encoding in quotes", head(b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n"),
    Case("vertical tab before chunked", head(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n"),
    Case(
        "Transfer-Encoding in HTTP/1.0, keep-alive",
        head(b"Connection: keep-alive", b"Transfer-Encoding: chunked", line=b"POST " + TARGET + b" HTTP/1.0")
        + b"0\r\n\r\n",
    ),
    # Chunks.
    Case("chunk size 0x10000000000000003", chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size with a blank behind it", chunked(b"3 \r\nabc\r\n0\r\n\r\n")),
    Case("chunk size with a plus sign", chunked(b"+3\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size with a minus sign", chunked(b"-3\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size with 0x", chunked(b"0x3\r\nabc\r\n0\r\n\r\n")),
    Case("chunk size that is no number", chunked(b"g\r\nabc\r\n0\r\n\r\n")),
    Case("empty chunk size", chunked(b"\r\nabc\r\n0\r\n\r\n")),
    Case("chunk longer than its size", chunked(b"3\r\nabcd\r\n0\r\n\r\n")),
    Case("LF behind a chunk size", chunked(b"3\nabc\r\n0\r\n\r\n")),
    Case("LF behind a chunk", chunked(b"3\r\nabc\n0\r\n\r\n")),
    Case("LF behind the last chunk", chunked(b"3\r\nabc\r\n0\n\r\n")),
    Case("LF in a chunk extension", chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n")),
    Case("CR in a chunk extension", chunked(b"3;a\rb\r\nabc\r\n0\r\n\r\n")),
    Case("chunk extensions without end", chunked(b"3;" + b"a" * 100_000 + b"\r\nabc\r\n0\r\n\r\n")),
    Case("trailers without end", chunked(b"0\r\n" + b"T: " + b"a" * 100_000 + b"\r\n\r\n")),
    Case("20,000 trailers", chunked(b"0\r\n" + b"T: a\r\n" * 20_000 + b"\r\n")),
    Case("a trailer that is no header", chunked(b"0\r\nno colon\r\n\r\n")),
    # Header lines.
    Case("header line folding", head(b"A: b", b" c")),
    Case("folded Transfer-Encoding", head(b"Transfer-Encoding:", b" chunked") + b"0\r\n\r\n"),
    Case("first header line begins with a blank", head(host=None, line=b"GET " + TARGET + b" HTTP/1.1\r\n Host: h")),
    Case("blank before the colon", head(b"Content-Length : 3") + b"abc"),
    Case("tab before the colon", head(b"Content-Length\t: 3") + b"abc"),
    Case("header without a colon", head(b"A")),
    Case("header without a name", head(b": a")),
    Case("header name with a blank", head(b"A b: c")),
    Case("header name with a non-ASCII letter", head(b"\xc3\xa4: c")),
    Case("header name with a bracket", head(b"A(b): c")),
    Case("NUL in a header value", head(b"A: b\0c")),
    Case("control character in a header value", head(b"A: b\x01c")),
    Case("bare CR in a header value", head(b"A: b\rc")),
    Case(
        "bare CR at the end of a line",
        b"POST " + TARGET + b" HTTP/1.1\r\nHost: h\r\nA: b\r\r\nContent-Length: 0\r\n\r\n",
    ),
    Case("bare LF line ends", head().replace(b"\r\n", b"\n")),
    Case("one bare LF", b"GET " + TARGET + b" HTTP/1.1\r\nHost: h\r\nA: b\nC: d\r\n\r\n"),
    Case("bare LF at the end of the head", b"GET " + TARGET + b" HTTP/1.1\r\nHost: h\r\n\n"),
    Case("20,000 headers", head(*[b"A: b"] * 20_000)),
    Case("more headers than HP_MAX_HEADERS", head(*[b"A: b"] * 200)),
    Case("a head larger than HP_MAX_HEAD_SIZE", head(b"A: " + b"b" * 40_000)),
    Case(
        "a request line larger than HP_MAX_HEAD_SIZE", head(line=b"GET " + TARGET + b"?" + b"b" * 40_000 + b" HTTP/1.1")
    ),
    # Host.
    Case("no Host", head(host=None)),
    Case("two Hosts", head(b"Host: h")),
    Case("two different Hosts", head(b"Host: other")),
    Case("Host against an absolute target", head(line=b"GET http://other" + TARGET + b" HTTP/1.1")),
    Case("Host with a blank", head(host=b"a b")),
    Case("Host with a path", head(host=b"a/b")),
    Case("Host with a user", head(host=b"a@b")),
    Case("Host that is a list", head(host=b"a, b")),
    Case("Host with a bad port", head(host=b"h:port")),
    # The request line.
    Case("HTTP/0.9", b"GET " + TARGET + b"\r\n\r\n"),
    Case("HTTP/0.9 as a version", head(line=b"GET " + TARGET + b" HTTP/0.9")),
    Case("HTTP/1.2", head(line=b"GET " + TARGET + b" HTTP/1.2")),
    Case("HTTP/2.0 in HTTP/1 clothes", head(line=b"GET " + TARGET + b" HTTP/2.0")),
    Case("HTTP/3.0", head(line=b"GET " + TARGET + b" HTTP/3.0")),
    Case("HTTP/1.10", head(line=b"GET " + TARGET + b" HTTP/1.10")),
    Case("a version in lower case", head(line=b"GET " + TARGET + b" http/1.1")),
    Case("two blanks in the request line", head(line=b"GET  " + TARGET + b" HTTP/1.1")),
    Case("a tab in the request line", head(line=b"GET\t" + TARGET + b" HTTP/1.1")),
    Case("a blank behind the request line", head(line=b"GET " + TARGET + b" HTTP/1.1 ")),
    Case("a blank in the target", head(line=b"GET " + TARGET + b" y HTTP/1.1")),
    Case("NUL in the target", head(line=b"GET " + TARGET + b"\0 HTTP/1.1")),
    Case("control character in the target", head(line=b"GET " + TARGET + b"\x01 HTTP/1.1")),
    Case("non-ASCII byte in the target", head(line=b"GET " + TARGET + b"\xff HTTP/1.1")),
    Case("fragment in the target", head(line=b"GET " + TARGET + b"#a HTTP/1.1")),
    Case("unknown method", head(line=b"FOOBAR " + TARGET + b" HTTP/1.1")),
    Case("method in lower case", head(line=b"get " + TARGET + b" HTTP/1.1")),
    Case("CONNECT", head(line=b"CONNECT h:443 HTTP/1.1", host=b"h:443")),
    Case("CONNECT with a path", head(line=b"CONNECT " + TARGET + b" HTTP/1.1")),
    Case("a TLS hello", bytes.fromhex("16030100c8010000c40303") + bytes(200)),
    Case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Case("an SSH banner", b"SSH-2.0-OpenSSH_9.2\r\n"),
]


@dataclass(frozen=True)
class Passes:
    """A request that is fine. `line`: what the ExApp reads first; `body`: what it gets, chunk framing removed."""

    name: str
    raw: bytes
    line: bytes = b"POST /x HTTP/1.1"
    body: bytes = b""


PASSING = [
    Passes("a body by Content-Length", head(b"Content-Length: 3") + b"abc", body=b"abc"),
    Passes("a chunked body", chunked(b"3\r\nabc\r\n0\r\n\r\n"), body=b"abc"),
    Passes("CHUNKED in capitals", head(b"TRANSFER-ENCODING: CHUNKED") + b"3\r\nabc\r\n0\r\n\r\n", body=b"abc"),
    Passes("chunk sizes with zeros and capitals", chunked(b"00A\r\n0123456789\r\n0\r\n\r\n"), body=b"0123456789"),
    Passes("a chunk extension", chunked(b"3;a=b\r\nabc\r\n0\r\n\r\n"), body=b"abc"),
    Passes("a trailer", chunked(b"3\r\nabc\r\n0\r\nT: u\r\n\r\n"), body=b"abc"),
    Passes("non-ASCII bytes in a header value", head(b"A: \xc3\xa4\xff", b"Content-Length: 0")),
    Passes("a tab in a header value", head(b"A: b\tc", b"Content-Length: 0")),
    Passes("an empty header value", head(b"A:", b"Content-Length: 0")),
    Passes("100 headers", head(*[b"A: b"] * 100, b"Content-Length: 0")),
    Passes("a head of 30,000 bytes", head(b"A: " + b"b" * 30_000, b"Content-Length: 0")),
    Passes("blanks around a Content-Length", head(b"Content-Length: \t 3 \t ") + b"abc", body=b"abc"),
    Passes(
        "an absolute target with the same Host",
        head(line=b"GET http://h" + TARGET + b" HTTP/1.1"),
        line=b"GET /x HTTP/1.1",
    ),
    Passes("an IPv6 Host with a port", head(b"Content-Length: 0", host=b"[::1]:8780")),
    Passes("an empty Host", head(b"Content-Length: 0", host=b"")),
    Passes("the method PROPFIND", head(line=b"PROPFIND " + TARGET + b" HTTP/1.1"), line=b"PROPFIND /x HTTP/1.1"),
    Passes(
        "percent signs and double slashes",
        head(line=b"GET /exapps/rec/x//a%20b%2ac?d=%00 HTTP/1.1"),
        line=b"GET /x//a%20b%2ac?d=%00 HTTP/1.1",
    ),
    Passes("an empty line before the request", b"\r\n" + head(b"Content-Length: 0")),
    Passes(
        "an offer of h2c, as Java's client makes, with a body",
        head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: A", b"Content-Length: 3")
        + b"abc",
        body=b"abc",
    ),
]
