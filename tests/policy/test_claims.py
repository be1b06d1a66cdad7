"""Whose tunnel may offer which port."""

from __future__ import annotations

import pytest

from harp.errors import PeerError
from harp.policy.claims import MOVES, ClaimEvent, ClaimState, engine_objection, key_objection, moved, record_objection
from harp.policy.exapp import ExApp, Trouble, UnknownApp

HELLO = ExApp("hello", "t", "1", "127.0.0.1", 23001)


def test_an_own_key_opens_the_tunnel_of_its_exapp_alone() -> None:
    assert key_objection("hello", "hello", exapp_port=True) == ""
    assert key_objection("hello", "Hello", exapp_port=True) == ""
    assert "hello only" in key_objection("hello", "other", exapp_port=True)
    assert "hello only" in key_objection("hello", "hello", exapp_port=False)


def test_a_claim_must_be_what_nextcloud_says() -> None:
    assert record_objection(HELLO, "hello", 23001) == ""
    assert record_objection(HELLO, "hello", 23002) == "Nextcloud gave the ExApp hello port 23001, not 23002"
    assert "knows no ExApp x" in record_objection(UnknownApp(), "x", 23001)
    assert "connection refused" in record_objection(Trouble("connection refused"), "hello", 23001)


ENGINES = {24001: "gpu1"}


def test_an_engine_has_its_port() -> None:
    assert engine_objection(ENGINES, "gpu1", 24001) is None


def test_a_port_that_was_given_to_an_engine_is_nobody_elses() -> None:
    objection = engine_objection(ENGINES, "evil", 24001)
    assert objection == "port 24001 belongs to the engine gpu1; if it is right: harp engine register evil --port 24001"
    assert objection.certain


def test_a_port_without_an_engine_may_be_that_of_a_stock_set_up() -> None:
    objection = engine_objection(ENGINES, "deploy-daemon-1", 24002)
    assert objection is not None
    assert objection.startswith("no engine is registered for port 24002")
    assert not objection.certain


def test_every_state_of_a_claim_can_be_reached_and_left_but_the_end() -> None:
    reached, todo = set(), [ClaimState.QUEUED]
    while todo:
        state = todo.pop()
        if state not in reached:
            reached.add(state)
            todo += MOVES[state].values()
    assert reached == set(ClaimState) == set(MOVES)
    assert [state for state in ClaimState if not MOVES[state]] == [ClaimState.ENDED]


def test_a_claim_can_be_given_up_in_every_state_before_the_end() -> None:
    for state in set(ClaimState) - {ClaimState.ENDED}:
        assert moved(state, ClaimEvent.RELEASE) is ClaimState.ENDED


def test_what_is_not_in_the_table_raises() -> None:
    with pytest.raises(PeerError, match="a claim that is ended cannot be moved: granted"):
        moved(ClaimState.ENDED, ClaimEvent.GRANT)
