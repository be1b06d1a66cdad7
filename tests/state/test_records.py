"""What is known of ExApps, and for how long (A 2.5, our difference 8)."""

from __future__ import annotations

import msgspec

from harp.policy.exapp import ExApp, Level, Route, UnknownApp
from harp.state.records import RecordCache
from tests.fakes.clock import Clock

HELLO = ExApp("hello", "t", "1", "127.0.0.1", 23001, (Route("^/a", Level.PUBLIC),))
UNKNOWN = UnknownApp("no such app")


def cache(clock: Clock) -> RecordCache:
    return RecordCache(60.0, clock, capacity=10, unknown_capacity=10)


def test_nothing_is_known_at_first() -> None:
    assert cache(Clock()).get("hello") is None
    assert not cache(Clock()).take_due("hello")


def test_a_record_is_due_after_its_lifetime_and_served_stale_for_ever() -> None:
    clock = Clock()
    records = cache(clock)
    records.learn("hello", HELLO)
    clock.move(59.9)
    assert not records.take_due("hello")
    clock.move(0.1)
    assert records.take_due("hello")
    clock.move(1e6)
    assert records.get("hello") is HELLO


def test_a_refresh_is_due_once_per_attempt() -> None:
    clock = Clock()
    records = cache(clock)
    records.learn("hello", HELLO)
    clock.move(60)
    assert [records.take_due("hello") for _ in range(3)] == [True, False, False]
    clock.move(5)
    assert records.take_due("hello")


def test_a_doubted_record_is_due_at_once_but_not_in_a_loop() -> None:
    clock = Clock()
    records = cache(clock)
    records.learn("hello", HELLO)
    records.doubt("hello")
    assert records.take_due("hello")
    records.doubt("hello")
    assert not records.take_due("hello")
    records.doubt("never heard of it")


def test_an_equal_record_keeps_its_compiled_routes() -> None:
    records = cache(Clock())
    records.learn("hello", HELLO)
    records.learn("hello", msgspec.structs.replace(HELLO))
    assert records.get("hello") is HELLO
    changed = msgspec.structs.replace(HELLO, version="2")
    records.learn("hello", changed)
    assert records.get("hello") is changed


def test_an_unknown_id_is_remembered_for_15_seconds() -> None:
    clock = Clock()
    records = cache(clock)
    records.learn("nope", UNKNOWN)
    clock.move(14.9)
    assert records.get("nope") is UNKNOWN
    clock.move(0.1)
    assert records.get("nope") is None


def test_an_app_that_nextcloud_knows_no_more_is_forgotten() -> None:
    records = cache(Clock())
    records.learn("hello", HELLO)
    records.learn("hello", UNKNOWN)
    assert records.get("hello") is UNKNOWN
    assert not records.delete("hello")


def test_a_pushed_record_ends_not_being_known() -> None:
    records = cache(Clock())
    records.learn("hello", UNKNOWN)
    records.put(HELLO)
    assert records.get("hello") is HELLO


def test_delete_says_whether_there_was_a_record_and_forgets_that_it_was_unknown() -> None:
    records = cache(Clock())
    records.put(HELLO)
    assert records.delete("hello")
    assert not records.delete("hello")
    records.learn("hello", UNKNOWN)
    records.delete("hello")
    assert records.get("hello") is None


def test_pushes_are_counted_so_that_older_answers_can_be_told() -> None:
    records = cache(Clock())
    before = records.changes
    records.learn("hello", HELLO)
    assert records.changes == before
    records.put(HELLO)
    records.delete("hello")
    assert records.changes == before + 2


def test_both_tables_are_bounded() -> None:
    clock = Clock()
    records = cache(clock)
    for number in range(25):
        app_id = f"app{number:02}"
        records.learn(app_id, msgspec.structs.replace(HELLO, app_id=app_id))
        records.learn(f"nope{number:02}", UNKNOWN)
    assert [record.app_id for record in records.list()] == [f"app{number}" for number in range(15, 25)]
    assert records.get("nope14") is None
    assert records.get("nope15") is UNKNOWN
