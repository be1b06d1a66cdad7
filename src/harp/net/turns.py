"""Fair shares of the loop: connections that have much to read wait in line, so that all others are served in between.

libuv reads a ready stream up to 32 times, 256,000 bytes each, before it looks at the next one. So a connection
that reads large pieces asks `Turns.spend` after each of at least BIG bytes, pauses its transport when told to, and
continues when `turn_came` is called:

    def data_received(self, data):
        if len(data) >= BIG and self._turns.spend(self, len(data)):
            self._transport.pause_reading()
        ...

    def turn_came(self):
        self._transport.resume_reading()  # unless something else holds it back

One `Turns` for the whole process: what is shared is the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

BIG = 16 * 1024  # bytes: smaller reads are not counted
SHARE = 128 * 1024  # bytes: a read of this size is all that its connection gets in one turn
LARGEST = 256 * 1024  # bytes read at once while few have much to read
SMALLER = 128 * 1024  # bytes read at once while many have: what is read is what may have to be kept for a slow reader
SIP = 32 * 1024  # bytes read at once by who comes uninvited when a turn's budget is spent, as crowds of new clients do
MANY = 16  # readers in line
BUDGET = 768 * 1024  # bytes read in one turn of the loop by all who wait in line, where that takes a millisecond
LEAST = 128 * 1024  # bytes: the budget where it takes longer, as with TLS or on a small computer
QUICK, SLOW = 0.001, 0.002  # seconds of a turn: below, the budget grows; above, it shrinks
WORK = 0.0005  # seconds for those who work when their turn comes, on what they have read before


class Reader(Protocol):
    """What has a transport that it can pause."""

    def turn_came(self) -> None:
        """Read on. May come after the connection has ended."""


class Turns:
    """The line of those who have much to read, first come, first served.

    `view`, the beginning of `memory`, is where a BufferedProtocol may read to, the smaller the more wait. Everybody has
    the same one, so what was read has to be copied at once.
    """

    __slots__ = (
        "_began",
        "_budget",
        "_clock",
        "_line",
        "_loop",
        "_many",
        "_scheduled",
        "_sip",
        "_spent",
        "memory",
        "view",
    )

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.memory = memoryview(bytearray(LARGEST))
        self._many = self.memory[:SMALLER]
        self._sip = self.memory[:SIP]
        self.view = self.memory
        self._line: deque[Reader] = deque()
        self._budget = BUDGET
        self._began = 0.0  # when this turn did
        self._spent = 0  # bytes in this turn of the loop
        self._scheduled = False

    def __repr__(self) -> str:
        return f"<Turns {len(self._line)} wait, {self._spent} bytes read in this turn>"

    @property
    def crowded(self) -> bool:
        """Return whether others wait. Then a connection that wants to read again after another pause should `join`."""
        return bool(self._line) or self._spent > self._budget

    def spend(self, reader: Reader, size: int) -> bool:
        """Count a read. True: the reader is queued now and has to pause until `turn_came`."""
        self._spent += size
        self._schedule()
        if self._spent > self._budget:
            self.view = self._sip
        elif size < SHARE:
            return False
        self._line.append(reader)
        return True

    def join(self, reader: Reader) -> None:
        """Stand in line without a read, for a reader that has paused with work left to do."""
        self._line.append(reader)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._began = self._clock()
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Let those at the head of the line read or work, as many as the budget and WORK allow; at least one."""
        clock = self._clock
        now = clock()
        # What a byte costs depends on who reads it (TLS) and on the computer, so the time decides.
        if now - self._began > SLOW:
            self._budget = max(self._budget * 3 // 4, LEAST)
        elif now - self._began < QUICK:
            self._budget = min(self._budget * 9 // 8, BUDGET)
        self._began = now
        self._spent = admitted = 0
        line = self._line
        self.view = self._many if len(line) >= MANY else self.memory
        each = len(self.view)
        try:
            for _ in range(len(line)):  # a reader that reads at once is queued again
                line.popleft().turn_came()
                admitted += each  # however little it will find
                if admitted >= self._budget or clock() > now + WORK:
                    break
        finally:  # one that fails keeps nobody else waiting for ever
            if line:
                self._loop.call_soon(self._next_turn)
            else:
                self._scheduled = False
