"""Memory that is free goes back to the system."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from harp.net.deadlines import Deadlines
from harp.net.memory import COLLECT, GROWN, PERIOD, QUIET, WORTH, WORTH_QUIET, Heap, Memory, glibc, resident
from tests.fakes.clock import Clock
from tests.fakes.waiting import settled

MB = 1 << 20


class MemoryProcess:
    """40 MB of code and objects, and a heap; the processor works `busy` of the time."""

    def __init__(self, deadlines: Deadlines, *, heap: bool = True, busy: float = 1.0) -> None:
        self.busy = busy
        self._deadlines = deadlines
        self._then, self._spent = deadlines.now, 0.0
        self.used = 10 * MB
        self.free = 0
        self.stuck = 0  # free, and cannot be given back
        self.other = 40 * MB
        self.rings = 0  # used by what refers to itself
        self.collections = 0
        self.trims = 0
        self.asked = 0
        self._heap = heap
        self.memory = Memory(deadlines, self._resident, self._find, self._work, self._collect)
        deadlines.watch(self.memory)

    def _resident(self) -> int:
        return self.used + self.rings + self.free + self.other

    def _find(self) -> Heap | None:
        self.asked += 1
        return Heap(lambda: self.used + self.rings, self._trim) if self._heap else None

    def _collect(self) -> None:
        self.collections += 1
        self.free += self.rings
        self.rings = 0

    def _work(self) -> float:
        self._spent += self.busy * (self._deadlines.now - self._then)
        self._then = self._deadlines.now
        return self._spent

    def _trim(self) -> None:
        self.trims += 1
        self.free = self.stuck


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    clock = Clock()
    yield clock
    clock.stop()
    await settled()


async def test_memory_that_was_used_and_is_free_is_given_back(clock: Clock) -> None:
    process = MemoryProcess(clock.deadlines)
    process.used += 100 * MB
    clock.move(PERIOD)
    process.used, process.free = 10 * MB, 100 * MB
    clock.move(PERIOD)
    assert (process.trims, process.free) == (1, 0)
    clock.move(PERIOD)
    assert process.trims == 1


async def test_a_busy_process_is_held_up_for_much_memory_only_and_a_quiet_one_for_little(clock: Clock) -> None:
    process = MemoryProcess(clock.deadlines, busy=2 * QUIET)
    process.free = WORTH - MB
    clock.move(PERIOD)
    assert process.trims == 0
    process.busy = QUIET / 2
    clock.move(PERIOD)
    assert (process.trims, process.free) == (1, 0)
    process.free = WORTH_QUIET
    clock.move(PERIOD)
    assert (process.trims, process.free) == (2, 0)
    process.free = WORTH_QUIET - 1
    clock.move(PERIOD)
    assert process.trims == 2


@pytest.mark.parametrize(("busy", "grown"), [(1.0, WORTH), (0.0, GROWN)])
async def test_a_process_that_does_not_grow_is_not_even_asked(clock: Clock, busy: float, grown: int) -> None:
    process = MemoryProcess(clock.deadlines, busy=busy)
    process.free = grown - MB
    clock.move(PERIOD)
    assert (process.asked, process.trims) == (0, 0)


async def test_what_cannot_be_given_back_is_tried_once(clock: Clock) -> None:
    process = MemoryProcess(clock.deadlines)
    process.free = process.stuck = 100 * MB
    for _ in range(5):
        clock.move(PERIOD)
    assert process.trims == 1
    process.free += 2 * WORTH
    clock.move(PERIOD)
    assert (process.trims, process.free) == (2, 100 * MB)


async def test_what_refers_to_itself_is_freed_while_a_grown_process_is_quiet(clock: Clock) -> None:
    process = MemoryProcess(clock.deadlines)
    process.rings = 20 * MB
    clock.move(PERIOD)
    assert process.collections == 0
    process.busy = QUIET / 2
    for _ in range(3):
        clock.move(PERIOD)
    assert (process.collections, process.rings, process.free) == (1, 0, 0)
    process.rings = 20 * MB
    clock.move(COLLECT)
    assert (process.collections, process.rings, process.free) == (2, 0, 0)
    clock.move(COLLECT)
    assert process.collections == 2


async def test_other_c_libraries_are_left_alone(clock: Clock) -> None:
    process = MemoryProcess(clock.deadlines, heap=False)
    process.free = 100 * MB
    for _ in range(3):
        clock.move(PERIOD)
    assert process.asked == 1


async def test_glibc_really_gives_it_back() -> None:
    heap = glibc()
    if heap is None:
        pytest.skip("not glibc 2.33 or later")
    heap.trim()
    before = resident()
    blocks = [bytes(16000) for _ in range(6000)]
    kept = blocks[::50]  # between those that go
    del blocks
    heap.trim()
    assert kept
    assert resident() - before < 30 * MB
    assert heap.used() > 0
