"""Yamux streams are transports: they half-close, close, abort, and fail alone."""

from __future__ import annotations

import asyncio

import pytest

from harp.tunnel.mux import PING_INTERVAL
from harp.wire import yamux
from harp.wire.yamux import DATA, FIN, INITIAL_WINDOW, RST, WINDOW_UPDATE, Frame
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder
from tests.tunnel.mux_peer import Peer, data, end, payload_of

FIN_1 = Frame(WINDOW_UPDATE, FIN, 1, 0)

RST_1 = Frame(WINDOW_UPDATE, RST, 1, 0)


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
