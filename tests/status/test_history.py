"""Plots of the last hour: what counts have grown by, period by period."""

from __future__ import annotations

import pytest

from harp.frontend.traffic import BOUNDS, Traffic
from harp.status.history import ALL, LENGTH, MOST_APPS, NOTHING, PERIOD, History, quantile
from tests.fakes.clock import Clock


class SampledTraffic:
    def __init__(self) -> None:
        self.clock = Clock()
        self.counts: dict[str, Traffic] = {"hello": Traffic(), "idle": Traffic()}
        self.others = Traffic()
        self.history = History(lambda: [*self.counts.items(), (ALL, self.others)], self.clock, self.clock.now)

    def sample(self) -> None:
        self.clock.now += PERIOD
        self.history.expired()


def test_a_sample_is_what_has_happened_since_the_last_one() -> None:
    world = SampledTraffic()
    for _ in range(10):
        world.counts["hello"].count(200, 0, 1000, 0.002)
    world.counts["hello"].count(502, 0, 0, 0.002)
    world.others.count(404, 0, 0, 0.002)
    world.sample()
    world.sample()
    points = world.history.points("hello")
    assert points.times == [1005.0, 1010.0]
    assert points.requests == pytest.approx([11 / PERIOD, 0])
    assert points.errors == pytest.approx([1 / PERIOD, 0])
    assert points.sent == [10_000 / PERIOD, 0]
    assert world.history.points(ALL).requests == pytest.approx([12 / PERIOD, 0])
    assert points.p50[1] is None


def test_an_hour_is_kept_and_the_newest_are_asked_for() -> None:
    world = SampledTraffic()
    for _ in range(LENGTH + 3):
        world.sample()
    assert len(world.history.points().times) == LENGTH
    assert world.history.points(last=2).times == [world.clock.now - PERIOD, world.clock.now]
    assert world.history.samples == LENGTH + 3


def test_who_has_had_no_request_and_who_is_unknown_are_flat() -> None:
    world = SampledTraffic()
    world.sample()
    assert world.history.points("idle").requests == world.history.points("nobody").requests == [0.0]


def test_no_number_of_exapps_takes_more_memory_than_their_bound() -> None:
    world = SampledTraffic()
    for number in range(MOST_APPS + 50):
        traffic = world.counts[f"app{number}"] = Traffic()
        traffic.count(200, 0, 0, 0.1)
    world.sample()
    kept = [name for name in world.counts if world.history.points(name).requests != [0.0]]
    assert len(kept) == MOST_APPS


def test_durations_are_estimated_as_prometheus_does() -> None:
    first = (100, *[0] * len(BOUNDS))
    assert quantile(first, 0.5) == pytest.approx(0.0025)
    assert quantile(first, 0.95) == pytest.approx(0.00475)
    assert quantile((*[0] * len(BOUNDS), 5), 0.5) == BOUNDS[-1]
    assert quantile([0] * (len(BOUNDS) + 1), 0.5) == NOTHING
