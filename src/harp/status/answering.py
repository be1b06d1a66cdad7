"""Answers of the admin listener that take their time, have a request's body, or come in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog

from harp.net.tasks import Tasks
from harp.proxy.exchange import Downstream
from harp.status.pages import Page
from harp.wire.ends import How
from harp.wire.http import CHUNKED, Fields
from harp.wire.requests import RequestHead

LARGEST_BODY = 64 * 1024  # bytes of a form

log = structlog.get_logger()

Respond = Callable[[bytes], Awaitable[Page]]


class Answering:
    """Handler of one request: collects its body, asks for the page, and sends it."""

    def __init__(self, connection: Downstream, head: RequestHead, respond: Respond, tasks: Tasks) -> None:
        self._connection = connection
        self._head = head
        self._respond = respond
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._body = bytearray()
        self._over = False
        self._writable = asyncio.Event()
        self._writable.set()

    def start(self) -> None:
        """Begin, after the connection has attached this handler."""
        if self._head.length == 0:
            self._begin()
        else:
            self._connection.resume_body()

    def body(self, data: bytes) -> None:
        if len(self._body) + len(data) > LARGEST_BODY:
            if not self._over:
                self._over = True
                self._connection.refuse(413, f"a form has {LARGEST_BODY} bytes at most")
            return
        self._body += data

    def body_end(self, trailers: Fields) -> None:
        if not self._over:
            self._begin()

    def blocked(self) -> None:
        self._writable.clear()

    def drained(self) -> None:
        self._writable.set()

    def gone(self, reason: str) -> None:
        self._over = True
        if self._task is not None:
            self._task.cancel()

    def drain(self) -> bool:
        return False

    def _begin(self) -> None:
        self._task = self._tasks.start(self._answer())

    async def _answer(self) -> None:
        try:
            page = await self._respond(bytes(self._body))
        except Exception:
            log.exception("admin page failed")
            page = Page(500, b"internal error; see the log\n", kind="text/plain; charset=utf-8")
        if self._over:
            return
        if page.stream is None or self._head.method == b"HEAD":
            self._over = True
            send(self._connection, self._head, page)
        else:
            await self._send_pieces(page)

    async def _send_pieces(self, page: Page) -> None:
        """Send what comes until it ends, or the client leaves: then this task is cancelled."""
        assert page.stream is not None
        started = False
        try:
            async for piece in page.stream:
                await self._writable.wait()  # who reads nothing at all is cut off by the connection
                if started:
                    self._connection.send_body(piece)
                else:
                    self._connection.send_head(page.status, start_of(page), CHUNKED, piece, False)
                    started = True
            if started:
                self._connection.send_end([])
            else:
                send(self._connection, self._head, page)
        except Exception:
            log.exception("admin page failed")
            self._connection.end(How.RESET, "internal error; see the log")


def start_of(page: Page) -> bytes:
    """Return the status line and header lines, but for the length."""
    lines = [
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}",
        f"content-type: {page.kind}",
        f"cache-control: {page.keep}",
        *([f"allow: {page.allow}"] if page.allow else []),
        *page.lines,
    ]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


def send(connection: Downstream, head: RequestHead, page: Page) -> None:
    """Answer with a whole page."""
    start = b"%bcontent-length: %d\r\n" % (start_of(page), len(page.body))
    body = b"" if head.method == b"HEAD" else page.body
    connection.send_head(page.status, start, len(page.body), body, True)
