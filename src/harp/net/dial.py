"""Connect to any target: TCP, unix socket, a tunnel's stream, or a service inside this process."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple, Protocol

from harp.errors import TunnelAway, TunnelHeld, Unreachable, words_of
from harp.net.ports import Offer, PortTable, ProtocolFactory
from harp.net.race import Connected, connect_first
from harp.net.resolve import Addresses
from harp.net.targets import EngineTunnel, ExAppAddress, ExAppTunnel, Inner, Target, Tcp, Tls, Unix
from harp.policy.exapp_target import ExAppTargets, holder_objection

Prepare = Callable[[], Awaitable[ProtocolFactory]]

ATTEMPT = 3.0  # seconds until an attempt that is not answered is given up for a new one


class NameResolver(Protocol):
    """A resolver of names: `net.resolve.Resolver`."""

    async def addresses(self, host: str) -> Addresses:
        """IP literals for `host`, the preferred one first. Raises Unreachable."""

    def forget(self, host: str) -> None:
        """None of them answers."""


class Reached(NamedTuple):
    """A connection, and the offer it goes through: it must not be used for another one, or after its end."""

    transport: asyncio.BaseTransport
    protocol: asyncio.BaseProtocol
    offer: Offer | None = None


class Dialer:
    """Opens connections. Every failure is Unreachable, with a text that names the target.

    `connect` is the time for one connection and `hold` the time to wait for a disconnected tunnel, in seconds. Without
    TLS, an attempt that is not answered within `attempt` seconds is replaced by a new one: if the first packet was lost
    (a Service whose rules were being written), the system repeats it along the same path, while another local port uses
    the right one.
    `is_exapp` answers whether a lower-cased name is an ExApp's id; with `strict`, a tunnel must have its ExApp's name.
    """

    def __init__(
        self,
        ports: PortTable,
        resolver: NameResolver,
        *,
        connect: float,
        hold: float,
        targets: ExAppTargets | None = None,
        is_exapp: Callable[[str], bool] = lambda _: False,
        strict: bool = False,
        attempt: float = ATTEMPT,
    ) -> None:
        self._ports = ports
        self._resolver = resolver
        self._connect = connect
        self._attempt = attempt
        self._hold = hold
        self._targets = targets or ExAppTargets()
        self._is_exapp = is_exapp
        self._strict = strict
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
            case ExAppAddress(host, port):
                return await self._dial_exapp(host, port, factory)
            case ExAppTunnel() | EngineTunnel():
                return (await self._dial_tunnel(target, factory))[:2]
            case Inner(name):
                try:
                    return await self._dial_inner(name, factory)
                except OSError as error:
                    raise Unreachable(f"{name}: {words_of(error)}") from error

    async def reach(self, target: Target, factory: ProtocolFactory) -> Reached:
        """As `dial`, with the tunnel's offer that the connection goes through."""
        if isinstance(target, (ExAppTunnel, EngineTunnel)):
            return await self._dial_tunnel(target, factory)
        return Reached(*await self.dial(target, factory))

    def holder_objection(self, target: ExAppTunnel, offer: Offer) -> str | None:
        """Return why the tunnel that holds the target's port is not that of its ExApp, None if it is."""
        if offer.name == target.app_id:
            return None
        other = self._is_exapp(offer.name.lower())
        return holder_objection(target.port, offer.name, target.app_id, strict=self._strict, other_exapp=other)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def _dial_tcp(
        self, host: str, port: int, factory: ProtocolFactory, tls: ssl.SSLContext | None = None
    ) -> Connected:
        async def connect(address: str) -> Connected:
            return await self._dial_address(host, address, port, factory, tls)

        return await self._dial_any(host, await self._resolver.addresses(host), connect)

    async def _dial_exapp(self, host: str, port: int, factory: ProtocolFactory) -> Connected:
        """Connect to the address in a record: its name was checked when it was read; here its addresses are."""
        addresses = await self._resolver.addresses(host)
        objections = {address: self._targets.address_objection(address, port) for address in addresses}
        allowed = tuple(address for address in addresses if objections[address] is None)
        if not allowed:
            raise Unreachable(f"{host}:{port} ({addresses[0]}): {objections[addresses[0]]}")

        async def connect(address: str) -> Connected:
            transport, protocol = await self._dial_address(host, address, port, factory)
            if _is_own_host(transport) and (objection := self._targets.own_objection(port)) is not None:
                assert isinstance(transport, asyncio.Transport)
                transport.abort()
                raise Unreachable(f"{host}:{port} ({address}): {objection}")
            return transport, protocol

        return await self._dial_any(host, allowed, connect)

    async def _dial_any(
        self, host: str, addresses: Addresses, connect: Callable[[str], Coroutine[Any, Any, Connected]]
    ) -> Connected:
        try:
            return await connect_first(addresses, connect)
        except Unreachable:
            self._resolver.forget(host)
            raise

    async def _dial_address(
        self, host: str, address: str, port: int, factory: ProtocolFactory, tls: ssl.SSLContext | None = None
    ) -> Connected:
        """Connect to one address of `host`."""
        where = f"{host}:{port}" if address == host else f"{host}:{port} ({address})"
        if tls is None:
            return await self._attempts(where, address, port, factory)
        return await self._limited(
            where, self._loop.create_connection(factory, address, port, ssl=tls, server_hostname=host)
        )

    async def _attempts(self, where: str, address: str, port: int, factory: ProtocolFactory) -> Connected:
        """Connect, trying again from another local port whenever there is no answer."""
        loop = self._loop
        until = loop.time() + self._connect
        while True:
            left = until - loop.time()
            try:
                async with asyncio.timeout(min(left, self._attempt)):
                    return await loop.create_connection(factory, address, port)
            except OSError as error:
                if left <= self._attempt or not isinstance(error, TimeoutError):
                    raise self._unreachable(where, error) from error

    async def _dial_tunnel(self, target: ExAppTunnel | EngineTunnel, factory: ProtocolFactory) -> Reached:
        """Connect through the tunnel of the port; without one, an ExApp installed by hand uses loopback (A 6.10).

        Once a tunnel has served the port, loopback is no longer tried: a listener there is not the ExApp.
        """
        port = target.port
        by_hand = isinstance(target, ExAppTunnel) and target.loopback and not self._ports.seen(port)
        if by_hand and self._ports.get(port) is None:
            try:
                return Reached(*await self._dial_tcp("127.0.0.1", port, factory))
            except Unreachable:
                pass
        until = self._loop.time() + self._hold
        while True:
            offer = self._ports.get(port) or await self._ports.wait(port, max(until - self._loop.time(), 0.0))
            if isinstance(target, ExAppTunnel) and (objection := self.holder_objection(target, offer)) is not None:
                raise TunnelHeld(objection)
            try:
                return Reached(*await offer.connect(factory), offer)
            except TunnelAway:  # nothing has been sent: where its client is about to come back, that tunnel will do
                if self._ports.get(port) is offer or self._loop.time() >= until:
                    raise

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
        except OSError as error:
            raise self._unreachable(where, error) from error

    def _unreachable(self, where: str, error: OSError) -> Unreachable:
        if isinstance(error, TimeoutError):
            return Unreachable(f"{where} did not accept a connection within {self._connect:g} s")
        return Unreachable(f"{where}: {words_of(error)}")


def _is_own_host(transport: asyncio.BaseTransport) -> bool:
    """Return whether a connection ends on the host where it begins: the system gives it one address at both ends."""
    here, there = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    return bool(here and there and here[0] == there[0])
