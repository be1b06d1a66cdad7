"""Tables for a terminal: columns are as wide as their contents, so that they never run together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from harp.status.snapshot import OfInstance

GAP = "  "


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return lines of text; the last column may be as long as it likes."""
    lines = [tuple(headers), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


L = TypeVar("L", bound=OfInstance)


def of_instances(headers: Sequence[str], lines: Sequence[L], row: Callable[[L], Sequence[str]]) -> str:
    """As `table`, with a first column for the Nextcloud where there are several."""
    if not any(line.instance for line in lines):
        return table(headers, map(row, lines))
    return table(("instance", *headers), [(line.instance or "none", *row(line)) for line in lines])


def ago(moment: float) -> str:
    """Return how long ago a moment in Unix seconds is, in one unit."""
    return span(max(0.0, time.time() - moment))


def span(seconds: float) -> str:
    """Return a duration in one unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds) // size} {unit}"
    return f"{int(seconds)} s"
