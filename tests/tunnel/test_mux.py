"""Yamux sessions: each rule of F 1.4, streams as transports, back-pressure, limits of F 8.1."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest
import structlog

from harp.errors import TunnelAway
from harp.tunnel.mux import BATCH, CONTROL_LIMIT, FRAMES, PING_INTERVAL, PING_LIMIT, MuxSession
from harp.tunnel.stream import HIGH_WATER, MuxStream
from harp.wire import yamux
from harp.wire.mux import MAX_FRAME
from harp.wire.yamux import ACK, DATA, FIN, INITIAL_WINDOW, PING, RST, SYN, WINDOW_UPDATE, Frame, FrameParser
from tests.tunnel.conftest import Clock
from tests.tunnel.memory import Recorder, memory_pair

LARGE = 1 << 20


class Socket(asyncio.Transport):
    """The transport below a session: remembers writes, and how it was closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 50000), "sockname": ("192.0.2.1", 8782), "sslcontext": object()})
        self.writes: list[bytes] = []
        self.state = "open"
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.state != "open"

    def close(self) -> None:
        self.state = "closed"

    def abort(self) -> None:
        self.state = "aborted"


class Peer:
    """A session under test, and the frames that it has sent."""

    def __init__(
        self,
        clock: Clock,
        *,
        client: bool = False,
        window: int = INITIAL_WINDOW,
        streams: int = 8,
        first: int | None = None,
    ) -> None:
        self.accepted: list[Recorder] = []
        self.half_close = False
        self.lost = 0
        self.session = MuxSession(
            clock.deadlines,
            client=client,
            accept=self._accept,
            lost=self._count_loss,
            window=window,
            max_streams=streams,
            first=first,
            clock=lambda: clock.now,
        )
        self.socket = Socket()
        self.session.connection_made(self.socket)

    def _accept(self) -> Recorder:
        recorder = Recorder(half_close=self.half_close)
        self.accepted.append(recorder)
        return recorder

    def _count_loss(self) -> None:
        self.lost += 1

    def say(self, *frames: bytes) -> None:
        self.session.data_received(b"".join(frames))

    async def heard(self) -> list[Frame]:
        """What the session has sent since the last call, once it has nothing more to send."""
        for _ in range(5):
            await asyncio.sleep(0)
        writes, self.socket.writes = self.socket.writes, []
        return FrameParser().feed(b"".join(writes))

    async def answer_a_ping(self) -> None:
        """The session knows the round trip then."""
        self.session.measure()
        (ping,) = await self.heard()
        self.say(yamux.ping(ping.length, reply=True))

    async def opened(self, number: int = 1, increment: int = 0) -> tuple[MuxStream, Recorder]:
        """A stream that the peer has opened, its ACK consumed."""
        self.say(yamux.window_update(number, increment, SYN))
        assert await self.heard() == [Frame(WINDOW_UPDATE, ACK, number, 0)]
        stream = self.accepted[-1].transport
        assert isinstance(stream, MuxStream)
        return stream, self.accepted[-1]


def data(number: int, payload: bytes, flags: int = 0) -> bytes:
    return yamux.data_header(number, len(payload), flags) + payload


def payload_of(frames: list[Frame]) -> bytes:
    return b"".join(frame.payload for frame in frames if frame.kind == DATA)


def end(number: int) -> bytes:
    return yamux.window_update(number, 0, FIN)


FIN_1 = Frame(WINDOW_UPDATE, FIN, 1, 0)
RST_1 = Frame(WINDOW_UPDATE, RST, 1, 0)


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


# Receive window


async def test_no_more_is_granted_until_half_of_the_window_was_read(clock: Clock) -> None:
    peer = Peer(clock)
    await peer.opened()
    peer.say(data(1, bytes(INITIAL_WINDOW // 2 - 1)))
    assert await peer.heard() == []
    peer.say(data(1, b"x"))
    assert await peer.heard() == [Frame(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW // 2)]


async def test_a_reader_that_keeps_up_gets_the_large_window_and_it_holds(clock: Clock) -> None:
    peer = Peer(clock, window=LARGE)
    await peer.answer_a_ping()
    _, recorder = await peer.opened()
    granted, sent = INITIAL_WINDOW, 0
    while sent < 5 * LARGE:
        peer.say(data(1, bytes(granted - sent)))
        sent = granted
        granted += sum(frame.length for frame in await peer.heard())
        assert granted - sent <= LARGE
    assert granted - sent == LARGE
    assert len(recorder.received) == sent


async def test_what_a_paused_reader_has_not_taken_is_kept_and_not_granted_again(clock: Clock) -> None:
    peer = Peer(clock, window=LARGE)
    stream, recorder = await peer.opened()
    stream.pause_reading()
    peer.say(data(1, b"a" * INITIAL_WINDOW))
    assert await peer.heard() == []
    assert not recorder.received
    stream.resume_reading()
    assert await peer.heard() == [Frame(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW)]
    assert recorder.received == b"a" * INITIAL_WINDOW


async def test_a_reader_that_pauses_itself_while_reading_is_granted_more_when_it_resumes(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    recorder.on_data = stream.pause_reading
    peer.say(data(1, bytes(INITIAL_WINDOW)))
    assert await peer.heard() == []
    stream.resume_reading()
    assert await peer.heard() == [Frame(WINDOW_UPDATE, 0, 1, INITIAL_WINDOW)]


async def test_bytes_stay_in_order_around_a_pause(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    stream.pause_reading()
    peer.say(data(1, b"one "))
    stream.resume_reading()
    peer.say(data(1, b"two "))  # before the kept bytes were delivered
    await peer.heard()
    peer.say(data(1, b"three"))
    assert recorder.received == b"one two three"


async def test_the_end_waits_for_a_paused_reader_and_comes_once(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    stream.pause_reading()
    peer.say(data(1, b"last", FIN))
    await peer.heard()
    assert recorder.events == ["made"]
    stream.resume_reading()
    stream.pause_reading()
    stream.resume_reading()
    await peer.heard()
    assert recorder.received == b"last"
    assert recorder.events == ["made", "end", "lost"]


# Send window


async def test_the_send_window_is_used_to_the_last_byte_and_not_beyond(clock: Clock) -> None:
    peer = Peer(clock)
    stream, _ = await peer.opened()
    stream.write(bytes(INITIAL_WINDOW + 10))
    frames = await peer.heard()
    assert len(payload_of(frames)) == INITIAL_WINDOW
    assert max(frame.length for frame in frames) <= MAX_FRAME
    assert stream.get_write_buffer_size() == 10
    peer.say(yamux.window_update(1, 4))
    assert len(payload_of(await peer.heard())) == 4
    peer.say(yamux.window_update(1, 100))
    assert len(payload_of(await peer.heard())) == 6


async def test_a_writer_is_paused_above_the_high_mark_and_resumed_at_the_low_one(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    stream.set_write_buffer_limits(high=100, low=50)
    assert stream.get_write_buffer_limits() == (50, 100)
    stream.write(bytes(INITIAL_WINDOW))
    stream.write(bytes(100))
    await peer.heard()
    assert recorder.events == ["made"]
    stream.write(b"x")
    assert recorder.events == ["made", "pause"]
    peer.say(yamux.window_update(1, 50))
    await peer.heard()
    assert recorder.events == ["made", "pause"]
    peer.say(yamux.window_update(1, 1))
    await peer.heard()
    assert recorder.events == ["made", "pause", "resume"]


async def test_a_writer_is_paused_by_a_full_socket(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    peer.session.pause_writing()
    stream.write(bytes(HIGH_WATER + 1))
    assert await peer.heard() == []
    assert recorder.events == ["made", "pause"]
    peer.session.resume_writing()
    assert len(payload_of(await peer.heard())) == HIGH_WATER + 1
    assert recorder.events == ["made", "pause", "resume"]


async def test_streams_that_wait_take_turns(clock: Clock) -> None:
    peer = Peer(clock)
    streams = [(await peer.opened(number))[0] for number in (1, 3, 5)]
    peer.session.pause_writing()
    for stream in streams:
        stream.write(bytes(MAX_FRAME * 2))
    peer.session.resume_writing()
    assert [frame.stream for frame in await peer.heard()] == [1, 3, 5, 1, 3, 5]


async def test_a_busy_stream_does_not_keep_others_waiting(clock: Clock) -> None:
    peer = Peer(clock, window=LARGE)
    busy, _ = await peer.opened(1, increment=1 << 24)
    other, _ = await peer.opened(3)
    for _ in range(40):
        busy.write(bytes(MAX_FRAME))
    other.write(b"me too")
    frames = await peer.heard()
    place = next(at for at, frame in enumerate(frames) if frame.stream == 3)
    assert place <= BATCH // MAX_FRAME + 1


async def test_all_frames_of_one_iteration_leave_in_one_write_control_frames_first(clock: Clock) -> None:
    peer = Peer(clock)
    one, _ = await peer.opened(1)
    two, _ = await peer.opened(3)
    one.write(b"one")
    two.writelines([b"tw", b"o"])
    peer.say(yamux.ping(7))
    one.write(b"more")
    await asyncio.sleep(0)
    assert len(peer.socket.writes) == 1
    assert await peer.heard() == [
        Frame(PING, ACK, 0, 7),
        Frame(DATA, 0, 1, 3, b"one"),
        Frame(DATA, 0, 3, 3, b"two"),
        Frame(DATA, 0, 1, 4, b"more"),
    ]


async def test_a_written_buffer_may_be_reused(clock: Clock) -> None:
    peer = Peer(clock)
    stream, _ = await peer.opened()
    buffer = bytearray(b"before")
    stream.write(buffer)
    buffer[:] = b"after!"
    assert payload_of(await peer.heard()) == b"before"


# Ends


async def test_half_closes_are_independent_and_both_end_the_stream(clock: Clock) -> None:
    peer = Peer(clock)
    peer.half_close = True
    stream, recorder = await peer.opened()
    stream.write(b"request")
    stream.write_eof()
    assert await peer.heard() == [Frame(DATA, 0, 1, 7, b"request"), FIN_1]
    peer.say(data(1, b"answer"))
    assert recorder.received == b"answer"
    peer.say(end(1))
    assert recorder.events == ["made", "end"]
    assert peer.session.streams == 0
    stream.close()
    assert await peer.heard() == []
    assert recorder.events == ["made", "end", "lost"]
    assert recorder.error is None


async def test_an_end_that_the_protocol_does_not_keep_open_closes_the_stream(clock: Clock) -> None:
    peer = Peer(clock)
    _, recorder = await peer.opened()
    peer.say(end(1))
    assert await peer.heard() == [FIN_1]
    assert recorder.events == ["made", "end", "lost"]
    assert peer.session.streams == 0


async def test_writing_after_write_eof_is_an_error_and_a_second_end_is_not_sent(clock: Clock) -> None:
    peer = Peer(clock)
    stream, _ = await peer.opened()
    assert stream.can_write_eof()
    stream.write_eof()
    stream.write_eof()
    with pytest.raises(RuntimeError, match="write_eof"):
        stream.write(b"x")
    stream.close()
    assert await peer.heard() == [FIN_1]


async def test_closing_sends_what_waits_before_the_end(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    stream.write(bytes(INITIAL_WINDOW + 5))
    stream.close()
    stream.write(b"too late")
    frames = await peer.heard()
    assert recorder.events[-1] == "pause" or recorder.events == ["made"]
    peer.say(yamux.window_update(1, 100))
    frames += await peer.heard()
    assert len(payload_of(frames)) == INITIAL_WINDOW + 5
    assert frames[-1] == FIN_1
    assert recorder.events[-1] == "lost"
    peer.say(end(1))
    assert peer.session.streams == 0


async def test_data_after_close_resets_the_stream_once(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    stream.close()
    assert await peer.heard() == [FIN_1]
    peer.say(data(1, b"x"), data(1, b"y"), end(1))
    assert await peer.heard() == [RST_1]
    assert recorder.received == b""
    assert peer.session.streams == 0


async def test_aborting_drops_what_waits_and_resets(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    stream.write(bytes(INITIAL_WINDOW + 5))
    await peer.heard()
    stream.abort()
    stream.abort()
    assert await peer.heard() == [RST_1]
    assert recorder.events[-1] == "lost"
    assert stream.get_write_buffer_size() == 0
    peer.say(data(1, b"late"), yamux.window_update(1, 5), end(1))
    assert await peer.heard() == []


async def test_a_reset_by_the_peer_is_an_error_and_not_answered(clock: Clock) -> None:
    peer = Peer(clock)
    stream, recorder = await peer.opened()
    peer.say(yamux.window_update(1, 0, RST))
    stream.write(b"x")
    assert await peer.heard() == []
    assert recorder.events == ["made", "lost"]
    assert isinstance(recorder.error, ConnectionResetError)


async def test_a_closed_stream_whose_peer_never_ends_is_reset_after_a_while(clock: Clock) -> None:
    peer = Peer(clock)
    stream, _ = await peer.opened()
    stream.close()
    await peer.heard()
    for value in range(2):
        assert peer.session.streams == 1
        clock.move(PING_INTERVAL + 1)
        peer.say(yamux.ping(value, reply=True))
    assert RST_1 in await peer.heard()
    assert peer.session.streams == 0


async def test_a_protocol_that_fails_loses_its_stream_only(clock: Clock) -> None:
    peer = Peer(clock)
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
    _, bad = await peer.opened(1)
    _, good = await peer.opened(3)

    def fail() -> None:
        raise ValueError("a bug")

    bad.on_data = fail
    peer.say(data(1, b"x"), data(3, b"y"))
    assert await peer.heard() == [RST_1]
    assert isinstance(bad.error, ValueError)
    assert good.received == b"y"
    assert reported == ["a protocol failed"]


async def test_a_stream_tells_the_clients_address_and_nothing_of_the_tls_below(clock: Clock) -> None:
    peer = Peer(clock)
    stream, _ = await peer.opened()
    assert stream.get_extra_info("peername") == ("192.0.2.7", 50000)
    assert stream.get_extra_info("sslcontext") is None
    assert stream.get_extra_info("socket", "none") == "none"


async def test_another_protocol_may_take_over(clock: Clock) -> None:
    peer = Peer(clock)
    stream, first = await peer.opened()
    second = Recorder()
    stream.set_protocol(second)
    assert stream.get_protocol() is second
    peer.say(data(1, b"x"))
    assert not first.received
    assert second.received == b"x"


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
        await asyncio.sleep(0)
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
        await asyncio.sleep(0)
        turns += 1
    await asyncio.sleep(0)
    assert peer.socket.reading


async def test_a_turn_opens_a_few_streams_only(clock: Clock) -> None:
    peer = Peer(clock, streams=1000)
    peer.say(*[yamux.window_update(number, 0, SYN) for number in range(1, 200, 2)])
    assert len(peer.accepted) <= 8
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(peer.accepted) == 100


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
        await asyncio.sleep(0)
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


# Two sessions over a small pipe


def echo(session_clock: Clock, capacity: int) -> tuple[MuxSession, Callable[[], int]]:
    """A client session whose server sends everything back, with real back-pressure."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def pause_writing(self) -> None:
            self.transport.pause_reading()

        def resume_writing(self) -> None:
            self.transport.resume_reading()

        def eof_received(self) -> bool:
            self.transport.write_eof()
            return True

    server = MuxSession(session_clock.deadlines, client=False, accept=Echo, window=LARGE)
    client = MuxSession(session_clock.deadlines, client=True, window=LARGE)
    memory_pair(server, client, capacity)
    return client, lambda: server.streams


@pytest.mark.parametrize("capacity", [8, 1000, 100000])
async def test_bytes_go_round_intact_over_a_pipe_of_any_size(clock: Clock, capacity: int) -> None:
    client, left = echo(clock, capacity)
    text = bytes(range(256)) * (8 if capacity == 8 else 4000)
    ends = [client.open(lambda: Recorder(half_close=True)) for _ in range(5)]
    for stream, _ in ends:
        stream.write(text)
        stream.write_eof()
    for stream, recorder in ends:
        await recorder.until(event="end")
        assert recorder.received == text
        stream.close()
        await recorder.until(event="lost")
    assert client.streams == 0
    assert left() >= 0


async def test_a_reader_that_never_reads_holds_a_bounded_number_of_bytes(clock: Clock) -> None:
    server_side: list[Recorder] = []

    def accept() -> Recorder:
        server_side.append(Recorder())
        return server_side[-1]

    server = MuxSession(clock.deadlines, client=False, accept=accept, window=LARGE)
    client = MuxSession(clock.deadlines, client=True)
    memory_pair(server, client)
    stream, recorder = client.open(Recorder)
    other, _ = client.open(Recorder)
    stream.write(b"x")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    server_side[0].transport.pause_reading()
    while "pause" not in recorder.events:
        stream.write(bytes(10000))
        await asyncio.sleep(0)
    other.write(b"not blocked")
    await server_side[1].until(size=11)
    assert stream.get_write_buffer_size() <= HIGH_WATER + 10000
    assert len(server_side[0].received) <= 1
    assert await client.probe(5)
