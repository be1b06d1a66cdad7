"""Returns free memory to the system that the C library would otherwise keep.

glibc returns only the end of its heap, and a small object there keeps everything below it: after a burst, a process
keeps the size that it had at its busiest moment. malloc_trim(3) returns free pages wherever they are. Nothing else runs
meanwhile: while there is work, only much memory is worth it; when the process is quiet, little is.

What refers to itself, as a tunnel and its session do, is freed by Python's collector, which comes with new objects: not
when all is quiet. So a quiet process that has grown calls it once a minute.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from msgspec import Struct

from harp.net.deadlines import Deadlines

PERIOD = 5.0  # seconds between two looks
WORTH = 16 << 20  # bytes that are free and not given back, for a trim to be worth its page faults
WORTH_QUIET = 2 << 20  # likewise, when nobody waits
QUIET = 0.1  # of a processor, and less: most of the time there is nothing to do
COLLECT = 60.0  # seconds between two collections
GROWN = 6 << 20  # bytes more than at first: less is code, and no reason to look for the heap
STATM = Path("/proc/self/statm")
MALLINFO2 = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)  # its fields, in order

log = structlog.get_logger()


class Heap(Struct, frozen=True):
    """The abilities of a C library: report the bytes in use by the program, and return free ones."""

    used: Callable[[], int]
    trim: Callable[[], object]


class Memory:
    """Looks at the size of the process every PERIOD seconds; to be watched by `deadlines`.

    `heap` gives None where the C library is another one. `spent`: the processor's seconds that the process has had.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        resident: Callable[[], int],
        heap: Callable[[], Heap | None],
        spent: Callable[[], float] = time.process_time,
        collect: Callable[[], object] = gc.collect,
    ) -> None:
        self.deadline = deadlines.now + PERIOD
        self._deadlines = deadlines
        self._resident = resident
        self._find_heap = heap  # not before it is needed: ctypes takes memory itself
        self._heap: Heap | None = None
        self._spent = spent
        self._looked, self._spent_then = deadlines.now, spent()
        self._first = self._least = resident()  # bytes that are resident, and not of the heap or free: at least
        self._collect = collect
        self._next_collection = deadlines.now

    def expired(self) -> None:
        """Look, and collect and trim when it is worth it."""
        self.deadline = self._deadlines.now + PERIOD
        quiet = self._quiet()
        now = self._deadlines.now
        if quiet and now >= self._next_collection and self._resident() >= self._first + GROWN:
            self._next_collection = now + COLLECT
            self._collect()
        self._look(WORTH_QUIET if quiet else WORTH)

    def _look(self, worth: int) -> None:
        resident = self._resident()
        if self._heap is None:
            if resident < self._first + max(worth, GROWN):
                return
            self._heap = self._find_heap()
            if self._heap is None:
                self._deadlines.drop(self)
                return
        idle = resident - self._heap.used()
        self._least = min(self._least, idle)
        if idle < self._least + worth:
            return
        self._heap.trim()
        after = self._resident()
        self._least = after - self._heap.used()  # what cannot be given back is not worth another attempt
        log.debug("memory released", before=resident, after=after)

    def _quiet(self) -> bool:
        """Has there been little to do since the last look?"""
        now, spent = self._deadlines.now, self._spent()
        busy, passed = spent - self._spent_then, now - self._looked
        self._looked, self._spent_then = now, spent
        return busy <= QUIET * passed


def resident() -> int:
    """Return bytes of this process that are in memory; 0 where the system does not say."""
    try:
        return int(STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def glibc() -> Heap | None:
    """Return the heap of glibc 2.33 or later; None with another C library."""
    import ctypes  # noqa: PLC0415 - most processes never need it

    class Mallinfo2(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in MALLINFO2]

    library = ctypes.CDLL(None)
    try:
        mallinfo2, trim = library.mallinfo2, library.malloc_trim
    except AttributeError:
        return None
    mallinfo2.restype = Mallinfo2

    def used() -> int:
        info = mallinfo2()
        return int(info.uordblks + info.hblkhd)

    return Heap(used, lambda: trim(0))
