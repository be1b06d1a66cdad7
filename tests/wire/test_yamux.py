"""Yamux frames, typed by hand (F 1.3, F 9 E)."""

from __future__ import annotations

import pytest

from harp.errors import PeerError
from harp.wire import yamux
from harp.wire.yamux import DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW_UPDATE, Frame, FrameParser, GoAway

HELLO = bytes.fromhex("00 00 0004 00000003 00000005") + b"hello"


def together(frames: list[Frame]) -> list[Frame]:
    """The parts of cut DATA frames joined again."""
    joined: list[Frame] = []
    for frame in frames:
        last = joined[-1] if joined else None
        if last and frame.kind == DATA and frame.length == 0 and len(last.payload) < last.length:
            joined[-1] = Frame(DATA, last.flags | frame.flags, last.stream, last.length, last.payload + frame.payload)
        else:
            joined.append(frame)
    return joined


def test_a_ping_cut_at_any_byte_is_still_one_frame() -> None:
    wire = bytes.fromhex("00 02 0001 00000000 0000002a")
    for cut in range(len(wire) + 1):
        parser = FrameParser()
        assert parser.feed(wire[:cut]) + parser.feed(wire[cut:]) == [Frame(PING, SYN, 0, 42)]


def test_data_cut_at_any_two_bytes_arrives_whole_and_in_order() -> None:
    wire = HELLO + bytes.fromhex("00 01 0000 00000003 00307600") + HELLO
    whole = [Frame(DATA, FIN, 3, 5, b"hello"), Frame(WINDOW_UPDATE, 0, 3, 3175936), Frame(DATA, FIN, 3, 5, b"hello")]
    for first in range(len(wire) + 1):
        for second in range(first, len(wire) + 1):
            parser = FrameParser()
            frames = [
                *parser.feed(wire[:first]),
                *parser.feed(wire[first:second]),
                *parser.feed(wire[second:]),
            ]
            assert together(frames) == whole


def test_a_payload_is_given_out_as_it_arrives() -> None:
    parser = FrameParser()
    assert parser.feed(HELLO[:14]) == [Frame(DATA, 0, 3, 5, b"he")]
    assert parser.feed(b"l") == [Frame(DATA, 0, 3, 0, b"l")]
    assert parser.feed(b"lo") == [Frame(DATA, FIN, 3, 0, b"lo")]


def test_the_length_is_known_before_any_payload() -> None:
    frame = bytes.fromhex("00 00 0000 00000003 ffffffff")
    assert FrameParser().feed(frame) == [Frame(DATA, 0, 3, 0xFFFFFFFF)]


def test_a_reset_of_a_cut_frame_comes_first_and_its_end_comes_last() -> None:
    parser = FrameParser()
    assert parser.feed(bytes.fromhex("00 00 000c 00000003 00000002") + b"a") == [Frame(DATA, RST, 3, 2, b"a")]
    assert parser.feed(b"b") == [Frame(DATA, FIN, 3, 0, b"b")]


def test_empty_data_is_one_frame() -> None:
    assert FrameParser().feed(bytes.fromhex("00 00 0004 00000003 00000000")) == [Frame(DATA, FIN, 3, 0)]


@pytest.mark.parametrize("start", ["01 02", "6f 00", "00 04", "00 ff"])
def test_another_version_or_kind_is_refused(start: str) -> None:
    with pytest.raises(PeerError, match="yamux: version"):
        FrameParser().feed(bytes.fromhex(start + "0001 00000000 00000000"))


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        (yamux.window_update(1, 6029312, SYN), "0001000100000001005c0000"),
        (yamux.window_update(1, 0, SYN), "000100010000000100000000"),
        (yamux.window_update(1, 6029312, yamux.ACK), "0001000200000001005c0000"),
        (yamux.window_update(1, 0, yamux.ACK), "000100020000000100000000"),
        (yamux.data_header(1, 190), "0000000000000001000000be"),
        (yamux.window_update(3, 3175936), "000100000000000300307600"),
        (yamux.window_update(3, 0, FIN), "000100040000000300000000"),
        (yamux.window_update(3, 0, RST), "000100080000000300000000"),
        (yamux.ping(0), "000200010000000000000000"),
        (yamux.ping(0, reply=True), "000200020000000000000000"),
        (yamux.ping(5), "000200010000000000000005"),
        (yamux.ping(5, reply=True), "000200020000000000000005"),
        (yamux.go_away(GoAway.NORMAL), "000300000000000000000000"),
        (yamux.go_away(GoAway.PROTOCOL_ERROR), "000300000000000000000001"),
        (yamux.go_away(GoAway.INTERNAL_ERROR), "000300000000000000000002"),
    ],
)
def test_frames_are_written_as_go_writes_them_and_read_back(frame: bytes, wire: str) -> None:
    assert frame.hex() == wire
    if wire[2:4] != "00":
        (read,) = FrameParser().feed(frame)
        assert yamux.HEADER.pack(0, read.kind, read.flags, read.stream, read.length) == frame


def test_go_away_tells_its_code() -> None:
    assert FrameParser().feed(yamux.go_away(GoAway.INTERNAL_ERROR)) == [Frame(GO_AWAY, 0, 0, 2)]
