"""The port table: a tunnel port is a name, not a socket.

`23001` or `24001` is a key here. A tunnel session claims it; the proxy and the Docker client open streams through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from harp.errors import TunnelAway

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class Offer(Protocol):
    """What a tunnel session offers under one port."""

    name: str  # the proxy name the client registered, normally the ExApp id

    async def connect(self, factory: ProtocolFactory) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Open a stream to the service behind the tunnel and attach `factory()` to it.

        As `loop.create_connection`: connection_made has been called on return. Raises TunnelAway when the session
        ended or gave no stream within its own limit (F 5.5).
        """
        ...


class PortTable:
    """Which tunnel answers for which port."""

    def __init__(self) -> None:
        self._offers: dict[int, Offer] = {}
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._seen: set[int] = set()
        self._watchers: list[Callable[[int, Offer], None]] = []

    def get(self, port: int) -> Offer | None:
        """Return the offer of `port` now."""
        return self._offers.get(port)

    def seen(self, port: int) -> bool:
        """Return whether a tunnel has ever answered for `port` in this process."""
        return port in self._seen

    def items(self) -> list[tuple[int, Offer]]:
        """Return every claimed port with its offer, by port."""
        return sorted(self._offers.items())

    def watch(self, released: Callable[[int, Offer], None]) -> None:
        """Call `released(port, offer)` whenever an offer is over, or doubted."""
        self._watchers.append(released)

    def claim(self, port: int, offer: Offer) -> None:
        """Answer for `port` from now on, and wake everyone who waits for it. The caller has checked that it is free."""
        before = self._offers.get(port)
        self._offers[port] = offer
        if before is not None and before is not offer:
            self._tell(port, before)
        self._seen.add(port)
        for waiter in self._waiting.pop(port, ()):
            if not waiter.done():
                waiter.set_result(None)

    def release(self, port: int, offer: Offer) -> None:
        """Stop answering for `port`; nothing happens if it belongs to another offer by now."""
        if self._offers.get(port) is offer:
            del self._offers[port]
            self._tell(port, offer)

    def doubt(self, port: int, offer: Offer) -> None:
        """Have no connection used again that is idle now: whoever offers `port` does not answer at the moment."""
        if self._offers.get(port) is offer:
            self._tell(port, offer)

    def _tell(self, port: int, over: Offer) -> None:
        for released in self._watchers:
            released(port, over)

    async def wait(self, port: int, seconds: float) -> Offer:
        """Return the offer of `port`, waiting up to `seconds` for a tunnel to (re)connect.

        Raises TunnelAway after that.
        """
        offer = self._offers.get(port)
        if offer is not None:
            return offer
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(port, [])
        waiters.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            raise TunnelAway(f"no tunnel is connected for port {port}") from None
        finally:
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters and self._waiting.get(port) is waiters:
                del self._waiting[port]
        offer = self._offers.get(port)
        if offer is None:
            raise TunnelAway(f"the tunnel of port {port} was lost again")
        return offer
