"""What readiness is made of."""

from __future__ import annotations

from msgspec import Struct


class Condition(Struct, frozen=True):
    """One thing that must hold, and what there is to say about it."""

    ok: bool
    detail: str
