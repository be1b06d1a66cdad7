"""What a listener must refuse so that nobody smuggles a request (RFC 9112), and what it must let through.

Each case is sent whole to the real listener, with a second request behind it. A refused one is answered 400 (or just
closed where no answer fits), the connection ends, and the ExApp never sees the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from tests.live.processes import free_port
from tests.live.product import Product, running
from tests.live.recorder import OK, Recorder, recorder
from tests.live.wire import Client

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


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    unused = free_port()
    with running(tmp_path_factory.mktemp("strict"), f"http://127.0.0.1:{unused}") as product:
        yield product


@pytest.fixture
async def exapp(product: Product) -> AsyncIterator[Recorder]:
    """The ExApp "rec": all PUBLIC, at a port of its own."""
    async with recorder() as exapp:
        product.register("rec", "127.0.0.1", exapp.port)
        yield exapp


def unchunked(body: bytes) -> bytes:
    """The content of a chunked body as `Recorder` keeps it."""
    content = b""
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            return content
        content, body = content + body[:size], body[size + 2 :]
    return content


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
async def test_is_refused_and_what_follows_is_never_served(case: Case, product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(case.raw + SMUGGLED)
        answers = await client.rest()
    assert b"smuggled" not in b"".join(request.head for request in exapp.requests)
    assert answers.count(b"HTTP/1.1 ") <= 1, answers
    assert answers.split(b" ", 2)[1:2] in ([b"400"], [b"431"], [b"414"], [b"501"], [b"505"]), answers
    assert exapp.requests == [] or b"chunked" in case.raw.lower(), "only a body may turn out bad after the head"


@pytest.mark.parametrize("case", PASSING, ids=lambda case: case.name)
async def test_passes_and_so_does_what_follows(case: Passes, product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(case.raw)
        first = await client.answer()
        await client.send(b"GET /exapps/rec/next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        second = await client.answer()
        assert await client.rest() == b""
    assert (first.status, second.status) == (200, 200), first
    request, following = exapp.requests
    assert request.line == case.line
    assert (unchunked(request.body) if request.header("transfer-encoding") else request.body) == case.body
    assert following.line == b"GET /next HTTP/1.1"


async def test_http_1_0_without_a_host_is_served_and_closed(product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.0\r\n\r\n")
        assert (await client.answer()).body == b"ok"
        assert await client.rest() == b""


async def test_http_1_0_with_keep_alive_stays_open(product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        for _ in range(2):
            await client.send(b"GET /exapps/rec/x HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"ok")


async def test_an_http_1_0_client_gets_no_chunks(product: Product, exapp: Recorder) -> None:
    exapp.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.answer()
    assert answer.header("transfer-encoding") is None
    assert answer.body == b"abc"


async def test_pipelined_requests_are_answered_in_order(product: Product, exapp: Recorder) -> None:
    exapp.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(10)]
    async with await Client.connect(product.http) as client:
        await client.send(b"".join(b"GET /exapps/rec/%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(10)))
        bodies = [(await client.answer()).body for _ in range(10)]
    assert bodies == [b"%d" % number for number in range(10)]
    assert [request.line for request in exapp.requests] == [b"GET /%d HTTP/1.1" % number for number in range(10)]


async def test_a_pipelined_body_does_not_leak_into_the_next_request(product: Product, exapp: Recorder) -> None:
    one = head(b"Content-Length: 3") + b"abc"
    async with await Client.connect(product.http) as client:
        await client.send(one + chunked(b"3\r\ndef\r\n0\r\n\r\n") + one)
        for _ in range(3):
            assert (await client.answer()).status == 200
    assert [unchunked(r.body) if r.header("transfer-encoding") else r.body for r in exapp.requests] == [
        b"abc",
        b"def",
        b"abc",
    ]


async def test_thousands_of_pipelined_requests_do_not_pile_up(product: Product, exapp: Recorder) -> None:
    count = 5_000
    before = product.process.rss()
    async with await Client.connect(product.http) as client:
        sending = asyncio.ensure_future(client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n" * count))
        for _ in range(count):
            assert (await client.answer()).status == 200
        await sending
    assert product.process.rss() - before < 8 << 20


async def test_an_answer_to_head_has_no_body_even_with_a_content_length(product: Product, exapp: Recorder) -> None:
    exapp.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with await Client.connect(product.http) as client:
        for _ in range(2):
            await client.send(b"HEAD /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = await client.answer("HEAD")
            assert (answer.status, answer.header("content-length")) == (200, "1000")


@pytest.mark.parametrize("status", [204, 304])
async def test_204_and_304_end_with_their_head(status: int, product: Product, exapp: Recorder) -> None:
    exapp.answer = b"HTTP/1.1 %d Fine\r\n\r\n" % status
    async with await Client.connect(product.http) as client:
        for _ in range(2):
            await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == status


async def test_a_body_that_ends_with_the_connection_arrives_whole(product: Product, exapp: Recorder) -> None:
    exapp.answer = b"close:HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).body == b"x" * 100_000


@pytest.mark.parametrize(
    "cut",
    [
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"Content-Length: 5\r\n\r\nabc",
    ],
    ids=["inside a chunk", "before the last chunk", "before its Content-Length"],
)
async def test_an_answer_that_is_cut_does_not_look_complete(cut: bytes, product: Product, exapp: Recorder) -> None:
    exapp.answer = b"close:HTTP/1.1 200 OK\r\n" + cut
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 1_000_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"",
    ],
    ids=[
        "garbage",
        "two lengths",
        "length and chunks",
        "blank before a colon",
        "an upgrade nobody asked for",
        "a head without end",
        "100 Continue without end",
        "nothing at all",
    ],
)
async def test_a_bad_answer_of_the_exapp_becomes_502(answer: bytes, product: Product, exapp: Recorder) -> None:
    exapp.answer = b"close:" + answer
    async with await Client.connect(product.http) as client:
        await client.send(b"POST /exapps/rec/x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        while (answer_of_ours := await client.answer()).status == 100:
            pass
        assert answer_of_ours.status == 502


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        OK + b"evil",
    ],
    ids=["two answers", "an answer behind 204", "an answer behind 304", "a body that is too long"],
)
async def test_what_an_exapp_sends_unasked_is_nobodys_answer(answer: bytes, product: Product, exapp: Recorder) -> None:
    exapp.answers = [answer]
    for _ in range(3):
        async with await Client.connect(product.http) as client:
            await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"evil" not in (await client.answer()).body


async def test_an_upload_that_breaks_off_never_joins_with_the_next_request(product: Product, exapp: Recorder) -> None:
    for _ in range(5):
        async with await Client.connect(product.http) as client:
            await client.send(head(b"Content-Length: 100") + b"abc")
        async with await Client.connect(product.http) as client:
            await client.send(b"GET /exapps/rec/whole HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == 200
    assert [request.line for request in exapp.requests if b"whole" in request.line] == [b"GET /whole HTTP/1.1"] * 5
    assert all(request.body == b"" for request in exapp.requests)


async def test_an_answer_that_comes_before_the_body_has_ended_is_delivered(product: Product, exapp: Recorder) -> None:
    exapp.early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
    async with await Client.connect(product.http) as client:
        await client.send(head(b"Content-Length: 1000000") + b"abc")
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"big")


async def test_a_connection_that_the_exapp_closed_meanwhile_is_not_used(product: Product, exapp: Recorder) -> None:
    exapp.answer = b"close:" + OK
    async with await Client.connect(product.http) as client:
        for _ in range(20):
            await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == 200


async def test_100_continue_comes_from_the_exapp_before_the_body_is_sent(product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(head(b"Content-Length: 3", b"Expect: 100-continue"))
        assert (await client.answer()).status == 100
        await client.send(b"abc")
        assert (await client.answer()).status == 200
    assert exapp.requests[0].body == b"abc"


async def test_early_hints_are_relayed_before_the_answer(product: Product, exapp: Recorder) -> None:
    exapp.answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
        hints = await client.answer()
        assert (hints.status, hints.header("link")) == (103, "</a.css>")
        assert (await client.answer()).body == b"ok"


async def test_trailers_pass_in_both_directions(product: Product, exapp: Recorder) -> None:
    exapp.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n2\r\nok\r\n0\r\nT: down\r\n\r\n"
    async with await Client.connect(product.http) as client:
        await client.send(chunked(b"3\r\nabc\r\n0\r\nT: up\r\n\r\n", b"Trailer: T", b"TE: trailers"))
        answer = await client.answer()
    assert answer.trailers.lower() == b"t: down\r\n"
    assert exapp.requests[0].body.lower().endswith(b"0\r\nt: up\r\n\r\n")


async def test_a_trailer_cannot_change_the_length_or_the_identity(product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(
            chunked(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\nAuthorization-App-Api: forged\r\n\r\n") + SMUGGLED
        )
        await client.rest() if (await client.answer()).status == 400 else None
    for request in exapp.requests:
        assert b"forged" not in request.body
        assert b"content-length" not in request.body.lower()


async def test_hop_by_hop_headers_end_here(product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(
            head(
                b"Connection: x-secret, keep-alive",
                b"X-Secret: 1",
                b"Keep-Alive: 5",
                b"Proxy-Connection: a",
                b"Content-Length: 0",
            )
        )
        await client.answer()
    for name in ("x-secret", "keep-alive", "proxy-connection"):
        assert exapp.requests[0].header(name) == []


async def test_headers_named_by_connection_cannot_remove_what_the_exapp_trusts(
    product: Product, exapp: Recorder
) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(
            head(b"Connection: authorization-app-api, ex-app-id, content-length, x-forwarded-for", b"Content-Length: 3")
            + b"abc"
        )
        await client.answer()
    request = exapp.requests[0]
    assert request.body == b"abc"
    for name in ("authorization-app-api", "ex-app-id", "x-forwarded-for"):
        assert len(request.header(name)) == 1


async def test_a_client_that_half_closes_still_gets_its_answer(product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
        client.finish()
        assert (await client.answer()).body == b"ok"
        assert await client.rest() == b""


async def test_a_request_cut_in_its_head_reaches_nobody(product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n")
        client.finish()
        await client.rest()
    assert exapp.requests == []


async def test_a_head_that_arrives_byte_by_byte_is_read(product: Product, exapp: Recorder) -> None:
    async with await Client.connect(product.http) as client:
        for byte in head(b"Content-Length: 3") + b"abc":
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200
    assert exapp.requests[0].body == b"abc"


def test_the_corpus_names_each_case_once() -> None:
    names = [case.name for case in REFUSED] + [case.name for case in PASSING]
    assert len(names) == len(set(names))
