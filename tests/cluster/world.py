"""Members in one process: each with its port table, tunnel server and Nextcloud, linked by pairs of sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl

from msgspec.structs import replace

from harp.cluster.members import Members
from harp.net.ports import Offer, PortTable
from harp.net.turns import Turns
from harp.nextcloud.instance import Instance
from harp.settings import Address, Settings, load
from harp.tunnel.server.group import TunnelGroup
from harp.tunnel.server.listener import TunnelServer
from harp.wire.frp import StartWorkConn
from harp.wire.member import Operated
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder
from tests.fakes.waiting import until
from tests.tunnel.peer import KEY, FrpClient, Messages


def settings() -> Settings:
    made = load({"HP_SHARED_KEY": KEY, "NC_INSTANCE_URL": "http://127.0.0.1:1", "HP_BLACKLIST_COUNT": "3"})
    return replace(made, listen=replace(made.listen, frp=(Address("127.0.0.1", 0),)))


class MemberWorld:
    """One member, and the MembersOwner of its links."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
        *,
        boot: str = "",
        patience: float | None = None,
    ) -> None:
        self.name = name
        self.clock = clock
        self.ports = PortTable()
        self.wall = 100.0  # Unix seconds of the next login
        made = settings()
        self.group = TunnelGroup(made, self.ports, clock.deadlines)
        self.server = TunnelServer(made, [self.group], clock.deadlines, self._admit, tls, wall=lambda: self.wall)
        self.instance = Instance(made, clock, clock.deadlines)
        self.members = Members(name, self, clock.deadlines, Turns(), made.tunnel, boot=boot, patience=patience)
        self.members.attach("", self.ports, self.group, self.instance)
        self.members.answers = {"name": self._answer}
        self.happened: list[str] = []
        self.others: dict[str, tuple[PortTable, Instance]] = {}  # more Nextclouds

    def _admit(self, address: str, token: str) -> TunnelGroup | str:
        return self.group

    async def serve_another(self, name: str) -> None:
        """Serve one more Nextcloud, whose clients are all that log in from now on."""
        made = replace(settings(), instance=name)
        ports = PortTable()
        self.group = TunnelGroup(made, ports, self.clock.deadlines)
        self.server.groups.append(self.group)
        instance = Instance(made, self.clock, self.clock.deadlines)
        self.others[name] = (ports, instance)
        self.members.attach(name, ports, self.group, instance)

    async def _answer(self, about: str) -> bytes:
        return (f"{self.name} {about} " * 100_000).encode()

    def client(self, *, mux: bool = True) -> FrpClient:
        return FrpClient(self.server, self.clock, mux=mux)

    def offer(self, port: int) -> Offer:
        offer = self.ports.get(port)
        assert offer is not None
        return offer

    async def offered(self, port: int) -> Offer:
        """What answers for a port, once something does."""
        await until(lambda: self.ports.get(port) is not None)
        return self.offer(port)

    async def close(self) -> None:
        await self.members.close()
        await self.server.close()
        for instance in (self.instance, *(instance for _, instance in self.others.values())):
            await instance.close()

    # As MembersOwner

    def links_changed(self) -> None:
        self.happened.append(f"talks with {sorted(self.members.talking)}")

    def link_lost(self, member: str, serial: int) -> None:
        self.happened.append(f"lost {member}")

    def renewed(self) -> None:
        self.happened.append("certificates renewed")

    def operated(self, change: Operated) -> None:
        self.happened.append(f"{change.what} {change.value}")


async def link(one: MemberWorld, other: MemberWorld) -> None:
    """Link two members; they have greeted each other on return."""
    here, there = socket.socketpair()
    await asyncio.gather(one.members.link(other.name, here, 1), other.members.link(one.name, there, 1))
    await asyncio.gather(one.members.greeted(), other.members.greeted())


async def through(offer: Offer) -> Recorder:
    """The near end of a connection to the service behind a port."""
    _, near = await offer.connect(Recorder)
    assert isinstance(near, Recorder)
    return near


async def far_end(work: Messages) -> Recorder:
    """The far end of that connection: the work stream that was started for it."""
    await work.next(StartWorkConn)
    return work.end
