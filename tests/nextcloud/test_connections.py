"""Connections to Nextcloud against a server that does with each of them what the test says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from harp.errors import PeerError, Unreachable
from harp.nextcloud.http import Getter, NextcloudAnswer
from harp.settings import Nextcloud
from tests.fakes.clock import Clock
from tests.fakes.waiting import settled, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Serve = Callable[["ConnectionPeer"], Awaitable[None]]


class ConnectionPeer:
    """The other end of one connection, and which one it is."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self._reader = reader
        self._writer = writer

    async def request(self) -> None:
        """Wait for one request."""
        await self._reader.readuntil(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        self._writer.write(data)


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """The URL of a server that does `serve` with each connection, then closes it."""
    handlers: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.append(task)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            try:
                await serve(ConnectionPeer(len(handlers), reader, writer))
            finally:
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


@asynccontextmanager
async def getting(url: str, timeout: float = 5.0) -> AsyncIterator[Callable[[], Awaitable[NextcloudAnswer]]]:
    """What makes one call to `url`."""
    settings = Nextcloud(url=url, session_lifetime=3, record_lifetime=60, connect_timeout=2, timeout=timeout)
    getter = Getter(settings, "the key", Clock())
    try:
        yield lambda: getter.get(f"{url}/x", [], 100, timeout)
    finally:
        await getter.close()


async def numbered(peer: ConnectionPeer) -> None:
    """Answer each request with the number of its connection."""
    while True:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % peer.number)


async def once(peer: ConnectionPeer) -> None:
    """Answer one request, and close at the next without a word."""
    await peer.request()
    peer.send(OK)
    await peer.request()


async def bodies(get: Callable[[], Awaitable[NextcloudAnswer]], calls: int) -> list[bytes]:
    return [(await get()).body for _ in range(calls)]


async def test_calls_one_after_the_other_take_one_connection() -> None:
    async with serving(numbered) as url, getting(url) as get:
        assert await bodies(get, 3) == [b"1", b"1", b"1"]


async def test_calls_at_once_take_one_connection_each() -> None:
    async with serving(numbered) as url, getting(url) as get:
        answers = await asyncio.gather(get(), get(), get())
        assert {answer.body for answer in answers} == {b"1", b"2", b"3"}


async def test_a_call_over_a_kept_connection_that_has_ended_goes_out_again() -> None:
    async with serving(once) as url, getting(url) as get:
        assert await bodies(get, 3) == [b"ok", b"ok", b"ok"]


async def test_a_call_over_a_new_connection_does_not_go_out_again() -> None:
    asked = 0

    async def serve(peer: ConnectionPeer) -> None:
        nonlocal asked
        await peer.request()
        asked += 1

    async with serving(serve) as url, getting(url) as get:
        with pytest.raises(PeerError, match="closed the connection before its answer was complete"):
            await get()
    assert asked == 1


async def test_a_call_that_was_answered_in_part_does_not_go_out_again() -> None:
    async def serve(peer: ConnectionPeer) -> None:
        await once(peer)
        peer.send(OK[:-1])

    async with serving(serve) as url, getting(url) as get:
        assert await bodies(get, 1) == [b"ok"]
        with pytest.raises(PeerError, match="before its answer was complete"):
            await get()


async def test_what_comes_without_a_question_is_not_taken_for_the_next_answer() -> None:
    more, ended = asyncio.Event(), asyncio.Event()

    async def serve(peer: ConnectionPeer) -> None:
        await peer.request()
        peer.send(OK)
        if peer.number == 1:
            await more.wait()
            peer.send(OK.replace(b"ok", b"no"))
        try:
            await peer.request()
        finally:
            ended.set()

    async with serving(serve) as url, getting(url) as get:
        assert await bodies(get, 1) == [b"ok"]
        more.set()
        await until(ended.is_set)
        assert await bodies(get, 1) == [b"ok"]


async def test_an_answer_that_comes_drop_by_drop_does_not_outlive_the_limit() -> None:
    async def serve(peer: ConnectionPeer) -> None:
        await peer.request()
        while True:
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.01)

    async with serving(serve) as url, getting(url, timeout=0.05) as get:
        with pytest.raises(PeerError, match=r"^Nextcloud has not answered within 0\.05 s$"):
            await get()


async def test_a_body_may_last_until_the_connection_closes() -> None:
    async def serve(peer: ConnectionPeer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\nall")
        await settled()
        peer.send(b" of it")

    async with serving(serve) as url, getting(url) as get:
        assert await bodies(get, 2) == [b"all of it", b"all of it"]


async def test_a_compressed_answer_is_told() -> None:
    async def serve(peer: ConnectionPeer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b")

    async with serving(serve) as url, getting(url) as get:
        with pytest.raises(PeerError, match="Nextcloud's answer is compressed"):
            await get()


async def test_an_answer_of_any_framing_is_bounded() -> None:
    long = b"x" * 101
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n" + long,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + long,
    ):

        async def serve(peer: ConnectionPeer, answer: bytes = answer) -> None:
            await peer.request()
            peer.send(answer)
            await peer.request()

        async with serving(serve) as url, getting(url) as get:
            with pytest.raises(PeerError, match="an answer longer than 100 bytes"):
                await get()


async def test_a_switch_of_protocols_is_not_an_answer() -> None:
    async def serve(peer: ConnectionPeer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")
        await peer.request()

    async with serving(serve) as url, getting(url) as get:
        with pytest.raises(PeerError, match="status 101"):
            await get()


async def test_a_name_that_does_not_resolve_is_unreachable_and_stays_unnamed() -> None:
    async with getting("http://exapp..example") as get:
        with pytest.raises(Unreachable) as raised:
            await get()
    assert str(raised.value).startswith("Nextcloud cannot be reached: ")
    assert "example" not in str(raised.value)


async def test_a_failure_keeps_its_cause_by_which_hanging_is_told_from_refusing() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with getting(f"http://127.0.0.1:{nobody.getsockname()[1]}") as get:
            with pytest.raises(Unreachable) as raised:
                await get()
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)
