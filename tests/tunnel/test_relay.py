"""Two transports joined."""

from __future__ import annotations

from harp.tunnel.relay import Relay
from tests.fakes.transport import MemoryTransport, Recorder, memory_pair
from tests.fakes.waiting import settled, turn


class Pair:
    """user - relay - relay - service, over pipes of 100 bytes."""

    def __init__(self, *, join: bool = True) -> None:
        self.user, self.service = Recorder(half_close=True), Recorder(half_close=True)
        self.near, self.far = Relay(), Relay()
        memory_pair(self.user, self.near, capacity=100)
        memory_pair(self.far, self.service, capacity=100)
        if join:
            self.near.join(self.far)


async def test_bytes_go_both_ways_in_order() -> None:
    pair = Pair()
    pair.user.transport.write(bytes(range(256)) * 10)
    pair.service.transport.write(b"answer")
    await pair.service.until(size=2560)
    await pair.user.until(size=6)
    assert pair.service.received == bytes(range(256)) * 10
    assert pair.user.received == b"answer"


async def test_nothing_is_read_before_both_ends_are_there() -> None:
    pair = Pair(join=False)
    pair.user.transport.write(b"early")
    await settled()
    pair.near.join(pair.far)
    await pair.service.until(size=5)


async def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    pair = Pair()
    pair.service.transport.pause_reading()
    written = 0
    while "pause" not in pair.user.events:
        pair.user.transport.write(bytes(50))
        written += 50
        await turn()
        assert written < 1000
    pair.service.transport.resume_reading()
    await pair.service.until(size=written)
    await pair.user.until(event="resume")


async def test_a_half_close_is_passed_on_and_the_answer_still_comes() -> None:
    pair = Pair()
    pair.user.transport.write(b"question")
    pair.user.transport.write_eof()
    await pair.service.until(event="end")
    assert pair.service.received == b"question"
    pair.service.transport.write(b"answer")
    pair.service.transport.close()
    await pair.user.until(event="end")
    assert pair.user.received == b"answer"


async def test_a_lost_end_takes_the_other_with_it() -> None:
    pair = Pair()
    pair.near.connection_lost(ConnectionResetError())
    await pair.service.until(event="end")
    assert pair.far.transport is not None
    assert pair.far.transport.is_closing()


def eager_pair() -> tuple[Relay, Relay, MemoryTransport, MemoryTransport]:
    """Transports may read once more after they were paused, as uvloop's do while they are being made."""
    near, far, user, service = Relay(), Relay(), MemoryTransport(), MemoryTransport()
    near.connection_made(user)
    far.connection_made(service)
    return near, far, user, service


def test_what_arrives_before_the_pair_is_made_is_kept_for_it() -> None:
    near, far, user, service = eager_pair()
    user.resume_reading()  # as the loop does after connection_made
    near.data_received(b"GET / HT")
    assert not user.reading
    near.data_received(b"TP/1.1")
    far.join(near)
    near.data_received(b" and more")
    assert service.sent == b"GET / HTTP/1.1 and more"
    assert user.reading
    assert service.reading


def test_an_end_before_the_pair_is_made_is_passed_on_after_the_bytes() -> None:
    near, far, user, service = eager_pair()
    near.data_received(b"question")
    assert near.eof_received()
    far.join(near)
    assert (service.sent, service.eof_sent) == (b"question", True)
    far.data_received(b"answer")
    assert user.sent == b"answer"
    assert not far.eof_received()


def test_an_end_that_is_gone_before_the_pair_is_made_takes_the_other_with_it() -> None:
    near, far, user, service = eager_pair()
    user.close()
    near.connection_lost(None)
    far.join(near)
    assert service.closed
