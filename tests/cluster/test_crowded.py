"""The simulation of many members, in small, and the model that is made of it for docs/scaling.md."""

from __future__ import annotations

import pytest
from benchmarks.crowded import Crowd, simulate
from benchmarks.scaling import MARKED, PAGE, Costs, forecast, replaced, section

CROWD = Crowd(4, 10, 1000, 20_000, 500, 50e-6, 100e-6, 200, 0.5, 200_000, 0.1, 0.2)
COSTS = Costs(40e-6, 80e-6, 120e-6, 40e6)


async def test_members_agree_after_tunnels_have_come_one_is_lost_and_another_one_is_fresh() -> None:
    """`simulate` waits until every member knows of every tunnel, and of no other."""
    crowd = await simulate(members=4, instances=2, tunnels=24)
    assert (crowd.members, crowd.instances, crowd.tunnels) == (4, 2, 24)
    assert 100 < crowd.change_bytes < 1000, "three messages to each of the others"
    assert crowd.greeting_bytes > 24 * 100
    assert min(crowd.probe, crowd.change, crowd.greeting, crowd.forgotten, crowd.agreed) > 0


def test_half_of_the_requests_to_two_members_are_relayed_three_quarters_to_four() -> None:
    assert [forecast(number, CROWD, COSTS).relayed for number in (1, 2, 4)] == [0, 0.5, 0.75]
    assert forecast(2, CROWD, COSTS).request == pytest.approx(60e-6)
    assert forecast(4, CROWD, COSTS).request == pytest.approx(70e-6)
    assert forecast(4, CROWD, COSTS).request_apart == pytest.approx(100e-6)


def test_each_two_members_have_a_link() -> None:
    assert [forecast(number, CROWD, COSTS).links for number in (1, 2, 4, 16)] == [0, 1, 6, 120]


def test_memory_is_that_of_a_members_own_tunnels_and_of_what_it_knows_of_all() -> None:
    one, two = (forecast(number, CROWD, COSTS).memory for number in (1, 2))
    own = 1000 * 171 * 1024
    assert one == pytest.approx(40e6 + 10 * 45 * 1024 + own + 1000 * 500)
    assert one - two == pytest.approx(own / 2 - 20_000)


def test_the_page_has_the_model_and_publishing_replaces_nothing_else() -> None:
    page = PAGE.read_text()
    found = MARKED.search(page)
    assert found is not None
    assert "| 16 | 120 | 94% |" in found[0]
    once = replaced(page, section(CROWD, COSTS))
    assert "40 µs of a processor" in once
    assert replaced(once, "") == replaced(page, "")
    with pytest.raises(ValueError, match="marks"):
        replaced("# Another page", "figures")
