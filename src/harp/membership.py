"""What makes a gateway one of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from harp.app import Harp
    from harp.facts import HarpFacts


class Membership(Protocol):
    """One of several workers (`harp.worker.Worker`) or replicas (`harp.replica.ClusterReplica`), or the old or new
    process of an upgrade (`harp.kin.Kin`)."""

    over_tls: bool  # its links need the certificate of members

    async def prepare(self) -> None:
        """It is about to look at its certificates, and makes those that are missing."""

    def facts(self, harp: Harp) -> HarpFacts:
        """Return what its admin listener shows: the facts of all."""

    async def refresh(self, path: bytes) -> None:
        """Somebody looks at this page of them."""

    async def join(self, harp: Harp) -> None:
        """It is about to listen."""

    async def meet(self) -> None:
        """It listens for tunnels and links, and is about to serve clients."""

    def begin(self) -> None:
        """It serves."""

    async def tenants_changed(self) -> None:
        """It serves other Nextclouds now."""

    def renewed_here(self) -> None:
        """It has made certificates."""

    def stop_accepting(self) -> bool:
        """It is about to drain; may the clients of its tunnels connect to others?"""

    def others_drained(self) -> bool:
        """It has drained; have all others, which may use its tunnels?"""

    async def leave(self) -> None:
        """It has ended its tunnels."""

    def failed(self, reason: str) -> None:
        """It could not start."""

    async def upgrade(self) -> int:
        """Have a new version serve in its place, and return its process id. Raises UpgradeFailed."""
