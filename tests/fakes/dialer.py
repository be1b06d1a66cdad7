"""A dialer that connects to nothing."""

from __future__ import annotations

import asyncio

from harp.net.dial import Reached
from harp.net.ports import Offer, ProtocolFactory
from harp.net.targets import ExAppTunnel, Target
from harp.proxy.upstream import Upstream
from tests.fakes.transport import MemoryTransport


class ScriptedDialer:
    """Each connection is a MemoryTransport and its protocol in `made`; `errors` are raised first, one per call."""

    def __init__(self) -> None:
        self.made: list[tuple[MemoryTransport, Upstream]] = []
        self.targets: list[Target] = []
        self.errors: list[Exception] = []
        self.offer: Offer | None = None  # of the tunnel through which connections are made
        self.strangers: set[Offer] = set()  # tunnels that are other ExApps'
        self.failed_tries = 0  # addresses that are tried in vain before one connects
        self.late_tries = 0  # addresses that are tried beside the one that connects, and given up for it

    def holder_objection(self, target: ExAppTunnel, offer: Offer) -> str | None:
        return "held by another" if offer in self.strangers else None

    async def reach(self, target: Target, factory: ProtocolFactory) -> Reached:
        return Reached(*await self.dial(target, factory), self.offer)

    async def dial(self, target: Target, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        self.targets.append(target)
        if self.errors:
            raise self.errors.pop(0)
        for _ in range(self.failed_tries):
            factory()
        transport, protocol = MemoryTransport(), factory()
        for _ in range(self.late_tries):
            factory()
        assert isinstance(protocol, Upstream)
        protocol.connection_made(transport)
        self.made.append((transport, protocol))
        return transport, protocol
