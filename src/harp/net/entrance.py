"""Limits on accepting: a connection counts from its accept on, not from the end of its TLS handshake."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from harp.net.tasks import Tasks
from harp.net.tls import TlsConnection
from harp.net.turns import Turns

ACCEPTS_A_TURN = 32  # connections, before others are served
ACCEPT_PAUSE = 1.0  # seconds, when the process is out of file descriptors
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Factory = Callable[[], asyncio.BaseProtocol]


class Admission(Protocol):
    """Who counts connections."""

    def admit(self, peer: str) -> str | None:
        """Count a connection of this address; a text refuses it. Every call is followed by one of `release`."""

    def release(self, peer: str) -> None:
        """A connection of this address has ended, or was refused."""


def address_of(transport: asyncio.BaseTransport) -> str:
    """Return the address of the other end, as text; "" on unix sockets. IPv4 on a dual-stack socket is IPv4."""
    return _host(transport.get_extra_info("peername"))


def _host(peer: Any) -> str:
    host: str = peer[0] if isinstance(peer, tuple) else ""
    return host.removeprefix("::ffff:")


class TlsEntrance:
    """Accepts connections on bound sockets, counts them, and passes those with a complete handshake to `factory`.

    From then on, the protocol has to `release` what was counted here. Refused connections are closed without an answer.
    """

    def __init__(self, factory: Factory, context: ssl.SSLContext, admission: Admission, turns: Turns) -> None:
        self.sockets: list[socket.socket] = []
        self._factory = factory
        self._context = context
        self._admission = admission
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()

    def __repr__(self) -> str:
        return f"<TlsEntrance {len(self.sockets)} sockets>"

    def start(self, sock: socket.socket, backlog: int) -> None:
        """Accept connections of a bound socket."""
        sock.listen(backlog)
        sock.setblocking(False)
        self.sockets.append(sock)
        self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Stop accepting connections; handshakes under way may complete."""
        sockets, self.sockets = self.sockets, []
        for sock in sockets:
            self._loop.remove_reader(sock)
            sock.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # mostly a client that has gone away again
                if error.errno in OUT_OF_RESOURCES:
                    self._loop.remove_reader(listener)
                    self._loop.call_later(ACCEPT_PAUSE, self._resume, listener)
                    return
                continue
            address = _host(peer)
            if self._admission.admit(address) is not None:
                self._admission.release(address)
                sock.close()
                continue
            sock.setblocking(False)
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._tasks.start(self._take(sock, address))

    def _resume(self, listener: socket.socket) -> None:
        if listener in self.sockets:
            self._loop.add_reader(listener, self._accept, listener)

    async def _take(self, sock: socket.socket, address: str) -> None:
        def protocol() -> TlsConnection:
            return TlsConnection(self._factory, self._context, self._turns, lambda: self._admission.release(address))

        try:
            await self._loop.connect_accepted_socket(protocol, sock)
        except OSError:  # it has gone away again
            self._admission.release(address)
