"""How long a decision is kept, and for whom."""

from __future__ import annotations

import pytest

from harp.frontend.plans import CAPACITY, LIFETIME, LONGEST, Plan, Plans
from harp.frontend.traffic import Traffic
from harp.net.deadlines import NEVER
from harp.net.targets import ExAppTunnel
from harp.policy.exapp import ExApp, Level, Route
from harp.policy.paths import ExAppPath, locate
from harp.policy.question import Asker, Credentials, Key
from harp.policy.verdict import Forward
from harp.proxy.forward import Hop
from tests.fakes.clock import Clock

ROUTES = (Route("^/x", Level.PUBLIC), Route("^/y", Level.PUBLIC))
HELLO = ExApp("hello", "token", "1.2.3", "127.0.0.1", 23001, ROUTES)
VERDICT = Forward(
    "hello", b"/x", b"/exapps/hello", HELLO, b"c2VjcmV0", b"32", "", ROUTES[0], False, "route ^/x is for PUBLIC"
)
ALICE = Asker("203.0.113.7", Credentials(digest=b"alice"))
BOB = Asker("203.0.113.7", Credentials(digest=b"bob"))


def at(path: bytes) -> ExAppPath:
    found = locate(path)
    assert isinstance(found, ExAppPath)
    return found


X = at(b"/exapps/hello/x")


def plan(version: int = 1, until: float = NEVER, verdict: Forward = VERDICT) -> Plan:
    hop = Hop(ExAppTunnel(23001, "hello"), "ExApp hello")
    return Plan(verdict, hop, b"authorization-app-api: c2VjcmV0\r\n", Traffic(), version, until)


class KeptPlan:
    """Plans with one kept, of version 1."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.deadlines = self.clock.deadlines
        self.plans = Plans(self.deadlines)
        self.kept = plan(until=self.plans.until(NEVER))
        assert self.plans.find(ALICE, X, 1) is None
        self.plans.keep(ALICE, X, self.kept)


@pytest.fixture
async def world() -> KeptPlan:
    return KeptPlan()


async def test_a_plan_is_found_by_who_asks_and_the_route(world: KeptPlan) -> None:
    assert world.plans.find(ALICE, X, 1) is world.kept
    assert world.plans.find(ALICE, at(b"/exapps/hello/xyz?"[:-1]), 1) is world.kept
    for asker, path in (
        (BOB, X),
        (Asker("203.0.113.8", ALICE.credentials), X),
        (Asker(ALICE.ban_key, Credentials(digest=b"alice", key=Key.WRONG)), X),
        (Asker(ALICE.ban_key, Credentials(digest=b"alice", password=True)), X),
        (Asker(ALICE.ban_key, ALICE.credentials, "proxy 10.0.0.1"), X),
        (ALICE, at(b"/exapps/hello/y")),
        (ALICE, at(b"/exapps/hello/z")),
        (ALICE, at(b"/exapps/Hello/x")),
        (ALICE, at(b"/nc/exapps/hello/x")),
        (ALICE, at(b"/exapps/other/x")),
        (ALICE, at(b"/exapps/hello/heartbeat")),
    ):
        assert world.plans.find(asker, path, 1) is None
    assert world.plans.find(ALICE, X, 1) is world.kept


async def test_a_plan_ends_with_its_time(world: KeptPlan) -> None:
    world.clock.move(LIFETIME - 0.1)
    assert world.plans.find(ALICE, X, 1) is world.kept
    world.clock.move(0.1)
    assert world.plans.find(ALICE, X, 1) is None
    assert world.plans.until(1.0) == 1.0


async def test_a_plan_ends_with_its_version_and_does_not_come_back(world: KeptPlan) -> None:
    assert world.plans.find(BOB, X, 2) is None
    assert world.plans.find(ALICE, X, 1) is None


async def test_what_was_decided_from_older_facts_is_not_kept(world: KeptPlan) -> None:
    assert world.plans.find(BOB, X, 2) is None
    world.plans.keep(BOB, X, plan(version=1))
    assert world.plans.find(BOB, X, 2) is None


async def test_what_was_signed_is_not_kept(world: KeptPlan) -> None:
    signed = Forward("hello", b"/x", b"/exapps/hello", HELLO, b"c2VjcmV0", b"32", "", None, True, "signed")
    world.plans.keep(BOB, X, plan(verdict=signed))
    assert world.plans.find(BOB, X, 1) is None


async def test_what_is_kept_is_bounded(world: KeptPlan) -> None:
    callers = [Asker(str(number)) for number in range(CAPACITY)]
    for caller in callers:
        world.plans.keep(caller, X, world.kept)
    assert len(world.plans) <= CAPACITY
    assert world.plans.find(ALICE, X, 1) is None
    for caller in callers[-CAPACITY // 2 :]:
        assert world.plans.find(caller, X, 1) is world.kept


async def test_an_app_whose_table_is_left_out_is_decided_about_again_and_kept_again() -> None:
    deadlines = Clock().deadlines
    plans = Plans(deadlines, capacity=1)
    assert plans.find(ALICE, X, 1) is None
    plans.keep(ALICE, X, plan())
    plans.keep(ALICE, at(b"/exapps/Hello/x"), plan())
    assert plans.find(ALICE, X, 1) is None
    plans.keep(ALICE, X, plan())
    assert plans.find(ALICE, X, 1) is not None


async def test_all_plans_can_be_forgotten(world: KeptPlan) -> None:
    world.plans.forget()
    assert len(world.plans) == 0
    assert world.plans.find(ALICE, X, 1) is None
    world.plans.keep(ALICE, X, world.kept)
    assert world.plans.find(ALICE, X, 1) is world.kept


@pytest.mark.parametrize("long", [b"/%b/exapps/hello/x", b"/exapps/hello/x%b"])
async def test_long_paths_are_not_kept(world: KeptPlan, long: bytes) -> None:
    path = at(long % (b"a" * LONGEST))
    world.plans.keep(BOB, path, world.kept)
    assert world.plans.find(BOB, path, 1) is None
    assert world.plans.find(BOB, X, 1) is None


def test_a_plan_shows_no_secret() -> None:
    assert "hello" in repr(plan())
    assert "c2VjcmV0" not in repr(plan())
