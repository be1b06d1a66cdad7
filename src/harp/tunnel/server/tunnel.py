"""A tunnel: one client that has logged in, its control connection, claims and work streams (F 5)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog
from msgspec import Struct

from harp.errors import PeerError, TunnelAway
from harp.net.deadlines import NEVER, Deadlines
from harp.net.ports import ProtocolFactory
from harp.tunnel.mux import MuxSession
from harp.tunnel.server.claims import Claim, ClaimRefused, Claims, ClaimTaken, Connected
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
SPARE_POOL = 10  # more than that may wait
WORK_LIMIT = 10.0  # seconds to wait for a work stream
SILENCE_LIMIT = 90.0  # seconds without a message, for clients without yamux
SILENCE_SUSPECT = 35.0  # seconds after which such a client is overdue: it pings every 30 s
PROBE_LIMIT = 3.0  # seconds for a tunnel to prove that it is alive when another one wants its port
UNREAD_LIMIT = 65536  # bytes of control messages that wait for a client
SHOWN = 64  # characters of a client's own words in the log
REASON = 200  # characters of a refusal, which may quote them

log = structlog.get_logger()


Vet = Callable[[str, str, int], Awaitable[str]]
"""(token of the login, claimed name, claimed port) -> why the client cannot have it, "" when it can."""


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


class Channel(Struct, frozen=True):
    """The encrypted control connection, as it is after LoginResp."""

    transport: asyncio.Transport
    version: int
    encryptor: Encryptor
    decryptor: Decryptor


class Owner(Protocol):
    """Who keeps the list of tunnels."""

    def ended(self, tunnel: Tunnel) -> None:
        """`tunnel` is closed; forget it."""


class Work(asyncio.Protocol):
    """A work stream that waits in the pool. The client has nothing to say until it is started."""

    def __init__(self, transport: asyncio.Transport, version: int, left: Callable[[Work], None]) -> None:
        self.transport = transport
        self.version = version
        self._left = left

    def data_received(self, data: bytes) -> None:
        self.transport.abort()

    def eof_received(self) -> None:
        self._left(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._left(self)


class Tunnel(asyncio.Protocol):
    """The protocol of a control connection, from LoginResp on.

    `mux` is the session that carries it, None for a client without yamux. Nothing of a closed tunnel is left: names,
    ports and streams are free before `close` returns, so a successor can have them at once.
    """

    def __init__(
        self,
        owner: Owner,
        claims: Claims,
        deadlines: Deadlines,
        *,
        channel: Channel,
        mux: MuxSession | None,
        login: Login,
        run_id: str,
        address: str,
        since: float,
        vet: Vet | None = None,
    ) -> None:
        self.run_id = run_id
        self.mux = mux
        self.address = address
        self.deadline = NEVER
        self.closed = False
        self._owner = owner
        self._claims = claims
        self._deadlines = deadlines
        self._channel = channel
        self._login = login
        self._since = since
        self._vet = vet
        self._reader = MessageReader(channel.version)
        self._pool_count = min(max(login.pool_count, 0), MAX_POOL)
        self._pool: deque[Work] = deque()
        self._waiters: deque[_Waiter] = deque()
        self._held: dict[str, Claim] = {}
        self._unconfirmed: dict[str, int] = {}  # claim -> the work stream, counted from login, that confirms it
        self._requested = 0  # work streams, since login
        self._arrived = 0
        self._deciding: str | None = None  # name of the claim whose present holder is being asked whether it lives
        self._decision: asyncio.Task[None] | None = None

    def begin(self, rest: bytes) -> None:
        """LoginResp was sent: fill the pool, then take what came behind the Login."""
        if self.mux is None:
            self._deadlines.watch(self)
            self._touch()
        for _ in range(self._pool_count):
            self._request_work()
        if rest:
            self.data_received(rest)

    def facts(self) -> TunnelFacts:
        """For the status page."""
        login = self._login
        return TunnelFacts(
            address=self.address,
            version=shown(login.version),
            system=shown(f"{login.os}/{login.arch}"),
            hostname=shown(login.hostname),
            proxies=tuple((shown(claim.name), claim.port) for claim in self._held.values()),
            since=self._since,
            round_trip=self.mux.round_trip if self.mux else None,
            streams=self.mux.streams if self.mux else len(self._pool),
            mux=self.mux is not None,
            wire=self._channel.version,
        )

    def close(self, reason: str, *, abort: bool = False) -> None:
        """End the tunnel; everything it held is free on return. `abort` drops what is not sent yet."""
        if self.closed:
            return
        self.closed = True
        log.info("tunnel closed", address=self.address, names=[shown(name) for name in self._held], reason=reason)
        self._deadlines.drop(self)
        if self._decision is not None:
            self._decision.cancel()
        for claim in self._held.values():
            self._claims.release(claim)
        self._held.clear()
        self._owner.ended(self)
        while self._waiters:
            self._waiters.popleft().fail(f"the tunnel was closed: {reason}")
        pool, self._pool = self._pool, deque()
        if self.mux is not None:  # its streams end with it
            self.mux.abort(reason) if abort else self.mux.close(reason)
            return
        for work in pool:
            work.transport.abort()
        if abort:
            self._channel.transport.abort()
        else:
            self._channel.transport.close()

    async def alive(self) -> bool:
        """Does the client still answer? Asked before its port is refused to somebody else."""
        if self.closed:
            return False
        if self.mux is not None:
            return await self.mux.probe(PROBE_LIMIT)
        return self.deadline - self._deadlines.now > SILENCE_LIMIT - SILENCE_SUSPECT

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
        self._touch()
        if isinstance(message, Ping):
            self._send(Pong())
        elif isinstance(message, NewProxy):
            self._new_proxy(message)
        elif isinstance(message, CloseProxy):
            self._close_proxy(message.proxy_name)

    def _touch(self) -> None:
        if self.mux is None:
            self.deadline = self._deadlines.now + SILENCE_LIMIT

    def _send(self, message: Message) -> None:
        transport = self._channel.transport
        if transport.get_write_buffer_size() > UNREAD_LIMIT:
            self.close("the client does not read its control connection", abort=True)
            return
        transport.write(self._channel.encryptor.encrypt(encode(message, self._channel.version)))

    # Claims

    def _new_proxy(self, request: NewProxy) -> None:
        """Answer now, unless somebody else holds it, who must first be asked whether he lives."""
        if self._deciding == request.proxy_name:
            return  # repeated, the answer is on its way
        known = self._held.get(request.proxy_name)
        if known is not None and known.port == request.remote_port:
            self._send(_granted(known))  # the client has missed our answer
            return
        if self._vet is not None and self._deciding is None:  # a second claim meanwhile is over the limit anyway
            self._deciding = request.proxy_name
            self._decision = asyncio.get_running_loop().create_task(self._vet_and_settle(self._vet, request))
        else:
            self._settle(request)

    async def _vet_and_settle(self, vet: Vet, request: NewProxy) -> None:
        refusal = await vet(self._login.metas.get("token", ""), request.proxy_name, request.remote_port)
        self._deciding = None
        if refusal:
            self._refuse(request, ClaimRefused(refusal))
        else:
            self._settle(request)

    def _settle(self, request: NewProxy) -> None:
        try:
            self._grant(request)
        except ClaimTaken as taken:
            self._deciding = request.proxy_name
            self._decision = asyncio.get_running_loop().create_task(self._decide(request, taken))
        except ClaimRefused as refused:
            self._refuse(request, refused)

    def _grant(self, request: NewProxy) -> None:
        claim = self._claims.grant(self, len(self._held) + (self._deciding is not None), request)
        self._held[claim.name] = claim
        log.info("tunnel claim", address=self.address, name=shown(claim.name), port=claim.port)
        self._send(_granted(claim))
        # frpc handles its control messages in order: when the stream that we ask for now is here, it knows that it
        # has the claim. Before that it would close a started work stream without a word (F 5.5).
        self._request_work()
        self._unconfirmed[claim.name] = self._requested
        self._claims.await_confirmation(claim)

    def _refuse(self, request: NewProxy, refused: ClaimRefused) -> None:
        log.warning(
            "tunnel claim refused",
            address=self.address,
            name=shown(request.proxy_name),
            port=request.remote_port,
            reason=shown(str(refused), REASON),
        )
        self._send(NewProxyResp(request.proxy_name, error=str(refused)))

    async def _decide(self, request: NewProxy, taken: ClaimTaken) -> None:
        """Answer once it is known whether the holder lives; after a dead one another may hold the rest."""
        holder = taken.holder.tunnel
        if await holder.alive():
            self._deciding = None
            self._refuse(request, taken)
            return
        holder.close("it does not answer, and its port is wanted by another client", abort=True)
        self._deciding = None
        self._settle(request)

    def _close_proxy(self, name: str) -> None:
        if self._decision is not None and name == self._deciding:
            self._decision.cancel()
            self._deciding = None
        claim = self._held.pop(name, None)
        if claim is not None:
            self._unconfirmed.pop(name, None)
            self._claims.release(claim)
            log.info("tunnel claim ended", address=self.address, name=shown(name), port=claim.port)

    # Work streams

    def add_work(self, transport: asyncio.Transport, version: int) -> None:
        """The client has opened a work stream."""
        work = Work(transport, version, self._forget_work)
        transport.set_protocol(work)
        self._arrived += 1
        for name in [name for name, count in self._unconfirmed.items() if count <= self._arrived]:
            del self._unconfirmed[name]
            self._claims.confirm(self._held[name])
        self._store(work)

    async def start(self, factory: ProtocolFactory, messages: tuple[bytes, bytes]) -> Connected:
        """As Holder."""
        work = self._take()
        if work is not None:
            self._request_work()  # in its place
        else:
            work = await self._wait_for_work()
            if self._requested - self._arrived + len(self._pool) < self._pool_count + SPARE_POOL:
                self._request_work()  # the pool was too small
        transport = work.transport
        transport.write(messages[work.version - 1])
        protocol = factory()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        return transport, protocol

    def _request_work(self) -> None:
        self._requested += 1
        self._send(ReqWorkConn())

    def _take(self) -> Work | None:
        while self._pool:
            work = self._pool.popleft()
            if not work.transport.is_closing():
                return work
        return None

    def _store(self, work: Work) -> None:
        while self._waiters:
            work_for = self._waiters.popleft().work
            if not work_for.done():
                work_for.set_result(work)
                return
        if self.closed or len(self._pool) >= self._pool_count + SPARE_POOL:
            work.transport.close()
        else:
            self._pool.append(work)

    def _forget_work(self, work: Work) -> None:
        if work in self._pool:
            self._pool.remove(work)

    async def _wait_for_work(self) -> Work:
        """Ask for a work stream and wait for it; the first in the queue gets the first that comes."""
        waiter = _Waiter(asyncio.get_running_loop().create_future(), self._deadlines.now + WORK_LIMIT)
        self._deadlines.watch(waiter)
        try:
            while True:
                if self.closed:
                    raise TunnelAway("the tunnel was closed")
                self._waiters.append(waiter)
                self._request_work()
                work = await waiter.work
                if not work.transport.is_closing():
                    return work
                waiter.work = asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if waiter.work.done() and not waiter.work.cancelled() and waiter.work.exception() is None:
                self._store(waiter.work.result())  # it came in the same moment
            raise
        finally:
            self._deadlines.drop(waiter)
            if waiter in self._waiters:
                self._waiters.remove(waiter)


class _Waiter:
    """A connection that waits for a work stream."""

    def __init__(self, work: asyncio.Future[Work], deadline: float) -> None:
        self.work = work
        self.deadline = deadline

    def fail(self, reason: str) -> None:
        if not self.work.done():
            self.work.set_exception(TunnelAway(reason))

    def expired(self) -> None:
        self.fail(f"the client gave no work stream within {WORK_LIMIT:g} s")


def _granted(claim: Claim) -> NewProxyResp:
    return NewProxyResp(claim.name, remote_addr=f":{claim.port}")


def shown(text: str, limit: int = SHOWN) -> str:
    """A client's own words, fit for a log line."""
    text = text[:limit]
    return text if text.isprintable() else ascii(text)[1:-1]
