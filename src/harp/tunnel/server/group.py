"""The tunnels of one Nextcloud: their claims, and their ends."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from harp.logs import RareWarnings
from harp.net.deadlines import Deadlines
from harp.net.ports import PortTable
from harp.settings import Settings
from harp.tunnel.server.claim_queue import Check
from harp.tunnel.server.claims import Claims
from harp.tunnel.server.news import TunnelNews
from harp.tunnel.server.tunnel import Tunnel, TunnelFacts
from harp.wire.windows import Budget


class OtherMembers(Protocol):
    """Who knows the tunnels of other members of a cluster, and tells them of ours: `cluster.directory.Directory`."""

    def serve(self, run_id: str) -> bool:
        """Return whether another member serves this client."""

    def count(self) -> int:
        """Return how many tunnels they have."""

    def logged_in(self, run_id: str) -> None:
        """A client has logged in here: the member that had it before ends that tunnel."""

    def ended(self, run_id: str) -> None:
        """Its tunnel is closed."""

    def hand_over(self, run_id: str, transport: asyncio.Transport, version: int) -> None:
        """Bring a work connection to the member that serves its client."""


class TunnelGroup:
    """The `TunnelOwner` of its tunnels. Names, ports and run ids mean nothing outside their group.

    `check` is asked about every claim.
    """

    def __init__(
        self,
        settings: Settings,
        ports: PortTable,
        deadlines: Deadlines,
        check: Check | None = None,
        warnings: RareWarnings | None = None,
    ) -> None:
        self.deadlines = deadlines
        self.warnings = warnings or RareWarnings(lambda: deadlines.now)
        self.news = TunnelNews(self.warnings, deadlines)
        self.claims = Claims(ports, deadlines, listen=settings.tunnel.listen)
        self.check = check
        self.others: OtherMembers | None = None
        self.log = structlog.get_logger()
        if settings.instance:
            self.log = self.log.bind(instance=settings.instance)
        self.limit = 0  # tunnels; 0 = the limit for all is enough
        self.budget: Budget | None = None  # for its windows; None = that of all
        self.tunnels: dict[str, Tunnel] = {}  # by run id

    @property
    def count(self) -> int:
        """How many tunnels there are, those of other members included."""
        return len(self.tunnels) + (0 if self.others is None else self.others.count())

    def facts(self) -> list[TunnelFacts]:
        """Return every live tunnel."""
        return [tunnel.facts() for tunnel in self.tunnels.values()]

    def end_engine(self, name: str) -> int:
        """End the tunnels of an engine: it was removed, or has another key. How many there were."""
        tunnels = [one for one in self.tunnels.values() if (name in one.names) and one.has_engine_port]
        for tunnel in tunnels:
            tunnel.close("the engine was removed, or has another key now", abort=True)
        return len(tunnels)

    def objection(self, run_id: str) -> str:
        """Return why no further tunnel is accepted, "" if one is; a client that reconnects replaces its own tunnel."""
        if not self.limit or self.count < self.limit or self.knows(run_id):
            return ""
        return f"{self.limit} tunnels are connected, which is the limit of this Nextcloud"

    def began(self, tunnel: Tunnel) -> None:
        """A client has logged in."""
        self.tunnels[tunnel.run_id] = tunnel
        if self.others is not None:
            self.others.logged_in(tunnel.run_id)

    def ended(self, tunnel: Tunnel) -> None:
        """As TunnelOwner."""
        if self.tunnels.get(tunnel.run_id) is tunnel:
            del self.tunnels[tunnel.run_id]
            if self.others is not None:
                self.others.ended(tunnel.run_id)

    # Of other members

    def knows(self, run_id: str) -> bool:
        """Return whether there is a tunnel of this client, here or at another member."""
        return run_id in self.tunnels or (self.others is not None and self.others.serve(run_id))

    def end_run(self, run_id: str, reason: str) -> None:
        """End the tunnel of a client, if there is one."""
        tunnel = self.tunnels.get(run_id)
        if tunnel is not None:
            tunnel.close(reason, abort=True)

    def serves_work(self, run_id: str) -> bool:
        """Return whether there is a tunnel without yamux of this client."""
        tunnel = self.tunnels.get(run_id)
        return tunnel is not None and not tunnel.closed and tunnel.mux is None
