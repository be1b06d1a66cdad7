"""Counts of requests: plain attributes, incremented once per request and read when somebody looks."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")  # of statuses; none: the connection ended before an answer


class Durations:
    """How long something took: all together, and how many took up to each of BOUNDS, and longer than all."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)

    def add(self, seconds: float, times: int = 1) -> None:
        """Count one; `times` is -1 to take one back."""
        self.seconds += times * seconds
        self.buckets[bisect_left(BOUNDS, seconds)] += times


NONE_EARLY = Durations()


class Traffic:
    """The requests of one kind since the start: those to one ExApp, or to none."""

    __slots__ = ("answered", "buckets", "classes", "early", "received", "seconds", "sent", "waits")

    def __init__(self) -> None:
        self.classes = [0] * len(CLASSES)
        self.received = 0  # bytes of requests' bodies
        self.sent = 0  # bytes of answers' bodies
        self.seconds = 0.0  # from the heads of all requests to the ends of their answers, without upgraded streams
        self.buckets = [0] * (len(BOUNDS) + 1)  # the same: how many took up to each bound, and longer than all
        self.waits: dict[str, Durations] = {}  # of those that had to wait, by what for
        self.answered = 0.0  # monotonic time of the last request that was answered, and not by us or with a 5xx
        self.early: Durations | None = None  # what first bytes came earlier than ends: added to the durations above

    def count(self, status: int, received: int, sent: int, seconds: float) -> None:
        """Count a request that is over."""
        kind = status // 100
        self.classes[kind if kind < 6 else 5] += 1
        self.sent += sent
        if received:
            self.received += received
        if kind != 1:  # an upgraded stream lasts for as long as its user stays
            self.seconds += seconds
            self.buckets[bisect_left(BOUNDS, seconds)] += 1

    def count_waits(self, waits: dict[str, float]) -> None:
        """Count what a request had to wait for."""
        for what, seconds in waits.items():
            durations = self.waits.get(what)
            if durations is None:
                durations = self.waits[what] = Durations()
            durations.add(seconds)

    def count_early(self, first: float, seconds: float) -> None:
        """Count an answer whose first byte came before its end: most come whole, and cost nothing here."""
        if self.early is None:
            self.early = Durations()
        self.early.add(first)
        self.early.add(seconds, -1)

    @property
    def first_bytes(self) -> Durations:
        """From the heads of requests to the first bytes of their answers."""
        durations, early = Durations(), self.early or NONE_EARLY
        durations.seconds = self.seconds + early.seconds
        durations.buckets = [whole + moved for whole, moved in zip(self.buckets, early.buckets, strict=True)]
        return durations

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.classes)
