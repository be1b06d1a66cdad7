"""The last hour as numbers for plots: a few per ExApp and period, in rings that never grow.

Nothing is counted here: each period it reads the counts of `frontend.traffic`, and stores the increase.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from harp.frontend.traffic import BOUNDS, Traffic

PERIOD = 5.0  # seconds
LENGTH = 720  # periods, an hour
MOST_APPS = 128  # with a ring of their own: 14 kB each
ALL = ""  # the name of everything together; ExApps have none that is empty
NOTHING = -1.0  # in rings of durations: no request ended


class Points(Struct, frozen=True):
    """What a plot shows, oldest first: one item per period in every list."""

    times: list[float]  # Unix seconds
    requests: list[float]  # per second
    errors: list[float]  # per second: 5xx, and connections that ended without an answer
    p50: list[float | None]  # seconds; None = no request ended
    p95: list[float | None]
    sent: list[float]  # bytes per second


class History:
    """Samples the counts. Timed: `deadline` and `expired` are for `net.deadlines`."""

    def __init__(
        self, counts: Callable[[], Iterable[tuple[str, Traffic]]], clock: Callable[[], float], now: float
    ) -> None:
        """`counts` names every Traffic, ALL those of no ExApp. `clock` is wall time, `now` that of deadlines."""
        self._counts = counts
        self._clock = clock
        self._times = array("d", bytes(8 * LENGTH))
        self._rings: dict[str, _Ring] = {ALL: _Ring()}
        self._next = 0  # where the next sample goes
        self._filled = 0
        self.samples = 0  # since the start
        self.deadline = now + PERIOD

    def expired(self) -> None:
        """Take a sample."""
        self.deadline += PERIOD
        self.sample()

    def sample(self) -> None:
        """Note what has happened since the last sample."""
        at = self._next
        self._times[at] = self._clock()
        total = _Counts()
        for app, traffic in self._counts():
            counts = _Counts.of(traffic)
            total.add(counts)
            if app == ALL:
                continue
            ring = self._rings.get(app)
            if ring is None and counts.requests and len(self._rings) <= MOST_APPS:
                ring = self._rings[app] = _Ring()
            if ring is not None:
                ring.put(at, counts)
        self._rings[ALL].put(at, total)
        self._next = (at + 1) % LENGTH
        self._filled = min(self._filled + 1, LENGTH)
        self.samples += 1

    def points(self, app: str = ALL, last: int = LENGTH) -> Points:
        """Return the `last` samples of an ExApp, or of everything."""
        count = min(last, self._filled)
        places = [(self._next - count + step) % LENGTH for step in range(count)]
        ring = self._rings.get(app) or _EMPTY
        return Points(
            times=[self._times[place] for place in places],
            requests=[ring.requests[place] / PERIOD for place in places],
            errors=[ring.errors[place] / PERIOD for place in places],
            p50=[_known(ring.p50[place]) for place in places],
            p95=[_known(ring.p95[place]) for place in places],
            sent=[ring.sent[place] / PERIOD for place in places],
        )


class _Counts:
    """The counts of one Traffic at one moment."""

    __slots__ = ("buckets", "errors", "requests", "sent")

    def __init__(self) -> None:
        self.requests = self.errors = self.sent = 0
        self.buckets = [0] * (len(BOUNDS) + 1)

    @classmethod
    def of(cls, traffic: Traffic) -> _Counts:
        counts = cls()
        counts.requests = traffic.requests
        counts.errors = traffic.classes[0] + traffic.classes[5]
        counts.sent = traffic.sent
        counts.buckets = list(traffic.buckets)
        return counts

    def add(self, other: _Counts) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.sent += other.sent
        self.buckets = [mine + more for mine, more in zip(self.buckets, other.buckets, strict=True)]


class _Ring:
    """The samples of one ExApp, or of everything."""

    __slots__ = ("before", "errors", "p50", "p95", "requests", "sent")

    def __init__(self) -> None:
        self.requests, self.errors, self.sent = (array("f", bytes(4 * LENGTH)) for _ in range(3))
        self.p50, self.p95 = (array("f", [NOTHING]) * LENGTH for _ in range(2))
        self.before = _Counts()

    def put(self, at: int, counts: _Counts) -> None:
        before = self.before
        self.requests[at] = max(0, counts.requests - before.requests)
        self.errors[at] = max(0, counts.errors - before.errors)
        self.sent[at] = max(0, counts.sent - before.sent)
        grown = [new - old for new, old in zip(counts.buckets, before.buckets, strict=True)]
        self.p50[at] = quantile(grown, 0.5)
        self.p95[at] = quantile(grown, 0.95)
        self.before = counts


_EMPTY = _Ring()


def quantile(buckets: Sequence[int], share: float) -> float:
    """Estimate the seconds that `share` of the requests stayed below; NOTHING without requests.

    As Prometheus does: evenly spread within a bucket, and the largest bound for what is beyond it.
    """
    total = sum(buckets)
    if total <= 0:
        return NOTHING
    wanted, below, lower = share * total, 0, 0.0
    for count, bound in zip(buckets, BOUNDS, strict=False):
        if count and below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below += count
        lower = bound
    return BOUNDS[-1]


def _known(value: float) -> float | None:
    return None if value == NOTHING else value
