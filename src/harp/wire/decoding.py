"""JSON from outside -> checked values, or one exception of the caller's choice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")


def decoded(body: bytes, shape: type[T], error: Callable[[Exception], Exception], *, strict: bool = True) -> T:
    """Read `body` as `shape`: the one place where JSON of strangers is decoded.

    Whatever is wrong with it, raises what `error` makes of the decoder's exception: msgspec.ValidationError for JSON
    of another shape, else not JSON, not UTF-8, or nested too deep. It has no cause, for the decoder's text may repeat
    a value: `error` decides what is shown. Without `strict`, numbers may be numeric strings and integral floats.
    """
    try:
        return msgspec.json.decode(body, type=shape, strict=strict)
    except (msgspec.MsgspecError, ValueError, RecursionError) as wrong:
        raise error(wrong) from None
