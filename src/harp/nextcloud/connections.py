"""Connections to one Nextcloud: how they are made, kept for a moment, and carry one GET at a time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

from harp.errors import PeerError
from harp.net.resolve import Resolver
from harp.wire.response import Response, ResponseCollector
from harp.wire.responses import ResponseReader

IDLE = 4.0  # seconds an unused connection is kept: less than the 5 s of a usual Apache
PORTS = {"http": 80, "https": 443}


class Connections:
    """The idle connections to the origin of `url`, and how to make new ones. `connect_timeout` is for each address."""

    def __init__(self, url: str, resolver: Resolver, connect_timeout: float, idle: float = IDLE) -> None:
        origin = urlsplit(url)
        self._host = origin.hostname or ""
        self._port = origin.port or PORTS[origin.scheme]
        self._secure = origin.scheme == "https"
        self._connect_timeout = connect_timeout
        self._resolver = resolver
        self._idle_time = idle
        self._reader = ResponseReader()
        self._context: ssl.SSLContext | None = None
        self._idle: list[Connection] = []

    def take(self) -> Connection | None:
        """The connection used last, if one is idle. Give it back with `keep`."""
        if not self._idle:
            return None
        connection = self._idle.pop()
        connection.busy()
        return connection

    def keep(self, connection: Connection) -> None:
        """Keep a connection for the next call, as long as it lives."""
        if not connection.transport.is_closing():
            self._idle.append(connection)
            connection.idle(self._idle_time)

    async def connect(self) -> Connection:
        """A new connection, to the first address that takes one.

        Raises Unreachable for a name that does not resolve, else OSError: TimeoutError and those of TLS are some.
        """
        tls = await self._trust() if self._secure else None
        refusal = OSError("it has no address")
        for address in await self._resolver.addresses(self._host):
            try:
                return await self._connect(address, tls)
            except OSError as error:
                refusal = error
        self._resolver.forget(self._host)
        raise refusal

    def close(self) -> None:
        """Give up what is idle."""
        for connection in list(self._idle):
            connection.abandon()

    async def _connect(self, address: str, tls: ssl.SSLContext | None) -> Connection:
        connecting = asyncio.get_running_loop().create_connection(
            lambda: Connection(self._reader, self._lost),
            address,
            self._port,
            ssl=tls,
            server_hostname=self._host if tls else None,
        )
        async with asyncio.timeout(self._connect_timeout):
            _, connection = await connecting
        return connection

    async def _trust(self) -> ssl.SSLContext:
        """The system's CAs; reading them takes some hundredths of a second."""
        if self._context is None:
            self._context = await asyncio.to_thread(_system_trust)
        return self._context

    def _lost(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)


class Connection(asyncio.Protocol):
    """One connection. `lost` is told when it has ended."""

    transport: asyncio.Transport

    def __init__(self, reader: ResponseReader, lost: Callable[[Connection], None]) -> None:
        self._reader = reader
        self._lost = lost
        self._collector: ResponseCollector | None = None
        self._answer: asyncio.Future[Response] | None = None  # that somebody waits for
        self._heard = False  # some of it has come
        self._expiry: asyncio.TimerHandle | None = None

    async def ask(self, request: bytes, limit: int) -> Response:
        """Send a request; its answer with at most `limit` bytes of body. Who stops waiting ends the connection.

        Raises ConnectionError when the connection ends without a byte of an answer, else PeerError.
        """
        self._collector = ResponseCollector(self._reader, limit)
        self._heard = False
        answer = self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        try:
            response: Response = await answer
        except BaseException:
            self.abandon()
            raise
        finally:
            self._answer = None
        if not response.reusable:
            self.abandon()
        return response

    def idle(self, seconds: float) -> None:
        """Nobody needs it now; end it when nobody has come back in time."""
        self._expiry = asyncio.get_running_loop().call_later(seconds, self.abandon)

    def busy(self) -> None:
        """Somebody does again."""
        if self._expiry is not None:
            self._expiry.cancel()

    def abandon(self) -> None:
        """End it at once."""
        self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None or answer.done():  # nobody asked: whatever it is, it cannot be an answer
            self.abandon()
            return
        self._heard = True
        assert self._collector is not None
        try:
            response = self._collector.feed(data)
        except PeerError as error:
            answer.set_exception(error)
        else:
            if response is not None:
                answer.set_result(response)

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.busy()
        self._ended(exc)
        self._lost(self)

    def _ended(self, error: Exception | None) -> None:
        answer = self._answer
        if answer is None or answer.done():
            return
        assert self._collector is not None
        if not self._heard:
            answer.set_exception(error or ConnectionResetError("the connection was closed without an answer"))
        elif error is not None:
            answer.set_exception(PeerError(f"the connection broke: {error}"))
        else:
            try:
                answer.set_result(self._collector.end())
            except PeerError as short:
                answer.set_exception(short)


def _system_trust() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
