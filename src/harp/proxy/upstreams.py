"""The one HTTP/1 client: connections to ExApps, engines and other services; idle ones by target, and new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol, cast
from weakref import WeakKeyDictionary

from harp.errors import Unreachable
from harp.net.deadlines import Deadlines
from harp.net.dial import Reached
from harp.net.ports import Offer, PortTable, ProtocolFactory
from harp.net.protocols import as_protocol
from harp.net.targets import EngineTunnel, ExAppTunnel, Target
from harp.net.tasks import Tasks
from harp.net.turns import Turns
from harp.proxy.listening import Listening
from harp.proxy.upstream import Upstream
from harp.settings import Timeouts
from harp.wire.requester import IDLE, RESTING

MOST_OPEN = 8192  # connections altogether, above which none is kept
MOST_RESTING = 256  # connections that rest after an answer without a body
REST = 0.25  # seconds they rest, and up to a tick more
RETRY_DELAYS = (0.1, 0.4, 1.5)  # seconds: an ExApp that restarts refuses connections for a moment


class Dial(Protocol):
    """How connections are made: `net.dial.Dialer`."""

    async def reach(self, target: Target, factory: ProtocolFactory) -> Reached:
        """As `loop.create_connection`, with the tunnel's offer that is used. Raises Unreachable."""
        ...

    def holder_objection(self, target: ExAppTunnel, offer: Offer) -> str | None:
        """Why this tunnel is not that of the target's ExApp, None when it is."""
        ...


class Upstreams:
    """Makes connections and keeps idle ones.

    A connection is made when a request finds none that is idle, so there are never more of one target than were in use
    at once within the idle time-out; the one used last is used first, and the others end by that time-out.
    """

    def __init__(
        self,
        dialer: Dial,
        ports: PortTable,
        deadlines: Deadlines,
        timeouts: Timeouts,
        *,
        turns: Turns | None = None,
        most_open: int = MOST_OPEN,
    ) -> None:
        self.deadlines = deadlines
        self.timeouts = timeouts
        self.turns = turns or Turns()
        self._dialer = dialer
        self._ports = ports
        self._most_open = most_open
        self._open = 0
        self._resting = 0
        self._idle: dict[Target, dict[Upstream, None]] = {}  # in the order of their last use
        self._listening: WeakKeyDictionary[Offer, Listening] = WeakKeyDictionary()
        self._tasks = Tasks()
        ports.watch(self._released)

    def __repr__(self) -> str:
        idle = sum(map(len, self._idle.values()))
        return f"<Upstreams {self._open} open, {idle} idle, {len(self._idle)} targets>"

    async def close(self) -> None:
        """Drop every idle connection and stop connecting."""
        for idle in list(self._idle.values()):
            for connection in list(idle):
                connection.end()
        self._idle.clear()
        await self._tasks.close()

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a task that `close` ends."""
        return self._tasks.start(work)

    # Idle connections

    def take(self, target: Target, max_idle: float) -> Upstream | None:
        """The connection used last, if it was idle for at most `max_idle` seconds."""
        idle = self._idle.get(target)
        if not idle or (isinstance(target, ExAppTunnel) and not self._is_holder(target)):
            return None
        oldest = self.deadlines.now - max_idle
        while idle:
            connection, _ = idle.popitem()
            if connection.requester.state is IDLE and not connection.transport.is_closing():
                if connection.idle_since >= oldest:
                    return connection
                idle[connection] = None
                break
        return None

    def renew(self, target: Target) -> None:
        """End the idle connections of a target: what stands behind it has changed, and new ones are spread again."""
        for connection in list(self._idle.pop(target, ())):
            connection.end()

    def give_back(self, connection: Upstream) -> None:
        """Keep an idle connection for the next request to its target, unless its tunnel no longer serves the port."""
        offer, target = connection.offer, connection.target
        if offer is not None and self._is_over(target, offer):
            connection.end()
            return
        now = self.deadlines.now
        if connection.requester.state is RESTING:
            self._rest(connection, now)
            return
        if self._open > self._most_open:
            connection.end()
            return
        idle = self._idle.get(target)
        if idle is None:
            idle = self._idle[target] = {}
        connection.idle_since = now
        connection.deadline = now + self.timeouts.upstream_idle
        idle[connection] = None

    def made(self) -> None:
        """Count a connection. Its protocol alone is none yet: uvloop makes that before it tries to connect."""
        self._open += 1

    def lost(self, connection: Upstream) -> None:
        """Forget a connection that has ended."""
        self._open -= 1
        if connection.resting:
            self.rested(connection)
        idle = self._idle.get(connection.target)
        if idle is not None:
            idle.pop(connection, None)
            if not idle:
                del self._idle[connection.target]

    def _rest(self, connection: Upstream, now: float) -> None:
        if self._resting >= MOST_RESTING:
            connection.end()
            return
        self._resting += 1
        connection.resting = True
        connection.deadline = now + REST

    def rested(self, connection: Upstream) -> None:
        """A connection rests no longer."""
        connection.resting = False
        self._resting -= 1

    def _is_holder(self, target: ExAppTunnel) -> bool:
        """Is the tunnel that holds the port now the ExApp's? What is known of ExApps may have changed."""
        offer = self._ports.get(target.port)
        return offer is None or self._dialer.holder_objection(target, offer) is None

    def _is_over(self, target: Target, offer: Offer) -> bool:
        return isinstance(target, (ExAppTunnel, EngineTunnel)) and self._ports.get(target.port) is not offer

    def _released(self, port: int, offer: Offer) -> None:
        """A tunnel no longer serves this port: its idle connections must not answer for whoever comes next."""
        for target, idle in list(self._idle.items()):
            if isinstance(target, (ExAppTunnel, EngineTunnel)) and target.port == port:
                for connection in [one for one in idle if one.offer is offer]:
                    connection.end()

    # New connections

    async def connect(self, target: Target) -> Upstream:
        """A new connection. Raises Unreachable; refused ones are tried again for about two seconds."""
        for delay in RETRY_DELAYS:
            try:
                return await self.dial(target)
            except Unreachable as error:
                if not isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError)):
                    raise
                await asyncio.sleep(delay)
        return await self.dial(target)

    async def dial(self, target: Target) -> Upstream:
        """A new connection, or Unreachable at the first refusal."""
        # One for each address that is tried.
        reached = await self._dialer.reach(target, lambda: as_protocol(Upstream(self, target)))
        connection, offer = cast(Upstream, cast(object, reached.protocol)), reached.offer
        if offer is not None:
            connection.offer = offer
            connection.number = self.listening(offer).opened()
        return connection

    def listening(self, offer: Offer) -> Listening:
        """What is known of the service behind a tunnel."""
        known = self._listening.get(offer)
        if known is None:
            known = self._listening[offer] = Listening(offer, self.deadlines, self._tasks.start)
        return known
