"""A listening socket on 127.0.0.1 for one claimed port, for people who debug with curl (HP_TUNNEL_LISTEN)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import structlog

from harp.errors import TunnelAway
from harp.net.listen import bound_socket
from harp.net.ports import ProtocolFactory
from harp.net.tasks import Tasks
from harp.settings import Address
from harp.tunnel.relay import Relay

log = structlog.get_logger()

Peer = tuple[str, int]
Connect = Callable[[Peer, Peer, ProtocolFactory], Awaitable[tuple[asyncio.Transport, asyncio.BaseProtocol]]]


class Loopback:
    """Pipes each connection to 127.0.0.1:`port` into a stream of its own. Raises ListenError when it is in use."""

    def __init__(self, port: int, connect: Connect) -> None:
        self._port = port
        self._connect = connect
        self._socket = bound_socket(Address("127.0.0.1", port))
        self._socket.listen()
        self._socket.setblocking(False)
        self._tasks = Tasks()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Stop listening; the port is free on return. Connections that are joined go on."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._tasks.cancel()

    def _accept(self) -> None:
        try:
            sock, peer = self._socket.accept()
        except OSError:  # it has gone away again
            return
        sock.setblocking(False)
        self._tasks.start(self._serve(sock, peer))

    async def _serve(self, sock: socket.socket, peer: Peer) -> None:
        transport, user = await self._loop.connect_accepted_socket(Relay, sock)
        try:
            _, service = await self._connect(peer, ("127.0.0.1", self._port), Relay)
        except BaseException as error:
            transport.abort()
            if not isinstance(error, TunnelAway):
                raise
            log.warning("loopback connection refused", port=self._port, reason=str(error))
            return
        assert isinstance(service, Relay)
        service.join(user)
