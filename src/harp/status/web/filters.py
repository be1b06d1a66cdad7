"""Numbers and times, formatted for people."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from harp.frontend.traffic import BOUNDS
from harp.status.history import NOTHING, quantile
from harp.status.snapshot import DurationsLine, TrafficLine

NONE = "–"
WIDTH, HEIGHT = 120.0, 28.0  # of a sparkline, in its own units
WAITS = {"nextcloud": "Asking Nextcloud", "tunnel": "Waiting for the tunnel", "connect": "Connecting"}


def span(seconds: float) -> str:
    """Return a duration in one unit, or the two largest."""
    seconds = max(0.0, seconds)
    for unit, size, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            return f"{whole} {unit} {rest // part} {below}" if whole < 10 and rest >= part else f"{whole} {unit}"
    return f"{int(seconds)} s"


def ago(moment: float | None) -> str:
    """Return how long ago a moment is, in Unix seconds."""
    if moment is None:
        return "never"
    seconds = time.time() - moment
    return "just now" if seconds < 2 else f"{span(seconds)} ago"


def duration(seconds: float | None) -> str:
    """Return a short duration: "0.4 ms", "12 ms", "1.3 s"."""
    if seconds is None or seconds == NOTHING:
        return NONE
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else span(seconds)


def size(count: float) -> str:
    """Return bytes in decimal units: "12 kB"."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def number(count: float) -> str:
    """Return a count with thin spaces between thousands."""
    return f"{count:,.0f}".replace(",", "\u202f")


def rate(value: float) -> str:
    """Return a number per second."""
    return "0" if value == 0 else f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else number(value)


def moment(seconds: float) -> str:
    """Return a moment as HTML's <time> wants it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def clock(seconds: float) -> str:
    """Return the time of day, in this host's zone."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def day(seconds: float) -> str:
    """Return a date."""
    return time.strftime("%Y-%m-%d", time.localtime(seconds))


def requests_of(traffic: TrafficLine) -> int:
    """Return how many requests there were."""
    return sum(traffic.statuses.values())


def errors_of(traffic: TrafficLine) -> int:
    """Return how many of them were our errors, the ExApp's, or had no answer."""
    return traffic.statuses.get("5xx", 0) + traffic.statuses.get("none", 0)


def quantile_of(traffic: TrafficLine | DurationsLine, share: float) -> str:
    """Return what `share` of the requests since the start stayed below."""
    return duration(quantile(traffic.buckets, share))


def steps(traffic: TrafficLine) -> list[tuple[str, DurationsLine]]:
    """Return what requests have waited for, in the order in which they do."""
    found = [(name, traffic.waits[what]) for what, name in WAITS.items() if what in traffic.waits]
    if traffic.first_bytes is not None:
        found.append(("Until the first byte", traffic.first_bytes))
    return [*found, ("Whole", DurationsLine(traffic.seconds, traffic.buckets))]


def spark(values: Sequence[float | None]) -> str:
    """Return the path of a sparkline, for the attribute `d`; "" with less than two values."""
    known = [value or 0.0 for value in values]
    if len(known) < 2:
        return ""
    top = max(known) or 1.0
    step = WIDTH / (len(known) - 1)
    points = (f"{at * step:.1f} {HEIGHT - 1 - (HEIGHT - 3) * value / top:.1f}" for at, value in enumerate(known))
    return "M" + "L".join(points)


def histogram(traffic: TrafficLine) -> list[tuple[str, int, float]]:
    """Return the buckets of a histogram that are worth showing: label, count, share of the largest."""
    labels = [f"≤ {duration(bound)}" for bound in BOUNDS] + [f"> {duration(BOUNDS[-1])}"]
    largest = max(traffic.buckets) or 1
    return [(label, count, count / largest) for label, count in zip(labels, traffic.buckets, strict=True) if count]


FILTERS: dict[str, Callable[..., object]] = {
    "ago": ago,
    "clock": clock,
    "day": day,
    "duration": duration,
    "errors_of": errors_of,
    "histogram": histogram,
    "moment": moment,
    "number": number,
    "quantile_of": quantile_of,
    "rate": rate,
    "requests_of": requests_of,
    "size": size,
    "span": span,
    "spark": spark,
    "steps": steps,
}
