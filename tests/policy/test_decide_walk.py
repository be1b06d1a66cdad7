"""What the doctor's walk through the public URL may reach, and what a stranger may not."""

from __future__ import annotations

import pytest

from harp.policy.verdict import Control, Refuse
from tests.policy.decide_facts import WRONG_KEY, Facts, answer, ask

STEP = b"/doctor/aaaa/hello"


def walking() -> Facts:
    facts = Facts()
    facts.walk = STEP
    return facts


@pytest.mark.parametrize("prefix", [b"/exapps/app_api", b"/nextcloud/exapps/app_api", b"/app_api"])
def test_a_step_of_a_walk_needs_no_key_and_may_have_lost_its_prefix(prefix: bytes) -> None:
    verdict = ask(prefix + STEP, facts=walking())
    assert verdict == Control(STEP, "a step of harp doctor", walk=True)


def test_without_a_walk_the_path_is_like_any_other() -> None:
    for path in (b"/exapps/app_api" + STEP, b"/exapps/app_api/info"):
        verdict = ask(path)
        assert isinstance(verdict, Refuse)
        assert answer(verdict) == (401, False)


@pytest.mark.parametrize(
    "path", [STEP + b"/x", STEP + b"/../../docker/exapp/create", b"/%64octor/aaaa/hello", b"/info"]
)
def test_a_walk_opens_nothing_but_its_steps(path: bytes) -> None:
    verdict = ask(b"/exapps/app_api" + path, WRONG_KEY, facts=walking())
    assert isinstance(verdict, Refuse)


def test_who_is_banned_takes_no_steps() -> None:
    facts = walking()
    facts.bans = {"203.0.113.7": 10.0}
    verdict = ask(b"/exapps/app_api" + STEP, facts=facts)
    assert isinstance(verdict, Refuse)
    assert verdict.banned
