"""Connect to any target: TCP, unix socket, tunnel port, or a service inside this process."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from harp.errors import Unreachable
from harp.net.ports import PortTable, ProtocolFactory
from harp.net.resolve import Resolver
from harp.net.targets import Inner, Target, Tcp, Tls, TunnelPort, Unix

Prepare = Callable[[], Awaitable[ProtocolFactory]]
Connected = tuple[asyncio.BaseTransport, asyncio.BaseProtocol]


class Dialer:
    """Opens connections. Every failure is Unreachable, in words that name the target."""

    def __init__(self, ports: PortTable, resolver: Resolver, *, connect: float, hold: float) -> None:
        self._ports = ports
        self._resolver = resolver
        self._connect = connect  # seconds for one connection
        self._hold = hold  # seconds to wait for a tunnel that is away
        self._inner: dict[str, Prepare] = {}

    def offer_inner(self, name: str, prepare: Prepare) -> None:
        """Serve `Inner(name)` with what `prepare` gives: a maker of server protocols, one per connection."""
        self._inner[name] = prepare

    async def dial(self, target: Target, factory: ProtocolFactory) -> Connected:
        """As `loop.create_connection`. Raises Unreachable (TunnelAway for a tunnel that did not come back in time)."""
        match target:
            case Tcp(host, port):
                return await self._dial_tcp(host, port, factory)
            case Tls(host, port, context):
                return await self._dial_tcp(host, port, factory, context)
            case Unix(path):
                return await self._limited(f"unix socket {path}", self._loop.create_unix_connection(factory, path))
            case TunnelPort(port):
                return await self._dial_tunnel(port, factory)
            case Inner(name):
                try:
                    return await self._dial_inner(name, factory)
                except OSError as error:
                    raise Unreachable(f"{name}: {error.strerror or error}") from error

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def _dial_tcp(
        self, host: str, port: int, factory: ProtocolFactory, tls: ssl.SSLContext | None = None
    ) -> Connected:
        address = await self._resolver.resolve(host)
        where = f"{host}:{port}" if address == host else f"{host}:{port} ({address})"
        try:
            connecting = self._loop.create_connection(
                factory, address, port, ssl=tls, server_hostname=host if tls else None
            )
            return await self._limited(where, connecting)
        except Unreachable:
            self._resolver.forget(host)
            raise

    async def _dial_tunnel(self, port: int, factory: ProtocolFactory) -> Connected:
        """Through the tunnel of `port`; without one, TCP on loopback (an ExApp installed by hand, A 6.10).

        Once a tunnel has served the port, loopback is not tried any more: whoever listens there is not the ExApp.
        """
        offer = self._ports.get(port)
        if offer is None and not self._ports.seen(port):
            try:
                return await self._dial_tcp("127.0.0.1", port, factory)
            except Unreachable:
                pass
        if offer is None:
            offer = await self._ports.wait(port, self._hold)
        return await offer.connect(factory)

    async def _dial_inner(self, name: str, factory: ProtocolFactory) -> Connected:
        serve = await self._inner[name]()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        await self._loop.connect_accepted_socket(serve, theirs)
        return await self._loop.create_connection(factory, sock=ours)

    async def _limited(self, where: str, connecting: Coroutine[Any, Any, Connected]) -> Connected:
        try:
            async with asyncio.timeout(self._connect):
                return await connecting
        except TimeoutError:
            raise Unreachable(f"{where} did not accept a connection within {self._connect:g} s") from None
        except OSError as error:
            raise Unreachable(f"{where}: {error.strerror or error}") from error
