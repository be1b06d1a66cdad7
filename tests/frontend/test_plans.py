"""How long a decision is kept, and for whom."""

from __future__ import annotations

import pytest

from harp.frontend.plans import CAPACITY, Plan, Plans
from harp.net.deadlines import Deadlines
from harp.net.targets import ExAppTunnel
from harp.policy.exapp import ExApp
from harp.policy.paths import CACHED_PATH
from harp.policy.question import Credentials, Key, Question
from harp.policy.verdict import Forward
from harp.proxy.forward import Hop
from tests.fakes.clock import Clock

HELLO = ExApp("hello", "token", "1.2.3", "127.0.0.1", 23001)
VERDICT = Forward("hello", b"/x", b"/exapps/hello", HELLO, b"c2VjcmV0", b"32", "", None, False, "signed")
PLAN = Plan(VERDICT, Hop(ExAppTunnel(23001, "hello"), "ExApp hello"), b"authorization-app-api: c2VjcmV0\r\n")
PATH = b"/exapps/hello/x"
ALICE = Question(PATH, "203.0.113.7", Credentials(digest=b"alice"))
BOB = Question(PATH, "203.0.113.7", Credentials(digest=b"bob"))


class World:
    """Plans with one kept, of version 1."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(clock=self.clock)
        self.plans = Plans(self.deadlines)
        assert self.plans.find(ALICE, 1) is None
        self.plans.keep(ALICE, 1, PLAN)


@pytest.fixture
async def world() -> World:
    return World()


async def test_a_plan_is_found_by_its_caller_and_path_only(world: World) -> None:
    assert world.plans.find(ALICE, 1) is PLAN
    assert world.plans.find(BOB, 1) is None
    for other in (
        Question(PATH + b"/", ALICE.ban_key, ALICE.credentials),
        Question(PATH, "203.0.113.8", ALICE.credentials),
        Question(PATH, ALICE.ban_key, Credentials(digest=b"alice", key=Key.WRONG)),
        Question(PATH, ALICE.ban_key, Credentials(digest=b"alice", password=True)),
    ):
        assert world.plans.find(other, 1) is None
    assert world.plans.find(ALICE, 1) is PLAN


async def test_a_plan_ends_with_the_tick(world: World) -> None:
    world.clock.move(0.1)
    assert world.plans.find(ALICE, 1) is PLAN
    world.deadlines.tick()
    assert world.plans.find(ALICE, 1) is None


async def test_a_plan_ends_with_its_version_and_does_not_come_back(world: World) -> None:
    assert world.plans.find(BOB, 2) is None
    assert world.plans.find(ALICE, 1) is None


async def test_what_was_decided_from_older_facts_is_not_kept(world: World) -> None:
    assert world.plans.find(BOB, 2) is None
    world.plans.keep(BOB, 1, PLAN)
    assert world.plans.find(BOB, 2) is None


async def test_what_is_kept_is_bounded(world: World) -> None:
    long = b"/exapps/hello/".ljust(CACHED_PATH + 1, b"x")
    world.plans.keep(Question(long, "", Credentials()), 1, PLAN)
    assert world.plans.find(Question(long, "", Credentials()), 1) is None
    callers = [Question(PATH, str(number)) for number in range(CAPACITY + 1)]
    for caller in callers:
        world.plans.keep(caller, 1, PLAN)
    assert world.plans.find(callers[0], 1) is PLAN
    assert world.plans.find(callers[-1], 1) is None


def test_a_plan_shows_no_secret() -> None:
    assert "hello" in repr(PLAN)
    assert "c2VjcmV0" not in repr(PLAN)
