"""One coarse timer for everything that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from harp.net.deadlines import NEVER, Deadlines
from tests.fakes.clock import Clock
from tests.fakes.waiting import until


class Waiter:
    """Counts how often it expired; `then` is what it does about it."""

    def __init__(self, deadline: float, then: Callable[[], None] = lambda: None) -> None:
        self.deadline = deadline
        self.count = 0
        self._then = then

    def expired(self) -> None:
        self.count += 1
        self._then()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def deadlines(clock: Clock) -> AsyncIterator[Deadlines]:
    watching = Deadlines(tick=3600, clock=clock)
    yield watching
    watching.close()


async def test_a_deadline_expires_once_it_has_passed(deadlines: Deadlines, clock: Clock) -> None:
    waiter = Waiter(clock.now + 10)
    deadlines.watch(waiter)
    clock.move(9.9)
    deadlines.tick()
    assert waiter.count == 0
    clock.move(0.1)
    deadlines.tick()
    assert waiter.count == 1


async def test_it_expires_at_every_tick_until_it_is_moved(deadlines: Deadlines, clock: Clock) -> None:
    waiter = Waiter(clock.now)
    deadlines.watch(waiter)
    deadlines.tick()
    deadlines.tick()
    assert waiter.count == 2
    waiter.deadline = NEVER
    deadlines.tick()
    assert waiter.count == 2


async def test_what_was_dropped_does_not_expire(deadlines: Deadlines, clock: Clock) -> None:
    waiter = Waiter(clock.now)
    deadlines.watch(waiter)
    deadlines.drop(waiter)
    deadlines.drop(waiter)
    deadlines.tick()
    assert waiter.count == 0


async def test_one_that_drops_another_spares_it_in_the_same_tick(deadlines: Deadlines, clock: Clock) -> None:
    pair: list[Waiter] = []

    def drop_all() -> None:
        for waiter in pair:
            deadlines.drop(waiter)

    pair += [Waiter(clock.now, drop_all), Waiter(clock.now, drop_all)]
    for waiter in pair:
        deadlines.watch(waiter)
    deadlines.tick()
    assert sum(waiter.count for waiter in pair) == 1


async def test_one_that_moves_another_spares_it_in_the_same_tick(deadlines: Deadlines, clock: Clock) -> None:
    pair: list[Waiter] = []

    def move_all() -> None:
        for waiter in pair:
            waiter.deadline = clock.now + 1

    pair += [Waiter(clock.now, move_all), Waiter(clock.now, move_all)]
    for waiter in pair:
        deadlines.watch(waiter)
    deadlines.tick()
    assert sum(waiter.count for waiter in pair) == 1


async def test_now_is_the_time_of_the_last_tick(deadlines: Deadlines, clock: Clock) -> None:
    before = deadlines.now
    clock.move(7)
    assert deadlines.now == before
    deadlines.tick()
    assert deadlines.now == before + 7


async def test_one_that_fails_does_not_keep_the_others_from_expiring(deadlines: Deadlines, clock: Clock) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    waiters = [Waiter(clock.now, fail) for _ in range(3)]
    for waiter in waiters:
        deadlines.watch(waiter)
    deadlines.tick()
    assert [waiter.count for waiter in waiters] == [1, 1, 1]
    assert [str(error) for error in reported] == ["a bug"] * 3


async def test_a_loop_that_was_busy_shows_how_late_it_was(clock: Clock) -> None:
    deadlines = Deadlines(tick=0.01, clock=clock)
    assert deadlines.lag == 0.0
    deadlines.watch(Waiter(NEVER))
    clock.move(0.51)  # without a turn of the loop
    await until(lambda: deadlines.lag > 0.0)
    assert deadlines.lag == pytest.approx(0.5)
    deadlines.close()
