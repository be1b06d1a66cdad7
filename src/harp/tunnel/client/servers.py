"""Where a tunnel client may find its server: every address of every name it was given.

The client keeps to one. When that is lost, or cannot be reached, the next one is tried at once; only when all of them
have failed there is a pause.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from harp.errors import Unreachable, words_of
from harp.net.resolve import in_turn
from harp.net.targets import Tcp

NEXT_LIMIT = 1.0  # seconds for a connection, where there are others to try
MOST = 32  # addresses of a round
Shuffle = Callable[[list[Any]], None]


class ServerAddress(Struct, frozen=True):
    """One address of a server; `alone` if there is no other to try in this round."""

    server: Tcp
    address: str
    alone: bool = True

    def __str__(self) -> str:
        host, port = self.server.host, self.server.port
        return f"{host}:{port}" if self.address == host else f"{host}:{port} ({self.address})"

    async def connect(self, first: bytes = b"") -> socket.socket:
        """Return a connected socket on which `first` was sent. Raises OSError, TimeoutError among them."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(None if self.alone else NEXT_LIMIT):
                await loop.sock_connect(sock, (self.address, self.server.port))
                await loop.sock_sendall(sock, first)
        except BaseException:
            sock.close()
            raise
        return sock


class Servers:
    """Says which address to try next. `limit` is how many seconds names may take to resolve."""

    def __init__(self, servers: Sequence[Tcp], limit: float, shuffle: Shuffle = random.shuffle) -> None:
        self._servers = servers
        self._limit = limit
        self._shuffle = shuffle
        self._left: deque[ServerAddress] = deque()
        self._last: tuple[Tcp, str] | None = None

    async def next(self) -> ServerAddress:
        """Return the next address, of a new round when all have been tried. Raises Unreachable if no name resolves."""
        if not self._left:
            found = await self._resolved()
            found.sort(key=lambda place: place == self._last)  # the one that was lost comes last
            self._left.extend(ServerAddress(*place, alone=place is found[-1]) for place in found)
        place = self._left.popleft()
        self._last = (place.server, place.address)
        return place

    @property
    def others(self) -> bool:
        """Return whether there are more to try in this round."""
        return bool(self._left)

    def begin_anew(self) -> None:
        """Look at the names again."""
        self._left.clear()

    async def _resolved(self) -> list[tuple[Tcp, str]]:
        found: list[tuple[Tcp, str]] = []
        reason = ""
        for server in self._servers:
            try:
                found += [(server, address) for address in await self._addresses(server)]
            except OSError as error:
                why = f"not within {self._limit:g} s" if isinstance(error, TimeoutError) else words_of(error)
                reason = reason or f"the name {server.host} does not resolve: {why}"
        if not found:
            raise Unreachable(reason)
        return found[:MOST]

    async def _addresses(self, server: Tcp) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._limit):
            found = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        self._shuffle(found)  # so that the clients of several servers are spread over them
        return in_turn([(family == socket.AF_INET, str(place[0])) for family, _, _, _, place in found])


def servers_of(text: str, port: int) -> tuple[Tcp, ...]:
    """Read `host`, `host:port` or several of them with commas between. Raises ValueError with the reason."""
    servers = []
    for part in text.split(","):
        word = part.strip()
        host, colon, number = word.rpartition(":")
        if not colon or word.endswith("]") or (":" in host and not host.endswith("]")):
            host, number = word, ""  # without a port, or an IPv6 address without brackets
        host = host.removeprefix("[").removesuffix("]")
        if not host or (number and not (number.isascii() and number.isdecimal() and 1 <= int(number[:6]) <= 65535)):
            raise ValueError(f'"{word}" is neither a host nor a host with its port')
        servers.append(Tcp(host, int(number) if number else port))
    return tuple(servers)
