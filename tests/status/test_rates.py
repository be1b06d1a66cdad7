"""Requests per second of several processes."""

from __future__ import annotations

from harp.status.rates import Rates


def test_a_rate_is_what_came_between_two_counts() -> None:
    rates = Rates()
    rates.take("1", 100, 10.0)
    assert rates.of("1") == 0
    rates.take("1", 150, 15.0)
    assert rates.of("1") == 10
    rates.take("1", 150, 20.0)
    assert rates.of("1") == 0


def test_counts_that_come_close_together_make_none() -> None:
    rates = Rates()
    for moment, count in ((10.0, 100), (10.5, 900), (12.0, 120)):
        rates.take("1", count, moment)
    assert rates.of("1") == 10


def test_a_smaller_count_is_that_of_a_new_process() -> None:
    rates = Rates()
    rates.take("1", 100, 10.0)
    rates.take("1", 3, 11.0)
    assert rates.of("1") == 0
    rates.take("1", 5, 13.0)
    assert rates.of("1") == 1


def test_what_is_forgotten_begins_anew() -> None:
    rates = Rates()
    rates.take("1", 100, 10.0)
    rates.take("1", 150, 15.0)
    rates.forget("1")
    assert rates.of("1") == 0
    rates.take("1", 500, 20.0)
    assert rates.of("1") == 0
