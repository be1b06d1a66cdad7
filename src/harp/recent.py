"""What was learnt lately, in a dict of limited size: what was learnt first is forgotten first."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

SHARE = 8  # an eighth goes at a time: to find the first one costs more, the more have gone before it

K = TypeVar("K")
V = TypeVar("V")


def remember(known: dict[K, V], key: K, value: V, most: int) -> None:
    """Add what is known from now on. Where that would be more than `most`, an eighth of them goes before."""
    if len(known) >= most and key not in known:
        for first in list(islice(known, most // SHARE or 1)):
            del known[first]
    known[key] = value
