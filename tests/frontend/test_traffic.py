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


def test_a_whole_answer_began_when_it_ended() -> None:
    traffic = Traffic()
    traffic.count(200, 0, 0, 0.02)
    assert traffic.first_bytes.buckets == traffic.buckets
    assert traffic.first_bytes.seconds == 0.02


def test_an_answer_that_came_in_pieces_began_earlier() -> None:
    traffic = Traffic()
    for seconds in (0.02, 20.0):
        traffic.count(200, 0, 0, seconds)
    traffic.count_early(0.004, 20.0)
    first = traffic.first_bytes
    assert first.seconds == pytest.approx(0.024)
    assert {bound: count for bound, count in zip(BOUNDS, first.buckets, strict=False) if count} == {0.005: 1, 0.025: 1}
    assert sum(traffic.buckets) == 2


def test_what_requests_wait_for_is_counted_apart() -> None:
    traffic = Traffic()
    traffic.count_waits({"nextcloud": 0.2, "tunnel": 1.5})
    traffic.count_waits({"nextcloud": 0.2})
    assert {what: (sum(line.buckets), line.seconds) for what, line in traffic.waits.items()} == {
        "nextcloud": (2, 0.4),
        "tunnel": (1, 1.5),
    }
