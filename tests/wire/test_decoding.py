"""JSON of strangers: a value of the shape, or the caller's own exception."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Struct

from harp.errors import PeerError
from harp.wire.decoding import decoded


class Point(Struct):
    x: int
    name: str = ""
    more: object = None


def refused(error: Exception) -> PeerError:
    return PeerError(f"frp: {error}")


def test_json_of_the_shape_is_a_value_of_the_shape() -> None:
    assert decoded(b'{"x": 1, "unknown": []}', Point, refused) == Point(1)


def test_numbers_may_be_text_where_that_is_allowed() -> None:
    assert decoded(b'{"x": "1"}', Point, refused, strict=False) == Point(1)
    with pytest.raises(PeerError, match="frp: Expected `int`, got `str`"):
        decoded(b'{"x": "1"}', Point, refused)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b'{"x": 1e999}',
        b'{"x": 1, "name": "\xff"}',
        b'{"x": 1, "name": "\\ud800"}',
        b'\xff\xfe{\x00"\x00',
        b"\xef\xbb\xbf{}",
        b'{"x": 1, "more": ' + b"[" * 100_000,
        b'{"x": 1, "more": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_every_other_bytes_are_the_callers_exception_and_nothing_else(body: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        decoded(body, Point, refused)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_caller_can_tell_another_shape_from_what_is_not_json() -> None:
    def kind(error: Exception) -> Exception:
        return KeyError() if isinstance(error, msgspec.ValidationError) else IndexError()

    with pytest.raises(KeyError):
        decoded(b'{"x": []}', Point, kind)
    with pytest.raises(IndexError):
        decoded(b"not JSON", Point, kind)
