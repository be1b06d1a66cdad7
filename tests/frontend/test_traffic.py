"""What is counted of a request."""

from __future__ import annotations

import pytest

from harp.frontend.traffic import BOUNDS, CLASSES, Traffic


@pytest.mark.parametrize(
    ("status", "name"),
    [(0, "none"), (101, "1xx"), (200, "2xx"), (304, "3xx"), (404, "4xx"), (599, "5xx"), (999, "5xx")],
)
def test_a_status_counts_in_its_class(status: int, name: str) -> None:
    traffic = Traffic()
    traffic.count(status, 0, 0, 0.0)
    assert dict(zip(CLASSES, traffic.classes, strict=True)) == {**dict.fromkeys(CLASSES, 0), name: 1}


def test_bytes_and_seconds_add_up() -> None:
    traffic = Traffic()
    traffic.count(200, 5, 10, 0.25)
    traffic.count(500, 1, 2, 0.5)
    assert (traffic.requests, traffic.received, traffic.sent, traffic.seconds) == (2, 6, 12, 0.75)


def test_a_duration_falls_below_the_first_bound_that_is_not_smaller() -> None:
    traffic = Traffic()
    for bound in BOUNDS:
        traffic.count(200, 0, 0, bound)
    traffic.count(200, 0, 0, BOUNDS[-1] + 1)
    assert traffic.buckets == [1] * (len(BOUNDS) + 1)


def test_an_upgraded_stream_has_no_duration() -> None:
    traffic = Traffic()
    traffic.count(101, 7, 8, 3600.0)
    assert (sum(traffic.buckets), traffic.seconds, traffic.sent) == (0, 0.0, 8)
