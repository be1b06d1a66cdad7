"""Listening sockets of the frontend: plain HTTP and HTTPS, on any number of addresses."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace

from harp.errors import HarpError, words_of
from harp.net.entrance import Admission, Factory, OneAnswer, PlainEntrance, TlsEntrance
from harp.net.resolve import spelled
from harp.net.turns import Turns
from harp.settings import Address

BACKLOG = 1024


class ListenError(HarpError):
    """An address cannot be listened on; the text says which and why."""


class Listener(Protocol):
    """What accepts connections."""

    @property
    def sockets(self) -> Sequence[Any]:
        """What it listens on."""

    def close(self) -> None:
        """Stop accepting connections."""


def listen(sockets: Sequence[socket.socket], factory: Callable[[], OneAnswer]) -> list[Listener]:
    """Serve `factory` on bound sockets, TCP or unix.

    The file of a unix socket stays when serving ends: after an upgrade, or where a worker has stood in, another process
    serves there.
    """
    entrance = PlainEntrance(factory)
    for sock in sockets:
        entrance.start(sock, BACKLOG)
    return [entrance]


def listen_tls(
    sockets: Sequence[socket.socket], factory: Factory, context: ssl.SSLContext, admission: Admission, turns: Turns
) -> list[Listener]:
    """Listen over TLS. `admission` counts connections from their accept on; the protocol releases them."""
    entrance = TlsEntrance(factory, context, admission, turns)
    for sock in sockets:
        entrance.start(sock, BACKLOG)
    return [entrance]


Bind = Callable[[tuple[Address, ...]], list[socket.socket]]


def bound_sockets(addresses: tuple[Address, ...]) -> list[socket.socket]:
    """Return a socket for each address. Raises ListenError, with nothing left open."""
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            sockets.append(bound_socket(address))
    except ListenError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def bound_group(address: Address, count: int) -> list[socket.socket]:
    """As many sockets for one address: the system spreads connections over those that are listened on.

    Unix sockets know nothing of the kind, there all are one. Raises ListenError, also when the address is in use by
    another program that would share it.
    """
    first = bound_socket(address)
    if count == 1:
        return [first]
    if address.path:
        return [first, *(first.dup() for _ in range(count - 1))]
    port = first.getsockname()[1]
    first.close()
    group: list[socket.socket] = []
    try:
        for _ in range(count):
            group.append(_bound_tcp(replace(address, port=port), shared=True))
    except OSError as error:
        for sock in group:
            sock.close()
        raise ListenError(f"cannot listen on {address}: {words_of(error)}") from error
    return group


def bound_socket(address: Address) -> socket.socket:
    """Return a socket bound to `address`.

    `::` takes IPv4 as well, as admins expect of `[::]:8780`. Raises ListenError.
    """
    try:
        return _bound_unix(address.path) if address.path else _bound_tcp(address)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {words_of(error)}") from error


def _bound_unix(path: str) -> socket.socket:
    place = Path(path)
    if place.is_socket() and not place.is_symlink():
        place.unlink(missing_ok=True)  # what an earlier process left behind; anything else stays, and binding fails
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    return sock


def _bound_tcp(address: Address, *, shared: bool = False) -> socket.socket:
    found = socket.getaddrinfo(spelled(address.host), address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)  # asyncio sets TCP_NODELAY only where it reads IPPROTO_TCP
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.v6only)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock


def ports_of(servers: Sequence[Listener]) -> list[int]:
    """Return the TCP ports that servers are bound to, in order."""
    return [sock.getsockname()[1] for server in servers for sock in server.sockets if sock.family != socket.AF_UNIX]


def https_context(certificate: Path) -> ssl.SSLContext:
    """TLS for browsers from a PEM file with chain and key. Raises ListenError with the reason."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a stranger's way to make us work; our writes never wait for reads
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, certificate)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path) -> None:
    """Serve `certificate` in new handshakes of `context`; the old one stays when it cannot be used.

    It is tried on another context first: one that takes the chain and then finds no key has lost its old certificate.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate)
        context.load_cert_chain(certificate)
    except (ssl.SSLError, OSError) as error:
        raise ListenError(f"{certificate} is not a PEM file with certificate chain and key: {error}") from error
