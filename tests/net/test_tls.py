"""TLS on accepted connections: what passes, what ends it, what a stranger can cost."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trustme

from harp.net.tls import CLOSED, MOST_OF_FAREWELL, MOST_OF_HANDSHAKE, MOVES, OPEN, SHAKING, TlsConnection
from harp.net.turns import Turns
from tests.fakes.transport import MemoryTransport

MB = 1 << 20


class App(asyncio.Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.over = False
        self.lost = asyncio.Event()
        self.made = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.made.set()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.over = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Side:
    """The server's side of connections, and how many came to nothing."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.issue_cert("localhost").configure_cert(self.context)
        authority.configure_trust(self.client)
        self.turns = Turns()
        self.app = App()
        self.failed = 0

    def connection(self) -> TlsConnection:
        return TlsConnection(lambda: self.app, self.context, self.turns, self.fail)

    def fail(self) -> None:
        self.failed += 1

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self.connection, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=self.client, server_hostname="localhost", limit=MB
        )
        try:
            async with asyncio.timeout(20):
                await self.app.made.wait()
                yield reader, writer
        finally:
            server.close()
            writer.transport.abort()
            self.app.transport.abort()
            async with asyncio.timeout(5):
                await self.app.lost.wait()


async def until(side: Side, size: int) -> None:
    async with asyncio.timeout(20):
        while len(side.app.received) < size:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_megabytes_pass_in_both_directions(version: ssl.TLSVersion) -> None:
    side = Side()
    side.client.maximum_version = version
    data = bytes(range(256)) * (3 * MB // 256)
    async with side.connected() as (reader, writer):
        writer.write(data)
        side.app.transport.write(data)
        assert await reader.readexactly(len(data)) == data
        await until(side, len(data))
        assert side.app.received == data


async def test_bytes_that_come_in_the_smallest_pieces_are_the_same_bytes() -> None:
    side = Side()
    wire, connection = MemoryTransport(), side.connection()
    connection.connection_made(wire)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = side.client.wrap_bio(incoming, outgoing, server_hostname="localhost")

    async def exchange() -> None:
        for byte in outgoing.read():
            connection.get_buffer(-1)[0] = byte
            connection.buffer_updated(1)
        await asyncio.sleep(0.01)
        incoming.write(wire.take())

    for _ in range(3):
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        await exchange()
    client.write(b"hello " * 1000)
    await exchange()
    assert side.app.received == b"hello " * 1000
    connection.abort()
    connection.connection_lost(None)
    assert side.app.lost.is_set()


async def test_close_says_so_and_an_abort_does_not() -> None:
    side = Side()
    async with side.connected() as (reader, _):
        side.app.transport.write(b"bye")
        side.app.transport.close()
        assert await reader.read() == b"bye"
    other = Side()
    async with other.connected() as (reader, _):
        other.app.transport.abort()
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        await other.app.lost.wait()
    assert not other.app.over


async def test_the_end_of_the_client_is_heard() -> None:
    side = Side()
    async with side.connected() as (_, writer):
        writer.write(b"last words")
        writer.close()
        await side.app.lost.wait()
    assert (side.app.over, bytes(side.app.received)) == (True, b"last words")


async def test_who_closes_still_lets_the_client_send_for_a_while_but_not_for_ever() -> None:
    side = Side()
    async with side.connected() as (_, writer):
        side.app.transport.close()
        with pytest.raises((ConnectionError, ssl.SSLError)):
            for _ in range(4 * MOST_OF_FAREWELL // MB):
                writer.write(bytes(MB))
                await writer.drain()
        await side.app.lost.wait()
    assert not side.app.received


async def test_a_paused_connection_takes_nothing_off_the_wire() -> None:
    side = Side()
    async with side.connected() as (reader, writer):
        side.app.transport.pause_reading()
        writer.write(bytes(MB))
        side.app.transport.write(b"still here")
        await reader.readexactly(10)
        assert not side.app.transport.is_reading()
        assert not side.app.received
        side.app.transport.resume_reading()
        await until(side, MB)


async def test_handshakes_wait_for_their_turn() -> None:
    side = Side()
    connection = side.connection()
    connection.connection_made(MemoryTransport())
    connection.get_buffer(-1)[:4] = b"\x16\x03\x01\x02"
    connection.buffer_updated(4)
    assert side.turns.crowded
    assert repr(connection) == "<TlsConnection handshake, others come first>"
    connection.abort()
    connection.connection_lost(None)
    assert side.failed == 1


async def test_a_handshake_without_end_is_cut() -> None:
    side, wire = Side(), MemoryTransport()
    connection = side.connection()
    connection.connection_made(wire)
    endless = b"\x16\x03\x01\x40\x00\x01\x01\x00\x00"  # a ClientHello of 64 KiB, as OpenSSL would believe
    for number in range(MOST_OF_HANDSHAKE // 1024 + 2):
        if wire.aborted or wire.closed:
            break
        piece = endless.ljust(1024, b"\0") if not number else bytes(1024)
        connection.get_buffer(-1)[:1024] = piece
        connection.buffer_updated(1024)
        assert not wire.reading
        await asyncio.sleep(0.001)
    assert wire.closed
    connection.connection_lost(None)
    assert side.failed == 1


async def test_much_that_follows_the_handshake_at_once_arrives() -> None:
    side, wire = Side(), MemoryTransport()
    connection = side.connection()
    connection.connection_made(wire)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = side.client.wrap_bio(incoming, outgoing, server_hostname="localhost")

    async def send() -> None:
        data = outgoing.read()
        while data and not wire.closed:
            if wire.reading:
                size = min(len(data), len(connection.get_buffer(-1)))
                connection.get_buffer(-1)[:size] = data[:size]
                connection.buffer_updated(size)
                data = data[size:]
            else:
                await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        incoming.write(wire.take())

    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    await send()
    client.do_handshake()
    client.write(bytes(MB))
    await send()
    assert len(side.app.received) == MB
    connection.abort()
    connection.connection_lost(None)


def test_every_state_can_be_reached_and_left() -> None:
    reached, grown = {SHAKING}, 0
    while grown != len(reached):
        grown = len(reached)
        reached |= {state for known in reached for state in MOVES[known].values()}
    assert reached == set(MOVES)
    assert all(CLOSED in moves.values() for moves in MOVES.values())
    assert OPEN not in MOVES[OPEN].values()
