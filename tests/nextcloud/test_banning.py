"""What the log says of bans, with a clock that the test moves."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from harp.logs import KINDS, RareWarnings
from harp.nextcloud.banning import Banning
from harp.settings import Bans
from tests.fakes.clock import Clock


class BanWorld:
    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = self.clock.deadlines
        self.changes = 0
        bans = Bans(count=2, window=300.0, strikes="auth", action="reply")
        self.banning = Banning(bans, self.clock, RareWarnings(self.clock), self._changed, self.deadlines)

    def _changed(self) -> None:
        self.changes += 1

    def ban(self, address: str) -> None:
        for _ in range(2):
            self.banning.strike(address, "wrong key")

    def after(self, seconds: float) -> list[str]:
        """What is logged while so much time passes."""
        with capture_logs() as events:
            self.clock.move(seconds)
        return [f"{event['event']} {event['source']}" for event in events]


@pytest.fixture
async def world() -> BanWorld:
    return BanWorld()


async def test_a_ban_is_one_line_when_it_begins_and_one_when_it_ends(world: BanWorld) -> None:
    with capture_logs() as events:
        world.ban("8.8.4.4")
    assert [event["event"] for event in events] == ["strike counted", "strike counted", "address banned"]
    assert (events[-1]["source"], events[-1]["seconds"], events[-1]["reason"]) == ("8.8.4.4", 300, "wrong key")
    assert world.after(299) == []
    assert world.after(2) == ["ban ended 8.8.4.4"]
    assert world.after(600) == []


async def test_a_ban_that_more_strikes_prolong_ends_later(world: BanWorld) -> None:
    world.ban("8.8.4.4")
    world.clock.move(100)
    world.ban("8.8.4.4")
    assert world.after(201) == []
    assert world.after(100) == ["ban ended 8.8.4.4"]


async def test_bans_end_one_after_another(world: BanWorld) -> None:
    world.ban("a")
    world.clock.move(10)
    world.ban("b")
    assert world.after(291) == ["ban ended a"]
    assert world.after(10) == ["ban ended b"]


async def test_a_lifted_ban_is_told_and_does_not_end_again(world: BanWorld) -> None:
    world.ban("8.8.4.4")
    with capture_logs() as events:
        assert world.banning.lift("8.8.4.4")
        assert not world.banning.lift("8.8.4.4")
    assert [event["event"] for event in events] == ["ban lifted"]
    assert world.changes == 2
    assert world.after(301) == []


async def test_whoever_is_banned_again_after_a_lift_is_told_to_end_once(world: BanWorld) -> None:
    world.ban("8.8.4.4")
    world.banning.lift("8.8.4.4")
    world.ban("8.8.4.4")
    assert world.after(301) == ["ban ended 8.8.4.4"]


async def test_a_crowd_of_bans_does_not_fill_the_log(world: BanWorld) -> None:
    with capture_logs() as events:
        for number in range(1000):
            world.ban(f"203.0.113.{number}")
    assert sum(event["event"] == "address banned" for event in events) <= KINDS + 1
    assert len(world.after(301)) <= KINDS + 2
