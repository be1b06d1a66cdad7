"""What a listener must refuse so that nobody smuggles a request (RFC 9112), and what it must let through.

Each case is sent whole to the real listener, with a second request behind it. A refused one is answered 400 (or just
closed where no answer fits), the connection ends, and the ExApp never sees the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.live.processes import free_port
from tests.live.product import Product, running
from tests.live.recorder import OK, RequestRecorder, recorder
from tests.live.strictness_cases import PASSING, REFUSED, SMUGGLED, Case, Passes, chunked, head
from tests.live.wire import Client


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    unused = free_port()
    with running(tmp_path_factory.mktemp("strict"), f"http://127.0.0.1:{unused}") as product:
        yield product


@pytest.fixture
async def exapp(product: Product) -> AsyncIterator[RequestRecorder]:
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
async def test_is_refused_and_what_follows_is_never_served(
    case: Case, product: Product, exapp: RequestRecorder
) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(case.raw + SMUGGLED)
        answers = await client.rest()
    assert b"smuggled" not in b"".join(request.head for request in exapp.requests)
    assert answers.count(b"HTTP/1.1 ") <= 1, answers
    assert answers.split(b" ", 2)[1:2] in ([b"400"], [b"431"], [b"414"], [b"501"], [b"505"]), answers
    assert exapp.requests == [] or b"chunked" in case.raw.lower(), "only a body may turn out bad after the head"


@pytest.mark.parametrize("case", PASSING, ids=lambda case: case.name)
async def test_passes_and_so_does_what_follows(case: Passes, product: Product, exapp: RequestRecorder) -> None:
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


async def test_http_1_0_without_a_host_is_served_and_closed(product: Product, exapp: RequestRecorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.0\r\n\r\n")
        assert (await client.answer()).body == b"ok"
        assert await client.rest() == b""


async def test_http_1_0_with_keep_alive_stays_open(product: Product, exapp: RequestRecorder) -> None:
    async with await Client.connect(product.http) as client:
        for _ in range(2):
            await client.send(b"GET /exapps/rec/x HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"ok")


async def test_an_http_1_0_client_gets_no_chunks(product: Product, exapp: RequestRecorder) -> None:
    exapp.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
        answer = await client.answer()
    assert answer.header("transfer-encoding") is None
    assert answer.body == b"abc"


async def test_pipelined_requests_are_answered_in_order(product: Product, exapp: RequestRecorder) -> None:
    exapp.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(10)]
    async with await Client.connect(product.http) as client:
        await client.send(b"".join(b"GET /exapps/rec/%d HTTP/1.1\r\nHost: h\r\n\r\n" % number for number in range(10)))
        bodies = [(await client.answer()).body for _ in range(10)]
    assert bodies == [b"%d" % number for number in range(10)]
    assert [request.line for request in exapp.requests] == [b"GET /%d HTTP/1.1" % number for number in range(10)]


async def test_a_pipelined_body_does_not_leak_into_the_next_request(product: Product, exapp: RequestRecorder) -> None:
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


async def test_thousands_of_pipelined_requests_do_not_pile_up(product: Product, exapp: RequestRecorder) -> None:
    count = 5_000
    before = product.process.rss()
    async with await Client.connect(product.http) as client:
        sending = asyncio.ensure_future(client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n" * count))
        for _ in range(count):
            assert (await client.answer()).status == 200
        await sending
    assert product.process.rss() - before < 8 << 20


async def test_an_answer_to_head_has_no_body_even_with_a_content_length(
    product: Product, exapp: RequestRecorder
) -> None:
    exapp.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with await Client.connect(product.http) as client:
        for _ in range(2):
            await client.send(b"HEAD /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = await client.answer("HEAD")
            assert (answer.status, answer.header("content-length")) == (200, "1000")


@pytest.mark.parametrize("status", [204, 304])
async def test_204_and_304_end_with_their_head(status: int, product: Product, exapp: RequestRecorder) -> None:
    exapp.answer = b"HTTP/1.1 %d Fine\r\n\r\n" % status
    async with await Client.connect(product.http) as client:
        for _ in range(2):
            await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == status


async def test_a_body_that_ends_with_the_connection_arrives_whole(product: Product, exapp: RequestRecorder) -> None:
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
async def test_an_answer_that_is_cut_does_not_look_complete(
    cut: bytes, product: Product, exapp: RequestRecorder
) -> None:
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
async def test_a_bad_answer_of_the_exapp_becomes_502(answer: bytes, product: Product, exapp: RequestRecorder) -> None:
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
async def test_what_an_exapp_sends_unasked_is_nobodys_answer(
    answer: bytes, product: Product, exapp: RequestRecorder
) -> None:
    exapp.answers = [answer]
    for _ in range(3):
        async with await Client.connect(product.http) as client:
            await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"evil" not in (await client.answer()).body


async def test_an_upload_that_breaks_off_never_joins_with_the_next_request(
    product: Product, exapp: RequestRecorder
) -> None:
    for _ in range(5):
        async with await Client.connect(product.http) as client:
            await client.send(head(b"Content-Length: 100") + b"abc")
        async with await Client.connect(product.http) as client:
            await client.send(b"GET /exapps/rec/whole HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == 200
    assert [request.line for request in exapp.requests if b"whole" in request.line] == [b"GET /whole HTTP/1.1"] * 5
    assert all(request.body == b"" for request in exapp.requests)


async def test_an_answer_that_comes_before_the_body_has_ended_is_delivered(
    product: Product, exapp: RequestRecorder
) -> None:
    exapp.early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
    async with await Client.connect(product.http) as client:
        await client.send(head(b"Content-Length: 1000000") + b"abc")
        answer = await client.answer()
        assert (answer.status, answer.body) == (413, b"big")


async def test_a_connection_that_the_exapp_closed_meanwhile_is_not_used(
    product: Product, exapp: RequestRecorder
) -> None:
    exapp.answer = b"close:" + OK
    async with await Client.connect(product.http) as client:
        for _ in range(20):
            await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await client.answer()).status == 200


async def test_100_continue_comes_from_the_exapp_before_the_body_is_sent(
    product: Product, exapp: RequestRecorder
) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(head(b"Content-Length: 3", b"Expect: 100-continue"))
        assert (await client.answer()).status == 100
        await client.send(b"abc")
        assert (await client.answer()).status == 200
    assert exapp.requests[0].body == b"abc"


async def test_early_hints_are_relayed_before_the_answer(product: Product, exapp: RequestRecorder) -> None:
    exapp.answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
        hints = await client.answer()
        assert (hints.status, hints.header("link")) == (103, "</a.css>")
        assert (await client.answer()).body == b"ok"


async def test_trailers_pass_in_both_directions(product: Product, exapp: RequestRecorder) -> None:
    exapp.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n2\r\nok\r\n0\r\nT: down\r\n\r\n"
    async with await Client.connect(product.http) as client:
        await client.send(chunked(b"3\r\nabc\r\n0\r\nT: up\r\n\r\n", b"Trailer: T", b"TE: trailers"))
        answer = await client.answer()
    assert answer.trailers.lower() == b"t: down\r\n"
    assert exapp.requests[0].body.lower().endswith(b"0\r\nt: up\r\n\r\n")


async def test_a_trailer_cannot_change_the_length_or_the_identity(product: Product, exapp: RequestRecorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(
            chunked(b"3\r\nabc\r\n0\r\nContent-Length: 9\r\nAuthorization-App-Api: forged\r\n\r\n") + SMUGGLED
        )
        await client.rest() if (await client.answer()).status == 400 else None
    for request in exapp.requests:
        assert b"forged" not in request.body
        assert b"content-length" not in request.body.lower()


async def test_hop_by_hop_headers_end_here(product: Product, exapp: RequestRecorder) -> None:
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
    product: Product, exapp: RequestRecorder
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


async def test_a_client_that_half_closes_still_gets_its_answer(product: Product, exapp: RequestRecorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n\r\n")
        client.finish()
        assert (await client.answer()).body == b"ok"
        assert await client.rest() == b""


async def test_a_request_cut_in_its_head_reaches_nobody(product: Product, exapp: RequestRecorder) -> None:
    async with await Client.connect(product.http) as client:
        await client.send(b"GET /exapps/rec/x HTTP/1.1\r\nHost: h\r\n")
        client.finish()
        await client.rest()
    assert exapp.requests == []


async def test_a_head_that_arrives_byte_by_byte_is_read(product: Product, exapp: RequestRecorder) -> None:
    async with await Client.connect(product.http) as client:
        for byte in head(b"Content-Length: 3") + b"abc":
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200
    assert exapp.requests[0].body == b"abc"


def test_the_corpus_names_each_case_once() -> None:
    names = [case.name for case in REFUSED] + [case.name for case in PASSING]
    assert len(names) == len(set(names))
