"""The open connections of clients, counted altogether and by address."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harp.settings import Limits

if TYPE_CHECKING:
    from harp.frontend.connection import ClientConnection


class OpenConnections:
    """The part of a decider that counts connections, and turns away those beyond the limits.

    `is_neighbour` says whose connections are not limited by address: those of reverse proxies.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.draining = False
        self.connections: set[ClientConnection] = set()
        self.capacity = limits.connections
        self.is_neighbour: Callable[[str], bool] = lambda _: False
        self._admitted = 0  # connections, those in their TLS handshake included
        self._per_address: dict[str, int] = {}

    def limit_connections(self, capacity: int) -> None:
        """Accept at most `capacity` connections: what the file descriptors allow."""
        self.capacity = min(capacity, self.limits.connections)

    def admit(self, peer: str) -> str | None:
        self._admitted += 1
        if self._admitted > self.capacity:
            return f"all {self.capacity} connections are in use"
        if self.is_neighbour(peer):
            return None
        used = self._per_address[peer] = self._per_address.get(peer, 0) + 1
        if used > self.limits.connections_per_address:
            return f"{self.limits.connections_per_address} connections from this address are open already"
        return None

    def release(self, peer: str) -> None:
        self._admitted -= 1
        used = self._per_address.get(peer)
        if used is not None:
            if used > 1:
                self._per_address[peer] = used - 1
            else:
                del self._per_address[peer]

    def opened(self, connection: ClientConnection) -> str | None:
        self.connections.add(connection)
        return None if connection.secure else self.admit(connection.peer)  # over TLS the entrance has counted it

    def closed(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        self.release(connection.peer)

    def drain(self, *, idle: bool = True) -> None:
        """Stop taking requests: idle connections close, the others after their exchange.

        Without `idle` the idle ones, too, have one more exchange.
        """
        self.draining = True
        for connection in list(self.connections):
            connection.drain(idle=idle)
