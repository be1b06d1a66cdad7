"""When Nextcloud is called, and when the trouble of another call is the answer."""

from __future__ import annotations

import pytest

from harp.nextcloud.breaker import LIVELY, RETRY, STALE, Attempt, Belief, Breaker
from harp.policy.exapp import Trouble
from tests.fakes.clock import Clock

REFUSED = Trouble("connection refused")
SILENT = Trouble("no answer within 25 s")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def entered(breaker: Breaker, *, probe: bool = False) -> Attempt:
    attempt = breaker.enter(probe=probe)
    assert isinstance(attempt, Attempt)
    return attempt


def test_calls_pass_while_nothing_is_known(breaker: Breaker) -> None:
    for _ in range(3):
        entered(breaker)


def test_after_a_refusal_one_call_at_a_time_tries_again(breaker: Breaker, clock: Clock) -> None:
    assert breaker.failed(Belief.REFUSING, REFUSED, clock())
    assert breaker.enter() is REFUSED
    clock.move(RETRY)
    attempt = entered(breaker)
    assert breaker.enter() is REFUSED
    breaker.leave(attempt)
    entered(breaker)


def test_the_one_that_tries_again_is_not_forgotten_when_an_older_call_ends(breaker: Breaker, clock: Clock) -> None:
    old = entered(breaker)
    breaker.failed(Belief.REFUSING, REFUSED, clock())
    clock.move(RETRY)
    entered(breaker)
    breaker.leave(old)
    assert breaker.enter() is REFUSED


def test_while_nextcloud_hangs_only_probes_pass(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(Belief.HANGING, SILENT, clock())
    clock.move(STALE - 1)
    assert breaker.enter() is SILENT
    entered(breaker, probe=True)


def test_after_a_quiet_time_one_call_finds_out_whether_nextcloud_still_hangs(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(Belief.HANGING, SILENT, clock())
    clock.move(STALE)
    attempt = entered(breaker)
    assert breaker.enter() is SILENT
    breaker.failed(Belief.HANGING, SILENT, clock())
    breaker.leave(attempt)
    assert breaker.enter() is SILENT


@pytest.mark.parametrize("state", [Belief.REFUSING, Belief.HANGING])
def test_any_answer_lets_all_pass_again(breaker: Breaker, clock: Clock, state: Belief) -> None:
    breaker.failed(state, SILENT, clock())
    breaker.answered()
    entered(breaker)


@pytest.mark.parametrize("state", [Belief.REFUSING, Belief.HANGING])
def test_a_failure_counts_for_nothing_when_others_were_answered_since_it_began(
    breaker: Breaker, clock: Clock, state: Belief
) -> None:
    attempt = entered(breaker)
    clock.move(1)
    breaker.answered()
    assert not breaker.failed(state, SILENT, attempt.began)
    entered(breaker)


def test_nextcloud_is_lively_shortly_after_an_answer_and_while_others_ask(breaker: Breaker, clock: Clock) -> None:
    assert not breaker.is_lively()
    attempt = entered(breaker)
    assert breaker.is_lively()
    breaker.leave(attempt)
    assert not breaker.is_lively()
    breaker.answered()
    assert breaker.is_lively()
    clock.move(LIVELY)
    assert not breaker.is_lively()
