"""Where HaRP stands before all of Nextcloud: which paths are its own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harp.policy.decide import decide
from harp.policy.verdict import Forward, Gateway, Refuse
from tests.policy.decide_facts import Facts, question, rules

OURS = replace(rules(), ours=(b"/exapps/", b"/nc/exapps/"))


@pytest.mark.parametrize("path", [b"/", b"/index.php", b"/nc/apps", b"/exapps", b"//exapps/hello/x", b"/hello/public"])
def test_what_is_not_below_exapps_is_nextclouds(path: bytes) -> None:
    assert isinstance(decide(question(path), Facts(), OURS), Gateway)


@pytest.mark.parametrize("prefix", [b"/exapps", b"/nc/exapps"])
def test_what_is_below_it_is_decided_as_ever(prefix: bytes) -> None:
    assert isinstance(decide(question(prefix + b"/hello/public"), Facts(), OURS), Forward)
    assert isinstance(decide(question(prefix + b"/hello/admin"), Facts(), OURS), Refuse)
    assert isinstance(decide(question(prefix + b"/hello/%2e%2e/x"), Facts(), OURS), Refuse)


def test_a_ban_keeps_nobody_from_nextcloud() -> None:
    facts = Facts(banned={"203.0.113.7": 10.0})
    assert isinstance(decide(question(b"/login"), facts, OURS), Gateway)
    assert isinstance(decide(question(b"/exapps/hello/public"), facts, OURS), Refuse)


def test_without_a_gateway_nothing_is_nextclouds() -> None:
    assert not isinstance(decide(question(b"/login"), Facts(), rules()), Gateway)
