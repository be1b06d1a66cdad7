"""The admin listener: health and metrics for everybody who reaches it, the API and the status page by `doors`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
import structlog

from harp.errors import HarpError
from harp.frontend.connection import ClientConnection
from harp.frontend.exchange import NO_ID, Exchange
from harp.net.deadlines import Deadlines
from harp.net.tasks import Tasks
from harp.net.turns import Turns
from harp.settings import Settings
from harp.status.answering import Answering, Respond, send
from harp.status.api import CHANGING, PREFIX, StatusApi, objection_to_changes
from harp.status.doors import Doors, Guest
from harp.status.pages import Page, Pages
from harp.wire.ends import How
from harp.wire.requests import RequestHead, RequestReader

CONNECTIONS = 64  # at once
METRICS = b"/metrics"
DOCTOR = b"/api/v1/doctor"
UPGRADE = b"/api/v1/upgrade"
LIVENESS = (b"/heartbeat", b"/healthz", b"/readyz")  # of this process, whatever others do
ENGINES = b"/engines"  # a page for people, and JSON for programs

LOG_IN = b'{"error":"from another host this needs Authorization: Bearer, with the password of the status page"}'

Refresh = Callable[[bytes], Awaitable[None]]  # of what a path shows
Visit = Callable[[RequestHead, Guest, bytes], Awaitable[Page]]

log = structlog.get_logger()


class ExamineFunction(Protocol):
    """Who makes the doctor's report: `harp.facts.HarpFacts.examine`."""

    def __call__(self, url: str, app: str, *, fresh: bool, instance: str = "") -> Awaitable[Page]: ...


class AdminGate:
    """The gate of the admin listener's connections. While HaRP drains, it keeps answering, to report that."""

    draining = inspected = False
    patience = 75.0  # seconds; every answer is immediate, but for the first metrics and the doctor's report

    def __init__(
        self,
        settings: Settings,
        pages: Pages,
        deadlines: Deadlines,
        api: StatusApi | None = None,
        metrics: Callable[[], Awaitable[Page]] | None = None,
        examine: ExamineFunction | None = None,
        doors: Doors | None = None,
        site: Visit | None = None,
        refresh: Refresh | None = None,
        upgrade: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        """`site` answers what nothing else does: the status page, for people. `refresh` comes before any fact.

        `upgrade` has a new version take over, and returns its process id or raises HarpError.
        """
        self.deadlines = deadlines
        self.turns = Turns()
        self.limits = settings.limits
        self.timeouts = settings.timeouts
        self.reader = RequestReader(settings.limits.headers, remembers=False)
        self._pages = pages
        self._api = api
        self._metrics = metrics
        self._examine = examine
        self._doors = doors
        self._site = site
        self._refresh = refresh
        self._upgrade = upgrade
        self._tasks = Tasks()
        self._connections: set[ClientConnection] = set()

    def begin(self, connection: ClientConnection, head: RequestHead | None, last: Exchange | None) -> Exchange:
        return Exchange(head, NO_ID, connection.peer, trusted=True)  # the access log says nothing of these requests

    def handle(self, connection: ClientConnection, exchange: Exchange) -> None:
        head = exchange.head
        assert head is not None
        try:
            guest = self._doors.guest_of(head, connection.peer) if self._doors is not None else None
            respond = self._responder(head, connection.peer, guest)
            page = None
            if self._refresh is not None and head.path not in LIVENESS:
                respond = self._refreshed(
                    self._refresh, head.path, respond, lambda: self._page(head, connection.peer, guest)
                )
            if respond is None:
                page = self._page(head, connection.peer, guest)
                respond = _streaming(page) if page is not None and page.stream is not None else None
            if respond is not None:
                answering = Answering(connection, head, respond, self._tasks)
                connection.attach(answering)
                answering.start()
                return
        except Exception:
            log.exception("admin page failed")
            connection.refuse(500, "internal error; see the log")
            return
        if page is None:
            connection.refuse(404, self._known())
        else:
            send(connection, head, page)

    def _known(self) -> str:
        more = [PREFIX, METRICS.decode()] if self._api else []
        return f"the admin listener has {', '.join([*(path.decode() for path in self._pages.paths), *more])}"

    def _refreshed(
        self, refresh: Refresh, path: bytes, respond: Respond | None, page: Callable[[], Page | None]
    ) -> Respond:
        """Answer as usual, after asking the other processes."""

        async def answer(body: bytes) -> Page:
            await refresh(path)
            if respond is not None:
                return await respond(body)
            return page() or Page(404, msgspec.json.encode({"error": self._known()}))

        return answer

    def _responder(self, head: RequestHead, peer: str, guest: Guest | None) -> Respond | None:
        """Return what answers a request that takes its time, is a form, or is answered in pieces.

        None for all others.
        """
        metrics, examine, site = self._metrics, self._examine, self._site
        if head.path == METRICS and metrics is not None and head.method in (b"GET", b"HEAD"):
            return lambda body: metrics()
        if head.path == DOCTOR and examine is not None and (guest is None or guest.admitted):
            return lambda body: self._examined(head, peer, examine)
        if head.path == UPGRADE and self._upgrade is not None and (guest is None or guest.admitted):
            upgrade = self._upgrade
            return lambda body: self._upgraded(head, peer, upgrade)
        if site is not None and guest is not None and self._is_for_people(head):
            return lambda body: site(head, guest, body)
        return None

    def _is_for_people(self, head: RequestHead) -> bool:
        """Return whether this path is the status page's."""
        if head.path == ENGINES:
            return b"text/html" in (head.get(b"accept") or b"")
        return not head.path.startswith(PREFIX.encode()) and head.path not in self._pages.paths

    async def _examined(self, head: RequestHead, peer: str, examine: ExamineFunction) -> Page:
        """GET shows the last report while it is fresh; POST makes one, and may name a URL and an ExApp."""
        wishes = parse_qs(head.query.decode("latin-1").removeprefix("?"))
        url, app, instance = (wishes.get(name, [""])[-1] for name in ("url", "app", "instance"))
        if head.method in (b"GET", b"HEAD"):
            return await examine("", "", fresh=False, instance=instance)
        if head.method != b"POST":
            return Page(405, b'{"error":"GET shows a report, POST makes one"}', allow="GET, HEAD, POST")
        refused = objection_to_changes(peer, head.get(CHANGING))
        if refused:
            return Page(403, msgspec.json.encode({"error": refused}))
        if url and not url.startswith(("http://", "https://")):
            return Page(400, b'{"error":"url begins with http:// or https://"}')
        return await examine(url, app, fresh=True, instance=instance)

    async def _upgraded(self, head: RequestHead, peer: str, upgrade: Callable[[], Awaitable[int]]) -> Page:
        if head.method != b"POST":
            return Page(405, b'{"error":"POST has a new version take over"}', allow="POST")
        refused = objection_to_changes(peer, head.get(CHANGING))
        if refused:
            return Page(403, msgspec.json.encode({"error": refused}))
        try:
            return Page(200, msgspec.json.encode({"process": await upgrade()}))
        except HarpError as error:
            return Page(503, msgspec.json.encode({"error": str(error)}))

    def _page(self, head: RequestHead, peer: str, guest: Guest | None) -> Page | None:
        if self._api is not None and head.path.startswith(PREFIX.encode()):
            if guest is not None and not guest.admitted:
                return Page(401, LOG_IN, lines=("www-authenticate: Bearer",))
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


def _streaming(page: Page) -> Respond:
    async def respond(body: bytes) -> Page:
        return page

    return respond
