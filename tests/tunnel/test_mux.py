"""Yamux sessions: each rule of F 1.4, liveness, ends, and the bounds of a turn."""

from __future__ import annotations

import asyncio
import logging

import pytest
import structlog

from harp.errors import TunnelAway
from harp.tunnel.mux import CONTROL_LIMIT, FRAMES, PING_INTERVAL, PING_LIMIT, MuxSession
from harp.wire import yamux
from harp.wire.yamux import ACK, DATA, FIN, INITIAL_WINDOW, PING, RST, SYN, WINDOW_UPDATE, Frame
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder, memory_pair
from tests.fakes.waiting import settled, turn, until
from tests.tunnel.mux_peer import Peer, data, end, payload_of

# Opening


async def test_a_stream_is_acknowledged_once_whatever_opens_it(clock: Clock) -> None:
    peer = Peer(clock)
    peer.say(data(1, b"hello", SYN))
    peer.say(data(1, b" world"))
    assert await peer.heard() == [Frame(WINDOW_UPDATE, ACK, 1, 0)]
    assert peer.accepted[0].received == b"hello world"


async def test_a_client_opens_odd_streams_and_may_send_at_once(clock: Clock) -> None:
    peer = Peer(clock, client=True)
    first, protocol = peer.session.open(Recorder)
    first.write(b"login")
    peer.session.open(Recorder)
    assert protocol.events == ["made"]
    assert await peer.heard() == [
        Frame(WINDOW_UPDATE, SYN, 1, 0),
        Frame(WINDOW_UPDATE, SYN, 3, 0),
        Frame(DATA, 0, 1, 5, b"login"),
    ]


async def test_an_increment_counts_on_syn_and_ack_like_on_any_frame(clock: Clock) -> None:
    server, client = Peer(clock), Peer(clock, client=True)
    accepted, _ = await server.opened(1, increment=6029312)
    opened, _ = client.session.open(Recorder)
    client.say(yamux.window_update(1, 6029312, ACK))
    for peer, stream in ((server, accepted), (client, opened)):
        stream.write(bytes(INITIAL_WINDOW + 6029312 + 1))
        assert len(payload_of(await peer.heard())) == INITIAL_WINDOW + 6029312


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([yamux.window_update(1, 0, SYN)], "stream 1 cannot be opened"),  # a second SYN
        ([yamux.window_update(2, 0, SYN)], "stream 2 cannot be opened"),  # our own numbers
        ([data(1, bytes(INITIAL_WINDOW + 1))], "262145 bytes of data for a window of 262144"),
        ([yamux.data_header(1, 0xFFFFFFFF)], "4294967295 bytes of data for a window"),  # before any of it is here
        ([data(1, bytes(100000))] * 3, "100000 bytes of data for a window of"),
        ([end(1), end(1)], "got end for stream 1, which is ended there"),
        ([end(1), data(1, b"x")], "got data for stream 1, which is ended there"),
        ([bytes.fromhex("000400000000000100000000")], "version 0, kind 4"),
        ([bytes.fromhex("010000000000000100000000")], "version 1, kind 0"),
    ],
)
async def test_a_peer_that_breaks_the_rules_loses_the_session(clock: Clock, frames: list[bytes], reason: str) -> None:
    peer = Peer(clock)
    peer.half_close = True
    stream, recorder = await peer.opened()
    stream.pause_reading()
    peer.say(*frames)
    assert peer.socket.state == "aborted"
    assert reason in peer.session.reason
    assert Frame(yamux.GO_AWAY, 0, 0, 1) in await peer.heard()
    stream.resume_reading()  # for an end that came before
    await peer.heard()
    assert recorder.events[-1] == "lost"


async def test_frames_of_unknown_streams_are_dropped(clock: Clock) -> None:
    peer = Peer(clock)
    peer.say(data(7, b"late"), yamux.window_update(7, 5), end(7), yamux.window_update(7, 0, RST))
    assert await peer.heard() == []
    assert peer.socket.state == "open"


async def test_streams_beyond_the_limit_are_reset_and_the_session_lives(clock: Clock) -> None:
    peer = Peer(clock, streams=1)
    await peer.opened(1)
    peer.say(yamux.window_update(3, 0, SYN), data(3, b"x"))
    assert await peer.heard() == [Frame(WINDOW_UPDATE, RST, 3, 0)]
    assert peer.socket.state == "open"


async def test_a_client_refuses_streams(clock: Clock) -> None:
    session = MuxSession(clock.deadlines, client=True)
    raw = Recorder()
    memory_pair(session, raw)
    raw.transport.write(yamux.window_update(2, 0, SYN))
    await raw.until(size=12)
    assert raw.received == yamux.window_update(2, 0, RST)


# The session


async def test_pings_are_answered_with_their_value(clock: Clock) -> None:
    peer = Peer(clock)
    peer.say(yamux.ping(0), yamux.ping(5))
    assert await peer.heard() == [Frame(PING, ACK, 0, 0), Frame(PING, ACK, 0, 5)]


async def test_an_idle_peer_is_asked_and_its_answer_is_timed(clock: Clock) -> None:
    peer = Peer(clock)
    clock.move(PING_INTERVAL - 1)
    assert await peer.heard() == []
    clock.move(1)
    assert await peer.heard() == [Frame(PING, SYN, 0, 0)]
    peer.say(yamux.ping(0, reply=True))
    assert peer.session.round_trip is not None
    clock.move(PING_LIMIT)
    assert peer.socket.state == "open"
    clock.move(PING_INTERVAL)
    assert await peer.heard() == [Frame(PING, SYN, 0, 1)]


async def test_a_dead_peer_is_noticed_within_40_seconds(clock: Clock) -> None:
    peer = Peer(clock)
    _, recorder = await peer.opened()
    waited = 0.0
    while peer.socket.state == "open":
        clock.move(0.25)
        waited += 0.25
    await peer.heard()
    assert waited <= 40
    assert recorder.events == ["made", "lost"]
    assert "no sign of life" in str(recorder.error)


async def test_a_peer_whose_answer_stands_behind_its_data_is_alive(clock: Clock) -> None:
    peer = Peer(clock)
    await peer.opened()
    clock.move(PING_INTERVAL)
    for _ in range(5):
        peer.say(data(1, b"x"))
        clock.move(PING_LIMIT)
        assert peer.socket.state == "open"
    clock.move(PING_LIMIT)
    assert peer.socket.state == "aborted"


async def test_a_probe_tells_whether_the_peer_answers(clock: Clock) -> None:
    peer = Peer(clock)
    probe = asyncio.create_task(peer.session.probe(5))
    assert await peer.heard() == [Frame(PING, SYN, 0, 0)]
    peer.say(yamux.ping(0, reply=True))
    assert await probe
    assert not await peer.session.probe(0)
    probe = asyncio.create_task(peer.session.probe(5))
    await peer.heard()
    peer.session.abort("test")
    peer.session.connection_lost(None)
    assert not await probe
    assert not await peer.session.probe(5)


async def test_a_peer_that_wants_answers_and_does_not_read_them_is_dropped(clock: Clock) -> None:
    peer = Peer(clock)
    await peer.opened()
    peer.session.pause_writing()
    for value in range(CONTROL_LIMIT // 12):
        peer.say(yamux.ping(value), data(1, b"x"))
        await settled()
    assert peer.socket.state == "open"
    peer.say(yamux.ping(0))
    await peer.heard()
    assert peer.socket.state == "aborted"
    assert "does not read" in peer.session.reason


async def test_control_frames_leave_while_the_socket_is_full(clock: Clock) -> None:
    peer = Peer(clock)
    stream, _ = await peer.opened()
    peer.session.pause_writing()
    stream.write(b"data")
    peer.say(yamux.ping(3))
    assert await peer.heard() == [Frame(PING, ACK, 0, 3)]


async def test_a_lost_connection_loses_all_streams_and_says_so_once(clock: Clock) -> None:
    peer = Peer(clock)
    _, recorder = await peer.opened()
    peer.session.connection_lost(OSError("reset"))
    await peer.heard()
    await peer.session.wait_closed()
    assert recorder.events == ["made", "lost"]
    assert str(recorder.error) == "the tunnel is closed: the connection was lost: reset"
    assert peer.lost == 1


async def test_a_slow_reader_gets_the_rest_of_a_complete_answer_after_the_session(clock: Clock) -> None:
    peer = Peer(clock)
    stream, slow = await peer.opened(1)
    other, cut = await peer.opened(3)
    for paused in (stream, other):
        paused.pause_reading()
    peer.say(data(1, b"complete", FIN), data(3, b"not comp"))
    peer.session.connection_lost(None)
    stream.write(b"nobody hears this")
    await peer.heard()
    assert (slow.events, cut.events) == (["made"], ["made", "lost"])
    stream.resume_reading()
    await peer.heard()
    assert slow.received == b"complete"
    assert slow.events == ["made", "end", "lost"]
    assert peer.session.streams == 0


async def test_closing_a_session_sends_what_was_written_and_ends_its_streams_at_once(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    stream.write(b"bye")
    peer.session.close("done")
    assert payload_of(await peer.heard()) == b"bye"
    assert peer.socket.state == "closed"
    assert recorder.events == ["made", "lost"]
    with pytest.raises(TunnelAway, match="done"):
        peer.session.open(Recorder)


async def test_go_away_0_lets_streams_go_on_and_refuses_new_ones(clock: Clock) -> None:
    peer = Peer(clock, client=True)
    stream, recorder = peer.session.open(Recorder)
    peer.say(yamux.go_away(yamux.GoAway.NORMAL), data(1, b"still here"))
    assert recorder.received == b"still here"
    assert not stream.is_closing()
    with pytest.raises(TunnelAway):
        peer.session.open(Recorder)


async def test_any_other_go_away_ends_the_session(clock: Clock) -> None:
    peer = Peer(clock)
    peer.say(yamux.go_away(yamux.GoAway.INTERNAL_ERROR))
    assert peer.socket.state == "closed"
    assert "code 2" in peer.session.reason


async def test_when_stream_ids_are_used_up_the_session_ends(clock: Clock) -> None:
    peer = Peer(clock, client=True, first=0xFFFFFFFF)
    peer.session.open(Recorder)
    with pytest.raises(TunnelAway, match="used up"):
        peer.session.open(Recorder)
    assert peer.socket.state == "closed"


async def test_a_turn_of_the_loop_takes_a_bounded_number_of_frames_and_the_transport_is_not_read_meanwhile(
    clock: Clock,
) -> None:
    peer = Peer(clock)
    _, recorder = await peer.opened()
    count = 3 * FRAMES
    peer.say(*[data(1, b"x")] * count)
    turns = 1
    while len(recorder.received) < count:
        assert not peer.socket.reading
        assert len(recorder.received) == turns * FRAMES
        await turn()
        turns += 1
    await settled()
    assert peer.socket.reading


async def test_a_turn_opens_a_few_streams_only(clock: Clock) -> None:
    peer = Peer(clock, streams=1000)
    peer.say(*[yamux.window_update(number, 0, SYN) for number in range(1, 200, 2)])
    assert len(peer.accepted) <= 8
    await until(lambda: len(peer.accepted) == 100)


async def test_a_session_that_ends_while_frames_wait_takes_none_of_them(clock: Clock) -> None:
    peer = Peer(clock)
    _, recorder = await peer.opened()
    peer.say(*[data(1, b"x")] * 2 * FRAMES)
    peer.session.abort("test")
    await peer.heard()
    assert len(recorder.received) == FRAMES


async def test_a_flood_ends_the_session_with_its_reason(clock: Clock) -> None:
    peer = Peer(clock)
    await peer.opened()
    for _ in range(60):
        peer.say(*[yamux.window_update(1, 1)] * 100)
        await settled()
    assert (peer.socket.state, peer.session.fault) == ("aborted", True)
    assert "a flood" in peer.session.reason


async def test_what_slow_readers_keep_is_counted_and_forgotten_with_them(clock: Clock) -> None:
    peer = Peer(clock)
    stream, _ = await peer.opened()
    other, _ = await peer.opened(3)
    stream.pause_reading()
    other.pause_reading()
    peer.say(data(1, b"12345"), data(3, b"678"), end(3))
    assert peer.session.budget.kept == 8
    stream.abort()
    assert peer.session.budget.kept == 3
    other.resume_reading()
    await peer.heard()
    assert peer.session.budget.kept == 0


async def test_the_state_of_a_session_and_its_streams_is_one_line_each(clock: Clock) -> None:
    peer = Peer(clock)
    stream, _ = await peer.opened()
    assert repr(stream) == "<MuxStream 1 open, window 262144, waits: nothing>"
    stream.write(bytes(INITIAL_WINDOW + 1))
    peer.say(data(1, bytes(65536)))
    await peer.heard()
    assert repr(stream) == "<MuxStream 1 open, window 196608, waits: peer>"
    stream.pause_reading()
    peer.say(data(1, b"x"))
    assert repr(stream) == "<MuxStream 1 open, window 196607, waits: reader>"
    assert repr(peer.session) == "<MuxSession 192.0.2.7 running, 1 streams>"
    stream.abort()
    assert repr(stream) == "<MuxStream 1 lost, window 196607, waits: nothing>"
    peer.session.abort("test")
    assert repr(peer.session) == "<MuxSession 192.0.2.7 closed, 0 streams>"


async def test_frames_are_logged_at_the_debug_level(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    peer = Peer(clock)
    with structlog.testing.capture_logs() as lines:
        peer.say(yamux.ping(7))
        await peer.heard()
    assert [(line["direction"], line["frame"]) for line in lines] == [("<", "PING SYN 7"), (">", "PING ACK 7")]
    assert all("192.0.2.7" in line["peer"] for line in lines)
