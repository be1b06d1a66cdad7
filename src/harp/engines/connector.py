"""aiohttp over whatever our dialer reaches: a unix socket, TCP, or a stream inside a tunnel."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from aiohttp import BaseConnector
from aiohttp.client_proto import ResponseHandler

from harp.engines.errors import EngineUnreachable
from harp.errors import Unreachable
from harp.net.ports import ProtocolFactory
from harp.net.race import Connected
from harp.net.targets import Target

if TYPE_CHECKING:
    from aiohttp import ClientRequest, ClientTimeout
    from aiohttp.tracing import Trace

CONNECTIONS = 32  # to one engine at a time
IDLE = 15.0  # seconds an unused connection is kept


class DialFunction(Protocol):
    """How connections are made: `net.dial.Dialer`."""

    async def dial(self, target: Target, factory: ProtocolFactory) -> Connected:
        """As `loop.create_connection`. Raises Unreachable."""
        ...


class DialerConnector(BaseConnector):
    """Connects every request to one target, whatever its URL says.

    `_create_connection` is the only method that every connector of aiohttp overrides; one of our tests checks
    that. `limit` is the time for one connection in seconds.
    """

    def __init__(self, dialer: DialFunction, target: Target, name: str, limit: float) -> None:
        super().__init__(limit=CONNECTIONS, keepalive_timeout=IDLE)
        self._dialer = dialer
        self._target = target
        self._name = name
        self._connect_limit = limit

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - the base class has it
    ) -> ResponseHandler:
        try:
            async with asyncio.timeout(self._connect_limit):
                _, protocol = await self._dialer.dial(self._target, self._factory)
        except TimeoutError:
            raise EngineUnreachable(
                f"{self._name} cannot be reached: no connection within {self._connect_limit:g} s"
            ) from None
        except Unreachable as error:
            raise EngineUnreachable(f"{self._name} cannot be reached: {error}") from error
        assert isinstance(protocol, ResponseHandler)
        return protocol
