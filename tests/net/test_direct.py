"""Clients of the plain listener: those with one request, whose socket the loop does not watch, are served alike."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest

from harp.net.direct import DirectTransport
from harp.net.entrance import OneAnswer
from harp.net.listen import bound_sockets, listen, ports_of
from harp.net.reset import reset
from harp.settings import Address
from tests.fakes.waiting import turn, until

ONE = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
MANY = b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n"
BIG = bytes(range(256)) * 64 * 1024  # 16 MiB, more than the buffers of both sockets hold


class Served:
    """A protocol that records what happens to it, and does nothing by itself."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = b""
        self.is_heard_out = True
        self.stays = False  # when the client sends no more
        self._memory = memoryview(bytearray(64 * 1024))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._memory

    def buffer_updated(self, nbytes: int) -> None:
        self.received += bytes(self._memory[:nbytes])

    def data_received(self, data: bytes) -> None:  # what asyncio's own loop calls
        self.received += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.stays

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


@dataclass
class House:
    """A listener, and whom it serves."""

    port: int
    served: list[Served] = field(default_factory=list)

    async def visit(self, request: bytes) -> tuple[Served, asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect with bytes, so that they are there when the connection is accepted."""
        client = socket.create_connection(("127.0.0.1", self.port))
        client.sendall(request)
        reader, writer = await asyncio.open_connection(sock=client)
        before = len(self.served)
        await until(lambda: len(self.served) > before and self.served[-1].received == request)
        return self.served[-1], reader, writer


@asynccontextmanager
async def house(make: Callable[[], Served] = Served) -> AsyncIterator[House]:
    def factory() -> OneAnswer:
        here.served.append(make())
        return here.served[-1]

    servers = listen(bound_sockets((Address("127.0.0.1", 0),)), factory)
    here = House(ports_of(servers)[0])
    try:
        yield here
    finally:
        for server in servers:
            server.close()
        for one in here.served:
            if "lost" not in one.events:
                one.transport.abort()
        await turn()


both = pytest.mark.parametrize("request_head", [ONE, MANY], ids=["one request", "many"])


async def test_who_announces_its_only_request_has_a_transport_of_its_own_kind() -> None:
    async with house() as here:
        one, _, first = await here.visit(ONE)
        many, _, second = await here.visit(MANY)
        assert isinstance(one.transport, DirectTransport)
        assert not isinstance(many.transport, DirectTransport)
        first.close()
        second.close()


@both
async def test_the_answer_arrives_and_the_connection_ends(request_head: bytes) -> None:
    async with house() as here:
        served, reader, writer = await here.visit(request_head)
        served.transport.write(b"an ")
        served.transport.writelines([b"answ", b"er"])
        served.transport.close()
        assert await reader.read() == b"an answer"
        await until(lambda: served.events == ["lost"])
        writer.close()


@both
async def test_an_answer_that_is_read_slowly_arrives_whole_and_its_writer_is_paused_meanwhile(
    request_head: bytes,
) -> None:
    async with house() as here:
        served, reader, writer = await here.visit(request_head)
        served.transport.set_write_buffer_limits(128 * 1024)
        served.transport.write(BIG)
        assert served.events == ["pause"]
        assert served.transport.get_write_buffer_size() > 128 * 1024
        assert await reader.readexactly(len(BIG)) == BIG
        await until(lambda: served.events == ["pause", "resume"])
        assert served.transport.get_write_buffer_size() == 0
        served.transport.write(BIG)
        served.transport.close()  # what waits is sent before
        assert await reader.read() == BIG
        await until(lambda: served.events[-1] == "lost")
        writer.close()


@both
async def test_a_client_that_leaves_before_its_answer_is_noticed(request_head: bytes) -> None:
    async with house() as here:
        served, _, writer = await here.visit(request_head)
        writer.close()
        await until(lambda: served.events == ["eof", "lost"])


@both
async def test_a_client_that_sends_no_more_may_still_have_its_answer(request_head: bytes) -> None:
    async with house() as here:
        served, reader, writer = await here.visit(request_head)
        served.stays = True
        writer.write_eof()
        await until(lambda: served.events == ["eof"])
        served.transport.write(b"answer")
        served.transport.close()
        assert await reader.read() == b"answer"
        writer.close()


@both
async def test_more_of_a_request_is_read_as_it_comes(request_head: bytes) -> None:
    def expects_more() -> Served:
        served = Served()
        served.is_heard_out = False
        return served

    async with house(expects_more) as here:
        served, _, writer = await here.visit(request_head)
        writer.write(b"body")
        await until(lambda: served.received == request_head + b"body")
        writer.close()


@both
async def test_nothing_is_read_while_reading_is_paused(request_head: bytes) -> None:
    async with house() as here:
        served, _, writer = await here.visit(request_head)
        served.transport.pause_reading()
        writer.write(b"body")
        other, _, second = await here.visit(request_head)  # which takes as long as it takes to notice somebody
        second.close()
        await until(lambda: other.events == ["eof", "lost"])
        assert served.received == request_head
        served.transport.resume_reading()
        await until(lambda: served.received == request_head + b"body")
        writer.close()


@both
async def test_after_our_end_of_the_stream_the_client_is_heard_until_it_ends_too(request_head: bytes) -> None:
    async with house() as here:
        served, reader, writer = await here.visit(request_head)
        assert served.transport.can_write_eof()
        served.transport.write(b"answer")
        served.transport.write_eof()
        assert await reader.read() == b"answer"
        writer.write(b"late")
        await until(lambda: served.received == request_head + b"late")
        writer.close()
        await until(lambda: served.events == ["eof", "lost"])


async def test_bytes_that_nobody_wants_cost_no_answer_its_end() -> None:
    async with house() as here:
        served, reader, writer = await here.visit(ONE)
        writer.write(b"\r\n")
        served.transport.write(b"answer")
        served.transport.close()
        assert await reader.read() == b"answer"  # no ConnectionResetError
        writer.close()


@both
async def test_a_reset_is_one_for_the_client(request_head: bytes) -> None:
    async with house() as here:
        served, reader, writer = await here.visit(request_head)
        reset(served.transport)
        reset(served.transport)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await until(lambda: served.events == ["lost"])
        writer.close()


@both
async def test_writing_to_a_client_that_has_reset_the_connection_ends_it(request_head: bytes) -> None:
    async with house() as here:
        served, _, writer = await here.visit(request_head)
        served.stays = True
        reset(cast("asyncio.Transport", writer.transport))

        def lost() -> bool:
            served.transport.write(b"answer")
            return "lost" in served.events

        await until(lost)
        assert served.transport.is_closing()
        assert served.events.count("lost") == 1


async def test_who_connects_and_leaves_without_a_word_is_nobody() -> None:
    async with house() as here:
        socket.create_connection(("127.0.0.1", here.port)).close()
        _, _, writer = await here.visit(ONE)
        assert len(here.served) == 1
        writer.close()


async def test_who_fails_keeps_no_other_out(recwarn: pytest.WarningsRecorder) -> None:
    class Failing(Served):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            if len(here.served) == 1:
                raise RuntimeError("as a bug of ours would")

    loop, seen = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: seen.append(str(context.get("exception"))))
    async with house(Failing) as here:
        clients = [socket.create_connection(("127.0.0.1", here.port)) for _ in range(3)]
        for client in clients:
            client.sendall(ONE)
        await until(lambda: [one.received for one in here.served[1:]] == [ONE, ONE])
        assert seen == ["as a bug of ours would"]
        for client in clients:
            client.close()
