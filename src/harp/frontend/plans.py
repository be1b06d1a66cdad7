"""Decisions that are asked for again and again, kept for as long as nothing can have changed."""

from __future__ import annotations

from msgspec import Struct

from harp.net.deadlines import Deadlines
from harp.policy.paths import CACHED_PATH
from harp.policy.verdict import Forward
from harp.proxy.forward import Hop

CAPACITY = 4096  # plans


class Plan(Struct, frozen=True):
    """A verdict, and what follows from it for every such request."""

    verdict: Forward
    hop: Hop
    identity: bytes  # the header lines that the ExApp trusts

    def __repr__(self) -> str:
        return f"Plan({self.verdict!r})"


class Plans:
    """Plans by caller and path. They live until the next tick of the clock or the next version of the facts.

    So a session or a record is believed for at most one tick longer than it should be, and a change at once.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._made = deadlines.now
        self._version = 0
        self._plans: dict[tuple[bytes, bytes], Plan] = {}

    def find(self, version: int, caller: bytes, path: bytes) -> Plan | None:
        """The plan for this caller and raw path, if there is one that was made from this version of the facts."""
        if version != self._version or self._deadlines.now != self._made:
            self._plans.clear()
            self._version, self._made = version, self._deadlines.now
            return None
        return self._plans.get((caller, path))

    def keep(self, caller: bytes, path: bytes, plan: Plan) -> None:
        """Keep what was made right after `find` has found nothing."""
        if len(path) <= CACHED_PATH and len(self._plans) < CAPACITY:
            self._plans[caller, path] = plan
