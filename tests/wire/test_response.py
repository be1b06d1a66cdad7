"""A whole response, cut anywhere."""

from __future__ import annotations

import pytest

from harp.errors import PeerError
from harp.wire.response import MAX_HEAD, Response, ResponseCollector
from harp.wire.responses import ResponseReader

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Name: a\r\nX-Name: b\r\n\r\nhello"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n"
CLOSED = b"HTTP/1.1 200 OK\r\n\r\nhello"


def collected(*parts: bytes, limit: int = 5) -> Response | None:
    """What the parts make: the response completed by the last of them, None when more is to come."""
    collector = ResponseCollector(ResponseReader(), limit)
    *first, last = parts
    for part in first:
        assert collector.feed(part) is None
    return collector.feed(last)


def whole(data: bytes) -> Response:
    response = collected(data)
    assert response is not None
    return response


def refusal(*parts: bytes) -> str:
    with pytest.raises(PeerError) as raised:
        collected(*parts)
    return str(raised.value)


@pytest.mark.parametrize("data", [LENGTH, CHUNKS], ids=["length", "chunks"])
def test_a_response_cut_at_any_two_bytes_is_still_one_response(data: bytes) -> None:
    for first in range(len(data)):
        for second in range(first, len(data)):
            response = collected(data[:first], data[first:second], data[second:])
            assert response is not None
            assert (response.status, response.body, response.reusable) == (200, b"hello", True)


def test_a_header_is_its_first_value_or_nothing() -> None:
    assert whole(LENGTH).header(b"x-name") == b"a"
    assert whole(LENGTH).header(b"x-nam") == b""


def test_a_body_without_a_length_lasts_until_the_end() -> None:
    collector = ResponseCollector(ResponseReader(), 5)
    assert collector.feed(CLOSED[:-2]) is None
    assert collector.feed(CLOSED[-2:]) is None
    response = collector.end()
    assert (response.body, response.reusable) == (b"hello", False)


@pytest.mark.parametrize("data", [b"", LENGTH[:30], LENGTH[:-1], CHUNKS[:-1]])
def test_an_end_before_the_response_is_complete_is_an_error(data: bytes) -> None:
    collector = ResponseCollector(ResponseReader(), 5)
    assert collector.feed(data) is None
    with pytest.raises(PeerError, match="before the answer was complete"):
        collector.end()


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_a_status_without_a_body_has_none_whatever_its_length_says(status: bytes) -> None:
    response = whole(b"HTTP/1.1 %b\r\nContent-Length: 900\r\n\r\n" % status)
    assert (response.body, response.reusable) == (b"", True)


def test_interim_responses_are_passed_over() -> None:
    assert (
        whole(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + LENGTH).body == b"hello"
    )


def test_an_upgrade_that_nobody_asked_for_is_refused() -> None:
    assert "status 101" in refusal(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        LENGTH + b"H",
        CHUNKS + b"H",
        b"HTTP/1.1 204 No Content\r\n\r\nH",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_with_more_behind_the_response_or_that_will_close_is_not_reusable(data: bytes) -> None:
    assert not whole(data).reusable


def test_too_long_a_body_is_refused_by_its_length_before_it_arrives() -> None:
    assert refusal(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n") == "an answer longer than 5 bytes"


def test_too_long_a_body_is_refused_as_soon_as_it_is() -> None:
    assert refusal(CHUNKS[: CHUNKS.index(b"0\r\nX-Sum")], b"3\r\nabc\r\n") == "an answer longer than 5 bytes"
    assert refusal(CLOSED, b"!") == "an answer longer than 5 bytes"


def test_a_head_without_end_is_refused() -> None:
    assert f"more than {MAX_HEAD} bytes" in refusal(b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_HEAD)


def test_what_is_not_http_is_refused() -> None:
    assert "malformed" in refusal(b"220 mail.example.com ESMTP\r\n\r\n")
