"""The owner of background tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger()

CLOSE_LIMIT = 5.0  # seconds; a task that does not end by then is left alone


class Tasks:
    """Keeps tasks until they are done: the event loop itself holds them weakly, and would drop one under way."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        """Return how many are running."""
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, T], *, awaited: bool = False) -> asyncio.Task[T]:
        """Run `work` and log an exception that ends it.

        `awaited`: a caller waits for the task and handles its exception, so it is not logged. After close(),
        new tasks are cancelled at once.
        """
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._waited_for if awaited else self._ended)
        if self._closed:
            task.cancel()
        return task

    def cancel(self) -> None:
        """Cancel all, as close() does, without waiting for their end."""
        self._closed = True
        for task in list(self._running):
            task.cancel()

    async def close(self) -> None:
        """Cancel all and wait until they have ended. The caller may be one of them: it is left out."""
        self._closed = True
        tasks = self._running - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CLOSE_LIMIT)
            for task in stuck:
                log.error("background task did not end", task=repr(task.get_coro()), seconds=CLOSE_LIMIT)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("background task failed", task=repr(task.get_coro()), exc_info=error)

    def _waited_for(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # callers that waited have it; if none is left, it is not needed
