"""Turns: a few at once, a few of them for one source, sources one after the other."""

from __future__ import annotations

import asyncio

import pytest

from harp.nextcloud.fair import MOST, MOST_OF_ONE, FairQueue, QueueFull, WaitingCall
from tests.fakes.waiting import turn


def running(turns: list[WaitingCall]) -> list[int]:
    """The places of those whose turn it is."""
    return [place for place, turn in enumerate(turns) if turn.source is not None]


async def test_turns_come_in_order_as_others_leave() -> None:
    queue = FairQueue(2, 2)
    turns = [queue.enter("a") for _ in range(4)]
    assert running(turns) == [0, 1]
    queue.leave(turns[1])
    assert running(turns) == [0, 2]
    assert turns[2].ready.done()
    assert not turns[3].ready.done()


async def test_a_source_has_no_more_than_its_share_though_others_have_none() -> None:
    queue = FairQueue(100, 8)
    turns = [queue.enter("a") for _ in range(50)]
    assert running(turns) == list(range(8))
    other = queue.enter("b")
    assert other.source == "b"


async def test_sources_take_turns() -> None:
    queue = FairQueue(1, 1)
    first = queue.enter("a")
    crowd = [queue.enter("a") for _ in range(100)]
    others = [queue.enter("b"), queue.enter("c")]
    order = []
    now = first
    for _ in range(5):
        queue.leave(now)
        now = next(turn for turn in (*crowd, *others) if turn.source is not None)
        order.append(now.source)
    assert order == ["a", "b", "c", "a", "a"]


async def test_who_gives_up_waiting_is_passed_over() -> None:
    queue = FairQueue(1, 1)
    turns = [queue.enter("a") for _ in range(4)]
    queue.leave(turns[1])
    turns[2].ready.cancel()  # as waiting for it and being cancelled does
    queue.leave(turns[0])
    assert running(turns) == [3]
    queue.leave(turns[2])
    assert running(turns) == [3]


async def test_a_call_that_two_sources_want_counts_once() -> None:
    queue = FairQueue(2, 1)
    turns = [queue.enter("a") for _ in range(10)]
    queue.also(turns[9], "b")
    assert (turns[9].source, running(turns)) == ("b", [0, 9])
    queue.also(turns[9], "c")  # too late: nothing happens
    for place in (9, 0, *range(1, 9)):
        assert turns[place].source is not None
        queue.leave(turns[place])
    assert running(turns) == []


async def test_all_who_wait_can_be_let_go() -> None:
    queue = FairQueue(1, 1)
    turns = [queue.enter("a") for _ in range(3)]
    queue.also(turns[2], "b")
    queue.dismiss()
    assert all(turn.ready.done() for turn in turns)
    assert running(turns) == [0]
    for waiting in turns:
        queue.leave(waiting)
    assert queue.enter("b").source == "b"


async def test_there_is_a_limit_to_waiting_for_one_and_for_all() -> None:
    queue = FairQueue(1, 1)
    for _ in range(MOST_OF_ONE + 1):
        queue.enter("a")
    with pytest.raises(QueueFull):
        queue.enter("a")
    queue = FairQueue(1, 1)
    for number in range(MOST + 1):
        queue.enter(f"{number}")
    with pytest.raises(QueueFull):
        queue.enter("b")


async def test_a_few_sources_that_fill_all_room_keep_nobody_out() -> None:
    queue = FairQueue(1, 1)
    queue.enter("")
    crowd = [queue.enter(f"{number % 4}") for number in range(MOST)]
    turn = queue.enter("late")
    refused = [one for one in crowd if one.ready.done()]
    assert len(refused) == 1
    with pytest.raises(QueueFull):  # whoever has waited shortest in the longest line
        await refused[0].ready
    assert not turn.ready.done()
    with pytest.raises(QueueFull):
        queue.enter("0")


async def test_a_crowd_of_sources_is_served_without_looking_at_all_of_them() -> None:
    queue = FairQueue(8, 2)
    turns = [queue.enter(f"{number}") for number in range(8000)]
    async with asyncio.timeout(5):  # a tenth of a second; quadratic it would be minutes
        for waiting in turns:
            queue.leave(waiting)
            await turn()
    assert running(turns) == []
