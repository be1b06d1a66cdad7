"""Counts of requests: plain attributes, incremented once per request and read when somebody looks."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")  # of statuses; none: the connection ended before an answer


class Traffic:
    """The requests of one kind since the start: those to one ExApp, or to none."""

    __slots__ = ("buckets", "classes", "received", "seconds", "sent")

    def __init__(self) -> None:
        self.classes = [0] * len(CLASSES)
        self.received = 0  # bytes of requests' bodies
        self.sent = 0  # bytes of answers' bodies
        self.seconds = 0.0  # from the heads of all requests to the ends of their answers, without upgraded streams
        self.buckets = [0] * (len(BOUNDS) + 1)  # the same: how many took up to each bound, and longer than all

    def count(self, status: int, received: int, sent: int, seconds: float) -> None:
        """Count a request that is over."""
        kind = status // 100
        self.classes[kind if kind < 6 else 5] += 1
        self.received += received
        self.sent += sent
        if kind != 1:  # an upgraded stream lasts for as long as its user stays
            self.seconds += seconds
            self.buckets[bisect_left(BOUNDS, seconds)] += 1

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(self.classes)
