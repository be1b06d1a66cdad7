"""What `harp demo` and `harp dev` share: programs for trying things out, whose requests are printed as they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from harp.commands.requests import line_of
from harp.errors import HarpError
from harp.logs import configure
from harp.loops import event_loop
from harp.settings import Logs
from harp.status.feed import Watcher

PAUSE = 60.0  # seconds


async def print_requests(feed: Feed) -> None:
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


class Feed(Protocol):
    """A feed of requests: `status.feed.RequestFeed`."""

    def watched(self) -> AbstractContextManager[Watcher | None]:
        """Watch requests inside the block."""


class Shown(Protocol):
    """What people try out."""

    @property
    def feed(self) -> Feed:
        """Its requests."""

    def text(self) -> str:
        """Return what to try, for people."""


def serve_until_told(make: Callable[[], AbstractAsyncContextManager[Shown]], hint: str) -> int:
    """Serve until INT or TERM, printing each request as it ends; return the exit code. `hint` is for a failed start."""
    configure(Logs(level="warning", format="text"))
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        return runner.run(_serve_until_told(make, hint))


async def _serve_until_told(make: Callable[[], AbstractAsyncContextManager[Shown]], hint: str) -> int:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    try:
        async with make() as shown:
            print(shown.text(), flush=True)
            printing = asyncio.create_task(print_requests(shown.feed))
            await told.wait()
            await cancelled(printing)
    except (HarpError, OSError) as error:
        print(f"Cannot start: {error}", file=sys.stderr)
        print(hint, file=sys.stderr)
        return 1
    return 0
