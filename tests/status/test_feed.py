"""Requests for people who watch; nothing is kept of others, but for failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from harp.frontend.access import AccessLog
from harp.frontend.books import Books
from harp.frontend.exchange import Exchange
from harp.logs import HIDDEN, RareWarnings
from harp.policy.exapp import ExApp, Level, Route
from harp.policy.verdict import Forward, Refuse, Verdict
from harp.status.feed import BEHIND, FAILURES_A_SECOND, GLANCE, KEPT, MOST_WATCHERS, RequestFeed, app_in, events
from harp.status.redaction import Redaction
from harp.wire.requests import RequestReader
from tests.fakes.clock import Clock
from tests.fakes.waiting import turn

READER = RequestReader(100, remembers=False)
ROUTE = Route("^/page", Level.USER)
FORWARD = Forward(
    "Hello",
    b"/page",
    b"/exapps/Hello",
    ExApp("hello", "t", "1", "h", 1),
    b"",
    b"32",
    "anna",
    ROUTE,
    False,
    "route fits",
)


class InspectedGate:
    inspected = False


class FeedWorld:
    def __init__(self) -> None:
        self.clock = Clock()
        self.books = Books(AccessLog("off", json=True), RareWarnings(self.clock))
        self.gate = InspectedGate()
        self.feed = RequestFeed(self.books, self.gate, self.clock.deadlines, Redaction(), self.clock)

    def request(self, status: int = 200, path: str = "/exapps/Hello/page?a=1", verdict: Verdict = FORWARD) -> None:
        head = READER.read(f"GET {path} HTTP/1.1\r\nHost: a\r\nCookie: b\r\nX-Own: c\r\n\r\n".encode())
        refused = isinstance(verdict, Refuse)
        self.books.enter(
            Exchange(head, b"id-1", "192.0.2.1", verdict=verdict, status=status, refused=refused, started=1.0)
        )


@pytest.fixture
async def world() -> Iterator[FeedWorld]:  # type: ignore[misc] # pytest-asyncio takes both
    world = FeedWorld()
    yield world
    world.clock.stop()


async def test_nothing_is_kept_while_nobody_looks(world: FeedWorld) -> None:
    world.request()
    assert world.books.watcher is None
    assert world.feed.recent() == []


async def test_who_looks_sees_what_comes_from_then_on(world: FeedWorld) -> None:
    world.feed.glance()
    assert world.gate.inspected
    world.request()
    (line,) = world.feed.recent()
    assert (line.app, line.path, line.query, line.user, line.rule) == (
        "Hello",
        "/exapps/Hello/page",
        "?a=…",
        "anna",
        "^/page USER",
    )
    assert dict(line.request) == {"host": "a", "cookie": HIDDEN, "x-own": "c"}


async def test_the_feed_rests_a_minute_after_the_last_look(world: FeedWorld) -> None:
    world.feed.glance()
    world.request()
    world.clock.move(GLANCE + 1)
    assert not world.gate.inspected
    assert world.books.watcher is None
    assert world.feed.recent() == []


async def test_failures_are_kept_always_with_their_reason(world: FeedWorld) -> None:
    world.request(503, verdict=Refuse(503, "no tunnel"), path="/exapps/gone/x")
    world.request(500)
    assert [(line.status, line.app, line.reason) for line in world.feed.failures()] == [
        (500, "Hello", "route fits"),
        (503, "gone", "no tunnel"),
    ]
    assert [line.app for line in world.feed.failures("hello")] == ["Hello"]


async def test_a_flood_of_failures_is_counted_and_not_kept(world: FeedWorld) -> None:
    for _ in range(FAILURES_A_SECOND + 7):
        world.request(502)
    assert len(world.feed.failures()) == FAILURES_A_SECOND
    assert world.feed.uncounted == 7


async def test_the_last_requests_are_few(world: FeedWorld) -> None:
    world.feed.glance()
    for _ in range(KEPT + 10):
        world.request()
    assert len(world.feed.recent()) == KEPT


async def test_a_watcher_gets_the_requests_of_its_exapp_in_order(world: FeedWorld) -> None:
    with world.feed.watched("hello") as watcher:
        assert watcher is not None
        waiting = asyncio.ensure_future(watcher.take(5.0))
        await turn()
        world.request()
        world.request(path="/exapps/other/x", verdict=Refuse(404, "unknown"), status=404)
        world.request(path="/exapps/Hello/page?b=2")
        assert [line.query for line in await waiting] == ["?a=…", "?b=…"]
        assert await watcher.take(0.001) == []
    assert world.books.watcher is None


async def test_a_watcher_that_does_not_keep_up_loses_requests_and_is_told(world: FeedWorld) -> None:
    with world.feed.watched() as watcher:
        assert watcher is not None
        for _ in range(BEHIND + 5):
            world.request()
        assert len(await watcher.take(1.0)) == BEHIND
        assert watcher.lost == 5


async def test_watchers_are_few(world: FeedWorld) -> None:
    doors = [world.feed.watched() for _ in range(MOST_WATCHERS)]
    for door in doors:
        door.__enter__()
    with world.feed.watched() as one_more:
        assert one_more is None
    for door in doors:
        door.__exit__(None, None, None)


def test_the_exapp_of_a_refused_request_is_read_off_its_path() -> None:
    assert app_in("/exapps/hello/x") == app_in("/nextcloud/exapps/hello") == "hello"
    assert app_in("/exapps/app_api/info") == app_in("/x") == app_in("/exapps/" + "a" * 500) == ""


async def test_followed_requests_are_events_and_too_many_watchers_are_told(world: FeedWorld) -> None:
    stream = events(world.feed, "hello")
    assert await anext(stream) == b": requests follow\n\n"
    world.request()
    assert (await anext(stream)).startswith(b'data: {"number":')
    for _ in range(BEHIND + 2):
        world.request()
    assert (await anext(stream)).endswith(b"event: lost\ndata: 2\n\n")
    doors = [world.feed.watched() for _ in range(MOST_WATCHERS - 1)]
    for door in doors:
        door.__enter__()
    assert b"too many" in await anext(events(world.feed, ""))
    for door in doors:
        door.__exit__(None, None, None)
    await stream.aclose()  # type: ignore[attr-defined]
    assert world.books.watcher is None
