"""What worlds in memory have in common: time that a test moves, and ExApps that do what it says."""

from __future__ import annotations

from harp.net.deadlines import Deadlines
from harp.net.ports import PortTable
from harp.proxy.upstream import Upstream
from harp.proxy.upstreams import Upstreams
from harp.settings import Timeouts
from tests.fakes.clock import Clock
from tests.fakes.dialer import ScriptedDialer
from tests.fakes.transport import MemoryTransport


class ScriptedExApps:
    """The ExApps behind a HaRP: connections to them are in `dialer`, the last one is spoken for by default."""

    def __init__(self, timeouts: Timeouts, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.dialer = ScriptedDialer()
        self.ports = PortTable()
        self.upstreams = Upstreams(self.dialer, self.ports, self.deadlines, timeouts)

    @property
    def deadlines(self) -> Deadlines:
        return self.clock.deadlines

    def upstream(self, index: int = -1) -> Upstream:
        return self.dialer.made[index][1]

    def wire(self, index: int = -1) -> MemoryTransport:
        """The transport that HaRP has to an ExApp."""
        return self.dialer.made[index][0]

    def answer(self, data: bytes, index: int = -1) -> None:
        self.upstream(index).data_received(data)

    def lose(self, index: int = -1) -> None:
        """An ExApp closes its connection."""
        if not self.upstream(index).eof_received():
            self.upstream(index).connection_lost(None)

    def wait(self, seconds: float) -> None:
        self.clock.move(seconds)
