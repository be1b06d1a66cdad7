"""The old and the new process of an upgrade, as members of one HaRP (`harp.cluster`) for as long as both run.

They are linked: either serves requests for tunnels that the other one holds, the new one knows of the strikes that the
old one has counted, and work connections without yamux find their tunnel. So it does not matter when a tunnel moves.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from harp.cluster.members import Members
from harp.errors import words_of
from harp.facts import HarpFacts
from harp.member import MemberGateway
from harp.systemd import notify
from harp.upgrade import STOPPING, NewVersion, Predecessor, UpgradeFailed, objection
from harp.wire.member import Drained, Operated

if TYPE_CHECKING:
    from harp.app import Harp

OWN, BEFORE, AFTER = "0", "!0", "~0"  # names, in an order that tells either side of a link which one it is


class Kin(MemberGateway):
    """The Membership of a process that takes over from another one, or is about to be replaced; MembersOwner, too."""

    over_tls = False

    def __init__(self, predecessor: Predecessor | None = None) -> None:
        super().__init__()
        self._predecessor = predecessor
        self._upgrading = False

    def adopt(self, harp: Harp, *, fresh: bool) -> None:
        """Be this gateway's; `fresh` if it has just started."""
        self._harp = harp
        self.members = Members(OWN, self, harp.deadlines, harp.turns, harp.settings.tunnel)
        self.members.fresh = fresh

    # As Membership

    def facts(self, harp: Harp) -> HarpFacts:
        """As Membership."""
        self.adopt(harp, fresh=True)
        return HarpFacts(harp)

    async def refresh(self, path: bytes) -> None:
        """As Membership: what is shown is of this process alone."""

    async def prepare(self) -> None:
        """As Membership."""

    async def meet(self) -> None:
        """As Membership."""

    async def join(self, harp: Harp) -> None:
        """As Membership."""
        assert self._predecessor is not None
        await self.attach()
        self._predecessor.begun(0)
        for number in self._predecessor.links[0]:
            await self.members.link(BEFORE, socket.socket(fileno=number), 0)
        await self.members.greeted()
        self.members.tell(Drained())  # nobody waits until we are
        await harp.open_admin()

    def begin(self) -> None:
        """As Membership."""
        if self._predecessor is not None:
            self._predecessor.ready()

    def failed(self, reason: str) -> None:
        """As Membership."""
        if self._predecessor is not None:
            self._predecessor.failed(reason)

    def stop_accepting(self) -> bool:
        """As Membership."""
        return False

    def others_drained(self) -> bool:
        """As Membership."""
        return True

    async def leave(self) -> None:
        """As Membership."""
        await self._tasks.close()
        await self.members.close()

    async def upgrade(self) -> int:
        """As Membership."""
        parent = os.getppid() if self._predecessor is None else 0  # who was started by one is nobody's main process
        reason = "an upgrade is under way" if self._upgrading else objection(os.environ, os.getpid(), parent)
        if reason or self._harp.draining:
            raise UpgradeFailed(reason or STOPPING)
        self._upgrading = True
        try:
            await self.attach()
            ours, theirs = socket.socketpair()
            unused = [ours]

            async def begun(worker: int) -> None:
                await self.members.link(AFTER, unused.pop(), 0)

            try:
                process = await NewVersion(lambda: self._harp.draining).serve(self._harp.sockets(), [[theirs]], begun)
            finally:
                for sock in unused:
                    sock.close()
        except OSError as error:  # there are too many descriptors, for one
            raise UpgradeFailed(words_of(error)) from error
        finally:
            self._upgrading = False
        notify(f"MAINPID={process}")
        return process

    # As MembersOwner

    def links_changed(self) -> None:
        """As MembersOwner."""

    def link_lost(self, member: str, serial: int) -> None:
        """As MembersOwner."""

    def operated(self, change: Operated) -> None:
        """As MembersOwner."""
