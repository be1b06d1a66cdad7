"""Where WebSocket frames begin and end, in any slicing (RFC 6455 section 5.2)."""

from __future__ import annotations

import pytest

from harp.wire.websocket import CLOSE_GOING_AWAY, FrameTracker

FRAMES = [
    b"\x81\x05hello",
    b"\x81\x85mask" + b"12345",
    b"\x82\x7e\x01\x00" + b"x" * 256,
    b"\x82\x7f" + (70000).to_bytes(8, "big") + b"y" * 70000,
    b"\x89\x00",
    CLOSE_GOING_AWAY,
]


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
def test_only_the_end_of_a_frame_is_a_boundary(frame: bytes) -> None:
    for cut in {*range(1, min(len(frame), 20)), len(frame) - 1}:
        if cut == len(frame):
            continue
        tracker = FrameTracker()
        tracker.feed(frame[:cut])
        assert not tracker.at_boundary
        tracker.feed(frame[cut:])
        assert tracker.at_boundary


def test_many_frames_in_one_slice_end_at_a_boundary() -> None:
    tracker = FrameTracker()
    tracker.feed(b"".join(FRAMES))
    assert tracker.at_boundary
    tracker.feed(b"".join(FRAMES) + b"\x81")
    assert not tracker.at_boundary
