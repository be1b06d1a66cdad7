"""How much a stream's peer may send: receive windows that follow their readers, within one budget for the process.

A window has to hold what travels in one round trip, or the sender stands idle for a part of it. So it grows while it
is what limits the stream: while the reader takes half of it in less than two round trips. A reader that is slower
than that needs less, and gets it.
"""

from __future__ import annotations

from harp.wire.yamux import INITIAL_WINDOW

NEAR = 0.01  # seconds of round trip below which a stream begins with NEAR_WINDOW: it grows at once if need be
NEAR_WINDOW = 131072  # bytes
SLOW_WINDOW = 65536  # bytes for a reader that holds up its stream
SHORTEST_TRIP = 0.001  # seconds; the loop itself takes as long to come round
DEFAULT_BUDGET = 128 << 20  # bytes


class Budget:
    """Bytes that all streams of the process may have beyond their first windows, less what slow readers leave lying.

    A part of it bounds some of them: what it lends, the whole lends, too.
    """

    __slots__ = ("_parts", "_whole", "kept", "lent", "total")

    def __init__(self, total: int = DEFAULT_BUDGET, whole: Budget | None = None) -> None:
        self.total = total
        self.lent = 0  # to windows
        self.kept = 0  # received, and not taken by its reader yet; what is kept of a part counts there
        self._whole = whole
        self._parts: list[Budget] = []

    def __repr__(self) -> str:
        return f"<Budget {self.total}, {self.lent} lent, {self.kept} kept>"

    @property
    def left(self) -> int:
        """How much can be lent."""
        left = self.total - self.lent - self.kept - sum([part.kept for part in self._parts])
        return left if self._whole is None else min(left, self._whole.left)

    def part(self, total: int) -> Budget:
        """Return a budget within this one, which `drop` ends."""
        part = Budget(total, self)
        self._parts.append(part)
        return part

    def drop(self, part: Budget) -> None:
        """Forget a part whose streams have ended."""
        self._parts.remove(part)

    def borrow(self, wanted: int) -> int:
        """As much of `wanted` as there is. It counts until it is given back."""
        given = max(0, min(wanted, self.left))
        self._lend(given)
        return given

    def give_back(self, size: int) -> None:
        self._lend(-size)

    def _lend(self, size: int) -> None:
        self.lent += size
        if self._whole is not None:
            self._whole.lent += size


class ReceiveWindow:
    """The window of one stream. `left` is what the peer may still send.

    Times are seconds on any clock that does not jump.
    """

    __slots__ = ("_borrowed", "_budget", "_first", "_since", "_strained", "left", "size")

    def __init__(self, budget: Budget, now: float, round_trip: float | None = None) -> None:
        near = round_trip is not None and round_trip < NEAR
        self.left = INITIAL_WINDOW
        self.size = self._first = NEAR_WINDOW if near else INITIAL_WINDOW
        self._budget = budget
        self._borrowed = 0  # of `size`
        self._since = now  # when it was last opened
        self._strained = False  # the reader has paused since

    def strain(self) -> None:
        """The reader pauses."""
        self._strained = True

    def reopen(self, now: float, round_trip: float | None, most: int) -> int:
        """Return how many more bytes to grant a reader that has taken all. `most` is how far the window may grow.

        Without a `round_trip` nobody knows what the window has to hold, and it stays as it is.
        """
        took, since = self.size - self.left, now - self._since
        if round_trip is not None:
            trip = max(round_trip, SHORTEST_TRIP)
            if since <= 2 * trip:
                self._resize(min(2 * self.size, max(most, INITIAL_WINDOW)))
            elif self._strained:
                self._resize(min(self.size, max(SLOW_WINDOW, int(took * 4 * trip / since))))
            elif self.size < self._first:
                self._resize(self._first)
        elif self._strained:
            self._resize(min(self.size, INITIAL_WINDOW))
        self._since, self._strained = now, False
        increment = max(0, self.size - self.left)
        self.left += increment
        return increment

    def close(self) -> None:
        """Nothing more will be received."""
        self._budget.give_back(self._borrowed)
        self._borrowed = 0

    def _resize(self, wanted: int) -> None:
        extra = max(0, wanted - INITIAL_WINDOW)
        if extra > self._borrowed:
            given = self._budget.borrow(extra - self._borrowed)
            self._borrowed += given
            self.size = max(self.size, INITIAL_WINDOW + self._borrowed)
        else:
            self._budget.give_back(self._borrowed - extra)
            self._borrowed = extra
            self.size = wanted
