"""A tunnel: one client that has logged in, and its control connection (F 5)."""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog
from msgspec import Struct

from harp.errors import PeerError
from harp.logs import RareWarnings, debugging
from harp.net.deadlines import NEVER, Deadlines
from harp.net.ports import ProtocolFactory
from harp.policy.ports import ENGINE_PORTS
from harp.tunnel.mux import MuxSession
from harp.tunnel.server.claim_queue import Check, ClaimQueue
from harp.tunnel.server.claims import Claim, Claims, Connected, shown
from harp.tunnel.server.news import TunnelNews
from harp.tunnel.server.work_pool import WorkPool
from harp.wire.frp import (
    CloseProxy,
    Login,
    Message,
    MessageReader,
    NewProxy,
    NewProxyResp,
    Ping,
    Pong,
    Received,
    ReqWorkConn,
    encode,
)
from harp.wire.frp_crypto import Decryptor, Encryptor

MAX_POOL = 5  # work streams a client may ask to have ready
SILENCE_LIMIT = 90.0  # seconds without a message, for clients without yamux
SILENCE_SUSPECT = 35.0  # seconds after which such a client is overdue: it pings every 30 s
PROBE_LIMIT = 3.0  # seconds for a tunnel to prove that it is alive when another one wants its port
UNREAD_LIMIT = 65536  # bytes of control messages that wait for a client
REASON = 200  # characters of a refusal, which may quote a client's own words


class TunnelFacts(Struct, frozen=True):
    """A tunnel as the status page shows it."""

    address: str
    version: str  # of the client, in its own words, as `system` and `hostname`
    system: str  # "linux/amd64"
    hostname: str
    proxies: tuple[tuple[str, int], ...]  # name and port of each claim
    since: float  # Unix seconds
    round_trip: float | None  # seconds, of the last yamux ping
    streams: int  # open now, those that wait in the pool included
    mux: bool
    wire: int  # protocol version, 1 or 2
    received: int  # bytes since it has been connected; 0 without yamux, where each stream is a connection of its own
    sent: int


class Channel(Struct, frozen=True):
    """The encrypted control connection, as it is after LoginResp."""

    transport: asyncio.Transport
    version: int
    encryptor: Encryptor
    decryptor: Decryptor


class LoggedInClient(Struct, frozen=True):
    """Who has logged in, and when."""

    login: Login
    run_id: str
    address: str
    since: float  # Unix seconds


class TunnelOwner(Protocol):
    """Who keeps the list of tunnels, and what all of them share."""

    deadlines: Deadlines
    warnings: RareWarnings
    news: TunnelNews
    claims: Claims
    check: Check | None
    log: structlog.typing.FilteringBoundLogger

    def ended(self, tunnel: Tunnel) -> None:
        """`tunnel` is closed; forget it."""


class Tunnel(asyncio.Protocol):
    """The protocol of a control connection, from LoginResp on.

    `mux` is the session that carries it, None for a client without yamux. Nothing of a closed tunnel is left: names,
    ports and streams are free before `close` returns, so a successor can have them at once.
    """

    def __init__(self, owner: TunnelOwner, client: LoggedInClient, channel: Channel, mux: MuxSession | None) -> None:
        login = client.login
        self.run_id = client.run_id
        self.mux = mux
        self.address = client.address
        self.since = client.since
        self.deadline = NEVER
        self.closed = False
        self._owner = owner
        self._debugging = debugging()
        self._client = client
        self._channel = channel
        self._reader = MessageReader(channel.version)
        self._pool = WorkPool(min(max(login.pool_count, 0), MAX_POOL), owner.deadlines, self._ask_for_work)
        token = login.metas.get("token", "")
        self._claims = ClaimQueue(self, owner.claims, self, owner.check, token=token, address=self.address)
        self._lone: list[asyncio.Transport] = []  # connections in use, without yamux
        self._unconfirmed: dict[str, int] = {}  # claim -> the work stream, counted from login, that confirms it

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        wire = f"v{self._channel.version}" + ("" if self.mux is not None else " without yamux")
        claims = ", ".join(f"{shown(claim.name)}:{claim.port}" for claim in self._claims.held.values())
        return f"<Tunnel {self.address} {state}, {wire}, claims [{claims}], {self._pool!r}>"

    def begin(self, rest: bytes) -> None:
        """LoginResp was sent: fill the pool, then take what came after the Login."""
        if self.mux is None:
            self._owner.deadlines.watch(self)
            self._touch()
        self._pool.fill()
        if rest:
            self.data_received(rest)

    def facts(self) -> TunnelFacts:
        """For the status page."""
        login = self._client.login
        return TunnelFacts(
            address=self.address,
            version=shown(login.version),
            system=shown(f"{login.os}/{login.arch}"),
            hostname=shown(login.hostname),
            proxies=tuple((shown(claim.name), claim.port) for claim in self._claims.held.values()),
            since=self._client.since,
            round_trip=self.mux.round_trip if self.mux else None,
            streams=self.mux.streams if self.mux else len(self._pool),
            mux=self.mux is not None,
            wire=self._channel.version,
            received=self.mux.received if self.mux else 0,
            sent=self.mux.sent if self.mux else 0,
        )

    @property
    def names(self) -> list[str]:
        """Of the claims that it holds."""
        return [claim.name for claim in self._claims.held.values()]

    @property
    def has_engine_port(self) -> bool:
        """Return whether it holds the port of an engine."""
        return any(claim.port in ENGINE_PORTS for claim in self._claims.held.values())

    def close(self, reason: str, *, abort: bool = False) -> None:
        """End the tunnel; everything it held is free on return. `abort` drops what is not sent yet."""
        if self.closed:
            return
        self.closed = True
        names = [shown(name) for name in self._claims.held]
        self._owner.log.info("tunnel closed", address=self.address, names=names, reason=reason)
        for claim in self._claims.held.values():
            self._owner.news.lost(shown(claim.name), claim.port, self.address, shown(reason, REASON))
        self._owner.deadlines.drop(self)
        self._claims.close()
        self._owner.ended(self)
        pool = self._pool.close(reason)
        if self.mux is not None:  # its streams end with it
            self.mux.abort(reason) if abort else self.mux.close(reason)
            return
        for transport in pool:
            transport.abort()
        if abort:
            self._channel.transport.abort()
        else:
            self._channel.transport.close()

    @property
    def busy(self) -> bool:
        """Return whether anything runs in it besides its control connection and what waits in its pool."""
        if self.mux is not None:
            return self.mux.streams > 1 + len(self._pool)
        return any(not transport.is_closing() for transport in self._lone)

    def withhold(self) -> None:
        """Have requests wait: the tunnel is about to move."""
        for claim in self._claims.held.values():
            self._owner.claims.withhold(claim)

    def offer_again(self) -> None:
        """It does not yet."""
        if not self.closed:
            for claim in self._claims.held.values():
                self._owner.claims.offer_again(claim)

    async def alive(self) -> bool:
        """Return whether the client still answers. Asked before its port is refused to somebody else."""
        if self.closed:
            return False
        if self.mux is not None:
            return await self.mux.probe(PROBE_LIMIT)
        return self.deadline - self._owner.deadlines.now > SILENCE_LIMIT - SILENCE_SUSPECT

    # asyncio.Protocol of the control connection

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(self._channel.decryptor.decrypt(data))
            while not self.closed and (message := self._reader.next()) is not None:
                self._handle(message)
        except PeerError as error:
            self.close(str(error), abort=True)

    def eof_received(self) -> None:
        self.close("the client closed its control connection")

    def connection_lost(self, exc: Exception | None) -> None:
        reason = self.mux.reason if self.mux is not None else ""
        self.close(reason or (f"connection lost: {exc}" if exc else "the client closed the connection"))

    def expired(self) -> None:
        """A client without yamux was silent for too long."""
        self.close(f"no message within {SILENCE_LIMIT:g} s", abort=True)

    # Messages

    def _handle(self, message: Received) -> None:
        if self._debugging:
            self._owner.log.debug("frp message received", message=message, tunnel=self)
        self._touch()
        if isinstance(message, Ping):
            self._send(Pong())
        elif isinstance(message, NewProxy):
            self._claims.add(message)
        elif isinstance(message, CloseProxy):
            self._close_proxy(message.proxy_name)

    def _touch(self) -> None:
        if self.mux is None:
            self.deadline = self._owner.deadlines.now + SILENCE_LIMIT

    def _send(self, message: Message) -> None:
        if self.closed:
            return
        if self._debugging:
            self._owner.log.debug("frp message sent", message=message, tunnel=self)
        transport = self._channel.transport
        if transport.get_write_buffer_size() > UNREAD_LIMIT:
            self.close("the client does not read its control connection", abort=True)
            return
        transport.write(self._channel.encryptor.encrypt(encode(message, self._channel.version)))

    # Claims

    def granted(self, claim: Claim) -> None:
        """As Answers."""
        self._owner.log.info("tunnel claim granted", address=self.address, name=shown(claim.name), port=claim.port)
        self._owner.news.granted(shown(claim.name), claim.port, self.address)
        self.granted_again(claim)
        # frpc handles its control messages in order: when the stream that we ask for now is here, it knows that it
        # has the claim. Before that it would silently close a started work stream (F 5.5).
        self._pool.ask()
        self._unconfirmed[claim.name] = self._pool.asked
        self._owner.claims.await_confirmation(claim)

    def granted_again(self, claim: Claim) -> None:
        """As Answers."""
        self._send(NewProxyResp(claim.name, remote_addr=f":{claim.port}"))

    def refused(self, request: NewProxy, reason: str) -> None:
        """As Answers."""
        self._owner.warnings.warning(
            "tunnel claim refused",
            shown(reason, REASON),
            self.address,
            name=shown(request.proxy_name),
            port=request.remote_port,
        )
        self._send(NewProxyResp(request.proxy_name, error=reason))

    def _close_proxy(self, name: str) -> None:
        claim = self._claims.withdraw(name)
        if claim is not None:
            self._unconfirmed.pop(name, None)
            self._owner.log.info("tunnel claim ended", address=self.address, name=shown(name), port=claim.port)

    # Work streams

    def add_work(self, transport: asyncio.Transport, version: int) -> None:
        """The client has opened a work stream."""
        self._pool.add(transport, version)
        if not self._unconfirmed:
            return
        for name in [name for name, count in self._unconfirmed.items() if count <= self._pool.arrived]:
            del self._unconfirmed[name]
            self._owner.claims.confirm(self._claims.held[name])

    async def start(self, factory: ProtocolFactory, messages: tuple[bytes, bytes]) -> Connected:
        """As Holder."""
        stream = await self._pool.take()
        transport = stream.transport
        transport.write(messages[stream.version - 1])
        if self.mux is None:
            self._lone = [*(one for one in self._lone if not one.is_closing()), transport]
        protocol = factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return transport, protocol

    def _ask_for_work(self) -> None:
        self._send(ReqWorkConn())
