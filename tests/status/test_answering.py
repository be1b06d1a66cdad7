"""Answers of the admin listener that have a body to read, or come in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from harp.frontend.connection import ClientConnection
from harp.settings import load
from harp.status.admin import AdminGate
from harp.status.answering import LARGEST_BODY
from harp.status.doors import Doors, Guest
from harp.status.pages import Page, Pages
from harp.wire.requests import RequestHead
from tests.fakes.clock import Clock
from tests.fakes.facts import FakeFacts
from tests.fakes.transport import MemoryTransport
from tests.fakes.waiting import settled, turn
from tests.status.test_doors import Bans

SETTINGS = load({"HP_SHARED_KEY": "key", "NC_INSTANCE_URL": "http://cloud"})


class AnsweringWorld:
    """An admin listener whose page for people is the test's."""

    def __init__(self, page: Page | None = None) -> None:
        self.page = page
        self.bodies: list[bytes] = []
        clock = Clock()
        doors = Doors("key", Bans(), clock)
        pages = Pages(FakeFacts())
        self.gate = AdminGate(SETTINGS, pages, clock.deadlines, doors=doors, site=self.visit)
        self.connection, self.wire = ClientConnection(self.gate, secure=False), MemoryTransport(("127.0.0.1", 4000))
        self.connection.connection_made(self.wire)

    async def visit(self, head: RequestHead, guest: Guest, body: bytes) -> Page:
        self.bodies.append(body)
        if self.page is None:
            raise RuntimeError("a bug")
        return self.page

    async def ask(self, method: str = "GET", body: bytes = b"", length: int | None = None) -> bytes:
        count = len(body) if length is None else length
        lines = f"Host: localhost\r\nContent-Length: {count}\r\n" if count else "Host: localhost\r\n"
        self.connection.data_received(f"{method} /form HTTP/1.1\r\n{lines}\r\n".encode() + body)
        await settled()
        return self.wire.take()


async def pieces(*data: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece
        await turn()
    if then is not None:
        raise then


async def test_a_form_is_read_before_it_is_answered() -> None:
    world = AnsweringWorld(Page(200, b"done", kind="text/plain"))
    assert (await world.ask("POST", b"a=b")).endswith(b"\r\n\r\ndone")
    assert world.bodies == [b"a=b"]


async def test_too_long_a_form_is_413() -> None:
    world = AnsweringWorld(Page(200, b"done"))
    assert (await world.ask("POST", bytes(LARGEST_BODY + 1))).startswith(b"HTTP/1.1 413 ")
    assert world.bodies == []


async def test_a_page_that_fails_is_500_and_names_no_reason() -> None:
    told = await AnsweringWorld().ask()
    assert told.startswith(b"HTTP/1.1 500 ")
    assert b"a bug" not in told


async def test_pieces_are_sent_as_they_come() -> None:
    told = await AnsweringWorld(Page(200, b"", stream=pieces(b"one", b"two"))).ask()
    assert b"transfer-encoding: chunked" in told.lower()
    assert told.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_stream_without_a_piece_is_an_empty_answer() -> None:
    assert b"content-length: 0\r\n" in await AnsweringWorld(Page(200, b"", stream=pieces())).ask()


async def test_a_stream_that_fails_is_cut_off() -> None:
    world = AnsweringWorld(Page(200, b"", stream=pieces(b"one", then=RuntimeError("a bug"))))
    await world.ask()
    assert world.wire.aborted


async def test_head_of_a_stream_ends_at_once() -> None:
    assert (await AnsweringWorld(Page(200, b"", stream=pieces(b"one"))).ask("HEAD")).endswith(b"\r\n\r\n")


async def test_who_leaves_in_the_middle_ends_the_stream() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"one"
            await asyncio.Event().wait()
        finally:
            ended.set()

    world = AnsweringWorld(Page(200, b"", stream=endless()))
    await world.ask()
    world.connection.connection_lost(None)
    await settled()
    assert ended.is_set()


@pytest.mark.parametrize("path", [b"/heartbeat", b"/healthz"])
async def test_health_is_no_page_for_people(path: bytes) -> None:
    world = AnsweringWorld(Page(200, b"page"))
    world.connection.data_received(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    await settled()
    assert b"application/json" in world.wire.take()
