"""What makes a gateway one of several, whatever links it with the others: a worker or a replica."""

from __future__ import annotations

import structlog

from harp.app import Harp
from harp.cluster.members import Members
from harp.errors import HarpError
from harp.member_facts import MemberFacts
from harp.net.tasks import Tasks
from harp.tenant import Tenant
from harp.wire.member import Operated, Renewed

log = structlog.get_logger()


class MemberGateway:
    """What workers and replicas have in common of a Membership, and as MembersOwner."""

    members: Members
    _harp: Harp
    _facts: MemberFacts

    def __init__(self) -> None:
        self._tasks = Tasks()
        self._attached: dict[str, Tenant] = {}  # by instance

    def share(self, harp: Harp, members: Members, facts: MemberFacts) -> None:
        """Share what this gateway has."""
        self._harp, self.members, self._facts = harp, members, facts
        members.answers = {"snapshot": facts.tell_snapshot, "requests": facts.tell_requests}

    # As Membership

    async def refresh(self, path: bytes) -> None:
        """As Membership."""
        await self._facts.refresh(path)

    async def attach(self) -> None:
        """Share its Nextclouds from now on."""
        strangers = self._harp.tenants.strangers
        if strangers is not None:
            self.members.attach_strangers(strangers)
        await self.tenants_changed()

    async def tenants_changed(self) -> None:
        """As Membership."""
        serving = {tenant.settings.instance: tenant for tenant in self._harp.tenants}
        for name, tenant in self._attached.items():
            if serving.get(name) is not tenant:
                await self.members.detach(name)
        for name, tenant in serving.items():
            if self._attached.get(name) is not tenant:
                self.members.attach(name, tenant.ports, tenant.tunnels, tenant.instance)
        self._attached = serving

    def renewed_here(self) -> None:
        """As Membership."""
        self.members.tell(Renewed())

    # As MembersOwner

    def renewed(self) -> None:
        """As MembersOwner."""
        try:
            self._harp.reload_tunnel_certificates()
        except HarpError as error:
            log.error("tunnel certificates not renewed", problem=str(error))

    def operated(self, change: Operated) -> None:
        """As MembersOwner."""
        facts = self._facts
        if change.what == "level":
            facts.change_own_logs(change.value, None)
        elif change.what == "access":
            facts.change_own_logs(None, change.value)
        elif change.what == "end engine":
            facts.end_own_engine(change.value, change.instance)
