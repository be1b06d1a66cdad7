"""Response heads of RFC 9112 as we read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import PeerError
from harp.wire.http import CHUNKED, UNTIL_CLOSE
from harp.wire.responses import ResponseHead, read_any_response, read_response
from tests.properties import core


def response(text: str) -> ResponseHead:
    return read_response(text.replace("\n", "\r\n").encode("latin-1"))


@pytest.mark.parametrize(
    ("lines", "length", "kept"),
    [
        ("HTTP/1.1 200 OK\nContent-Length: 5\n\n", 5, True),
        ("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\n", None, None),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", CHUNKED, True),
        ("HTTP/1.1 200 OK\n\n", UNTIL_CLOSE, True),
        ("HTTP/1.0 200 OK\nContent-Length: 5\n\n", 5, False),
        ("HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 5\n\n", 5, True),
        ("HTTP/1.1 200 OK\nConnection: close\nContent-Length: 5\n\n", 5, False),
        ("HTTP/1.1 200 OK\nConnection: x, close\nContent-Length: 5\n\n", 5, False),
        ("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", None, None),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 5\n\n", None, None),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\n", None, None),
        ("HTTP/1.1 200 OK\nContent-Length: x\n\n", None, None),
        ("HTTP/2.0 200 OK\n\n", None, None),
        ("hello\n\n", None, None),
    ],
)
def test_the_length_of_a_response_body_is_unambiguous(lines: str, length: int | None, kept: bool | None) -> None:
    if length is None:
        with pytest.raises(PeerError):
            response(lines)
        return
    head = response(lines)
    assert (head.length, head.keep_alive) == (length, kept)


def test_a_response_keeps_reason_and_headers() -> None:
    head = response("HTTP/1.1 404 Nothing Here\nX-A: b\nX-A: c\n\n")
    assert (head.status, head.start) == (404, b"HTTP/1.1 404 Nothing Here\r\nX-A: b\r\nX-A: c\r\n")
    assert (head.get(b"x-a"), head.get(b"x-b")) == (b"b", b"")


def test_a_response_loses_hop_by_hop_fields_and_those_that_connection_names() -> None:
    head = response(
        "HTTP/1.1 200 OK\nServer: x\nConnection: close, X-Hop\nX-Hop: 1\nKeep-Alive: timeout=5\n"
        "Content-Length: 3\nSet-Cookie: a=b\nSet-Cookie: c=d\nAuthorization-App-Api: kept\n\n"
    )
    assert head.start == (
        b"HTTP/1.1 200 OK\r\nserver: x\r\nset-cookie: a=b\r\nset-cookie: c=d\r\nauthorization-app-api: kept\r\n"
        b"content-length: 3\r\n"
    )


def test_a_switch_of_protocols_names_the_new_one() -> None:
    head = response("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n")
    assert (head.status, head.upgrade) == (101, b"websocket")


@pytest.mark.parametrize("status", ["100 Continue", "103 Early Hints", "204 No Content"])
def test_an_answer_that_never_has_a_body_tells_no_length_of_one(status: str) -> None:
    head = response(f"HTTP/1.1 {status}\nContent-Length: 5\nLink: a\n\n")
    assert head.start == f"HTTP/1.1 {status}\r\nlink: a\r\n".encode()


def test_a_control_character_in_a_reason_is_refused() -> None:
    with pytest.raises(PeerError):
        read_response(b"HTTP/1.1 200 O\0K\r\n\r\n")


LINES = st.sampled_from(
    [
        b"Content-Length: 5",
        b"content-length:5",
        b"Content-Length: 05",
        b"Content-Length : 5",
        b"Content-Length: 5, 5",
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked",
        b"transfer-encoding: Chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Connection: keep-alive",
        b"Connection: Close",
        b"Connection: X-Hop",
        b"connection:",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"TE: trailers",
        b"Upgrade: h2c",
        b"X-Hop: 1",
        b'ETag: "x"',
        b"Set-Cookie:  a=b ",
        b"ex_app_id: x",
        b"X_Y: z",
        b" folded",
        b"no colon",
        b"X: caf\xe9",
        b"X: tab\there",
        b"X: nul\0",
        b"X: cr\rhere",
        b"X: lf\nhere",
        b": empty",
        b"Date: Sat, 28 Nov 2026 13:00:00 GMT",
    ]
) | st.binary(max_size=6).map(lambda value: b"X: " + value)
STARTS = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1 999 X"]
)


def reading(read: object, data: bytes) -> tuple[object, ...]:
    """What a reader says, with names and outer white space of header values made alike and Content-Length last."""
    assert callable(read)
    try:
        head = read(data)
    except PeerError:
        return ("refused",)
    lines = head.start.split(b"\r\n")
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines[1:])]
    fields.sort(key=lambda field: field[0] == b"content-length")
    return (head.status, lines[0], fields, head.length, head.keep_alive, head.upgrade)


@core
@given(start=STARTS, lines=st.lists(LINES, max_size=6))
def test_the_short_way_reads_every_head_as_the_long_one_does(start: bytes, lines: list[bytes]) -> None:
    data = b"\r\n".join([start, *lines]) + b"\r\n\r\n"
    if data.find(b"\r\n\r\n") + 4 == len(data):
        assert reading(read_response, data) == reading(read_any_response, data)
