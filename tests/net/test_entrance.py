"""Limits at the door of the HTTPS listener."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trustme

from harp.net.listen import bound_sockets, listen_tls, ports_of
from harp.net.turns import Turns
from harp.settings import Address
from tests.fakes.waiting import until


@dataclass
class Book:
    """Admits as many as it has room for."""

    room: int
    inside: list[str] = field(default_factory=list)
    most: int = 0

    def admit(self, peer: str) -> str | None:
        self.inside.append(peer)
        self.most = max(self.most, len(self.inside))
        return None if len(self.inside) <= self.room else "full"

    def release(self, peer: str) -> None:
        self.inside.remove(peer)


class Echo(asyncio.Protocol):
    def __init__(self, book: Book) -> None:
        self._book = book

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._book.release("127.0.0.1")


@asynccontextmanager
async def serving(book: Book) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Port and what trusts its certificate."""
    authority = trustme.CA()
    server_side, client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("localhost").configure_cert(server_side)
    authority.configure_trust(client_side)
    servers = listen_tls(bound_sockets((Address("127.0.0.1", 0),)), lambda: Echo(book), server_side, book, Turns())
    try:
        yield ports_of(servers)[0], client_side
    finally:
        for server in servers:
            server.close()


async def test_a_connection_counts_before_it_has_said_anything() -> None:
    book = Book(2)
    async with serving(book) as (port, _):
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await until(lambda: len(book.inside) == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            if await reader.read(1) == b"":
                raise ConnectionResetError
        writer.close()
        for _, writer in silent:
            writer.transport.abort()
        await until(lambda: len(book.inside) == 0)
        assert book.most == 3


async def test_bytes_are_passed_to_the_protocol_in_order_from_the_first_on() -> None:
    book = Book(1)
    async with serving(book) as (port, tls):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="localhost")
        writer.write(b"first")
        assert await reader.readexactly(5) == b"first"
        writer.write(b"then")
        assert await reader.readexactly(4) == b"then"
        assert book.inside == ["127.0.0.1"]
        writer.close()
        await until(lambda: len(book.inside) == 0)


async def test_who_speaks_no_tls_is_let_go_and_not_counted_any_more() -> None:
    book = Book(1)
    async with serving(book) as (port, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        await until(lambda: len(book.inside) == 0)
        writer.close()
