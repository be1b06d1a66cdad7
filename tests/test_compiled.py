"""What the compiler gets to see means the same as the source."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from native import native

SOURCE = '''
"""A module."""
from __future__ import annotations
from enum import IntEnum
from msgspec import Struct

LIMIT = 5
DELAYS = (0.1, 0.2)
T = list
limit = 6

class State(IntEnum):
    """Where it is."""
    OPEN = 1
    SHUT = 2

OPEN, SHUT = State

class Point(Struct, frozen=True, cache_hash=True):
    """A place."""
    x: int
    y: int = LIMIT

class Named(Struct, frozen=True):
    name: str
    at: Point = Point(0)

    def __repr__(self) -> str:
        return f"<{self.name}>"

class Counter(Struct, eq=False):
    times: int = 0

    def count(self) -> int:
        self.times += 1
        return self.times

class Open(Struct, dict=True):
    name: str

def where(one: object) -> str:
    match one:
        case Named(name, at=Point(x, y)):
            return f"{name} {x} {y}"
    return ""

def fails(quietly: bool) -> None:
    try:
        raise KeyError("a")
    except KeyError as error:
        if quietly:
            raise ValueError("b") from None
        raise ValueError("b") from error
'''


def module(name: str, source: str) -> ModuleType:
    made = sys.modules[name] = ModuleType(name)
    exec(source, made.__dict__)
    return made


@pytest.fixture(params=["source", "compiled"])
def given(request: pytest.FixtureRequest) -> ModuleType:
    return module(f"given_{request.param}", native(SOURCE)[0] if request.param == "compiled" else SOURCE)


def test_values_are_equal_have_a_hash_and_defaults(given: ModuleType) -> None:
    one, same, other = given.Point(1), given.Point(1, 5), given.Point(1, y=6)
    assert (one == same, one == other, one == (1, 5)) == (True, False, False)
    assert {one: "a", other: "b"}[same] == "a"
    assert hash(one) == hash(same)
    assert given.Named("n").at == given.Point(0)
    assert (repr(one), repr(given.Named("n"))) == ("Point(x=1, y=5)", "<n>")


def test_what_changes_is_compared_by_identity(given: ModuleType) -> None:
    one, other = given.Counter(), given.Counter()
    assert one.count() == 1
    assert (one.times, other.times, one == other, one == one) == (1, 0, False, True)


def test_patterns_match_by_position_and_name(given: ModuleType) -> None:
    assert given.where(given.Named("n", given.Point(1, 2))) == "n 1 2"
    assert given.where(given.Point(1, 2)) == ""


def test_members_of_an_enumeration_have_names_of_their_own(given: ModuleType) -> None:
    assert (given.OPEN, given.SHUT) == (given.State.OPEN, given.State.SHUT)


def test_exceptions_keep_their_cause(given: ModuleType) -> None:
    with pytest.raises(ValueError, match="b") as raised:
        given.fails(False)
    assert isinstance(raised.value.__cause__, KeyError)
    with pytest.raises(ValueError, match="b") as raised:
        given.fails(True)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_constants_are_final_but_for_types_and_tuples() -> None:
    lines = native(SOURCE)[0].splitlines()
    assert "LIMIT: Final = 5" in lines
    assert "OPEN: Final = State.OPEN" in lines
    for kept in ("DELAYS = (0.1, 0.2)", "T = list", "limit = 6", "class Open(Struct, dict=True):"):
        assert kept in lines


def test_every_line_knows_where_it_is_from() -> None:
    made, origins = native(SOURCE)
    before, after = SOURCE.splitlines(), made.splitlines()
    for text in ("self.times += 1", "return self.times", 'return ""', "raise KeyError("):
        line = next(number for number, one in enumerate(after, 1) if text.replace('"', "'") in one.replace('"', "'"))
        assert text in before[origins[line] - 1]
    cause = next(number for number, one in enumerate(after, 1) if "__cause__ = error" in one)
    assert "from error" in before[origins[cause] - 1]
