"""Which member holds which tunnel of one Nextcloud, as each member tells the others: a copy in every one of them.

A name and a port are held by one tunnel of all members. As with two tunnels in one process, whoever holds them keeps
them while it answers. Where two members have granted the same at the same moment, the tunnel whose client has logged in
last wins, in the eyes of all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from itertools import count
from typing import cast

import structlog

from harp.cluster.links import AskedFor, Connected, Link
from harp.errors import Unreachable
from harp.net.ports import PortTable, ProtocolFactory
from harp.net.tasks import Tasks
from harp.policy.claims import ClaimState
from harp.tunnel.relay import Relay
from harp.tunnel.server.claims import Claim, Occupant, shown
from harp.tunnel.server.group import TunnelGroup
from harp.wire.member import (
    Alive,
    ConnectedAgain,
    Ended,
    Freed,
    GiveUp,
    Held,
    IsAlive,
    Serving,
    Told,
    ToPort,
    WorkFor,
)

ALIVE_LIMIT = 4.0  # seconds: the member there takes up to 3 to ask its client
REPLACED = "its client, or another one, has logged in at another member"

log = structlog.get_logger()


class RemoteClaim:
    """A name and a port that a tunnel of another member holds; the `Offer` of the port table once it is offered."""

    def __init__(self, held: Held, link: Link, directory: Directory) -> None:
        self.name = held.name
        self.port = held.port
        self.since = held.since
        self.link = link
        self.offered = False
        self._directory = directory

    def __repr__(self) -> str:
        return f"<RemoteClaim {shown(self.name)}:{self.port} at {self.link.member}>"

    @property
    def tunnel(self) -> RemoteClaim:
        """As Occupant: it stands for its tunnel as well."""
        return self

    async def connect(self, factory: ProtocolFactory) -> Connected:
        """As Offer: over the link."""
        return await self.link.join(ToPort(self.port, instance=self._directory.instance), factory)

    async def alive(self) -> bool:
        """Return whether its client still answers."""
        return await self._directory.is_alive(self)

    def close(self, reason: str, *, abort: bool = False) -> None:
        """Have it ended there; here, name and port are free on return."""
        self._directory.give_up(self, reason)


class Directory:
    """Takes what other members tell of their tunnels, and tells them of ours. More than 25 methods: it is the
    ClaimWatch and the OtherMembers of a group of tunnels, and answers for them to other members."""

    def __init__(
        self,
        member: str,
        instance: str,
        ports: PortTable,
        group: TunnelGroup,
        links: Callable[[], Collection[Link]],
    ) -> None:
        self.instance = instance
        self._member = member
        self._ports = ports
        self._group = group
        self._claims = group.claims
        self._links = links
        self._remote: dict[tuple[str, int], RemoteClaim] = {}  # by member and port
        self._runs: dict[str, Link] = {}  # run id -> who serves it
        self._questions: dict[int, asyncio.Future[bool]] = {}
        self._numbers = count(1)
        self._tasks = Tasks()
        self._claims.watch = self
        group.others = self

    async def close(self) -> None:
        """End what is under way."""
        await self._tasks.close()

    def greet(self, link: Link) -> None:
        """Tell a new link everything."""
        for run_id in self._group.tunnels:
            link.tell(Serving(run_id, instance=self.instance))
        for claim in self._claims.local():
            link.tell(self._held(claim))

    def lost(self, link: Link) -> None:
        """Whatever that member has held is away."""
        for remote in [one for one in self._remote.values() if one.link is link]:
            self._forget(remote)
        for run_id in [run_id for run_id, holder in self._runs.items() if holder is link]:
            del self._runs[run_id]

    def stuck(self, link: Link) -> None:
        """That member does not answer: whatever waits on idle connections to its tunnels would wait for it."""
        for remote in [one for one in self._remote.values() if one.link is link]:
            self._ports.doubt(remote.port, remote)

    def held_by(self, link: Link) -> list[str]:
        """Return the names of what a member holds."""
        return [shown(remote.name) for remote in self._remote.values() if remote.link is link]

    # As ClaimWatch and OtherMembers: what happens here

    def held(self, claim: Claim) -> None:
        """As ClaimWatch."""
        self._tell(self._held(claim))

    def freed(self, claim: Claim) -> None:
        """As ClaimWatch."""
        self._tell(Freed(claim.port, instance=self.instance))

    def serve(self, run_id: str) -> bool:
        """As OtherMembers."""
        return run_id in self._runs

    def count(self) -> int:
        """As OtherMembers."""
        return len(self._runs)

    def logged_in(self, run_id: str) -> None:
        """As OtherMembers."""
        holder = self._runs.pop(run_id, None)
        if holder is not None:
            holder.tell(ConnectedAgain(run_id, instance=self.instance))
        self._tell(Serving(run_id, instance=self.instance))

    def ended(self, run_id: str) -> None:
        """As OtherMembers."""
        self._tell(Ended(run_id, instance=self.instance))

    def hand_over(self, run_id: str, transport: asyncio.Transport, version: int) -> None:
        """As OtherMembers."""
        client = Relay()
        transport.set_protocol(client)
        client.connection_made(transport)
        self._tasks.start(self._hand_over(self._runs[run_id], WorkFor(run_id, version, instance=self.instance), client))

    # What other members tell and ask

    def heard(self, link: Link, message: Told) -> bool:
        """Take what is about tunnels; False if it is not."""
        match message:
            case Held():
                self._take(link, message)
            case Freed(port):
                remote = self._remote.get((link.member, port))
                if remote is not None:
                    self._forget(remote)
            case Serving(run_id):
                self._runs[run_id] = link
            case Ended(run_id):
                if self._runs.get(run_id) is link:
                    del self._runs[run_id]
            case ConnectedAgain(run_id):
                self._group.end_run(run_id, "the client has connected again")
            case GiveUp(port, reason):
                self._claims.end(port, reason)
            case Alive(number, alive):
                question = self._questions.get(number)
                if question is not None and not question.done():
                    question.set_result(alive)
            case IsAlive(number, port):
                self._tasks.start(self._answer(link, number, port))
            case _:
                return False
        return True

    def serve_port(self, port: int, stream: AskedFor) -> None:
        """Join a stream with one of the tunnel here. One that is held elsewhere is not for us: there is one hop."""
        offer = self._ports.get(port)
        if offer is None or isinstance(offer, RemoteClaim):
            stream.refuse(f"no tunnel is connected for port {port}")
        else:
            self._tasks.start(self._serve_port(offer.connect, stream))

    def serve_work(self, run_id: str, version: int, stream: AskedFor) -> None:
        """Take a work connection that has come to another member."""
        if self._group.serves_work(run_id):
            transport = stream.accept(asyncio.Protocol())
            self._group.tunnels[run_id].add_work(transport, version)
        else:
            stream.refuse("no client control found for this run id")

    async def is_alive(self, remote: RemoteClaim) -> bool:
        """Ask the member that has it. One that is stuck has no tunnels to speak of."""
        if remote.link.stuck:
            return False
        number = next(self._numbers)
        question = self._questions[number] = asyncio.get_running_loop().create_future()
        remote.link.tell(IsAlive(number, remote.port, instance=self.instance))
        try:
            async with asyncio.timeout(ALIVE_LIMIT):
                alive: bool = await question
        except TimeoutError:
            return False
        else:
            return alive
        finally:
            del self._questions[number]

    def give_up(self, remote: RemoteClaim, reason: str) -> None:
        """Have the tunnel there ended."""
        remote.link.tell(GiveUp(remote.port, reason, instance=self.instance))
        self._forget(remote)

    # Inside

    async def _answer(self, link: Link, number: int, port: int) -> None:
        link.tell(Alive(number, await self._claims.is_alive(port), instance=self.instance))

    async def _serve_port(self, connect: Callable[[ProtocolFactory], Awaitable[Connected]], stream: AskedFor) -> None:
        try:
            transport, service = await connect(Relay)
        except Unreachable as error:
            stream.refuse(str(error))
            return
        except BaseException:
            stream.transport.abort()
            raise
        if stream.transport.is_closing():  # nobody waits any more
            transport.abort()
            return
        asker = Relay()
        asker.connection_made(stream.accept(asker))
        asker.join(cast(Relay, service))

    async def _hand_over(self, link: Link, request: WorkFor, client: Relay) -> None:
        assert client.transport is not None
        try:
            _, there = await link.join(request, Relay)
        except BaseException as error:
            client.transport.abort()
            if not isinstance(error, Unreachable):
                raise
            log.info("work connection not handed over", member=link.member, reason=str(error))
        else:
            client.join(cast(Relay, there))

    def _take(self, link: Link, held: Held) -> None:
        remote = self._remote.get((link.member, held.port))
        if remote is not None and (remote.name, remote.since) != (held.name, held.since):
            self._forget(remote)
            remote = None
        if remote is None:
            if not self._wins(link, held):
                return
            remote = self._remote[link.member, held.port] = RemoteClaim(held, link, self)
            self._claims.occupy(remote)
        if held.offered and not remote.offered:
            remote.offered = True
            self._ports.claim(remote.port, remote)
            self._group.news.granted(shown(held.name), held.port, f"member {link.member}")  # if it was lost here

    def _wins(self, link: Link, held: Held) -> bool:
        """Return whether a claim that another member reports wins over those that we know of, which are over then."""
        rivals = self._claims.rivals(held.name, held.port)
        theirs = (held.since, link.member)
        if any(self._rank(rival) > theirs for rival in rivals):
            return False
        for rival in rivals:
            if isinstance(rival, RemoteClaim):
                self._forget(rival)
            else:
                rival.tunnel.close(REPLACED, abort=True)
        return True

    def _rank(self, rival: Occupant) -> tuple[float, str]:
        return rival.since, rival.link.member if isinstance(rival, RemoteClaim) else self._member

    def _forget(self, remote: RemoteClaim) -> None:
        """It is not held there any more."""
        key = (remote.link.member, remote.port)
        if self._remote.get(key) is remote:
            del self._remote[key]
        self._claims.vacate(remote)
        self._ports.release(remote.port, remote)

    def _held(self, claim: Claim) -> Held:
        offered = claim.state is ClaimState.OFFERED
        return Held(claim.name, claim.port, claim.since, offered, instance=self.instance)

    def _tell(self, message: Told) -> None:
        for link in self._links():
            link.tell(message)
