"""The FRP server: connections of tunnel clients, from accept to login (F 1.2, F 5.1, F 8.1)."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any

import structlog

from harp.lazy import load_module
from harp.net.certificates import throwaway_context
from harp.net.deadlines import Deadlines
from harp.net.listen import ListenError, bound_socket
from harp.net.ports import PortTable
from harp.settings import Settings
from harp.tunnel.server.claims import Claims
from harp.tunnel.server.pending import LOGIN_LIMIT, Guest, Opening
from harp.tunnel.server.tunnel import Channel, Tunnel, TunnelFacts, Vet, shown
from harp.wire.frp import (
    RANDOM_SIZE,
    WRONG_TOKEN,
    FrameType,
    Login,
    LoginResp,
    NewWorkConn,
    StartWorkConn,
    frame,
    server_hello,
)
from harp.wire.frp_crypto import control_key, control_keys, privilege_key, transcript

CIPHERS = "harp.wire.frp_ciphers"
FRP_TOKEN = ""  # HaRP clients have none: the shared key travels in `metas`
COMPATIBLE = "0.61.1"  # the frps version that clients are told
BACKLOG = 1024
GUESTS = 512  # connections that have not logged in
GUESTS_PER_ADDRESS = 128  # many clients may come back at once from behind one address
ACCEPT_PAUSE = 1.0  # seconds, when the process is out of file descriptors
CLOSE_LIMIT = 2.0  # seconds for clients to take our goodbye
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
TLS_CUSTOM_BYTE = b"\x17"  # frpc's own byte in front of a TLS handshake; dropped
TLS_BYTE = b"\x16"
PLAIN_BYTES = (b"\0", b"o", b"w", b"F")
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 3))  # seconds, seconds, probes

log = structlog.get_logger()

Authenticate = Callable[[str, str], str | None]


class TunnelServer:
    """Serves tunnel clients on every FRP address.

    `authenticate(address, token)` gets the client's address without port and its `metas["token"]`, "" when it has
    none, and gives None, or the text that the client reads when it is refused. Every connection must use `tls`; when it
    is None TLS proves nothing and is an offer, for clients that use it by default. `vet` is asked about every claim.
    """

    def __init__(
        self,
        settings: Settings,
        ports: PortTable,
        deadlines: Deadlines,
        authenticate: Authenticate,
        tls: ssl.SSLContext | None,
        *,
        vet: Vet | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.deadlines = deadlines
        self._settings = settings
        self._authenticate = authenticate
        self._tls = tls
        self._tls_required = tls is not None
        self._tls_lock = asyncio.Lock()
        self._vet = vet
        self._wall = wall
        self._claims = Claims(ports, deadlines, listen=settings.tunnel.listen)
        self._tunnels: dict[str, Tunnel] = {}  # by run id
        self._guests: set[Guest] = set()
        self._guests_from: Counter[str] = Counter()
        self._sockets: list[socket.socket] = []

    async def start(self) -> None:
        """Listen. Raises ListenError, with nothing left open."""
        try:
            for address in self._settings.listen.frp:
                sock = bound_socket(address)
                self._sockets.append(sock)
                sock.listen(BACKLOG)
                sock.setblocking(False)
        except ListenError:
            self.stop_accepting()
            raise
        for sock in self._sockets:
            self._resume_accepting(sock)

    @property
    def bound_ports(self) -> list[int]:
        """The TCP ports that are listened on, in the order of the addresses."""
        return [sock.getsockname()[1] for sock in self._sockets if sock.family != socket.AF_UNIX]

    @property
    def guests(self) -> int:
        """Connections that have not logged in."""
        return len(self._guests)

    def set_tls(self, tls: ssl.SSLContext) -> None:
        """Use `tls` for connections from now on."""
        self._tls = tls

    def facts(self) -> list[TunnelFacts]:
        """Every live tunnel."""
        return [tunnel.facts() for tunnel in self._tunnels.values()]

    def stop_accepting(self) -> None:
        """Take no new connection; tunnels go on."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    async def close(self) -> None:
        """End all tunnels; waits up to CLOSE_LIMIT for the clients to take what was sent."""
        self.stop_accepting()
        for guest in list(self._guests):
            guest.drop()
        tunnels = list(self._tunnels.values())
        for tunnel in tunnels:
            tunnel.close("HaRP stops")
        sessions = [tunnel.mux for tunnel in tunnels if tunnel.mux is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT):
                for session in sessions:
                    await session.wait_closed()
        for session in sessions:
            session.abort("HaRP stops")

    # Accepting

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except OSError as error:  # mostly a client that has gone away again
            if error.errno in OUT_OF_RESOURCES:
                log.error("tunnel connections cannot be accepted", reason=error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_PAUSE, self._resume_accepting, listener)
            return
        sock.setblocking(False)
        self._admit(sock, address_of(peer))

    def _resume_accepting(self, listener: socket.socket) -> None:
        if listener in self._sockets:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _admit(self, sock: socket.socket, address: str) -> None:
        full = len(self._guests) + len(self._tunnels) >= self._settings.limits.tunnels
        if full or len(self._guests) >= GUESTS or self._guests_from[address] >= GUESTS_PER_ADDRESS:
            log.warning("tunnel connection dropped", address=address, reason="too many connections")
            sock.close()
            return
        _tune(sock)
        guest = Guest(self, address)
        self._guests.add(guest)
        self._guests_from[address] += 1
        self.deadlines.watch(guest)
        guest.greeting = asyncio.create_task(self._greet(guest, sock))

    async def _greet(self, guest: Guest, sock: socket.socket) -> None:
        """Find out whether it is TLS, and hand the connection to `guest`."""
        handed_over = connected = False
        try:
            tls = await self._sniff(sock)
            await load_module(CIPHERS)  # a login will need them
            handed_over = True  # from here on the loop closes the socket
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guest,
                sock,
                ssl=tls,
                ssl_handshake_timeout=LOGIN_LIMIT if tls else None,
                ssl_shutdown_timeout=CLOSE_LIMIT if tls else None,
            )
            connected = True
        except _WithoutTls as error:
            log.warning("tunnel connection dropped", address=guest.address, reason=str(error))
        except _NotWelcome as error:
            if error.args:
                log.info("tunnel connection dropped", address=guest.address, reason=str(error))
        except OSError as error:  # a failed handshake is one
            reason = str(error) or type(error).__name__
            log.info("tunnel connection dropped", address=guest.address, reason=f"TLS: {reason}")
        finally:
            if not handed_over:
                sock.close()
            if not connected:
                self.left(guest)

    async def _sniff(self, sock: socket.socket) -> ssl.SSLContext | None:
        """The TLS context to use. Looks at one byte only: a handshake may come in several segments (F 6.5)."""
        await _readable(sock)
        first = sock.recv(1, socket.MSG_PEEK)
        if not first:
            raise _NotWelcome  # a health check that connects and closes is not worth a line
        if first == TLS_CUSTOM_BYTE:
            sock.recv(1)
            return await self._context()
        if first == TLS_BYTE:
            return await self._context()
        if first not in PLAIN_BYTES:
            raise _NotWelcome(f"neither FRP nor TLS, it begins with {first!r}")
        if self._tls_required:
            raise _WithoutTls("a client without TLS; set transport.tls.enable in its configuration")
        return None

    async def _context(self) -> ssl.SSLContext:
        """TLS for a client. The offer of plain mode is made for the first who takes it: its library is large."""
        async with self._tls_lock:
            if self._tls is None:
                self._tls = await asyncio.to_thread(throwaway_context, datetime.now(UTC))
            return self._tls

    # Reception of guests

    def left(self, guest: Guest) -> None:
        """As Reception."""
        self.deadlines.drop(guest)
        if guest in self._guests:
            self._guests.discard(guest)
            self._guests_from[guest.address] -= 1
            if not self._guests_from[guest.address]:
                del self._guests_from[guest.address]

    def late(self, guest: Guest) -> None:
        """As Reception."""
        log.info("tunnel connection dropped", address=guest.address, reason=f"no login within {LOGIN_LIMIT:g} s")
        guest.drop()

    def hello(self, opening: Opening, payload: bytes) -> None:
        """As Reception."""
        answer, refusal = server_hello(payload, os.urandom(RANDOM_SIZE))
        opening.hellos = (payload, answer)
        opening.transport.write(frame(FrameType.SERVER_HELLO, answer))
        if refusal:
            log.warning("tunnel refused", address=opening.guest.address, reason=refusal)
            opening.refuse()

    def login(self, opening: Opening, login: Login) -> None:
        """As Reception."""
        guest = opening.guest
        if guest.tunnel is not None:  # this connection has its control connection already
            opening.refuse()
            return
        refusal = self._refusal(guest.address, opening, login)
        if refusal:
            reason = "metadatas.token is not the shared key" if refusal == WRONG_TOKEN else refusal
            log.warning("tunnel refused", address=guest.address, reason=reason, client=shown(login.version))
            opening.send(LoginResp(COMPATIBLE, error=refusal))
            opening.refuse()
            return
        run_id = login.run_id if login.run_id in self._tunnels else os.urandom(8).hex()
        predecessor = self._tunnels.get(run_id)
        if predecessor is not None:
            predecessor.close("the client has connected again", abort=True)
        self._welcome(opening, login, run_id)

    def work(self, opening: Opening, message: NewWorkConn) -> None:
        """As Reception. In a yamux session only its own client may bring work connections."""
        guest = opening.guest
        if opening.rest():  # a client has nothing to say before StartWorkConn
            opening.refuse()
            return
        tunnel = guest.tunnel if guest.mux is not None else self._tunnels.get(message.run_id)
        if tunnel is None or tunnel.closed or tunnel.run_id != message.run_id or tunnel.mux is not guest.mux:
            opening.send(StartWorkConn(error="no client control found for this run id"))
            opening.refuse()
            return
        if guest.mux is None:
            self.left(guest)
        tunnel.add_work(opening.transport, opening.version)

    def ended(self, tunnel: Tunnel) -> None:
        """As Owner."""
        if self._tunnels.get(tunnel.run_id) is tunnel:
            del self._tunnels[tunnel.run_id]

    def _refusal(self, address: str, opening: Opening, login: Login) -> str:
        refusal = self._authenticate(address, login.metas.get("token", ""))
        if refusal is not None:
            return refusal
        if not compare_digest(login.privilege_key.encode(), privilege_key(FRP_TOKEN, login.timestamp).encode()):
            return "token in login doesn't match token from configuration"
        if opening.version == 2 and opening.hellos is None:
            return "missing v2 crypto negotiation"
        return ""

    def _welcome(self, opening: Opening, login: Login, run_id: str) -> None:
        guest, transport = opening.guest, opening.transport
        opening.send(LoginResp(COMPATIBLE, run_id))
        tunnel = Tunnel(
            self,
            self._claims,
            self.deadlines,
            channel=_channel(opening),
            mux=guest.mux,
            login=login,
            run_id=run_id,
            address=guest.address,
            since=self._wall(),
            vet=self._vet,
        )
        self._tunnels[run_id] = guest.tunnel = tunnel
        transport.set_protocol(tunnel)
        self.left(guest)
        if guest.mux is not None:
            guest.mux.max_streams = self._settings.limits.tunnel_streams
            guest.mux.window = self._settings.tunnel.window
            guest.mux.measure()
        log.info("tunnel connected", address=guest.address, client=shown(login.version), wire=opening.version)
        tunnel.begin(opening.rest())


def _channel(opening: Opening) -> Channel:
    from harp.wire import frp_ciphers as ciphers  # noqa: PLC0415 - loaded for the first guest

    if opening.hellos is None:
        key = control_key(FRP_TOKEN)
        encryptor = ciphers.CfbEncryptor(key, os.urandom(ciphers.IV_SIZE))
        return Channel(opening.transport, 1, encryptor, ciphers.CfbDecryptor(key))
    from_client, to_client = control_keys(FRP_TOKEN, transcript(*opening.hellos))
    records = ciphers.GcmEncryptor(to_client, os.urandom(ciphers.NONCE_SIZE))
    return Channel(opening.transport, 2, records, ciphers.GcmDecryptor(from_client))


class _NotWelcome(Exception):
    """A connection is dropped before it is one; without text silently."""


class _WithoutTls(_NotWelcome):
    """It speaks FRP, so it is no scanner: somebody should put its configuration right."""


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
    """Of a socket's peer, without port; an IPv4 client of an IPv6 socket is an IPv4 client, one of a unix socket ""."""
    host = str(peer[0]) if peer else ""
    return host.removeprefix("::ffff:") if "." in host else host
