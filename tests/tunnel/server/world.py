"""A tunnel server on loopback sockets, with a clock that tests move, and its scripted clients."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from structlog.typing import EventDict, WrappedLogger

from harp.net.ports import PortTable
from harp.settings import Settings
from harp.tunnel.server.group import TunnelGroup
from harp.tunnel.server.listener import TunnelServer
from tests.fakes.clock import Clock
from tests.fakes.transport import Recorder
from tests.tunnel.peer import KEY, FrpClient

T = TypeVar("T")
PLAIN = (str, int, float, list, type(None))


def as_text(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Objects are logged as they are at that moment."""
    return {name: value if isinstance(value, PLAIN) else repr(value) for name, value in event.items()}


def told(logged: list[EventDict], *levels: str) -> list[EventDict]:
    """The events of these levels; without any, of all that an operator sees."""
    return [event for event in logged if event["log_level"] in (levels or ("info", "warning", "error"))]


OTHER_KEY = "the key of another Nextcloud"
WRONG_KEY = "send Login request to plugin error"


class TunnelWorld:
    """A server, its port table, and the clients of one test."""

    def __init__(self, settings: Settings, tls: ssl.SSLContext | None, clock: Clock) -> None:
        self.ports = PortTable()
        self.clock = clock
        self.asked: list[tuple[str, str]] = []
        self.group = TunnelGroup(settings, self.ports, clock.deadlines)
        self.other_ports = PortTable()
        self.other = TunnelGroup(settings, self.other_ports, clock.deadlines)  # another Nextcloud's
        self.server = TunnelServer(settings, [self.group, self.other], clock.deadlines, self._admit, tls)

    def _admit(self, address: str, token: str) -> TunnelGroup | str:
        self.asked.append((address, "the key" if token == KEY else token))
        if token == "from a banned address":
            return "banned"
        if token == OTHER_KEY:
            return self.other
        return self.group if token == KEY else WRONG_KEY

    def client(self, *, mux: bool = True, version: int = 1) -> FrpClient:
        return FrpClient(self.server, self.clock, mux=mux, version=version)

    async def raw(self, data: bytes = b"", source: str = "127.0.0.1") -> Recorder:
        """A bare TCP connection from an address of loopback, that has sent `data`."""
        loop = asyncio.get_running_loop()
        port = self.server.bound_ports[0]
        _, end = await loop.create_connection(Recorder, "127.0.0.1", port, local_addr=(source, 0))
        self.clock.transports.append(end.transport)
        end.transport.write(data)
        return end


class Start(Protocol):
    async def __call__(self, settings: Settings, tls: ssl.SSLContext | None = None) -> TunnelWorld: ...


async def closed(end: Recorder) -> bool:
    await end.until(event="lost")
    return True


def beside(work: Awaitable[T]) -> asyncio.Task[T]:
    """Let `work` go on beside the test."""

    async def run() -> T:
        return await work

    return asyncio.create_task(run())
