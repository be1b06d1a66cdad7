"""Requests as they end, for watchers: the inspector of the status page, and `harp requests`.

Without watchers, only failures are kept, and few of them per second: the request path pays for one attribute that is
None. A subscriber, or a look within the last GLANCE seconds, switches the rest on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec
from msgspec.structs import replace

from harp.frontend.books import entry_of
from harp.frontend.exchange import Exchange
from harp.net.deadlines import NEVER, Deadlines
from harp.policy.verdict import Forward
from harp.status.redaction import Redaction, query_names, response_fields
from harp.status.snapshot import RequestLine, RunningLine
from harp.wire.requests import RequestHead

KEPT = 200  # requests, the last ones that were watched
FAILURES = 200  # requests, the last ones that failed
FAILURES_A_SECOND = 20  # with a record; more are only counted
GLANCE = 60.0  # seconds that one look keeps the feed going
MOST_WATCHERS = 32
LONGEST_APP = 64  # characters
SILENCE = 15.0  # seconds without a request until a stream shows that it lives
BEHIND = 500  # requests that a watcher may be behind; more are lost to it


class Watched(Protocol):
    """What the feed is hooked into: `frontend.books.Books`."""

    watcher: Callable[[Exchange, float], None] | None
    failed: Callable[[Exchange, float], None] | None


class Inspected(Protocol):
    """Keeps heads of responses while they are watched: `frontend.gate.Gate`."""

    inspected: bool


class RequestFeed:
    """Keeps the last requests and hands them to watchers. Timed, for the end of a glance."""

    def __init__(
        self,
        books: Watched,
        gate: Inspected,
        deadlines: Deadlines,
        redaction: Redaction,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._books = books
        self._gate = gate
        self._deadlines = deadlines
        self._redaction = redaction
        self._clock = clock
        self._watchers: set[Watcher] = set()
        self._recent: deque[RequestLine] = deque(maxlen=KEPT)
        self._failures: deque[RequestLine] = deque(maxlen=FAILURES)
        self._number = 0
        self._taken: deque[int] = deque(maxlen=KEPT + FAILURES)  # numbers of what others have served
        self._second, self._in_second = 0, 0
        self.uncounted = 0  # failures without a record, since the start
        self.deadline = NEVER
        books.failed = self._take_failure
        deadlines.watch(self)

    def recent(self, app: str = "") -> list[RequestLine]:
        """Return the last requests that were watched, newest first, and watch for a while."""
        self.glance()
        return _of_app(self._recent, app)

    def failures(self, app: str = "") -> list[RequestLine]:
        """Return the last requests that failed, newest first."""
        return _of_app(self._failures, app)

    @property
    def watching(self) -> bool:
        """Does somebody look at requests, or has lately?"""
        return bool(self._watchers) or self.deadline != NEVER

    def seen(self) -> list[RequestLine]:
        """As `recent`, without watching for longer."""
        return _of_app(self._recent, "")

    def own(self, lines: list[RequestLine]) -> list[RequestLine]:
        """Return those that this process has served."""
        return [line for line in lines if line.number not in self._taken]

    def take(self, recent: Iterable[RequestLine], failures: Iterable[RequestLine]) -> None:
        """Show what other processes have served as well; oldest first."""
        for line in recent:
            self._recent.append(line := self._renumbered(line))
            for watcher in self._watchers:
                watcher.put(line)
        for line in failures:
            self._failures.append(self._renumbered(line))

    def _renumbered(self, line: RequestLine) -> RequestLine:
        self._number += 1
        self._taken.append(self._number)
        return replace(line, number=self._number)

    def glance(self) -> None:
        """Watch for a while."""
        self._begin()
        self.deadline = self._deadlines.now + GLANCE

    def expired(self) -> None:
        """The last glance is long ago."""
        self.deadline = NEVER
        self._rest()

    @contextmanager
    def watched(self, app: str = "") -> Iterator[Watcher | None]:
        """Watch the requests of an ExApp, or all, inside the block; None: too many do already."""
        if len(self._watchers) >= MOST_WATCHERS:
            yield None
            return
        watcher = Watcher(app.lower())
        self._watchers.add(watcher)
        self._begin()
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            self._rest()

    def _begin(self) -> None:
        self._books.watcher = self._take
        self._gate.inspected = True

    def _rest(self) -> None:
        """Stop looking at every request when nobody wants that any more."""
        if not self._watchers and self.deadline == NEVER:
            self._books.watcher = None
            self._gate.inspected = False
            self._recent.clear()

    def _take(self, exchange: Exchange, seconds: float) -> None:
        line = self._line(exchange, seconds)
        self._recent.append(line)
        for watcher in self._watchers:
            watcher.put(line)

    def _take_failure(self, exchange: Exchange, seconds: float) -> None:
        second = int(self._clock())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > FAILURES_A_SECOND:
            self.uncounted += 1
        else:
            self._failures.append(self._line(exchange, seconds))

    def _line(self, exchange: Exchange, seconds: float) -> RequestLine:
        entry = entry_of(exchange, seconds)
        head, verdict = exchange.head, exchange.verdict
        route = verdict.route if isinstance(verdict, Forward) else None
        self._number += 1
        return RequestLine(
            number=self._number,
            ended=self._clock(),
            request_id=entry.request_id,
            method=entry.method,
            path=entry.path,
            query=query_names(head.query) if head else "",
            app=entry.app or app_in(entry.path),
            user=entry.user,
            address=entry.address,
            peer=entry.peer,
            verdict=entry.verdict,
            rule=f"{route.url} {route.access_level.name}" if route is not None else "",
            status=entry.status,
            received=entry.received,
            sent=entry.sent,
            seconds=seconds,
            reason=entry.reason,
            refused=exchange.refused,
            first_byte=entry.first_byte,
            waits=entry.waits,
            request=self._redaction.lines(_fields(head)) if head else (),
            answer=self._redaction.lines(response_fields(exchange.answer)),
            instance=_instance_of(exchange),
        )


async def events(feed: RequestFeed, app: str) -> AsyncIterator[bytes]:
    """Yield requests as server-sent events, until the client leaves."""
    with feed.watched(app) as watcher:
        if watcher is None:
            yield b"event: busy\ndata: too many watch already\n\n"
            return
        yield b": requests follow\n\n"
        while True:
            lines = await watcher.take(SILENCE)
            if not lines:
                yield b": nothing new\n\n"
                continue
            lost, watcher.lost = watcher.lost, 0
            told = [b"data: %b\n\n" % msgspec.json.encode(line) for line in lines]
            yield b"".join(told + ([b"event: lost\ndata: %d\n\n" % lost] if lost else []))


class Watcher:
    """The requests that somebody has not seen yet."""

    def __init__(self, app: str) -> None:
        self._app = app
        self._waiting: deque[RequestLine] = deque()
        self._come = asyncio.Event()
        self.lost = 0  # since the last `take`

    def put(self, line: RequestLine) -> None:
        """Add a request."""
        if self._app and line.app.lower() != self._app:
            return
        if len(self._waiting) >= BEHIND:
            self.lost += 1
            return
        self._waiting.append(line)
        self._come.set()

    async def take(self, seconds: float) -> list[RequestLine]:
        """Return what has come, oldest first; nothing after `seconds`."""
        if not self._waiting:
            self._come.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._come.wait()
            except TimeoutError:
                return []
        lines = list(self._waiting)
        self._waiting.clear()
        return lines


def running_line(exchange: Exchange, now: float) -> RunningLine:
    """Return what is known of a request that is not over; `now` is monotonic."""
    entry = entry_of(exchange, 0.0)
    return RunningLine(
        request_id=entry.request_id,
        method=entry.method,
        path=entry.path,
        app=entry.app or app_in(entry.path),
        user=entry.user,
        address=entry.address,
        seconds=now - exchange.started,
        status=entry.status,
        sent=entry.sent,
        instance=_instance_of(exchange),
    )


def _instance_of(exchange: Exchange) -> str:
    return exchange.caller.read_by.instance if exchange.caller is not None else ""


def app_in(path: str) -> str:
    """Return the ExApp that a path asks for: a refusal may come before anybody knows it. "" = none."""
    _, found, rest = path.partition("/exapps/")
    name = rest.partition("/")[0]
    return name if found and name.isascii() and len(name) <= LONGEST_APP and name != "app_api" else ""


def _of_app(lines: deque[RequestLine], app: str) -> list[RequestLine]:
    return [line for line in reversed(lines) if not app or line.app.lower() == app.lower()]


def _fields(head: RequestHead) -> Iterator[tuple[bytes, bytes]]:
    """Yield every header line of a request; those that HaRP reads itself come first."""

    yield from head.fields.special
    for line in head.plain.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            yield name, value.strip(b" \t")
