"""What the admin listener of several workers shows: it is that of the worker that leads, for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harp.cluster.members import Members
from harp.frontend.traffic import CLASSES, Traffic
from harp.gathering import NO_TRAFFIC
from harp.member_facts import MemberFacts, line_of_member
from harp.status.history import ALL
from harp.status.merged import ended, merged
from harp.status.snapshot import MemberLine, Snapshot, TrafficLine

if TYPE_CHECKING:
    from harp.app import Harp

SAMPLES = 4.0  # seconds between two questions while nobody looks: there are samples every 5 s


class WorkerFacts(MemberFacts):
    """The facts of all workers, where this one leads. It has the many methods of its parents."""

    def __init__(self, harp: Harp, members: Members, count: int) -> None:
        super().__init__(harp, members)
        self._count = count
        self._ended: dict[str, Snapshot] = {}  # what processes have counted that are no more, or not linked any more

    async def keep_asking(self) -> None:
        """Ask the others until cancelled, with every sample of the plots: this worker leads."""
        while True:
            await asyncio.sleep(1.0 if self.looked_at else SAMPLES)
            await self._ask()

    def traffic(self) -> Iterator[tuple[str, Traffic]]:
        """As HarpFacts: each ExApp once."""
        apps: dict[str, Traffic] = {}
        for app, own in super().traffic():
            if app == ALL:
                yield app, own
            else:
                apps[app] = own
        for snapshot in (*self._others.values(), *self._ended.values()):
            yield ALL, _counts(snapshot.control)
            yield ALL, _counts(snapshot.others)
            for line in snapshot.apps:  # several with one id, where there are several Nextclouds
                apps[line.app] = _counts(line.traffic, apps.get(line.app))
        yield from apps.items()

    def member_lines(self, own: Snapshot) -> Iterator[MemberLine]:
        members = self._members
        for number in range(self._count):
            name = str(number)
            if name == members.name:
                yield line_of_member(name, own, self.rates.of(name), leads=True, linked=True)
            elif name in self._others:
                linked = name in members.talking
                yield line_of_member(name, self._others[name], self.rates.of(name), leads=False, linked=linked)
            else:
                yield MemberLine(name, False, name in members.talking, 0, 0.0, 0.0, 0, 0, 0, 0, 0.0)

    def over(self, member: str) -> Snapshot:
        """As MemberFacts. What it has counted goes on to count, or the metrics would seem to begin again."""
        last = ended(super().over(member))
        before = self._ended.get(member)
        self._ended[member] = last = last if before is None else merged(last, [before])
        return last

    def _counted(self) -> list[Snapshot]:
        return [*super()._counted(), *self._ended.values()]


def _counts(line: TrafficLine, more: Traffic | None = None) -> Traffic:
    """Return what the plots need of the counts of others, added to those of one process."""
    traffic, more = Traffic(), more or NO_TRAFFIC
    traffic.classes = [line.statuses.get(name, 0) + count for name, count in zip(CLASSES, more.classes, strict=True)]
    traffic.sent = line.sent + more.sent
    traffic.buckets = [one + other for one, other in zip(line.buckets, more.buckets, strict=True)]
    return traffic
