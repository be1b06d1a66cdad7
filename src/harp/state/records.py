"""What is known of ExApps: their records, and which ids are none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from harp.policy.exapp import ExApp, UnknownApp

UNKNOWN_LIFETIME = 15.0  # seconds an unknown id is not asked for again
UNKNOWN_CAPACITY = 4096  # ids; scanners try many
CAPACITY = 4096  # records; the one that was learnt longest ago goes first
RETRY = 5.0  # seconds between two attempts to refresh one record


class _Entry:
    __slots__ = ("due", "record", "tried")

    def __init__(self, record: ExApp, due: float) -> None:
        self.record = record
        self.due = due  # when to ask Nextcloud again
        self.tried = float("-inf")  # when that was last begun


class RecordCache:
    """Records are served for as long as nothing newer is known, and are due for a refresh after `lifetime` seconds.

    What the control API says wins over an answer of Nextcloud that was asked for earlier: see `changes`.
    """

    def __init__(
        self,
        lifetime: float,
        now: Callable[[], float],
        capacity: int = CAPACITY,
        unknown_capacity: int = UNKNOWN_CAPACITY,
    ) -> None:
        self._lifetime = lifetime
        self._now = now
        self._capacity = capacity
        self._unknown_capacity = unknown_capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._unknown: OrderedDict[str, tuple[float, UnknownApp]] = OrderedDict()  # with expiry, in the order of expiry
        self.changes = 0  # counts put() and delete()

    def get(self, app_id: str) -> ExApp | UnknownApp | None:
        """Return what is known of an id."""
        entry = self._entries.get(app_id)
        if entry is not None:
            return entry.record
        unknown = self._unknown.get(app_id)
        return unknown[1] if unknown is not None and self._now() < unknown[0] else None

    def put(self, record: ExApp) -> None:
        """Take a record from the control API."""
        self.changes += 1
        self.learn(record.app_id, record)

    def delete(self, app_id: str) -> bool:
        """Forget a record at the control API's word. False if there was none."""
        self.changes += 1
        self._unknown.pop(app_id, None)
        return self._entries.pop(app_id, None) is not None

    def learn(self, app_id: str, fact: ExApp | UnknownApp) -> None:
        """Take Nextcloud's answer. An equal record keeps its identity, and with it its compiled routes."""
        if isinstance(fact, UnknownApp):
            self._entries.pop(app_id, None)
            self._unknown.pop(app_id, None)
            self._unknown[app_id] = (self._now() + UNKNOWN_LIFETIME, fact)
            self._forget_unknown()
            return
        self._unknown.pop(app_id, None)
        known = self._entries.pop(app_id, None)
        record = known.record if known is not None and known.record == fact else fact
        self._entries[app_id] = _Entry(record, self._now() + self._lifetime)
        if len(self._entries) > self._capacity:
            del self._entries[next(iter(self._entries))]

    def move(self, record: ExApp) -> None:
        """Its address has changed, and nothing else: when to ask Nextcloud again stays as it is."""
        entry = self._entries.get(record.app_id)
        if entry is not None:
            entry.record = record

    def doubt(self, app_id: str) -> bool:
        """Something speaks against a record (its address does not answer): have it refreshed soon.

        False if that is due already, or there is none.
        """
        entry = self._entries.get(app_id)
        if entry is None or entry.due <= self._now():
            return False
        entry.due = self._now()
        return True

    def take_due(self, app_id: str) -> bool:
        """Return whether it is time to refresh this record: once per attempt, and at most every RETRY seconds."""
        entry = self._entries.get(app_id)
        if entry is None:
            return False
        now = self._now()
        if now < entry.due or now < entry.tried + RETRY:
            return False
        entry.tried = now
        return True

    def list(self) -> list[ExApp]:
        """Return every record, by id."""
        return [self._entries[app_id].record for app_id in sorted(self._entries)]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._entries)

    def _forget_unknown(self) -> None:
        now = self._now()
        while self._unknown:
            oldest = next(iter(self._unknown))
            if self._unknown[oldest][0] > now and len(self._unknown) <= self._unknown_capacity:
                return
            del self._unknown[oldest]
