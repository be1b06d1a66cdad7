"""What the admin listener of a replica shows: lists of all replicas, counts for Prometheus of this one alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from msgspec.structs import replace

from harp.cluster.linker import ListedReplica
from harp.lazy import load_module
from harp.member_facts import MemberFacts, line_of_member
from harp.status.pages import Page
from harp.status.snapshot import REPLICA, MemberLine, Snapshot

METRICS = b"/metrics"


class ReplicaFacts(MemberFacts):
    """The facts of all replicas, as each of them shows them. It has the many methods of its parents."""

    listed: Mapping[str, ListedReplica] = {}  # by name: the others, as the store has them
    problems: Mapping[str, str] = {}  # by name: why one is not linked
    list_problem: Callable[[], str] = str  # what is wrong with the list

    async def refresh(self, path: bytes) -> None:
        """As MemberFacts. Prometheus asks each replica, and adds up itself."""
        if path != METRICS:
            await super().refresh(path)

    async def metrics(self) -> Page:
        """As HarpFacts, of this one."""
        module = await load_module("harp.status.metrics")
        own = self.own_snapshot(bans=False)
        page: Page = await asyncio.to_thread(module.page, replace(own, members=tuple(self.member_lines(own))))
        return page

    def member_lines(self, own: Snapshot) -> Iterator[MemberLine]:
        members = self._members
        for name in sorted({members.name, *self.listed, *members.links}):
            linked = name in members.talking
            if name == members.name:
                line = line_of_member(name, own, self.rates.of(name), leads=True, linked=True)
            elif name in self._others:
                line = line_of_member(name, self._others[name], self.rates.of(name), leads=False, linked=linked)
            else:
                line = MemberLine(name, False, linked, 0, 0.0, 0.0, 0, 0, 0, 0, 0.0)
            trouble = "it does not answer" if name in members.busy else self.problems.get(name, "")
            if name == members.name:
                trouble = self.list_problem()
            place = self.listed.get(name)
            address = f"{place.host}:{place.port}" if place is not None else ""
            yield replace(line, kind=REPLICA, trouble=trouble, address=address)
