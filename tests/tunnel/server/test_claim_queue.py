"""Claims of one tunnel are decided one after another."""

from __future__ import annotations

import asyncio

import pytest

from harp.net.ports import PortTable, ProtocolFactory
from harp.tunnel.server.claim_queue import WAITING, ClaimQueue
from harp.tunnel.server.claims import Claim, Claims, Connected
from harp.wire.frp import NewProxy
from tests.fakes.clock import Clock
from tests.fakes.waiting import settled

LIMIT = "exceed the max_ports_per_client"


class Claimant:
    since = 0.0

    """A holder of claims that lives or not, and reads the answers."""

    def __init__(self, claims: Claims, *, check: Check | None = None) -> None:
        self.living = True
        self.answers: list[str] = []
        self.changed = asyncio.Event()
        self.queue = ClaimQueue(self, claims, self, check, token="the token", address="192.0.2.1")

    async def start(self, factory: ProtocolFactory, messages: tuple[bytes, bytes]) -> Connected:
        raise NotImplementedError

    async def alive(self) -> bool:
        return self.living

    def close(self, reason: str, *, abort: bool = False) -> None:
        self.queue.close()

    def granted(self, claim: Claim) -> None:
        self._answer(f"{claim.name} granted")

    def granted_again(self, claim: Claim) -> None:
        self._answer(f"{claim.name} granted again")

    def refused(self, request: NewProxy, reason: str) -> None:
        self._answer(f"{request.proxy_name} refused: {reason}")

    def _answer(self, text: str) -> None:
        self.answers.append(text)
        self.changed.set()

    async def answered(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(self.answers) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.answers


class Check:
    """Objects to what it is told to; waits while it is shut."""

    def __init__(self, objections: dict[str, str] | None = None) -> None:
        self.objections = objections or {}
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def __call__(self, token: str, name: str, port: int, address: str) -> str:
        self.asked.append(name)
        await self.open.wait()
        if name == "a bug":
            raise RuntimeError(name)
        return self.objections.get(name, "")


@pytest.fixture
def claims(clock: Clock) -> Claims:
    return Claims(PortTable(), clock.deadlines, listen=False)


def wanted(name: str, port: int = 23001) -> NewProxy:
    return NewProxy(name, "tcp", remote_port=port)


async def test_the_second_has_its_chance_when_the_first_is_refused(claims: Claims) -> None:
    tunnel = Claimant(claims, check=Check({"first": "not yours"}))
    for name in ("first", "second", "third"):
        tunnel.queue.add(wanted(name))
    answers = await tunnel.answered(3)
    assert answers == ["first refused: not yours", "second granted", f"third refused: {LIMIT}"]


async def test_a_claim_that_is_repeated_while_it_is_decided_is_answered_once(claims: Claims) -> None:
    check = Check()
    check.open.clear()
    tunnel = Claimant(claims, check=check)
    for _ in range(3):
        tunnel.queue.add(wanted("first"))
        await settled()
    check.open.set()
    assert await tunnel.answered(1) == ["first granted"]
    tunnel.queue.add(wanted("first"))
    assert await tunnel.answered(2) == ["first granted", "first granted again"]
    assert check.asked == ["first"]


async def test_a_claim_that_is_withdrawn_while_it_is_decided_is_never_granted(claims: Claims) -> None:
    check = Check()
    check.open.clear()
    tunnel = Claimant(claims, check=check)
    tunnel.queue.add(wanted("first"))
    tunnel.queue.add(wanted("second"))
    await settled()
    tunnel.queue.withdraw("first")
    check.open.set()
    assert await tunnel.answered(1) == ["second granted"]


async def test_the_claims_that_wait_have_a_limit(claims: Claims) -> None:
    check = Check()
    check.open.clear()
    tunnel = Claimant(claims, check=check)
    for number in range(WAITING + 1):
        tunnel.queue.add(wanted(f"app{number}"))
    assert await tunnel.answered(1) == [f"app{WAITING} refused: {LIMIT}"]


async def test_a_bug_in_a_check_is_an_answer(claims: Claims) -> None:
    tunnel = Claimant(claims, check=Check())
    tunnel.queue.add(wanted("a bug"))
    tunnel.queue.add(wanted("second"))
    assert await tunnel.answered(2) == ["a bug refused: internal error; see the log of HaRP", "second granted"]


async def test_a_tunnel_that_ends_while_it_waits_gets_nothing(claims: Claims) -> None:
    check = Check()
    check.open.clear()
    tunnel, other = Claimant(claims, check=check), Claimant(claims)
    tunnel.queue.add(wanted("first"))
    await settled()
    tunnel.queue.close()
    check.open.set()
    other.queue.add(wanted("first"))
    assert await other.answered(1) == ["first granted"]
    assert tunnel.answers == []


async def test_who_does_not_live_gives_way_with_all_that_it_holds(claims: Claims) -> None:
    dead, living = Claimant(claims), Claimant(claims)
    dead.queue.add(wanted("first"))
    await dead.answered(1)
    dead.living = False
    living.queue.add(wanted("first"))
    assert await living.answered(1) == ["first granted"]
    assert dead.queue.held == {}


async def test_a_claim_shows_its_state_on_one_line(claims: Claims) -> None:
    tunnel = Claimant(claims)
    tunnel.queue.add(wanted("first"))
    assert repr(tunnel.queue) == "<ClaimQueue [<Claim first:23001 waits for its turn>]>"
    await tunnel.answered(1)
    assert repr(tunnel.queue) == "<ClaimQueue [<Claim first:23001 granted, not confirmed yet>]>"
    claims.confirm(tunnel.queue.held["first"])
    assert repr(tunnel.queue) == "<ClaimQueue [<Claim first:23001 offered>]>"
