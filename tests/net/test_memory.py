"""Memory that is free goes back to the system."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from harp.net.deadlines import Deadlines
from harp.net.memory import PERIOD, WORTH, Heap, Memory, glibc, resident
from tests.fakes.clock import Clock
from tests.fakes.waiting import settled

MB = 1 << 20


class MemoryProcess:
    """40 MB of code and objects, and a heap."""

    def __init__(self, deadlines: Deadlines, *, heap: bool = True) -> None:
        self.used = 10 * MB
        self.free = 0
        self.stuck = 0  # free, and cannot be given back
        self.other = 40 * MB
        self.trims = 0
        self.asked = 0
        self._heap = heap
        self.memory = Memory(deadlines, lambda: self.used + self.free + self.other, self._find)
        deadlines.watch(self.memory)

    def _find(self) -> Heap | None:
        self.asked += 1
        return Heap(lambda: self.used, self._trim) if self._heap else None

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


async def test_a_process_that_does_not_grow_is_not_even_asked(clock: Clock) -> None:
    process = MemoryProcess(clock.deadlines)
    process.free = WORTH - MB
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
