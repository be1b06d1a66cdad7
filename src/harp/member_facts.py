"""What the admin listener of one of several members shows: the facts of all of them.

The others are asked over the links when somebody looks: whatever is shown was gathered just before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec.structs import replace

from harp.cluster.links import Link
from harp.cluster.members import Members
from harp.errors import HarpError, PeerError
from harp.facts import HarpFacts
from harp.status.merged import merged
from harp.status.rates import Rates
from harp.status.snapshot import MemberLine, RequestLine, RequestLines, RunningLine, Snapshot
from harp.wire.decoding import decoded
from harp.wire.member import Operated

if TYPE_CHECKING:
    from harp.app import Harp

FRESH = 0.05  # seconds that what the others have said will do
PATIENCE = 2.0  # seconds for all of them to answer
AGAIN = 1.0  # seconds between two questions while somebody looks
WATCH = "watch"  # ask for requests, and for those that will come
LOOKED = 30.0  # seconds after a look that the others are asked every second

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class MemberFacts(HarpFacts):
    """The facts of all members; what it tells the others are its own. It has the many methods of its parent."""

    def __init__(self, harp: Harp, members: Members) -> None:
        super().__init__(harp)
        self._members = members
        self._loop = asyncio.get_running_loop()
        self._others: dict[str, Snapshot] = {}  # by member
        self._seen: dict[str, tuple[float, int, int]] = {}  # its start, and the last request and failure that we have
        self._running: dict[str, tuple[RunningLine, ...]] = {}
        self.rates = Rates()
        self._asked = self._looked = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def keep_asking(self) -> None:
        """Ask the others until cancelled, while somebody looks."""
        while True:
            await asyncio.sleep(AGAIN)
            if self.looked_at:
                await self._ask()

    @property
    def looked_at(self) -> bool:
        """Return whether somebody has looked lately: an open page does not refresh."""
        return self.feed.watching or self._loop.time() - self._looked < LOOKED

    def member_lines(self, own: Snapshot) -> Iterator[MemberLine]:
        """Yield a line for each member."""
        raise NotImplementedError

    def over(self, member: str) -> Snapshot:
        """Forget a process that is no more, and return what it had counted."""
        self._running.pop(member, None)
        self.rates.forget(member)
        return self._others.pop(member)

    async def refresh(self, path: bytes) -> None:
        """Somebody looks at a page: ask the others, unless that was done a moment ago.

        To watch every request costs as much as to serve some of them, so the others do it only while we do.
        """
        self._looked = self._loop.time()
        if b"requests" in path:
            self.feed.glance()
        if self._looked - self._asked > FRESH:
            if self._asking is None or self._asking.done():
                self._asking = self._loop.create_task(self._ask())
            await asyncio.shield(self._asking)

    # What others ask

    async def tell_snapshot(self, about: str) -> bytes:
        """As an answer of Members."""
        return msgspec.json.encode(self.own_snapshot())

    async def tell_requests(self, about: str) -> bytes:
        """As an answer of Members."""
        feed = self.feed
        recent, failures = feed.own(feed.recent() if about == WATCH else feed.seen()), feed.own(feed.failures())
        return msgspec.json.encode(RequestLines(tuple(recent), tuple(failures), tuple(self.own_running(""))))

    # As HarpFacts, of all

    def snapshot(self, *, bans: bool = True) -> Snapshot:
        self._looked = self._loop.time()  # an open page does not refresh
        own = self.own_snapshot(bans=bans)
        others = self._counted()
        every = merged(own, others if bans else [replace(one, bans=()) for one in others])
        return replace(every, members=tuple(self.member_lines(own)))

    def running(self, app: str) -> list[RunningLine]:
        others = [line for lines in self._running.values() for line in lines]
        lines = [line for line in others if not app or line.app.lower() == app.lower()]
        return sorted([*self.own_running(app), *lines], key=lambda line: -line.seconds)

    def end_engine(self, name: str, instance: str = "") -> int:
        tunnels = [tunnel for one in self._others.values() for tunnel in one.tunnels]
        there = [tunnel for tunnel in tunnels if name in tunnel.names and instance in ("", tunnel.instance)]
        self._members.tell(Operated("end engine", name, instance=instance))
        return self.end_own_engine(name, instance) + len(there)

    def end_own_engine(self, name: str, instance: str) -> int:
        """As `end_engine`, here alone."""
        return super().end_engine(name, instance)

    def change_logs(self, log_level: str | None, access_log: str | None) -> None:
        for what, value in (("level", log_level), ("access", access_log)):
            if value is not None:
                self._members.tell(Operated(what, value))
        self.change_own_logs(log_level, access_log)

    def change_own_logs(self, log_level: str | None, access_log: str | None) -> None:
        """As `change_logs`, here alone."""
        super().change_logs(log_level, access_log)

    # Inside

    def _counted(self) -> list[Snapshot]:
        """Return the snapshots of the others."""
        return list(self._others.values())

    async def _ask(self) -> None:
        links = list(self._members.links.values())
        for gone in set(self._others) - {link.member for link in links}:
            self.over(gone)
        questions = [self._ask_one(link) for link in links if link.member in self._members.talking]
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*questions)
        except TimeoutError:
            pass  # one that is busy is shown as it was
        self._asked = now = self._loop.time()
        self.rates.take(self._members.name, self._own_process().requests, now)
        for name, snapshot in self._others.items():
            self.rates.take(name, snapshot.process.requests, now)

    async def _ask_one(self, link: Link) -> None:
        try:
            snapshot = decoded(await link.ask("snapshot"), Snapshot, _wrong)
            known = self._others.get(link.member)
            if known is not None and known.process.number != snapshot.process.number:
                self.over(link.member)
            self._others[link.member] = snapshot
            about = WATCH if self.feed.watching else ""
            lines = decoded(await link.ask("requests", about), RequestLines, _wrong)
            self._running[link.member] = lines.running
            self._take(link.member, snapshot.process.started, lines)
        except HarpError as error:
            log.info("member not asked", member=link.member, reason=str(error))

    def _take(self, member: str, started: float, lines: RequestLines) -> None:
        """Show what that member has served since the last time."""
        known, request, failure = self._seen.get(member, (started, 0, 0))
        if known != started:
            request = failure = 0
        recent = [line for line in reversed(lines.recent) if line.number > request]
        failures = [line for line in reversed(lines.failures) if line.number > failure]
        self._seen[member] = (started, _last(recent, request), _last(failures, failure))
        self.feed.take(recent, failures)


def _last(lines: list[RequestLine], before: int) -> int:
    return lines[-1].number if lines else before


def line_of_member(name: str, snapshot: Snapshot, rate: float, *, leads: bool, linked: bool) -> MemberLine:
    """Return what a snapshot says of its process."""
    process = snapshot.process
    return MemberLine(
        name,
        leads,
        linked,
        process.number,
        process.started,
        process.cpu,
        process.memory,
        process.connections,
        process.requests,
        len(snapshot.tunnels),
        process.loop_lag,
        rate if linked else 0.0,
    )


def _wrong(error: Exception) -> PeerError:
    return PeerError(f"not the facts of a member ({type(error).__name__})")
