"""Whatever a peer sends, a session or a first message ends in order: no exception escapes, nothing is left behind."""

from __future__ import annotations

import asyncio
import random

import pytest

from harp.tunnel.mux import MuxSession
from harp.wire import yamux
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder, memory_pair
from tests.fakes.waiting import settled, turn

SEEDS = range(60)


def random_frame(chance: random.Random, wild: bool) -> bytes:
    """Plausible on its own; `wild` ones also break every rule."""
    number = chance.choice((1, 3, 5, 7, 9, 11))
    flags = chance.choice((0, 0, 0, 0, yamux.SYN, yamux.ACK, yamux.FIN, yamux.RST))
    kind = chance.choice((yamux.DATA, yamux.DATA, yamux.WINDOW_UPDATE, yamux.PING))
    version = 0
    payload = chance.randbytes(chance.choice((0, 1, 100, 40000))) if kind == yamux.DATA else b""
    length = len(payload) or chance.choice((0, 1, 1000, 1 << 20)) * (kind != yamux.DATA)
    if wild and chance.random() < 0.1:
        number = chance.choice((0, 2, 1, 0xFFFFFFFF))
        flags = chance.randrange(0x10000)
        kind = chance.choice((kind, yamux.GO_AWAY, 4))
        version = chance.choice((0, 0, 1))
        length = chance.choice((length, 0xFFFFFFFF))
    return yamux.HEADER.pack(version, kind, flags, number, length) + payload


class Restless(Recorder):
    """Does something to its transport at every opportunity."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(half_close=chance.random() < 0.5)
        self._chance = chance
        self.on_data = self.act

    def act(self) -> None:
        transport = self.transport
        if not transport.is_closing() and not self._chance.random() < 0.3:
            self._chance.choice(
                (
                    transport.pause_reading,
                    transport.resume_reading,
                    transport.close,
                    transport.abort,
                    transport.write_eof,
                    self.write,
                    self.write,
                )
            )()

    def write(self) -> None:
        try:
            self.transport.write(bytes(self._chance.choice((1, 1000, 300000))))
        except RuntimeError as error:
            assert "write_eof" in str(error)


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_frames_and_random_protocols_never_break_a_session(clock: Clock, seed: int) -> None:
    chance = random.Random(seed)
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    ends: list[Restless] = []

    def accept() -> Restless:
        ends.append(Restless(chance))
        return ends[-1]

    session = MuxSession(clock.deadlines, client=False, accept=accept, max_streams=3, window=1 << 20)
    raw = Recorder()
    memory_pair(session, raw, capacity=chance.choice((50, 5000, 500000)))
    for _ in range(200):
        data = random_frame(chance, wild=seed % 2 == 0)
        cut = chance.randrange(len(data) + 1)
        raw.transport.write(data[:cut])
        await turn()
        raw.transport.write(data[cut:])
        await turn()
        if ends:
            chance.choice(ends).act()
        if chance.random() < 0.05:
            clock.move(11)
    session.abort("the test is over")
    await settled()
    assert failures == []
    assert session.streams == 0
    for end in ends:
        assert end.events.count("lost") == 1
        assert end.events.count("end") <= 1
        assert end.transport.get_write_buffer_size() == 0
