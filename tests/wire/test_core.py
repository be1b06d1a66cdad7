"""The compiled cutter of heads and its specification, the Python one: equal on every input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.wire import ordinary
from harp.wire.requests import REQUEST_SPECIAL
from tests.properties import core
from tests.wire.heads import BYTES, heads

compiled = pytest.importorskip("harp_core", reason="the compiled part is not installed: make core")

SPECIAL = sorted(REQUEST_SPECIAL | {b"x-hop"})
MOST = 6
RESPONSE_LINES = st.sampled_from(
    [
        *(
            b"Content-Length: 5",
            b"content-length:0",
            b"Content-length: \t12",
            b"CONTENT-LENGTH: 5",
            b"Content-Length: 5 ",
        ),
        *(b"Content-Length: 05", b"Content-Length:", b"Content-Length: 1234567890123456789", b"Content-Length-X: 1"),
        *(
            b"Connection: keep-alive",
            b"connection:Keep-Alive",
            b"Connection: close",
            b"Connections: 1",
            b"Konnection: 1",
        ),
        *(b"Keep-Alive: timeout=5", b"keep-alives: 1", b"TE: x", b"ke: x", b"tea: x", b"Upgrade: h2c", b"Upgrades: x"),
        *(b"Transfer-Encoding: chunked", b"transfer-encodings: x", b"Proxy-Authenticate: x", b"Proxy: x", b"X_Y: 1"),
        *(b"Date: Sat, 28 Nov 2026 13:00:00 GMT", b'ETag: "a"', b"X-Empty:", b"x: J\xf6rg\t", b"Content-Type: a/b"),
    ]
)
STATUSES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 ", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 101 X"]
)


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    """Heads of responses that are nearly right, with something of a body."""
    lines = draw(st.lists(RESPONSE_LINES, max_size=6))
    data = b"\r\n".join([draw(STATUSES), *lines, b"", draw(st.sampled_from([b"", b"\r\nbody", b"\r\n\r\n"]))])
    if draw(st.booleans()):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=2) | st.sampled_from(BYTES)) + data[at + draw(st.integers(0, 2)) :]
    return data


@core
@given(heads(), st.binary(max_size=3))
def test_both_cut_requests_alike(data: bytes, before: bytes) -> None:
    ours, theirs = (kind(SPECIAL, MOST).cut for kind in (ordinary.RequestCutter, compiled.RequestCutter))
    assert theirs(data, 0) == ours(data, 0)
    assert theirs(before + data + data, len(before)) == ours(before + data + data, len(before))
    for size in range(0, len(data), 7):
        assert theirs(data[:size], 0) is None


@core
@given(responses())
def test_both_cut_responses_alike(data: bytes) -> None:
    assert compiled.cut_response(data) == ordinary.cut_response(data)


@core
@given(st.binary(max_size=60))
def test_any_bytes_are_read_alike(tail: bytes) -> None:
    for data in (tail, b"GET /" + tail, b"GET / HTTP/1.1\r\nHost: a\r\n" + tail + b"\r\n\r\n"):
        assert compiled.RequestCutter(SPECIAL, MOST).cut(data, 0) == ordinary.RequestCutter(SPECIAL, MOST).cut(data, 0)
    for data in (b"HTTP/1.1 " + tail, b"HTTP/1.1 200 OK\r\n" + tail + b"\r\n\r\n"):
        assert compiled.cut_response(data) == ordinary.cut_response(data)
