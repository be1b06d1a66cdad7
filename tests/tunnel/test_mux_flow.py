"""Windows and back-pressure of yamux streams, with the limits of F 8.1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from harp.tunnel.mux import BATCH, MuxSession
from harp.tunnel.stream import HIGH_WATER
from harp.wire import yamux
from harp.wire.mux import MAX_FRAME
from harp.wire.yamux import ACK, DATA, FIN, INITIAL_WINDOW, PING, WINDOW_UPDATE, Frame
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder, memory_pair
from tests.fakes.waiting import settled, turn
from tests.tunnel.mux_peer import Peer, data, payload_of

LARGE = 1 << 20


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
    await settled()
    assert peer.socket.writes == 1
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


def echo(session_clock: Clock, capacity: int) -> tuple[MuxSession, Callable[[], int]]:
    """A client session whose server sends everything back, with real back-pressure."""

    class EchoStream(asyncio.Protocol):
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

    server = MuxSession(session_clock.deadlines, client=False, accept=EchoStream, window=LARGE)
    client = MuxSession(session_clock.deadlines, client=True, window=LARGE)
    memory_pair(server, client, capacity)
    return client, lambda: server.streams


# Two sessions over a small pipe


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
    await settled()
    server_side[0].transport.pause_reading()
    while "pause" not in recorder.events:
        stream.write(bytes(10000))
        await turn()
    other.write(b"not blocked")
    await server_side[1].until(size=11)
    assert stream.get_write_buffer_size() <= HIGH_WATER + 10000
    assert len(server_side[0].received) <= 1
    assert await client.probe(5)
