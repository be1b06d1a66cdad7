"""Fair shares of the loop."""

from __future__ import annotations

import asyncio

from harp.net.turns import BIG, BUDGET, LARGEST, MANY, QUICK, SHARE, SIP, SLOW, SMALLER, WORK, Turns
from tests.fakes.waiting import turn


class Pile:
    """A reader that always has more to read: notes in which turn of the loop it was let in."""

    def __init__(self, turns: Turns, clock: Turn, size: int) -> None:
        self._turns = turns
        self._clock = clock
        self._size = size
        self.paused = False
        self.let_in: list[int] = []

    def read(self) -> None:
        self.paused = self._turns.spend(self, self._size)

    def turn_came(self) -> None:
        self.let_in.append(self._clock.number)
        self.read()


class Turn:
    """Counts the turns of the loop, and says how long they take."""

    def __init__(self) -> None:
        self.number = 0
        self.now = 0.0  # seconds

    def time(self) -> float:
        return self.now

    async def pass_by(self, count: int, seconds: float = 0.0) -> None:
        for _ in range(count):
            self.now += seconds
            await turn()
            self.number += 1


def world() -> tuple[Turns, Turn]:
    clock = Turn()
    return Turns(clock.time), clock


async def test_who_reads_little_never_waits() -> None:
    turns = Turns()
    small = Pile(turns, Turn(), BIG)
    small.read()
    assert not small.paused


async def test_a_full_read_is_all_that_a_connection_gets_in_a_turn() -> None:
    turns, clock = world()
    pile = Pile(turns, clock, SHARE)
    pile.read()
    assert pile.paused
    await clock.pass_by(5)
    assert len(pile.let_in) == len(set(pile.let_in)) >= 4


async def test_a_turn_has_a_budget_for_all_and_the_line_is_served_in_order() -> None:
    turns, clock = world()
    piles = [Pile(turns, clock, SHARE) for _ in range(40)]
    for pile in piles:
        pile.read()
    await clock.pass_by(12)
    firsts = [pile.let_in[0] for pile in piles]
    assert firsts == sorted(firsts)
    most = max(firsts.count(number) for number in firsts)
    assert most == BUDGET // SHARE


async def test_fewer_are_let_in_while_turns_take_long() -> None:
    turns, clock = world()
    piles = [Pile(turns, clock, SHARE) for _ in range(40)]
    for pile in piles:
        pile.read()

    def let_in() -> list[int]:
        """How many, in each turn since the last call."""
        numbers = [number for pile in piles for number in pile.let_in]
        for pile in piles:
            pile.let_in.clear()
        return [numbers.count(number) for number in sorted(set(numbers))]

    await clock.pass_by(12, seconds=SLOW * 1.5)
    slow = let_in()
    assert slow == sorted(slow, reverse=True)
    assert slow[-1] == 1
    await clock.pass_by(20, seconds=QUICK / 2)
    assert let_in()[-1] == BUDGET // SHARE


async def test_smaller_reads_wait_only_when_the_budget_is_spent() -> None:
    turns, clock = world()
    within = BUDGET // (SHARE // 2)
    piles = [Pile(turns, clock, SHARE // 2) for _ in range(within + 1)]
    for pile in piles:
        pile.read()
    assert [pile.paused for pile in piles] == [False] * within + [True]


async def test_the_line_is_one_line_of_state() -> None:
    turns = Turns()
    Pile(turns, Turn(), SHARE).read()
    assert repr(turns) == "<Turns 1 wait, 131072 bytes read in this turn>"


async def test_the_more_wait_the_less_is_read_at_a_time() -> None:
    turns, clock = world()
    assert len(turns.view) == LARGEST
    piles = [Pile(turns, clock, LARGEST) for _ in range(MANY + BUDGET // SHARE)]
    for pile in piles:
        pile.read()
    assert len(turns.view) == SIP
    for pile in piles:
        pile.turn_came = lambda: None  # type: ignore[method-assign]
    await clock.pass_by(1)
    assert len(turns.view) == SMALLER
    await clock.pass_by(20)
    assert len(turns.view) == LARGEST


async def test_who_has_work_left_may_stand_in_line_without_a_read() -> None:
    turns, clock = world()
    pile = Pile(turns, clock, 1)
    turns.join(pile)
    assert turns.crowded
    await clock.pass_by(2)
    assert len(pile.let_in) == 1
    assert not turns.crowded


async def test_long_work_is_a_turn_of_its_own() -> None:
    class Worker:
        """Has been read already, and works for longer than a turn is meant to last."""

        def __init__(self) -> None:
            self.worked_in: list[int] = []

        def turn_came(self) -> None:
            self.worked_in.append(clock.number)
            clock.now += WORK * 1.1

    turns, clock = world()
    workers = [Worker() for _ in range(3)]
    for worker in workers:
        turns.join(worker)
    await clock.pass_by(4)
    assert len({turn for worker in workers for turn in worker.worked_in}) == 3


class Broken:
    """A reader that fails when its turn comes."""

    def turn_came(self) -> None:
        raise RuntimeError("broken")


async def test_a_reader_that_fails_takes_nobody_elses_turn() -> None:
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(str(context.get("exception"))))
    turns, clock = world()
    pile = Pile(turns, clock, SHARE)
    turns.join(Broken())
    turns.join(pile)
    await clock.pass_by(3)
    assert failures == ["broken"]
    assert pile.let_in != []
    quiet = Pile(turns, clock, SHARE)
    turns.join(quiet)
    await clock.pass_by(6)
    assert quiet.let_in != []
