"""The admin listener: answers with the pages of `status`, at once and without a key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
import structlog

from harp.frontend.connection import ClientConnection
from harp.frontend.exchange import NO_ID, Exchange
from harp.net.deadlines import Deadlines
from harp.net.tasks import Tasks
from harp.net.turns import Turns
from harp.settings import Settings
from harp.status.api import CHANGING, PREFIX, StatusApi, objection_to_changes
from harp.status.pages import Page, Pages
from harp.wire.ends import How
from harp.wire.requests import RequestHead, RequestReader

CONNECTIONS = 64  # at once
METRICS = b"/metrics"
DOCTOR = b"/api/v1/doctor"

log = structlog.get_logger()


class ExamineFunction(Protocol):
    """Who makes the doctor's report: `harp.facts.HarpFacts.examine`."""

    def __call__(self, url: str, app: str, *, fresh: bool) -> Awaitable[Page]: ...


class AdminGate:
    """The gate of the admin listener's connections. While HaRP drains it goes on answering, to say so."""

    draining = False
    patience = 75.0  # seconds; every answer is immediate, but for the first metrics and the doctor's report

    def __init__(
        self,
        settings: Settings,
        pages: Pages,
        deadlines: Deadlines,
        api: StatusApi | None = None,
        metrics: Callable[[], Awaitable[Page]] | None = None,
        examine: ExamineFunction | None = None,
    ) -> None:
        self.deadlines = deadlines
        self.turns = Turns()
        self.limits = settings.limits
        self.timeouts = settings.timeouts
        self.reader = RequestReader(settings.limits.headers)
        self._pages = pages
        self._api = api
        self._metrics = metrics
        self._examine = examine
        self._tasks = Tasks()
        self._connections: set[ClientConnection] = set()

    def begin(self, connection: ClientConnection, head: RequestHead | None, last: Exchange | None) -> Exchange:
        return Exchange(head, NO_ID, connection.peer, trusted=True)  # the access log says nothing of these requests

    def handle(self, connection: ClientConnection, exchange: Exchange) -> None:
        head = exchange.head
        assert head is not None
        if self._metrics is not None and head.path == METRICS and head.method in (b"GET", b"HEAD"):
            self._tasks.start(self._awaited(connection, exchange, self._metrics()))
            return
        if self._examine is not None and head.path == DOCTOR:
            self._tasks.start(self._awaited(connection, exchange, self._examined(head, connection.peer, self._examine)))
            return
        try:
            page = self._page(head, connection.peer)
        except Exception:
            log.exception("admin page failed")
            connection.refuse(500, "internal error; see the log")
            return
        if page is None:
            more = [PREFIX, METRICS.decode()] if self._api else []
            known = ", ".join([*(path.decode() for path in self._pages.paths), *more])
            connection.refuse(404, f"the admin listener has {known}")
        else:
            _send(connection, head, page)

    async def _awaited(self, connection: ClientConnection, exchange: Exchange, making: Awaitable[Page]) -> None:
        """Answer with a page that is made beside the loop."""
        try:
            page = await making
        except Exception:
            log.exception("admin page failed")
            page = Page(500, b"internal error; see the log\n", kind="text/plain")
        if connection.waits(exchange) and exchange.head is not None:
            _send(connection, exchange.head, page)

    async def _examined(self, head: RequestHead, peer: str, examine: ExamineFunction) -> Page:
        """GET shows the last report while it is fresh; POST makes one, and may name a URL and an ExApp."""
        if head.method in (b"GET", b"HEAD"):
            return await examine("", "", fresh=False)
        if head.method != b"POST":
            return Page(405, b'{"error":"GET shows a report, POST makes one"}', allow="GET, HEAD, POST")
        refused = objection_to_changes(peer, head.get(CHANGING))
        if refused:
            return Page(403, msgspec.json.encode({"error": refused}))
        wishes = parse_qs(head.query.decode("latin-1").removeprefix("?"))
        url, app = (wishes.get(name, [""])[-1] for name in ("url", "app"))
        if url and not url.startswith(("http://", "https://")):
            return Page(400, b'{"error":"url begins with http:// or https://"}')
        return await examine(url, app, fresh=True)

    def _page(self, head: RequestHead, peer: str) -> Page | None:
        if self._api is not None and head.path.startswith(PREFIX.encode()):
            refused = objection_to_changes(peer, head.get(CHANGING))
            return self._api.answer(head.method, head.path, head.query, refused=refused)
        page = self._pages.at(head.path)
        if page is not None and head.method not in (b"GET", b"HEAD"):
            return Page(405, b'{"status":"only GET and HEAD are served"}', allow="GET, HEAD")
        return page

    def finished(self, exchange: Exchange) -> None:
        pass

    def opened(self, connection: ClientConnection) -> str | None:
        self._connections.add(connection)
        if len(self._connections) > CONNECTIONS:
            return f"all {CONNECTIONS} connections of the admin listener are in use"
        return None

    def closed(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)

    async def close(self) -> None:
        """End every connection now."""
        await self._tasks.close()
        for connection in list(self._connections):
            connection.end(How.RESET)


def _send(connection: ClientConnection, head: RequestHead, page: Page) -> None:
    phrase = HTTPStatus(page.status).phrase.encode()
    kind = b"content-type: %b\r\ncache-control: no-store\r\n" % page.kind.encode()
    allow = b"allow: %b\r\n" % page.allow.encode() if page.allow else b""
    start = b"HTTP/1.1 %d %b\r\n%b%bcontent-length: %d\r\n" % (page.status, phrase, kind, allow, len(page.body))
    body = b"" if head.method == b"HEAD" else page.body
    connection.send_head(page.status, start, len(page.body), body, True)
