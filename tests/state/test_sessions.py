"""The memory of who credentials belong to (A 2.5, our difference 7)."""

from __future__ import annotations

from harp.policy.exapp import ANONYMOUS, Level, Visitor
from harp.state.sessions import SessionCache
from tests.fakes.clock import Clock

BOB = Visitor("bob", Level.USER)
KEY = bytes(32)


def cache(clock: Clock, lifetime: float = 3.0, capacity: int = 10) -> SessionCache:
    return SessionCache(lifetime, clock, KEY, capacity)


def test_an_answer_lives_for_its_lifetime_and_is_not_prolonged_by_use() -> None:
    clock = Clock()
    sessions = cache(clock)
    sessions.put(b"x", BOB)
    for _ in range(2):
        clock.move(1.4)
        assert sessions.get(b"x") is BOB
    clock.move(0.2)
    assert sessions.get(b"x") is None


def test_anonymous_is_an_answer_too() -> None:
    sessions = cache(Clock())
    sessions.put(b"x", ANONYMOUS)
    assert sessions.get(b"x") is ANONYMOUS


def test_a_lifetime_of_zero_remembers_nothing() -> None:
    sessions = cache(Clock(), lifetime=0)
    sessions.put(b"x", BOB)
    assert sessions.get(b"x") is None
    assert len(sessions) == 0


def test_every_credential_makes_a_difference() -> None:
    sessions = cache(Clock())
    digests = [
        sessions.digest(b"", None),
        sessions.digest(b"ab", None),
        sessions.digest(b"a", b"b"),
        sessions.digest(b"", b"ab"),
        sessions.digest(b"ab", b"c"),
        sessions.digest(b"a", b"bc"),
    ]
    assert len(set(digests)) == len(digests)


def test_a_digest_depends_on_the_key_and_shows_no_credential() -> None:
    mine, other = cache(Clock()), SessionCache(3.0, Clock(), bytes(31) + b"x")
    assert mine.digest(b"cookie", b"auth") == mine.digest(b"cookie", b"auth")
    assert mine.digest(b"cookie", b"auth") != other.digest(b"cookie", b"auth")
    assert len(mine.digest(b"c" * 9000, b"auth")) == 20


def test_expired_answers_make_room_before_living_ones() -> None:
    clock = Clock()
    sessions = cache(clock)
    for number in range(10):
        sessions.put(b"%d" % number, BOB)
        clock.move(0.5)
    sessions.put(b"new", BOB)
    assert len(sessions) == 6
    assert sessions.get(b"5") is BOB


def test_the_cache_is_bounded_and_drops_the_oldest() -> None:
    sessions = cache(Clock())
    for number in range(25):
        sessions.put(b"%d" % number, BOB)
    assert len(sessions) == 10
    assert sessions.get(b"14") is None
    assert sessions.get(b"15") is BOB


def test_a_newer_answer_replaces_the_older() -> None:
    sessions = cache(Clock())
    sessions.put(b"x", ANONYMOUS)
    sessions.put(b"x", BOB)
    assert sessions.get(b"x") is BOB
    sessions.clear()
    assert sessions.get(b"x") is None
