"""Tables for a terminal."""

from __future__ import annotations

import time

import pytest

from harp.commands.tables import ago, span, table


def test_columns_are_as_wide_as_what_is_in_them_and_never_run_together() -> None:
    rows = [("24000", "Docker 20.10.24+dfsg1-1+deb12u1", "1.12"), ("1", "", "x")]
    assert table(("port", "engine", "API"), rows).splitlines() == [
        "port   engine                           API",
        "24000  Docker 20.10.24+dfsg1-1+deb12u1  1.12",
        "1                                       x",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text
    assert ago(time.time() - seconds - 0.01) == text


def test_a_moment_ahead_of_our_clock_is_now() -> None:
    assert ago(time.time() + 100) == "0 s"
