"""The ban list: who has had too many strikes lately. In memory, for one process; members tell each other."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from itertools import islice

from msgspec import Struct

from harp.settings import Bans

SAME = 1.0  # seconds that the times of one strike may differ at two members
CAPACITY = 65536  # addresses; the one that was struck longest ago is forgotten first


class Ban(Struct, frozen=True):
    """An address that is banned now."""

    address: str
    seconds: float  # until it is served again
    reason: str  # of the last strike


class Struckness(Struct, frozen=True):
    """What is remembered of an address."""

    address: str
    reason: str
    factor: int  # how many times as many strikes as usual it may have
    ages: tuple[float, ...]  # seconds since each strike, the oldest first


class _Strikes:
    """The latest strikes of one address."""

    __slots__ = ("reason", "times")

    def __init__(self, count: int) -> None:
        self.times: deque[float] = deque(maxlen=count)
        self.reason = ""


class BanList:
    """Counts strikes in a sliding window: each ages out on its own, a ban ends when fewer than `count` remain."""

    def __init__(self, bans: Bans, now: Callable[[], float], capacity: int = CAPACITY) -> None:
        self._count = bans.count
        self._window = bans.window
        self._now = now
        self._capacity = capacity
        self._records: OrderedDict[str, _Strikes] = OrderedDict()  # in the order of the last strike
        self._ends: list[tuple[float, str]] = []  # heap of the bans that were not reported as ended
        self._banned: set[str] = set()  # who is in it

    def seconds(self, address: str) -> float:
        """Until `address` is served again; 0.0 = it is not banned."""
        record = self._records.get(address)
        return 0.0 if record is None else self._left(record)

    def strike(self, address: str, reason: str, factor: int = 1) -> bool:
        """Count one strike, of `factor` times as many as usual. True if it has started a ban."""
        if self._count <= 0:
            return False
        record = self._records.pop(address, None) or _Strikes(self._count * factor)
        before = self._left(record)
        record.times.append(self._now())
        return self._counted(address, record, reason, before)

    def add(self, address: str, reason: str, factor: int, ages: Sequence[float], *, again: bool = False) -> bool:
        """Count strikes that others have counted, `ages` seconds ago. True if they have started a ban.

        If they were perhaps told `again`, those that are known already do not count twice.
        """
        if self._count <= 0 or not ages:
            return False
        now = self._now()
        record = self._records.pop(address, None) or _Strikes(self._count * factor)
        before = self._left(record)
        limit = record.times.maxlen
        times = [now - max(0.0, age) for age in ages]
        if again:
            times = _unknown(times, record.times)
        record.times = deque(sorted((*record.times, *times)), limit)
        return self._counted(address, record, reason, before)

    def _counted(self, address: str, record: _Strikes, reason: str, before: float) -> bool:
        record.reason = reason
        self._records[address] = record
        self._forget()
        if before > 0.0 or self._left(record) <= 0.0:
            return False
        if address not in self._banned:
            self._banned.add(address)
            heappush(self._ends, (record.times[0] + self._window, address))
        return True

    def latest(self, most: int) -> list[Struckness]:
        """Return the strikes of up to `most` addresses, those that were struck last."""
        now = self._now()
        addresses = list(islice(reversed(self._records), most))
        return [
            Struckness(
                address,
                record.reason,
                max(1, (record.times.maxlen or 0) // max(1, self._count)),
                tuple(now - time for time in record.times),
            )
            for address in reversed(addresses)
            if (record := self._records[address]).times[-1] > now - self._window
        ]

    def lift(self, address: str) -> bool:
        """Forgive all strikes. False if there were none."""
        self._banned.discard(address)
        return self._records.pop(address, None) is not None

    @property
    def banned(self) -> int:
        """How many bans have begun and were neither lifted nor reported as ended."""
        return len(self._banned)

    def ended(self) -> list[str]:
        """Return the addresses whose ban has ended, each reported once. A lifted ban is not one of them."""
        now, over = self._now(), []
        while self._ends and self._ends[0][0] <= now:
            address = heappop(self._ends)[1]
            left = self.seconds(address)
            if left > 0.0:  # there were more strikes
                heappush(self._ends, (now + left, address))
            elif address in self._banned:
                self._banned.discard(address)
                over.append(address)
        return over

    def next_end(self) -> float:
        """When to ask for `ended`, on the clock of `now`; infinite without a ban."""
        return self._ends[0][0] if self._ends else float("inf")

    def list(self) -> list[Ban]:
        """Return every ban now, the longest last."""
        bans = [
            Ban(address, seconds, record.reason)
            for address, record in self._records.items()
            if (seconds := self._left(record)) > 0.0
        ]
        return sorted(bans, key=lambda ban: ban.seconds)

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._records)

    def _left(self, record: _Strikes) -> float:
        if len(record.times) < (record.times.maxlen or 0):
            return 0.0
        return max(0.0, record.times[0] + self._window - self._now())

    def _forget(self) -> None:
        """Drop the addresses whose strikes are all too old, and the oldest when there are too many."""
        limit = self._now() - self._window
        while self._records:
            address = next(iter(self._records))
            if self._records[address].times[-1] > limit and len(self._records) <= self._capacity:
                return
            del self._records[address]


def _unknown(times: Sequence[float], known: Iterable[float]) -> list[float]:
    """Return those that are not the times of known strikes."""
    left, unknown = list(known), []
    for time in times:
        nearest = min(left, key=lambda one: abs(one - time), default=None)
        if nearest is not None and abs(nearest - time) <= SAME:
            left.remove(nearest)
        else:
            unknown.append(time)
    return unknown
