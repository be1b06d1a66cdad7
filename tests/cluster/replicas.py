"""Replicas in one process: members that dial each other over TLS on loopback, by a list that the test writes."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harp.cluster.linker import Linker
from harp.logs import RareWarnings
from harp.net import certificates
from harp.net.member_tls import member_tls
from harp.net.tasks import Tasks
from harp.tunnel.relay import Relay
from tests.cluster.world import MemberWorld
from tests.fakes.clock import Clock
from tests.fakes.waiting import until

PATIENCE = 3.0


@dataclass(frozen=True)
class Place:
    """An entry of the list."""

    boot: str
    host: str
    port: int


@dataclass
class WrittenList:
    """The list of one replica."""

    peers: dict[str, Place]


class ReplicaWorld(MemberWorld):
    """One replica, with the certificates of `directory`."""

    def __init__(self, name: str, clock: Clock, directory: Path, boot: str = "", tls: ssl.SSLContext | None = None):
        super().__init__(name, clock, tls, boot=boot or f"boot of {name}", patience=PATIENCE)
        self.list = WrittenList({})
        self.linker = Linker(self.members, self.list, member_tls(directory), RareWarnings(clock))
        self.server.accept_links(self.linker)
        self.server.admit_clients()

    @property
    def place(self) -> Place:
        """Where it is reached."""
        return Place(self.members.boot, "127.0.0.1", self.server.bound_ports[0])

    def links_changed(self) -> None:
        """As MembersOwner."""
        super().links_changed()
        self.linker.look()

    def learn(self, name: str, place: Place | None) -> None:
        """Have an entry in its list, or have it there no more."""
        if place is None:
            self.list.peers.pop(name, None)
        else:
            self.list.peers[name] = place
        self.linker.look()

    async def linked(self, *names: str) -> None:
        """Wait until it talks with these alone."""
        await until(lambda: self.members.talking == set(names))

    async def close(self) -> None:
        """End it."""
        await self.linker.close()
        await super().close()


class Cable:
    """A way to a replica on which bytes can be held up."""

    def __init__(self, replica: ReplicaWorld) -> None:
        self._replica = replica
        self._relays: list[Relay] = []
        self._tasks = Tasks()
        self._server: asyncio.Server

    async def __aenter__(self) -> Place:
        self._server = await asyncio.get_running_loop().create_server(self._near, "127.0.0.1")
        return Place(self._replica.members.boot, *self._server.sockets[0].getsockname())

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        await self._tasks.close()
        for relay in self._relays:
            assert relay.transport is not None
            relay.transport.abort()

    def hold_up(self) -> None:
        """Let nothing pass any more on the connections that there are."""
        for relay in self._relays:
            assert relay.transport is not None
            relay.transport.pause_reading()

    def _near(self) -> Relay:
        near = Relay()
        self._relays.append(near)
        self._tasks.start(self._join(near))
        return near

    async def _join(self, near: Relay) -> None:
        place = self._replica.place
        _, far = await asyncio.get_running_loop().create_connection(Relay, place.host, place.port)
        self._relays.append(far)
        near.join(far)


def member_certificates(directory: Path) -> Path:
    """Return a directory with certificates of a CA of its own."""
    certificates.ensure(directory, 30, datetime.now(UTC), member=True)
    return directory


def introduce(*replicas: ReplicaWorld) -> None:
    """Have each in the lists of all others."""
    for one in replicas:
        for other in replicas:
            if other is not one:
                one.learn(other.name, other.place)
