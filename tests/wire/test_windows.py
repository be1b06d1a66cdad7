"""Receive windows follow their readers, within one budget for all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harp.wire.windows import NEAR_WINDOW, SLOW_WINDOW, Budget, ReceiveWindow
from harp.wire.yamux import INITIAL_WINDOW
from tests.properties import core

MOST = 16 << 20
TRIP = 0.05  # seconds


def use(window: ReceiveWindow, now: float, most: int = MOST, trip: float | None = TRIP) -> int:
    """The peer sends half of the window, and the reader takes it."""
    window.left -= window.size // 2
    assert window.left * 2 <= window.size
    return window.reopen(now, trip, most)


def test_a_window_that_is_used_up_in_less_than_two_round_trips_is_doubled() -> None:
    window = ReceiveWindow(Budget(), now=0.0)
    assert use(window, 0.1) == INITIAL_WINDOW // 2 + INITIAL_WINDOW
    assert (window.size, window.left) == (2 * INITIAL_WINDOW, 2 * INITIAL_WINDOW)


def test_it_grows_until_it_does_not_limit_the_stream() -> None:
    rate = 100e6  # bytes a second
    window, now = ReceiveWindow(Budget(1 << 30), now=0.0), 0.0
    for _ in range(50):
        now += max(TRIP / 2, window.size / 2 / rate)
        use(window, now)
    assert 2 * rate * TRIP <= window.size <= 8 * rate * TRIP


def test_it_grows_no_further_than_it_may() -> None:
    window = ReceiveWindow(Budget(), now=0.0)
    for _ in range(10):
        use(window, 0.0, most=1 << 20)
    assert window.size == 1 << 20


def test_nothing_grows_while_the_round_trip_is_not_known() -> None:
    window = ReceiveWindow(Budget(), now=0.0)
    assert use(window, 0.0, trip=None) == INITIAL_WINDOW // 2


def test_a_reader_that_paused_and_was_slow_gets_a_small_window() -> None:
    budget = Budget()
    window = ReceiveWindow(budget, now=0.0)
    for _ in range(4):
        use(window, 0.0)
    window.strain()
    use(window, 60.0)
    assert window.size == SLOW_WINDOW
    assert budget.lent == 0


def test_a_reader_that_paused_and_is_fast_all_the_same_has_more_than_what_is_under_way() -> None:
    window = ReceiveWindow(Budget(), now=0.0)
    for _ in range(4):
        use(window, 0.0)
    size = window.size
    window.strain()
    use(window, 3 * TRIP)
    rate = size / 2 / (3 * TRIP)
    assert 2 * rate * TRIP <= window.size < size


def test_a_slow_reader_gets_the_first_window_again_when_it_has_kept_up() -> None:
    window = ReceiveWindow(Budget(), now=0.0)
    window.strain()
    use(window, 60.0)
    assert window.size == SLOW_WINDOW
    window.left = 0
    window.reopen(120.0, TRIP, MOST)
    assert window.size == INITIAL_WINDOW


def test_all_windows_share_one_budget_and_give_back_what_they_had() -> None:
    budget = Budget(1 << 20)
    windows = [ReceiveWindow(budget, now=0.0) for _ in range(4)]
    for _ in range(5):
        for window in windows:
            use(window, 0.0)
    assert budget.lent == 1 << 20
    assert sum(window.size for window in windows) == 4 * INITIAL_WINDOW + (1 << 20)
    for window in windows:
        window.close()
        window.close()
    assert budget.lent == 0


def test_what_slow_readers_leave_lying_is_not_lent() -> None:
    budget = Budget(1 << 20)
    budget.kept = 1 << 20
    window = ReceiveWindow(budget, now=0.0)
    use(window, 0.0)
    assert window.size == INITIAL_WINDOW


@core
@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 10), st.booleans(), st.none() | st.floats(0, 1)), max_size=60),
    st.integers(0, 8 << 20),
)
def test_a_peer_never_has_more_than_its_window_and_the_budget_always_adds_up(
    steps: list[tuple[int, float, bool, float | None]], total: int
) -> None:
    budget, now = Budget(total), 0.0
    windows = [ReceiveWindow(budget, now) for _ in range(4)]
    for number, seconds, strained, trip in steps:
        window = windows[number]
        now += seconds
        if strained:
            window.strain()
        left = window.left
        window.left -= window.left // 3 * 2
        increment = window.reopen(now, trip, MOST)
        assert increment >= 0
        assert window.left <= max(window.size, left)
        assert SLOW_WINDOW <= window.size <= MOST
        assert budget.lent == sum(max(0, each.size - INITIAL_WINDOW) for each in windows) <= total
    for window in windows:
        window.close()
    assert budget.lent == 0


def test_a_stream_of_a_near_peer_begins_with_less() -> None:
    window = ReceiveWindow(Budget(), now=0.0, round_trip=0.0005)
    assert (window.left, window.size) == (INITIAL_WINDOW, NEAR_WINDOW)
    window.left -= 150_000
    assert window.left * 2 > window.size
    window.left -= 50_000
    assert window.reopen(1.0, 0.0005, MOST) == NEAR_WINDOW - (INITIAL_WINDOW - 200_000)
    window.left -= NEAR_WINDOW // 2
    assert window.reopen(1.0005, 0.0005, MOST) == NEAR_WINDOW // 2 + NEAR_WINDOW


def test_a_part_of_the_budget_lends_no_more_than_it_has_and_no_more_than_is_left_of_the_whole() -> None:
    whole = Budget(1000)
    part, other = whole.part(600), whole.part(600)
    assert part.borrow(1000) == 600
    assert other.borrow(1000) == 400
    part.give_back(300)
    assert other.borrow(1000) == 200
    assert (part.lent, other.lent, whole.lent) == (300, 600, 900)


def test_what_a_part_keeps_is_missing_from_the_whole_until_the_part_is_dropped() -> None:
    whole = Budget(1000)
    part, other = whole.part(600), whole.part(1000)
    part.kept = 500
    assert (part.left, other.left, whole.left) == (100, 500, 500)
    whole.drop(part)
    assert whole.left == 1000
