"""The FRP listener: accepts connections, distinguishes TLS from plain, and bounds what has not logged in (F 1.2)."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from harp.errors import words_of
from harp.lazy import load_module
from harp.logs import RareWarnings
from harp.net.certificates import throwaway_context
from harp.net.deadlines import Deadlines
from harp.net.tasks import Tasks
from harp.tunnel.server.pending import LOGIN_LIMIT, LoginHandler, PendingConnection
from harp.tunnel.server.tls_failures import failure_of
from harp.wire.frp_login import ENOUGH, LINK_BYTE, TLS_CUSTOM_BYTE, NotFrp, Step, check_start

CIPHERS = "harp.wire.frp_ciphers"
BACKLOG = 1024
ACCEPT_PAUSE = 1.0  # seconds, when the process is out of file descriptors
FOR_LINKS = 8  # connections that may show whether they are links, however many tunnels there are
CLOSE_LIMIT = 2.0  # seconds for a client to end TLS
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3))  # seconds, seconds, probes

log = structlog.get_logger()


class LinkEntrance(Protocol):
    """Who takes the links of other replicas: `cluster.entrance.Entrance`."""

    async def arrived(self, sock: socket.socket, address: str) -> None:
        """A replica seems to dial. The socket is for this one to close; cancelled when it takes too long."""


class Acceptor:
    """Listens, and brings each connection to `handler` as a PendingConnection.

    Every connection must use `tls`; if it is None, TLS is optional and proves nothing, for clients that use it by
    default. `tunnels` says how many have logged in: with the pending ones they are at most `limit`.
    """

    def __init__(
        self,
        handler: LoginHandler,
        deadlines: Deadlines,
        warnings: RareWarnings,
        tls: ssl.SSLContext | None,
        *,
        limit: int,
        tunnels: Callable[[], int],
    ) -> None:
        self._handler = handler
        self._deadlines = deadlines
        self._warnings = warnings
        self._tls = tls
        self._tls_required = tls is not None
        self._tls_lock = asyncio.Lock()
        self.links: LinkEntrance | None = None
        self.clients_may_come = asyncio.Event()  # until then they wait, within the limit of their login
        self.clients_may_come.set()
        self._limit = limit
        self._tunnels = tunnels
        self._pending: dict[PendingConnection, None] = {}  # the oldest first
        self._from: Counter[str] = Counter()  # pending ones by address
        self.sockets: list[socket.socket] = []
        self._tasks = Tasks()

    def __len__(self) -> int:
        """Connections that have not logged in."""
        return len(self._pending)

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on additional bound sockets."""
        for sock in sockets:
            self.sockets.append(sock)
            sock.listen(BACKLOG)
            sock.setblocking(False)
            self._resume(sock)

    @property
    def bound_ports(self) -> list[int]:
        """The TCP ports that are listened on, in the order of the addresses."""
        ports = [(sock.family, sock.getsockname()) for sock in self.sockets if sock.family != socket.AF_UNIX]
        return [name[1] for _, name in dict.fromkeys(ports)]

    def set_tls(self, tls: ssl.SSLContext) -> None:
        """Use `tls` for connections from now on."""
        self._tls = tls

    def stop(self) -> None:
        """Accept no new connections."""
        self.leave(self.sockets)

    def leave(self, sockets: Sequence[socket.socket]) -> None:
        """Take none of these sockets."""
        for sock in list(sockets):
            self.sockets.remove(sock)
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    async def close(self) -> None:
        """Stop, and drop everything that is pending."""
        self.stop()
        for pending in list(self._pending):
            pending.drop()
        await self._tasks.close()

    def left(self, pending: PendingConnection) -> None:
        """`pending` is not pending any more."""
        self._deadlines.drop(pending)
        if pending in self._pending:
            del self._pending[pending]
            self._from[pending.address] -= 1
            if not self._from[pending.address]:
                del self._from[pending.address]

    # Accepting

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except OSError as error:  # mostly a client that has gone away again
            if error.errno in OUT_OF_RESOURCES:
                self._warnings.warning("tunnel connections cannot be accepted", words_of(error))
                self._pause(listener)
            return
        sock.setblocking(False)
        address = address_of(peer)
        if self._make_room():
            self._admit(sock, address)
        else:
            self._warn_full(address)
            sock.close()

    def _warn_full(self, address: str) -> None:
        reason = f"{self._limit} tunnels are connected"
        self._warnings.warning("tunnel connection dropped", reason, address, fix="raise HP_MAX_TUNNELS")

    def _pause(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(ACCEPT_PAUSE, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self.sockets:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _make_room(self) -> bool:
        """Return whether there is room for one more: the oldest unfinished one of the address with the most gives way.

        As many may be unfinished as there may be tunnels, so clients that all come at once do not displace each other.
        """
        if len(self._pending) + self._tunnels() < self._limit:
            return True
        if self.links is not None and len(self._pending) < FOR_LINKS:
            return True
        if not self._pending:
            return False
        ((address, _),) = self._from.most_common(1)
        oldest = next(pending for pending in self._pending if pending.address == address)
        reason = "it has not logged in, and too many others of its address have not"
        self._warnings.warning("tunnel connection dropped", reason, address, connection=repr(oldest))
        oldest.drop()
        return True

    def _admit(self, sock: socket.socket, address: str) -> None:
        _tune(sock)
        pending = PendingConnection(self._handler, address)
        self._pending[pending] = None
        self._from[address] += 1
        self._deadlines.watch(pending)
        pending.greeting = self._tasks.start(self._greet(pending, sock))

    async def _greet(self, pending: PendingConnection, sock: socket.socket) -> None:
        """Find out whether it is TLS, and hand the connection to `pending`."""
        handed_over = connected = False
        try:
            step = await self._sniff(pending, sock)
            if step is Step.LINK:
                handed_over = True
                await self.links.arrived(sock, pending.address)  # type: ignore[union-attr]  # `_sniff` has looked
                return
            if self._tunnels() >= self._limit:
                self._warn_full(pending.address)
                return
            await self.clients_may_come.wait()
            tls = await self._context() if step is Step.TLS else None
            await load_module(CIPHERS)  # a login will need them
            handed_over = True  # from here on the loop closes the socket
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: pending,
                sock,
                ssl=tls,
                ssl_handshake_timeout=LOGIN_LIMIT if tls else None,
                ssl_shutdown_timeout=CLOSE_LIMIT if tls else None,
            )
            connected = True
        except _Closed:
            pass  # a health check that connects and closes is not worth a line
        except NotFrp as error:
            self._handler.unreadable(pending, error)
        except OSError as error:  # a failed handshake is one
            self._report(pending, error)
        finally:
            if not handed_over:
                sock.close()
            if not connected:
                pending.gone()

    async def _sniff(self, pending: PendingConnection, sock: socket.socket) -> Step:
        """Return how it begins. One byte decides: a handshake may come in several segments (F 6.5)."""
        await _readable(sock)
        start = sock.recv(ENOUGH, socket.MSG_PEEK)
        if not start:
            raise _Closed
        step = check_start(start, tls_required=self._tls_required)
        if step is Step.LINK and self.links is None:
            raise NotFrp(
                "a replica of a cluster dials, and this HaRP is none", "set HP_CLUSTER_URL here as it is set there"
            )
        pending.move(step)
        if start[:1] in (TLS_CUSTOM_BYTE, LINK_BYTE):
            sock.recv(1)
        return step

    async def _context(self) -> ssl.SSLContext:
        """TLS for a client. The offer of plain mode is made for the first who takes it: its library is large."""
        async with self._tls_lock:
            if self._tls is None:
                self._tls = await asyncio.to_thread(throwaway_context, datetime.now(UTC))
            return self._tls

    def _report(self, pending: PendingConnection, error: OSError) -> None:
        failure = failure_of(error)
        if failure is not None:  # a peer that presents a certificate, or checks ours, is a tunnel client
            self._warnings.warning("tunnel connection refused", failure.reason, pending.address, fix=failure.fix)
            return
        log.info("tunnel connection dropped", address=pending.address, reason=words_of(error), connection=repr(pending))


class _Closed(Exception):
    """The peer has closed the connection before its first byte."""


async def _readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def report() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, report)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


def _tune(sock: socket.socket) -> None:
    """Send at once; notice dead clients that have no yamux pings, in about two minutes."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so for sockets of its own only
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):  # not everywhere the same
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def address_of(peer: Any) -> str:
    """Return the address of a socket's peer, without port; an IPv4 client of an IPv6 socket is an IPv4 client.

    A client of a unix socket has "".
    """
    host = str(peer[0]) if peer else ""
    return host.removeprefix("::ffff:") if "." in host else host
