"""The connections to ExApps, engines and services of ours: idle ones by target, and how to make new ones."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol
from weakref import WeakValueDictionary

from harp.errors import Unreachable
from harp.net.deadlines import Deadlines
from harp.net.dial import Reached
from harp.net.ports import Offer, PortTable, ProtocolFactory
from harp.net.targets import EngineTunnel, ExAppTunnel, Target
from harp.proxy.upstream import IDLE, Upstream
from harp.settings import Timeouts

MAX_IDLE = 128  # idle connections kept per target
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
    """Idle connections by target, and how to make new ones."""

    def __init__(self, dialer: Dial, ports: PortTable, deadlines: Deadlines, timeouts: Timeouts) -> None:
        self.deadlines = deadlines
        self.timeouts = timeouts
        self._dialer = dialer
        self._ports = ports
        self._idle: dict[Target, deque[Upstream]] = {}
        self._answered: WeakValueDictionary[int, Offer] = WeakValueDictionary()  # by port
        self._tasks: set[asyncio.Task[None]] = set()
        ports.watch(self._released)

    async def close(self) -> None:
        """Drop every idle connection and stop connecting."""
        for idle in list(self._idle.values()):
            for connection in list(idle):
                connection.abandon()
        self._idle.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def take(self, target: Target, max_idle: float) -> Upstream | None:
        """The connection used last, if it was idle for at most `max_idle` seconds."""
        idle = self._idle.get(target)
        if idle and isinstance(target, ExAppTunnel) and not self._is_holder(target):
            return None
        while idle:
            connection = idle.pop()
            if connection.state is IDLE and not connection.transport.is_closing():
                if self.deadlines.now - connection.idle_since <= max_idle:
                    return connection
                idle.append(connection)
                return None
        return None

    def _is_holder(self, target: ExAppTunnel) -> bool:
        """Is the tunnel that holds the port now the ExApp's? What is known of ExApps may have changed."""
        offer = self._ports.get(target.port)
        return offer is None or self._dialer.holder_objection(target, offer) is None

    def _released(self, port: int, offer: Offer) -> None:
        """A tunnel no longer serves this port: its idle connections must not answer for whoever comes next."""
        for target, idle in list(self._idle.items()):
            if isinstance(target, (ExAppTunnel, EngineTunnel)) and target.port == port:
                for connection in [one for one in idle if one.offer is offer]:
                    connection.abandon()

    def give_back(self, connection: Upstream) -> None:
        """Keep an idle connection for the next request to its target, unless its tunnel no longer serves the port."""
        offer = connection.offer
        if offer is not None and self._is_over(connection.target, offer):
            connection.abandon()
            return
        idle = self._idle.get(connection.target)
        if idle is None:
            idle = self._idle[connection.target] = deque()
        elif len(idle) >= MAX_IDLE:
            idle.popleft().abandon()
        now = self.deadlines.now
        connection.idle_since = now
        connection.deadline = now + self.timeouts.upstream_idle
        idle.append(connection)

    def lost(self, connection: Upstream) -> None:
        """Forget a connection that has ended."""
        idle = self._idle.get(connection.target)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[connection.target]

    async def connect(self, target: Target) -> Upstream:
        """A new connection. Raises Unreachable; refused ones are tried again for about two seconds."""
        for delay in RETRY_DELAYS:
            try:
                return await self._dial(target)
            except Unreachable as error:
                if not isinstance(error.__cause__, (ConnectionRefusedError, FileNotFoundError)):
                    raise
                await asyncio.sleep(delay)
        return await self._dial(target)

    async def _dial(self, target: Target) -> Upstream:
        _, connection, offer = await self._dialer.reach(target, lambda: Upstream(self, target))
        assert isinstance(connection, Upstream)
        connection.offer = offer
        return connection

    def _is_over(self, target: Target, offer: Offer) -> bool:
        return isinstance(target, (ExAppTunnel, EngineTunnel)) and self._ports.get(target.port) is not offer

    def spawn(self, task: asyncio.Task[None]) -> None:
        """Keep a task alive until it ends by itself or `close` ends it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, target: Target) -> None:
        """The ExApp behind a tunnel has answered: from now on its silence means that it works."""
        if isinstance(target, (ExAppTunnel, EngineTunnel)):
            offer = self._ports.get(target.port)
            if offer is not None:
                self._answered[target.port] = offer

    def has_answered(self, target: Target) -> bool:
        """False for a tunnel session through which nothing has ever come back; true for everything else."""
        if not isinstance(target, (ExAppTunnel, EngineTunnel)):
            return True
        offer = self._ports.get(target.port)
        return offer is None or self._answered.get(target.port) is offer
