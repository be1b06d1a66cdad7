"""Numbers and moments as people read them."""

from __future__ import annotations

import time

import pytest
from msgspec.structs import replace

from harp.frontend.traffic import BOUNDS
from harp.status.history import NOTHING
from harp.status.snapshot import DurationsLine
from harp.status.web.filters import ago, duration, histogram, moment, number, rate, size, span, spark, steps
from tests.fakes.facts import SOME


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (75, "1 min 15 s"),
        (3600 * 3 + 120, "3 h 2 min"),
        (86400 * 12, "12 d"),
    ],
)
def test_spans_have_one_or_two_units(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (NOTHING, "–"), (0.0004, "0.4 ms"), (0.25, "250 ms"), (1.25, "1.2 s"), (125, "2 min 5 s")],
)
def test_durations_have_the_digits_that_matter(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1500, "1.5 kB"), (250_000_000, "250 MB"), (2e15, "2000 TB")])
def test_sizes_are_decimal(count: float, text: str) -> None:
    assert size(count) == text


def test_counts_and_rates() -> None:
    assert number(1234567) == "1\u202f234\u202f567"
    assert [rate(value) for value in (0, 0.126, 4.25, 1234)] == ["0", "0.13", "4.2", "1\u202f234"]


def test_moments() -> None:
    assert moment(0) == "1970-01-01T00:00:00Z"
    assert (ago(None), ago(time.time()), ago(time.time() - 90)) == ("never", "just now", "1 min 30 s ago")


def test_a_sparkline_needs_two_values_and_fills_its_box() -> None:
    assert spark([1.0]) == ""
    assert spark([0.0, 2.0, None]) == "M0.0 27.0L60.0 2.0L120.0 27.0"


def test_only_buckets_with_requests_are_drawn() -> None:
    assert histogram(SOME) == [("≤ 5.0 ms", 3, 1.0), ("> 60.0 s", 1, 1 / 3)]


def test_steps_stand_in_the_order_in_which_they_are_taken() -> None:
    line = DurationsLine(1.0, (1, *(0,) * len(BOUNDS)))
    named = steps(replace(SOME, waits={"connect": line, "nextcloud": line}, first_bytes=line))
    assert [name for name, _ in named] == ["Asking Nextcloud", "Connecting", "Until the first byte", "Whole"]
