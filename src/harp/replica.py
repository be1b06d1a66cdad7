"""One of several replicas (HP_CLUSTER_URL): a whole gateway, linked with those that the store lists."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from harp.app import Harp
from harp.cluster.linker import Linker, ListedReplica
from harp.cluster.members import Members
from harp.errors import HarpError
from harp.logs import RareWarnings, configure, drain
from harp.loops import event_loop
from harp.member import MemberGateway
from harp.net.member_tls import member_tls
from harp.replica_facts import ReplicaFacts
from harp.serving import serve_until_told
from harp.settings import Settings
from harp.upgrade import UpgradeFailed

if TYPE_CHECKING:
    from harp.settings import ClusterSettings

PATIENCE = 3.0  # seconds without an answer until a replica gets no more requests; twice as many until it is given up
MEETING = 3.0  # seconds that a new replica waits for links with all others

log = structlog.get_logger()


class Listing(Protocol):
    """The list of replicas, and our place in it: `cluster.roster.Roster`."""

    name: str
    boot: str  # of our process
    problem: str  # "" = the list is true

    @property
    def peers(self) -> Mapping[str, ListedReplica]:
        """The other replicas, by name; what was known last while the store is away."""

    async def claim_ca(self, directory: Path) -> None:
        """See that certificates may be made in `directory`."""

    async def join(self, directory: Path) -> None:
        """Take our place, and see who else is there."""

    async def run(self) -> None:
        """Keep it, and the list true, until cancelled."""

    async def close(self) -> None:
        """Leave."""


class ClusterReplica(MemberGateway):
    """What makes a gateway one of several: the Membership of `Harp`, the MembersOwner of its links, and the owner of
    its list."""

    over_tls = True

    def __init__(self, settings: Settings, listing: Callable[[ClusterReplica, RareWarnings], Listing]) -> None:
        super().__init__()
        self._settings = settings
        self._directory = settings.certs / "frp"
        loop = asyncio.get_running_loop()
        self._warnings = RareWarnings(loop.time, loop.call_later)
        self._list = listing(self, self._warnings)
        self._replica_facts: ReplicaFacts
        self._linker: Linker | None = None
        self._listing: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    # As Membership

    async def prepare(self) -> None:
        """As Membership."""
        await self._list.claim_ca(self._directory)

    def facts(self, harp: Harp) -> ReplicaFacts:
        """As Membership."""
        tunnel = self._settings.tunnel
        members = Members(
            self._list.name, self, harp.deadlines, harp.turns, tunnel, boot=self._list.boot, patience=PATIENCE
        )
        self._replica_facts = facts = ReplicaFacts(harp, members)
        facts.list_problem = lambda: self._list.problem
        self.share(harp, members, facts)
        return facts

    async def join(self, harp: Harp) -> None:
        """As Membership."""
        tls = await asyncio.to_thread(member_tls, self._directory)
        self._linker = linker = Linker(self.members, self._list, tls, self._warnings)
        self._replica_facts.problems = linker.problems
        await self.attach()
        harp.tunnel.accept_links(linker)
        await harp.open_admin()
        await self._list.join(self._directory)

    async def meet(self) -> None:
        """As Membership: clients wait until we know what the others have, or for a while."""
        linker = self._linker
        assert linker is not None
        self._listing = self._tasks.start(self._list.run())
        self.peers_changed()
        if not await linker.all_linked(MEETING):
            away = sorted(self._list.peers.keys() - self.members.talking)
            log.warning("replica begins without links", members=away)
        await self.members.greeted()
        self._harp.tunnel.admit_clients()

    def begin(self) -> None:
        """As Membership."""
        self._tasks.start(self.members.watch())
        self._tasks.start(self._replica_facts.keep_asking())

    async def tenants_changed(self) -> None:
        """As Membership: after HUP, certificates may be others as well."""
        await super().tenants_changed()
        if self._linker is not None:
            await self._reload()

    def renewed_here(self) -> None:
        """As Membership."""
        super().renewed_here()
        self._tasks.start(self._reload())

    def stop_accepting(self) -> bool:
        """As Membership: nobody shall dial us any more. Clients of tunnels find another replica."""
        self.members.others_drained()  # which tells them
        if self._leaving is None and self._linker is not None:
            self._leaving = asyncio.get_running_loop().create_task(self._leave())
        return bool(self.members.talking)

    def others_drained(self) -> bool:
        """As Membership. The others go on: their clients are not ours to wait for."""
        return True

    def failed(self, reason: str) -> None:
        """As Membership."""

    async def upgrade(self) -> int:
        """As Membership."""
        raise UpgradeFailed("this HaRP is one of several replicas: stop and start them one after another instead")

    async def leave(self) -> None:
        """As Membership."""
        if self._leaving is not None:
            await asyncio.wait((self._leaving,))
        await self._tasks.close()
        await self.members.close()

    # As MembersOwner, and of the list

    def links_changed(self) -> None:
        """As MembersOwner."""
        if self._linker is not None:
            self._linker.look()

    def link_lost(self, member: str, serial: int) -> None:
        """As MembersOwner."""
        self.links_changed()

    def renewed(self) -> None:
        """As MembersOwner."""
        super().renewed()
        self._tasks.start(self._reload())

    def peers_changed(self) -> None:
        """As RosterOwner."""
        self._replica_facts.listed = self._list.peers
        self.links_changed()

    # Inside

    async def _reload(self) -> None:
        """Show certificates as they are now from the next link on."""
        assert self._linker is not None
        try:
            self._linker.tls = await asyncio.to_thread(member_tls, self._directory)
        except HarpError as error:
            log.error("tunnel certificates not renewed", problem=str(error))

    async def _leave(self) -> None:
        linker = self._linker
        assert linker is not None
        await linker.close()
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.wait((self._listing,))
        await self._list.close()


def run(settings: Settings, cluster: ClusterSettings) -> int:
    """Serve until asked to stop; return the exit code."""
    from harp.cluster.roster import Roster  # noqa: PLC0415 - its libraries are for replicas alone

    return run_listed(settings, cluster.name, lambda replica, warnings: Roster(cluster, replica, warnings))


def run_listed(settings: Settings, name: str, listing: Callable[[ClusterReplica, RareWarnings], Listing]) -> int:
    """As `run`, with another list of replicas, where this one is called `name`."""
    configure(settings.logs, settings.secrets, fields={"replica": name})

    async def serve() -> int:
        return await serve_until_told(Harp(settings, member=ClusterReplica(settings, listing)))

    with asyncio.Runner(loop_factory=event_loop()) as runner:
        status = runner.run(serve())
        drain()
        os._exit(status)  # not by returning: that waits for every thread
