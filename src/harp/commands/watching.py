"""What `harp demo` and `harp dev` share: the requests of a HaRP in this process, as they end."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from harp.commands.requests import line_of
from harp.status.feed import RequestFeed

PAUSE = 60.0  # seconds


async def print_requests(feed: RequestFeed) -> None:
    """Print each request as it ends, until cancelled."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    with feed.watched() as watcher:
        assert watcher is not None
        while True:
            for line in await watcher.take(PAUSE):
                print(line_of(line, colour=colour), flush=True)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """End `task` and wait for its end; how it ended no longer matters."""
    task.cancel()
    await asyncio.wait((task,))
