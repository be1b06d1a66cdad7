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
from tests.fakes.waiting import settled, turn, until

MB = 1 << 20


class AppEnd(asyncio.Protocol):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.over = False
        self.paused = False
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

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

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
        self.app = AppEnd()
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


async def received(side: Side, size: int) -> None:
    await until(lambda: len(side.app.received) >= size)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_megabytes_pass_in_both_directions(version: ssl.TLSVersion) -> None:
    side = Side()
    side.client.maximum_version = version
    data = bytes(range(256)) * (3 * MB // 256)
    async with side.connected() as (reader, writer):
        writer.write(data)
        side.app.transport.write(data)
        assert await reader.readexactly(len(data)) == data
        await received(side, len(data))
        assert side.app.received == data


class Wire:
    """A connection over a transport in memory, its client, and the bytes between them."""

    def __init__(self, *, slice_: int = 1 << 14) -> None:
        self.side = Side()
        self.transport, self.connection = MemoryTransport(), self.side.connection()
        self.connection.connection_made(self.transport)
        self._slice = slice_
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = self.side.client.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def shake(self) -> None:
        for _ in range(3):
            with suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            await self.exchange()

    async def exchange(self) -> None:
        """Give either side what the other one has written."""
        await self.arrives(self._outgoing.read())
        self._incoming.write(self.transport.take())

    async def arrives(self, data: bytes) -> None:
        """Give the connection bytes off the wire, while it takes any."""
        async with asyncio.timeout(20):
            while data and not self.transport.closed:
                if self.transport.reading or self._slice == 1:
                    buffer = self.connection.get_buffer(-1)
                    piece, data = data[: min(self._slice, len(buffer))], data[min(self._slice, len(buffer)) :]
                    buffer[: len(piece)] = piece
                    self.connection.buffer_updated(len(piece))
                else:
                    await turn()
            await settled()

    def lose(self) -> None:
        self.connection.abort()
        self.connection.connection_lost(None)


async def test_bytes_that_come_in_the_smallest_pieces_are_the_same_bytes() -> None:
    wire = Wire(slice_=1)
    await wire.shake()
    wire.client.write(b"hello " * 1000)
    await wire.exchange()
    assert wire.side.app.received == b"hello " * 1000
    wire.lose()
    assert wire.side.app.lost.is_set()


async def test_a_wire_that_is_full_pauses_the_protocol() -> None:
    wire = Wire()
    wire.connection.pause_writing()  # of a handshake, nobody hears
    wire.connection.resume_writing()
    await wire.shake()
    wire.connection.pause_writing()
    assert wire.side.app.paused
    wire.connection.resume_writing()
    assert not wire.side.app.paused
    wire.transport.unsent = 5
    wire.connection.set_write_buffer_limits(10)
    assert wire.connection.get_write_buffer_size() == 5
    assert not wire.connection.can_write_eof()
    wire.lose()


async def test_bytes_that_are_not_of_this_connection_end_it() -> None:
    wire = Wire()
    await wire.shake()
    await wire.arrives(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert wire.transport.aborted
    assert wire.connection.is_closing()
    assert not wire.side.app.received
    wire.connection.write(b"into nothing")
    wire.lose()


async def test_a_client_that_says_it_sends_no_more_is_closed_once_and_told_so() -> None:
    wire = Wire()
    await wire.shake()
    wire.client.write(b"last words")
    with suppress(ssl.SSLWantReadError):
        wire.client.unwrap()
    await wire.exchange()
    assert (bytes(wire.side.app.received), wire.side.app.over) == (b"last words", True)
    assert wire.transport.eof_sent
    wire.connection.close()  # once more
    assert repr(wire.connection) == "<TlsConnection closing>"
    with suppress(ssl.SSLZeroReturnError):
        assert wire.client.read(1) == b""
    wire.connection.eof_received()
    wire.connection.connection_lost(None)
    assert wire.side.app.lost.is_set()


async def test_who_is_closed_during_the_handshake_hears_nothing() -> None:
    wire = Wire()
    wire.connection.close()
    assert wire.transport.aborted
    wire.connection.connection_lost(None)
    assert wire.side.failed == 1
    assert not wire.side.app.made.is_set()


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
        await received(side, MB)


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
    wire = Wire()
    with suppress(ssl.SSLWantReadError):
        wire.client.do_handshake()
    await wire.exchange()
    wire.client.do_handshake()
    wire.client.write(bytes(MB))
    await wire.exchange()
    assert len(wire.side.app.received) == MB
    wire.lose()


def test_every_state_can_be_reached_and_left() -> None:
    reached, grown = {SHAKING}, 0
    while grown != len(reached):
        grown = len(reached)
        reached |= {state for known in reached for state in MOVES[known].values()}
    assert reached == set(MOVES)
    assert all(CLOSED in moves.values() for moves in MOVES.values())
    assert OPEN not in MOVES[OPEN].values()
