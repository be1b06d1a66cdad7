"""Fair shares of the loop: connections that have much to read wait in line, so that all others are served in between.

libuv reads a ready stream up to 32 times, 256,000 bytes each, before it looks at the next one. So whoever reads large
pieces asks `Turns.spend` after each of at least BIG bytes, pauses its transport when told to, and reads on when
`turn_came` is called:

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
from typing import Protocol

BIG = 16 * 1024  # bytes: smaller reads are not counted
SHARE = 128 * 1024  # bytes: a read of this size is all that its connection gets in one turn
LARGEST = 256 * 1024  # bytes read at once while few have much to read
SMALLER = 128 * 1024  # bytes read at once while many have: what is read is what may have to be kept for a slow reader
SIP = 32 * 1024  # bytes read at once by who comes uninvited when a turn's budget is spent, as crowds of new clients do
MANY = 16  # readers in line
BUDGET = 768 * 1024  # bytes read in one turn of the loop by all who wait in line, about a millisecond's work
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

    __slots__ = ("_line", "_loop", "_many", "_scheduled", "_sip", "_spent", "memory", "view")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.memory = memoryview(bytearray(LARGEST))
        self._many = self.memory[:SMALLER]
        self._sip = self.memory[:SIP]
        self.view = self.memory
        self._line: deque[tuple[Reader, int]] = deque()
        self._spent = 0  # bytes in this turn of the loop
        self._scheduled = False

    def __repr__(self) -> str:
        return f"<Turns {len(self._line)} wait, {self._spent} bytes read in this turn>"

    @property
    def crowded(self) -> bool:
        """Return whether others wait. Then whoever wants to read again after another pause should `join`."""
        return bool(self._line) or self._spent > BUDGET

    def spend(self, reader: Reader, size: int) -> bool:
        """Count a read. True: the reader stands in line now and has to pause until `turn_came`."""
        self._spent += size
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._next_turn)
        if self._spent > BUDGET:
            self.view = self._sip
        elif size < SHARE:
            return False
        self._line.append((reader, size))
        return True

    def join(self, reader: Reader) -> None:
        """Stand in line without a read, for a reader that has paused with work left to do."""
        self._line.append((reader, SHARE))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Let those at the head of the line read or work, as many as the budget and WORK allow; at least one."""
        self._spent = admitted = 0
        line = self._line
        clock = time.perf_counter
        until = clock() + WORK
        for _ in range(len(line)):  # who reads at once stands in line again, for the next turn
            reader, size = line.popleft()
            admitted += size
            reader.turn_came()
            if admitted >= BUDGET or clock() > until:
                break
        self.view = self._many if len(line) >= MANY else self.memory
        if line:
            self._loop.call_soon(self._next_turn)
        else:
            self._scheduled = False
