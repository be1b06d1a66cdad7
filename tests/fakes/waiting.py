"""Waiting in tests: for a condition, until nothing more happens by itself, or for one turn of the loop.

Tests sleep for no time here only: how many turns of the loop something takes is nobody's business but its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from selectors import DefaultSelector, SelectorKey
from typing import Any, TypeVarTuple

import uvloop

T = TypeVarTuple("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

LONGEST_PAUSE = 0.02  # seconds between two looks


class QuietSelector(DefaultSelector):
    """A selector that tells when its loop has nothing left to do but to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[asyncio.Future[None]] = []

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if not self.waiting or timeout == 0:  # with 0 there are callbacks to run
            return super().select(timeout)
        events = super().select(0)
        if not events:
            for waiting in self.waiting:
                if not waiting.done():
                    waiting.set_result(None)
            self.waiting.clear()
        return events


class QuietLoop(asyncio.SelectorEventLoop):
    """asyncio's loop, of which one can wait for quiet."""

    def __init__(self, selector: QuietSelector | None = None) -> None:
        self._selector_of_tests = selector or QuietSelector()
        super().__init__(self._selector_of_tests)

    async def quiet(self) -> None:
        waiting = self.create_future()
        self._selector_of_tests.waiting.append(waiting)
        await waiting


class QuietUvloop(uvloop.Loop):
    """uvloop's, which has no selector: it is quiet when nobody else has asked for anything in two turns."""

    asked = 0

    def call_soon(self, callback: Callable[[*T], object], *args: *T, context: Any = None) -> asyncio.Handle:
        self.asked += 1
        return super().call_soon(callback, *args, context=context)

    async def quiet(self) -> None:
        turns = 0
        while turns < 2:  # closing transports are asked for silently, and over a turn later
            before = self.asked
            await turn()
            turns = turns + 1 if self.asked == before + 1 else 0  # which is this task


class HastySelector(QuietSelector):
    """A selector that lets time pass quickly while nothing happens, by looking often and saying how much was left out.

    A step is short, so that whatever the system has still under way arrives before much time seems to have passed.
    """

    LOOK = 0.001  # seconds that a step takes
    STEP = 0.05  # seconds that it seems to take, at most

    def __init__(self) -> None:
        super().__init__()
        self.left_out = 0.0  # seconds
        self.threads = 0  # that work for the loop: nobody knows for how long

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if self.waiting or self.threads or not timeout or timeout <= self.LOOK:
            return super().select(timeout)
        events = super().select(self.LOOK)
        if not events:
            self.left_out += min(timeout, self.STEP) - self.LOOK
        return events


class HastyLoop(QuietLoop):
    """A loop for tests that wait for nothing outside: seconds in which nothing happens take no time."""

    def __init__(self) -> None:
        self._hasty = HastySelector()
        super().__init__(self._hasty)

    def time(self) -> float:
        return super().time() + self._hasty.left_out

    def run_in_executor(self, executor: Any, func: Callable[[*T], Any], *args: *T) -> asyncio.Future[Any]:
        """Run it while time passes as usual."""
        future = super().run_in_executor(executor, func, *args)
        self._hasty.threads += 1
        future.add_done_callback(self._ended)
        return future

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._hasty.threads -= 1


LOOPS: Mapping[str, LoopFactory] = {"asyncio": QuietLoop, "uvloop": QuietUvloop}


async def until(condition: Callable[[], object], seconds: float = 30.0, pause: float = 0.001) -> None:
    """Let the loop work until `condition` holds; TimeoutError when it does not in time.

    Between two looks is a `pause`, longer where looking is work, and where nothing happens for long.
    """
    if isinstance(asyncio.get_running_loop(), HastyLoop):
        pause = max(pause, HastySelector.STEP / 2)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(pause)
            pause = max(pause, min(pause * 1.1, LONGEST_PAUSE))


async def turn() -> None:
    """Let all that is ready have its turn, for tests of what is done in one turn of the loop."""
    await asyncio.sleep(0)


async def settled(seconds: float = 30.0) -> None:
    """Let all that is ready run, and all that it makes ready. For what must *not* happen; `until` is for the rest."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, QuietLoop | QuietUvloop), "the loops of tests are in LOOPS"
    async with asyncio.timeout(seconds):
        await loop.quiet()
