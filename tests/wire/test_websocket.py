"""Where a WebSocket frame may be put in, in a stream that is joined somewhere (RFC 6455 section 5.2)."""

from __future__ import annotations

import pytest

from harp.wire.websocket import CERTAIN, CLOSE_GOING_AWAY, FrameFinder

HELLO = b"\x81\x05hello"
FRAMES = [
    HELLO,
    b"\xc1\x05press",  # compressed
    b"\x82\x7e\x01\x00" + b"x" * 256,
    b"\x82\x7f" + (70000).to_bytes(8, "big") + b"y" * 70000,
    b"\x89\x00",
    CLOSE_GOING_AWAY,
]


def found(*slices: bytes) -> bool:
    finder = FrameFinder()
    for piece in slices:
        finder.feed(piece)
    return finder.at_boundary


def test_slices_of_whole_frames_end_at_a_boundary() -> None:
    for frame in FRAMES:
        assert found(*[frame] * CERTAIN)
    assert found(*[b"".join(FRAMES)] * CERTAIN)
    assert not found(HELLO)


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
def test_within_a_frame_is_no_boundary(frame: bytes) -> None:
    for cut in {*range(1, min(len(frame), 20)), len(frame) - 1} - {len(frame)}:
        assert not found(HELLO, HELLO, frame[:cut])
        assert found(HELLO, HELLO, frame[:cut], frame[cut:], HELLO)


def test_a_stream_that_is_joined_within_a_frame_is_followed_from_the_next_one() -> None:
    assert not found(b"llo")
    assert found(b"llo", HELLO, HELLO)


@pytest.mark.parametrize("slice_", [b"\x81\x85mask12345", b"\x83\x00", b"\xa1\x01x", b"\x8b\x00"])
def test_what_no_server_sends_is_not_a_frame(slice_: bytes) -> None:
    assert not found(*[slice_] * 5)
