"""What a dict of limited size forgets, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harp.recent import SHARE, remember


@given(st.integers(1, 40), st.lists(st.integers(0, 99)))
def test_there_are_never_more_than_asked_for_and_the_last_are_among_them(most: int, keys: list[int]) -> None:
    known: dict[int, int] = {}
    for turn, key in enumerate(keys):
        remember(known, key, turn, most)
        assert known[key] == turn
        assert len(known) <= most
    latest = list(dict.fromkeys(reversed(keys)))
    if len(set(keys)) == len(keys):
        assert set(latest[: most - max(most // SHARE, 1)]) <= set(known)


def test_what_is_learnt_again_pushes_nothing_out() -> None:
    known = {"a": 1, "b": 2}
    remember(known, "a", 3, most=2)
    assert known == {"a": 3, "b": 2}


def test_what_was_learnt_first_goes_first() -> None:
    known = dict.fromkeys(range(16), "")
    remember(known, 16, "", most=16)
    assert list(known) == list(range(2, 17))
