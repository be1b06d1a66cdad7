"""Makes the links of a replica: of two, the one whose name comes first dials the tunnel port of the other.

A link begins with one byte and the fingerprint of the dialler's CA; then come TLS and the introduction. The byte tells
the port that this is no tunnel client before either side has shown a certificate, so both show that of replicas,
whatever tunnel clients are asked for.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from harp.cluster.introduction import CLOSED, Introduction, NotLinked
from harp.cluster.members import Members
from harp.errors import words_of
from harp.logs import RareWarnings
from harp.net.member_tls import SHOWN, MemberTls, shown
from harp.net.tasks import Tasks
from harp.wire.frp_login import LINK_BYTE
from harp.wire.member import Greeting

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0  # seconds between two attempts
CONNECT_LIMIT = 5.0  # seconds for TCP, and again for TLS
LISTED_LIMIT = 2.0  # seconds: whoever has just started may dial before the list says so here
CLOSE_LIMIT = 2.0  # seconds for the other side to end TLS
LIST_FIX = "are HP_CLUSTER_URL and HP_CLUSTER_PREFIX the same at both? `harp members` shows the list here"
ADDRESS_FIX = "correct HP_CLUSTER_ADDRESS there"

log = structlog.get_logger()


class ListedReplica(Protocol):
    """A replica in the list: `cluster.roster.Peer`."""

    @property
    def boot(self) -> str:
        """Of its process: another one with its name is another."""

    @property
    def host(self) -> str:
        """Where it is reached."""

    @property
    def port(self) -> int:
        """Its tunnel port."""


class PeerList(Protocol):
    """Who knows the other replicas: `cluster.roster.Roster`."""

    @property
    def peers(self) -> Mapping[str, ListedReplica]:
        """All of them, by name; what was known last while the store is away."""


class Linker:
    """Dials, and is dialled: the LinkEntrance of the tunnel server. Tell it by `look` that the list or a link has
    changed. `tls` may be replaced by a newer one."""

    def __init__(self, members: Members, peers: PeerList, tls: MemberTls, warnings: RareWarnings) -> None:
        self.tls = tls
        self.problems: dict[str, str] = {}  # why a listed member that we dial is not linked
        self._members = members
        self._peers = peers
        self._warnings = warnings
        self._changes: dict[asyncio.Event, None] = {}  # of all who wait for one
        self._kept: set[str] = set()  # members that are dialled
        self._met: dict[str, ListedReplica] = {}  # the entries by which they were reached
        self._tasks = Tasks()

    def look(self) -> None:
        """See who is to be dialled now."""
        for changed in self._changes:
            changed.set()
        for name in self._peers.peers:
            if self._members.name < name and name not in self._kept:
                self._kept.add(name)
                self._tasks.start(self._keep(name))

    async def all_linked(self, seconds: float) -> bool:
        """Wait, not for long, for a link with every member of the list."""
        return await self._until(lambda: self._peers.peers.keys() <= self._members.talking, seconds)

    async def close(self) -> None:
        """Dial no more."""
        await self._tasks.close()

    # Dialling

    async def _keep(self, name: str) -> None:
        """Have a link with a member for as long as it is listed."""
        try:
            await self._keep_linked(name)
        finally:
            self._kept.discard(name)
            self.problems.pop(name, None)

    async def _keep_linked(self, name: str) -> None:
        pause, failures = FIRST_PAUSE, 0
        loop = asyncio.get_running_loop()
        while (peer := self._peers.peers.get(name)) is not None:
            if self._is_linked(name, peer):
                began = loop.time()
                await self._until(lambda peer=peer: not self._is_linked(name, peer) or self._is_new(name, peer))  # type: ignore[misc]
                if loop.time() - began > LONGEST_PAUSE:
                    pause = FIRST_PAUSE
                    continue
            else:
                try:
                    await self._dial(name, peer)
                except NotLinked as error:
                    failures += 1
                    self._report(name, peer, error, failures)
                else:
                    failures = 0
                    self.problems.pop(name, None)
                    continue
            if await self._until(lambda peer=peer: self._is_new(name, peer), pause):  # type: ignore[misc]
                pause = FIRST_PAUSE
            else:
                pause = min(2 * pause, LONGEST_PAUSE)

    def _is_linked(self, name: str, peer: ListedReplica) -> bool:
        """Return whether there is a link with the process of this entry, or one that was made by it."""
        link = self._members.links.get(name)
        return link is not None and (link.boot == peer.boot or self._met.get(name) == peer)

    def _is_new(self, name: str, peer: ListedReplica) -> bool:
        return self._peers.peers.get(name) != peer

    def _report(self, name: str, peer: ListedReplica, error: NotLinked, failures: int) -> None:
        self.problems[name] = str(error)
        if failures > 1:  # who has just started may need a moment more
            fix = {"fix": error.fix} if error.fix else {}
            self._warnings.warning("member not linked", str(error), name, address=f"{peer.host}:{peer.port}", **fix)
        else:
            log.info("member not linked yet", member=name, reason=str(error))

    async def _dial(self, name: str, peer: ListedReplica) -> None:
        """Link with a member. Raises NotLinked."""
        tls, introduction = self.tls, Introduction(dialled_here=True)
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, peer.host, peer.port
                )
            transport = await _secured(transport, introduction, tls)
            introduction.expect_member(tls)
            rest = await introduction.greet(Greeting(self._members.name, self._members.boot, name))
        except BaseException as error:
            if transport is not None:
                transport.abort()
            if isinstance(error, OSError):
                raise _failure(error, tls.authority) from error
            if isinstance(error, (ValueError, OverflowError)):  # of the list: the system was not even asked
                raise NotLinked(f"{peer.host}:{peer.port} is no address", ADDRESS_FIX) from error
            raise
        self._met[name] = peer
        self._members.adopt(name, peer.boot, transport, rest)

    # Being dialled

    async def arrived(self, sock: socket.socket, address: str) -> None:
        """As LinkEntrance."""
        introduction = Introduction(dialled_here=False)
        tls, theirs = self.tls, b""
        transport: asyncio.BaseTransport | None = None
        try:
            try:
                theirs = await _received(sock, SHOWN)
            except BaseException:
                sock.close()
                raise
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: introduction,
                sock,
                ssl=tls.server,
                ssl_handshake_timeout=CONNECT_LIMIT,
                ssl_shutdown_timeout=CLOSE_LIMIT,
            )
            await self._admit(introduction, tls)
        except (OSError, NotLinked) as error:
            failure = _failure(error, tls.authority, theirs) if isinstance(error, OSError) else error
            fix = {"fix": failure.fix} if failure.fix else {}
            self._warnings.warning("link refused", str(failure), address, **fix)
            if transport is not None:
                introduction.transport.close()
        except BaseException:
            if transport is not None:
                introduction.transport.abort()
            raise

    async def _admit(self, introduction: Introduction, tls: MemberTls) -> None:
        """Learn who it is, and link with it. Raises NotLinked."""
        introduction.expect_member(tls)
        hello = await introduction.hello()
        objection = await self._objection(hello)
        if objection is not None:
            introduction.refuse(str(objection))
            raise objection
        introduction.expect_open()
        self._members.adopt(hello.member, hello.boot, introduction.accept())

    async def _objection(self, hello: Greeting) -> NotLinked | None:
        """Return why we do not link with whoever says this."""
        own, name = self._members.name, hello.member
        if hello.to != own:
            fix = f"HP_CLUSTER_ADDRESS of {hello.to} leads here"
            return NotLinked(f"{name} looks for {hello.to}, and this is {own}", fix)
        if name == own:
            return NotLinked(f"another replica is called {own} as well", "give each its own HP_CLUSTER_NAME")
        if not await self._until(lambda: name in self._peers.peers, LISTED_LIMIT):
            return NotLinked(f"{name} is not in the list of {own}", LIST_FIX)
        listed, link = self._peers.peers[name], self._members.links.get(name)
        if link is not None and link.boot == listed.boot and hello.boot != listed.boot:
            return NotLinked(f"another process called {name} is linked with {own}", "restart it, if it still runs")
        return None

    # Inside

    async def _until(self, condition: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until something holds, up to `seconds`; False when it does not."""
        changed = asyncio.Event()
        self._changes[changed] = None
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            return False
        else:
            return True
        finally:
            del self._changes[changed]


def _failure(error: OSError, ours: bytes, theirs: bytes = b"") -> NotLinked:
    """Return what a failed connection or handshake means. Who does not like our CA just closes the connection."""
    untrusted = isinstance(error, ssl.SSLCertVerificationError)
    if theirs not in (b"", ours) or (untrusted and not theirs):
        whose = f"another CA ({shown(theirs)})" if theirs else "another CA"
        fix = "give all replicas the same directory HP_CERTS_DIR/frp"
        return NotLinked(f"its certificate is of {whose}, ours is {shown(ours)}: {words_of(error)}", fix)
    if untrusted:
        return NotLinked(words_of(error), "compare the clocks of both hosts")
    return NotLinked(words_of(error))


async def _secured(bare: asyncio.Transport, introduction: Introduction, tls: MemberTls) -> asyncio.Transport:
    """Begin a link. Raises OSError or NotLinked."""
    bare.write(LINK_BYTE + tls.authority)
    loop = asyncio.get_running_loop()
    transport = await loop.start_tls(bare, introduction, tls.client, ssl_handshake_timeout=CONNECT_LIMIT)
    if transport is None:
        raise NotLinked(CLOSED)
    introduction.connection_made(transport)
    return transport


async def _received(sock: socket.socket, size: int) -> bytes:
    """Read exactly this much. Raises ConnectionError when there is less."""
    data = b""
    while len(data) < size:
        piece = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not piece:
            raise ConnectionResetError(CLOSED)
        data += piece
    return data
