"""Strikes and bans, on a clock that the test moves (A 2.4)."""

from __future__ import annotations

import pytest

from harp.settings import Bans
from harp.state.bans import BanList
from tests.fakes.clock import Clock


def ban_list(clock: Clock, count: int = 3, window: float = 300.0, capacity: int = 100) -> BanList:
    return BanList(Bans(count=count, window=window, strikes="auth", action="reply"), clock, capacity)


def test_an_address_is_banned_with_the_last_of_its_strikes() -> None:
    bans = ban_list(Clock())
    assert [bans.strike("a", "x") for _ in range(3)] == [False, False, True]
    assert bans.seconds("a") == 300.0
    assert bans.seconds("b") == 0.0


def test_a_ban_ends_when_fewer_strikes_than_the_limit_are_young_enough() -> None:
    clock = Clock()
    bans = ban_list(clock)
    for _ in range(3):
        bans.strike("a", "x")
        clock.move(100)
    assert bans.seconds("a") == pytest.approx(0.0)  # the first strike is 300 s old by now
    bans.strike("a", "x")
    assert bans.seconds("a") == pytest.approx(100.0)
    clock.move(100)
    assert bans.seconds("a") == 0.0


def test_a_strike_during_a_ban_prolongs_it_and_starts_no_second_one() -> None:
    clock = Clock()
    bans = ban_list(clock)
    for _ in range(3):
        bans.strike("a", "x")
    clock.move(50)
    assert bans.strike("a", "y") is False
    assert bans.seconds("a") == 250.0


def test_a_ban_can_start_again() -> None:
    clock = Clock()
    bans = ban_list(clock, count=1)
    assert bans.strike("a", "x")
    clock.move(301)
    assert bans.seconds("a") == 0.0
    assert bans.strike("a", "x")


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_of_zero_bans_nobody(count: int) -> None:
    bans = ban_list(Clock(), count=count)
    assert not bans.strike("a", "x")
    assert bans.seconds("a") == 0.0
    assert len(bans) == 0


def test_bans_can_be_listed_and_lifted() -> None:
    clock = Clock()
    bans = ban_list(clock, count=2)
    for address in ("a", "a", "b"):
        bans.strike(address, "wrong key")
    clock.move(10)
    for _ in range(2):
        bans.strike("c", "parent directory")
    assert [(ban.address, ban.seconds, ban.reason) for ban in bans.list()] == [
        ("a", 290.0, "wrong key"),
        ("c", 300.0, "parent directory"),
    ]
    assert bans.lift("a")
    assert bans.seconds("a") == 0.0
    assert not bans.lift("a")


def test_addresses_whose_strikes_are_old_are_forgotten() -> None:
    clock = Clock()
    bans = ban_list(clock)
    for number in range(50):
        bans.strike(str(number), "x")
    clock.move(301)
    bans.strike("new", "x")
    assert len(bans) == 1


def test_the_table_is_bounded_and_forgets_who_was_struck_longest_ago() -> None:
    bans = ban_list(Clock(), count=1, capacity=10)
    for number in range(25):
        bans.strike(str(number), "x")
    bans.strike("15", "x")
    bans.strike("new", "x")
    assert len(bans) == 10
    assert bans.seconds("15") > 0
    assert bans.seconds("16") == 0.0


def test_strikes_that_are_told_again_do_not_count_twice() -> None:
    clock = Clock()
    bans = ban_list(clock, count=5)
    for _ in range(2):
        bans.strike("a", "x")
        clock.move(10)
    assert not bans.add("a", "x", 1, (20.4, 9.8), again=True)  # the same two, by another clock
    assert not bans.add("a", "x", 1, (20.0, 10.0, 10.0, 3.0), again=True)  # and two more
    assert [len(one.ages) for one in bans.latest(1)] == [4]
    assert bans.add("a", "x", 1, (3.0, 0.0), again=True)
    assert bans.seconds("a") == 280.0
