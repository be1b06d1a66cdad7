"""One coarse timer for everything: a request starts no timer of its own.

Everything that waits for a peer registers itself once and afterwards only sets its `deadline`. One tick looks at all of
them, so arming, moving and disarming a limit is one attribute write on the hot path.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

NEVER = float("inf")
LAGS = 240  # ticks, a minute


class Timed(Protocol):
    """Something with a limit. `deadline` is in seconds on the clock of `Deadlines.now`; NEVER disarms."""

    deadline: float

    def expired(self) -> None:
        """The deadline passed. Called once per tick until the deadline is moved or the object is dropped."""


class Deadlines:
    """Watches any number of `Timed`; a limit is noticed at most `tick` seconds late.

    `now` is the loop's clock in seconds, as of the last tick: good enough to set a deadline, and free to read.
    """

    def __init__(self, tick: float = 0.25, clock: Callable[[], float] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock or self._loop.time
        self._tick = tick
        self._watched: set[Timed] = set()
        self._handle: asyncio.TimerHandle | None = None
        self.now = self._clock()
        self._lags: deque[float] = deque(maxlen=LAGS)

    @property
    def lag(self) -> float:
        """The most seconds that the loop was late for a tick in the last minute."""
        return max(self._lags, default=0.0)

    def watch(self, timed: Timed) -> None:
        """Watch `timed` from now on. It must be hashable by identity."""
        self._watched.add(timed)
        if self._handle is None:
            self.now = self._clock()
            self._handle = self._loop.call_later(self._tick, self._run)

    def drop(self, timed: Timed) -> None:
        """Forget `timed`; unknown ones are fine."""
        self._watched.discard(timed)

    def close(self) -> None:
        """Stop ticking."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._watched.clear()

    def tick(self) -> None:
        """Expire what is due. The loop calls this; so do tests with their own clock."""
        now = self.now = self._clock()
        for timed in [timed for timed in self._watched if timed.deadline <= now]:
            if timed in self._watched and timed.deadline <= now:
                try:
                    timed.expired()
                except Exception as error:  # a bug in one must not stop the timer for all others
                    self._loop.call_exception_handler({"message": "a deadline failed", "exception": error})

    def _run(self) -> None:
        self._handle = self._loop.call_later(self._tick, self._run)
        self._lags.append(max(0.0, self._clock() - self.now - self._tick))
        self.tick()
