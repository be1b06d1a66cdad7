"""Keeps an open page up to date: server-sent events with its HTML when that has changed, and with points for plots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from harp.status.doors import Guest
from harp.status.history import ALL
from harp.status.pages import Page
from harp.status.web.views import PageFacts, View

PAUSE = 1.0  # seconds between two looks
SILENCE = 15  # looks without a change until a comment shows that the stream lives
MOST_STREAMS = 24  # at once; the admin listener has 64 connections

Look = Callable[[Guest, str, str], View | None]


class Live:
    """Makes the streams."""

    def __init__(self, facts: PageFacts, look: Look, render: Callable[[View], str]) -> None:
        """`look` collects what a page shows, at once; `render` renders its changes, off the loop."""
        self._facts = facts
        self._look = look
        self._render = render
        self._streams = 0

    def page(self, guest: Guest, path: str, search: str) -> Page:
        """Return the stream for a page."""
        if self._streams >= MOST_STREAMS:
            return Page(503, b"too many pages are open\n", kind="text/plain", lines=("retry-after: 30",))
        lines = ("x-accel-buffering: no",)
        return Page(200, b"", kind="text/event-stream", lines=lines, stream=self._events(guest, path, search))

    async def _events(self, guest: Guest, path: str, search: str) -> AsyncIterator[bytes]:
        self._streams += 1
        history = self._facts.history
        app = path.removeprefix("/apps/") if path.startswith("/apps/") else ALL
        sampled, before, quiet = history.samples, "", 0
        try:
            yield b": hello\n\n"
            while True:
                quiet += 1
                view = self._look(guest, path, search)
                html = before if view is None else await asyncio.to_thread(self._render, view)
                if html != before:
                    yield event("", html)
                    before, quiet = html, 0
                if history.samples != sampled:
                    sampled, quiet = history.samples, 0
                    yield event("plot", msgspec.json.encode(history.points(app, 1)).decode())
                if quiet >= SILENCE:
                    yield b": nothing new\n\n"
                    quiet = 0
                await asyncio.sleep(PAUSE)
        finally:
            self._streams -= 1


def event(name: str, data: str) -> bytes:
    """Return one event; its data may have several lines."""
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in data.splitlines()]
    return ("\n".join(lines) + "\n\n").encode()
