"""A yamux session without a transport: its tables, what floods cost their sender, and whatever random peers send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harp.errors import Flooded, HarpError, PeerError, ProtocolError
from harp.wire import yamux
from harp.wire.mux import (
    IDLE_FRAMES,
    SESSION,
    STREAM,
    Happening,
    Move,
    MuxEvent,
    Session,
    SessionState,
    StreamState,
)
from harp.wire.windows import Budget
from harp.wire.yamux import ACK, DATA, FIN, INITIAL_WINDOW, RST, SYN, Frame, FrameParser, GoAway
from tests.properties import core

OPENED_1 = yamux.window_update(1, 0, SYN)


def session(*, client: bool = False, max_streams: int = 8, frames: int | None = None, **more: object) -> Session:
    made = Session(client=client, max_streams=max_streams, clock=lambda: 0.0, frames=frames)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def take(of: Session, *frames: bytes) -> list[Frame | MuxEvent]:
    return list(of.receive(b"".join(frames)))


def sent(by: Session) -> list[Frame]:
    return FrameParser().feed(by.data_to_send())


def data(number: int, payload: bytes, flags: int = 0) -> bytes:
    return yamux.data_header(number, len(payload), flags) + payload


# The tables


def test_a_stream_that_is_closed_stays_closed_and_every_other_can_be_reset_by_both_sides() -> None:
    assert STREAM[StreamState.CLOSED] == {}
    for state in set(StreamState) - {StreamState.CLOSED}:
        assert STREAM[state][Move.SEND_RESET] is STREAM[state][Move.GOT_RESET] is StreamState.CLOSED


def test_each_side_ends_once_and_both_ends_close_the_stream() -> None:
    for state in (StreamState.OPENING, StreamState.OPEN):
        here, there = STREAM[state][Move.SEND_END], STREAM[state][Move.GOT_END]
        assert Move.SEND_DATA not in STREAM[here]
        assert Move.GOT_DATA not in STREAM[there]
        assert STREAM[here][Move.GOT_END] is STREAM[there][Move.SEND_END] is StreamState.CLOSED


def test_a_session_that_is_over_stays_over() -> None:
    assert set(SESSION[SessionState.OVER].values()) == {SessionState.OVER}


# What is done, and what it gives


def test_a_stream_is_opened_used_and_ended_by_both() -> None:
    ours, theirs = session(client=True), session()
    stream = ours.open()
    ours.send(stream, b"hello")
    ours.end(stream)
    assert take(theirs, ours.data_to_send()) == [
        MuxEvent(Happening.OPENED, 1),
        Frame(DATA, 0, 1, 5, b"hello"),
        MuxEvent(Happening.ENDED, 1),
    ]
    answer = theirs.streams[1]
    theirs.send(answer, b"hi")
    theirs.end(answer)
    assert take(ours, theirs.data_to_send()) == [Frame(DATA, 0, 1, 2, b"hi"), MuxEvent(Happening.ENDED, 1)]
    assert ours.streams == theirs.streams == {}
    assert stream.state is answer.state is StreamState.CLOSED


def test_what_is_done_about_one_event_counts_for_the_next() -> None:
    peer = session()
    seen = []
    for event in peer.receive(data(1, b"x", SYN) + data(1, b"late") + data(3, b"y", SYN)):
        seen.append(event)
        if isinstance(event, Frame) and event.stream == 1:
            peer.reset(peer.streams[1])
    assert [event.stream for event in seen] == [1, 1, 3, 3]


@pytest.mark.parametrize("act", ["send", "end"])
def test_a_move_of_ours_that_is_not_in_the_table_is_a_bug(act: str) -> None:
    ours = session(client=True)
    stream = ours.open()
    ours.end(stream)
    with pytest.raises(ProtocolError, match="for stream 1, which is ended here"):
        ours.send(stream, b"x") if act == "send" else ours.end(stream)


def test_sending_more_than_the_window_holds_is_a_bug() -> None:
    ours = session(client=True)
    with pytest.raises(ProtocolError, match="262145 bytes for a window of 262144"):
        ours.send(ours.open(), bytes(INITIAL_WINDOW + 1))


def test_a_session_that_was_left_takes_nothing_and_opens_nothing() -> None:
    ours = session(client=True)
    ours.leave(GoAway.NORMAL)
    assert take(ours, data(2, b"x", SYN)) == []
    assert not ours.can_open()
    with pytest.raises(ProtocolError, match="open stream in a session whose state is over"):
        ours.open()


def test_a_state_is_one_line() -> None:
    peer = session()
    take(peer, OPENED_1, yamux.window_update(1, 0, FIN))
    assert repr(peer) == "<Session running, 1 streams>"
    assert repr(peer.streams[1]) == "<Stream 1 ended there, may send 262144, may receive 262144>"


def test_frames_of_both_directions_can_be_watched() -> None:
    seen: list[str] = []
    peer = Session(
        client=False, max_streams=8, clock=lambda: 0.0, trace=lambda way, frame: seen.append(f"{way} {frame}")
    )
    take(peer, data(1, b"hello", SYN), yamux.ping(7))
    peer.data_to_send()
    assert seen == [
        "< DATA SYN stream 1, 5 bytes",
        "< PING SYN 7",
        "> WINDOW_UPDATE ACK stream 1, 0 more",
        "> PING ACK 7",
    ]


# Budgets


def test_a_call_takes_as_many_frames_as_it_may_and_the_next_one_goes_on() -> None:
    peer = session()
    take(peer, OPENED_1)
    frames = b"".join(data(1, bytes((number,))) for number in range(10))
    first = list(peer.receive(frames, 4))
    assert peer.waiting
    rest = list(peer.receive(b"", 100))
    assert not peer.waiting
    assert (len(first), b"".join(event.payload for event in first + rest if isinstance(event, Frame))) == (
        4,
        bytes(range(10)),
    )


@pytest.mark.parametrize(
    "frame",
    [yamux.data_header(1, 0), yamux.window_update(1, 1), yamux.window_update(9, 0, RST), yamux.ping(1), data(9, b"x")],
    ids=["empty data", "window", "unknown stream", "ping", "data for nobody"],
)
def test_frames_that_carry_nothing_are_a_flood_at_some_point(frame: bytes) -> None:
    peer = session()
    take(peer, OPENED_1)
    take(peer, frame * (IDLE_FRAMES - 2))  # opening the stream took two
    with pytest.raises(Flooded):
        take(peer, frame)


def test_streams_that_come_and_go_with_a_byte_each_are_a_flood() -> None:
    peer = session()
    with pytest.raises(Flooded):
        for number in range(1, 4 * IDLE_FRAMES, 2):
            take(peer, data(number, b"x", SYN), yamux.window_update(number, 0, RST))


def test_windows_that_are_opened_for_data_are_not() -> None:
    peer = session()
    take(peer, OPENED_1)
    for _ in range(4 * IDLE_FRAMES):
        peer.send(peer.streams[1], b"x")
        peer.data_to_send()
        take(peer, yamux.window_update(1, 1))


def test_streams_that_serve_a_request_each_are_not() -> None:
    peer = session()
    for number in range(1, 4 * IDLE_FRAMES, 2):
        take(peer, yamux.window_update(number, 0, SYN), data(number, b"work"))
        peer.send(peer.streams[number], b"start")
        peer.send(peer.streams[number], b"request")
        take(peer, data(number, b"answer"), yamux.window_update(number, 0, FIN))
        peer.end(peer.streams[number])
        peer.data_to_send()


def test_pings_of_hours_are_not() -> None:
    peer = session()
    for _ in range(2 * IDLE_FRAMES):
        take(peer, yamux.ping(1))
        peer.data_to_send()
        peer.forgive()


def test_before_it_is_trusted_a_peer_has_a_few_frames_with_or_without_data() -> None:
    peer = session(frames=20)
    take(peer, OPENED_1, *[data(1, b"x")] * 17)
    peer.forgive()
    with pytest.raises(Flooded, match="before the login"):
        take(peer, *[data(1, b"x")] * 3)


def test_a_peer_that_is_trusted_may_send_what_it_likes() -> None:
    peer = session(frames=20)
    take(peer, OPENED_1)
    peer.trust()
    take(peer, *[data(1, b"x")] * 2000)


# Whatever a peer sends

FRAMES = st.tuples(
    st.sampled_from((0, 0, 0, 1, 2, 3)),
    st.sampled_from((0, 0, 0, SYN, ACK, FIN, RST, SYN | FIN, ACK | RST)),
    st.integers(0, 6),
    st.sampled_from((0, 1, 2, 100, 1000, INITIAL_WINDOW, INITIAL_WINDOW + 1)),
)
ACTS = st.sampled_from(("nothing", "send", "end", "reset", "reopen", "ping", "open"))


def wire(frame: tuple[int, int, int, int]) -> bytes:
    kind, flags, number, length = frame
    return yamux.HEADER.pack(0, kind, flags, number, length) + (bytes(length) if kind == DATA else b"")


def act(on: Session, what: str, number: int) -> None:
    """A move of ours that the table has, if there is such a stream."""
    stream = on.streams.get(number)
    if what == "open" and on.can_open():
        on.open()
    elif what == "ping":
        on.ping()
    elif stream is None:
        return
    elif what == "send" and stream.may_send():
        on.send(stream, bytes(min(stream.sendable, 1000)))
    elif what == "end" and stream.may_send():
        on.end(stream)
    elif what == "reset":
        on.reset(stream)
    elif what == "reopen":
        on.reopen_window(stream)


@core
@given(
    st.lists(st.tuples(FRAMES, ACTS, st.integers(0, 6)), max_size=40),
    st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    st.booleans(),
)
def test_whatever_a_peer_sends_only_a_peer_error_comes_of_it(
    steps: list[tuple[tuple[int, int, int, int], str, int]], cuts: list[int], client: bool
) -> None:
    budget = Budget(1 << 20)
    ours = Session(client=client, max_streams=3, clock=lambda: 0.0, budget=budget)
    ours.round_trip, ours.max_window = 0.05, 1 << 20
    try:
        for frame, what, number in steps:
            rest = wire(frame)
            for cut in cuts:
                piece, rest = rest[:cut], rest[cut:]
                for event in ours.receive(piece, 3):
                    act(ours, what, event.stream)
            for _ in ours.receive(rest):
                pass
            act(ours, what, number)
            assert len([s for s in ours.streams if s % 2 == (0 if client else 1)]) <= 3
            assert all(stream.state is not StreamState.CLOSED for stream in ours.streams.values())
            FrameParser().feed(ours.data_to_send())
    except PeerError:
        pass
    ours.leave(GoAway.PROTOCOL_ERROR)
    assert ours.streams == {}
    assert budget.lent == 0


@core
@given(st.lists(FRAMES, max_size=20), st.lists(st.integers(1, 400), min_size=1, max_size=50), st.integers(1, 40))
def test_what_is_understood_does_not_depend_on_how_the_bytes_are_cut(
    frames: list[tuple[int, int, int, int]], cuts: list[int], cost: int
) -> None:
    text = b"".join(wire((kind, flags, number, length % 700)) for kind, flags, number, length in frames)

    def understood(pieces: list[bytes], cost: int) -> tuple[list[object], bytes, str]:
        peer = session(max_streams=3)
        events: list[object] = []
        payload = b""
        try:
            for piece in pieces:
                todo = piece
                while True:
                    for event in peer.receive(todo, cost):
                        if isinstance(event, Frame):
                            payload += bytes((event.stream,)) * len(event.payload)
                        else:
                            events.append(event)
                    todo = b""
                    if not peer.waiting:
                        break
        except HarpError as error:
            return events, payload, str(error)
        return events, payload, repr(sorted(map(repr, peer.streams.values())))

    pieces, rest = [], text
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    assert understood([*pieces, rest], cost) == understood([text], yamux.UNLIMITED)
