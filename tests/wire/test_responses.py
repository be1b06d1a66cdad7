"""Response heads of RFC 9112 as we read them."""

from __future__ import annotations

import pytest

from harp.errors import PeerError
from harp.wire.http import CHUNKED, UNTIL_CLOSE
from harp.wire.responses import ResponseHead, ResponseReader


def response(text: str) -> ResponseHead:
    return ResponseReader().read(text.replace("\n", "\r\n").encode("latin-1"))


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
        ("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n", None, None),
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
    assert (head.status, head.reason) == (404, b"Nothing Here")
    assert head.plain == [b"x-a: b\r\n", b"x-a: c\r\n"]


def test_a_switch_of_protocols_names_the_new_one() -> None:
    head = response("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n")
    assert (head.status, head.upgrade) == (101, b"websocket")


def test_a_control_character_in_a_reason_is_refused() -> None:
    with pytest.raises(PeerError):
        ResponseReader().read(b"HTTP/1.1 200 O\0K\r\n\r\n")
