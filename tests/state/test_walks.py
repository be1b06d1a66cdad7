"""The nonces of the doctor's walks."""

from __future__ import annotations

from harp.state.walks import LIFETIME, MOST, Walks
from tests.fakes.clock import Clock


def step(nonce: str, name: str = "hello") -> bytes:
    return f"/doctor/{nonce}/{name}".encode()


def test_only_the_steps_of_a_walk_under_way_are_expected() -> None:
    walks = Walks(Clock())
    nonce = walks.begin()
    assert walks.expects(step(nonce))
    assert walks.expects(step(nonce, "websocket"))
    for other in (
        step("", "hello"),
        step("0" * len(nonce)),
        step(nonce, "info"),
        step(nonce, "hello/"),
        b"/" + step(nonce),
    ):
        assert not walks.expects(other)
    walks.end(nonce)
    assert not walks.expects(step(nonce))


def test_a_walk_ends_by_itself() -> None:
    clock = Clock()
    walks = Walks(clock)
    nonce = walks.begin()
    clock.now += LIFETIME + 1
    assert not walks.expects(step(nonce))


def test_walks_are_few_and_the_oldest_gives_way() -> None:
    walks = Walks(Clock())
    nonces = [walks.begin() for _ in range(MOST + 1)]
    assert [walks.expects(step(nonce)) for nonce in nonces] == [False, *[True] * MOST]
    assert len(set(nonces)) == MOST + 1
