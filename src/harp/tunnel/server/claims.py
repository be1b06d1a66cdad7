"""Which tunnel holds which name and port (F 5.3, F 5.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol

from harp.errors import HarpError
from harp.net.deadlines import NEVER, Deadlines
from harp.net.listen import ListenError
from harp.net.ports import PortTable, ProtocolFactory
from harp.policy.claims import ClaimEvent, ClaimState, moved
from harp.policy.ports import ENGINE_PORTS, EXAPP_PORTS
from harp.tunnel.server.loopback import Loopback
from harp.wire.frp import NewProxy, StartWorkConn, encode

CLAIMS_PER_TUNNEL = 1
NAME_LIMIT = 255  # characters
CONFIRMATION = 1.0  # seconds until a claim is offered without proof that the client has processed our answer
SHOWN = 64  # characters of a client's own words in the log

VIRTUAL_HOSTS = {
    "http": "type [http] not supported when vhost http port is not set",
    "https": "type [https] not supported when vhost https port is not set",
    "tcpmux": "tcpmux with multiplexer httpconnect not supported because this feature is not enabled in server",
}
OTHER_TYPES = frozenset({"udp", "stcp", "xtcp", "sudp"})


class ClaimRefused(HarpError):
    """A client cannot have what it claims; the text is for NewProxyResp."""


class ClaimTaken(ClaimRefused):
    """Another tunnel holds it, if that tunnel is still alive."""

    def __init__(self, text: str, holder: Occupant) -> None:
        super().__init__(text)
        self.holder = holder


class Contested(Protocol):
    """The tunnel that holds what another client wants."""

    async def alive(self) -> bool:
        """Return whether the client still answers."""

    def close(self, reason: str, *, abort: bool = False) -> None:
        """End the tunnel; everything it held is free on return."""


class Holder(Contested, Protocol):
    """What a claim needs of its tunnel."""

    since: float  # Unix seconds of its login

    async def start(self, factory: ProtocolFactory, messages: tuple[bytes, bytes]) -> Connected:
        """Take a work stream, send the message of its framing (version 1, version 2) and attach `factory()`."""


class Occupant(Protocol):
    """A name and a port that are taken: by a claim here, or at another member of a cluster."""

    name: str
    port: int
    since: float  # as of its tunnel

    @property
    def tunnel(self) -> Contested:
        """Whose it is."""


class ClaimWatch(Protocol):
    """Who tells others of our claims: `cluster.directory.Directory`."""

    def held(self, claim: Claim) -> None:
        """`claim` was granted, or is offered now."""

    def freed(self, claim: Claim) -> None:
        """It is over."""


Connected = tuple[asyncio.Transport, asyncio.BaseProtocol]


class Claim:
    """A name and a port that a tunnel wants; the `Offer` of the port table once it is confirmed.

    Its life is `harp.policy.claims.MOVES`.
    """

    def __init__(self, request: NewProxy, tunnel: Holder, claims: Claims) -> None:
        self.name = request.proxy_name
        self.port = request.remote_port
        self.request = request
        self.tunnel = tunnel
        self.since = tunnel.since
        self.state = ClaimState.QUEUED
        self.deadline = NEVER
        self.loopback: Loopback | None = None
        self._claims = claims
        self._start = _start_messages(StartWorkConn(self.name))

    def __repr__(self) -> str:
        return f"<Claim {shown(self.name)}:{self.port} {self.state.value}>"

    def move(self, event: ClaimEvent) -> None:
        """Move as the table says. Raises PeerError if it has no such move."""
        self.state = moved(self.state, event)

    async def connect(self, factory: ProtocolFactory) -> Connected:
        """As `Offer.connect`; does not suspend while a work stream waits in the pool."""
        return await self.tunnel.start(factory, self._start)

    async def connect_for(
        self, source: tuple[str, int], destination: tuple[str, int], factory: ProtocolFactory
    ) -> Connected:
        """As `connect`, telling the client who connects to which address (for its PROXY protocol header)."""
        message = StartWorkConn(self.name, source[0], destination[0], source[1], destination[1])
        return await self.tunnel.start(factory, _start_messages(message))

    def expired(self) -> None:
        """Offer the claim although the client has not shown that it knows of it."""
        self._claims.confirm(self)


def _start_messages(message: StartWorkConn) -> tuple[bytes, bytes]:
    return encode(message, 1), encode(message, 2)


class Claims:
    """All claims of all tunnels. A claim holds its name and port at once; requests see it when it is confirmed."""

    def __init__(self, ports: PortTable, deadlines: Deadlines, *, listen: bool) -> None:
        self._ports = ports
        self._deadlines = deadlines
        self._listen = listen
        self.watch: ClaimWatch | None = None
        self._by_name: dict[str, Occupant] = {}
        self._by_port: dict[int, Occupant] = {}

    def examine(self, request: NewProxy, held: int) -> None:
        """Raise ClaimRefused for what no client could have, or not one that has `held` claims."""
        refusal = _unsupported(request)
        if refusal:
            raise ClaimRefused(refusal)
        if held >= CLAIMS_PER_TUNNEL:
            raise ClaimRefused("exceed the max_ports_per_client")

    def grant(self, claim: Claim) -> None:
        """Reserve what `claim` asks for. Raises ClaimTaken or ClaimRefused, checking in the order of F 5.3."""
        name, port = claim.name, claim.port
        if name in self._by_name:
            raise ClaimTaken(f"proxy [{name}] already exists", self._by_name[name])
        if port == 0:  # "let the server choose": nobody could know which port it became
            raise ClaimRefused("no available port")
        if port not in EXAPP_PORTS and port not in ENGINE_PORTS:
            raise ClaimRefused("port not allowed")
        if port in self._by_port:
            raise ClaimTaken("port already used", self._by_port[port])
        if self._listen:
            try:
                claim.loopback = Loopback(port, claim.connect_for)
            except ListenError as error:
                raise ClaimRefused("port unavailable") from error
        claim.move(ClaimEvent.GRANT)
        self._by_name[name] = self._by_port[port] = claim
        if self.watch is not None:
            self.watch.held(claim)

    def await_confirmation(self, claim: Claim) -> None:
        """The client has its answer; offer `claim` once it is confirmed, or a little later without confirmation."""
        if claim.state is ClaimState.GRANTED:
            claim.deadline = self._deadlines.now + CONFIRMATION
            self._deadlines.watch(claim)

    def confirm(self, claim: Claim) -> None:
        """The client knows that it has the claim: requests may use it."""
        self._deadlines.drop(claim)
        if claim.state is ClaimState.GRANTED:
            claim.move(ClaimEvent.CONFIRM)
            self._ports.claim(claim.port, claim)
            if self.watch is not None:
                self.watch.held(claim)

    def withhold(self, claim: Claim) -> None:
        """Have requests wait, here and at other members; the client keeps name and port."""
        if claim.state is ClaimState.OFFERED:
            self._ports.release(claim.port, claim)
            if self.watch is not None:
                self.watch.freed(claim)

    def offer_again(self, claim: Claim) -> None:
        """Let requests use it as before."""
        if claim.state is ClaimState.OFFERED:
            self._ports.claim(claim.port, claim)
            if self.watch is not None:
                self.watch.held(claim)

    def release(self, claim: Claim) -> None:
        """Give name and port back."""
        claim.move(ClaimEvent.RELEASE)
        self._deadlines.drop(claim)
        self._ports.release(claim.port, claim)
        if claim.loopback is not None:
            claim.loopback.close()
        if self._by_name.get(claim.name) is claim:
            self.vacate(claim)
            if self.watch is not None:
                self.watch.freed(claim)

    # Of other members

    def local(self) -> Iterator[Claim]:
        """Yield the claims of tunnels here."""
        return (claim for claim in list(self._by_port.values()) if isinstance(claim, Claim))

    def rivals(self, name: str, port: int) -> list[Occupant]:
        """Return who has a name or a port; they may be two."""
        found = (self._by_name.get(name), self._by_port.get(port))
        return list(dict.fromkeys(place for place in found if place is not None))

    def occupy(self, place: Occupant) -> None:
        """A tunnel elsewhere has a name and a port that are free here."""
        self._by_name[place.name] = self._by_port[place.port] = place

    def vacate(self, place: Occupant) -> None:
        """It does not any more; nothing happens when somebody else has them by now."""
        if self._by_name.get(place.name) is place:
            del self._by_name[place.name]
        if self._by_port.get(place.port) is place:
            del self._by_port[place.port]

    async def is_alive(self, port: int) -> bool:
        """Return whether the port is that of a tunnel here whose client answers."""
        claim = self._by_port.get(port)
        return isinstance(claim, Claim) and await claim.tunnel.alive()

    def end(self, port: int, reason: str) -> None:
        """End the tunnel here that holds a port, if one does."""
        claim = self._by_port.get(port)
        if isinstance(claim, Claim):
            claim.tunnel.close(reason, abort=True)


def _unsupported(request: NewProxy) -> str:
    """Return why no client could have such a proxy here, or ""."""
    kind = request.proxy_type or "tcp"
    if kind in VIRTUAL_HOSTS:
        return VIRTUAL_HOSTS[kind]
    if kind in OTHER_TYPES:
        return f"type [{kind}] not supported by this server"
    if kind != "tcp":
        return f"unknown proxy type: {kind[:NAME_LIMIT]}"
    for option, used in (
        ("transport.useEncryption", request.use_encryption),
        ("transport.useCompression", request.use_compression),
        ("loadBalancer.group", bool(request.group)),
        ("transport.bandwidthLimitMode = server", request.bandwidth_limit_mode == "server"),
    ):
        if used:
            return f"{option} is not supported by this server, remove it from the proxy's configuration"
    if not 1 <= len(request.proxy_name) <= NAME_LIMIT:
        return f"a proxy name needs 1 to {NAME_LIMIT} characters"
    return ""


def shown(text: str, limit: int = SHOWN) -> str:
    """Return a client's own words, fit for a log line."""
    text = text[:limit]
    return text if text.isprintable() else ascii(text)[1:-1]
