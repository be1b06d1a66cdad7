"""When not to call Nextcloud: it has just failed, and one call is enough to find out whether it still does."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from msgspec import Struct

from harp.policy.exapp import Trouble

RETRY = 2.0  # seconds after a failed connect in which nobody tries again
STALE = 30.0  # seconds after a call without an answer in which only probes try again; later that is old news
LIVELY = 2.0  # seconds after an answer in which Nextcloud is taken to be there


class Belief(Enum):
    """The assumed state of Nextcloud."""

    UP = auto()
    REFUSING = auto()  # no connection could be made: one call at a time tries again, RETRY seconds after the last
    HANGING = auto()  # a call was not answered in time: only probes go on trying, for a visitor would wait long; but
    # where nobody comes, nobody probes: the first visitor after STALE seconds is not told what was


class Attempt(Struct, eq=False):
    """A call that was let through."""

    began: float
    alone: bool  # it is the one that tries again


class Breaker:
    """Lets calls through, or answers them with the failure of another one. Any answer closes it."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.state = Belief.UP
        self._now = now
        self._trouble = Trouble("Nextcloud has not been asked yet")
        self._trying = False
        self._retry_at = 0.0
        self._answered = float("-inf")  # when the last answer came
        self._under_way = 0

    def trouble(self, *, probe: bool = False) -> Trouble | None:
        """Return why not to call now."""
        match self.state:
            case Belief.UP:
                return None
            case Belief.HANGING if probe:
                return None
            case _:
                return self._trouble if self._trying or self._now() < self._retry_at else None

    def enter(self, *, probe: bool = False) -> Attempt | Trouble:
        """Return an attempt, to `leave` afterwards, or the reason for not calling now."""
        trouble = self.trouble(probe=probe)
        if trouble is not None:
            return trouble
        alone = self.state is Belief.REFUSING or (self.state is Belief.HANGING and not probe)
        if alone:
            self._trying = True
        self._under_way += 1
        return Attempt(self._now(), alone)

    def leave(self, attempt: Attempt) -> None:
        """A call is over, however it ended."""
        self._under_way -= 1
        if attempt.alone:
            self._trying = False

    def is_lively(self) -> bool:
        """Return whether other calls are answered now. Then a failed connect is an exception."""
        return self._answered > self._now() - LIVELY or (self.state is Belief.UP and self._under_way > 0)

    def answered(self) -> None:
        """An answer came, whatever it says."""
        self.state = Belief.UP
        self._answered = self._now()

    def failed(self, state: Belief, trouble: Trouble, began: float) -> bool:
        """Note that a call found Nextcloud in `state`. Return False if others have had answers since it began."""
        if self._answered > began:
            return False
        self.state, self._trouble = state, trouble
        self._retry_at = self._now() + (STALE if state is Belief.HANGING else RETRY)
        return True
