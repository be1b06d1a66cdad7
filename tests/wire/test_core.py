"""The compiled cutter of heads and its specification, the Python one: equal on every input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.wire import ordinary
from harp.wire.requests import REQUEST_SPECIAL
from tests.properties import core
from tests.wire.heads import heads, responses

compiled = pytest.importorskip("harp_core", reason="the compiled part is not installed: make core")

SPECIAL = sorted(REQUEST_SPECIAL | {b"x-hop"})
MOST = 6


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


PIECES = [
    b"/",
    b"//",
    b"exapps",
    b"hello",
    b"Hello.1",
    b".",
    b"..",
    b"-",
    b"_",
    b"~a",
    b"%2f",
    b";",
    b"a" * 40,
    b"\xe9",
    b" ",
]
PATHS = st.lists(st.sampled_from(PIECES), max_size=9).map(b"".join)


@core
@given(PATHS, PATHS, st.binary(max_size=2))
def test_both_cut_paths_alike(before: bytes, after: bytes, stray: bytes) -> None:
    for path in (
        before,
        before + b"/exapps/" + after,
        b"/exapps/hello" + after,
        b"/exapps/hello/a" + stray + after,
        stray,
    ):
        assert compiled.cut_path(path) == ordinary.cut_path(path)
