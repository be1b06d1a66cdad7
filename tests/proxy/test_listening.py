"""What probes say about the service behind a tunnel, and about streams that were opened before and after them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from structlog.testing import capture_logs

from harp.errors import TunnelAway
from harp.net.ports import ProtocolFactory
from harp.proxy.listening import FIRST_SILENCE, PROBE_LIMIT, SILENCE, STEP, Listening, Verdict
from tests.fakes.clock import Clock
from tests.fakes.transport import MemoryTransport


class ClosingTunnel:
    """An offer whose streams are closed by the other side when the test says so."""

    name = "hello"

    def __init__(self) -> None:
        self.away = False
        self.probes: list[tuple[MemoryTransport, asyncio.Protocol]] = []

    async def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        if self.away:
            raise TunnelAway("away")
        transport, protocol = MemoryTransport(), factory()
        assert isinstance(protocol, asyncio.Protocol)
        protocol.connection_made(transport)
        self.probes.append((transport, protocol))
        return transport, protocol

    def close(self, index: int) -> None:
        self.probes[index][1].eof_received()


class ProbeWorld:
    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = self.clock.deadlines
        self.tunnel = ClosingTunnel()
        self.tasks: list[asyncio.Task[None]] = []
        self.listening = Listening(self.tunnel, self.deadlines, self.start)

    def start(self, work: Coroutine[None, None, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    async def ask(self, number: int, *, after: float = 0.0) -> Verdict:
        """The verdict after some time, with the probe it may have caused sent."""
        self.clock.move(after)
        verdict = self.listening.verdict(number)
        await asyncio.gather(*self.tasks)
        return verdict


async def test_a_probe_is_a_stream_that_is_closed_at_once() -> None:
    world = ProbeWorld()
    assert await world.ask(world.listening.opened()) is Verdict.OPEN
    ((transport, _),) = world.tunnel.probes
    assert (transport.sent, transport.eof_sent) == (b"", True)


async def test_probes_are_not_sent_faster_than_their_step() -> None:
    world = ProbeWorld()
    stream = world.listening.opened()
    for _ in range(3):
        await world.ask(stream)
    assert len(world.tunnel.probes) == 1
    await world.ask(stream, after=STEP)
    assert len(world.tunnel.probes) == 2


async def test_a_stream_of_which_nothing_was_known_before_an_answered_probe_is_doubtful() -> None:
    world = ProbeWorld()
    stream = world.listening.opened()
    await world.ask(stream)
    world.tunnel.close(0)
    assert await world.ask(stream) is Verdict.DOUBTFUL
    assert not world.listening.missed(stream)


async def test_a_stream_between_two_signs_of_life_has_reached_the_service() -> None:
    world = ProbeWorld()
    world.listening.heard(world.listening.opened())
    stream = world.listening.opened()
    assert await world.ask(stream) is Verdict.OPEN
    world.tunnel.close(0)
    assert await world.ask(stream) is Verdict.REACHED


async def test_a_stream_is_lost_when_two_probes_after_it_stay_without_an_answer() -> None:
    world = ProbeWorld()
    world.listening.heard(world.listening.opened())
    stream = world.listening.opened()
    await world.ask(stream)
    await world.ask(stream, after=STEP)
    assert await world.ask(stream, after=PROBE_LIMIT - STEP) is Verdict.OPEN
    with capture_logs() as logs:
        assert await world.ask(stream, after=STEP) is Verdict.LOST
    assert [(entry["event"], entry["name"]) for entry in logs] == [("nothing listens behind a tunnel", "hello")]
    assert world.tunnel.probes[0][0].aborted
    assert world.tunnel.probes[1][0].aborted


async def test_a_probe_that_is_overtaken_by_a_later_one_has_met_nobody() -> None:
    world = ProbeWorld()
    stream = world.listening.opened()
    await world.ask(stream)
    await world.ask(stream, after=STEP)
    world.tunnel.close(1)
    assert await world.ask(stream) is Verdict.DOUBTFUL
    assert world.listening.missed(stream)


async def test_one_slow_probe_does_not_declare_a_service_dead() -> None:
    world = ProbeWorld()
    world.listening.heard(world.listening.opened())
    stream = world.listening.opened()
    await world.ask(stream)
    assert await world.ask(stream, after=PROBE_LIMIT) is Verdict.OPEN
    world.tunnel.close(1)
    assert await world.ask(stream) is Verdict.REACHED


async def test_a_tunnel_that_gives_no_stream_says_nothing_about_the_service() -> None:
    world = ProbeWorld()
    world.tunnel.away = True
    stream = world.listening.opened()
    for _ in range(40):
        assert await world.ask(stream, after=STEP) is Verdict.OPEN


async def test_patience_is_short_until_something_has_been_heard() -> None:
    world = ProbeWorld()
    assert world.listening.first_silence == FIRST_SILENCE
    world.listening.heard(world.listening.opened())
    assert world.listening.first_silence == SILENCE


async def test_its_state_is_one_line() -> None:
    world = ProbeWorld()
    assert repr(world.listening) == "<Listening hello: not known to listen, 0 probes>"
