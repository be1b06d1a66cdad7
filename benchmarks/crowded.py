"""Many members, Nextclouds and tunnels in one process: what members remember of each other, and how soon they agree.

Members, links, directories, claims and yamux are the program's; a link is a pair of sockets. Tunnels are no more than
their claims, and requests are not made: `benchmarks.members` adds what those cost.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from tests.cluster.world import MemberWorld, link
from tests.fakes.clock import Clock
from tests.fakes.waiting import until

from harp.errors import TunnelAway
from harp.net.memory import resident
from harp.net.ports import PortTable, ProtocolFactory
from harp.policy.claims import ClaimEvent
from harp.tunnel.server.claims import Claim, Connected
from harp.tunnel.server.group import TunnelGroup
from harp.tunnel.server.tunnel import Tunnel
from harp.wire.frp import NewProxy

FIRST_PORT = 23000
AT_ONCE = 50  # tunnels that come before the others hear of them
PROBES = 20  # of each link
PATIENCE = 600.0  # seconds for all to agree


@dataclass(frozen=True, slots=True)
class Crowd:
    """What was simulated, and what was seen. Seconds are those of the one processor that all members share here."""

    members: int
    instances: int
    tunnels: int
    link: float  # bytes of memory for each of its two ends
    entry: float  # bytes that each member remembers of each tunnel, wherever it is
    probe: float  # seconds of processor time for a question and its answer
    change: float  # seconds for a tunnel that comes, at each member
    change_bytes: float  # that each of the others is sent for it
    greeting: float  # seconds until a fresh member knows everything
    greeting_bytes: float  # that it is sent by all others
    forgotten: float  # seconds until all others have dropped the tunnels of a lost member
    agreed: float  # seconds until its clients have come to the others, and all know


class StandInTunnel:
    """A tunnel as its claim needs it, without a session."""

    mux = None

    def __init__(self, run_id: str, since: float) -> None:
        self.run_id = run_id
        self.since = since

    async def alive(self) -> bool:
        return True

    def close(self, reason: str, *, abort: bool = False) -> None:
        """Nobody wants what it has."""

    async def start(self, factory: ProtocolFactory, messages: tuple[bytes, bytes]) -> Connected:
        raise TunnelAway("nothing is behind a tunnel of the simulation")


class CrowdedMember:
    """One member with all Nextclouds."""

    def __init__(self, name: str, clock: Clock) -> None:
        self.world = MemberWorld(name, clock)
        self.tables: list[PortTable] = [self.world.ports]
        self.groups: list[TunnelGroup] = [self.world.group]

    async def start(self, instances: int) -> None:
        await self.world.server.start()
        for number in range(1, instances):
            await self.world.serve_another(f"cloud{number}")
            self.groups.append(self.world.group)
        self.tables += [ports for ports, _ in self.world.others.values()]

    def connect(self, number: int, since: float) -> None:
        """Have a client log in and claim, as tunnel `number` of all."""
        instance, port = number % len(self.groups), number // len(self.groups)
        group = self.groups[instance]
        tunnel = StandInTunnel(f"{since:010.0f}{number:06}", since)
        group.began(cast(Tunnel, tunnel))
        claim = Claim(NewProxy(f"app{port}", "tcp", remote_port=FIRST_PORT + port), tunnel, group.claims)
        claim.move(ClaimEvent.CHECK)
        group.claims.grant(claim)
        group.claims.confirm(claim)

    @property
    def known(self) -> int:
        """Tunnels that requests find here."""
        return sum([len(table.items()) for table in self.tables])

    @property
    def sent(self) -> int:
        return sum([one.mux.sent for one in self.world.members.links.values()])

    @property
    def received(self) -> int:
        return sum([one.mux.received for one in self.world.members.links.values()])


async def simulate(members: int, instances: int, tunnels: int) -> Crowd:
    """Link, fill, lose one and greet another; what that took."""
    clock = Clock()
    crowd = [CrowdedMember(f"{number:02}", clock) for number in range(members)]
    for member in crowd:
        await member.start(instances)
    links = members * (members - 1) // 2
    before = _memory()
    for number, member in enumerate(crowd):
        for other in crowd[:number]:
            await link(member.world, other.world)
    linked = _memory()
    sent = sum(member.sent for member in crowd)
    came = await _timed(lambda: _connect(crowd, range(tunnels), 1.0), crowd, tunnels)
    filled = _memory()
    change_bytes = sum(member.sent for member in crowd) - sent
    probe = await _probe(crowd)
    *rest, lost = crowd
    own = range(members - 1, tunnels, members)
    forgotten = await _timed(lambda: _lose(lost), rest, tunnels - len(own))
    agreed = await _timed(lambda: _connect(rest, own, 2.0), rest, tunnels)
    fresh = CrowdedMember("fresh", clock)
    await fresh.start(instances)
    greeting = await _timed(lambda: _greet(fresh, rest), [fresh], tunnels)
    received = fresh.received
    for member in (*rest, fresh):
        await member.world.close()
    clock.stop()
    return Crowd(
        *(members, instances, tunnels, (linked - before) / (2 * links), (filled - linked) / (members * tunnels), probe),
        *(came / (tunnels * members), change_bytes / (tunnels * (members - 1)), greeting, received, forgotten, agreed),
    )


async def _connect(crowd: Sequence[CrowdedMember], numbers: range, since: float) -> None:
    """Have tunnels come to one member after the other."""
    for at, number in enumerate(numbers):
        crowd[at % len(crowd)].connect(number, since)
        if at % AT_ONCE == 0:
            await asyncio.sleep(0)


async def _lose(member: CrowdedMember) -> None:
    for one in list(member.world.members.links.values()):
        one.abort("it is killed")
    await member.world.close()


async def _greet(fresh: CrowdedMember, others: Sequence[CrowdedMember]) -> None:
    await asyncio.gather(*(link(fresh.world, other.world) for other in others))


async def _timed(work: Callable[[], Awaitable[None]], crowd: Sequence[CrowdedMember], tunnels: int) -> float:
    """Return the seconds until all of the crowd know this number of tunnels. The look itself is not counted."""
    looks = 0.0

    def agree() -> bool:
        nonlocal looks
        began = time.perf_counter()
        found = all(member.known == tunnels for member in crowd)
        looks += time.perf_counter() - began
        return found

    began = time.perf_counter()
    await work()
    await until(agree, PATIENCE)
    return time.perf_counter() - began - looks


async def _probe(crowd: Sequence[CrowdedMember]) -> float:
    """Return the processor time of a question over a link and its answer, both ends together."""
    links = [one for member in crowd for one in member.world.members.links.values()]
    began = time.process_time()
    for _ in range(PROBES):
        answers = await asyncio.gather(*(one.mux.probe(PATIENCE) for one in links))
        assert all(answers)
    return (time.process_time() - began) / (PROBES * len(links))


def _memory() -> int:
    gc.collect()
    return resident()
