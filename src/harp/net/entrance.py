"""Where clients come in: connections are accepted here, and get what reads and writes their sockets.

Over TLS a connection counts from its accept on, not from the end of its handshake.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

from harp.net.direct import DirectTransport, Receiver
from harp.net.protocols import as_protocol
from harp.net.tasks import Tasks
from harp.net.tls import TlsConnection
from harp.net.turns import Turns

ACCEPTS_A_TURN = 32  # connections, before others are served
ACCEPT_PAUSE = 1.0  # seconds, when the process is out of file descriptors
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

LOOK = 4096  # bytes of a request, looked at before anybody reads them
PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
ONLY_REQUEST = b"onnection: close"  # however the header's first letter is written
UNWATCHED = 0.05  # seconds, about, until a client that leaves before its answer is noticed

Factory = Callable[[], object]  # what it makes has the methods of a protocol


class OneAnswer(Receiver, Protocol):
    """A client's protocol that knows when a transport need not read on."""

    @property
    def is_heard_out(self) -> bool:
        """Has the client said all that will be listened to?"""


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


class Entrance:
    """Accepts connections on bound sockets. Its subclasses say what becomes of them."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self.sockets)} sockets>"

    def start(self, sock: socket.socket, backlog: int) -> None:
        """Accept connections of a bound socket."""
        sock.listen(backlog)
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # for those it accepts
        self.sockets.append(sock)
        self._loop.add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Stop accepting connections; what has been accepted goes on."""
        sockets, self.sockets = self.sockets, []
        for sock in sockets:
            self._loop.remove_reader(sock)
            sock.close()

    def enter(self, sock: socket.socket, peer: Any) -> None:
        """Take an accepted connection; `peer` is the address of its other end."""
        raise NotImplementedError

    def _accept(self, listener: socket.socket) -> None:
        # Other processes may listen on the same unix socket, and serve what is left there.
        for _ in range(1 if listener.family == socket.AF_UNIX else ACCEPTS_A_TURN):
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
            self.enter(sock, peer)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self.sockets:
            self._loop.add_reader(listener, self._accept, listener)


class PlainEntrance(Entrance):
    """Passes connections to `factory`, whose protocol counts them.

    Clients that announce their only request get a DirectTransport, all others a transport of the loop.
    """

    def __init__(self, factory: Callable[[], OneAnswer]) -> None:
        super().__init__()
        self._factory = factory
        self._arrived: deque[tuple[socket.socket, Any]] = deque()
        self._unwatched: set[DirectTransport] = set()
        self._scheduled = False

    def enter(self, sock: socket.socket, peer: Any) -> None:
        """Let it wait until others have been served: most clients have sent their request by then."""
        if not self._arrived:
            self._loop.call_soon(self._begin_all)
        self._arrived.append((sock, peer))

    def _begin_all(self) -> None:
        arrived = self._arrived
        try:
            while arrived:
                self._begin(*arrived.popleft())
        finally:  # one that fails keeps no other out
            if arrived:
                self._loop.call_soon(self._begin_all)

    def _begin(self, sock: socket.socket, peer: Any) -> None:
        try:
            start = sock.recv(LOOK, PEEK)
        except BlockingIOError:
            self._tasks.start(self._pass_on(sock))
            return
        except OSError:  # it has gone away again
            start = b""
        if not start:
            sock.close()
        elif ONLY_REQUEST in start:
            self._answer_directly(sock, peer)
        else:
            self._tasks.start(self._pass_on(sock))

    def _answer_directly(self, sock: socket.socket, peer: Any) -> None:
        client = self._factory()
        transport = DirectTransport(sock, peer, client, self._unwatched)
        client.connection_made(cast("asyncio.Transport", transport))
        transport.read()
        if not client.is_heard_out:
            transport.watch()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_later(UNWATCHED, self._watch_all)

    def _watch_all(self) -> None:
        """Find out about those who leave before they have their answer."""
        self._scheduled = False
        for transport in list(self._unwatched):
            transport.watch()
        self._unwatched.clear()

    async def _pass_on(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with suppress(OSError):  # it has gone away again
            await self._loop.connect_accepted_socket(lambda: as_protocol(self._factory()), sock)


class TlsEntrance(Entrance):
    """Counts connections, and passes those with a complete handshake to `factory`.

    From then on, the protocol has to `release` what was counted here. Refused connections are closed without an answer.
    """

    def __init__(self, factory: Factory, context: ssl.SSLContext, admission: Admission, turns: Turns) -> None:
        super().__init__()
        self._factory = factory
        self._context = context
        self._admission = admission
        self._turns = turns

    def enter(self, sock: socket.socket, peer: Any) -> None:
        address = _host(peer)
        if self._admission.admit(address) is not None:
            self._admission.release(address)
            sock.close()
            return
        sock.setblocking(False)
        self._tasks.start(self._take(sock, address))

    async def _take(self, sock: socket.socket, address: str) -> None:
        def protocol() -> TlsConnection:
            return TlsConnection(self._factory, self._context, self._turns, lambda: self._admission.release(address))

        try:
            await self._loop.connect_accepted_socket(protocol, sock)
        except OSError:  # it has gone away again
            self._admission.release(address)
