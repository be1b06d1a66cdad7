"""Turns for calls to Nextcloud: a few at once, a few of them per client, and clients take turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

MOST_OF_ONE = 2048  # calls that wait for one client
MOST = 8192  # calls that wait


class QueueFull(Exception):
    """There is no room to wait in."""


class WaitingCall:
    """A call that waits, in the line of every client that wants its answer, until `ready` is done."""

    __slots__ = ("lines", "ready", "source")

    def __init__(self) -> None:
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lines: set[str] = set()  # in which it stands or stood
        self.source: str | None = None  # in whose line it came to its turn; it counts as that client's


class FairQueue:
    """Grants turns: at most `at_once`, at most `per_source` of them to one source (a client, by its address).

    A source has a line of its own, and the lines are served in turn: a source that fills its line delays only itself.
    If there is no room, the last one of the longest line is dropped: its `ready` raises QueueFull.
    """

    def __init__(self, at_once: int, per_source: int) -> None:
        self._free = at_once
        self._per_source = per_source
        self._running: dict[str, int] = {}
        self._lines: OrderedDict[str, deque[WaitingCall]] = OrderedDict()  # the next one to be served is first
        self._waiting = 0  # entries of all lines

    def enter(self, source: str) -> WaitingCall:
        """Wait for a turn, which may be there at once; `leave` it in any case. Raises QueueFull."""
        turn = WaitingCall()
        self._append(turn, source)
        self._serve()
        return turn

    def also(self, turn: WaitingCall, source: str) -> None:
        """Another source wants the answer of a call that waits: it comes to its turn in whichever line is faster."""
        if not turn.ready.done() and source not in turn.lines:
            self._append(turn, source)
            self._serve()

    def leave(self, turn: WaitingCall) -> None:
        """The call is over, or given up before its turn."""
        turn.ready.cancel()
        if turn.source is None:
            return
        self._free += 1
        self._running[turn.source] -= 1
        if not self._running[turn.source]:
            del self._running[turn.source]
        turn.source = None
        self._serve()

    def dismiss(self) -> None:
        """Release everything that waits: there is nothing left to wait for. It counts for no source."""
        waiting = [turn for line in self._lines.values() for turn in line if not turn.ready.done()]
        self._lines.clear()
        self._waiting = 0
        for turn in waiting:
            if not turn.ready.done():  # one may be in several lines
                turn.ready.set_result(None)

    def _append(self, turn: WaitingCall, source: str) -> None:
        line = self._lines.get(source)
        standing = 0 if line is None else len(line)
        if standing >= MOST_OF_ONE or (self._waiting >= MOST and not self._make_room(standing)):
            raise QueueFull
        if line is None:
            line = self._lines[source] = deque()
        line.append(turn)
        turn.lines.add(source)
        self._waiting += 1

    def _make_room(self, standing: int) -> bool:
        """Drop one from a line that is longer than that of the newcomer, which has `standing`."""
        source, longest = max(self._lines.items(), key=lambda line: len(line[1]))
        if len(longest) <= standing + 1:
            return False
        turn = longest.pop()
        self._waiting -= 1
        turn.lines.discard(source)
        if not turn.lines and not turn.ready.done():
            turn.ready.set_exception(QueueFull())
        return True

    def _serve(self) -> None:
        """Grant turns while there are any, skipping the few lines whose source has its maximum."""
        for _ in range(len(self._lines)):
            if not self._free:
                return
            source, line = self._lines.popitem(last=False)
            if self._running.get(source, 0) < self._per_source:
                self._take(source, line)
            if line:
                self._lines[source] = line

    def _take(self, source: str, line: deque[WaitingCall]) -> None:
        """Give its turn to the first of a line that still waits."""
        while line:
            turn = line.popleft()
            self._waiting -= 1
            if not turn.ready.done():  # else it was given up, or came to its turn in another line
                turn.source = source
                turn.ready.set_result(None)
                self._free -= 1
                self._running[source] = self._running.get(source, 0) + 1
                return
